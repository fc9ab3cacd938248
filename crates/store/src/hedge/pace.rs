//! How fast a bucket was lately, by kind and size of request, and how many extra requests it may be
//! sent. Pure: times come in as arguments. It must not know how requests are made.

use std::time::Duration;

use host::clock::Instant;

use crate::allowance::{Allowance, Terms};
use crate::bucket::Op;

/// Latencies remembered per class: enough that a few slow requests do not move the median.
const REMEMBERED: usize = 32;
/// With fewer remembered latencies than this, a class has no median yet.
const KNOWN_FROM: usize = 4;
/// A second copy is sent after this long at the earliest: a busy machine may need as long to notice
/// an answer.
const HEDGE_MIN: Duration = Duration::from_millis(20);
/// When a second copy is sent while the class has no median, the time of its upload apart.
const HEDGE_UNKNOWN: Duration = Duration::from_millis(250);
/// A request without an answer is taken for lost after this long at the earliest and then repeated,
/// even if no hedges are left: requests sent to a bucket that was away are never answered.
const REPEAT_MIN: Duration = Duration::from_millis(500);
const REPEAT_UNKNOWN: Duration = Duration::from_secs(1);
/// The longest wait before a hedge or a repeat, unless the upload alone may take longer.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The upload rate that is assumed while a class has no median, in bytes a second.
const UPLOAD_RATE: u64 = 8 << 20;
/// The slowest upload that is waited for, in bytes a second: an uplink of 10 Mbit/s brings as much.
const UPLOAD_RATE_MIN: u64 = 1 << 20;
/// How long nothing is hedged after the store said "slow down".
const THROTTLED_FOR: Duration = Duration::from_secs(1);
/// If no request was answered for this long, the next answer means that the bucket is back.
const SILENCE: Duration = Duration::from_secs(2);

/// Uploads are told apart by these bands of size: up to 64 KiB, 512 KiB, 4 MiB, 32 MiB, more.
const BANDS: usize = 5;
const CLASSES: usize = BANDS + 3;

/// What determines how long a request should take: its kind and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    class: usize,
    /// Bytes that the request sends.
    bytes: u64,
}

impl Work {
    /// Creating an object of this size.
    pub fn put(bytes: u64) -> Self {
        let class = match bytes >> 16 {
            0 => 0,
            1..8 => 1,
            8..64 => 2,
            64..512 => 3,
            _ => BANDS - 1,
        };
        Work { class, bytes }
    }

    /// A read. Its latency is the time until the answer begins, so the size does not matter.
    pub fn read(op: Op) -> Self {
        let class = match op {
            Op::Head => BANDS,
            Op::List => BANDS + 1,
            _ => BANDS + 2,
        };
        Work { class, bytes: 0 }
    }

    /// True if the request changes nothing in the bucket.
    pub fn is_read(self) -> bool {
        self.class >= BANDS
    }

    /// The time that the request's bytes need on the slowest uplink: no sign of life comes before.
    pub fn slowest_upload(self) -> Duration {
        upload_time(self, UPLOAD_RATE_MIN)
    }

    fn wait_max(self) -> Duration {
        WAIT_MAX.max(self.slowest_upload())
    }
}

#[derive(Clone, Debug, Default)]
struct Recent {
    micros: [u32; REMEMBERED],
    noted: usize,
}

impl Recent {
    fn note(&mut self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.micros[self.noted % REMEMBERED] = micros;
        self.noted = self.noted.wrapping_add(1).max(1);
    }

    fn median(&self) -> Option<Duration> {
        let known = self.noted.min(REMEMBERED);
        if known < KNOWN_FROM {
            return None;
        }
        let mut sorted = self.micros;
        let (_, median, _) = sorted[..known].select_nth_unstable(known / 2);
        Some(Duration::from_micros(u64::from(*median)))
    }
}

/// The pace of one bucket, shared by all its users.
#[derive(Clone, Debug)]
pub struct Pace {
    recent: [Recent; CLASSES],
    hedges: Allowance,
    repeats: Allowance,
    throttled_until: Instant,
    answered_at: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            recent: Default::default(),
            hedges: Allowance::new(Terms::HEDGES),
            repeats: Allowance::new(Terms::REPEATS),
            throttled_until: Instant::default(),
            answered_at: Instant::default(),
        }
    }
}

impl Pace {
    /// Counts a request that a caller asked for.
    pub fn asked(&mut self) {
        self.hedges.earn();
        self.repeats.earn();
    }

    /// A request was answered after `took`.
    pub fn answered(&mut self, now: Instant, work: Work, took: Duration) {
        self.recent[work.class].note(took);
        if now.since(self.answered_at) >= SILENCE {
            // Requests sent before may be lost: all of them may be repeated.
            self.repeats.fill();
        }
        self.answered_at = now;
    }

    /// Notes that the store said "slow down".
    pub fn throttled(&mut self, now: Instant) {
        self.throttled_until = now + THROTTLED_FOR;
    }

