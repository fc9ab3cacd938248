//! The partitions of which a bucket lacks something, found without a walk over partitions or files. It must not know slices, nor
//! how copies are made.

use std::collections::{BTreeMap, BTreeSet};

use super::ordered::Ordered;
use crate::terms::ids::{PartitionId, TopicId};

/// Of each bucket, the partitions that have slices in live files which it lacks. A clone shares what is not changed afterwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behind {
    of: BTreeMap<u32, Ordered<PartitionId, Trail>>,
}

/// How a partition is behind in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trail {
    /// Live files that the bucket lacks and in which the partition was given slices.
    pub(crate) files: u64,
    /// No slice that begins below this offset is in such a file.
    pub(crate) from: i64,
    /// A slice that begins just there was, when that was looked at last.
    pub(crate) is_found: bool,
}

/// Up to which offset a bucket holds all records of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SafeOffset {
    /// The bucket holds a copy of each file that has a record below this offset.
    pub offset: i64,
    /// Whether it lacks the record there, if there is one. If not, it may hold more: the rest was not looked at, since that may be much.
    pub is_exact: bool,
}

/// A partition, and up to where each bucket holds all of its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub id: PartitionId,
    pub topic: TopicId,
    /// Its index in the topic.
    pub index: u32,
    /// The first offset that can be read.
    pub log_start: i64,
    /// The offset after the last record.
    pub high_watermark: i64,
    /// By the bucket's number; `None` of one that is suspect: nothing is known of what it holds.
    pub safe: BTreeMap<u32, Option<SafeOffset>>,
}

impl Held {
    /// Offsets from the safe one of a bucket to the end; 0 if it holds all, or its safe offset is not known.
    pub fn records_behind(&self, bucket: u32) -> u64 {
        let safe = self.safe.get(&bucket).copied().flatten();
        let behind = safe.map_or(0, |safe| self.high_watermark.saturating_sub(safe.offset));
        u64::try_from(behind).unwrap_or(0)
    }
}

/// Some partitions, in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HeldPage {
    pub partitions: Vec<Held>,
    /// There may be more after this one.
    pub more_after: Option<PartitionId>,
}

/// How far a bucket is behind, over many partitions.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Lag {
    /// Partitions of which it lacks records.
    pub partitions: u64,
    /// Records from the safe offset of each of them to its end: what would be missing if all other buckets were lost.
    pub records: u64,
    /// The most of one partition.
    pub records_max: u64,
    /// Of some partitions not all was looked at: the records are at most so many.
    pub is_at_most: bool,
    /// The partitions that are furthest behind, the furthest first, each with how many records; no more than were asked for.
    pub furthest: Vec<(u64, PartitionId)>,
}

impl Lag {
    /// Adds what a bucket lacks of some partitions; `furthest` is how many of them all are to be named.
    pub fn add(&mut self, bucket: u32, partitions: &[Held], furthest: usize) {
        for held in partitions {
            let records = held.records_behind(bucket);
            if records == 0 {
                continue;
            }
            self.partitions += 1;
            self.records = self.records.saturating_add(records);
            self.records_max = self.records_max.max(records);
            let safe = held.safe.get(&bucket).copied().flatten();
            self.is_at_most |= safe.is_some_and(|safe| !safe.is_exact);
            let at = self.furthest.partition_point(|(most, _)| *most >= records);
            if at < furthest {
                self.furthest.insert(at, (records, held.id));
                self.furthest.truncate(furthest);
            }
        }
    }
}

impl Behind {
    /// A bucket lacks a further file in which a partition has slices, of which the first begins at an offset.
    pub(crate) fn add(&mut self, bucket: u32, partition: PartitionId, base_offset: i64) {
        let behind = self.of.entry(bucket).or_default();
        let Some(trail) = behind.get_mut(&partition) else {
            let trail = Trail {
                files: 1,
                from: base_offset,
                is_found: true,
            };
            behind.insert(partition, trail);
            return;
        };
        trail.files += 1;
        if base_offset < trail.from {
            trail.from = base_offset;
            trail.is_found = true;
        }
    }

    /// A bucket lacks so many files less in which a partition was given slices; what is left, if anything.
    pub(crate) fn take(
        &mut self,
        bucket: u32,
        partition: PartitionId,
        files: u64,
    ) -> Option<Trail> {
        let behind = self.of.get_mut(&bucket)?;
        let trail = behind.get_mut(&partition)?;
        trail.files = trail.files.saturating_sub(files);
        let left = *trail;
        if left.files == 0 {
            behind.remove(&partition);
            return None;
        }
        Some(left)
    }

    /// No slice of the partition that begins below an offset is lacked; `is_found` if one that begins there is.
    pub(crate) fn advance(
        &mut self,
        bucket: u32,
        partition: PartitionId,
        from: i64,
        is_found: bool,
    ) {
        let behind = self.of.get_mut(&bucket);
        if let Some(trail) = behind.and_then(|behind| behind.get_mut(&partition)) {
            trail.from = from;
            trail.is_found = is_found;
        }
    }

    /// The partition is gone.
    pub(crate) fn forget(&mut self, partition: PartitionId) {
        for behind in self.of.values_mut() {
            behind.remove(&partition);
        }
    }

    pub(crate) fn trail(&self, bucket: u32, partition: PartitionId) -> Option<Trail> {
        self.of.get(&bucket)?.get(&partition).copied()
    }

    /// The partitions that are behind in any bucket, after one of them, at most `max`, in order.
    pub(crate) fn partitions(
        &self,
        after: Option<PartitionId>,
        max: usize,
    ) -> BTreeSet<PartitionId> {
        let from = after.map_or(0, |after| after.0.saturating_add(1));
        let first = |behind: &Ordered<PartitionId, Trail>| -> Vec<PartitionId> {
            let rest = behind.iter_from(&PartitionId(from));
            rest.map(|(id, _)| *id).take(max).collect()
        };
        let all: BTreeSet<PartitionId> = self.of.values().flat_map(first).collect();
        all.into_iter().take(max).collect()
    }

    /// All partitions that are behind, bucket by bucket.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, PartitionId, Trail)> {
        self.of.iter().flat_map(|(bucket, behind)| {
            behind
                .iter()
                .map(|(partition, trail)| (*bucket, *partition, *trail))
        })
    }
}
