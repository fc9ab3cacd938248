//! What a node knows of who leads and who is to, as its tasks share it. It must not know what is done about that.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::choice::Choice;
use crate::lead::Lead;

/// What a node knows of who leads, and who is to.
#[derive(Debug, Default)]
pub(crate) struct Leading {
    choice: Mutex<Choice>,
    lead: Mutex<Lead>,
    latency: Mutex<Option<Duration>>,
}

impl Leading {
    pub(crate) fn choice(&self) -> MutexGuard<'_, Choice> {
        lock(&self.choice)
    }

    /// How long a commit takes from here, as far as it is measured.
    pub(crate) fn latency(&self) -> MutexGuard<'_, Option<Duration>> {
        lock(&self.latency)
    }

    pub(crate) fn lead(&self) -> MutexGuard<'_, Lead> {
        lock(&self.lead)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
