//! Whether what a client has sent may have lain unread for long, since this process stood still: a machine that is moved, stopped or out of
//! memory. Its client may have given up meanwhile, and have done by another agent what is the opposite of what lies here. Pure, but for its
//! lock; it must not know what was sent.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::clock::Instant;

/// How often it is looked whether time has passed unnoticed.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A process that has not looked for so long stood still: no client gives up sooner.
const STOOD_STILL: Duration = Duration::from_secs(2);
/// For so long after it goes on, it may still read what was sent while it stood still.
const CATCHES_UP: Duration = Duration::from_secs(2);
/// A request that waited longer for its turn on its connection is not wanted any more: clients wait 30 seconds for an answer
/// (`request.timeout.ms`), or longer.
const TURN_MAX: Duration = Duration::from_secs(30);

/// When this process stood still.
#[derive(Debug)]
pub(crate) struct Pauses(Mutex<Seen>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    looked_at: Instant,
    /// When the last pause ended.
    went_on_at: Option<Instant>,
}

impl Pauses {
    pub(crate) fn since(now: Instant) -> Self {
        Pauses(Mutex::new(Seen {
            looked_at: now,
            went_on_at: None,
        }))
    }

    /// Notes that the process runs; true if it stood still until now.
    pub(crate) fn look(&self, now: Instant) -> bool {
        let mut seen = self.seen();
        let stood_still = now.since(seen.looked_at) >= STOOD_STILL;
        if stood_still {
            seen.went_on_at = Some(now);
        }
        seen.looked_at = now;
        stood_still
    }

    /// True if a request that was read at `read_at`, and whose turn comes now, may be one that its client does not wait for any more.
    pub(crate) fn is_stale(&self, read_at: Instant, now: Instant) -> bool {
        let seen = *self.seen();
        let has_just_gone_on = seen
            .went_on_at
            .is_some_and(|at| read_at.since(at) < CATCHES_UP);
        has_just_gone_on
            || now.since(seen.looked_at) >= STOOD_STILL
            || now.since(read_at) >= TURN_MAX
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn what_was_sent_while_the_process_stood_still_is_stale() {
        let pauses = Pauses::since(at(0));
        for look in 1..=20 {
            assert!(!pauses.look(at(look * 250)));
        }
        assert!(!pauses.is_stale(at(5_000), at(5_001)));
        // It stands still from 5.0 s to 9.0 s. A request is read before that is noticed, and another just after.
        assert!(pauses.is_stale(at(9_000), at(9_001)));
        assert!(pauses.look(at(9_002)));
        assert!(pauses.is_stale(at(9_000), at(9_003)));
        assert!(!pauses.look(at(9_252)));
        assert!(pauses.is_stale(at(10_900), at(10_901)));
        assert!(!pauses.is_stale(at(11_002), at(11_003)));
    }

    #[test]
    fn what_was_read_before_the_pause_and_has_its_turn_after_it_is_stale() {
        let pauses = Pauses::since(at(0));
        assert!(pauses.is_stale(at(100), at(4_000)));
        pauses.look(at(4_000));
        assert!(pauses.is_stale(at(100), at(4_500)));
    }

    #[test]
    fn a_request_that_waited_for_its_turn_longer_than_clients_wait_is_stale() {
        let pauses = Pauses::since(at(0));
        for look in 1..=160 {
            pauses.look(at(look * 250));
        }
        assert!(!pauses.is_stale(at(10_001), at(40_000)));
        assert!(pauses.is_stale(at(10_000), at(40_000)));
    }
}
