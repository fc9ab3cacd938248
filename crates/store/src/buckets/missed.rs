//! Objects that one bucket did not have when it was asked, and another had. It must not know whether the first should have had them.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::{Buckets, lock};
use crate::bucket::Key;

/// Most that are remembered: they are samples.
const KEPT_MAX: usize = 1_000;

/// What was missed and where, until somebody looks into it.
#[derive(Debug, Default)]
pub(super) struct Missed {
    kept: Mutex<BTreeSet<(Key, u32)>>,
}

impl Missed {
    pub(super) fn note(&self, key: &Key, bucket: u32) {
        let mut kept = lock(&self.kept);
        if kept.len() < KEPT_MAX {
            kept.insert((key.clone(), bucket));
        }
    }
}

impl Buckets {
    /// Objects that the bucket of a number did not have, though another had them: `max` of those that were met since they were asked for last.
    /// More than a thousand are not remembered.
    pub fn take_missed(&self, max: usize) -> Vec<(Key, u32)> {
        let mut kept = lock(&self.missed.kept);
        let first: Vec<_> = kept.iter().take(max).cloned().collect();
        kept.clear();
        first
    }
}
