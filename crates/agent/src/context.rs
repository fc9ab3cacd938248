//! What all connections of an agent share. It holds parts and decides nothing.

use std::sync::Arc;

use host::log_limit::LogLimit;
use meta::ids::AgentId;
use rpc::Client;

use crate::api::fetch::sessions::Sessions;
use crate::api::groups::heartbeats::Heartbeats;
use crate::data::cache::Cache;
use crate::data::fetch::hub::Hub;
use crate::data::fetch::neighbours::Neighbours;
use crate::data::fetch::prefetch::Prefetch;
use crate::data::fetch::read::Reader;
use crate::data::produce::Pipeline;
use crate::data::reserve::Reserve;
use crate::edge::memory::{Lease, Memory};
use crate::metrics::Metrics;
use crate::settings::{Listener, Settings};
use crate::view::Views;

pub(crate) struct Context {
    /// The operator's settings.
    pub settings: Settings,
    /// The places where it listens for clients; a peer has the number of one.
    pub listeners: Vec<Listener>,
    /// This agent's Kafka node id.
    pub agent: AgentId,
    pub control: Client,
    pub views: Views,
    /// Takes produce requests.
    pub pipeline: Arc<Pipeline<Lease>>,
    pub cache: Arc<Cache>,
    pub reader: Arc<Reader>,
    pub prefetch: Arc<Prefetch>,
    /// The other agents of the zone.
    pub neighbours: Arc<Neighbours>,
    /// Refuses records while the bucket's file system is nearly full.
    pub reserve: Reserve,
    pub hub: Arc<Hub>,
    pub heartbeats: Heartbeats,
    pub sessions: Sessions,
    pub memory: Arc<Memory>,
    pub metrics: Arc<Metrics>,
    /// Bounds the log lines that clients can cause.
    pub log: LogLimit,
}
