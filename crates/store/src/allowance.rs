//! An allowance of extra work: how much may be done beyond what callers asked for, in units such as
//! requests or bytes. Pure. It must not know what the work is.

use host::clock::Instant;

/// Allowances count in thousandths of a unit.
const ONE: i64 = 1_000;

/// How an allowance grows, in thousandths of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The most that is saved up. An allowance begins full.
    pub cap: i64,
    /// Earned by each unit that a caller asks for.
    pub per_unit: i64,
    /// Earned in each second, so that a bucket that was away is asked again even if no caller
    /// comes.
    pub per_second: i64,
}

impl Terms {
    /// For repeating failed requests: three for each ten that callers ask for, since a store that
    /// refuses one in five needs up to that many; and ten a second, which hurt no store.
    pub const REPEATS: Terms = Terms {
        cap: 20 * ONE,
        per_unit: 300,
        per_second: 10 * ONE,
    };
    /// For second copies of slow requests: one for each ten that callers ask for.
    pub const HEDGES: Terms = Terms {
        cap: 10 * ONE,
        per_unit: 100,
        per_second: 0,
    };
    /// For the KiB that repeated uploads send: the same share as of requests; and 1 Mbit/s, which
    /// leaves most of a slow uplink to the uploads that were asked for.
    pub const REPEATED_KIB: Terms = Terms {
        cap: 4_096 * ONE,
        per_unit: 300,
        per_second: 128 * ONE,
    };
    /// For the KiB that second copies of slow uploads send.
    pub const HEDGED_KIB: Terms = Terms {
        cap: 1_024 * ONE,
        per_unit: 100,
        per_second: 0,
    };
}

/// Extra work that may be done now.
#[derive(Clone, Debug)]
pub struct Allowance {
    terms: Terms,
    /// Less than nothing after work that cost more than can be saved up.
    saved: i64,
    counted_at: Instant,
}

impl Allowance {
    pub fn new(terms: Terms) -> Self {
        Allowance {
            terms,
            saved: terms.cap,
            counted_at: Instant::default(),
        }
    }

    /// Counts units that a caller asked for.
    pub fn earn(&mut self, units: u64) {
        self.save(thousandths(units, self.terms.per_unit));
    }

    /// True if so many units may be taken out. More than can be saved up may be once the allowance is
    /// full, since there would never be enough.
    pub fn affords(&mut self, now: Instant, units: u64) -> bool {
        let millis = now.as_millis().saturating_sub(self.counted_at.as_millis());
        self.counted_at = self.counted_at.max(now);
        self.save(thousandths(millis, self.terms.per_second) / 1_000);
        self.saved >= thousandths(units, ONE).min(self.terms.cap)
    }

    /// Takes so many units out; false, and nothing is taken, if there are not enough.
    pub fn spend(&mut self, now: Instant, units: u64) -> bool {
        let affords = self.affords(now, units);
        if affords {
            self.saved = self.saved.saturating_sub(thousandths(units, ONE));
        }
        affords
    }

    /// Fills the allowance to its cap.
    pub fn fill(&mut self) {
        self.saved = self.terms.cap;
    }

    fn save(&mut self, earned: i64) {
        self.saved = self.saved.saturating_add(earned).min(self.terms.cap);
    }
}

fn thousandths(units: u64, each: i64) -> i64 {
    i64::try_from(units)
        .unwrap_or(i64::MAX)
        .saturating_mul(each)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(allowance: &mut Allowance, now: Instant) -> usize {
        (0..1_000).take_while(|_| allowance.spend(now, 1)).count()
    }

    #[test]
    fn extra_requests_are_a_share_of_those_asked_for() {
        let mut allowance = Allowance::new(Terms::HEDGES);
        let now = Instant::from_millis(5);
        assert_eq!(spent(&mut allowance, now), 10);
        (0..50).for_each(|_| allowance.earn(1));
        assert_eq!(spent(&mut allowance, now), 5);
        (0..1_000).for_each(|_| allowance.earn(1));
        assert_eq!(spent(&mut allowance, now), 10, "no more is saved up");
        assert_eq!(spent(&mut allowance, Instant::from_millis(60_000)), 0);
    }

    #[test]
    fn repeats_are_also_earned_by_waiting() {
        let mut allowance = Allowance::new(Terms::REPEATS);
        let at = Instant::from_millis;
        spent(&mut allowance, at(1_000));
        assert_eq!(spent(&mut allowance, at(1_050)), 0);
        assert_eq!(spent(&mut allowance, at(1_500)), 5);
        assert_eq!(spent(&mut allowance, at(60_000)), 20);
        allowance.fill();
        assert_eq!(spent(&mut allowance, at(60_000)), 20);
    }

    #[test]
    fn what_costs_more_than_can_be_saved_is_paid_afterwards() {
        let mut allowance = Allowance::new(Terms::HEDGED_KIB);
        let now = Instant::from_millis(5);
        assert!(allowance.spend(now, 8 << 10));
        assert!(!allowance.spend(now, 1));
        // A tenth of what was asked for, from seven MiB of debt up to full.
        allowance.earn(79 << 10);
        assert!(!allowance.affords(now, 8 << 10));
        allowance.earn(2 << 10);
        assert!(allowance.affords(now, 8 << 10));
    }
}
