//! What all connections of an agent share. It holds parts, and knows whether clients are sent away.

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
use crate::drain::Traffic;
use crate::edge::memory::{Lease, Memory};
use crate::losses::Losses;
use crate::metrics::Metrics;
use crate::pauses::Pauses;
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
    /// Agents that the leader has lost.
    pub losses: Losses,
    /// Bounds the log lines that clients can cause.
    pub log: LogLimit,
    /// When this process stood still.
    pub pauses: Pauses,
    /// When clients came last, for the end of the agent.
    pub traffic: Traffic,
}

impl Context {
    /// Whether clients of a listener are sent to other agents, since this one drains and others take them.
    pub(crate) fn sends_away(&self, listener: &Listener) -> bool {
        if !self.traffic.is_draining() {
            return false;
        }
        let routes = &self.views.latest().routes;
        let others = routes.brokers(&listener.name);
        !others.is_empty() && !routes.leads_to(&listener.name, self.agent)
    }

    /// The same of producers and consumers, one of which has asked for something.
    pub(crate) fn refuses_data(&self, listener: &Listener) -> bool {
        let refuses = self.sends_away(listener);
        if refuses {
            self.traffic.refused(host::clock::now());
        }
        refuses
    }
}
