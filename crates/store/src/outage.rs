//! Whether a bucket takes writes and answers reads at all: since when every request of one kind has
//! failed, and with which error. It must not know what is asked of the bucket, nor who wants to
//! know.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use host::clock::Instant;

use crate::bucket::{Error, Op};

/// Failures over a shorter time than this happen in every store; retries deal with them.
const LASTING: Duration = Duration::from_secs(5);
/// A failure this long ago says nothing about now. Otherwise a caller that waits for the bucket to
/// recover before asking anything of it would wait for ever.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// The two kinds of requests; an outage concerns all requests of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Creating objects. Deletions do not count: a full bucket accepts them, and a bucket that
    /// forbids only deletions still serves.
    Writes,
    /// Everything that only reads.
    Reads,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Writes, Kind::Reads];

    /// A lower-case name, for messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Writes => "writes",
            Kind::Reads => "reads",
        }
    }

    fn of(op: Op) -> Option<Kind> {
        match op {
            Op::PutNew => Some(Kind::Writes),
            Op::Get | Op::GetRange | Op::Head | Op::List => Some(Kind::Reads),
            Op::Delete => None,
        }
    }
}

/// Nothing of one kind has succeeded for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    pub kind: Kind,
    /// Time since the first failure.
    pub lasted: Duration,
    pub why: String,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outage { kind, lasted, why } = self;
        let (kind, seconds) = (kind.name(), lasted.as_secs());
        write!(f, "the bucket has refused {kind} for {seconds} s: {why}")
    }
}

/// Outcomes of the requests to one bucket. While all is well, a success costs one atomic load.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    of_kind: [Outcome; Kind::ALL.len()],
}

#[derive(Debug, Default)]
struct Outcome {
    /// When the first request since the last success began, in microseconds; 0 if there was none.
    asked_since: AtomicU64,
    /// Since when requests have failed without a success, in the same way: one that fails has failed since it began.
    failing_since: AtomicU64,
    last_failure: Mutex<Failure>,
}

#[derive(Debug, Default)]
struct Failure {
    at: Instant,
    why: String,
}

impl Outcomes {
    /// Notes that a request begins at `now`.
    pub(crate) fn begun(&self, now: Instant, op: Op) {
        let Some(kind) = Kind::of(op) else {
            return;
        };
        let asked_since = &self.of_kind[kind as usize].asked_since;
        // Loaded first: a store on every request would send the cache line around all cores.
        if asked_since.load(Ordering::Relaxed) == 0 {
            asked_since.store(now.as_micros().max(1), Ordering::Relaxed);
        }
    }

    /// Notes the outcome of a request at `now`.
    pub(crate) fn note(&self, now: Instant, op: Op, error: Option<&Error>) {
        let Some(kind) = Kind::of(op) else {
            return;
        };
        let outcome = &self.of_kind[kind as usize];
        match error {
            None => outcome.succeeded(),
            // The object may be shorter than the range: that is damage to one file, reported
            // elsewhere. A bucket that refuses ranges refuses whole objects, too.
            Some(Error::Definite { .. }) if op == Op::GetRange => {}
            Some(error) => outcome.failed(now, error),
        }
    }

    /// Whether nothing of `kind` has succeeded for `lasting`, though it was asked for.
    pub(crate) fn is_doubtful(&self, now: Instant, kind: Kind, lasting: Duration) -> bool {
        let outcome = &self.of_kind[kind as usize];
        let asked_since = outcome.asked_since.load(Ordering::Relaxed);
        let failing_since = outcome.failing_since.load(Ordering::Relaxed);
        failing_since != 0
            || asked_since != 0 && now.since(Instant::from_micros(asked_since)) >= lasting
    }

    /// Whether `kind` is out at `now`, as people are told.
    pub(crate) fn outage(&self, now: Instant, kind: Kind) -> Option<Outage> {
        self.outage_of(now, kind, LASTING)
    }

    /// Whether `kind` has been out for `lasting` at `now`.
    pub(crate) fn outage_of(&self, now: Instant, kind: Kind, lasting: Duration) -> Option<Outage> {
        let outcome = &self.of_kind[kind as usize];
        let since = outcome.failing_since.load(Ordering::Relaxed);
        if since == 0 {
            return None;
        }
        let since = Instant::from_micros(since);
        let last = outcome.last_failure.lock();
        let last = last.unwrap_or_else(PoisonError::into_inner);
        let is_lasting = last.at.since(since) >= lasting;
        let is_fresh = now.since(last.at) < FORGOTTEN_AFTER;
        (is_lasting && is_fresh).then(|| Outage {
            kind,
            lasted: now.since(since),
            why: last.why.clone(),
        })
    }
}

impl Outcome {
    fn succeeded(&self) {
        // Loaded first: a store on every request would send the cache line around all cores.
        for since in [&self.asked_since, &self.failing_since] {
            if since.load(Ordering::Relaxed) != 0 {
                since.store(0, Ordering::Relaxed);
            }
        }
    }

