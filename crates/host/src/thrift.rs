//! Puts work off that costs something each time and can be done for many callers at once, so that
//! in the long run it costs no more than was set. What is not spent is saved up for a while: work
//! that is rare never waits, and work that lasts waits until it can be paid for, but no longer than
//! a limit. Pure. It must not know what the work is.

use std::time::Duration;

use crate::allowance::{Allowance, ONE, Terms};
use crate::clock::Instant;

/// What is not spent is saved up for this long: enough for a burst of some dozen, little beside the
/// cost of a minute.
const SAVED_SECONDS: u64 = 4;
/// The allowance's units in one request.
const MILLI: u64 = 1_000;

/// How much may be spent, and how long work may wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests in a second. 0: nothing is counted, and no work waits.
    pub per_second: u64,
    /// Requests more for each MiB that the work is about.
    pub per_mib: u64,
    /// The longest that work waits.
    pub wait_max: Duration,
}

/// One kind of work that is put off.
#[derive(Clone, Debug)]
pub struct Thrift {
    limits: Limits,
    /// What doing the work once costs, in thousandths of a request.
    price: u64,
    allowance: Allowance,
}

impl Thrift {
    /// Work that costs `price`, in thousandths of a request, each time it is done.
    pub fn new(limits: Limits, price: u64) -> Self {
        let saved = limits.per_second.saturating_mul(SAVED_SECONDS * MILLI);
        let per_second = limits.per_second.saturating_mul(MILLI);
        let terms = Terms {
            cap: parts(saved.max(price)),
            per_unit: parts(limits.per_mib.saturating_mul(MILLI)) / KIB_PER_MIB,
            per_second: parts(per_second),
        };
        Thrift {
            limits,
            price,
            allowance: Allowance::new(terms),
        }
    }

    /// When work is due that has waited since `since`, and that would be done at `at` if it cost
    /// nothing. An instant in the past means now.
    pub fn due(&self, since: Instant, at: Instant) -> Instant {
        if self.limits.per_second == 0 {
            return at;
        }
        let latest = since + self.limits.wait_max;
        let paid = self.allowance.affords_at(self.price);
        at.max(paid.map_or(latest, |paid| paid.min(latest)))
    }

    /// Notes that the work was done, whether it was due or not, and how many bytes it was about.
    pub fn done(&mut self, now: Instant, bytes: u64) {
        self.allowance.earn(bytes >> 10);
        self.allowance.charge(now, self.price);
    }
}

const KIB_PER_MIB: i64 = 1 << 10;

fn parts(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX).saturating_mul(ONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EIGHT: Limits = Limits {
        per_second: 8,
        per_mib: 1,
        wait_max: Duration::from_millis(250),
    };
    /// The least that work waits in these tests.
    const LEAST: Duration = Duration::from_millis(25);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    /// How often the work is done in the second half of a long time, and the longest wait, if it is wanted
    /// every `every` milliseconds and is about `bytes` more each time that it is wanted.
    fn lasting(limits: Limits, every: u64, bytes: u64) -> (u64, Duration) {
        let mut thrift = Thrift::new(limits, 2_000);
        let (mut since, mut waiting) = (None, 0);
        let (mut done, mut longest) = (0, Duration::ZERO);
        let length = 120_000;
        for millis in 0..length {
            let now = at(millis);
            if millis.is_multiple_of(every) {
                since = since.or(Some(now));
                waiting += bytes;
            }
            let due = since.map(|since| (since, thrift.due(since, since + LEAST)));
            if let Some((began, due)) = due
                && due <= now
            {
                thrift.done(now, waiting);
                (since, waiting) = (None, 0);
                longest = longest.max(now - began);
                done += u64::from(millis >= length / 2);
            }
        }
        (done, longest)
    }

    #[test]
    fn what_lasts_is_done_as_often_as_is_paid_for() {
        let (done, longest) = lasting(EIGHT, 10, 0);
        assert!((235..=240).contains(&done), "{done} in a minute, of 240");
        assert!(longest <= EIGHT.wait_max, "{longest:?}");
    }

    #[test]
    fn a_mib_pays_for_one_more() {
        // 4 MiB a second.
        let (done, _) = lasting(EIGHT, 10, (4 << 20) / 100);
        assert!((350..=362).contains(&done), "{done} in a minute, of 360");
        // Each time a MiB, so that the least wait decides.
        let (done, longest) = lasting(EIGHT, 5, 512 << 10);
        assert!((1_990..=2_010).contains(&done), "{done} in a minute");
        assert_eq!(longest, LEAST);
    }

    #[test]
    fn what_is_rare_never_waits() {
        for every in [250, 1_000, 10_000] {
            let (done, longest) = lasting(EIGHT, every, 0);
            assert_eq!((done, longest), (60_000 / every, LEAST));
        }
    }

    #[test]
    fn nothing_waits_without_a_budget() {
        let limits = Limits {
            per_second: 0,
            ..EIGHT
        };
        let (done, longest) = lasting(limits, 1, 0);
        assert!(done > 2_200, "{done} in a minute");
        assert_eq!(longest, LEAST);
    }

    #[test]
    fn a_budget_that_is_too_small_makes_nobody_wait_for_longer_than_the_limit() {
        let limits = Limits {
            per_second: 1,
            ..EIGHT
        };
        let (done, longest) = lasting(limits, 10, 0);
        assert!((228..=232).contains(&done), "{done} in a minute");
        assert_eq!(longest, EIGHT.wait_max);
    }

    #[test]
    fn what_could_not_be_paid_is_forgiven_and_what_is_saved_has_a_bound() {
        let mut thrift = Thrift::new(EIGHT, 2_000);
        let due = |thrift: &Thrift, now| thrift.due(at(now), at(now)).as_millis() - now;
        for _ in 0..1_000 {
            thrift.done(at(1_000), 0);
        }
        assert_eq!(due(&thrift, 1_000), 250);
        assert_eq!(due(&thrift, 1_250), 0);
        // A long rest pays for four seconds' worth, and no more.
        for _ in 0..16 {
            assert_eq!(due(&thrift, 600_000), 0);
            thrift.done(at(600_000), 0);
        }
        assert_eq!(due(&thrift, 600_000), 250);
    }
}
