//! How fast a bucket was lately, by kind and size of request, and how many extra requests it may be
//! sent. Pure: times come in as arguments. It must not know how requests are made.

use std::time::Duration;

use host::allowance::{Allowance, Terms};
use host::clock::Instant;

use crate::bucket::Op;
use crate::extra;

/// Latencies remembered per class: enough that a few slow requests do not move the median.
const REMEMBERED: usize = 32;
/// With fewer remembered latencies than this, a class has no median yet.
const KNOWN_FROM: usize = 4;
/// A second copy is sent after this long at the earliest: a busy machine may need as long to notice
/// an answer.
const HEDGE_MIN: Duration = Duration::from_millis(20);
/// When a second copy is sent while the class has no median. An upload that is not small gets none then: that it
/// takes long may be due to the uplink, which a copy would only share with it.
const HEDGE_UNKNOWN: Duration = Duration::from_millis(250);
/// Uploads up to this size hardly share an uplink with others.
const SMALL_MAX: u64 = 64 << 10;
/// A request without an answer is taken for lost after this long at the earliest and then repeated,
/// even if no hedges are left: requests sent to a bucket that was away are never answered.
const REPEAT_MIN: Duration = Duration::from_millis(500);
const REPEAT_UNKNOWN: Duration = Duration::from_secs(1);
/// The longest wait before a hedge or a repeat, unless the uploads under way may take longer.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The slowest uplink whose uploads are waited for without a sign of life, in bytes a second: 4 Mbit/s.
/// While bytes are seen to move, no rate is too slow.
const UPLINK_MIN: u64 = 512 << 10;
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

    /// The time that the request's bytes need on the slowest uplink.
    pub fn slowest_upload(self) -> Duration {
        upload_time(self.bytes)
    }

    /// Bytes that the request sends.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    fn is_small(self) -> bool {
        self.bytes <= SMALL_MAX
    }

    fn kib(self) -> u64 {
        self.bytes.div_ceil(1 << 10)
    }
}

/// Extra requests that may be made, by their number and by the bytes that they send.
#[derive(Clone, Debug)]
struct Extra {
    requests: Allowance,
    kib: Allowance,
}

impl Extra {
    fn new(requests: Terms, kib: Terms) -> Self {
        Extra {
            requests: Allowance::new(requests),
            kib: Allowance::new(kib),
        }
    }

    fn earn(&mut self, work: Work) {
        self.requests.earn(1);
        self.kib.earn(work.kib());
    }

    /// Reads and small uploads do not wait until large ones have paid for their bytes.
    fn spend(&mut self, now: Instant, work: Work) -> bool {
        self.requests.affords(now, 1)
            && (work.is_small() || self.kib.spend(now, work.kib()))
            && self.requests.spend(now, 1)
    }

    fn fill(&mut self) {
        self.requests.fill();
        self.kib.fill();
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
    hedges: Extra,
    repeats: Extra,
    /// Bytes of the uploads under way, all copies of them included.
    under_way: u64,
    throttled_until: Instant,
    answered_at: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            recent: Default::default(),
            hedges: Extra::new(extra::HEDGES, extra::HEDGED_KIB),
            repeats: Extra::new(extra::REPEATS, extra::REPEATED_KIB),
            under_way: 0,
            throttled_until: Instant::default(),
            answered_at: Instant::default(),
        }
    }
}

impl Pace {
    /// Counts a request that a caller asked for.
    pub fn asked(&mut self, work: Work) {
        self.hedges.earn(work);
        self.repeats.earn(work);
    }

