//! What this node's copy of the metadata takes of memory. No budget bounds it: what was acknowledged must be remembered. So it is
//! weighed, and an operator told in time. It must not know how it is weighed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The memory of the metadata, without that of groups, which has a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// As it was last weighed; 0 before that.
    pub bytes: u64,
    /// An operator is told if it is more.
    pub bytes_max: u64,
}

/// The same, as a node keeps it.
pub(crate) struct Weight {
    bytes: AtomicU64,
    bytes_max: u64,
}

impl Weight {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Weight {
            bytes: AtomicU64::new(0),
            bytes_max,
        }
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory {
            bytes: self.bytes.load(Relaxed),
            bytes_max: self.bytes_max,
        }
    }

    /// Notes what it weighs now; true if that is too much.
    pub(crate) fn note(&self, bytes: u64) -> bool {
        self.bytes.store(bytes, Relaxed);
        bytes > self.bytes_max
    }
}
