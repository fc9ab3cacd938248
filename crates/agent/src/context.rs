//! What all connections of an agent share. It holds things and decides nothing.

use std::sync::Arc;

use host::budget::Budget;
use meta::ids::AgentId;
use rpc::Control;
use tokio::sync::watch;

use crate::cache::Cache;
use crate::fetch::hub::Hub;
use crate::fetch::read::Reader;
use crate::log_limit::LogLimit;
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
    /// Memory for produce requests in flight.
    pub produce_budget: Budget,
    /// Memory for all other requests in flight.
    pub request_budget: Budget,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Keeps clients from filling the log.
    pub log: LogLimit,
    /// True once the agent stops: connections end when their requests are answered.
    pub stopping: watch::Receiver<bool>,
}
