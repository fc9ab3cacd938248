//! How quickly a frame comes or an answer goes, and whether that is too slow while others wait for
//! memory. Pure. It must not know what waits.

use std::time::Duration;

use host::clock::Instant;

/// The pace of one frame or answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    came_at: Instant,
    /// Start of the time over which bytes are counted.
    since: Instant,
    /// How many bytes had come at that start.
    come_then: usize,
}

/// The time over which bytes are counted: longer than a lost packet takes to be sent again, and
/// short beside the time that producers wait for an answer.
const PACE_WINDOW: Duration = Duration::from_secs(1);
/// The part of a frame that must come in each window while others wait for memory: a frame of the
/// usual size has come after 16 seconds, or its connection is closed.
const PACE_SHARE: usize = 16;
/// For a larger frame so many bytes in each window are enough: two Mbit a second, which any path to
/// a broker carries.
const PACE_BYTES: usize = 256 << 10;
/// How long a frame may stop coming, whether others wait or not.
pub(super) const HALT_MAX: Duration = Duration::from_secs(30);

impl Pace {
    /// Begins to count: `come` bytes of the frame are here, and more can come from now on.
    pub(super) fn begin(now: Instant, come: usize) -> Self {
        Pace {
            came_at: now,
            since: now,
            come_then: come,
        }
    }

    pub(super) fn advance(&mut self, now: Instant) {
        self.came_at = now;
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// When to judge the pace next.
    pub(super) fn look_at(&self, halt_max: Duration) -> Instant {
        (self.since + PACE_WINDOW).min(self.came_at + halt_max)
    }

    /// True if it is too slow; to be called at [`Pace::look_at`], or later. `is_wanted` says that
    /// others wait for memory that it holds, or did since [`Pace::since`]. If only the connections
    /// that are slow at the very moment of the wait were closed, the next waiter would have to wait
    /// for the others.
    pub(super) fn is_too_slow(
        &mut self,
        now: Instant,
        (come, bytes): (usize, usize),
        is_wanted: bool,
        halt_max: Duration,
    ) -> bool {
        if now >= self.came_at + halt_max {
            return true;
        }
        if now < self.since + PACE_WINDOW {
            return false;
        }
        let came = come.saturating_sub(self.come_then);
        if is_wanted && came < bytes.div_ceil(PACE_SHARE).min(PACE_BYTES) {
            return true;
        }
        self.since = now;
        self.come_then = come;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    const HALT: Duration = Duration::from_secs(30);

    #[test]
    fn nobody_is_hurried_while_nobody_waits() {
        let mut pace = Pace::begin(at(0), 100);
        for second in 1..100 {
            let now = at(second * 1_000);
            assert_eq!(pace.look_at(HALT), now);
            assert!(!pace.is_too_slow(now, (100 + second as usize, MIB), false, HALT));
            pace.advance(now);
        }
    }

    #[test]
    fn a_halt_ends_the_patience_at_last() {
        let mut pace = Pace::begin(at(0), 100);
        assert!(!pace.is_too_slow(at(29_999), (100, MIB), false, HALT));
        assert_eq!(pace.look_at(HALT), at(30_000));
        assert!(pace.is_too_slow(at(30_000), (100, MIB), false, HALT));
    }

    #[test]
    fn while_others_wait_a_sixteenth_must_come_each_second() {
        let mut pace = Pace::begin(at(0), 0);
        pace.advance(at(900));
        assert!(!pace.is_too_slow(at(999), (1, MIB), true, HALT));
        assert!(!pace.is_too_slow(at(1_000), (MIB / 16, MIB), true, HALT));
        pace.advance(at(1_900));
        assert!(pace.is_too_slow(at(2_000), (MIB / 8 - 1, MIB), true, HALT));
    }

    #[test]
    fn a_byte_at_a_time_is_too_slow() {
        let mut pace = Pace::begin(at(0), 5_000);
        for step in 1..10 {
            pace.advance(at(step * 100));
            assert!(!pace.is_too_slow(at(step * 100), (5_000 + step as usize, MIB), true, HALT));
        }
        assert!(pace.is_too_slow(at(1_000), (5_010, MIB), true, HALT));
    }
}
