//! Files and their life: live while a slice of theirs can be read, tombstoned from then on,
//! forgotten once the collector has deleted them everywhere. It must not know partitions.

use std::collections::BTreeMap;
use std::ops::Range;

use super::ordered::Ordered;
use super::short::{Counted, Only, Short, Shortage, buckets};
use super::tombstones::{Tombstone, Tombstones};
use crate::terms::ids::{FileId, Incarnation};
use crate::terms::places::FileRef;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// The random part of its key.
    pub nonce: u32,
    /// Bytes of the whole file.
    pub length: u64,
    /// CRC-32C of the whole file.
    pub checksum: u32,
    pub(crate) home: Home,
    /// Wall time of its commit: its age where no timestamp is to be believed.
    pub(crate) committed_wall_millis: u64,
    /// Slices that can be read.
    pub live_slices: u32,
    /// Bytes of slices that can be read.
    pub live_bytes: u64,
    /// When its last slice went, in ticks.
    pub tombstoned_ticks: Option<u64>,
}

/// Where a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// Bit b: bucket b holds it, as far as is known.
    Buckets(u64),
}

impl Home {
    fn buckets(self) -> impl Iterator<Item = u32> {
        let Home::Buckets(bits) = self;
        buckets(bits)
    }
}

impl File {
    /// Numbers of the buckets that are known to hold the file, increasing.
    pub fn placement(&self) -> impl Iterator<Item = u32> {
        self.home.buckets()
    }

    /// Whether it is live, and a bucket is known to hold it.
    pub(crate) fn is_live_in(&self, bucket: u32) -> bool {
        let Home::Buckets(held) = self.home;
        !self.is_tombstoned() && held & 1_u64.checked_shl(bucket).unwrap_or(0) != 0
    }

    /// What matters for whether it is short of copies.
    fn counted(&self) -> Counted {
        let Home::Buckets(held) = self.home;
        Counted {
            held: if self.is_tombstoned() { u64::MAX } else { held },
            committed_wall_millis: self.committed_wall_millis,
            length: self.length,
        }
    }

    /// Whether nothing in it can be read any more.
    pub fn is_tombstoned(&self) -> bool {
        self.tombstoned_ticks.is_some()
    }
}

/// All files that are not forgotten. A clone shares what is not changed afterwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    files: Ordered<FileId, File>,
    /// The tombstoned ones, and where they are still to be deleted.
    tombstones: Tombstones,
    /// How many files name a bucket; follows from the files.
    in_bucket: BTreeMap<u32, u64>,
    /// The live ones that lack a copy; follows from the files and from where they are to be.
    short: Short,
}

impl Files {
    pub(crate) fn len(&self) -> u64 {
        self.files.len() as u64
    }

    pub(crate) fn get(&self, id: FileId) -> Option<&File> {
        self.files.get(&id)
    }

    /// Adds a file; false if it is there. One without live slices is a tombstone at once.
    pub(crate) fn insert(&mut self, id: FileId, file: File) -> bool {
        self.restore(id, file, self.wherever(&file))
    }

    /// Adds a file that, if it is a tombstone, is still to be deleted from a set of buckets; false if it is there.
    pub(crate) fn restore(&mut self, id: FileId, file: File, left: u64) -> bool {
        if self.files.get(&id).is_some() {
            return false;
        }
        self.files.insert(id, file);
        self.short.add(id, file.counted());
        for bucket in file.placement() {
            *self.in_bucket.entry(bucket).or_default() += 1;
        }
        if let Some(ticks) = file.tombstoned_ticks {
            self.tombstones.add((ticks, id), left);
        }
        true
    }

    /// Where a file may lie, as a set of bits: a copy may have come that nobody was told of.
    fn wherever(&self, file: &File) -> u64 {
        let Home::Buckets(held) = file.home;
        held | self.short.wanted()
    }

    /// Subtracts a dropped slice from its file; true if it was the last one.
    pub(crate) fn release(&mut self, id: FileId, length: u32, ticks: u64) -> bool {
        let Some(file) = self.files.get_mut(&id) else {
            return false;
        };
        file.live_slices = file.live_slices.saturating_sub(1);
        file.live_bytes = file.live_bytes.saturating_sub(u64::from(length));
        if file.live_slices > 0 || file.is_tombstoned() {
            return false;
        }
        self.short.remove(id, file.counted());
        file.tombstoned_ticks = Some(ticks);
        let file = *file;
        self.tombstones.add((ticks, id), self.wherever(&file));
        true
    }

    /// Says in which buckets every file is to be, as a set of bits; true if these are others than before.
    pub(crate) fn want_in(&mut self, wanted: u64) -> bool {
        let files = self.files.iter().map(|(id, file)| (*id, file.counted()));
        self.short.want(wanted, files)
    }

