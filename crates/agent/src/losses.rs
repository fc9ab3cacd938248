//! Whether the leader has just lost an agent: until it is known whether that one is gone, clients that look for another are not told to
//! go where they came from. They ask at once, a few times within milliseconds, and then not for a second. It must not know who is lost.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use host::clock::Instant;

use crate::view::Views;

/// How long clients wait at most: the leader knows after 50 ms if the agent's machine refuses connections, and after 200 if it does not;
/// then it appends that the agent is fenced, which takes longer on a busy machine.
const UNSETTLED_FOR: Duration = Duration::from_millis(500);
#[derive(Debug, Default)]
pub(crate) struct Losses(Mutex<Option<Loss>>);

/// The last loss that was told of.
#[derive(Clone, Copy, Debug)]
struct Loss {
    unsettled_until: Instant,
    /// How often the agents had changed by then: one change more, and it is settled.
    changes: u64,
}

impl Losses {
    /// The leader has lost an agent, after so many changes of the agents.
    pub(crate) fn note(&self, now: Instant, changes: u64) {
        let loss = Loss {
            unsettled_until: now + UNSETTLED_FOR,
            changes,
        };
        // No code that can panic runs under the lock.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(loss);
    }

    /// The last loss, and for how much longer nobody knows whether that agent is gone; `None` if that time is over.
    fn unsettled(&self, now: Instant) -> Option<(Loss, Duration)> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let loss = last.filter(|loss| now < loss.unsettled_until)?;
        Some((loss, loss.unsettled_until - now))
    }

    /// Waits until a loss is settled, which changes the agents of the view if one is gone.
    pub(crate) async fn settled(&self, views: &Views) {
        while let Some((loss, left)) = self.unsettled(host::clock::now()) {
            let changed = views.agents_change_after(loss.changes);
            if host::clock::timeout(left, changed).await.is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_unsettled_for_a_moment() {
        let (losses, now) = (Losses::default(), Instant::from_millis(100_000));
        let left = |at| losses.unsettled(at).map(|(_, left)| left);
        assert_eq!(left(now), None);
        losses.note(now, 3);
        assert_eq!(left(now), Some(UNSETTLED_FOR));
        let later = now + UNSETTLED_FOR;
        assert_eq!(left(later), None);
        losses.note(later, 4);
        assert_eq!(left(later), Some(UNSETTLED_FOR));
    }
}
