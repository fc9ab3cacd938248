//! The agents and control nodes that are there, as the tasks of a node share them. It must not know what is done about those that are gone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::clock::Instant;
use host::latest::Latest;
use host::resolver::Resolver;
use meta::ids::Incarnation;
use rpc::peer::Follower;
use tokio::sync::Notify;

use crate::aside::Aside;
use crate::presence::{self, Presence};
use crate::reach::Reach;

/// Agents that do not reach the leader ask others again within a second or so.
const ASKED_WITHIN: Duration = Duration::from_secs(2);

/// How long processes may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub agents: presence::Settings,
    pub followers: presence::Settings,
}

/// What a control node that follows says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Follows {
    pub(crate) said: Arc<Follower>,
    /// How many entries this node was ahead of it then.
    pub(crate) entries_behind: u64,
}

pub(crate) struct Attendance {
    /// Agents; they say the versions of their builds.
    presence: Mutex<Presence<Incarnation, Arc<str>>>,
    /// Control nodes that follow, by the nonces of their runs.
    followers: Mutex<Presence<u128, Follows>>,
    pub(crate) one_is_lost: Notify,
    /// How often an agent was lost.
    pub(crate) losses: Latest<u64>,
    reach: Mutex<Reach>,
    aside: Mutex<Aside>,
    /// When an agent last asked this node that did not reach the leader, in microseconds of the clock.
    asked_micros: AtomicU64,
    /// When a registered agent last called this node straight, in the same way.
    reached_micros: AtomicU64,
    /// Where those are that are lost.
    pub(crate) resolver: Arc<Resolver>,
}

impl Attendance {
    pub(crate) fn new(settings: Settings) -> Self {
        Attendance {
            presence: Mutex::new(Presence::new(settings.agents)),
            followers: Mutex::new(Presence::new(settings.followers)),
            one_is_lost: Notify::new(),
            losses: Latest::new(0),
            reach: Mutex::default(),
            aside: Mutex::default(),
            asked_micros: AtomicU64::new(0),
            reached_micros: AtomicU64::new(0),
            resolver: Arc::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Presence<Incarnation, Arc<str>>> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reach(&self) -> MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn aside(&self) -> MutexGuard<'_, Aside> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent that does not reach the leader has asked this node.
    pub(crate) fn is_asked(&self, now: Instant) {
        self.asked_micros.fetch_max(now.as_micros(), Relaxed);
    }

    /// An agent reaches this node, one that is registered or that registers.
    pub(crate) fn is_reached(&self, now: Instant) {
        self.reached_micros.fetch_max(now.as_micros(), Relaxed);
    }

    /// When one last did; `None` if none ever has.
    pub(crate) fn reached_at(&self) -> Option<Instant> {
        let at = self.reached_micros.load(Relaxed);
        (at > 0).then(|| Instant::from_micros(at))
    }

    /// Whether an agent that does not reach the leader has asked this node lately.
    pub(crate) fn was_asked(&self, now: Instant) -> bool {
        let at = self.asked_micros.load(Relaxed);
        at > 0 && now.since(Instant::from_micros(at)) < ASKED_WITHIN
    }

    pub(crate) fn followers(&self) -> MutexGuard<'_, Presence<u128, Follows>> {
        self.followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
