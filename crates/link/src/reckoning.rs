//! What the clock of another process shows, as far as its answers tell, and how that lies in headers: a node that receives a call can so
//! judge by its own clock when the call was made, however long it was under way. Two processes never compare their clocks otherwise. Pure.

use std::fmt;
use std::time::Duration;

use host::clock::Instant;

/// A reckoning is kept for so long, and no longer, since one clock may be quicker than the other.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// The boot clock of one run of a process, and what it shows at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Drawn at the start of the process: after a restart, perhaps of the machine, the clock is another.
    pub(crate) run: u64,
    pub(crate) at: Instant,
}

impl fmt::Display for Reading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x} {}", self.run, self.at.as_micros())
    }
}

impl Reading {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (run, micros) = text.split_once(' ')?;
        Some(Reading {
            run: u64::from_str_radix(run, 16).ok()?,
            at: Instant::from_micros(micros.parse().ok()?),
        })
    }
}

/// How far a node's clock is ahead of this process's own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reckoning(Option<Known>);

#[derive(Clone, Copy, Debug)]
struct Known {
    run: u64,
    /// Too little by as long as the answer that told it was under way, and so never too much.
    ahead_micros: i128,
    learned_at: Instant,
}

impl Reckoning {
    /// Learns from an answer that came at `now` and began when the node's clock showed `shown`. One that was under way for long tells less
    /// than what is known.
    pub(crate) fn learn(&mut self, shown: Reading, now: Instant) {
        let ahead_micros = i128::from(shown.at.as_micros()) - i128::from(now.as_micros());
        let tells_less = |known: &Known| {
            known.run == shown.run
                && known.ahead_micros > ahead_micros
                && now.since(known.learned_at) < KEPT_FOR
        };
        if !self.0.as_ref().is_some_and(tells_less) {
            self.0 = Some(Known {
                run: shown.run,
                ahead_micros,
                learned_at: now,
            });
        }
    }

    /// What the node's clock showed when that of this process showed `at`, or a little less.
    pub(crate) fn shown_at(&self, at: Instant) -> Option<Reading> {
        self.0.map(|known| {
            let micros = i128::from(at.as_micros()) + known.ahead_micros;
            let micros = u64::try_from(micros.max(0)).unwrap_or(u64::MAX);
            Reading {
                run: known.run,
                at: Instant::from_micros(micros),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn shown(run: u64, millis: u64) -> Reading {
        let at = at(millis);
        Reading { run, at }
    }

    #[test]
    fn what_a_clock_shows_can_be_written_and_read() {
        for shown in [shown(0, 0), shown(u64::MAX, 77)] {
            assert_eq!(Reading::parse(&shown.to_string()), Some(shown));
        }
        for flawed in ["", "?", "12", "x 1", "1 x", "1 2 3", "1 -2"] {
            assert_eq!(Reading::parse(flawed), None, "{flawed}");
        }
    }

    #[test]
    fn a_node_s_clock_is_reckoned_from_its_quickest_answer() {
        let mut reckoning = Reckoning::default();
        assert_eq!(reckoning.shown_at(at(1_000)), None);
        // Its clock is 500 s ahead; answers take 10 ms, 1 ms, and three seconds.
        reckoning.learn(shown(7, 501_000), at(1_010));
        assert_eq!(reckoning.shown_at(at(1_010)), Some(shown(7, 501_000)));
        reckoning.learn(shown(7, 502_000), at(2_001));
        assert_eq!(reckoning.shown_at(at(2_000)), Some(shown(7, 501_999)));
        reckoning.learn(shown(7, 502_100), at(5_100));
        assert_eq!(reckoning.shown_at(at(5_000)), Some(shown(7, 504_999)));
        // What was before that clock began it cannot have shown.
        reckoning.learn(shown(7, 10), at(9_000));
        assert_eq!(reckoning.shown_at(at(8_000)), Some(shown(7, 0)));
    }

    #[test]
    fn a_reckoning_is_replaced_once_it_is_old_or_the_process_another() {
        let mut reckoning = Reckoning::default();
        reckoning.learn(shown(7, 501_000), at(1_000));
        reckoning.learn(shown(7, 505_000), at(6_000));
        assert_eq!(reckoning.shown_at(at(6_000)), Some(shown(7, 505_000)));
        reckoning.learn(shown(8, 3_000), at(6_001));
        assert_eq!(reckoning.shown_at(at(6_001)), Some(shown(8, 3_000)));
    }
}
