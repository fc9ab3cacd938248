//! The longest time in which a client of a drill heard nothing, before the region was lost and since then. It must not know what it
//! waits for.

use std::time::Duration;

use host::clock::Instant;

/// Pauses between two signs of life, the time from the start to the first among them.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    last: Instant,
    before: Duration,
    since: Duration,
}

impl Pauses {
    /// A client starts.
    pub fn start(now: Instant) -> Self {
        Pauses {
            last: now,
            before: Duration::ZERO,
            since: Duration::ZERO,
        }
    }

    /// A sign of life, or the end. A pause that ends after the loss counts as one since the loss, also if it began before.
    pub fn note(&mut self, now: Instant, is_lost: bool) {
        let longest = match is_lost {
            false => &mut self.before,
            true => &mut self.since,
        };
        *longest = now.since(self.last).max(*longest);
        self.last = now;
    }

    /// The longest before the loss.
    pub fn before(&self) -> Duration {
        self.before
    }

    /// The longest since the loss.
    pub fn since(&self) -> Duration {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn the_longest_pause_is_kept_of_each_time() {
        let mut pauses = Pauses::start(at(1_000));
        for millis in [1_300, 1_350, 1_400] {
            pauses.note(at(millis), false);
        }
        // The region is lost at 1,450.
        for millis in [2_200, 2_210, 2_400] {
            pauses.note(at(millis), true);
        }
        assert_eq!(pauses.before(), Duration::from_millis(300));
        assert_eq!(pauses.since(), Duration::from_millis(800));
    }

    #[test]
    fn one_that_hears_nothing_any_more_pauses_until_the_end() {
        let mut pauses = Pauses::start(at(0));
        pauses.note(at(100), false);
        pauses.note(at(9_100), true);
        assert_eq!(pauses.since(), Duration::from_secs(9));
    }
}
