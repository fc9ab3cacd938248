//! What all connections of an agent share. It holds things and decides nothing.

use std::sync::Arc;

use meta::ids::AgentId;
use rpc::Control;
use tokio::sync::watch;

use crate::answers::Answers;
use crate::cache::Cache;
use crate::fetch::hub::Hub;
use crate::fetch::read::Reader;
use crate::log_limit::LogLimit;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::produce::Pipeline;
use crate::settings::Settings;
use crate::view::Views;

/// Shared by all connections.
pub(crate) struct Context {
    /// What the operator decided.
    pub settings: Settings,
    /// This agent's Kafka node id.
    pub agent: AgentId,
    /// The control plane.
    pub control: Arc<dyn Control>,
    /// Topics and agents.
    pub views: Views,
    /// The way in for produce requests.
    pub pipeline: Arc<Pipeline>,
    /// Parts of files.
    pub cache: Arc<Cache>,
    /// Slices of files.
    pub reader: Reader,
    /// Wakes long polls.
    pub hub: Arc<Hub>,
    /// Memory for requests on their way in, and in flight.
    pub memory: Memory,
    /// Memory for answers on their way out, but for records.
    pub answers: Answers,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Keeps clients from filling the log.
    pub log: LogLimit,
    /// True once the agent stops: connections end when their requests are answered.
    pub stopping: watch::Receiver<bool>,
}
