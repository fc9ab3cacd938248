//! One operation and the requests made for it: when a second copy of a request is sent, when a
//! failed one is repeated, when the operation fails. Pure: `handle(now, event)` says what to do. It
//! must not know how requests are made, nor what they ask.

use std::time::Duration;

use host::backoff::Backoff;
use host::clock::Instant;
use host::rng::Rng;

use super::pace::{Pace, Work};

/// Copies of a request under way at one time.
const RUNNING_MAX: usize = 3;
/// Failures after which an operation fails.
const FAILURES_MAX: u32 = 6;
/// An operation fails after this long without a sign of life from any of its requests, and
/// the time that the uploads under way need.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// The pauses after failures: short, since callers with more patience repeat the whole operation.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(200));
/// If the allowance refused one more copy, it is asked again after this long.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The number of a request within its operation.
pub type Attempt = u32;

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The same request would fail again.
    Final,
    /// The request may have had an effect.
    Unknown,
    /// The store said "slow down".
    Throttled,
}

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Begun,
    /// A request showed a sign of life at this time: its answer began, or more of it came.
    Moved(Attempt, Instant),
    /// So many bytes of the request's body had been taken by its connection at this time.
    Sent(Attempt, u64, Instant),
    Failed(Attempt, Failure),
    /// The time of [`Race::deadline`] has come.
    Timer,
}

/// Why a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    First,
    /// The requests under way take long.
    Hedge,
    /// The requests before it failed, or are taken for lost.
    Repeat,
}

/// What the shell has to do, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Start(Attempt, Why),
    /// Drop the request's future; the request may still have an effect.
    Drop(Attempt),
    /// The operation has failed; no request is under way.
    End,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    attempt: Attempt,
    started: Instant,
    moved: Instant,
}

#[derive(Debug)]
pub struct Race {
    work: Work,
    /// Requests under way, oldest first.
    running: Vec<Running>,
    made: u32,
    failures: u32,
    /// When the last bytes came, from whichever request, or when one had sent more of the body than
    /// any before. Neither a start nor the same bytes once more are a sign of life here: copies would
    /// keep an operation for ever.
    alive_at: Instant,
    /// The most bytes of the body that one request had sent.
    furthest: u64,
    /// When the next request is made if none is under way.
    again_at: Option<Instant>,
    /// When the allowance may be asked again for one more copy.
    ask_at: Instant,
    hedge_after: Option<Duration>,
    repeat_after: Duration,
    upload_max: Duration,
}

impl Race {
    /// An operation before [`Event::Begun`].
    pub fn new(work: Work) -> Self {
        Race {
            work,
            running: Vec::new(),
            made: 0,
            failures: 0,
            alive_at: Instant::default(),
            furthest: 0,
            again_at: None,
            ask_at: Instant::default(),
            hedge_after: None,
            repeat_after: Duration::ZERO,
            upload_max: Duration::ZERO,
        }
    }

    pub fn handle(
        &mut self,
        now: Instant,
        event: Event,
        pace: &mut Pace,
        rng: &mut Rng,
        out: &mut Vec<Effect>,
    ) {
        // What others upload changes with time.
        self.repeat_after = pace.repeat_after(self.work);
        self.upload_max = pace.upload_max(self.work);
        match event {
            Event::Begun => {
                pace.asked(self.work);
                self.hedge_after = pace.hedge_after(self.work);
                self.start(now, Why::First, out);
            }
            Event::Moved(attempt, at) => {
                if self.moved(attempt, at) {
                    self.alive_at = self.alive_at.max(at);
                }
            }
            Event::Sent(attempt, bytes, at) => {
                if self.moved(attempt, at) && bytes > self.furthest {
                    self.furthest = bytes;
                    self.alive_at = self.alive_at.max(at);
                }
            }
            Event::Failed(attempt, failure) => self.failed(now, attempt, failure, pace, rng, out),
            Event::Timer => self.look(now, pace, out),
        }
    }

