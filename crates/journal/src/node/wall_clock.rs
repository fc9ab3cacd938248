//! What is known of the machine's wall clock, and what an entry is stamped with by it: stamps never run ahead by a clock that is
//! not known to be right, since they cannot go back. It must not know how clocks are compared.

use std::time::Duration;

use super::Now;
use crate::entry::Stamp;

/// How far a clock that was right may have moved against the boot clock before it counts as doubtful again.
const MOVED_MAX_MILLIS: u64 = 60_000;
/// How much longer a node whose clock is wrong waits before it claims: until then one of those whose clocks are right has the lead,
/// if any of them can.
const WRONG_WAITS: Duration = Duration::from_secs(10);

/// What is known of a wall clock. Clocks are told as how far they are ahead of this node's boot clock, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WallClock {
    /// There is none to compare it with: it is believed.
    #[default]
    Alone,
    /// It was found right when it was so far ahead.
    Right { ahead_millis: i64 },
    /// Nobody knows whether it is right, or it is wrong and no other could lead better; a clock so far ahead is not later than those
    /// that are believed.
    Unsure { ahead_millis: i64 },
    /// It is wrong; those of most others are so far ahead, and one of them is to lead.
    Wrong { ahead_millis: i64 },
}

impl WallClock {
    /// How much longer than others a node waits before it claims.
    pub(super) fn claims_later_by(self) -> Duration {
        match self {
            WallClock::Wrong { .. } => WRONG_WAITS,
            WallClock::Alone | WallClock::Right { .. } | WallClock::Unsure { .. } => Duration::ZERO,
        }
    }

    /// The wall time of an entry that comes after the stamp `before`, at these ticks. Where the clock is not known to be right, it goes
    /// on no faster than the ticks, and no further than the clock that is known; the first entry of all has nothing but that clock.
    pub(super) fn stamps(self, now: Now, ticks_millis: u64, before: Stamp) -> u64 {
        let boot_millis = i64::try_from(now.boot.as_micros() / 1_000).unwrap_or(i64::MAX);
        let wall_millis = i64::try_from(now.wall_millis).unwrap_or(i64::MAX);
        let ahead_now = wall_millis.saturating_sub(boot_millis);
        let known_ahead = match self {
            WallClock::Alone => return now.wall_millis,
            WallClock::Right { ahead_millis } => {
                if ahead_now.abs_diff(ahead_millis) <= MOVED_MAX_MILLIS {
                    return now.wall_millis;
                }
                ahead_millis
            }
            WallClock::Unsure { ahead_millis } | WallClock::Wrong { ahead_millis } => ahead_millis,
        };
        let known = boot_millis.saturating_add(known_ahead);
        let known = u64::try_from(known).unwrap_or(0);
        if before.wall_millis == 0 {
            return known;
        }
        let passed = ticks_millis.saturating_sub(before.ticks_millis);
        known.min(before.wall_millis.saturating_add(passed))
    }
}

#[cfg(test)]
mod tests {
    use host::clock::Instant;

    use super::*;

    const BOOT: u64 = 5_000_000;
    const WALL: u64 = 1_800_000_000_000;
    const AHEAD: i64 = (WALL - BOOT) as i64;
    const YEAR: u64 = 365 * 86_400_000;

    fn now(wall_millis: u64) -> Now {
        Now {
            boot: Instant::from_millis(BOOT),
            wall_millis,
        }
    }

    /// An entry that was stamped a minute of ticks ago.
    fn before(wall_millis: u64) -> Stamp {
        Stamp {
            wall_millis,
            ticks_millis: 1_000,
        }
    }

    fn stamps(clock: WallClock, wall: u64, before_wall: u64) -> u64 {
        clock.stamps(now(wall), 61_000, before(before_wall))
    }

    #[test]
    fn a_clock_that_is_right_or_alone_is_what_stamps_say() {
        let right = WallClock::Right {
            ahead_millis: AHEAD,
        };
        for clock in [WallClock::Alone, right] {
            assert_eq!(stamps(clock, WALL, WALL - 86_400_000), WALL);
            assert_eq!(stamps(clock, WALL + 60_000, 7), WALL + 60_000);
        }
        assert_eq!(stamps(WallClock::Alone, WALL + YEAR, 7), WALL + YEAR);
    }

    #[test]
    fn a_clock_that_was_right_and_has_jumped_is_not_believed() {
        let right = WallClock::Right {
            ahead_millis: AHEAD,
        };
        let last = WALL - 100_000;
        for wall in [WALL + 60_001, WALL + YEAR, WALL - 60_001, 0] {
            assert_eq!(stamps(right, wall, last), last + 60_000, "{wall}");
        }
    }

    #[test]
    fn a_doubtful_clock_goes_on_no_faster_than_the_ticks_and_no_further_than_what_is_known() {
        let ahead_millis = AHEAD;
        for clock in [
            WallClock::Unsure { ahead_millis },
            WallClock::Wrong { ahead_millis },
        ] {
            let last = WALL - 100_000;
            assert_eq!(stamps(clock, WALL + YEAR, last), last + 60_000);
            assert_eq!(stamps(clock, WALL + YEAR, WALL - 20_000), WALL);
            // The node sees to it that stamps never go back.
            assert_eq!(stamps(clock, WALL + YEAR, WALL + YEAR), WALL);
        }
    }

    #[test]
    fn the_first_stamp_of_all_is_what_is_known() {
        let unsure = WallClock::Unsure {
            ahead_millis: AHEAD,
        };
        let first = unsure.stamps(now(WALL + YEAR), 0, Stamp::default());
        assert_eq!(first, WALL);
        let nothing = WallClock::Unsure {
            ahead_millis: i64::MIN,
        };
        assert_eq!(nothing.stamps(now(0), 0, Stamp::default()), 0);
    }
}
