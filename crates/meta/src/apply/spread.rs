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
/// Slices of files that were copied, 16 bytes each, that are put in order together.
const ROWS_MAX: usize = 65_536;

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

    /// A bucket holds these live files, too; those that are not known are passed over.
    pub(super) fn copies_added<'a>(
        &mut self,
        bucket: u32,
        files: impl IntoIterator<Item = &'a FileRef>,
    ) {
        let mut rows = Vec::new();
        for copy in files {
            let lacked = self.files.lacks(copy.file, bucket);
            self.files.add_copy(*copy, bucket);
            if lacked
                && !self.files.lacks(copy.file, bucket)
                && let Some(spread) = self.spreads.get(&copy.file)
            {
                rows.extend(spread.rows());
            }
            if rows.len() >= ROWS_MAX {
                rows.sort_unstable();
                self.catch_up(bucket, &rows);
                rows.clear();
            }
        }
        rows.sort_unstable();
        self.catch_up(bucket, &rows);
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
            let mut rows: Vec<(PartitionId, i64)> = spread.rows().collect();
            rows.sort_unstable();
            for bucket in buckets(self.files.missed(slice.file)) {
                self.catch_up(bucket, &rows);
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

    /// A bucket lacks some files less that had slices at these rows, which are sorted: each partition is looked at once.
    fn catch_up(&mut self, bucket: u32, rows: &[(PartitionId, i64)]) {
        for of_one in rows.chunk_by(|(one, _), (other, _)| one == other) {
            if let Some((id, first)) = of_one.first() {
                self.catch_up_in(bucket, *id, *first, of_one.len());
            }
        }
    }

    /// A bucket lacks so many files less in which a partition has slices, of which the first begins at an offset.
    fn catch_up_in(&mut self, bucket: u32, id: PartitionId, first: i64, files: usize) {
        let taken = u64::try_from(files).unwrap_or(u64::MAX);
        let Some(trail) = self.behind.take(bucket, id, taken) else {
            return;
        };
        if trail.is_found && first > trail.from {
            return;
        }
        let Some(partition) = self.partitions.get(id.0) else {
            return;
        };
        let steps = files.saturating_mul(STEPS_MAX);
        let (mut from, mut is_found) = (trail.from, false);
        for slice in partition.slices.iter_from(from).take(steps) {
            if self.files.lacks(slice.file, bucket) {
                (from, is_found) = (from.max(slice.base_offset), true);
                break;
            }
            from = slice.end();
        }
        self.behind.advance(bucket, id, from, is_found);
    }
}
