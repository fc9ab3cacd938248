//! For engines that nobody asks before they write: the tenures that this process has begun, of which the newest alone may send; each has the
//! window of what it has sent. It must not know how slots are stored.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::window::Window;

/// Numbers the tenures of one engine.
#[derive(Clone, Debug, Default)]
pub struct Tenures(Arc<AtomicU64>);

impl Tenures {
    /// Begins a tenure, which ends all before it, though what it is to settle is not known yet.
    pub fn begin(&self) -> Begun {
        let number = self.0.fetch_add(1, Ordering::AcqRel) + 1;
        let newest = Arc::clone(&self.0);
        Begun { newest, number }
    }
}

/// A tenure that was begun.
#[derive(Debug)]
pub struct Begun {
    newest: Arc<AtomicU64>,
    number: u64,
}

impl Begun {
    /// True once a later tenure was begun.
    pub fn is_over(&self) -> bool {
        self.newest.load(Ordering::Acquire) != self.number
    }

    /// The tenure may send, from slot `first` on.
    pub fn starting_at(self, first: u64) -> Sending {
        let window = Mutex::new(Window::starting_at(first));
        Sending {
            begun: self,
            window,
        }
    }
}

/// A tenure that sends entries.
#[derive(Debug)]
pub struct Sending {
    begun: Begun,
    window: Mutex<Window>,
}

impl Sending {
    /// The tenure's window, to note what is sent; it is over once a later tenure was begun.
    pub fn window(&self) -> MutexGuard<'_, Window> {
        // It is whole at any time.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if self.begun.is_over() {
            window.end();
        }
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_tenure_ends_the_one_before_though_it_has_not_begun_to_send() {
        let tenures = Tenures::default();
        let first = tenures.begin().starting_at(1);
        assert!(!first.window().is_over());
        let second = tenures.begin();
        assert!(first.window().is_over());
        assert!(!second.is_over());
        assert!(!second.starting_at(7).window().is_over());
    }
}
