//! Byte budgets: they bound memory. A budget hands out permits by size; a caller that wants more
//! than is left waits, first come first served. It must not know what the bytes are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::{self, Instant};

/// Bytes per permit of the semaphore beneath: its permits are 32-bit per request.
const GRAIN: u64 = 1024;

/// A number of bytes that may be held at one time.
#[derive(Clone, Debug)]
pub struct Budget {
    semaphore: Arc<Semaphore>,
    grains: u32,
    want: Arc<Want>,
}

#[derive(Debug, Default)]
struct Want {
    waiting: AtomicUsize,
    /// When a waiter last got its bytes, in microseconds of the clock.
    ended_micros: AtomicU64,
}

/// Bytes held from a budget until dropped.
#[derive(Debug)]
pub struct Held {
    permit: OwnedSemaphorePermit,
}

impl Held {
    pub fn bytes(&self) -> u64 {
        self.permit.num_permits() as u64 * GRAIN
    }

    /// Adds bytes held of the same budget.
    ///
    /// # Panics
    /// If `more` is of another budget.
    pub fn merge(&mut self, more: Held) {
        self.permit.merge(more.permit);
    }

    /// Gives back the bytes held beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let kept = usize::try_from(bytes.div_ceil(GRAIN)).unwrap_or(usize::MAX);
        let excess = self.permit.num_permits().saturating_sub(kept.max(1));
        drop(self.permit.split(excess));
    }
}

impl Budget {
    /// A budget of `bytes`, at least one KiB.
    pub fn of_bytes(bytes: u64) -> Self {
        let grains = u32::try_from(bytes / GRAIN)
            .unwrap_or(u32::MAX >> 3)
            .clamp(1, u32::MAX >> 3);
        Budget {
            semaphore: Arc::new(Semaphore::new(grains as usize)),
            grains,
            want: Arc::default(),
        }
    }

    /// Waits until `bytes` are free and holds them. A request larger than the whole budget takes
    /// the whole budget, so that it passes alone instead of never.
    pub async fn hold(&self, bytes: u64) -> Held {
        if let Some(held) = self.try_hold(bytes) {
            return held;
        }
        let _waits = Waits::begin(&self.want);
        let permits = self.permits(bytes);
        match Arc::clone(&self.semaphore)
            .acquire_many_owned(permits)
            .await
        {
            Ok(permit) => Held { permit },
            Err(_) => unreachable!("the semaphore of a budget is never closed"),
        }
    }

    pub fn try_hold(&self, bytes: u64) -> Option<Held> {
        let permits = self.permits(bytes);
        let permit = Arc::clone(&self.semaphore)
            .try_acquire_many_owned(permits)
            .ok()?;
        Some(Held { permit })
    }

    pub fn free_bytes(&self) -> u64 {
        self.semaphore.available_permits() as u64 * GRAIN
    }

    pub fn total_bytes(&self) -> u64 {
        u64::from(self.grains) * GRAIN
    }

    /// True if a caller waits for bytes, did at any time since `instant`, or got less than it
    /// wanted since then.
    pub fn is_wanted_since(&self, instant: Instant) -> bool {
        let ended = Instant::from_micros(self.want.ended_micros.load(Relaxed));
        self.want.waiting.load(Relaxed) > 0 || ended > instant
    }

    /// Notes that a caller got less than it wanted.
    pub fn note_short(&self, now: Instant) {
        self.want.ended_micros.store(now.as_micros(), Relaxed);
    }

    fn permits(&self, bytes: u64) -> u32 {
        let grains = u32::try_from(bytes.div_ceil(GRAIN)).unwrap_or(u32::MAX);
        grains.clamp(1, self.grains)
    }
}

/// Counts one waiting caller until dropped.
struct Waits<'a>(&'a Want);

impl<'a> Waits<'a> {
    fn begin(want: &'a Want) -> Self {
        want.waiting.fetch_add(1, Relaxed);
        Waits(want)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.ended_micros.store(clock::now().as_micros(), Relaxed);
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_held_budget_is_free_again_when_dropped() {
        let budget = Budget::of_bytes(4096);
        let held = budget.hold(4096).await;
        assert!(budget.try_hold(1).is_none());
        drop(held);
        assert_eq!(budget.free_bytes(), 4096);
    }

    #[tokio::test]
    async fn more_than_the_whole_passes_alone() {
        let budget = Budget::of_bytes(2048);
        let held = budget.hold(1 << 40).await;
        assert_eq!(budget.free_bytes(), 0);
        drop(held);
    }

    #[tokio::test]
    async fn part_of_it_can_be_given_back() {
        let budget = Budget::of_bytes(8192);
        let mut held = budget.hold(5000).await;
        assert_eq!(held.bytes(), 5120);
        held.shrink_to(6000);
        assert_eq!((held.bytes(), budget.free_bytes()), (5120, 3072));
        held.shrink_to(1025);
        assert_eq!((held.bytes(), budget.free_bytes()), (2048, 6144));
        held.shrink_to(0);
        assert_eq!((held.bytes(), budget.free_bytes()), (1024, 7168));
        held.merge(budget.hold(2048).await);
        assert_eq!((held.bytes(), budget.free_bytes()), (3072, 5120));
    }

    #[tokio::test]
    async fn it_is_wanted_while_someone_waits_and_that_is_remembered() {
        let budget = Budget::of_bytes(4096);
        let start = clock::now();
        let held = budget.hold(4096).await;
        assert!(!budget.is_wanted_since(start));
        let never = Instant::from_micros(u64::MAX);
        let wait = clock::timeout(Duration::from_secs(60), budget.hold(1));
        let look = async {
            assert!(budget.is_wanted_since(never));
            drop(held);
        };
        let (waited, ()) = tokio::join!(wait, look);
        assert!(waited.is_ok());
        assert!(budget.is_wanted_since(start));
        assert!(!budget.is_wanted_since(clock::now()));
        drop(waited);
        let all = budget.hold(4096).await;
        let gave_up = clock::timeout(Duration::from_millis(1), budget.hold(1)).await;
        assert!(gave_up.is_err());
        assert!(!budget.is_wanted_since(never));
        assert_eq!(budget.total_bytes(), 4096);
        drop(all);
    }
}
