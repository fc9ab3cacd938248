//! How many requests, and bytes of them, may be made beyond those that callers ask for. It must not
//! know when they are made.

use host::allowance::{ONE, Terms};

/// For repeating failed requests: three for each ten that callers ask for, since a store that
/// refuses one in five needs up to that many; and ten a second, which hurt no store, so that a
/// bucket that was away is asked again even if no caller comes.
pub(crate) const REPEATS: Terms = Terms {
    cap: 20 * ONE,
    per_unit: 300,
    per_second: 10 * ONE,
};
/// For second copies of slow requests: one for each ten that callers ask for.
pub(crate) const HEDGES: Terms = Terms {
    cap: 10 * ONE,
    per_unit: 100,
    per_second: 0,
};
/// For the KiB that repeated uploads send: the same share as of requests; and 1 Mbit/s, which
/// leaves most of a slow uplink to the uploads that were asked for.
pub(crate) const REPEATED_KIB: Terms = Terms {
    cap: 4_096 * ONE,
    per_unit: 300,
    per_second: 128 * ONE,
};
/// For the KiB that second copies of slow uploads send.
pub(crate) const HEDGED_KIB: Terms = Terms {
    cap: 1_024 * ONE,
    per_unit: 100,
    per_second: 0,
};

#[cfg(test)]
mod tests {
    use host::allowance::Allowance;
    use host::clock::Instant;

    use super::*;

    fn spent(allowance: &mut Allowance, now: Instant) -> usize {
        (0..1_000).take_while(|_| allowance.spend(now, 1)).count()
    }

    #[test]
    fn one_request_in_ten_gets_a_second_copy() {
        let mut hedges = Allowance::new(HEDGES);
        let now = Instant::from_millis(5);
        assert_eq!(spent(&mut hedges, now), 10);
        (0..50).for_each(|_| hedges.earn(1));
        assert_eq!(spent(&mut hedges, now), 5);
        assert_eq!(spent(&mut hedges, Instant::from_millis(60_000)), 0);
    }

    #[test]
    fn repeats_are_also_earned_by_waiting() {
        let mut repeats = Allowance::new(REPEATS);
        spent(&mut repeats, Instant::from_millis(1_000));
        assert_eq!(spent(&mut repeats, Instant::from_millis(1_500)), 5);
        assert_eq!(spent(&mut repeats, Instant::from_millis(60_000)), 20);
    }

    #[test]
    fn a_large_copy_goes_out_once_and_is_paid_by_what_follows() {
        let mut hedged = Allowance::new(HEDGED_KIB);
        let now = Instant::from_millis(5);
        assert!(hedged.spend(now, 8 << 10));
        assert!(!hedged.spend(now, 1));
        // A tenth of what was asked for, from seven MiB of debt up to full.
        hedged.earn(79 << 10);
        assert!(!hedged.affords(now, 8 << 10));
        hedged.earn(2 << 10);
        assert!(hedged.affords(now, 8 << 10));
    }
}
