//! Files and their life: live while a slice of theirs can be read, tombstoned from then on,
//! forgotten once the collector has deleted them everywhere. It must not know partitions.

use std::collections::BTreeMap;

use super::ordered::Ordered;
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
    /// Bit b: bucket b held it when it was committed.
    Buckets(u64),
}

impl Home {
    fn buckets(self) -> impl Iterator<Item = u32> {
        let Home::Buckets(bits) = self;
        (0..u64::BITS).filter(move |bucket| bits & (1 << bucket) != 0)
    }
}

impl File {
    /// Numbers of the buckets that held the file when it was committed, increasing.
    pub fn placement(&self) -> impl Iterator<Item = u32> {
        self.home.buckets()
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
    /// The tombstoned ones by the ticks of that; follows from the files.
    tombstones: Ordered<(u64, FileId), ()>,
    /// How many files name a bucket; follows from the files.
    in_bucket: BTreeMap<u32, u64>,
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
        if self.files.get(&id).is_some() {
            return false;
        }
        self.files.insert(id, file);
        for bucket in file.placement() {
            *self.in_bucket.entry(bucket).or_default() += 1;
        }
        if let Some(ticks) = file.tombstoned_ticks {
            self.tombstones.insert((ticks, id), ());
        }
        true
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
        file.tombstoned_ticks = Some(ticks);
        self.tombstones.insert((ticks, id), ());
        true
    }

    /// Forgets a file if it was tombstoned at or before a time in ticks.
    pub(crate) fn forget(&mut self, gone: FileRef, tombstoned_until_ticks: u64) -> bool {
        let id = gone.file;
        let known = self.get(id).filter(|file| file.nonce == gone.nonce);
        let since = known.and_then(|file| file.tombstoned_ticks);
        let Some(since) = since.filter(|since| *since <= tombstoned_until_ticks) else {
            return false;
        };
        self.tombstones.remove(&(since, id));
        for bucket in self.files.remove(&id).iter().flat_map(File::placement) {
            let files = self.in_bucket.entry(bucket).or_default();
            *files = files.saturating_sub(1);
        }
        true
    }

    /// Files tombstoned at or before a time in ticks, at most `max`, the oldest tombstones first.
    pub(crate) fn tombstoned_until(&self, ticks: u64, max: usize) -> Vec<FileRef> {
        let tombstones = self.tombstones.iter().map(|(tombstone, ())| *tombstone);
        let found = tombstones
            .take_while(|(since, _)| *since <= ticks)
            .take(max);
        let named = found.filter_map(|(_, file)| {
            let nonce = self.get(file)?.nonce;
            Some(FileRef { file, nonce })
        });
        named.collect()
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
        assert!(files.tombstoned_until(49, 9).is_empty());
        assert_eq!(
            files.tombstoned_until(50, 9),
            [FileRef {
                file: id(1, 300),
                nonce: 9
            }]
        );
        assert!(files.release(id(1, 0), 10, 60));
        assert_eq!(files.tombstoned_until(60, 9).len(), 2);
        assert_eq!(files.tombstoned_until(60, 1).len(), 1);
        assert_eq!(files.tombstoned(), 2);
    }

    #[test]
    fn only_tombstones_past_the_grace_are_forgotten() {
        let mut files = Files::default();
        files.insert(id(1, 5), file(1));
        assert!(!files.forget(named(id(1, 5)), u64::MAX));
        assert!(!files.forget(named(id(2, 5)), u64::MAX));
        assert!(files.release(id(1, 5), 10, 60));
        assert!(!files.forget(named(id(1, 5)), 59));
        let other = FileRef {
            file: id(1, 5),
            nonce: 8,
        };
        assert!(!files.forget(other, 60), "another object of that number");
        assert!(files.any_of(Incarnation(1)));
        assert!(files.forget(named(id(1, 5)), 60));
        assert!(!files.forget(named(id(1, 5)), 60));
        assert!(!files.any_of(Incarnation(1)));
        assert_eq!(files.len(), 0);
    }

    #[test]
    fn placement_names_the_buckets() {
        assert_eq!(file(1).placement().collect::<Vec<_>>(), [0, 2]);
        let mut files = Files::default();
        files.insert(id(1, 5), file(0));
        assert!(files.any_in(0) && !files.any_in(1) && files.any_in(2));
        assert!(files.forget(named(id(1, 5)), 50));
        assert!(!files.any_in(0) && !files.any_in(2));
    }
}
