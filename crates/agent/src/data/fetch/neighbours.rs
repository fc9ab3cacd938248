//! The other agents of the zone, which keep parts of files for this one as it does for them. They only ever make a read
//! faster: who fails, is late or has too much to do is passed by, and the bucket is asked. It must not know what is done with
//! a part.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use host::clock::Instant;
use host::rng::Rng;
use meta::ids::AgentId;
use meta::view::Agent;
use rpc::part::{Neighbours as Network, NotGiven, Wanted};

use crate::data::cache::Part;
use crate::metrics::Metrics;

mod pace;
mod ring;

use pace::{Peer, Usual};
use ring::Ring;

pub(crate) struct Neighbours {
    /// `None` if this agent talks to no others.
    network: Option<Arc<dyn Network>>,
    /// As long as there are no others, nothing here is touched by a read.
    has_any: AtomicBool,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

struct State {
    ring: Ring,
    peers: BTreeMap<AgentId, Peer>,
    usual: Usual,
    rng: Rng,
}

/// A request to another agent, from its begin to its end.
pub(super) struct Asking<'a> {
    neighbours: &'a Neighbours,
    agent: AgentId,
    address: String,
    bytes: u64,
    /// How long to wait before the bucket is asked as well.
    pub(super) patience: Duration,
}

impl Neighbours {
    pub(crate) fn new(network: Option<Arc<dyn Network>>, metrics: Arc<Metrics>) -> Self {
        Neighbours {
            network,
            has_any: AtomicBool::new(false),
            state: Mutex::new(State {
                ring: Ring::default(),
                peers: BTreeMap::new(),
                usual: Usual::default(),
                rng: Rng::from_entropy(),
            }),
            metrics,
        }
    }

    /// Takes the agents that there are now, of which this one is `own`.
    pub(crate) fn take(&self, agents: &[Agent], own: AgentId) {
        if self.network.is_none() {
            return;
        }
        let mut state = self.state();
        let ring = Ring::of(agents, own);
        if ring == state.ring {
            return;
        }
        // One with requests under way is kept until they are over.
        let mut peers = std::mem::take(&mut state.peers);
        peers.retain(|agent, peer| ring.has(*agent) || peer.is_asked());
        state.peers = peers;
        self.has_any.store(!ring.is_alone(), Relaxed);
        state.ring = ring;
    }

    /// Begins to ask the agent that keeps a part, if it is another one and may be asked.
    pub(super) fn begin(&self, part: Part, bytes: u64, is_recent: bool) -> Option<Asking<'_>> {
        if !self.has_any.load(Relaxed) {
            return None;
        }
        let now = host::clock::now();
        let mut state = self.state();
        let State {
            ring, peers, usual, ..
        } = &mut *state;
        let keeper = ring.keeper(part, is_recent)?;
        let may = peers.entry(keeper.agent).or_default().begin(now, bytes);
        may.then(|| Asking {
            neighbours: self,
            agent: keeper.agent,
            address: keeper.address.clone(),
            bytes,
            patience: usual.patience(),
        })
    }

    /// Notes how long the bucket took to give a part.
    pub(super) fn note_bucket(&self, took: Duration) {
        if self.has_any.load(Relaxed) {
            self.state().usual.note(took);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking<'_> {
    /// The bytes that the other agent gives, if it does. They are not verified.
    pub(super) async fn ask(&self, wanted: &Wanted) -> Option<Bytes> {
        let network = self.neighbours.network.as_ref()?;
        self.neighbours.metrics.neighbour_asked.increment();
        match network.ask(&self.address, wanted, self.bytes).await {
            Ok(bytes) => Some(bytes),
            Err(NotGiven::Busy | NotGiven::Missing) => {
                self.answered();
                None
            }
            Err(NotGiven::Failed(why)) => {
                self.failed(&why);
                None
            }
        }
    }

    pub(super) fn answered(&self) {
        self.note(|peer, _, _| peer.answered());
    }

    pub(super) fn late(&self) {
        self.neighbours.metrics.neighbour_late.increment();
        self.note(Peer::late);
    }

    pub(super) fn failed(&self, why: &str) {
        self.neighbours.metrics.neighbour_failed.increment();
        tracing::debug!(agent = self.agent.0, address = %self.address, why, "an agent of the zone gave no part of a file; the bucket is asked");
        self.note(Peer::failed);
    }

    fn note(&self, note: impl FnOnce(&mut Peer, Instant, &mut Rng)) {
        let now = host::clock::now();
        let mut state = self.neighbours.state();
        let State { peers, rng, .. } = &mut *state;
        if let Some(peer) = peers.get_mut(&self.agent) {
            note(peer, now, rng);
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.note(|peer, _, _| peer.end(self.bytes));
    }
}

#[cfg(test)]
mod tests;
