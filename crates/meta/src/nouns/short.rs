//! Files that lack a copy in a bucket in which they are to be, found without a walk over all files. It must not know what a
//! file holds, nor how copies are made.

use std::collections::BTreeMap;

use super::ordered::Ordered;
use crate::terms::ids::FileId;

/// Every live file that lacks a copy, by the bucket that lacks it. What is about to be deleted is not among them. A clone shares
/// what is not changed afterwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Short {
    /// Bit b: every file is to be in bucket b.
    wanted: u64,
    lacking: BTreeMap<u32, Lacking>,
}

/// What one bucket lacks.
#[derive(Clone, Debug, Default)]
struct Lacking {
    /// In the order of their commits, so that those that have been short for longest come first.
    files: Ordered<(u64, FileId), ()>,
    bytes: u64,
}

/// What matters of a file here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    /// Bit b: bucket b holds it, or need not, since it is about to be deleted.
    pub(crate) held: u64,
    pub(crate) committed_wall_millis: u64,
    pub(crate) length: u64,
}

/// How many files lack a copy in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Shortage {
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Wall time of the commit of the oldest of them.
    pub oldest_wall_millis: Option<u64>,
}

impl Short {
    /// Says in which buckets every file is to be, and counts anew if these are others than before.
    pub(crate) fn want(&mut self, wanted: u64, files: impl Iterator<Item = (FileId, Counted)>) {
        if wanted == self.wanted {
            return;
        }
        *self = Short {
            wanted,
            lacking: BTreeMap::new(),
        };
        for (id, file) in files {
            self.add(id, file);
        }
    }

    /// In which buckets every file is to be, as a set of bits.
    pub(crate) fn wanted(&self) -> u64 {
        self.wanted
    }

    /// Adds a file wherever it lacks a copy.
    pub(crate) fn add(&mut self, id: FileId, file: Counted) {
        for bucket in buckets(self.wanted & !file.held) {
            self.add_in(bucket, id, file);
        }
    }

    /// Adds a file that one bucket lacks, if it is to be there.
    pub(crate) fn add_in(&mut self, bucket: u32, id: FileId, file: Counted) {
        if buckets(self.wanted & !file.held).all(|lacked| lacked != bucket) {
            return;
        }
        let lacking = self.lacking.entry(bucket).or_default();
        let key = (file.committed_wall_millis, id);
        if lacking.files.insert(key, ()).is_none() {
            lacking.bytes = lacking.bytes.saturating_add(file.length);
        }
    }

    /// Takes a file out, as it was while it was live: it is about to be deleted.
    pub(crate) fn remove(&mut self, id: FileId, file: Counted) {
        for bucket in buckets(self.wanted & !file.held) {
            self.remove_in(bucket, id, file);
        }
    }

    /// Takes a file out that one bucket holds now.
    pub(crate) fn remove_in(&mut self, bucket: u32, id: FileId, file: Counted) {
        let Some(lacking) = self.lacking.get_mut(&bucket) else {
            return;
        };
        let key = (file.committed_wall_millis, id);
        if lacking.files.remove(&key).is_some() {
            lacking.bytes = lacking.bytes.saturating_sub(file.length);
        }
    }

    /// The files that a bucket lacks, in the order of their commits, after one of them.
    pub(crate) fn lacking(
        &self,
        bucket: u32,
        after: Option<(u64, FileId)>,
    ) -> impl Iterator<Item = (u64, FileId)> {
        let from = after.unwrap_or_default();
        let files = self.lacking.get(&bucket).map(|lacking| &lacking.files);
        let rest = files.into_iter().flat_map(move |files| {
            let rest = files.iter_from(&from);
            rest.map(|(key, ())| *key)
        });
        rest.skip_while(move |key| after == Some(*key))
    }

    /// What each bucket lacks in which every file is to be.
    pub(crate) fn shortages(&self) -> impl Iterator<Item = (u32, Shortage)> {
        buckets(self.wanted).map(|bucket| {
            let of = |lacking: &Lacking| Shortage {
                files: u64::try_from(lacking.files.len()).unwrap_or(u64::MAX),
                bytes: lacking.bytes,
                oldest_wall_millis: lacking.files.iter().next().map(|((wall, _), ())| *wall),
            };
            let shortage = self.lacking.get(&bucket).map_or_else(Shortage::default, of);
            (bucket, shortage)
        })
    }

    /// Whether a file is among those that are short exactly where it lacks a copy.
    pub(crate) fn agrees(&self, id: FileId, file: Counted) -> bool {
        let key = (file.committed_wall_millis, id);
        let lacked = self.wanted & !file.held;
        let is_so = |(bucket, lacking): (&u32, &Lacking)| {
            lacking.files.get(&key).is_some() == (lacked & (1 << *bucket) != 0)
        };
        self.lacking.iter().all(is_so)
            && buckets(lacked).all(|bucket| self.lacking.contains_key(&bucket))
    }
}

/// The numbers of the buckets in a set.
pub(crate) fn buckets(bits: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bucket| bits & (1 << bucket) != 0)
}
