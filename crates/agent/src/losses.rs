//! Whether the leader has just lost an agent: until it is known whether that one is gone, clients that look for another are not told to
//! go where they came from. They ask at once, a few times within milliseconds, and then not for a second. It must not know who is lost.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use host::clock::Instant;

use crate::view::Views;

/// How long clients wait at most: the leader knows after 50 ms if the agent's machine refuses connections, and after 200 if it does not;
/// then it appends that the agent is fenced, which takes longer on a busy machine.
const UNSETTLED_FOR: Duration = Duration::from_millis(500);
/// How often it is looked whether the view has changed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// In microseconds of the clock; 0 if there was none.
    unsettled_until: AtomicU64,
}

impl Losses {
    /// The leader has lost an agent.
    pub(crate) fn note(&self, now: Instant) {
        let until = now + UNSETTLED_FOR;
        self.unsettled_until.fetch_max(until.as_micros(), Relaxed);
    }

    fn is_unsettled(&self, now: Instant) -> bool {
        now.as_micros() < self.unsettled_until.load(Relaxed)
    }

    /// Waits until a loss is settled, which changes the agents of the view if one is gone.
    pub(crate) async fn settled(&self, views: &Views) {
        let before = views.latest();
        while self.is_unsettled(host::clock::now())
            && std::sync::Arc::ptr_eq(&before.routes, &views.latest().routes)
        {
            host::clock::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_unsettled_for_a_moment() {
        let (losses, now) = (Losses::default(), Instant::from_millis(100_000));
        assert!(!losses.is_unsettled(now));
        losses.note(now);
        assert!(losses.is_unsettled(now));
        let later = now + UNSETTLED_FOR;
        assert!(!losses.is_unsettled(later));
        losses.note(later);
        losses.note(now);
        assert!(losses.is_unsettled(later));
    }
}
