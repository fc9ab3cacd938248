//! The agents that are there, as the tasks of a node share them. It must not know what is done about those that are gone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::presence::{Presence, Settings};

pub(crate) struct Attendance {
    presence: Mutex<Presence>,
    pub(crate) one_is_lost: Notify,
}

impl Attendance {
    pub(crate) fn new(settings: Settings) -> Self {
        Attendance {
            presence: Mutex::new(Presence::new(settings)),
            one_is_lost: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
