//! What all connections of an agent share. It holds things and decides nothing.

use std::sync::Arc;

use host::log_limit::LogLimit;
use meta::ids::AgentId;
use rpc::Client;

use crate::api::fetch::sessions::Sessions;
use crate::data::cache::Cache;
use crate::data::fetch::hub::Hub;
use crate::data::fetch::read::Reader;
use crate::data::produce::Pipeline;
use crate::data::reserve::Reserve;
use crate::edge::memory::{Lease, Memory};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::view::Views;

/// Shared by all connections.
pub(crate) struct Context {
    /// What the operator decided.
    pub settings: Settings,
    /// This agent's Kafka node id.
    pub agent: AgentId,
    pub control: Client,
    pub views: Views,
    /// The way in for produce requests.
    pub pipeline: Arc<Pipeline<Lease>>,
    pub cache: Arc<Cache>,
    pub reader: Reader,
    /// Room that is kept free in the bucket.
    pub reserve: Reserve,
    pub hub: Arc<Hub>,
    pub sessions: Sessions,
    pub memory: Arc<Memory>,
    pub metrics: Arc<Metrics>,
    /// Keeps clients from filling the log.
    pub log: LogLimit,
}
