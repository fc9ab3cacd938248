//! The slices of one partition, in offset order: appended at the end, dropped at the start. Whole
//! blocks of them are packed and shared, so that cloning ten million slices copies pointers, and any
//! block could be put in the place of others. Offsets need not follow on one another. It must not
//! know files' life cycle or topics.

use std::collections::VecDeque;
use std::sync::Arc;

use super::block::{self, Block};
use super::slice::Slice;
use crate::terms::level::Level;

/// Slices: what is left of a first block, whole blocks, and those that do not fill a block yet.
/// Where blocks begin is part of the state: all replicas cut them alike, and snapshots keep it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slices {
    front: VecDeque<Slice>,
    blocks: VecDeque<Arc<Block>>,
    open: Vec<Slice>,
    len: u64,
    bytes: u64,
}

impl Slices {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of all slices.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn push(&mut self, level: &Level, slice: Slice) {
        self.open.push(slice);
        self.len += 1;
        self.bytes = self.bytes.saturating_add(u64::from(slice.length));
        if self.open.len() >= level.block_slices {
            self.blocks
                .extend(Block::pack(self.open.iter()).map(Arc::new));
            self.open.clear();
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<Slice> {
        if self.front.is_empty()
            && let Some(block) = self.blocks.pop_front()
        {
            self.front = block.iter().collect();
        }
        let slice = match self.front.pop_front() {
            Some(slice) => slice,
            None if self.open.is_empty() => return None,
            None => self.open.remove(0),
        };
        self.len -= 1;
        self.bytes = self.bytes.saturating_sub(u64::from(slice.length));
        Some(slice)
    }

    pub(crate) fn first(&self) -> Option<Slice> {
        self.iter().next()
    }

    pub(crate) fn last(&self) -> Option<Slice> {
        let block = || self.blocks.back()?.iter().last();
        let last = self.open.last().copied().or_else(block);
        last.or_else(|| self.front.back().copied())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Slice> {
        self.iter_from(i64::MIN)
    }

    /// The slices that end after an offset.
    pub(crate) fn iter_from(&self, offset: i64) -> impl Iterator<Item = Slice> {
        let before = |slice: &Slice| slice.end() <= offset;
        // Most readers are at the end, or in the last slice.
        let in_open = match (self.open.first(), self.open.last()) {
            (Some(_), Some(last)) if last.base_offset <= offset => {
                Some(self.open.len() - usize::from(!before(last)))
            }
            (Some(first), Some(_)) if first.base_offset <= offset => {
                Some(self.open.partition_point(before))
            }
            _ => None,
        };
        let in_blocks = match in_open {
            Some(_) => self.blocks.len(),
            None => self.blocks.partition_point(|block| block.end <= offset),
        };
        let in_front = if in_blocks > 0 || in_open.is_some() {
            self.front.len()
        } else {
            0
        };
        let front = self.front.range(in_front..).copied();
        let blocks = self
            .blocks
            .range(in_blocks..)
            .flat_map(|block| block.iter());
        let open = self.open.iter().skip(in_open.unwrap_or(0)).copied();
        front
            .chain(blocks)
            .chain(open)
            .skip_while(move |slice| slice.end() <= offset)
    }

    /// The first slice with a timestamp at or after a time.
    pub(crate) fn at_or_after_timestamp(&self, timestamp: i64) -> Option<Slice> {
        let late = |slice: &Slice| slice.max_timestamp >= timestamp;
        let mut blocks = self.blocks.iter();
        let in_block = || {
            let block = blocks.find(|block| block.max_timestamp >= timestamp)?;
            block.iter().find(late)
        };
        let found = self.front.iter().copied().find(late).or_else(in_block);
        found.or_else(|| self.open.iter().copied().find(late))
    }

    /// The first slice that has the largest timestamp.
    pub(crate) fn max_timestamp(&self) -> Option<Slice> {
        let blocks = self.blocks.iter().map(|block| block.max_timestamp);
        let others = self.front.iter().chain(&self.open);
        let largest = blocks
            .chain(others.map(|slice| slice.max_timestamp))
            .max()?;
        self.at_or_after_timestamp(largest)
    }

    /// Whole blocks, what is left of the first one included.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Arc<Block>> {
        let front = Block::pack(self.front.iter()).map(Arc::new);
        front.into_iter().chain(self.blocks.iter().map(Arc::clone))
    }

    /// Those that do not fill a block yet, as a block is packed; empty if there are none.
    pub(crate) fn open(&self) -> Vec<u8> {
        block::pack(self.open.iter())
    }

    /// Adds whole blocks as a snapshot has them; false if they are not after one another.
    pub(crate) fn restore_block(&mut self, block: Block) -> bool {
        let end = self.blocks.back().map_or(i64::MIN, |last| last.end);
        let follows = end <= block.base_offset;
        self.len += block.slices;
        self.bytes = self.bytes.saturating_add(block.bytes);
        self.blocks.push_back(Arc::new(block));
        follows
    }

    /// Adds those that do not fill a block as a snapshot has them; false if they fill one.
    pub(crate) fn restore_open(&mut self, level: &Level, block: &Block) -> bool {
        self.open = block.iter().collect();
        self.len += block.slices;
        self.bytes = self.bytes.saturating_add(block.bytes);
        self.open.len() < level.block_slices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::ids::{FileId, Incarnation};
    use crate::terms::level::one::LEVEL as ONE;

    fn slice(number: u64) -> Slice {
        let base_offset = i64::try_from(number).expect("small") * 10;
        Slice {
            file: FileId {
                incarnation: Incarnation(1),
                number,
            },
            position: 0,
            base_offset,
            max_timestamp: (base_offset * 7) % 1_000,
            time_source: crate::terms::commit::TimeSource::Records,
            length: 5,
            span: 10,
        }
    }

    fn filled(range: std::ops::Range<u64>) -> Slices {
        let mut slices = Slices::default();
        for number in range {
            slices.push(&ONE, slice(number));
        }
        slices
    }

    /// The same slices as a snapshot gives them back.
    fn restored(slices: &Slices) -> Slices {
        let mut restored = Slices::default();
        for block in slices.blocks() {
            let block = Block::read(&ONE, block.packed().clone()).expect("it was packed");
            assert!(restored.restore_block(block));
        }
        if let Some(open) = Block::read(&ONE, slices.open().into()) {
            assert!(restored.restore_open(&ONE, &open));
        }
        restored
    }

    #[test]
    fn drops_from_the_start_and_finds_by_offset() {
        let mut slices = filled(0..1_000);
        for number in 0..700 {
            assert_eq!(slices.pop_front(), Some(slice(number)));
        }
        assert_eq!((slices.len(), slices.bytes()), (300, 1_500));
        assert_eq!(slices.first(), Some(slice(700)));
        assert_eq!(slices.last(), Some(slice(999)));
        let found = |offset| slices.iter_from(offset).next();
        assert_eq!(found(0), Some(slice(700)));
        assert_eq!(found(7_009), Some(slice(700)));
        assert_eq!(found(7_010), Some(slice(701)));
        assert_eq!(found(9_999), Some(slice(999)));
        assert_eq!(found(10_000), None);
        assert_eq!(slices.iter().count(), 300);
        assert_eq!(slices.iter_from(9_000).count(), 100);
    }

    #[test]
    fn a_snapshot_keeps_where_blocks_begin() {
        let mut slices = filled(0..333);
        for _ in 0..201 {
            slices.pop_front();
        }
        let mut again = restored(&slices);
        assert!(again.iter().eq(slices.iter()));
        assert_eq!((again.len(), again.bytes()), (132, 660));
        for number in 333..500 {
            slices.push(&ONE, slice(number));
            again.push(&ONE, slice(number));
            assert_eq!(slices.pop_front(), again.pop_front());
            let digests = |slices: &Slices| -> Vec<_> {
                slices.blocks().map(|block| *block.digest()).collect()
            };
            assert_eq!(digests(&slices), digests(&again));
            assert_eq!(slices.open(), again.open());
        }
    }

    #[test]
    fn empties_and_fills_again_across_block_borders() {
        let mut slices = Slices::default();
        for number in 0..600 {
            slices.push(&ONE, slice(number));
            if number % 3 != 0 {
                assert_eq!(slices.pop_front().map(|slice| slice.span), Some(10));
            }
        }
        while slices.pop_front().is_some() {}
        assert_eq!((slices.len(), slices.bytes()), (0, 0));
        assert_eq!((slices.first(), slices.last()), (None, None));
        slices.push(&ONE, slice(600));
        assert_eq!(slices.first(), Some(slice(600)));
    }

    #[test]
    fn finds_by_timestamp_among_those_that_are_left() {
        let mut slices = filled(0..500);
        for _ in 0..150 {
            slices.pop_front();
        }
        let naive = |time| slices.iter().find(|slice| slice.max_timestamp >= time);
        for time in [-1, 0, 1, 500, 989, 990, 991, 2_000] {
            assert_eq!(slices.at_or_after_timestamp(time), naive(time), "{time}");
        }
        let largest = slices.iter().map(|slice| slice.max_timestamp).max();
        let found = slices.max_timestamp().map(|slice| slice.max_timestamp);
        assert_eq!(found, largest);
    }

    #[test]
    fn offsets_that_nothing_holds_lead_to_the_next_slice() {
        let mut slices = Slices::default();
        for number in (0..600).filter(|number| !(120..300).contains(number)) {
            slices.push(&ONE, slice(number));
        }
        let found = |offset| slices.iter_from(offset).next();
        assert_eq!(found(1_199), Some(slice(119)));
        assert_eq!(found(1_200), Some(slice(300)));
        assert_eq!(found(2_999), Some(slice(300)));
        assert!(restored(&slices).iter().eq(slices.iter()));
    }
}
