//! Files of which nothing can be read any more, and from which buckets each is still to be deleted: every bucket is rid of them at its
//! own pace. One that is away holds up no other, and a file is forgotten without it. It must not know files.

use std::collections::BTreeMap;

use super::ordered::Ordered;
use super::short::buckets;
use crate::terms::ids::FileId;

/// When a file was tombstoned, in ticks, and its id: the oldest first.
pub(crate) type Tombstone = (u64, FileId);

/// All tombstones. A clone shares what is not changed afterwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tombstones {
    /// Bit b: it is to be deleted from bucket b.
    all: Ordered<Tombstone, u64>,
    /// The same by bucket; follows from `all`.
    in_bucket: BTreeMap<u32, Ordered<Tombstone, ()>>,
    /// Bit b: bucket b is away, and nothing waits for it.
    pub(crate) away: u64,
}

impl Tombstones {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// A file is to be deleted from a set of buckets.
    pub(crate) fn add(&mut self, tombstone: Tombstone, from: u64) {
        self.all.insert(tombstone, from);
        for bucket in buckets(from) {
            let tombstones = self.in_bucket.entry(bucket).or_default();
            tombstones.insert(tombstone, ());
        }
    }

    /// From which buckets it is still to be deleted, as a set of bits.
    pub(crate) fn left(&self, tombstone: Tombstone) -> Option<u64> {
        self.all.get(&tombstone).copied()
    }

    /// A bucket has deleted it; true if nothing is to be waited for any more, and it is a tombstone no longer.
    pub(crate) fn deleted(&mut self, tombstone: Tombstone, bucket: u32) -> bool {
        let Some(left) = self.all.get_mut(&tombstone) else {
            return false;
        };
        *left &= !1_u64.checked_shl(bucket).unwrap_or(0);
        let is_over = *left & !self.away == 0;
        if let Some(tombstones) = self.in_bucket.get_mut(&bucket) {
            tombstones.remove(&tombstone);
        }
        if is_over {
            self.remove(tombstone);
        }
        is_over
    }

    fn remove(&mut self, tombstone: Tombstone) {
        let left = self.all.remove(&tombstone).unwrap_or(0);
        for bucket in buckets(left) {
            if let Some(tombstones) = self.in_bucket.get_mut(&bucket) {
                tombstones.remove(&tombstone);
            }
        }
    }

    /// What is to be deleted from a bucket, the oldest first.
    pub(crate) fn of(&self, bucket: u32) -> impl Iterator<Item = Tombstone> {
        let tombstones = self.in_bucket.get(&bucket).into_iter();
        tombstones.flat_map(|tombstones| tombstones.iter().map(|(tombstone, ())| *tombstone))
    }

    /// Takes out tombstones that are left only in buckets that are away, `max` at most. They are the oldest there: others are
    /// deleted in the same order.
    pub(crate) fn take_left(&mut self, max: usize) -> Vec<Tombstone> {
        let is_left = |tombstone: &Tombstone| {
            let left = self.left(*tombstone);
            left.is_some_and(|left| left & !self.away == 0)
        };
        let mut taken = Vec::new();
        for bucket in buckets(self.away) {
            let room = max.saturating_sub(taken.len());
            taken.extend(self.of(bucket).take_while(is_left).take(room));
        }
        taken.sort_unstable();
        taken.dedup();
        for tombstone in &taken {
            self.remove(*tombstone);
        }
        taken
    }

    /// Whether what each bucket is still to delete is what the tombstones say.
    pub(crate) fn agrees(&self) -> bool {
        let bits: u64 = self
            .all
            .iter()
            .map(|(_, left)| u64::from(left.count_ones()))
            .sum();
        let listed: usize = self.in_bucket.values().map(Ordered::len).sum();
        let is_listed = |(tombstone, left): (&Tombstone, &u64)| {
            let is_in = |bucket: u32| {
                let tombstones = self.in_bucket.get(&bucket);
                tombstones.is_some_and(|tombstones| tombstones.get(tombstone).is_some())
            };
            *left != 0 && buckets(*left).all(is_in)
        };
        u64::try_from(listed) == Ok(bits) && self.all.iter().all(is_listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::ids::Incarnation;

    fn tombstone(ticks: u64) -> Tombstone {
        let incarnation = Incarnation(1);
        let number = ticks;
        (
            ticks,
            FileId {
                incarnation,
                number,
            },
        )
    }

    fn case() -> Tombstones {
        let mut tombstones = Tombstones::default();
        (1..=4).for_each(|ticks| tombstones.add(tombstone(ticks), 0b111));
        tombstones
    }

    #[test]
    fn each_bucket_is_rid_of_it_by_itself_and_it_is_over_once_all_are() {
        let mut tombstones = case();
        assert!(!tombstones.deleted(tombstone(1), 0));
        assert!(!tombstones.deleted(tombstone(1), 0), "told twice");
        assert!(!tombstones.deleted(tombstone(1), 64));
        assert_eq!(tombstones.of(0).next(), Some(tombstone(2)));
        assert_eq!(tombstones.of(1).next(), Some(tombstone(1)));
        assert!(!tombstones.deleted(tombstone(1), 1));
        assert!(tombstones.deleted(tombstone(1), 2));
        assert!(!tombstones.deleted(tombstone(1), 2));
        assert!(tombstones.len() == 3 && tombstones.agrees());
    }

    #[test]
    fn nothing_waits_for_a_bucket_that_is_away() {
        let mut tombstones = case();
        for ticks in 1..=3 {
            tombstones.deleted(tombstone(ticks), 0);
        }
        tombstones.deleted(tombstone(1), 2);
        tombstones.deleted(tombstone(2), 2);
        assert_eq!(tombstones.take_left(9), []);
        tombstones.away = 0b010;
        assert!(tombstones.deleted(tombstone(3), 2));
        assert_eq!(tombstones.take_left(1), [tombstone(1)]);
        assert_eq!(tombstones.take_left(9), [tombstone(2)]);
        assert_eq!(tombstones.take_left(9), []);
        assert!(tombstones.len() == 1 && tombstones.agrees());
        tombstones.away = 0;
        tombstones.deleted(tombstone(4), 0);
        assert!(!tombstones.deleted(tombstone(4), 2), "it is back");
        assert!(tombstones.deleted(tombstone(4), 1));
        assert!(tombstones.len() == 0 && tombstones.agrees());
    }
}
