//! The attempts of one call: which member is asked when, until one answers or the call's time is up. An attempt that is slow is not
//! given up, since it may be about to succeed: another begins beside it. Pure. It must not know what is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use host::clock::Instant;

use crate::roster::Roster;

/// Once each member has failed, the pause before the next attempt, and how far it grows.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(80);
/// How far the wait for an attempt that is silent grows from one attempt to the next.
const PATIENCE_MAX: Duration = Duration::from_millis(500);

/// What the caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask this member; the attempt has this number.
    Attempt { number: usize, member: usize },
    /// Ask again what to do at this time, unless an attempt ends before.
    WaitUntil(Instant),
    /// Nobody has answered in time.
    GiveUp,
}

/// The attempts of one call.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    order: Vec<usize>,
    /// Those that have not ended: the member, and when it was asked.
    under_way: BTreeMap<usize, (usize, Instant)>,
    begun: usize,
    failed: usize,
    next_at: Instant,
    patience: Duration,
    deadline: Instant,
}

impl Course {
    /// A call of so many bytes that begins now and may take so long.
    pub(crate) fn begin(roster: &Roster, bytes: usize, now: Instant, limit: Duration) -> Self {
        Course {
            order: roster.order(now),
            under_way: BTreeMap::new(),
            begun: 0,
            failed: 0,
            next_at: now,
            patience: roster.patience(bytes),
            deadline: now + limit,
        }
    }

    pub(crate) fn next(&mut self, now: Instant) -> Step {
        if now >= self.deadline {
            return Step::GiveUp;
        }
        if now < self.next_at {
            return Step::WaitUntil(self.next_at.min(self.deadline));
        }
        let number = self.begun;
        let member = self.order[number % self.order.len()];
        self.begun += 1;
        self.under_way.insert(number, (member, now));
        self.next_at = now + self.patience;
        let longer = self.patience * 3 / 2;
        self.patience = longer.min(PATIENCE_MAX).max(self.patience);
        Step::Attempt { number, member }
    }

    /// An attempt has failed: the next member is asked at once, or soon if each was.
    pub(crate) fn failed(&mut self, number: usize, now: Instant, roster: &mut Roster) {
        let Some((member, _)) = self.under_way.remove(&number) else {
            return;
        };
        roster.failed(member, now);
        self.failed += 1;
        let rounds = self.failed / self.order.len();
        let pause = match rounds {
            0 => Duration::ZERO,
            _ => (PAUSE * (1 << (rounds - 1).min(8))).min(PAUSE_MAX),
        };
        self.next_at = self.next_at.min(now + pause);
    }

    /// An attempt was answered, which ends the call. Members that were asked earlier and are silent yet have failed.
    pub(crate) fn answered(&mut self, number: usize, now: Instant, roster: &mut Roster) {
        let Some((member, asked)) = self.under_way.remove(&number) else {
            return;
        };
        for (_, (other, _)) in self.under_way.range(..number) {
            if *other != member {
                roster.failed(*other, now);
            }
        }
        roster.answered(member, now.since(asked));
    }

    /// The call has ended without an answer.
    pub(crate) fn gave_up(&mut self, now: Instant, roster: &mut Roster) {
        for (member, _) in std::mem::take(&mut self.under_way).into_values() {
            roster.failed(member, now);
        }
    }

    /// Members that were asked and have not answered.
    pub(crate) fn silent(&self) -> impl Iterator<Item = usize> {
        self.under_way.values().map(|(member, _)| *member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(4);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(1_000_000 + millis)
    }

    fn begin() -> (Course, Roster) {
        let roster = Roster::of(3);
        (Course::begin(&roster, 0, at(0), LIMIT), roster)
    }

    fn attempt(number: usize, member: usize) -> Step {
        Step::Attempt { number, member }
    }

    #[test]
    fn one_that_is_slow_is_waited_for_while_the_others_are_asked() {
        let (mut course, mut roster) = begin();
        assert_eq!(course.next(at(0)), attempt(0, 0));
        assert_eq!(course.next(at(0)), Step::WaitUntil(at(150)));
        assert_eq!(course.next(at(150)), attempt(1, 1));
        assert_eq!(course.next(at(150)), Step::WaitUntil(at(375)));
        course.answered(0, at(160), &mut roster);
        assert_eq!(roster.order(at(160)), [0, 1, 2], "nobody is to blame");
    }

    #[test]
    fn who_is_overtaken_is_asked_later_the_next_time() {
        let (mut course, mut roster) = begin();
        assert_eq!(course.next(at(0)), attempt(0, 0));
        assert_eq!(course.next(at(150)), attempt(1, 1));
        course.answered(1, at(160), &mut roster);
        assert_eq!(roster.order(at(160)), [1, 2, 0]);
        assert_eq!(course.silent().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn one_that_fails_is_followed_at_once_and_all_of_them_after_a_pause() {
        let (mut course, mut roster) = begin();
        for member in 0..3 {
            assert_eq!(course.next(at(0)), attempt(member, member));
            course.failed(member, at(0), &mut roster);
        }
        assert_eq!(course.next(at(0)), Step::WaitUntil(at(10)));
        let mut attempts = 0;
        let mut now = 10;
        while course.next(at(now)) != Step::GiveUp {
            attempts += 1;
            course.failed(2 + attempts, at(now), &mut roster);
            match course.next(at(now)) {
                Step::WaitUntil(then) => now = then.since(at(0)).as_millis() as u64,
                Step::Attempt { .. } | Step::GiveUp => {}
            }
        }
        assert!((45..80).contains(&attempts), "{attempts} attempts in 4 s");
    }

    #[test]
    fn silence_is_given_up_in_time_and_asked_into_now_and_then() {
        let (mut course, mut roster) = begin();
        let mut asked = Vec::new();
        let mut now = at(0);
        loop {
            match course.next(now) {
                Step::Attempt { member, .. } => asked.push(member),
                Step::WaitUntil(then) => now = then,
                Step::GiveUp => break,
            }
        }
        assert_eq!(now, at(0) + LIMIT);
        assert!((8..14).contains(&asked.len()), "{asked:?}");
        assert_eq!(asked[..4], [0, 1, 2, 0]);
        course.gave_up(now, &mut roster);
        assert_eq!(course.silent().count(), 0);
    }
}
