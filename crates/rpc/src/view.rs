//! What an agent sees of the metadata: topics, agents, positions. Values that do not change, never
//! references into the state, since the state may be in another process; one in the same process
//! may share their memory.

use std::sync::Arc;

use meta::config::{Configs, topic_value};
use meta::ids::{AgentId, FileId, Incarnation, PartitionId};
use meta::topic::Topic;

/// An agent that clients can be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentView {
    /// Its Kafka node id.
    pub id: AgentId,
    /// Host name or address that clients connect to.
    pub host: String,
    /// Port that clients connect to.
    pub port: u16,
    pub region: String,
    /// Its zone; Kafka's `broker.rack`.
    pub zone: String,
    /// Its latest start; earlier ones commit nothing.
    pub incarnation: Incarnation,
}

/// A topic as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// Its id, its name, its partitions, and what is set on it.
    pub topic: Arc<Topic>,
    /// What is set for the cluster, and holds where the topic says nothing.
    pub cluster_configs: Arc<Configs>,
}

impl TopicView {
    /// The value in force of one of its configs (the topic's, else the cluster's, else the default);
    /// empty if there is no such config.
    pub fn value(&self, name: &str) -> &str {
        topic_value(&self.cluster_configs, &self.topic.configs, name)
    }
}

/// The cluster at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    pub cluster_id: String,
    /// The agents, sorted by id.
    pub agents: Vec<AgentView>,
    /// The topics, sorted by name.
    pub topics: Vec<TopicView>,
    /// The cluster's configs, which hold where topics say nothing.
    pub cluster_configs: Arc<Configs>,
    /// Grows whenever topics, configs or agents change; equal versions mean equal views.
    pub version: u64,
}

/// A slice, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: FileId,
    /// The random part of the file's key.
    pub nonce: u32,
    /// Length of the whole file in bytes, so that a reader can take all of a small one at once.
    pub file_length: u64,
    /// First byte of the slice in the file.
    pub position: u64,
    /// Length of the slice in bytes.
    pub length: u32,
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Largest timestamp of its records, in milliseconds since 1970.
    pub max_timestamp: i64,
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

/// Where the records asked for are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// The partition's bounds, and the slices from the offset onward: none at its end.
    Found {
        /// The first offset that can be read.
        log_start: i64,
        /// The offset after the last record.
        high_watermark: i64,
        /// In offset order; the first holds the offset asked for, or the next that exists.
        places: Vec<Place>,
    },
    /// The offset lies outside the partition, as far as this node has applied.
    OutOfRange {
        /// The first offset that can be read.
        log_start: i64,
        /// The offset after the last record.
        high_watermark: i64,
    },
    /// No such partition, as far as this node has applied.
    Unknown,
}

/// The bounds of a partition; see [`crate::Control::bounds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that can be read.
    pub log_start: i64,
    /// The offset after the last record.
    pub high_watermark: i64,
}

/// What a timestamp look-up is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeQuery {
    /// The first slice that may hold a record at or after this time (milliseconds since 1970).
    AtOrAfter(i64),
    /// The first slice that holds the largest timestamp.
    Largest,
}

/// Something that was applied, told to every agent: a hint to look again, not a fact to rest on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Records were added to a partition.
    Advanced {
        partition: PartitionId,
        /// The offset after the last record.
        high_watermark: i64,
        place: Place,
    },
    /// The first offset that can be read has moved.
    LogStart {
        partition: PartitionId,
        /// The first offset that can be read.
        log_start: i64,
    },
    /// Topics, configs or agents changed.
    View {
        /// The version of the view that has the change.
        version: u64,
    },
}

/// What an agent is, as it tells the control plane when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// New for every start, so that a repeated call is known as one.
    pub nonce: u128,
    /// The agent's own name, kept across starts; its node id follows it.
    pub name: String,
    /// Host that clients connect to.
    pub host: String,
    /// Port that clients connect to.
    pub port: u16,
    pub region: String,
    pub zone: String,
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

/// What may be done with a file found in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFate {
    /// It holds records that can be read.
    Live,
    /// It is dead, but a reader may still hold a plan that names it.
    Tombstoned,
    /// It may still be committed.
    Undecided,
    /// It can never be committed and holds nothing that can be read.
    Dead,
}
