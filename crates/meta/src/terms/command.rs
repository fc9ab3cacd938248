//! Every input of the state machine. What a command does is in its noun's module; how it is
//! written is in [`crate::bytes::encoding`].

use std::collections::{BTreeMap, BTreeSet};

use super::commit::CommitFile;
use super::endpoint::Endpoint;
use super::group;
use super::ids::{FileId, Incarnation, ProducerId, TopicId};
use super::level::one;
use super::places::FileRef;

/// One command, as it stands in an entry of the journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A new run of an agent.
    RegisterAgent(RegisterAgent),
    /// Ends an incarnation: it commits nothing more.
    FenceAgent {
        incarnation: Incarnation,
    },
    /// An incarnation is about to end, and clients are to be sent to others.
    DrainAgent {
        incarnation: Incarnation,
    },
    /// Whether an incarnation reaches too few buckets, so that clients are to be sent to others.
    SetAgentCutOff {
        incarnation: Incarnation,
        cut_off: bool,
    },
    /// A durable file and what it holds.
    CommitFile(CommitFile),
    /// Gives up a file number: what the file would have held never is committed.
    SkipFile {
        file: FileId,
    },
    CreateTopic(CreateTopic),
    /// Deletes a topic and all its records.
    DeleteTopic {
        id: TopicId,
    },
    /// Raises the number of partitions of a topic.
    CreatePartitions {
        id: TopicId,
        /// How many it is to have.
        total: u32,
    },
    /// Changes the configs of a topic.
    SetTopicConfigs {
        id: TopicId,
        changes: ConfigChanges,
    },
    /// Changes the configs of the cluster.
    SetClusterConfigs {
        /// The version of the cluster's configs that this was made from, so that nobody takes back
        /// what he has not seen.
        replaces: u64,
        changes: ConfigChanges,
    },
    /// A new producer id with epoch 0, or the next epoch of a known one.
    AllocateProducer {
        known: Option<(ProducerId, i16)>,
    },
    /// One bounded step of retention, expiry and deletion; repeat it while the reply says that
    /// there is more.
    Housekeep,
    /// Tombstoned files that are gone from a bucket.
    FilesDeleted {
        /// The bucket's number.
        bucket: u32,
        files: BTreeSet<FileRef>,
    },
    /// Files that a bucket holds beside those that held them when they were committed.
    AddCopies {
        /// The bucket's number.
        bucket: u32,
        files: BTreeSet<FileRef>,
    },
    DropCopies(DropCopies),
    BucketCompared(BucketCompared),
    /// A bucket is away for long, so that nothing waits for it; or it is not.
    MarkBucket {
        bucket: u32,
        is_away: bool,
    },
    /// A run of a control node, and what it supports.
    RegisterControlNode(ControlNode),
    /// A run of a control node that will not come back; a later run of the name stays.
    RemoveControlNode {
        name: String,
        nonce: u128,
    },
    /// Switches on behaviour that every registered process supports.
    SetFeatureLevel {
        level: u32,
    },
    /// Which buckets there are, and how many failure domains a file must be in.
    SetPlacement(Placement),
    /// Sets the time of the journal back to this wall time, by an operator's word, since stamps have run ahead.
    SetTime {
        wall_millis: u64,
    },
    /// A command for a consumer group.
    Group(group::Command),
}

impl Command {
    /// Bytes that were stored for the command before it is proposed, and that it is about.
    pub fn stored_bytes(&self) -> u64 {
        match self {
            Command::CommitFile(file) => file.length,
            _ => 0,
        }
    }

