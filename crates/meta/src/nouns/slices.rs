//! The slices of one partition, in offset order: appended at the end, dropped at the start, never
//! changed. Kept in shared blocks, so that cloning ten million of them copies pointers. It must
//! not know files' life cycle or topics.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::terms::ids::FileId;
use crate::terms::places::SlicePlace;

/// Slices per block. Small enough that copying the last block after a snapshot is cheap, large
/// enough that a block's own memory does not show.
const BLOCK: u64 = 128;

/// The contiguous batches of one partition inside one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) file: FileId,
    /// First byte in the file.
    pub(crate) position: u64,
    pub(crate) base_offset: i64,
    pub(crate) max_timestamp: i64,
    /// Bytes.
    pub(crate) length: u32,
    /// Offsets covered: at least 1.
    pub(crate) span: u32,
}

impl Slice {
    /// The offset after the slice.
    pub(crate) fn end(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.span))
    }

    /// Where it lies, with what its file says of itself.
    pub(crate) fn place(&self, nonce: u32, file_length: u64) -> SlicePlace {
        SlicePlace {
            file: self.file,
            nonce,
            file_length,
            position: self.position,
            length: self.length,
            base_offset: self.base_offset,
            last_offset: self.end().saturating_sub(1),
            max_timestamp: self.max_timestamp,
        }
    }
}

#[derive(Clone, Debug)]
struct Block {
    slices: Vec<Slice>,
    /// Of all slices ever in the block.
    max_timestamp: i64,
}

impl Block {
    fn with_capacity(slices: usize) -> Self {
        Block {
            slices: Vec::with_capacity(slices),
            max_timestamp: i64::MIN,
        }
    }
}

/// Slices, numbered by *ordinals*: how many the partition ever had before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slices {
    /// The first holds the slice `first`, or would.
    blocks: VecDeque<Arc<Block>>,
    first: u64,
    next: u64,
    bytes: u64,
}

impl Slices {
    /// No slices, the next of which has an ordinal.
    pub(crate) fn starting_at(ordinal: u64) -> Self {
        let mut slices = Slices {
            first: ordinal,
            next: ordinal,
            ..Slices::default()
        };
        let missing = usize::try_from(ordinal % BLOCK).unwrap_or(0);
        if missing > 0 {
            // Ordinals tell where in its block a slice is, so the dropped ones need a place.
            let slices_dropped = vec![Slice::PLACEHOLDER; missing];
            let block = Block {
                slices: slices_dropped,
                max_timestamp: i64::MIN,
            };
            slices.blocks.push_back(Arc::new(block));
        }
        slices
    }

    pub(crate) fn len(&self) -> u64 {
        self.next - self.first
    }

    /// The ordinal of the first slice.
    pub(crate) fn first_ordinal(&self) -> u64 {
        self.first
    }

