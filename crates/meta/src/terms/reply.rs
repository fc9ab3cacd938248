//! Every output of the state machine: the reply to the proposer, and what happened, for whoever
//! follows the journal. Plain values; they must not know who listens.

use super::commit::FileReply;
use super::group;
use super::ids::{AgentId, Incarnation, PartitionId, ProducerId, TopicId};
use super::places::{Fate, FileRef, SlicePlace};
use super::refusal::TopicRefusal;

pub use super::refusal::Refusal;

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
        refused: Vec<(FileRef, Fate)>,
    },
    /// To a command about members or features that was refused: nothing changed.
    Refused(Refusal),
    /// To a command for a consumer group.
    Group(group::Reply),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A slice was appended to a partition.
    Advanced {
        partition: PartitionId,
        /// The offset after the slice.
        high_watermark: i64,
        place: SlicePlace,
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
