//! The agents and control nodes that are there, as the tasks of a node share them. It must not know what is done about those that are gone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use meta::ids::Incarnation;
use tokio::sync::Notify;

use crate::presence::{self, Presence};

/// How long processes may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub agents: presence::Settings,
    pub followers: presence::Settings,
}

pub(crate) struct Attendance {
    presence: Mutex<Presence<Incarnation>>,
    /// Control nodes that follow, by the nonces of their runs.
    followers: Mutex<Presence<u128>>,
    pub(crate) one_is_lost: Notify,
}

impl Attendance {
    pub(crate) fn new(settings: Settings) -> Self {
        Attendance {
            presence: Mutex::new(Presence::new(settings.agents)),
            followers: Mutex::new(Presence::new(settings.followers)),
            one_is_lost: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Presence<Incarnation>> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn followers(&self) -> MutexGuard<'_, Presence<u128>> {
        self.followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
