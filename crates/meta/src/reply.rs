//! Every output of the state machine: the reply to the proposer, and what happened, for whoever
//! follows the journal. Plain values; they must not know who listens.

use crate::commit::FileReply;
use crate::file::Fate;
use crate::group;
use crate::ids::{AgentId, FileId, Incarnation, PartitionId, ProducerId, TopicId};
use crate::topic::Refusal as TopicRefusal;

/// What applying one command came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// For whoever proposed the command.
    pub reply: Reply,
    /// For everyone, in the order in which it happened.
    pub events: Vec<Event>,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To a command that has nothing to tell.
    Done,
    /// To `RegisterAgent`.
    Registered {
        /// The agent's node id.
        agent: AgentId,
        /// The incarnation under which it names files.
        incarnation: Incarnation,
    },
    /// To `CommitFile` and `SkipFile`.
    File(FileReply),
    /// To a command about a topic or about configs that was accepted.
    Topic {
        /// The topic; zero for the cluster's configs.
        id: TopicId,
    },
    /// To a command about a topic or about configs that was refused: nothing changed.
    TopicRefused(TopicRefusal),
    /// To `AllocateProducer`.
    Producer { id: ProducerId, epoch: i16 },
    /// To `Housekeep`.
    Housekept {
        /// There is more to do now: propose it again.
        more: bool,
    },
    /// To `FilesDeleted`.
    Forgotten {
        /// Files that were not forgotten, since they are not tombstoned or not past the grace.
        refused: Vec<(FileId, Fate)>,
    },
    /// To a command about members or features that was refused: nothing changed.
    Refused(Refusal),
    /// To a command for a consumer group.
    Group(group::Reply),
}

/// Why a command about members or features was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The cluster is at a level that the process does not support.
    #[error(
        "the cluster is at feature level {level}, which this process does not support: run a newer version"
    )]
    LevelUnsupported { level: u32 },
    /// Levels are never taken back.
    #[error("the cluster is at feature level {level} already")]
    LevelBehind { level: u32 },
    /// A registered process does not support the level.
    #[error("{name} supports feature levels only up to {supported}: upgrade or remove it first")]
    LevelAhead {
        /// The agent or control node.
        name: String,
        supported: u32,
    },
    /// The incarnation was never registered, or is forgotten.
    #[error("there is no such incarnation")]
    UnknownIncarnation,
    /// There is no control node of that name.
    #[error("there is no control node of that name")]
    UnknownControlNode,
    /// The nonce belongs to an earlier run of this agent that was fenced since.
    #[error("this run of the agent was fenced: start again with a new nonce")]
    Fenced,
    /// A name is empty or too long, or a bucket's number or the number of copies is out of range.
    #[error("{what}")]
    Invalid {
        /// What is wrong, for people.
        what: &'static str,
    },
    /// A counter has come to its end: more than 2^47 of something were made.
    #[error("no more {what} can be numbered")]
    Exhausted { what: &'static str },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A slice was appended to a partition.
    Advanced {
        partition: PartitionId,
        /// The offset after the slice.
        high_watermark: i64,
        place: crate::query::SlicePlace,
    },
    /// The first offset that can be read has moved.
    LogStart {
        partition: PartitionId,
        /// The first offset that can be read.
        log_start: i64,
    },
    /// Topics were created, deleted or changed; without ids, the cluster's configs were.
    TopicsChanged { ids: Vec<TopicId> },
    /// An agent came, changed or was fenced.
    AgentsChanged,
    /// Files hold nothing that can be read any more.
    FilesTombstoned,
    /// Something happened to a group.
    Group(group::Event),
}
