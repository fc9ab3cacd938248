//! Byte budgets: what bounds memory. A budget hands out permits by size; whoever wants more than
//! is left waits. It must not know what the bytes are.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes per permit of the semaphore beneath: its permits are 32-bit per request.
const GRAIN: u64 = 1024;

/// A number of bytes that may be held at one time.
#[derive(Clone, Debug)]
pub struct Budget {
    semaphore: Arc<Semaphore>,
    grains: u32,
}

/// Bytes held from a budget until dropped.
#[derive(Debug)]
pub struct Held {
    _permit: OwnedSemaphorePermit,
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
        }
    }

    /// Waits until `bytes` are free and holds them. A request larger than the whole budget takes
    /// the whole budget, so that it passes alone instead of never.
    pub async fn hold(&self, bytes: u64) -> Held {
        let permits = self.permits(bytes);
        match Arc::clone(&self.semaphore)
            .acquire_many_owned(permits)
            .await
        {
            Ok(permit) => Held { _permit: permit },
            Err(_) => unreachable!("the semaphore of a budget is never closed"),
        }
    }

    /// Holds `bytes` if they are free now.
    pub fn try_hold(&self, bytes: u64) -> Option<Held> {
        let permits = self.permits(bytes);
        let permit = Arc::clone(&self.semaphore)
            .try_acquire_many_owned(permits)
            .ok()?;
        Some(Held { _permit: permit })
    }

    /// Bytes that nobody holds.
    pub fn free_bytes(&self) -> u64 {
        self.semaphore.available_permits() as u64 * GRAIN
    }

    fn permits(&self, bytes: u64) -> u32 {
        let grains = u32::try_from(bytes.div_ceil(GRAIN)).unwrap_or(u32::MAX);
        grains.clamp(1, self.grains)
    }
}

#[cfg(test)]
mod tests {
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
}