    /// Whether every file is to be in more than one bucket.
    pub(crate) fn are_in_several(&self) -> bool {
        self.short.wanted().count_ones() > 1
    }

    /// Where a file is to be and is not known to be, as a set of bits, live or not.
    pub(crate) fn missed(&self, id: FileId) -> u64 {
        let Some(Home::Buckets(held)) = self.get(id).map(|file| file.home) else {
            return 0;
        };
        self.short.wanted() & !held
    }

    /// Whether a file is live, is to be in a bucket, and is not known to be there.
    pub(crate) fn lacks(&self, id: FileId, bucket: u32) -> bool {
        let bit = 1_u64.checked_shl(bucket).unwrap_or(0);
        let lacked = |file: &File| self.short.wanted() & !file.counted().held & bit != 0;
        self.get(id).is_some_and(lacked)
    }

    /// The live files that only one bucket is known to hold, by that bucket, among those in which every file is to be.
    pub(crate) fn only_copies(&self) -> impl Iterator<Item = (u32, Only)> {
        self.short.only_copies()
    }

    /// Notes that a bucket holds a live file, too. What is tombstoned stays as it is, and so does what is not known: it is to be
    /// deleted wherever it may lie.
    pub(crate) fn add_copy(&mut self, copy: FileRef, bucket: u32) {
        let id = copy.file;
        let known = self.get(id).filter(|file| file.nonce == copy.nonce);
        let Some(Home::Buckets(held)) = known
            .filter(|file| !file.is_tombstoned())
            .map(|file| file.home)
        else {
            return;
        };
        let added = held | 1 << bucket;
        if added == held {
            return;
        }
        if let Some(file) = self.files.get_mut(&id) {
            file.home = Home::Buckets(added);
            self.short.remove_in(bucket, id, file.counted());
            *self.in_bucket.entry(bucket).or_default() += 1;
        }
    }

    /// Notes that a bucket holds no copy of a live file, or a damaged one: it is short there. The last copy that is known stays so. True if
    /// the file is live and known, whether or not it was known to lie there.
    pub(crate) fn drop_copy(&mut self, copy: FileRef, bucket: u32, keeps_last: bool) -> bool {
        let id = copy.file;
        let known = self.get(id).filter(|file| file.nonce == copy.nonce);
        let Some(file) = known.filter(|file| !file.is_tombstoned()).copied() else {
            return false;
        };
        let Home::Buckets(held) = file.home;
        let left = held & !1_u64.checked_shl(bucket).unwrap_or(0);
        if left == held || (left == 0 && keeps_last) {
            return true;
        }
        if let Some(file) = self.files.get_mut(&id) {
            file.home = Home::Buckets(left);
            self.short.add_in(bucket, id, file.counted());
            let files = self.in_bucket.entry(bucket).or_default();
            *files = files.saturating_sub(1);
        }
        true
    }

    /// Live files that a bucket is known to hold, after one of them: those among so many that come next, and the last that was looked at
    /// if there may be more.
    pub(crate) fn held_in(
        &self,
        bucket: u32,
        after: Option<FileId>,
        max: usize,
    ) -> (Vec<(FileId, File)>, Option<FileId>) {
        let from = after.unwrap_or_default();
        let rest = self.files.iter_from(&from);
        let looked_at: Vec<(FileId, File)> = rest
            .map(|(id, file)| (*id, *file))
            .filter(|(id, _)| after != Some(*id))
            .take(max)
            .collect();
        let last = looked_at.last().map(|(id, _)| *id);
        let last = last.filter(|_| looked_at.len() >= max);
        let is_held = |(_, file): &(FileId, File)| file.is_live_in(bucket);
        (looked_at.into_iter().filter(is_held).collect(), last)
    }

    /// The last of the files of an incarnation with one of these numbers that a bucket is known to hold and that is live.
    pub(crate) fn last_in(
        &self,
        bucket: u32,
        incarnation: Incarnation,
        numbers: Range<u64>,
    ) -> Option<(FileId, &File)> {
        numbers
            .rev()
            .filter_map(|number| {
                let id = FileId {
                    incarnation,
                    number,
                };
                Some((id, self.get(id)?))
            })
            .find(|(_, file)| file.is_live_in(bucket))
    }

    /// Live files that a bucket lacks, in the order of their commits, after one of them.
    pub(crate) fn lacking(
        &self,
        bucket: u32,
        after: Option<(u64, FileId)>,
    ) -> impl Iterator<Item = (FileId, &File)> {
        let lacking = self.short.lacking(bucket, after);
        lacking.filter_map(|(_, id)| Some((id, self.get(id)?)))
    }