    /// Bytes of all slices.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn push(&mut self, slice: Slice) {
        if self.next.is_multiple_of(BLOCK) || self.blocks.is_empty() {
            // A partition that has filled a block fills another: no need to grow by doubling.
            let full = usize::try_from(BLOCK).unwrap_or(0);
            let capacity = if self.blocks.is_empty() { 0 } else { full };
            self.blocks
                .push_back(Arc::new(Block::with_capacity(capacity)));
        }
        if let Some(block) = self.blocks.back_mut() {
            let block = Arc::make_mut(block);
            block.slices.push(slice);
            block.max_timestamp = block.max_timestamp.max(slice.max_timestamp);
        }
        self.bytes = self.bytes.saturating_add(u64::from(slice.length));
        self.next += 1;
    }

    pub(crate) fn pop_front(&mut self) -> Option<Slice> {
        let slice = *self.first()?;
        self.first += 1;
        self.bytes = self.bytes.saturating_sub(u64::from(slice.length));
        if self.first.is_multiple_of(BLOCK) {
            self.blocks.pop_front();
        }
        Some(slice)
    }

    pub(crate) fn first(&self) -> Option<&Slice> {
        self.get(self.first)
    }

    pub(crate) fn last(&self) -> Option<&Slice> {
        self.get(self.next.checked_sub(1)?)
    }

    pub(crate) fn get(&self, ordinal: u64) -> Option<&Slice> {
        if ordinal < self.first || ordinal >= self.next {
            return None;
        }
        let block = usize::try_from(ordinal / BLOCK - self.first / BLOCK).ok()?;
        let slot = usize::try_from(ordinal % BLOCK).ok()?;
        self.blocks.get(block)?.slices.get(slot)
    }

    /// The slices from an ordinal onward.
    pub(crate) fn iter_from(&self, ordinal: u64) -> impl Iterator<Item = &Slice> {
        let from = ordinal.max(self.first);
        let skip_blocks = usize::try_from(from / BLOCK - self.first / BLOCK).unwrap_or(usize::MAX);
        let skip = usize::try_from(from % BLOCK).unwrap_or(0);
        let blocks = self.blocks.iter().skip(skip_blocks).enumerate();
        blocks.flat_map(move |(at, block)| block.slices.iter().skip(if at == 0 { skip } else { 0 }))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slice> {
        self.iter_from(self.first)
    }

    /// The ordinal of the first slice that ends after an offset; the number of the next slice to
    /// come if none does.
    pub(crate) fn find_offset(&self, offset: i64) -> u64 {
        // Most readers are at the end, or in the last slice.
        match self.last() {
            Some(last) if last.end() <= offset => return self.next,
            Some(last) if last.base_offset <= offset => return self.next - 1,
            _ => {}
        }
        self.partition_point(|slice| slice.end() <= offset)
    }

    /// The first ordinal whose slice does not fulfil a condition that holds up to some slice and
    /// for none after it.
    fn partition_point(&self, holds: impl Fn(&Slice) -> bool) -> u64 {
        let (mut low, mut high) = (self.first, self.next);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(&holds) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }

    /// The first slice with a timestamp at or after a time.
    pub(crate) fn at_or_after_timestamp(&self, timestamp: i64) -> Option<&Slice> {
        let skip = usize::try_from(self.first % BLOCK).unwrap_or(0);
        self.blocks.iter().enumerate().find_map(|(at, block)| {
            if block.max_timestamp < timestamp {
                return None;
            }
            let live = block.slices.iter().skip(if at == 0 { skip } else { 0 });
            live.into_iter()
                .find(|slice| slice.max_timestamp >= timestamp)
        })
    }

    /// The first slice that has the largest timestamp.
    pub(crate) fn max_timestamp(&self) -> Option<&Slice> {
        let skip = usize::try_from(self.first % BLOCK).unwrap_or(0);
        let mut best: Option<&Slice> = None;
        for (at, block) in self.blocks.iter().enumerate() {
            if best.is_some_and(|best| best.max_timestamp >= block.max_timestamp) {
                continue;
            }
            for slice in block.slices.iter().skip(if at == 0 { skip } else { 0 }) {
                if best.is_none_or(|best| slice.max_timestamp > best.max_timestamp) {
                    best = Some(slice);
                }
            }
        }
        best
    }
}

impl Slice {
    const PLACEHOLDER: Slice = Slice {
        file: FileId {
            incarnation: crate::terms::ids::Incarnation(0),
            number: 0,
        },
        position: 0,
        base_offset: 0,
        max_timestamp: i64::MIN,
        length: 0,
        span: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::ids::Incarnation;

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
            length: 5,
            span: 10,
        }
    }

    fn filled(range: std::ops::Range<u64>) -> Slices {
        let mut slices = Slices::starting_at(range.start);
        for number in range {
            slices.push(slice(number));
        }
        slices
    }

    #[test]
    fn a_slice_takes_48_bytes() {
        assert_eq!(size_of::<Slice>(), 48);
    }

    #[test]
    fn drops_from_the_start_and_finds_by_offset() {
        let mut slices = filled(0..1_000);
        for number in 0..700 {
            assert_eq!(slices.pop_front(), Some(slice(number)));
        }
        assert_eq!(slices.len(), 300);
        assert_eq!(slices.bytes(), 1_500);
        assert_eq!(slices.first(), Some(&slice(700)));
        assert_eq!(slices.last(), Some(&slice(999)));
        assert_eq!(slices.find_offset(0), 700);
        assert_eq!(slices.find_offset(7_009), 700);
        assert_eq!(slices.find_offset(7_010), 701);
        assert_eq!(slices.find_offset(9_999), 999);
        assert_eq!(slices.find_offset(10_000), 1_000);
        assert_eq!(slices.iter().count(), 300);
        assert_eq!(slices.iter_from(900).next(), Some(&slice(900)));
    }

    #[test]
    fn starts_again_at_any_ordinal_as_if_the_dropped_ones_had_been_there() {
        let mut dropped = filled(0..333);
        for _ in 0..201 {
            dropped.pop_front();
        }
        let fresh = filled(201..333);
        assert!(dropped.iter().eq(fresh.iter()));
        assert_eq!(dropped.find_offset(2_500), fresh.find_offset(2_500));
        assert_eq!(fresh.first_ordinal(), 201);
        assert_eq!(fresh.bytes(), dropped.bytes());
    }

    #[test]
    fn empties_and_fills_again_across_block_borders() {
        let mut slices = Slices::default();
        for number in 0..600 {
            slices.push(slice(number));
            if number % 3 != 0 {
                assert_eq!(slices.pop_front().map(|slice| slice.span), Some(10));
            }
        }
        while slices.pop_front().is_some() {}
        assert_eq!((slices.len(), slices.bytes()), (0, 0));
        slices.push(slice(600));
        assert_eq!(slices.first(), Some(&slice(600)));
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
}
