//! Memory for decompressing. A batch's sender chooses how much it takes: most need little, some can
//! be made that need a thousand times their size. So a batch is first decompressed with little
//! memory, several batches at a time; one for which that is not enough is done again with all
//! memory, alone. It must not know codecs.

use std::sync::Arc;

use host::budget::{Budget, Held};

/// What a second attempt takes at most: the largest window of any codec.
const WINDOW_BYTES_MAX: u64 = 128 << 20;
/// What a first attempt takes.
const LITTLE_BYTES: u64 = 16 << 20;
/// All decompressed bytes of an attempt with all memory, kept or not.
const UNPACKED_BYTES_MAX: usize = 256 << 20;

/// The bounds of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) window_bytes: usize,
    /// For all decompressed bytes, kept or not: a MiB can be made that yields GiB.
    pub(crate) unpacked_bytes: usize,
    /// For recompressed batches, which are kept.
    pub(crate) output_bytes: usize,
}

/// A first attempt. LZ4 takes up to 16 MiB whatever the bound, but blocks of that size are rare;
/// what Kafka's clients send takes 192 KiB.
pub(crate) const LITTLE: Room = Room {
    window_bytes: 8 << 20,
    unpacked_bytes: 64 << 20,
    output_bytes: 4 << 20,
};
pub(crate) struct Unpacking {
    budget: Budget,
    /// What a second attempt takes.
    all_bytes: u64,
}

impl Unpacking {
    /// Memory for decompressing, over all connections.
    pub(crate) fn of_bytes(bytes: u64) -> Self {
        Unpacking {
            budget: Budget::of_bytes(bytes),
            all_bytes: bytes.min(WINDOW_BYTES_MAX),
        }
    }

    /// The bounds of a second attempt: as large a window, of which no more is used than comes out, or output for half of
    /// it, which at most is more than two requests of the usual size.
    fn all(&self) -> Room {
        let window_bytes = usize::try_from(self.all_bytes).unwrap_or(usize::MAX);
        Room {
            window_bytes,
            unpacked_bytes: UNPACKED_BYTES_MAX,
            output_bytes: window_bytes / 2,
        }
    }

    /// Takes memory for a recompressed batch, if it is free.
    pub(crate) fn try_hold(&self, bytes: u64) -> Option<Held> {
        self.budget.try_hold(bytes)
    }

    /// Runs `work` off the async threads, and again with all memory if it says that little was not
    /// enough. While you hold the returned `Held`, do not wait for more of this budget: deadlock.
    pub(crate) async fn run<T: Send + 'static, E: Send + 'static>(
        &self,
        work: impl Fn(Room) -> Result<T, E> + Send + Sync + 'static,
    ) -> (Result<T, E>, Held) {
        let work = Arc::new(work);
        let held = self.budget.hold(LITTLE_BYTES).await;
        let first = Arc::clone(&work);
        let done = host::task::spawn_blocking(move || first(LITTLE)).await;
        if done.is_ok() {
            return (done, held);
        }
        drop(held);
        let held = self.budget.hold(self.all_bytes).await;
        let all = self.all();
        (host::task::spawn_blocking(move || work(all)).await, held)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[tokio::test]
    async fn what_little_is_enough_for_is_done_once() {
        let unpacking = Unpacking::of_bytes(WINDOW_BYTES_MAX);
        let (done, held) = unpacking.run(Ok::<_, ()>).await;
        assert_eq!(done, Ok(LITTLE));
        assert_eq!(held.bytes(), LITTLE_BYTES);
    }

    #[tokio::test]
    async fn what_fails_with_little_is_done_again_alone() {
        let unpacking = Unpacking::of_bytes(WINDOW_BYTES_MAX);
        let all = unpacking.all();
        let others = unpacking.budget.hold(LITTLE_BYTES).await;
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let work = move |room: Room| {
            counted.fetch_add(1, Relaxed);
            if room == all { Ok(()) } else { Err(()) }
        };
        let free_others = async {
            while runs.load(Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            drop(others);
        };
        let ((done, held), ()) = tokio::join!(unpacking.run(work), free_others);
        assert_eq!((done, runs.load(Relaxed)), (Ok(()), 2));
        assert_eq!(held.bytes(), WINDOW_BYTES_MAX);
    }

    #[test]
    fn a_second_attempt_takes_no_more_than_there_is_and_never_more_than_the_largest_window() {
        for (bytes, window_bytes, output_bytes) in [
            (32 << 20, 32 << 20, 16 << 20),
            (128 << 20, 128 << 20, 64 << 20),
            (256 << 20, 128 << 20, 64 << 20),
        ] {
            let all = Unpacking::of_bytes(bytes).all();
            assert_eq!(
                (all.window_bytes, all.output_bytes),
                (window_bytes, output_bytes)
            );
        }
    }
}