    /// What each bucket lacks in which every file is to be.
    pub(crate) fn shortages(&self) -> impl Iterator<Item = (u32, Shortage)> {
        self.short.shortages()
    }

    /// Whether a file is among those that are short exactly where it lacks a copy.
    pub(crate) fn is_short_as_known(&self, id: FileId, file: &File) -> bool {
        self.short.agrees(id, file.counted())
    }

    /// A bucket has deleted a file, which is taken as said if it was tombstoned at or before a time in ticks. It is forgotten once
    /// no bucket is left that is not away.
    pub(crate) fn deleted(
        &mut self,
        gone: FileRef,
        bucket: u32,
        tombstoned_until_ticks: u64,
    ) -> bool {
        let id = gone.file;
        let known = self.get(id).filter(|file| file.nonce == gone.nonce);
        let since = known.and_then(|file| file.tombstoned_ticks);
        let Some(since) = since.filter(|since| *since <= tombstoned_until_ticks) else {
            return false;
        };
        if self.tombstones.deleted((since, id), bucket) {
            self.forget(id);
        }
        true
    }

    /// Says whether a bucket is away: nothing waits for it then.
    pub(crate) fn mark(&mut self, bucket: u32, is_away: bool) {
        let bit = 1_u64.checked_shl(bucket).unwrap_or(0);
        match is_away {
            true => self.tombstones.away |= bit,
            false => self.tombstones.away &= !bit,
        }
    }

    /// The buckets that are away, as a set of bits.
    pub(crate) fn away(&self) -> u64 {
        self.tombstones.away
    }

    /// Forgets files that only buckets that are away have not deleted, `max` at most; true if there may be more.
    pub(crate) fn forget_left(&mut self, max: usize) -> bool {
        let left = self.tombstones.take_left(max);
        for (_, id) in &left {
            self.forget(*id);
        }
        !left.is_empty() && left.len() >= max
    }

    fn forget(&mut self, id: FileId) {
        for bucket in self.files.remove(&id).iter().flat_map(File::placement) {
            let files = self.in_bucket.entry(bucket).or_default();
            *files = files.saturating_sub(1);
        }
    }

    /// Files that a bucket is to delete, tombstoned at or before a time in ticks, at most `max`, the oldest tombstones first.
    pub(crate) fn to_delete(&self, bucket: u32, ticks: u64, max: usize) -> Vec<FileRef> {
        let tombstones = self.tombstones.of(bucket);
        let found = tombstones
            .take_while(|(since, _)| *since <= ticks)
            .take(max);
        let named = found.filter_map(|(_, file)| {
            let nonce = self.get(file)?.nonce;
            Some(FileRef { file, nonce })
        });
        named.collect()
    }

    /// Where a file is still to be deleted, as a set of bits; 0 if it is no tombstone.
    pub(crate) fn left_in(&self, id: FileId, file: &File) -> u64 {
        let tombstone: Option<Tombstone> = file.tombstoned_ticks.map(|ticks| (ticks, id));
        tombstone
            .and_then(|tombstone| self.tombstones.left(tombstone))
            .unwrap_or(0)
    }

    /// Whether what each bucket is still to delete is what the tombstones say.
    pub(crate) fn tombstones_agree(&self) -> bool {
        self.tombstones.agrees()
    }

    /// Whether any file that is not forgotten names a bucket.
    pub(crate) fn any_in(&self, bucket: u32) -> bool {
        self.in_bucket.get(&bucket).is_some_and(|files| *files > 0)
    }

    /// Whether any file of an incarnation is not forgotten.
    pub(crate) fn any_of(&self, incarnation: Incarnation) -> bool {
        let number = 0;
        let first = FileId {
            incarnation,
            number,
        };
        let next = self.files.iter_from(&first).next();
        next.is_some_and(|(id, _)| id.incarnation == incarnation)
    }