    /// Notes how many bytes the uploads under way have together, all copies of them included.
    pub fn uploading(&mut self, bytes: u64) {
        self.under_way = bytes;
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

    /// How long after its last sign of life a request gets a second copy; `None` if it gets none.
    pub fn hedge_after(&self, work: Work) -> Option<Duration> {
        match self.recent[work.class].median() {
            Some(median) => Some((median * 2).clamp(HEDGE_MIN, self.wait_max(work))),
            None => work.is_small().then_some(HEDGE_UNKNOWN),
        }
    }

    /// How long after its last sign of life a request is taken for lost.
    pub fn repeat_after(&self, work: Work) -> Duration {
        match self.recent[work.class].median() {
            Some(median) => (median * 8).clamp(REPEAT_MIN, self.wait_max(work)),
            None => REPEAT_UNKNOWN + self.upload_max(work),
        }
    }

    /// The longest that a request may show no sign of life because of its upload and those beside it.
    pub fn upload_max(&self, work: Work) -> Duration {
        match work.is_read() {
            true => Duration::ZERO,
            false => upload_time(self.under_way.max(work.bytes)),
        }
    }

    fn wait_max(&self, work: Work) -> Duration {
        WAIT_MAX.max(self.upload_max(work))
    }

    /// Takes one hedge from the allowance; false if there is none, or the store is throttling.
    pub fn may_hedge(&mut self, now: Instant, work: Work) -> bool {
        now >= self.throttled_until && self.hedges.spend(now, work)
    }

    /// Takes one repeat from the allowance, for a request that failed or is taken for lost; false
    /// if there is none.
    pub fn may_repeat(&mut self, now: Instant, work: Work) -> bool {
        self.repeats.spend(now, work)
    }
}

fn upload_time(bytes: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / UPLINK_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    const GET: Work = Work {
        class: BANDS + 2,
        bytes: 0,
    };

    #[test]
    fn a_hedge_waits_twice_the_median_of_its_kind_and_size() {
        let mut pace = Pace::default();
        let (small, large) = (Work::put(1_000), Work::put(8 << 20));
        assert_eq!(pace.hedge_after(small), Some(HEDGE_UNKNOWN));
        for _ in 0..20 {
            pace.answered(at(1), small, 50 * MS);
            pace.answered(at(1), large, 400 * MS);
            pace.answered(at(1), Work::read(Op::Get), MS);
        }
        // One in three is slow, and the median stays.
        (0..6).for_each(|_| pace.answered(at(1), small, 3_000 * MS));
        assert_eq!(pace.hedge_after(small), Some(100 * MS));
        assert_eq!(pace.hedge_after(large), Some(800 * MS));
        let range = Work::read(Op::GetRange);
        assert_eq!(pace.hedge_after(range), Some(HEDGE_MIN));
        let list = Work::read(Op::List);
        assert_eq!(pace.hedge_after(list), Some(HEDGE_UNKNOWN));
        assert_eq!(pace.repeat_after(small), REPEAT_MIN);
        assert_eq!(pace.repeat_after(large), 3_200 * MS);
    }

    #[test]
    fn a_store_that_became_slow_is_waited_for() {
        let mut pace = Pace::default();
        let work = Work::put(1_000);
        (0..100).for_each(|_| pace.answered(at(1), work, 20 * MS));
        (0..17).for_each(|_| pace.answered(at(1), work, 900 * MS));
        assert_eq!(pace.hedge_after(work), Some(1_800 * MS));
        assert_eq!(pace.repeat_after(work), WAIT_MAX);
    }

    #[test]
    fn hedges_are_a_tenth_of_all_requests_and_stop_while_the_store_is_throttling() {
        let mut pace = Pace::default();
        let mut hedges = 0;
        for _ in 0..1_000 {
            pace.asked(GET);
            hedges += usize::from(pace.may_hedge(at(10), GET));
        }
        assert_eq!(hedges, 109);
        (0..100).for_each(|_| pace.asked(GET));
        pace.throttled(at(20));
        assert!(!pace.may_hedge(at(21), GET));
        assert!(!pace.may_hedge(at(1_019), GET));
        assert!(pace.may_hedge(at(1_020), GET));
    }

    #[test]
    fn copies_of_uploads_are_a_share_of_the_bytes_that_were_asked_for_not_only_of_the_requests() {
        let mut pace = Pace::default();
        let (large, now) = (Work::put(1 << 20), at(10));
        let (mut hedges, mut repeats) = (0, 0);
        for _ in 0..1_000 {
            // Reads do not pay for the bytes of uploads.
            (0..10).for_each(|_| pace.asked(GET));
        }
        for _ in 0..100 {
            pace.asked(large);
            hedges += usize::from(pace.may_hedge(now, large));
            repeats += usize::from(pace.may_repeat(now, large));
        }
        assert_eq!((hedges, repeats), (10, 33));
        // 0.7 MiB are left, and 128 KiB are earned in each second.
        assert!(!pace.may_repeat(at(2_000), large));
        assert!(pace.may_repeat(at(3_000), large));
    }

    #[test]
    fn what_a_large_copy_owes_keeps_no_read_and_no_small_upload_from_theirs() {
        let mut pace = Pace::default();
        let large = Work::put(8 << 20);
        assert!(pace.may_hedge(at(1), large) && pace.may_repeat(at(1), large));
        assert!(!pace.may_hedge(at(1), large) && !pace.may_repeat(at(1), large));
        for work in [Work::read(Op::Get), Work::put(1_000)] {
            assert!(pace.may_hedge(at(1), work) && pace.may_repeat(at(1), work));
        }
    }

    #[test]
    fn the_first_answer_after_a_silence_lets_everything_be_sent_again() {
        let mut pace = Pace::default();
        let work = Work::put(1);
        pace.answered(at(1_000), work, MS);
        let spend = |pace: &mut Pace, now| (0..100).filter(|_| pace.may_repeat(now, work)).count();
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
        assert_eq!(pace.hedge_after(work), None);
        assert_eq!(pace.repeat_after(work), 129_000 * MS);
        (0..20).for_each(|_| pace.answered(at(1), work, 8_000 * MS));
        assert_eq!(pace.hedge_after(work), Some(16_000 * MS));
        assert_eq!(pace.repeat_after(work), 64_000 * MS);
        let slow = Duration::from_secs(600);
        (0..40).for_each(|_| pace.answered(at(1), work, slow));
        let slowest = Some(128_000 * MS);
        assert_eq!(pace.hedge_after(work), slowest);
    }

    #[test]
    fn a_small_upload_waits_for_the_large_ones_beside_it() {
        let mut pace = Pace::default();
        let work = Work::put(1_000);
        (0..40).for_each(|_| pace.answered(at(1), work, 9_000 * MS));
        assert_eq!(pace.repeat_after(work), WAIT_MAX);
        pace.uploading(16 << 20);
        assert_eq!(pace.repeat_after(work), 32_000 * MS);
        assert_eq!(pace.upload_max(Work::put(32 << 20)), 64_000 * MS);
        assert_eq!(pace.upload_max(GET), Duration::ZERO);
    }
}
