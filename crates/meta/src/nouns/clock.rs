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

/// An operator has set the time right, since stamps had run ahead. Stamps never go back, so they stand still until clocks reach them;
/// meanwhile time goes on by ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    /// The time that was set, and when.
    pub(crate) at: Stamp,
    /// What stamps said then.
    pub(crate) stamped_wall_millis: u64,
}

/// The last stamp, and whether its wall clock is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    /// The time in force.
    pub(crate) last: Stamp,
    pub(crate) hold: Option<Hold>,
    pub(crate) set: Option<Set>,
    /// The first stamp of the hour of ticks that is under way.
    pub(crate) hour: Stamp,
}

impl Clock {
    /// Takes an entry's stamp; yields the time in force, which goes back by [`Clock::set_to`] alone.
    ///
    /// A jump of the wall clock ahead of the ticks holds retention: after a standstill the jump is
    /// real, after a leader with a wrong clock it is not, and the journal cannot tell. It counts as
    /// confirmed once the wall clock went on for an hour of ticks. If a wrong clock was set right,
    /// the journal's wall time stands still until the clock reaches it, since stamps never
    /// decrease; so retention goes on exactly when the stamps are true again. Many small steps that
    /// come to as much in an hour of ticks count as a jump, too.
    pub(crate) fn advance(&mut self, level: &Level, stamp: Stamp) -> Stamp {
        let last = self.last;
        let ticks_millis = stamp.ticks_millis.max(last.ticks_millis);
        let now = Stamp {
            wall_millis: self
                .wall(stamp.wall_millis, ticks_millis)
                .max(last.wall_millis),
            ticks_millis,
        };
        self.last = now;
        let first = last == Stamp::default();
        if first || ticks_since(now, self.hour) >= level.drift_summed_millis {
            self.hour = now;
        }
        let is_jump = |since: Stamp| {
            let (wall, ticks) = (now.wall_millis - since.wall_millis, ticks_since(now, since));
            wall > ticks.saturating_add(level.jump_millis)
        };
        if !first && (is_jump(last) || is_jump(self.hour)) {
            self.hold = Some(Hold { since: now });
            self.hour = now;
        } else if let Some(hold) = self.hold {
            let ticks = ticks_since(now, hold.since);
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

    /// The wall time in force at an entry that is stamped so: what it says, unless an operator has set another.
    fn wall(&mut self, stamped_wall_millis: u64, ticks_millis: u64) -> u64 {
        let Some(set) = self.set else {
            return stamped_wall_millis;
        };
        let passed = ticks_millis - set.at.ticks_millis;
        let wall_millis = set.at.wall_millis.saturating_add(passed);
        if stamped_wall_millis > set.stamped_wall_millis || wall_millis > set.stamped_wall_millis {
            // Clocks have reached what stamps say.
            self.set = None;
            return stamped_wall_millis;
        }
        wall_millis
    }

    /// Sets the time back, by an operator's word, and trusts it; false if it is not ahead of that.
    pub(crate) fn set_to(&mut self, wall_millis: u64) -> bool {
        if wall_millis >= self.last.wall_millis {
            return false;
        }
        let stamped_wall_millis = match self.set {
            Some(set) => set.stamped_wall_millis,
            None => self.last.wall_millis,
        };
        self.last.wall_millis = wall_millis;
        self.set = Some(Set {
            at: self.last,
            stamped_wall_millis,
        });
        self.hold = None;
        self.hour = self.last;
        true
    }

    /// When something happened that was stamped so. What was stamped while stamps were ahead happened before an operator set them right.
    pub(crate) fn happened_at(&self, wall_millis: u64) -> u64 {
        match self.set {
            Some(set) if wall_millis > self.last.wall_millis => set.at.wall_millis,
            _ => wall_millis,
        }
    }

    /// How far the wall clock went ahead of the ticks in the hour of ticks that is under way, in milliseconds; below zero, how far it
    /// stayed behind.
    pub(crate) fn drift_millis(&self) -> i64 {
        let wall = self.last.wall_millis - self.hour.wall_millis;
        let ticks = ticks_since(self.last, self.hour);
        wall.cast_signed().saturating_sub(ticks.cast_signed())
    }
}

/// Ticks between two stamps, of which `since` is the earlier.
fn ticks_since(now: Stamp, since: Stamp) -> u64 {
    now.ticks_millis - since.ticks_millis
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
    #[test]
    fn small_steps_that_come_to_a_jump_in_an_hour_hold_retention_too() {
        let minute = 60_000;
        let mut clock = Clock::default();
        clock.advance(&ONE, stamp(1_000_000, 0));
        // Two minutes for each one, for ten.
        for step in 1..=10 {
            clock.advance(&ONE, stamp(1_000_000 + step * 2 * minute, step * minute));
            assert_eq!(clock.hold, None);
            assert_eq!(clock.drift_millis(), (step * minute).cast_signed());
        }
        let jumped = stamp(1_000_000 + 22 * minute, 11 * minute);
        clock.advance(&ONE, jumped);
        assert_eq!(clock.hold, Some(Hold { since: jumped }));
        assert_eq!(clock.drift_millis(), 0, "it is summed anew");
        // As much in more than an hour is nothing.
        let mut clock = Clock::default();
        clock.advance(&ONE, stamp(1_000_000, 0));
        for step in 1..=100 {
            let wall = 1_000_000 + step * minute + step * minute / 7;
            clock.advance(&ONE, stamp(wall, step * minute));
            assert_eq!(clock.hold, None);
        }
        // A clock that stands still stays behind.
        let mut clock = Clock::default();
        clock.advance(&ONE, stamp(5, 0));
        clock.advance(&ONE, stamp(5, minute));
        assert_eq!(clock.drift_millis(), -60_000);
    }

    #[test]
    fn a_time_that_was_set_goes_on_by_ticks_until_clocks_reach_the_stamps() {
        let (right, ahead) = (1_000_000, 9_000_000);
        let mut clock = Clock::default();
        clock.advance(&ONE, stamp(right, 0));
        clock.advance(&ONE, stamp(ahead, 0));
        assert!(clock.hold.is_some());
        assert!(!clock.set_to(ahead), "there is nothing to set");
        assert!(clock.set_to(right + 100));
        assert_eq!((clock.last, clock.hold), (stamp(right + 100, 0), None));
        // Right clocks are behind what was stamped before, so that stamps stand still.
        assert_eq!(
            clock.advance(&ONE, stamp(ahead, 50)),
            stamp(right + 150, 50)
        );
        assert_eq!(
            clock.advance(&ONE, stamp(ahead, 60)),
            stamp(right + 160, 60)
        );
        assert_eq!(clock.drift_millis(), 0);
        // It can be set again.
        assert!(!clock.set_to(right + 160));
        assert!(clock.set_to(right + 130));
        assert_eq!(
            clock.advance(&ONE, stamp(ahead, 70)),
            stamp(right + 140, 70)
        );
        // They have reached it.
        assert_eq!(
            clock.advance(&ONE, stamp(ahead + 1, 80)),
            stamp(ahead + 1, 80)
        );
        assert_eq!(clock.set, None);
        assert!(
            clock.hold.is_some(),
            "the cluster may have stood still meanwhile"
        );
    }

    #[test]
    fn a_time_that_was_set_reaches_the_stamps_by_ticks() {
        let mut clock = Clock::default();
        clock.advance(&ONE, stamp(1_000, 0));
        assert!(clock.set_to(900));
        assert_eq!(clock.advance(&ONE, stamp(1_000, 100)), stamp(1_000, 100));
        assert_eq!(clock.advance(&ONE, stamp(1_000, 101)), stamp(1_000, 101));
        assert_eq!(clock.set, None);
    }

    #[test]
    fn what_was_stamped_ahead_happened_before_the_time_was_set() {
        let mut clock = Clock::default();
        clock.advance(&ONE, stamp(1_000_000, 0));
        assert_eq!(clock.happened_at(2_000_000), 2_000_000);
        assert!(clock.set_to(500_000));
        clock.advance(&ONE, stamp(1_000_000, 100));
        assert_eq!(clock.happened_at(1_000_000), 500_000);
        assert_eq!(clock.happened_at(500_100), 500_100);
        assert_eq!(clock.happened_at(7), 7);
    }
}