    /// All files, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (FileId, &File)> {
        self.files.iter().map(|(id, file)| (*id, file))
    }

    /// How many tombstoned files there are.
    pub(crate) fn tombstoned(&self) -> u64 {
        self.tombstones.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(incarnation: u64, number: u64) -> FileId {
        FileId {
            incarnation: Incarnation(incarnation),
            number,
        }
    }

    fn named(file: FileId) -> FileRef {
        FileRef { file, nonce: 9 }
    }

    /// Both buckets that hold it have deleted it.
    fn forget(files: &mut Files, gone: FileRef, until: u64) -> bool {
        let first = files.deleted(gone, 0, until);
        files.deleted(gone, 2, until) && first
    }

    fn file(live_slices: u32) -> File {
        File {
            nonce: 9,
            length: 100,
            checksum: 1,
            home: Home::Buckets(0b101),
            committed_wall_millis: 0,
            live_slices,
            live_bytes: u64::from(live_slices) * 10,
            tombstoned_ticks: (live_slices == 0).then_some(50),
        }
    }

    #[test]
    fn a_file_is_a_tombstone_once_its_last_slice_is_gone_and_collectable_after_the_grace() {
        let mut files = Files::default();
        files.insert(id(1, 0), file(2));
        files.insert(id(1, 300), file(0));
        assert!(!files.release(id(1, 0), 10, 60));
        assert!(files.to_delete(0, 49, 9).is_empty());
        assert!(files.to_delete(1, 50, 9).is_empty(), "it is not there");
        assert_eq!(
            files.to_delete(0, 50, 9),
            [FileRef {
                file: id(1, 300),
                nonce: 9
            }]
        );
        assert!(files.release(id(1, 0), 10, 60));
        assert_eq!(files.to_delete(0, 60, 9).len(), 2);
        assert_eq!(files.to_delete(0, 60, 1).len(), 1);
        assert_eq!(files.tombstoned(), 2);
    }

    #[test]
    fn only_tombstones_past_the_grace_are_forgotten() {
        let mut files = Files::default();
        files.insert(id(1, 5), file(1));
        assert!(!forget(&mut files, named(id(1, 5)), u64::MAX));
        assert!(!forget(&mut files, named(id(2, 5)), u64::MAX));
        assert!(files.release(id(1, 5), 10, 60));
        assert!(!forget(&mut files, named(id(1, 5)), 59));
        let other = FileRef {
            file: id(1, 5),
            nonce: 8,
        };
        assert!(
            !forget(&mut files, other, 60),
            "another object of that number"
        );
        assert!(files.any_of(Incarnation(1)));
        assert!(forget(&mut files, named(id(1, 5)), 60));
        assert!(!forget(&mut files, named(id(1, 5)), 60));
        assert!(!files.any_of(Incarnation(1)));
        assert_eq!(files.len(), 0);
    }

    #[test]
    fn a_live_file_is_short_until_its_last_copy_is_told() {
        let mut files = Files::default();
        files.insert(id(1, 1), file(1));
        files.want_in(0b111);
        files.insert(id(1, 0), file(1));
        files.insert(id(1, 2), file(0));
        let lacking = |files: &Files, after| -> Vec<FileId> {
            files.lacking(1, after).map(|(id, _)| id).collect()
        };
        assert_eq!(lacking(&files, None), [id(1, 0), id(1, 1)]);
        assert_eq!(lacking(&files, Some((0, id(1, 0)))), [id(1, 1)]);
        let shortages = |files: &Files| -> Vec<(u32, u64, u64)> {
            let all = files.shortages();
            all.map(|(bucket, of)| (bucket, of.files, of.bytes))
                .collect()
        };
        assert_eq!(shortages(&files), [(0, 0, 0), (1, 2, 200), (2, 0, 0)]);
        let other = FileRef {
            nonce: 8,
            ..named(id(1, 0))
        };
        files.add_copy(other, 1);
        assert_eq!(
            lacking(&files, None).len(),
            2,
            "another object of that number"
        );
        for _ in 0..2 {
            files.add_copy(named(id(1, 0)), 1);
            assert_eq!(shortages(&files)[1], (1, 1, 100));
        }
        let placed = files.get(id(1, 0)).expect("it is there").placement();
        assert_eq!(placed.collect::<Vec<_>>(), [0, 1, 2]);
        assert!(files.release(id(1, 1), 10, 60));
        assert_eq!(shortages(&files)[1], (1, 0, 0), "it is about to be deleted");
    }

    #[test]
    fn a_copy_that_comes_late_revives_nothing() {
        let mut files = Files::default();
        files.want_in(0b111);
        files.insert(id(1, 2), file(0));
        files.add_copy(named(id(1, 2)), 1);
        files.add_copy(named(id(1, 3)), 1);
        assert_eq!(files.len(), 1);
        assert!(files.get(id(1, 2)).is_some_and(File::is_tombstoned));
        assert!(!files.any_in(1) && files.lacking(1, None).next().is_none());
        assert!(files.deleted(named(id(1, 2)), 1, 50));
        assert!(forget(&mut files, named(id(1, 2)), 50));
        files.add_copy(named(id(1, 2)), 1);
        assert_eq!(files.len(), 0);
    }

    #[test]
    fn placement_names_the_buckets() {
        assert_eq!(file(1).placement().collect::<Vec<_>>(), [0, 2]);
        let mut files = Files::default();
        files.insert(id(1, 5), file(0));
        assert!(files.any_in(0) && !files.any_in(1) && files.any_in(2));
        assert!(forget(&mut files, named(id(1, 5)), 50));
        assert!(!files.any_in(0) && !files.any_in(2));
    }
}