    fn failed(&self, now: Instant, error: &Error) {
        let last = self.last_failure.lock();
        let mut last = last.unwrap_or_else(PoisonError::into_inner);
        let is_first = self.failing_since.load(Ordering::Relaxed) == 0;
        // After a pause in which nothing was asked, the outage begins anew: it may not have lasted.
        if is_first || now.since(last.at) >= FORGOTTEN_AFTER {
            let asked = Instant::from_micros(self.asked_since.load(Ordering::Relaxed));
            let is_recent = is_first && now.since(asked) < FORGOTTEN_AFTER;
            let since = if is_recent { asked } else { now };
            let micros = since.as_micros().max(1);
            self.failing_since.store(micros, Ordering::Relaxed);
        }
        last.at = now;
        last.why = error.to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    fn fail(outcomes: &Outcomes, seconds: u64, op: Op) {
        let error = Error::definite(op, "a", format!("forbidden at {seconds}"));
        outcomes.note(at(seconds), op, Some(&error));
    }

    fn told(outcomes: &Outcomes, seconds: u64, kind: Kind) -> Option<String> {
        let outage = outcomes.outage(at(seconds), kind);
        outage.map(|outage| outage.to_string())
    }

    #[test]
    fn only_what_fails_for_a_while_is_out_and_the_first_success_ends_it() {
        let outcomes = Outcomes::default();
        fail(&outcomes, 100, Op::PutNew);
        assert_eq!(told(&outcomes, 110, Kind::Writes), None, "one failure");
        fail(&outcomes, 104, Op::PutNew);
        assert_eq!(told(&outcomes, 104, Kind::Writes), None, "four seconds");
        fail(&outcomes, 105, Op::PutNew);
        let expected =
            "the bucket has refused writes for 12 s: bucket put of \"a\" failed: forbidden at 105";
        assert_eq!(told(&outcomes, 112, Kind::Writes).unwrap(), expected);
        assert_eq!(told(&outcomes, 112, Kind::Reads), None);
        outcomes.note(at(113), Op::Get, None);
        outcomes.note(at(113), Op::Delete, None);
        assert!(told(&outcomes, 113, Kind::Writes).is_some(), "still out");
        outcomes.note(at(113), Op::PutNew, None);
        assert_eq!(told(&outcomes, 113, Kind::Writes), None);
        fail(&outcomes, 114, Op::PutNew);
        assert_eq!(told(&outcomes, 114, Kind::Writes), None, "counted anew");
    }

    #[test]
    fn what_fails_has_failed_since_it_was_asked_for() {
        let outcomes = Outcomes::default();
        let lasting = Duration::from_secs(3);
        let is_out = |seconds| outcomes.outage_of(at(seconds), Kind::Writes, lasting);
        outcomes.begun(at(100), Op::PutNew);
        let is_doubtful = |seconds, kind| outcomes.is_doubtful(at(seconds), kind, lasting);
        assert!(!is_doubtful(102, Kind::Writes));
        assert!(is_doubtful(103, Kind::Writes) && !is_doubtful(103, Kind::Reads));
        assert_eq!(is_out(104), None, "it may take long");
        fail(&outcomes, 104, Op::PutNew);
        assert_eq!(is_out(104).unwrap().lasted, Duration::from_secs(4));
        outcomes.note(at(105), Op::PutNew, None);
        assert!(is_out(105).is_none() && !is_doubtful(200, Kind::Writes));
        // What nobody waited for long ago says nothing of now.
        outcomes.begun(at(200), Op::PutNew);
        fail(&outcomes, 300, Op::PutNew);
        assert_eq!(is_out(300), None);
        assert!(is_doubtful(300, Kind::Writes));
    }

    #[test]
    fn failures_are_forgotten_if_nobody_asks_again() {
        let outcomes = Outcomes::default();
        fail(&outcomes, 100, Op::Get);
        fail(&outcomes, 110, Op::List);
        assert!(told(&outcomes, 139, Kind::Reads).is_some());
        assert_eq!(told(&outcomes, 140, Kind::Reads), None);
        fail(&outcomes, 200, Op::Head);
        assert_eq!(told(&outcomes, 200, Kind::Reads), None, "not since 100");
        fail(&outcomes, 205, Op::Get);
        let again = told(&outcomes, 205, Kind::Reads).unwrap();
        assert!(again.contains("refused reads for 5 s"), "{again}");
    }

    #[test]
    fn neither_one_damaged_object_nor_deletions_are_an_outage() {
        let outcomes = Outcomes::default();
        for seconds in 100..120 {
            fail(&outcomes, seconds, Op::GetRange);
            fail(&outcomes, seconds, Op::Delete);
        }
        for kind in Kind::ALL {
            assert_eq!(told(&outcomes, 120, kind), None);
        }
        let reset = Error::unknown(Op::GetRange, "a", "reset");
        outcomes.note(at(120), Op::GetRange, Some(&reset));
        outcomes.note(at(130), Op::GetRange, Some(&reset));
        assert!(told(&outcomes, 130, Kind::Reads).is_some());
    }
}