    /// How long after its last sign of life a request gets a second copy.
    pub fn hedge_after(&self, work: Work) -> Duration {
        match self.recent[work.class].median() {
            Some(median) => (median * 2).clamp(HEDGE_MIN, work.wait_max()),
            None => (HEDGE_UNKNOWN + upload_time(work, UPLOAD_RATE)).min(work.wait_max()),
        }
    }

    /// How long after its last sign of life a request is taken for lost.
    pub fn repeat_after(&self, work: Work) -> Duration {
        match self.recent[work.class].median() {
            Some(median) => (median * 8).clamp(REPEAT_MIN, work.wait_max()),
            None => (REPEAT_UNKNOWN + upload_time(work, UPLOAD_RATE) * 4).min(work.wait_max()),
        }
    }

    /// Takes one hedge from the allowance; false if there is none, or the store is throttling.
    pub fn may_hedge(&mut self, now: Instant) -> bool {
        now >= self.throttled_until && self.hedges.spend(now)
    }

    /// Takes one repeat from the allowance, for a request that failed or is taken for lost; false
    /// if there is none.
    pub fn may_repeat(&mut self, now: Instant) -> bool {
        self.repeats.spend(now)
    }
}

fn upload_time(work: Work, rate: u64) -> Duration {
    Duration::from_micros(work.bytes.saturating_mul(1_000_000) / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn a_hedge_waits_twice_the_median_of_its_kind_and_size() {
        let mut pace = Pace::default();
        let (small, large) = (Work::put(1_000), Work::put(8 << 20));
        assert_eq!(
            pace.hedge_after(small),
            250 * MS + upload_time(small, UPLOAD_RATE)
        );
        assert_eq!(pace.hedge_after(large), 1_250 * MS);
        for _ in 0..20 {
            pace.answered(at(1), small, 50 * MS);
            pace.answered(at(1), large, 400 * MS);
            pace.answered(at(1), Work::read(Op::Get), MS);
        }
        // One in three is slow, and the median stays.
        (0..6).for_each(|_| pace.answered(at(1), small, 3_000 * MS));
        assert_eq!(pace.hedge_after(small), 100 * MS);
        assert_eq!(pace.hedge_after(large), 800 * MS);
        assert_eq!(pace.hedge_after(Work::read(Op::GetRange)), HEDGE_MIN);
        assert_eq!(pace.hedge_after(Work::read(Op::List)), HEDGE_UNKNOWN);
        assert_eq!(pace.repeat_after(small), REPEAT_MIN);
        assert_eq!(pace.repeat_after(large), 3_200 * MS);
    }

    #[test]
    fn a_store_that_became_slow_is_waited_for() {
        let mut pace = Pace::default();
        let work = Work::put(1_000);
        (0..100).for_each(|_| pace.answered(at(1), work, 20 * MS));
        (0..17).for_each(|_| pace.answered(at(1), work, 900 * MS));
        assert_eq!(pace.hedge_after(work), 1_800 * MS);
        assert_eq!(pace.repeat_after(work), WAIT_MAX);
    }

    #[test]
    fn hedges_are_a_tenth_of_all_requests_and_stop_while_the_store_is_throttling() {
        let mut pace = Pace::default();
        let mut hedges = 0;
        for _ in 0..1_000 {
            pace.asked();
            hedges += usize::from(pace.may_hedge(at(10)));
        }
        assert_eq!(hedges, 109);
        (0..100).for_each(|_| pace.asked());
        pace.throttled(at(20));
        assert!(!pace.may_hedge(at(21)));
        assert!(!pace.may_hedge(at(1_019)));
        assert!(pace.may_hedge(at(1_020)));
    }

    #[test]
    fn the_first_answer_after_a_silence_lets_everything_be_sent_again() {
        let mut pace = Pace::default();
        let work = Work::put(1);
        pace.answered(at(1_000), work, MS);
        let spend = |pace: &mut Pace, now| (0..100).filter(|_| pace.may_repeat(now)).count();
        assert_eq!(spend(&mut pace, at(1_000)), 20);
        pace.answered(at(2_000), work, MS);
        assert_eq!(spend(&mut pace, at(2_000)), 10, "ten a second");
        assert_eq!(spend(&mut pace, at(4_000)), 20);
        pace.answered(at(4_000), work, MS);
        assert_eq!(spend(&mut pace, at(4_000)), 20);
    }

    #[test]
    fn a_large_upload_gets_no_copy_merely_because_it_is_large() {
        let mut pace = Pace::default();
        let work = Work::put(64 << 20);
        assert_eq!(pace.hedge_after(work), 8_250 * MS);
        assert_eq!(pace.repeat_after(work), 33_000 * MS);
        (0..20).for_each(|_| pace.answered(at(1), work, 8_000 * MS));
        assert_eq!(pace.hedge_after(work), 16_000 * MS);
        assert_eq!(pace.repeat_after(work), 64_000 * MS);
        let slow = Duration::from_secs(600);
        (0..40).for_each(|_| pace.answered(at(1), work, slow));
        assert_eq!(
            pace.hedge_after(work),
            64_000 * MS,
            "the slowest that is expected"
        );
    }
}
