//! How fast one bucket was lately, and whether it answers at all: a circuit breaker that goes on probing. Pure: times come in
//! as arguments. It must not know what is asked of the bucket.

use std::time::Duration;

use host::clock::Instant;

/// Latencies remembered: enough that a few slow requests do not move the median.
const REMEMBERED: usize = 16;
/// So many failures in a row open the breaker: single ones happen in every store.
const FAILURES_MAX: u32 = 3;
/// How long an open breaker lets nothing through, at first and at most; then one request is let through as a probe.
const OPEN_MIN: Duration = Duration::from_millis(200);
const OPEN_MAX: Duration = Duration::from_secs(2);
/// A second bucket is asked after this long at the earliest, and if nothing is known of the first.
const HURRY_MIN: Duration = Duration::from_millis(20);
const HURRY_UNKNOWN: Duration = Duration::from_millis(150);
const HURRY_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Pace {
    micros: [u32; REMEMBERED],
    noted: usize,
    failures: u32,
    /// Nothing is let through before.
    open_until: Instant,
    failing_since: Option<Instant>,
}

impl Pace {
    /// Notes an answer that took so long.
    pub(super) fn answered(&mut self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.micros[self.noted % REMEMBERED] = micros;
        self.noted += 1;
        self.failures = 0;
        self.failing_since = None;
    }

    /// Notes a request without a clear answer.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
        if self.failures >= FAILURES_MAX {
            let doublings = (self.failures - FAILURES_MAX).min(8);
            let open = OPEN_MIN.saturating_mul(1 << doublings).min(OPEN_MAX);
            self.open_until = now + open;
        }
    }

    /// How long a request has to wait; zero lets it through, and while the breaker is open only this one.
    pub(super) fn admit(&mut self, now: Instant) -> Duration {
        let wait = self.open_until.since(now);
        if wait.is_zero() && self.is_away() {
            self.open_until = now + OPEN_MIN;
        }
        wait
    }

    /// True while the breaker is open.
    pub(super) fn is_away(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// True if the last request got no clear answer.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn failing_since(&self) -> Option<Instant> {
        self.failing_since
    }

    pub(super) fn median(&self) -> Option<Duration> {
        let mut known = self.micros[..self.noted.min(REMEMBERED)].to_vec();
        known.sort_unstable();
        let micros = known.get(known.len() / 2)?;
        Some(Duration::from_micros(u64::from(*micros)))
    }

    /// After how long another bucket is asked as well: twice the recent median.
    pub(super) fn hurry(&self) -> Duration {
        (self.usual() * 2).clamp(HURRY_MIN, HURRY_MAX)
    }

    /// How long an answer usually takes.
    pub(super) fn usual(&self) -> Duration {
        self.median().unwrap_or(HURRY_UNKNOWN / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn a_bucket_that_fails_is_probed_and_the_first_answer_brings_it_back() {
        let mut pace = Pace::default();
        (0..3).for_each(|_| assert!(pace.admit(at(1_000)).is_zero()));
        (0..3).for_each(|_| pace.failed(at(1_000)));
        assert!(pace.is_away());
        assert!(!pace.admit(at(1_100)).is_zero());
        assert!(pace.admit(at(1_200)).is_zero(), "the probe");
        assert!(!pace.admit(at(1_201)).is_zero(), "one at a time");
        pace.answered(Duration::from_millis(5));
        assert!(!pace.is_away());
        assert_eq!(pace.failing_since(), None);
    }

    #[test]
    fn another_bucket_is_asked_after_twice_the_usual_time() {
        let mut pace = Pace::default();
        assert_eq!(pace.hurry(), HURRY_UNKNOWN);
        for took in [30, 40, 50, 60, 9_000] {
            pace.answered(Duration::from_millis(took));
        }
        assert_eq!(pace.hurry(), Duration::from_millis(100));
    }
}
