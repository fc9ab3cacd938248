//! An allowance of extra requests: how many may be made beyond those that callers asked for. Pure.
//! It must not know what the requests are.

use host::clock::Instant;

/// One request. Allowances count in thousandths of one.
const ONE: u64 = 1_000;

/// How an allowance grows, in thousandths of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The most that is saved up. An allowance begins full.
    pub cap: u64,
    /// Earned by each request that a caller asks for.
    pub per_request: u64,
    /// Earned in each second, so that a bucket that was away is asked again even if no caller
    /// comes.
    pub per_second: u64,
}

impl Terms {
    /// For repeating failed requests: three for each ten that callers ask for, since a store that
    /// refuses one in five needs up to that many; and ten a second, which hurt no store.
    pub const REPEATS: Terms = Terms {
        cap: 20 * ONE,
        per_request: 300,
        per_second: 10 * ONE,
    };
    /// For second copies of slow requests: one for each ten that callers ask for.
    pub const HEDGES: Terms = Terms {
        cap: 10 * ONE,
        per_request: 100,
        per_second: 0,
    };
}

/// Extra requests that may be made now.
#[derive(Clone, Debug)]
pub struct Allowance {
    terms: Terms,
    saved: u64,
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

    /// Counts a request that a caller asked for.
    pub fn earn(&mut self) {
        self.save(self.terms.per_request);
    }

    /// Takes one extra request out; false if there is none.
    pub fn spend(&mut self, now: Instant) -> bool {
        let millis = now.as_millis().saturating_sub(self.counted_at.as_millis());
        self.counted_at = self.counted_at.max(now);
        self.save(millis.saturating_mul(self.terms.per_second) / 1_000);
        match self.saved.checked_sub(ONE) {
            Some(left) => {
                self.saved = left;
                true
            }
            None => false,
        }
    }

    /// Fills the allowance to its cap.
    pub fn fill(&mut self) {
        self.saved = self.terms.cap;
    }

    fn save(&mut self, earned: u64) {
        self.saved = self.saved.saturating_add(earned).min(self.terms.cap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(allowance: &mut Allowance, now: Instant) -> usize {
        (0..1_000).take_while(|_| allowance.spend(now)).count()
    }

    #[test]
    fn extra_requests_are_a_share_of_those_asked_for() {
        let mut allowance = Allowance::new(Terms::HEDGES);
        let now = Instant::from_millis(5);
        assert_eq!(spent(&mut allowance, now), 10);
        (0..50).for_each(|_| allowance.earn());
        assert_eq!(spent(&mut allowance, now), 5);
        (0..1_000).for_each(|_| allowance.earn());
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
}
