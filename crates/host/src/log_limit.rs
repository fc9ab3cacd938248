//! Keeps lines that a client or a sick bucket can cause at will from filling the log. It must not
//! know what is logged.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Instant;

/// The time for one line, unless another is given.
const EVERY: Duration = Duration::from_secs(1);

/// Lets one line through in a while and counts those left out.
#[derive(Debug)]
pub struct LogLimit {
    every: Duration,
    next_micros: AtomicU64,
    left_out: AtomicU64,
}

impl Default for LogLimit {
    fn default() -> Self {
        LogLimit::every(EVERY)
    }
}

impl LogLimit {
    pub const fn every(every: Duration) -> Self {
        LogLimit {
            every,
            next_micros: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// `Some` if a line may be written now: how many were left out since the last one.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let next = self.next_micros.load(Relaxed);
        let later = (now + self.every).as_micros();
        let won = now.as_micros() >= next
            && self
                .next_micros
                .compare_exchange(next, later, Relaxed, Relaxed)
                .is_ok();
        if won {
            return Some(self.left_out.swap(0, Relaxed));
        }
        self.left_out.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_a_count_of_the_others() {
        let limit = LogLimit::default();
        let at = Instant::from_millis;
        assert_eq!(limit.pass(at(5_000)), Some(0));
        assert_eq!(limit.pass(at(5_001)), None);
        assert_eq!(limit.pass(at(5_999)), None);
        assert_eq!(limit.pass(at(6_000)), Some(2));
    }
}
