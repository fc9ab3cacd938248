//! A value of which tasks wait until it is what they want. They are woken in the order in which they came, so that a simulated run
//! is the same each time: the usual channel for this wakes those that wait in random order. It must not know what the value means.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// The latest value of something.
#[derive(Debug, Default)]
pub struct Latest<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Clone + PartialEq> Latest<T> {
    pub fn new(value: T) -> Self {
        Latest {
            value: Mutex::new(value),
            changed: Notify::new(),
        }
    }

    pub fn get(&self) -> T {
        // No code that can panic runs under the lock.
        let value = self.value.lock();
        value.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the value, and wakes all that wait if it is another.
    pub fn set(&self, value: T) {
        let is_new = {
            let mut known = self.value.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = *known != value;
            *known = value;
            is_new
        };
        if is_new {
            self.changed.notify_waiters();
        }
    }

    /// Waits until the value is one that is wanted. A value that is there for a moment only may be missed.
    pub async fn wait_for(&self, is_wanted: impl Fn(&T) -> bool) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            // What changes from here on wakes it.
            changed.as_mut().enable();
            let value = self.get();
            if is_wanted(&value) {
                return value;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_woken_by_what_is_wanted() {
        let latest = Arc::new(Latest::new(0));
        assert_eq!(latest.wait_for(|value| *value == 0).await, 0);
        let waits = Arc::clone(&latest);
        let waiting = tokio::spawn(async move { waits.wait_for(|value| *value > 1).await });
        for value in [1, 1, 2] {
            tokio::task::yield_now().await;
            latest.set(value);
        }
        assert_eq!(waiting.await.unwrap(), 2);
        assert_eq!(latest.get(), 2);
    }
}