    /// The level that introduced the command, or a field that is set in it. A command that is added
    /// has to be added here.
    pub fn since(&self) -> u32 {
        match self {
            Command::RegisterAgent(_)
            | Command::FenceAgent { .. }
            | Command::DrainAgent { .. }
            | Command::SetAgentCutOff { .. }
            | Command::CommitFile(_)
            | Command::SkipFile { .. }
            | Command::CreateTopic(_)
            | Command::DeleteTopic { .. }
            | Command::CreatePartitions { .. }
            | Command::SetTopicConfigs { .. }
            | Command::SetClusterConfigs { .. }
            | Command::AllocateProducer { .. }
            | Command::Housekeep
            | Command::FilesDeleted { .. }
            | Command::AddCopies { .. }
            | Command::DropCopies(_)
            | Command::BucketCompared(_)
            | Command::MarkBucket { .. }
            | Command::RegisterControlNode(_)
            | Command::RemoveControlNode { .. }
            | Command::SetFeatureLevel { .. }
            | Command::SetPlacement(_)
            | Command::SetTime { .. } => one::LEVEL.number,
            Command::Group(command) => match command.action {
                group::Action::Join(_)
                | group::Action::CompleteJoin { .. }
                | group::Action::Sync(_)
                | group::Action::Leave(_)
                | group::Action::Expire(_)
                | group::Action::MarkSilence { .. }
                | group::Action::Commit(_)
                | group::Action::Delete => one::LEVEL.number,
            },
        }
    }
}

/// A new run of an agent. It fences earlier runs of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterAgent {
    /// New for every run, so that a repeated command is known as one.
    pub nonce: u128,
    /// The agent's own name; its node id follows it.
    pub name: String,
    /// Where clients connect to it, by the name of the listener that they use; at least one.
    pub listeners: BTreeMap<String, Endpoint>,
    pub region: String,
    pub zone: String,
    /// Where other agents of its zone ask it for parts of files, as HOST:PORT; empty if it offers none.
    pub neighbour_address: String,
    /// The highest feature level it supports.
    pub level: u32,
}

/// Files of which a bucket holds no copy, or a damaged one, though it is known to hold one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropCopies {
    /// Who says so; it has no effect once it is fenced.
    pub by: Incarnation,
    /// The bucket's number.
    pub bucket: u32,
    /// The bucket has nothing under the names of these files. Else it has something other than was written, and who says so has read
    /// another copy of each, whole.
    pub is_missing: bool,
    pub files: BTreeSet<FileRef>,
}

/// The files of a suspect bucket have been compared with what it holds: those of which it lacks a copy are told, and it counts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketCompared {
    /// Who says so; it has no effect once it is fenced.
    pub by: Incarnation,
    /// The bucket's number.
    pub bucket: u32,
    /// Since when it was suspect, in ticks: the comparison that is over is not that of a later suspicion.
    pub since_ticks: u64,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    /// Its id: random, never used before, not zero.
    pub id: TopicId,
    pub name: String,
    /// Number of partitions, at least 1.
    pub partitions: u32,
    /// Configs set on the topic.
    pub configs: BTreeMap<String, String>,
    /// How many replicas its creator asked for; 0 if he did not say.
    pub replication_factor: u16,
}

/// Changes of configs. A name in both is set.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ConfigChanges {
    /// Names and their new values.
    pub set: BTreeMap<String, String>,
    /// Names that go back to what holds without them.
    pub remove: BTreeSet<String>,
}

/// A control node of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlNode {
    /// New for every run.
    pub nonce: u128,
    /// Its name; a node registers again under it.
    pub name: String,
    /// The name in this run's claims of the journal's lead, by which others know that it leads.
    pub claims_as: String,
    /// Where agents and other control nodes reach it.
    pub address: String,
    pub region: String,
    pub zone: String,
    /// The highest feature level it supports.
    pub level: u32,
}

/// Where files must be. Without buckets every bucket number counts as a failure domain of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// One more than that of the placement in force; 0 is that of a new cluster.
    pub number: u64,
    /// Failure domains that must hold a file before it may be committed, at least 1.
    pub copies: u32,
    /// The buckets by number (below 64). A number is never used again for another bucket.
    pub buckets: BTreeMap<u32, Bucket>,
}

/// A bucket of a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its failure domain, which never changes: buckets of one domain may be lost together.
    pub domain: u32,
    /// Which life of the bucket it is: one that was wiped has a higher one.
    pub generation: u64,
}
