//! How long another agent of the zone is waited for, how much is asked of it at one time, and for how long it is left alone
//! once it failed. Pure. It must not know what is asked.

use std::time::Duration;

use host::backoff::Backoff;
use host::clock::Instant;
use host::rng::Rng;

/// Requests to one agent at one time, and the bytes of what they ask for. What is beyond goes to the bucket.
const ASKED_MAX: u32 = 32;
const ASKED_BYTES_MAX: u64 = 64 << 20;
/// An agent that was late so often in a row is left alone.
const LATE_MAX: u32 = 3;
/// For how long an agent that failed is left alone.
const ALONE: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
/// The least and the most that an answer is waited for before the bucket is asked as well.
const PATIENCE_LEAST: Duration = Duration::from_millis(20);
const PATIENCE_MOST: Duration = Duration::from_secs(1);
/// The same while it is not known how long the bucket takes.
const PATIENCE_UNKNOWN: Duration = Duration::from_millis(200);

/// How long the bucket takes to give a part, smoothed as TCP does it with round trips (RFC 6298).
#[derive(Debug, Default)]
pub(super) struct Usual {
    mean_micros: u64,
    deviation_micros: u64,
    is_known: bool,
}

impl Usual {
    /// The bucket has given a part.
    pub(super) fn note(&mut self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 8);
        if !std::mem::replace(&mut self.is_known, true) {
            (self.mean_micros, self.deviation_micros) = (took, took / 2);
            return;
        }
        let off = self.mean_micros.abs_diff(took);
        self.deviation_micros = (3 * self.deviation_micros + off) / 4;
        self.mean_micros = (7 * self.mean_micros + took) / 8;
    }

    /// How long another agent is waited for. It may have to ask the bucket itself, so it is given twice the time that this
    /// takes, and what that varies by.
    pub(super) fn patience(&self) -> Duration {
        if !self.is_known {
            return PATIENCE_UNKNOWN;
        }
        let micros = 2 * self.mean_micros + 4 * self.deviation_micros;
        Duration::from_micros(micros).clamp(PATIENCE_LEAST, PATIENCE_MOST)
    }
}

/// What is known of another agent.
#[derive(Debug, Default)]
pub(super) struct Peer {
    asked: u32,
    asked_bytes: u64,
    /// Failures since it answered last.
    failures: u32,
    /// How often it was late since then, and since it was left alone.
    late: u32,
    alone_until: Instant,
}

impl Peer {
    /// Counts a request, if it may be made.
    pub(super) fn begin(&mut self, now: Instant, bytes: u64) -> bool {
        let may = now >= self.alone_until
            && self.asked < ASKED_MAX
            && (self.asked == 0 || self.asked_bytes + bytes <= ASKED_BYTES_MAX);
        if may {
            self.asked += 1;
            self.asked_bytes += bytes;
        }
        may
    }

    /// True while a request is under way.
    pub(super) fn is_asked(&self) -> bool {
        self.asked > 0
    }

    /// A request is over, whatever came of it.
    pub(super) fn end(&mut self, bytes: u64) {
        self.asked -= 1;
        self.asked_bytes -= bytes;
    }

    pub(super) fn answered(&mut self) {
        (self.failures, self.late) = (0, 0);
    }

    /// It did not answer in time.
    pub(super) fn late(&mut self, now: Instant, rng: &mut Rng) {
        self.late += 1;
        if self.late >= LATE_MAX {
            self.failed(now, rng);
        }
    }

    /// It could not be reached, or what it answered was not the part.
    pub(super) fn failed(&mut self, now: Instant, rng: &mut Rng) {
        // Requests that were under way together fail together, and count as one failure.
        if now < self.alone_until {
            return;
        }
        self.late = 0;
        self.failures += 1;
        self.alone_until = now + ALONE.after(self.failures, rng);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_millis(1_000);

    #[test]
    fn patience_follows_the_bucket() {
        let mut usual = Usual::default();
        assert_eq!(usual.patience(), PATIENCE_UNKNOWN);
        let settled = |usual: &mut Usual, millis: u64| {
            (0..100).for_each(|_| usual.note(Duration::from_millis(millis)));
            usual.patience().as_millis()
        };
        assert_eq!(settled(&mut usual, 1), PATIENCE_LEAST.as_millis());
        assert!((80..90).contains(&settled(&mut usual, 40)));
        assert_eq!(settled(&mut usual, 60_000), PATIENCE_MOST.as_millis());
        let mut varies = Usual::default();
        (0..50).for_each(|at| varies.note(Duration::from_millis(20 + 20 * (at % 2))));
        assert!(varies.patience() > Duration::from_millis(90));
    }

    #[test]
    fn what_is_asked_of_one_agent_is_bounded() {
        let mut peer = Peer::default();
        let begun = (0..100).filter(|_| peer.begin(NOW, 1)).count();
        assert_eq!(begun, ASKED_MAX as usize);
        (0..begun).for_each(|_| peer.end(1));
        assert!(peer.begin(NOW, 2 * ASKED_BYTES_MAX), "alone anything may");
        assert!(!peer.begin(NOW, 1));
        peer.end(2 * ASKED_BYTES_MAX);
        assert!(peer.begin(NOW, 1));
    }

    #[test]
    fn an_agent_that_fails_is_left_alone_ever_longer_until_it_answers() {
        let (mut peer, mut rng) = (Peer::default(), Rng::seeded(1));
        let mut now = NOW;
        let mut alone = Vec::new();
        for _ in 0..8 {
            peer.failed(now, &mut rng);
            let until = peer.alone_until;
            peer.failed(now, &mut rng);
            assert_eq!(peer.alone_until, until, "others failed with it");
            assert!(!peer.begin(now, 1));
            alone.push(until.since(now));
            now = until;
            assert!(peer.begin(now, 1));
            peer.end(1);
        }
        assert!(alone[0] >= Duration::from_millis(100) && alone[0] <= Duration::from_millis(200));
        assert!(alone[7] >= Duration::from_secs(5) && alone[7] <= Duration::from_secs(10));
        peer.answered();
        peer.failed(now, &mut rng);
        assert!(peer.alone_until.since(now) <= Duration::from_millis(200));
    }

    #[test]
    fn an_agent_that_is_late_now_and_then_is_asked_on() {
        let (mut peer, mut rng) = (Peer::default(), Rng::seeded(1));
        for _ in 0..20 {
            peer.late(NOW, &mut rng);
            peer.late(NOW, &mut rng);
            peer.answered();
        }
        assert!(peer.begin(NOW, 1));
        (0..LATE_MAX).for_each(|_| peer.late(NOW, &mut rng));
        assert!(!peer.begin(NOW, 1));
    }
}
