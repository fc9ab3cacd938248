//! How long members are silent, and what of it is noted in the journal, so that it adds up over leaders: each hears them anew, and
//! knows nothing of what was before but what is noted. Pure. Must not know groups.
//!
//! Silence counts in ticks, milliseconds in which somebody led, from when the member was heard last, or, if the leader has not
//! heard it yet, from when it took over. So it is noted once, not again and again, and nothing is while everybody speaks.

use std::time::Duration;

use host::clock::Instant;

/// How often it is looked who is silent: what the last leader knew, and had not noted when it was killed, is lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A member that this leader has not heard yet counts as silent after so long: so little is lost of the tenure of one that is
/// killed, and most members are heard meanwhile, or else in the next second.
const FIRST: Duration = Duration::from_secs(2);
/// How often members send heartbeats by default.
const USUAL: Duration = Duration::from_secs(3);
/// So much longer than usual, and a member counts as silent.
const LATE: Duration = Duration::from_millis(500);
/// A leader that hands over notes silence from so long on: the next one knows all that matters.
const HANDED_OVER_FROM: Duration = Duration::from_secs(1);
/// What a new leader leaves to a member whose session is nearly over, or has been over for less than this: members find it, and
/// say so, within that time.
const GRACE: Duration = Duration::from_secs(4);

/// Why it is looked who is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Due,
    /// The leader hands over.
    Last,
}

/// What of a member is to be noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// For so many milliseconds.
    Silent(u32),
    Heard,
}

/// When a member was heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hearing {
    /// When it was heard last; until it is, since when it is listened for.
    at: Instant,
    /// By this leader.
    is_heard: bool,
    /// The longest that it took from one time to the next.
    rhythm: Duration,
    /// Of which `at` it was noted that the member is silent since.
    noted: Option<Instant>,
}

/// When to look after `now`: at the same times for all groups, so that one timer serves them.
pub(super) fn next_look(now: Instant) -> Instant {
    let every = LOOK_EVERY.as_micros();
    let next = (u128::from(now.as_micros()) / every + 1) * every;
    Instant::from_micros(u64::try_from(next).unwrap_or(u64::MAX))
}

/// What a new leader leaves of a member's session, of which it is noted that it was silent for so long.
pub(super) fn left(full: Duration, silent_for: Option<Duration>) -> Duration {
    let silent_for = silent_for.unwrap_or_default();
    let grace = GRACE.min(full);
    let until_end = full.saturating_sub(silent_for);
    let until_grace_ends = (full + grace).saturating_sub(silent_for);
    until_end.max(grace.min(until_grace_ends))
}

impl Hearing {
    /// This leader has not heard the member yet.
    pub(super) fn listening(now: Instant) -> Self {
        Hearing {
            at: now,
            is_heard: false,
            rhythm: Duration::ZERO,
            noted: None,
        }
    }

    pub(super) fn heard(now: Instant) -> Self {
        Hearing {
            is_heard: true,
            ..Hearing::listening(now)
        }
    }

    pub(super) fn hear(&mut self, now: Instant) {
        if self.is_heard {
            self.rhythm = self.rhythm.max(now.since(self.at));
        }
        (self.at, self.is_heard) = (now, true);
    }

    /// Nobody can have been heard before this time.
    pub(super) fn listen_from(&mut self, at: Instant) {
        self.at = self.at.max(at);
    }

    /// What is to be noted of a member with this session, of which it `is_noted` or not that it is silent.
    pub(super) fn news(
        &mut self,
        now: Instant,
        look: Look,
        full: Duration,
        is_noted: bool,
    ) -> Option<News> {
        let patience = match (look, self.is_heard) {
            (Look::Last, true) => HANDED_OVER_FROM,
            (Look::Last, false) => Duration::ZERO,
            (Look::Due, false) => FIRST,
            (Look::Due, true) => USUAL.max(self.rhythm.min(full / 3)) + LATE,
        };
        let silent_for = now.since(self.at);
        let is_silent = silent_for >= patience.min(full / 2);
        // What an earlier leader has noted stands until this one hears the member.
        let is_other = is_noted && self.is_heard && self.noted != Some(self.at);
        match is_silent {
            true if !is_noted || is_other => {
                self.noted = Some(self.at);
                let millis = u32::try_from(silent_for.as_millis());
                Some(News::Silent(millis.unwrap_or(u32::MAX)))
            }
            false if is_other => Some(News::Heard),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(45);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(1_000_000 + millis)
    }

    #[test]
    fn who_speaks_as_it_always_does_is_no_news() {
        for rhythm in [1_000, 3_000, 10_000, 14_900] {
            let mut hearing = Hearing::heard(at(0));
            let mut news = 0;
            for second in 1..200 {
                let now = second * 1_000;
                if (now / rhythm) * rhythm > now - 1_000 {
                    hearing.hear(at(now));
                }
                news += u32::from(hearing.news(at(now), Look::Due, SESSION, false).is_some());
            }
            assert!(news <= 12, "{news} for a rhythm of {rhythm} ms");
        }
    }

    #[test]
    fn a_silence_is_noted_once_and_ended_once() {
        let mut hearing = Hearing::heard(at(0));
        let mut news = |now, is_noted| hearing.news(at(now), Look::Due, SESSION, is_noted);
        assert_eq!(news(3_400, false), None);
        assert_eq!(news(3_500, false), Some(News::Silent(3_500)));
        assert_eq!(
            news(4_500, false),
            Some(News::Silent(4_500)),
            "not yet applied"
        );
        assert_eq!(news(5_500, true), None);
        hearing.hear(at(6_000));
        let mut news = |now, is_noted| hearing.news(at(now), Look::Due, SESSION, is_noted);
        assert_eq!(news(6_500, true), Some(News::Heard));
        assert_eq!(news(7_500, false), None);
        // It was heard after what is noted, and is silent again.
        assert_eq!(news(13_000, true), Some(News::Silent(7_000)));
        assert_eq!(news(14_000, true), None);
    }

    #[test]
    fn what_an_earlier_leader_noted_stands_until_the_member_is_heard() {
        let mut hearing = Hearing::listening(at(0));
        assert_eq!(hearing.news(at(30_000), Look::Due, SESSION, true), None);
        hearing.hear(at(30_500));
        let news = hearing.news(at(31_000), Look::Due, SESSION, true);
        assert_eq!(news, Some(News::Heard));
    }

    #[test]
    fn a_leader_that_hands_over_notes_even_short_silence() {
        let mut hearing = Hearing::heard(at(0));
        assert_eq!(hearing.news(at(1_200), Look::Due, SESSION, false), None);
        let news = hearing.news(at(1_200), Look::Last, SESSION, false);
        assert_eq!(news, Some(News::Silent(1_200)));
    }

    #[test]
    fn a_session_is_never_longer_than_it_is_and_a_moment() {
        let seconds = Duration::from_secs;
        let left = |silent_for| left(SESSION, Some(seconds(silent_for)));
        assert_eq!(super::left(SESSION, None), SESSION);
        assert_eq!(left(0), SESSION);
        assert_eq!(left(40), seconds(5));
        assert_eq!(left(43), seconds(4), "it may live");
        assert_eq!(left(47), seconds(2));
        assert_eq!(left(49), seconds(0));
        assert_eq!(left(1_000), seconds(0));
    }
}