    /// Notes a sign of life; false if the request is not under way any more.
    fn moved(&mut self, attempt: Attempt, at: Instant) -> bool {
        let mut running = self.running.iter_mut();
        let running = running.find(|running| running.attempt == attempt);
        let is_running = running.is_some();
        if let Some(running) = running {
            running.moved = running.moved.max(at);
        }
        is_running
    }

    /// Notes that a request was answered; the answer began at `began`.
    pub fn answered(&self, now: Instant, attempt: Attempt, began: Instant, pace: &mut Pace) {
        let mut running = self.running.iter();
        if let Some(running) = running.find(|running| running.attempt == attempt) {
            pace.answered(now, self.work, began.since(running.started));
        }
    }

    /// When [`Event::Timer`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        if self.running.is_empty() {
            return self.again_at;
        }
        let next = (self.moved_at() + self.patience()).max(self.ask_at);
        Some(next.min(self.given_up_at()))
    }

    /// How long after the last sign of life a request may be added.
    fn patience(&self) -> Duration {
        let hedge_after = self
            .hedge_after
            .filter(|_| self.running.len() < RUNNING_MAX);
        hedge_after.map_or(self.repeat_after, |after| after.min(self.repeat_after))
    }

    /// When one of the requests under way last showed a sign of life, its start included.
    fn moved_at(&self) -> Instant {
        let moved = self.running.iter().map(|running| running.moved);
        moved.max().unwrap_or_default()
    }

    /// When the operation fails. The oldest request is not dropped for a newer one before that: the
    /// bucket may only have become slow.
    fn given_up_at(&self) -> Instant {
        let oldest = self.running.first().map(|oldest| oldest.started);
        self.alive_at.max(oldest.unwrap_or_default()) + GIVE_UP_AFTER + self.upload_max
    }

    fn failed(
        &mut self,
        now: Instant,
        attempt: Attempt,
        failure: Failure,
        pace: &mut Pace,
        rng: &mut Rng,
        out: &mut Vec<Effect>,
    ) {
        self.running.retain(|running| running.attempt != attempt);
        self.failures += 1;
        if failure == Failure::Throttled {
            pace.throttled(now);
        }
        if !self.running.is_empty() {
            return;
        }
        let is_last = failure == Failure::Final || self.failures >= FAILURES_MAX;
        if is_last || !pace.may_repeat(now, self.work) {
            out.push(Effect::End);
            return;
        }
        self.again_at = Some(now + BACKOFF.after(self.failures, rng));
    }

    fn look(&mut self, now: Instant, pace: &mut Pace, out: &mut Vec<Effect>) {
        if self.running.is_empty() {
            if self.again_at.take_if(|at| *at <= now).is_some() {
                self.start(now, Why::Repeat, out);
            }
            return;
        }
        if now >= self.given_up_at() {
            let lost = self.running.drain(..);
            out.extend(lost.map(|running| Effect::Drop(running.attempt)));
            out.push(Effect::End);
            return;
        }
        let silent = now.since(self.moved_at());
        if now < self.ask_at || silent < self.patience() {
            return;
        }
        let may_hedge = self.hedge_after.is_some_and(|after| silent >= after);
        if may_hedge && self.running.len() < RUNNING_MAX && pace.may_hedge(now, self.work) {
            self.start(now, Why::Hedge, out);
        } else if silent >= self.repeat_after && pace.may_repeat(now, self.work) {
            if self.running.len() >= RUNNING_MAX {
                out.push(Effect::Drop(self.running.remove(1).attempt));
            }
            self.start(now, Why::Repeat, out);
        } else {
            self.ask_at = now + ASK_AGAIN;
        }
    }

    fn start(&mut self, now: Instant, why: Why, out: &mut Vec<Effect>) {
        let attempt = self.made;
        self.made += 1;
        self.running.push(Running {
            attempt,
            started: now,
            moved: now,
        });
        out.push(Effect::Start(attempt, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// An operation on a bucket that answers in 25 ms, so that hedges are due after 50.
    struct Case {
        race: Race,
        pace: Pace,
        rng: Rng,
    }

    impl Case {
        fn new() -> Self {
            let (work, mut pace) = (Work::put(1_000), Pace::default());
            (0..20).for_each(|_| pace.answered(Instant::from_millis(1), work, 25 * MS));
            Case {
                race: Race::new(work),
                pace,
                rng: Rng::seeded(1),
            }
        }

        fn at(&mut self, millis: u64, event: Event) -> Vec<Effect> {
            let (now, mut out) = (Instant::from_millis(millis), Vec::new());
            let Case { race, pace, rng } = self;
            race.handle(now, event, pace, rng, &mut out);
            out
        }

        /// Lets time pass up to `millis`: what was done, and when.
        fn until(&mut self, millis: u64) -> Vec<(u64, Effect)> {
            let mut done = Vec::new();
            while let Some(at) = self.race.deadline().map(Instant::as_millis)
                && at <= millis
            {
                // A millisecond is not a whole number of microseconds of jitter.
                let out = self.at(at + 1, Event::Timer);
                let ended = out.contains(&Effect::End);
                done.extend(out.into_iter().map(|effect| (at + 1, effect)));
                if ended {
                    break;
                }
            }
            done
        }
    }

    #[test]
    fn a_request_that_takes_long_gets_a_second_copy_and_a_third() {
        let mut case = Case::new();
        let first = Effect::Start(0, Why::First);
        assert_eq!(case.at(1_000, Event::Begun), [first]);
        assert_eq!(case.at(1_049, Event::Timer), []);
        let hedged = case.until(1_300);
        let hedges = [
            (1_051, Effect::Start(1, Why::Hedge)),
            (1_102, Effect::Start(2, Why::Hedge)),
        ];
        assert_eq!(hedged, hedges);
    }

    #[test]
    fn a_body_that_goes_on_is_left_alone_and_one_that_stops_is_hedged() {
        let mut case = Case::new();
        case.at(1_000, Event::Begun);
        for millis in (1_040..1_400).step_by(40) {
            case.at(millis, Event::Moved(0, Instant::from_millis(millis)));
            assert_eq!(case.at(millis + 39, Event::Timer), []);
        }
        assert_eq!(case.until(1_500).first().map(|(at, _)| *at), Some(1_411));
    }

    #[test]
    fn without_hedges_left_a_lost_request_is_sent_again_and_the_oldest_is_kept() {
        let mut case = Case::new();
        let (now, work) = (Instant::from_millis(1_000), case.race.work);
        while case.pace.may_hedge(now, work) {}
        // The next operation earns less than one whole hedge.
        case.at(1_000, Event::Begun);
        let mut sent = case.until(4_000).into_iter();
        let (at, effect) = sent.next().expect("it is sent again");
        assert_eq!(effect, Effect::Start(1, Why::Repeat));
        assert!((1_500..1_600).contains(&at), "{at}");
        let rest: Vec<Effect> = sent.map(|(_, effect)| effect).collect();
        let expected = [
            Effect::Start(2, Why::Repeat),
            Effect::Drop(1),
            Effect::Start(3, Why::Repeat),
            Effect::Drop(2),
            Effect::Start(4, Why::Repeat),
        ];
        assert_eq!(rest[..expected.len()], expected);
    }

    #[test]
    fn what_was_refused_for_load_comes_again_soon_alone_and_not_for_ever() {
        let mut case = Case::new();
        case.at(1_000, Event::Begun);
        let mut attempts = 0;
        let mut now = 1_000;
        loop {
            let out = case.at(now, Event::Failed(attempts, Failure::Throttled));
            attempts += 1;
            if out == [Effect::End] {
                break;
            }
            let (at, effect) = case.until(now + 300)[0];
            assert_eq!(effect, Effect::Start(attempts, Why::Repeat));
            let soonest = BACKOFF.bound(attempts).as_millis() as u64 / 2;
            assert!((now + soonest..now + 202).contains(&at), "{at}");
            // The request is slow but not hedged, since the store is throttling.
            assert_eq!(case.until(at + 200), []);
            now = at + 200;
        }
        assert_eq!(attempts, FAILURES_MAX);
    }

    #[test]
    fn a_failure_waits_for_the_copies_that_are_under_way() {
        let mut case = Case::new();
        case.at(1_000, Event::Begun);
        assert_eq!(case.until(1_060).len(), 1, "a hedge");
        assert_eq!(case.at(1_061, Event::Failed(1, Failure::Final)), []);
        let end = case.at(1_062, Event::Failed(0, Failure::Final));
        assert_eq!(end, [Effect::End]);
    }

    #[test]
    fn what_never_answers_is_given_up() {
        let mut case = Case::new();
        case.at(1_000, Event::Begun);
        let (at, last) = *case.until(60_000).last().expect("it ends");
        assert_eq!((at, last), (11_002, Effect::End));
    }

    #[test]
    fn an_operation_is_kept_while_a_newer_copy_moves_and_given_up_once_that_stops() {
        let mut case = Case::new();
        case.at(1_000, Event::Begun);
        let hedge = Effect::Start(1, Why::Hedge);
        assert_eq!(case.until(1_060), [(1_051, hedge)]);
        for millis in (1_080..15_000).step_by(40) {
            case.at(millis, Event::Moved(1, Instant::from_millis(millis)));
            assert_eq!(case.at(millis + 1, Event::Timer), [], "{millis}");
        }
        // The last bytes came at 14,960; copies that only start are no sign of life.
        let (at, last) = *case.until(60_000).last().expect("it ends");
        assert_eq!((at, last), (24_962, Effect::End));
    }

    #[test]
    fn a_large_upload_is_given_up_later_by_the_time_that_all_bytes_under_way_need() {
        for (others, expected) in [(0, 71_001), (60 << 20, 131_001)] {
            let mut case = Case::new();
            case.race = Race::new(Work::put(30 << 20));
            case.pace.uploading(others);
            case.at(1_000, Event::Begun);
            let (at, last) = *case.until(200_000).last().expect("it ends");
            assert_eq!((at, last), (expected, Effect::End));
        }
    }

    #[test]
    fn an_upload_whose_bytes_go_on_is_left_alone_and_given_up_only_once_they_stop() {
        for known in [false, true] {
            let (mut case, work) = (Case::new(), Work::put(8 << 20));
            if known {
                let at = Instant::from_millis(1);
                (0..20).for_each(|_| case.pace.answered(at, work, 400 * MS));
            }
            case.race = Race::new(work);
            case.at(1_000, Event::Begun);
            // An uplink of 1 Mbit/s takes 64 KiB in half a second.
            for piece in 1..=128 {
                let millis = 1_000 + piece * 500;
                let sent = Event::Sent(0, piece << 16, Instant::from_millis(millis));
                case.at(millis, sent);
                assert_eq!(case.at(millis + 499, Event::Timer), [], "{piece} {known}");
            }
            let (at, last) = *case.until(200_000).last().expect("it ends");
            assert_eq!((at, last), (65_000 + 26_001, Effect::End));
        }
    }

    #[test]
    fn copies_that_only_send_the_same_bytes_again_keep_no_operation() {
        let mut case = Case::new();
        case.at(1_000, Event::Begun);
        case.at(1_000, Event::Sent(0, 1_000, Instant::from_millis(1_000)));
        let mut now = 1_000;
        let ended = loop {
            let at = case.race.deadline().expect("a deadline").as_millis() + 1;
            assert!(at >= now && at < 20_000);
            now = at;
            let out = case.at(now, Event::Timer);
            for effect in &out {
                if let Effect::Start(attempt, _) = effect {
                    let sent = Event::Sent(*attempt, 1_000, Instant::from_millis(now));
                    case.at(now, sent);
                }
            }
            if out.contains(&Effect::End) {
                break now;
            }
        };
        assert!((11_000..11_020).contains(&ended), "{ended}");
    }
}
