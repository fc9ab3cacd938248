//! Whether a taker leaves another alone: nodes that take at the same time would depose each other for ever, so one that meets the
//! ballot of another waits until that has had the time of a take. Timers decide only when somebody tries; nothing is safe because
//! somebody waits. Pure: times come in as arguments. It must not know how a journal is taken.

use std::time::Duration;

use host::clock::Instant;

use super::super::ballot::Ballot;

/// A take and its claim need some five requests one after the other, of which two wait for the slowest of many.
const ANSWERS_OF_A_TAKE: u32 = 10;
/// What a taker leaves another at least and at most. Whoever takes and dies costs its successor no more than the longest.
const PATIENCE_MIN: Duration = Duration::from_millis(100);
const PATIENCE_MAX: Duration = Duration::from_secs(1);
/// Takes lost in a row beyond which the range of patience widens no more.
const LOSSES_MAX: u32 = 2;
/// While ever more others come, a taker waits this many times its patience, but no longer than this, then it goes on. Callers
/// give a take ten seconds.
const PATIENCES_MAX: u32 = 3;
const COURTESY_MAX: Duration = Duration::from_secs(5);
pub(super) const MILLION: u64 = 1_000_000;

/// What is known of other takers.
#[derive(Debug, Default)]
pub(super) struct Courtesy {
    /// The highest ballot that was met.
    highest: Ballot,
    /// When it was first met, if it is another's.
    met: Option<Instant>,
    /// The highest ballot of this process's own, or under which a slot was handed to the caller.
    told: Ballot,
    /// Takes in a row that lost to another ballot.
    losses: u32,
}

impl Courtesy {
    /// Notes the highest ballot that was met until now.
    pub(super) fn met(&mut self, (highest, is_own): (Ballot, bool), now: Instant) {
        if self.highest != highest {
            self.highest = highest;
            self.met = (!is_own).then_some(now);
        }
        if is_own {
            self.told = self.told.max(highest);
        }
    }

    /// The caller is told of a slot that is chosen under this ballot; true if that is one of which it has not heard before.
    pub(super) fn tell(&mut self, ballot: Ballot) -> bool {
        let is_new = ballot > self.told;
        self.told = self.told.max(ballot);
        is_new
    }

    /// This ballot, out of a snapshot, was not met just now.
    pub(super) fn is_past(&mut self, ballot: Ballot) {
        self.tell(ballot);
        if self.highest == ballot {
            self.met = None;
        }
    }

    pub(super) fn lost(&mut self) {
        self.losses = self.losses.saturating_add(1);
    }

    pub(super) fn won(&mut self) {
        self.losses = 0;
    }

    /// How long a take leaves others alone, if a request is usually answered in this time. `drawn`, of a million, says where in
    /// a range that widens with every loss, so that those who wait do not go on together.
    pub(super) fn patience(&self, usual: Duration, drawn: u64) -> Duration {
        let least = (usual * ANSWERS_OF_A_TAKE).clamp(PATIENCE_MIN, PATIENCE_MAX);
        let range = least * (1 + self.losses.min(LOSSES_MAX));
        let micros = u64::try_from(range.as_micros()).unwrap_or(u64::MAX / MILLION);
        least + Duration::from_micros(micros * drawn.min(MILLION) / MILLION)
    }

    /// How much longer a take that began then leaves the other alone.
    pub(super) fn left(&self, patience: Duration, began: Instant, now: Instant) -> Duration {
        let last = began + (patience * PATIENCES_MAX).min(COURTESY_MAX);
        self.met
            .map_or(Duration::ZERO, |met| (met + patience).min(last).since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_millis(20);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn ballot(number: u64) -> (Ballot, bool) {
        (Ballot { number, nonce: 1 }, false)
    }

    #[test]
    fn a_ballot_that_was_just_met_is_left_alone_and_an_old_one_is_not() {
        let patience = Duration::from_millis(300);
        let mut courtesy = Courtesy::default();
        assert_eq!(courtesy.left(patience, at(900), at(900)), Duration::ZERO);
        courtesy.met(ballot(1), at(1_000));
        courtesy.met(ballot(1), at(1_200));
        let left = courtesy.left(patience, at(1_200), at(1_200));
        assert_eq!(left, Duration::from_millis(100));
        courtesy.is_past(ballot(1).0);
        assert_eq!(
            courtesy.left(patience, at(1_200), at(1_200)),
            Duration::ZERO
        );
    }

    #[test]
    fn the_caller_hears_once_of_each_ballot_that_is_not_its_own() {
        let mut courtesy = Courtesy::default();
        assert!(courtesy.tell(ballot(3).0));
        assert!(!courtesy.tell(ballot(3).0));
        assert!(!courtesy.tell(ballot(2).0));
        courtesy.met((ballot(5).0, true), at(1));
        assert!(!courtesy.tell(ballot(5).0));
        assert!(courtesy.tell(ballot(6).0));
    }

    #[test]
    fn a_taker_that_meets_ever_more_others_goes_on_in_the_end() {
        let patience = Duration::from_millis(300);
        let mut courtesy = Courtesy::default();
        for number in 1..=9 {
            courtesy.met(ballot(number), at(number * 100));
        }
        assert_ne!(courtesy.left(patience, at(0), at(899)), Duration::ZERO);
        assert_eq!(courtesy.left(patience, at(0), at(900)), Duration::ZERO);
    }

    #[test]
    fn patience_is_the_time_of_a_take_and_is_drawn_from_a_range_that_widens() {
        let mut courtesy = Courtesy::default();
        let range = |courtesy: &Courtesy| [0, MILLION].map(|drawn| courtesy.patience(USUAL, drawn));
        let least = USUAL * ANSWERS_OF_A_TAKE;
        assert_eq!(range(&courtesy), [least, least * 2]);
        courtesy.lost();
        assert_eq!(range(&courtesy), [least, least * 3]);
        courtesy.won();
        assert_eq!(range(&courtesy), [least, least * 2]);
        let longest = courtesy.patience(Duration::from_secs(9), MILLION);
        assert_eq!(longest, PATIENCE_MAX * 2);
    }
}
