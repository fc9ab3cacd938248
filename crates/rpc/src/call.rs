//! The calls of an agent, and what a control node returns: values that can be sent. The control
//! plane decides which answers must be current (`control::answer`); docs/rpc.md lists them.

use std::time::Duration;

use meta::command::Command;
use meta::commit::FileReply;
use meta::ids::{AgentId, FileId, Incarnation, PartitionId, ProducerId};
use meta::places::{Bounds, TimeQuery};
use meta::places::{Fate, FileRef, StoredFile, StoredFiles, WantedFiles};
use meta::places::{Located, SlicePlace};
use meta::view::ViewChange;

use crate::group::{GroupError, GroupReply, GroupRequest, Heartbeat};
use crate::peer::{Condition, Named, PeerRequest, Progress, Roster};
use crate::position::Position;

/// How long the leader keeps a call [`Call::Present`] open before it answers.
pub const PRESENT_HELD_FOR: Duration = Duration::from_secs(1);

/// What an agent asks of a control node. Where there is an `at`, the answer is given once the node
/// has applied the journal up to there.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Append this command to the journal. Repeating the call is safe: it has one effect.
    Propose(Box<Command>),
    /// Say what would come of this command, were it proposed now; current.
    Check(Box<Command>),
    /// Wait until an entry that was appended after the call is applied: reads at the answer's
    /// position, from any node, are current.
    Barrier,
    /// Topics and agents: what changed since the version that is known.
    View { known: Option<u64>, at: Position },
    /// Where records are.
    Locate { wanted: Vec<Locate>, at: Position },
    /// The bounds of partitions; current.
    Bounds(Vec<PartitionId>),
    /// The slice in which to look for a timestamp.
    FindTime {
        partition: PartitionId,
        query: TimeQuery,
        at: Position,
    },
    /// Files that a bucket may delete now, at most `limit`; current if the list is not empty.
    Collectable { bucket: u32, limit: u32 },
    /// Live files that a bucket lacks, at most `limit`, in the order of their commits: those after one, which is named by the wall
    /// time of its commit and its id.
    Short {
        bucket: u32,
        after: Option<(u64, FileId)>,
        limit: u32,
    },
    /// Live files, and how copies of them are known; of those in a bucket so many are looked at as the node sees fit.
    Stored(WantedFiles),
    /// What may be done with files found in a bucket; current.
    Fates(Vec<FileRef>),
    /// A request to the coordinator of a group; may take as long as a rebalance.
    Group(GroupRequest),
    /// Members of groups are alive: many at once, since they say so all the time.
    Heartbeats(Vec<Heartbeat>),
    /// The agent is there. The answer comes after a while, and the agent calls again; a leader that loses the call fences the
    /// agent unless it soon does.
    Present {
        incarnation: Incarnation,
        /// The buckets that it reaches: bit b for the one of number b.
        buckets: u64,
        /// Of its build, as `seaway --version` says it.
        version: String,
    },
    /// What control nodes ask of each other.
    Peer(PeerRequest),
    /// Say who leads: done if it is this node, else it says that it does not, and who does.
    WhoLeads,
}

/// A node's answer, and its position at that time.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub at: Position,
    pub value: Return,
}

/// The result of a [`Call`]. Lists are in the order of the call.
#[derive(Clone, Debug, PartialEq)]
pub enum Return {
    /// For a barrier, and for commands and checks without a result.
    Done,
    /// For `RegisterAgent`.
    Registered(Registered),
    /// For `CommitFile` and `SkipFile`.
    File(FileReply),
    /// For `AllocateProducer`.
    Producer {
        id: ProducerId,
        epoch: i16,
    },
    /// `None` if nothing has changed.
    View(Option<Box<ViewChange>>),
    Located(Vec<Located>),
    /// `None` for a partition that does not exist.
    Bounds(Vec<Option<Bounds>>),
    /// `None` if no record qualifies, or there is no such partition.
    Place(Option<SlicePlace>),
    Collectable(Vec<FileRef>),
    Fates(Vec<Fate>),
    /// For `Short`.
    Short {
        /// The wall time of the last entry that is known: no file is committed before it any more.
        wall_millis: u64,
        files: Vec<StoredFile>,
    },
    Stored(StoredFiles),
    Group(GroupReply),
    /// One outcome per member.
    Heartbeats(Vec<Result<(), GroupError>>),
    /// Which control node it is.
    Named(Named),
    /// Whether agents ask a control node for a leader.
    Asked(bool),
    /// How a control node is.
    Condition(Condition),
    /// Whether the node takes itself for able to store snapshots.
    CanStore(bool),
    /// How far it has applied the journal.
    Progress(Progress),
    /// The leader has lost another agent than the one that called.
    OneIsLost,
    /// What the leader has heard of the others.
    Roster(Box<Roster>),
}

impl Return {
    /// True if the node that gave it leads no more, and the call can be repeated at the one that does.
    pub fn is_of_no_coordinator(&self) -> bool {
        match self {
            Return::Group(reply) => reply.is_of_no_coordinator(),
            Return::Heartbeats(results) => results.contains(&Err(GroupError::NotCoordinator)),
            _ => false,
        }
    }
}

/// What to read of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locate {
    pub partition: PartitionId,
    /// The first offset wanted.
    pub offset: i64,
    /// Bytes after which no further slice is named; the first is always named.
    pub max_bytes: u64,
}

/// The ids that a registered agent is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub agent: AgentId,
    /// The incarnation under which the agent names files.
    pub incarnation: Incarnation,
    pub cluster_id: String,
}
