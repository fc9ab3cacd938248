//! An allowance of work: how much may be done now, in units such as requests or bytes, earned by
//! time and by other work, and saved up to a cap. Pure. It must not know what the work is.

use crate::clock::Instant;

/// Allowances count in thousandths of a unit.
pub const ONE: i64 = 1_000;

/// How an allowance grows, in thousandths of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The most that is saved up. An allowance begins full.
    pub cap: i64,
    /// Earned by each unit of the work that is done anyway.
    pub per_unit: i64,
    /// Earned in each second.
    pub per_second: i64,
}

/// Work that may be done now.
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

    /// Counts units of the work that earns.
    pub fn earn(&mut self, units: u64) {
        self.save(thousandths(units, self.terms.per_unit));
    }

    /// True if so many units may be taken out. More than can be saved up may be once the allowance is
    /// full, since there would never be enough.
    pub fn affords(&mut self, now: Instant, units: u64) -> bool {
        self.count(now);
        self.saved >= self.price(units)
    }

    /// When so many units can be taken out if nothing is earned but by time; `None`: never. An
    /// instant in the past means now.
    pub fn affords_at(&self, units: u64) -> Option<Instant> {
        let missing = u64::try_from(self.price(units).saturating_sub(self.saved)).unwrap_or(0);
        if missing == 0 {
            return Some(self.counted_at);
        }
        let per_second = u64::try_from(self.terms.per_second).ok()?;
        let millis = missing.saturating_mul(1_000).checked_add(per_second)?;
        let millis = (millis - 1).checked_div(per_second)?;
        let at = self.counted_at.as_millis().saturating_add(millis);
        Some(Instant::from_millis(at))
    }

    /// Takes so many units out; false, and nothing is taken, if there are not enough.
    pub fn spend(&mut self, now: Instant, units: u64) -> bool {
        let affords = self.affords(now, units);
        if affords {
            self.saved = self.saved.saturating_sub(thousandths(units, ONE));
        }
        affords
    }

    /// Takes so many units out, or what there is if they are fewer: the work is done all the same.
    pub fn charge(&mut self, now: Instant, units: u64) {
        self.count(now);
        self.saved = self.saved.saturating_sub(thousandths(units, ONE)).max(0);
    }

    /// Fills the allowance to its cap.
    pub fn fill(&mut self) {
        self.saved = self.terms.cap;
    }

    /// What there must be for so many units to be taken out.
    fn price(&self, units: u64) -> i64 {
        thousandths(units, ONE).min(self.terms.cap)
    }

    /// Counts what time has earned.
    fn count(&mut self, now: Instant) {
        let millis = now.as_millis().saturating_sub(self.counted_at.as_millis());
        self.counted_at = self.counted_at.max(now);
        self.save(thousandths(millis, self.terms.per_second) / 1_000);
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

    /// A tenth of what is asked for, up to ten.
    const SHARE: Terms = Terms {
        cap: 10 * ONE,
        per_unit: 100,
        per_second: 0,
    };
    /// The same, and ten each second, up to twenty.
    const TIMED: Terms = Terms {
        cap: 20 * ONE,
        per_unit: 100,
        per_second: 10 * ONE,
    };

    fn spent(allowance: &mut Allowance, now: Instant) -> usize {
        (0..1_000).take_while(|_| allowance.spend(now, 1)).count()
    }

    #[test]
    fn it_is_a_share_of_what_earns_it() {
        let mut allowance = Allowance::new(SHARE);
        let now = Instant::from_millis(5);
        assert_eq!(spent(&mut allowance, now), 10);
        (0..50).for_each(|_| allowance.earn(1));
        assert_eq!(spent(&mut allowance, now), 5);
        (0..1_000).for_each(|_| allowance.earn(1));
        assert_eq!(spent(&mut allowance, now), 10, "no more is saved up");
        assert_eq!(spent(&mut allowance, Instant::from_millis(60_000)), 0);
    }

    #[test]
    fn it_may_be_earned_by_waiting_too() {
        let mut allowance = Allowance::new(TIMED);
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
        let mut allowance = Allowance::new(SHARE);
        let now = Instant::from_millis(5);
        assert!(allowance.spend(now, 80));
        assert!(!allowance.spend(now, 1));
        // A tenth of what was asked for, from a debt of seventy up to full.
        allowance.earn(790);
        assert!(!allowance.affords(now, 80));
        allowance.earn(20);
        assert!(allowance.affords(now, 80));
    }

    #[test]
    fn it_tells_when_there_will_be_enough() {
        let mut allowance = Allowance::new(TIMED);
        let now = Instant::from_millis(1_000);
        assert_eq!(allowance.affords_at(20), Some(Instant::default()));
        assert!(allowance.spend(now, 19));
        for (units, millis) in [(1, 0), (2, 100), (20, 1_900), (1_000, 1_900)] {
            let at = allowance.affords_at(units).expect("time earns");
            assert_eq!(at, Instant::from_millis(1_000 + millis), "{units}");
            assert!(allowance.clone().affords(at, units), "{units}");
            let before = Instant::from_millis(at.as_millis() - 1);
            assert!(millis == 0 || !allowance.clone().affords(before, units));
        }
        let mut share = Allowance::new(SHARE);
        share.charge(now, 3);
        assert_eq!(share.affords_at(7), Some(now));
        assert_eq!(share.affords_at(8), None, "time earns nothing");
    }

    #[test]
    fn work_that_is_done_all_the_same_leaves_no_debt() {
        let mut allowance = Allowance::new(TIMED);
        let now = Instant::from_millis(1_000);
        allowance.charge(now, 1_000);
        assert_eq!(allowance.affords_at(1), Some(Instant::from_millis(1_100)));
    }
}
