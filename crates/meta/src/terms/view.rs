//! What agents see of a cluster: agents, topics, configs, and how they changed. Values, never
//! references into a state, which may be in another process; one in the same process may share
//! their memory. It must not know how they are found out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::Configs;
use super::endpoint::Endpoint;
use super::ids::{AgentId, Incarnation, PartitionId, TopicId};

/// An agent that clients can be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its Kafka node id.
    pub id: AgentId,
    /// Its own name, kept across starts.
    pub name: String,
    /// Where clients connect to it, by the name of the listener that they use.
    pub listeners: BTreeMap<String, Endpoint>,
    pub region: String,
    /// Its zone; Kafka's `broker.rack`.
    pub zone: String,
    /// Where other agents of its zone ask it for parts of files, as HOST:PORT; empty if it offers none.
    pub neighbour_address: String,
    /// The highest feature level it supports.
    pub level: u32,
    /// Its latest start; earlier ones commit nothing.
    pub incarnation: Incarnation,
    /// It is about to end: clients are sent to others, as long as there are any.
    pub drains: bool,
    /// It reaches too few buckets: clients are sent to others, as long as there are any.
    pub cut_off: bool,
}

impl Agent {
    /// Whether clients are sent to it, as long as there is one to which they can be.
    pub fn takes_clients(&self) -> bool {
        !self.drains && !self.cut_off
    }
}

/// Whose an incarnation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'a> {
    Of(&'a Agent),
    /// It has ended, or never was: it commits nothing any more.
    Nobodys,
    /// No agent has it, and one may be given it.
    NotGivenYet,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub id: TopicId,
    pub name: String,
    /// Its partitions, by index.
    pub partitions: Vec<PartitionId>,
    /// Configs set on the topic itself.
    pub configs: Configs,
    /// How many replicas its creator asked for, for clients to see; 0 if he did not say.
    pub replication_factor: u16,
    /// The version of the view in which it changed last; no two topics have the same.
    pub version: u64,
}

/// How the view of a cluster differs from an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewChange {
    /// The version of the view that has the change; versions only grow, and views of equal
    /// versions are equal.
    pub version: u64,
    /// The feature level in force.
    pub level: u32,
    /// This is the whole view: what is not in it does not exist.
    pub whole: bool,
    /// Topics that came or changed, in the order in which they did.
    pub topics: Vec<Arc<Topic>>,
    /// Topics that went.
    pub deleted: Vec<TopicId>,
    /// All agents that may commit, by id, if any of them changed.
    pub agents: Option<Vec<Agent>>,
    /// What is set for the cluster and holds where topics say nothing, if that changed.
    pub cluster_configs: Option<Arc<Configs>>,
}
