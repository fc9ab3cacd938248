//! Space that stays free on the file system of a bucket that is a directory: deleting anything
//! needs the journal, and the journal needs space. While less is free, no records are accepted. It
//! must not know Kafka.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use host::log_limit::LogLimit;
use store::bucket::{Bucket, Space};

/// How often the free space is measured: a fast disk takes some hundred MiB in this time.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The time for one line of the log about looks that fail.
const FAILURES_LOGGED_EVERY: Duration = Duration::from_secs(10);
/// The reserve if the operator sets none: a twentieth of the file system within these bounds, but
/// never more than a quarter of it.
const DERIVED_MIN: u64 = 256 << 20;
const DERIVED_MAX: u64 = 4 << 30;

/// The reserve, and the space that was free at the last look.
#[derive(Debug)]
pub(crate) struct Reserve {
    wanted: u64,
    /// Bytes that were free, and that must stay free; the first is `u64::MAX` for a bucket without
    /// bounds.
    free: AtomicU64,
    kept: AtomicU64,
    failures: LogLimit,
}

impl Reserve {
    pub(crate) fn new(wanted: u64) -> Self {
        Reserve {
            wanted,
            free: AtomicU64::new(u64::MAX),
            kept: AtomicU64::new(0),
            failures: LogLimit::every(FAILURES_LOGGED_EVERY),
        }
    }

    /// Why no records are accepted; `None` if they are.
    pub(crate) fn obstacle(&self) -> Option<String> {
        let (free, kept) = (self.free.load(Relaxed), self.kept.load(Relaxed));
        (free < kept).then(|| {
            format!(
                "the bucket's file system has {} MiB left, and {} MiB are kept for the journal, without \
                 which nothing can be deleted (bucket.reserve.bytes): make room, or let records expire",
                free >> 20,
                kept >> 20
            )
        })
    }

    pub(crate) fn is_short(&self) -> bool {
        self.free.load(Relaxed) < self.kept.load(Relaxed)
    }

    fn note(&self, space: Space) {
        let kept = match self.wanted {
            0 => (space.total / 20)
                .clamp(DERIVED_MIN, DERIVED_MAX)
                .min(space.total / 4),
            bytes => bytes,
        };
        self.kept.store(kept, Relaxed);
        self.free.store(space.free, Relaxed);
    }

    /// Measures the free space at intervals, for ever; returns if the bucket has no bounds.
    pub(crate) async fn watch(&self, bucket: &dyn Bucket) {
        while self.looked(bucket.space().await) {
            host::clock::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes in what a look found; false if there is nothing to watch. A look that failed, as on a
    /// network file system that is away for a moment, leaves the last one in force.
    fn looked(&self, found: io::Result<Option<Space>>) -> bool {
        let space = match found {
            Ok(Some(space)) => space,
            Ok(None) => return false,
            Err(error) => {
                if let Some(left_out) = self.failures.pass(host::clock::now()) {
                    tracing::warn!(%error, left_out, "the free space of the bucket's file system is not known");
                }
                return true;
            }
        };
        let was_short = self.is_short();
        self.note(space);
        match self.obstacle() {
            Some(why) if !was_short => tracing::error!(%why, "no records are taken"),
            None if was_short => tracing::info!("there is room again: records are taken"),
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn kept(wanted: u64, total: u64) -> u64 {
        let reserve = Reserve::new(wanted);
        reserve.note(Space { free: 0, total });
        reserve.kept.load(Relaxed)
    }

    #[test]
    fn the_reserve_is_a_share_of_the_file_system_unless_somebody_said_how_much() {
        assert_eq!(kept(0, 20 * GIB), GIB);
        assert_eq!(kept(0, 1_000 * GIB), DERIVED_MAX);
        assert_eq!(kept(0, 2 * GIB), DERIVED_MIN);
        assert_eq!(kept(0, 100 << 20), 25 << 20);
        assert_eq!(kept(7, 20 * GIB), 7);
    }

    #[test]
    fn records_are_refused_while_less_is_free() {
        let reserve = Reserve::new(10 << 20);
        assert_eq!(reserve.obstacle(), None, "a bucket without bounds");
        let total = 100 << 20;
        reserve.note(Space {
            free: (10 << 20) - 1,
            total,
        });
        assert!(reserve.is_short());
        let why = reserve.obstacle().unwrap_or_default();
        assert!(why.contains("9 MiB left, and 10 MiB are kept"), "{why}");
        reserve.note(Space {
            free: 10 << 20,
            total,
        });
        assert_eq!((reserve.is_short(), reserve.obstacle()), (false, None));
    }

    #[test]
    fn a_look_that_fails_ends_no_watch_and_changes_nothing() {
        let reserve = Reserve::new(10);
        let space = |free| Ok(Some(Space { free, total: 100 }));
        assert!(reserve.looked(space(9)));
        assert!(reserve.looked(Err(io::ErrorKind::StaleNetworkFileHandle.into())));
        assert!(reserve.is_short());
        assert!(reserve.looked(space(10)));
        assert!(!reserve.is_short());
        assert!(!reserve.looked(Ok(None)), "a bucket without bounds");
    }
}
