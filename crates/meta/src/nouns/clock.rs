//! The time of the journal: the last stamp, and whether its wall clock is to be trusted. It must
//! not know what time is used for.

use crate::terms::ids::Stamp;
use crate::terms::level::Level;

/// Retention by time is held: the wall clock jumped, and may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The stamp since which the wall clock is watched: that of the jump at first.
    pub since: Stamp,
}

/// The last stamp, and whether its wall clock is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(crate) last: Stamp,
    pub(crate) hold: Option<Hold>,
}

impl Clock {
    /// Takes an entry's stamp; yields the stamp in force, which never goes back.
    ///
    /// A jump of the wall clock ahead of the ticks holds retention: after a standstill the jump is
    /// real, after a leader with a wrong clock it is not, and the journal cannot tell. It counts as
    /// confirmed once the wall clock went on for an hour of ticks. If a wrong clock was set right,
    /// the journal's wall time stands still until the clock reaches it, since stamps never
    /// decrease; so retention goes on exactly when the stamps are true again.
    pub(crate) fn advance(&mut self, level: &Level, stamp: Stamp) -> Stamp {
        let last = self.last;
        let now = Stamp {
            wall_millis: stamp.wall_millis.max(last.wall_millis),
            ticks_millis: stamp.ticks_millis.max(last.ticks_millis),
        };
        self.last = now;
        let first = last == Stamp::default();
        let wall_step = now.wall_millis - last.wall_millis;
        let ticks_step = now.ticks_millis - last.ticks_millis;
        if !first && wall_step > ticks_step.saturating_add(level.jump_millis) {
            self.hold = Some(Hold { since: now });
        } else if let Some(hold) = self.hold {
            let ticks = now.ticks_millis - hold.since.ticks_millis;
            if ticks >= level.jump_confirmed_millis {
                let wall = now.wall_millis - hold.since.wall_millis;
                self.hold = if wall >= ticks / level.jump_confirmed_divisor {
                    None
                } else {
                    Some(Hold { since: now })
                };
            }
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::level::one::LEVEL as ONE;

    fn stamp(wall_millis: u64, ticks_millis: u64) -> Stamp {
        Stamp {
            wall_millis,
            ticks_millis,
        }
    }

    #[test]
    fn stamps_never_go_back() {
        let mut clock = Clock::default();
        clock.advance(&ONE, stamp(1_000, 50));
        assert_eq!(clock.advance(&ONE, stamp(900, 60)), stamp(1_000, 60));
        assert_eq!(clock.advance(&ONE, stamp(1_001, 40)), stamp(1_001, 60));
        assert_eq!(clock.hold, None);
    }

    #[test]
    fn a_jump_holds_until_the_wall_clock_went_on_for_an_hour() {
        let mut clock = Clock::default();
        clock.advance(&ONE, stamp(1_000_000, 0));
        clock.advance(&ONE, stamp(1_000_000 + ONE.jump_millis, 0));
        assert_eq!(clock.hold, None, "ten minutes exactly are no jump");
        let jumped = 1_000_001 + 2 * ONE.jump_millis;
        clock.advance(&ONE, stamp(jumped, 0));
        assert_eq!(
            clock.hold,
            Some(Hold {
                since: stamp(jumped, 0)
            })
        );
        let hour = ONE.jump_confirmed_millis;
        for part in 1..60 {
            clock.advance(&ONE, stamp(jumped + hour / 60 * part, hour / 60 * part));
            assert!(clock.hold.is_some());
        }
        clock.advance(&ONE, stamp(jumped + hour, hour));
        assert_eq!(clock.hold, None);
    }

    #[test]
    fn a_wall_clock_that_stands_still_confirms_nothing() {
        let mut clock = Clock::default();
        clock.advance(&ONE, stamp(1, 0));
        let jumped = stamp(1 << 40, 0);
        clock.advance(&ONE, jumped);
        for hour in 1..10 {
            clock.advance(&ONE, stamp(5, hour * ONE.jump_confirmed_millis));
            assert!(clock.hold.is_some());
        }
    }

    #[test]
    fn the_first_stamp_is_no_jump() {
        let mut clock = Clock::default();
        clock.advance(&ONE, stamp(1 << 40, 0));
        assert_eq!(clock.hold, None);
    }
}
