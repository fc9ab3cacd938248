//! Which partitions are behind in which bucket: it follows from where files lie and which slices they were given, and is kept beside
//! commits, copies and deletions, at a cost in proportion to the slices of the files that these name. No command is judged by it, and
//! no snapshot has it. It must not know how it is asked for.

use std::collections::BTreeMap;

use crate::nouns::behind::Behind;
use crate::nouns::file::File;
use crate::nouns::ordered::Ordered;
use crate::nouns::short::buckets;
use crate::nouns::slice::Slice;
use crate::nouns::spread::{Rows, Spread};
use crate::state::State;
use crate::terms::ids::{FileId, PartitionId};
use crate::terms::places::FileRef;

/// Slices that are looked at with one file, to find the next of a partition that its bucket lacks; the next file goes on from there.
const STEPS_MAX: usize = 16;

impl State {
    /// A file was committed, and these are its slices.
    pub(super) fn spread(&mut self, id: FileId, rows: Rows) {
        let is_dead = |file: &File| file.is_tombstoned();
        if !self.files.are_in_several() || self.files.get(id).is_none_or(is_dead) {
            return;
        }
        let spread = rows.pack();
        for bucket in buckets(self.files.missed(id)) {
            self.fall_behind(bucket, &spread);
        }
        self.spreads.insert(id, spread);
    }

    /// A bucket holds a live file, too.
    pub(super) fn copy_added(&mut self, copy: FileRef, bucket: u32) {
        let lacked = self.files.lacks(copy.file, bucket);
        self.files.add_copy(copy, bucket);
        if lacked
            && !self.files.lacks(copy.file, bucket)
            && let Some(spread) = self.spreads.get(&copy.file).cloned()
        {
            self.catch_up(bucket, &spread);
        }
    }

    /// A bucket holds no copy of a file. True if that is live and known.
    pub(super) fn copy_dropped(&mut self, copy: FileRef, bucket: u32, keeps_last: bool) -> bool {
        let lacked = self.files.lacks(copy.file, bucket);
        let is_known = self.files.drop_copy(copy, bucket, keeps_last);
        if !lacked
            && self.files.lacks(copy.file, bucket)
            && let Some(spread) = self.spreads.get(&copy.file).cloned()
        {
            self.fall_behind(bucket, &spread);
        }
        is_known
    }

    /// A partition has dropped a slice; true if it was the last one of its file.
    pub(super) fn slice_dropped(&mut self, slice: &Slice, ticks_millis: u64) -> bool {
        let is_last = self.files.release(slice.file, slice.length, ticks_millis);
        if is_last && let Some(spread) = self.spreads.remove(&slice.file) {
            for bucket in buckets(self.files.missed(slice.file)) {
                self.catch_up(bucket, &spread);
            }
        }
        is_last
    }

    /// Finds all of it anew, from all slices and files: after a snapshot was read, and once files are to be in other buckets.
    pub(crate) fn spread_anew(&mut self) {
        self.spreads = Ordered::default();
        self.behind = Behind::default();
        if !self.files.are_in_several() {
            return;
        }
        let mut found: BTreeMap<FileId, Rows> = BTreeMap::new();
        for (number, partition) in self.partitions.iter() {
            for slice in partition.slices.iter() {
                let rows = found.entry(slice.file).or_default();
                rows.add(PartitionId(number), slice.base_offset);
            }
        }
        for (id, rows) in found {
            self.spread(id, rows);
        }
    }

    fn fall_behind(&mut self, bucket: u32, spread: &Spread) {
        for (partition, base_offset) in spread.rows() {
            if self.partitions.get(partition.0).is_some() {
                self.behind.add(bucket, partition, base_offset);
            }
        }
    }

    fn catch_up(&mut self, bucket: u32, spread: &Spread) {
        for (id, base_offset) in spread.rows() {
            let Some(trail) = self.behind.take(bucket, id) else {
                continue;
            };
            if trail.is_found && base_offset > trail.from {
                continue;
            }
            let Some(partition) = self.partitions.get(id.0) else {
                continue;
            };
            let (mut from, mut is_found) = (trail.from, false);
            for slice in partition.slices.iter_from(from).take(STEPS_MAX) {
                if self.files.lacks(slice.file, bucket) {
                    (from, is_found) = (from.max(slice.base_offset), true);
                    break;
                }
                from = slice.end();
            }
            self.behind.advance(bucket, id, from, is_found);
        }
    }
}
