//! Whether a node that leads and stores no snapshots hands the lead over (three regions, rule L2). Sans-IO; it must not know when a snapshot
//! is due, why it is not stored, nor how others are asked.
//!
//! The lead does not go round: it is given only to a node that has not been unable itself within the last hour, as far as that one knows.
//! A leader that finds none keeps it. So where nobody can store one, the lead changes once for each node in an hour at most.

use std::time::Duration;

use host::clock::Instant;

/// How long a node that has stored none counts as unable.
const REMEMBERED_FOR: Duration = Duration::from_secs(3_600);
/// The pause before the others are asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What a node knows of the snapshots that it has stored as a leader, or has not.
#[derive(Debug, Default)]
pub(crate) struct Storing {
    /// When it was last found that none was stored though one was due twice, and the newest that there was by then.
    unable: Option<(Instant, Option<u64>)>,
    asked_at: Option<Instant>,
}

impl Storing {
    /// Whether the others are to be asked now if they are able; `is_overdue` if this node leads and has stored none though one was due
    /// twice, and `newest` is the newest that is known to be whole.
    pub(crate) fn look(&mut self, now: Instant, is_overdue: bool, newest: Option<u64>) -> bool {
        if !is_overdue {
            return false;
        }
        self.unable = Some((now, newest));
        let is_asking = self
            .asked_at
            .is_some_and(|at| now.since(at) < ASK_AGAIN_AFTER);
        if !is_asking {
            self.asked_at = Some(now);
        }
        !is_asking
    }

    /// Whether this node takes itself for able to store snapshots.
    pub(crate) fn is_able(&self, now: Instant, newest: Option<u64>) -> bool {
        let Some((at, newest_then)) = self.unable else {
            return true;
        };
        newest > newest_then || now.since(at) >= REMEMBERED_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    #[test]
    fn others_are_asked_now_and_then_while_none_is_stored() {
        let mut storing = Storing::default();
        assert!(!storing.look(at(1), false, None));
        assert!(storing.look(at(2), true, None));
        assert!(!storing.look(at(3), true, None));
        assert!(storing.look(at(12), true, None));
    }

    #[test]
    fn a_node_counts_as_unable_for_an_hour_or_until_it_has_stored_one() {
        let mut storing = Storing::default();
        assert!(storing.is_able(at(1), Some(7)));
        storing.look(at(2), true, Some(7));
        assert!(!storing.is_able(at(3), Some(7)));
        assert!(storing.is_able(at(3), Some(8)));
        assert!(!storing.is_able(at(3_601), Some(7)));
        assert!(storing.is_able(at(3_602), Some(7)));
    }
}
