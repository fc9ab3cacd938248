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
    /// Of files that are to be in several buckets and are known to be in one.
    only: BTreeMap<u32, Only>,
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

/// The live files that only one bucket is known to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Only {
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
}

impl Short {
    /// Says in which buckets every file is to be, and counts anew if these are others than before; true if they are.
    pub(crate) fn want(
        &mut self,
        wanted: u64,
        files: impl Iterator<Item = (FileId, Counted)>,
    ) -> bool {
        if wanted == self.wanted {
            return false;
        }
        *self = Short {
            wanted,
            lacking: BTreeMap::new(),
            only: BTreeMap::new(),
        };
        for (id, file) in files {
            self.add(id, file);
        }
        true
    }

    /// In which buckets every file is to be, as a set of bits.
    pub(crate) fn wanted(&self) -> u64 {
        self.wanted
    }

    /// Adds a file wherever it lacks a copy.
    pub(crate) fn add(&mut self, id: FileId, file: Counted) {
        for bucket in buckets(self.wanted & !file.held) {
            self.lack(bucket, id, file);
        }
        self.count_only(file.held, file.length);
    }

    /// Adds a file that one bucket does not hold any more, if it is to be there.
    pub(crate) fn add_in(&mut self, bucket: u32, id: FileId, file: Counted) {
        let bit = 1_u64.checked_shl(bucket).unwrap_or(0);
        if self.wanted & !file.held & bit == 0 {
            return;
        }
        self.discount_only(file.held | bit, file.length);
        self.count_only(file.held, file.length);
        self.lack(bucket, id, file);
    }

    fn lack(&mut self, bucket: u32, id: FileId, file: Counted) {
        let lacking = self.lacking.entry(bucket).or_default();
        let key = (file.committed_wall_millis, id);
        if lacking.files.insert(key, ()).is_none() {
            lacking.bytes = lacking.bytes.saturating_add(file.length);
        }
    }

    /// Takes a file out, as it was while it was live: it is about to be deleted.
    pub(crate) fn remove(&mut self, id: FileId, file: Counted) {
        for bucket in buckets(self.wanted & !file.held) {
            self.have(bucket, id, file);
        }
        self.discount_only(file.held, file.length);
    }

    /// Takes a file out that one bucket holds now.
    pub(crate) fn remove_in(&mut self, bucket: u32, id: FileId, file: Counted) {
        let bit = 1_u64.checked_shl(bucket).unwrap_or(0);
        if self.wanted & bit == 0 {
            return;
        }
        self.discount_only(file.held & !bit, file.length);
        self.count_only(file.held, file.length);
        self.have(bucket, id, file);
    }

    fn have(&mut self, bucket: u32, id: FileId, file: Counted) {
        let Some(lacking) = self.lacking.get_mut(&bucket) else {
            return;
        };
        let key = (file.committed_wall_millis, id);
        if lacking.files.remove(&key).is_some() {
            lacking.bytes = lacking.bytes.saturating_sub(file.length);
        }
    }

    /// The bucket that alone holds a file, if that is to be in several.
    pub(crate) fn only_holder(&self, held: u64) -> Option<u32> {
        let here = self.wanted & held;
        let is_alone = here.count_ones() == 1 && self.wanted.count_ones() > 1;
        is_alone.then(|| here.trailing_zeros())
    }

    fn count_only(&mut self, held: u64, length: u64) {
        if let Some(bucket) = self.only_holder(held) {
            let only = self.only.entry(bucket).or_default();
            only.files += 1;
            only.bytes = only.bytes.saturating_add(length);
        }
    }

    fn discount_only(&mut self, held: u64, length: u64) {
        if let Some(bucket) = self.only_holder(held) {
            let only = self.only.entry(bucket).or_default();
            only.files = only.files.saturating_sub(1);
            only.bytes = only.bytes.saturating_sub(length);
        }
    }

    /// The files that only one bucket is known to hold, by each bucket in which every file is to be.
    pub(crate) fn only_copies(&self) -> impl Iterator<Item = (u32, Only)> {
        buckets(self.wanted)
            .map(|bucket| (bucket, self.only.get(&bucket).copied().unwrap_or_default()))
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
