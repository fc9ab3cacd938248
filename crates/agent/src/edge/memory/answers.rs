//! Memory for answers without their records, which lie in parts of files: counted from before an
//! answer is made until it is sent, so that clients that read no answers do not fill the process
//! with them. The size of an answer is not known before it is made, so it is assumed to be that of
//! earlier answers of its API. It must not know what answers hold.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use host::budget::{Budget, Held};
use host::clock::Instant;

/// All API numbers are below this.
const APIS: usize = 128;
/// A smaller answer lowers the expected size by a 64th: one huge answer fades, a few small ones do not hide it.
const FORGET_SHARE: u64 = 64;

/// The budget, and the size to expect of each API's answer.
pub(crate) struct AnswerBudget {
    budget: Budget,
    expected: [AtomicU64; APIS],
}

impl AnswerBudget {
    /// Most answers have some hundred bytes; the largest, all topics in one, has some MiB.
    pub(crate) fn of_bytes(bytes: u64) -> Self {
        AnswerBudget {
            budget: Budget::of_bytes(bytes),
            expected: [const { AtomicU64::new(0) }; APIS],
        }
    }

    /// Waits for memory for an answer to `api`. A holder waits for no other memory.
    pub(crate) async fn expect(&self, api: i16) -> Held {
        let expected = self.of(api).map_or(0, |bytes| bytes.load(Relaxed));
        self.budget.hold(expected).await
    }

    /// Waits for memory for an answer whose size is known.
    pub(crate) async fn hold(&self, bytes: u64) -> Held {
        self.budget.hold(bytes).await
    }

    /// Adjusts the memory taken to the real size of an answer. An answer larger than expected goes
    /// out even if there is no memory for the rest: the next answers wait for as much.
    pub(crate) fn settle(&self, api: i16, bytes: u64, held: Option<Held>) -> Option<Held> {
        if let Some(expected) = self.of(api) {
            let before = expected.load(Relaxed);
            expected.store(bytes.max(before - before / FORGET_SHARE), Relaxed);
        }
        self.fit(bytes, held)
    }

    /// Adjusts memory to an answer's real size, as far as there is memory for the rest of it.
    pub(crate) fn fit(&self, bytes: u64, held: Option<Held>) -> Option<Held> {
        let Some(mut held) = held else {
            return self.budget.try_hold(bytes);
        };
        let missing = bytes.saturating_sub(held.bytes());
        held.shrink_to(bytes);
        if missing > 0
            && let Some(more) = self.budget.try_hold(missing)
        {
            held.merge(more);
        }
        Some(held)
    }

    /// True if an answer waits for memory, or did since `since`.
    pub(crate) fn is_wanted(&self, since: Instant) -> bool {
        self.budget.is_wanted_since(since)
    }

    fn of(&self, api: i16) -> Option<&AtomicU64> {
        self.expected.get(usize::try_from(api).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn an_answer_is_expected_to_be_as_large_as_the_last_ones() {
        let answers = AnswerBudget::of_bytes(32 << 20);
        let held = answers.expect(3).now_or_never().unwrap();
        assert_eq!(held.bytes(), 1024);
        let first = answers.settle(3, 20 << 20, Some(held));
        assert_eq!(answers.budget.free_bytes(), 12 << 20);
        let mut second = answers.expect(3).boxed();
        assert!((&mut second).now_or_never().is_none());
        assert!(answers.is_wanted(Instant::from_micros(u64::MAX)));
        assert!(
            answers.expect(18).now_or_never().is_none(),
            "first come first served"
        );
        drop(first);
        let held = second.now_or_never().unwrap();
        let held = answers.settle(3, 1 << 20, Some(held));
        assert_eq!(answers.budget.free_bytes(), 31 << 20);
        drop(held);
        assert_eq!(answers.budget.free_bytes(), 32 << 20);
    }
}
