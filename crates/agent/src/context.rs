//! What all connections of an agent share. It holds parts, and knows whether clients are sent away.

use std::sync::Arc;

use host::latest::Latest;
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
    /// Whether this agent reaches too few buckets, and its clients are told of others.
    pub cut_off: Arc<Latest<bool>>,
}

impl Context {
    /// Whether clients of a listener are sent to other agents, since this one drains or is cut off from the buckets, and others
    /// take them.
    pub(crate) fn sends_away(&self, listener: &Listener) -> bool {
        let leaves = self.traffic.is_draining() || self.cut_off.get();
        leaves && self.others_take(listener)
    }

    fn others_take(&self, listener: &Listener) -> bool {
        let routes = &self.views.latest().routes;
        let others = routes.brokers(&listener.name);
        !others.is_empty() && !routes.leads_to(&listener.name, self.agent)
    }

    /// Takes from the latest view whether this agent is cut off and its clients are told of others, whichever listener they use:
    /// then what waits for the buckets is given up, so that producers go on elsewhere.
    pub(crate) fn note_cut_off(&self) {
        let view = self.views.latest();
        let is_noted = view.agent(self.agent).is_some_and(|own| own.cut_off);
        let cut_off = is_noted && self.listeners.iter().all(|one| self.others_take(one));
        let was = self.cut_off.get();
        self.cut_off.set(cut_off);
        match (was, cut_off) {
            (false, true) => tracing::warn!(
                "this agent reaches too few buckets, and others reach enough: clients are sent to them"
            ),
            (true, false) => tracing::info!("clients are sent to this agent again"),
            (true, true) | (false, false) => {}
        }
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
