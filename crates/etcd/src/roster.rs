//! What is known of an etcd's members, from the calls that they answered and those that they did not: whom to ask first, and how
//! long an answer usually takes. Pure. It must not know what is asked.

use std::time::Duration;

use host::clock::Instant;

/// A member that has failed is asked after the others for so long, twice as long each time in a row.
const SHUNNED_FOR: Duration = Duration::from_millis(250);
const SHUNNED_FOR_MAX: Duration = Duration::from_secs(8);
/// The bounds of how long one attempt is waited for before another is begun beside it. The upper one lies well below any election's
/// time, since what was said to a leader that is gone is never answered; only where answers usually take as long, more is waited for.
const PATIENCE_MIN: Duration = Duration::from_millis(40);
const PATIENCE_MAX: Duration = Duration::from_millis(500);
/// What it is taken for until something was answered.
const UNKNOWN: Duration = Duration::from_millis(50);
/// How many times the usual is waited for.
const UNUSUAL: u32 = 3;
/// How much the last answer counts in the usual: one part in so many.
const MEMORY: u32 = 8;
/// A large request is given as much more time as it takes at this rate.
const BYTES_PER_MS: usize = 8 << 10;

/// The members, by their places in the operator's list.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    members: Vec<Member>,
    usual: Duration,
}

#[derive(Clone, Debug, Default)]
struct Member {
    /// Failures in a row.
    failures: u32,
    shunned_until: Instant,
}

impl Roster {
    pub(crate) fn of(members: usize) -> Self {
        Roster {
            members: vec![Member::default(); members],
            usual: UNKNOWN,
        }
    }

    /// All members, in the order in which to ask them: as the operator has them, but for those that have failed of late.
    pub(crate) fn order(&self, now: Instant) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        order.sort_by_key(|at| self.members[*at].shunned_until.max(now));
        order
    }

    /// How long to wait for an answer to so many bytes before another attempt is begun.
    pub(crate) fn patience(&self, bytes: usize) -> Duration {
        let sending = Duration::from_millis((bytes / BYTES_PER_MS) as u64);
        let unusual = (self.usual * UNUSUAL).clamp(PATIENCE_MIN, PATIENCE_MAX);
        // A store that is slow for everybody is not given twice as much to do.
        unusual.max(self.usual * 3 / 2) + sending
    }

    /// A member has answered, after so long.
    pub(crate) fn answered(&mut self, member: usize, took: Duration) {
        self.usual = (self.usual * (MEMORY - 1) + took) / MEMORY;
        self.members[member] = Member::default();
    }

    /// A member has failed, or another one that was asked later has answered first.
    pub(crate) fn failed(&mut self, member: usize, now: Instant) {
        let member = &mut self.members[member];
        if member.shunned_until > now {
            // All calls that it has not answered fail at the same time.
            return;
        }
        let doubled = SHUNNED_FOR.saturating_mul(1 << member.failures.min(16));
        member.failures = member.failures.saturating_add(1);
        member.shunned_until = now + doubled.min(SHUNNED_FOR_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn a_member_that_failed_is_asked_last_for_a_while_and_longer_each_time() {
        let mut roster = Roster::of(3);
        assert_eq!(roster.order(at(1_000)), [0, 1, 2]);
        roster.failed(0, at(1_000));
        roster.failed(0, at(1_100));
        assert_eq!(roster.order(at(1_249)), [1, 2, 0]);
        assert_eq!(roster.order(at(1_250)), [0, 1, 2]);
        roster.failed(0, at(1_250));
        assert_eq!(roster.order(at(1_749)), [1, 2, 0], "twice as long");
        roster.failed(1, at(1_300));
        assert_eq!(
            roster.order(at(1_400)),
            [2, 1, 0],
            "the soonest again first"
        );
        roster.answered(0, Duration::ZERO);
        assert_eq!(roster.order(at(1_400)), [0, 2, 1]);
        for _ in 0..100 {
            let until = roster.members[0].shunned_until;
            roster.failed(0, until.max(at(100_000)));
        }
        let until = roster.members[0].shunned_until;
        assert_eq!(
            roster.order(Instant::from_micros(until.as_micros() - 1)),
            [1, 2, 0]
        );
        roster.failed(0, until);
        assert_eq!(
            roster.order(until + SHUNNED_FOR_MAX),
            [0, 1, 2],
            "8 s at most"
        );
    }

    #[test]
    fn patience_follows_what_is_usual_within_bounds() {
        let mut roster = Roster::of(1);
        assert_eq!(roster.patience(0), Duration::from_millis(150));
        for _ in 0..100 {
            roster.answered(0, Duration::from_millis(1));
        }
        assert_eq!(roster.patience(0), PATIENCE_MIN);
        assert_eq!(
            roster.patience(1 << 20),
            PATIENCE_MIN + Duration::from_millis(128)
        );
        for _ in 0..100 {
            roster.answered(0, Duration::from_millis(300));
        }
        assert_eq!(roster.patience(0), PATIENCE_MAX);
        for _ in 0..100 {
            roster.answered(0, Duration::from_secs(2));
        }
        let patience = roster.patience(0);
        assert!(patience > Duration::from_millis(2_990), "{patience:?}");
    }
}
