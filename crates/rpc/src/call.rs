//! The calls of an agent, and what a control node returns: values that can be sent. Which of them
//! must be current is decided by the control plane (`control::answer`), and told in docs/rpc.md.

use meta::FileReply;
use meta::command::Command;
use meta::ids::{AgentId, Incarnation, PartitionId, ProducerId};
use meta::terms::places::{Bounds, TimeQuery};
use meta::terms::view::ViewChange;
use meta::{Fate, FileRef};
use meta::{Located, SlicePlace};

use crate::group::{GroupReply, GroupRequest};

/// How far in the journal an answer, or what must be applied before one is given, has come: the
/// number of the last entry applied. Zero asks for whatever is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// What an agent asks of a control node. Where there is an `at`, the answer is given once the node
/// has applied the journal up to there.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Do this, in the journal. Repeating it is safe: it has one effect.
    Propose(Box<Command>),
    /// What would come of this, were it proposed now; current.
    Check(Box<Command>),
    /// Wait until an entry that was appended after the call is applied: what is read at the
    /// position of the answer, of any node, is current.
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
    /// Files that may be deleted now, at most `limit`; current, if there are any.
    Collectable { limit: u32 },
    /// What may be done with files found in a bucket; current.
    Fates(Vec<FileRef>),
    /// A request to the coordinator of a group; may take as long as a rebalance.
    Group(GroupRequest),
}

/// What a node returns, and where in the journal it had come to by then.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub at: Position,
    pub value: Return,
}

/// What comes of a [`Call`]. Lists are in the order of what was asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Return {
    /// To a barrier, and to commands and checks that have nothing more to tell.
    Done,
    /// To `RegisterAgent`.
    Registered(Registered),
    /// To `CommitFile` and `SkipFile`.
    File(FileReply),
    /// To `AllocateProducer`.
    Producer {
        id: ProducerId,
        epoch: i16,
    },
    /// `None` if nothing has changed.
    View(Option<Box<ViewChange>>),
    Located(Vec<Located>),
    /// `None` where there is no such partition.
    Bounds(Vec<Option<Bounds>>),
    /// `None` if no record qualifies, or there is no such partition.
    Place(Option<SlicePlace>),
    Collectable(Vec<FileRef>),
    Fates(Vec<Fate>),
    Group(GroupReply),
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

/// What a registered agent is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its Kafka node id.
    pub agent: AgentId,
    /// Its incarnation, under which it names files.
    pub incarnation: Incarnation,
    pub cluster_id: String,
}
