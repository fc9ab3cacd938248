//! Up to where each bucket holds all records of a partition, and which partitions are behind. The cost is in proportion to what is asked
//! for and is lacked, never to all partitions or files.

use crate::nouns::behind::{Held, HeldPage, SafeOffset};
use crate::nouns::partition::Partition;
use crate::nouns::short::Only;
use crate::state::State;
use crate::terms::ids::PartitionId;

/// Slices of one partition that are looked at for its safe offset in one bucket, beyond the first that may be lacked.
const SLICES_MAX: u64 = 1_024;
/// Slices that are looked at for one page. A page has one partition at least, whatever that takes.
const SLICES_OF_PAGE_MAX: u64 = 16 * SLICES_MAX;

impl State {
    /// Up to where a bucket holds all records of a partition: what is there of it though all other buckets are gone. `None` if
    /// there is no such partition, files are not to be in such a bucket, or it is suspect, so that it is not known what it holds.
    pub fn safe_offset(&self, bucket: u32, id: PartitionId) -> Option<SafeOffset> {
        let (safe, _) = self.safe_in(bucket, id, self.partition(id)?);
        safe
    }

    /// A partition, and up to where each bucket holds all of its records in which every file is to be.
    pub fn held(&self, id: PartitionId) -> Option<Held> {
        let partition = self.partition(id)?;
        let (held, _) = self.held_of(id, partition);
        Some(held)
    }

    /// Partitions that are behind in a bucket, after one of them: at most `max` are looked at.
    pub fn behind(&self, after: Option<PartitionId>, max: usize) -> HeldPage {
        let mut page = HeldPage::default();
        let mut slices = 0;
        let some = self.behind.partitions(after, max.saturating_add(1));
        let mut looked_at = 0;
        let mut last = None;
        for id in some {
            if looked_at >= max || slices >= SLICES_OF_PAGE_MAX {
                page.more_after = last;
                break;
            }
            (looked_at, last) = (looked_at + 1, Some(id));
            let Some(partition) = self.partition(id) else {
                continue;
            };
            let (held, taken) = self.held_of(id, partition);
            slices += taken;
            if held
                .safe
                .keys()
                .any(|bucket| held.records_behind(*bucket) > 0)
            {
                page.partitions.push(held);
            }
        }
        page
    }

    /// The files that only one bucket is known to hold, by that bucket, among those in which every file is to be.
    pub fn only_copies(&self) -> impl Iterator<Item = (u32, Only)> {
        self.files.only_copies()
    }

    /// A partition, and how many slices were looked at.
    fn held_of(&self, id: PartitionId, partition: &Partition) -> (Held, u64) {
        let mut held = Held {
            id,
            topic: partition.topic,
            index: partition.index,
            log_start: partition.log_start,
            high_watermark: partition.high_watermark,
            safe: [].into(),
        };
        let mut slices = 0;
        for bucket in self.policy.placement.buckets.keys() {
            let (safe, taken) = self.safe_in(*bucket, id, partition);
            held.safe.insert(*bucket, safe);
            slices += taken;
        }
        (held, slices)
    }

    /// The safe offset in a bucket, and how many slices were looked at for it.
    fn safe_in(
        &self,
        bucket: u32,
        id: PartitionId,
        partition: &Partition,
    ) -> (Option<SafeOffset>, u64) {
        let is_known = self.policy.placement.buckets.contains_key(&bucket)
            && self.doubts.suspect_since(bucket).is_none();
        if !is_known {
            return (None, 0);
        }
        let exact = |offset| SafeOffset {
            offset,
            is_exact: true,
        };
        let Some(trail) = self.behind.trail(bucket, id) else {
            return (Some(exact(partition.high_watermark)), 0);
        };
        let mut offset = trail.from.max(partition.log_start);
        let mut looked_at = 0;
        for slice in partition.slices.iter_from(offset) {
            if self.files.lacks(slice.file, bucket) {
                return (Some(exact(offset.max(slice.base_offset))), looked_at);
            }
            offset = slice.end();
            looked_at += 1;
            if looked_at > SLICES_MAX {
                let is_exact = false;
                return (Some(SafeOffset { offset, is_exact }), looked_at);
            }
        }
        (Some(exact(partition.high_watermark)), looked_at)
    }
}
