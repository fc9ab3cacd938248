//! A run of slices, packed: a third of their unpacked size, and as they stand in snapshots
//! (docs/formats/snapshot.md), so that an unchanged run is neither encoded nor hashed again. It
//! must not know how runs are put together.

use std::sync::OnceLock;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::slice::Slice;
use super::varint;
use crate::terms::commit::TimeSource;
use crate::terms::ids::{FileId, Incarnation};
use crate::terms::level::Level;

/// The low bits of what a slice covers that tell where its largest timestamp comes from.
const SOURCE_BITS: u32 = 2;

/// A run of slices, 1 to as many as the level says. It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    packed: Bytes,
    /// Of the packed bytes, once it was asked for: not while commands wait.
    digest: OnceLock<[u8; 32]>,
    /// Base offset of the first slice.
    pub(crate) base_offset: i64,
    /// The offset after the last slice.
    pub(crate) end: i64,
    pub(crate) max_timestamp: i64,
    /// Bytes of the batches of all slices.
    pub(crate) bytes: u64,
    pub(crate) slices: u64,
}

impl Block {
    /// Packs slices; `None` if there are none.
    pub(crate) fn pack<'a>(slices: impl Iterator<Item = &'a Slice> + Clone) -> Option<Self> {
        // Without room to grow: it never will.
        let packed = pack(slices.clone()).into_boxed_slice();
        let block = Block::summing(slices.copied())?;
        let packed = packed.into();
        Some(Block { packed, ..block })
    }

    /// Reads the bytes that [`Block::packed`] gives; `None` for any others.
    pub(crate) fn read(level: &Level, packed: Bytes) -> Option<Self> {
        let mut rows = Rows::new(&packed);
        let block = Block::summing(rows.by_ref().take(level.block_slices))?;
        let is_whole = rows.rest.is_empty();
        is_whole.then_some(Block { packed, ..block })
    }

    /// A block without its bytes: what there is to know of them and of the slices in them.
    fn summing(slices: impl Iterator<Item = Slice>) -> Option<Self> {
        let mut slices = slices.peekable();
        let first = slices.peek()?;
        let mut block = Block {
            packed: Bytes::new(),
            digest: OnceLock::new(),
            base_offset: first.base_offset,
            end: first.base_offset,
            max_timestamp: i64::MIN,
            bytes: 0,
            slices: 0,
        };
        for slice in slices {
            block.end = slice.end();
            block.max_timestamp = block.max_timestamp.max(slice.max_timestamp);
            block.bytes = block.bytes.saturating_add(u64::from(slice.length));
            block.slices += 1;
        }
        Some(block)
    }

    /// SHA-256 of the packed bytes.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        self.digest
            .get_or_init(|| Sha256::digest(&self.packed).into())
    }

    /// The slices as bytes.
    pub(crate) fn packed(&self) -> &Bytes {
        &self.packed
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Slice> + '_ {
        Rows::new(&self.packed)
    }
}

/// Slices as bytes, each as seven varints, the second of which tells two things; offsets, files and timestamps as differences to the slice
/// before, the first to zero.
pub(crate) fn pack<'a>(slices: impl Iterator<Item = &'a Slice>) -> Vec<u8> {
    let mut packed = Vec::with_capacity(24 * (slices.size_hint().0 + 1));
    let mut before = Slice::ORIGIN;
    for slice in slices {
        let (file, file_before) = (slice.file, before.file);
        let difference = |from: u64, to: u64| zigzag(to.wrapping_sub(from).cast_signed());
        let row = [
            slice.base_offset.wrapping_sub(before.end()).cast_unsigned(),
            u64::from(slice.span) << SOURCE_BITS | u64::from(slice.time_source.number()),
            difference(file_before.incarnation.0, file.incarnation.0),
            difference(file_before.number, file.number),
            slice.position,
            u64::from(slice.length),
            zigzag(slice.max_timestamp.wrapping_sub(before.max_timestamp)),
        ];
        for value in row {
            varint::put(value, &mut packed);
        }
        before = *slice;
    }
    packed
}

/// Unpacks slices one by one; ends at bytes that are not a slice.
struct Rows<'a> {
    rest: &'a [u8],
    before: Slice,
}

impl<'a> Rows<'a> {
    fn new(packed: &'a [u8]) -> Self {
        Rows {
            rest: packed,
            before: Slice::ORIGIN,
        }
    }

    fn row(&mut self) -> Option<Slice> {
        let mut row = [0; 7];
        for value in &mut row {
            *value = varint::take(&mut self.rest)?;
        }
        let [gap, span, incarnation, number, position, length, time] = row;
        let before = &self.before;
        let base_offset = before.end().checked_add(i64::try_from(gap).ok()?)?;
        let time_source = TimeSource::of_number(span & ((1 << SOURCE_BITS) - 1))?;
        let span = u32::try_from(span >> SOURCE_BITS).ok()?;
        base_offset.checked_add(i64::from(span))?;
        let moved = |from: u64, by: u64| from.wrapping_add_signed(unzigzag(by));
        Some(Slice {
            file: FileId {
                incarnation: Incarnation(moved(before.file.incarnation.0, incarnation)),
                number: moved(before.file.number, number),
            },
            position,
            base_offset,
            max_timestamp: before.max_timestamp.wrapping_add(unzigzag(time)),
            time_source,
            length: u32::try_from(length).ok()?,
            span,
        })
    }
}

impl Iterator for Rows<'_> {
    type Item = Slice;

    fn next(&mut self) -> Option<Slice> {
        let rest = self.rest;
        match self.row() {
            Some(slice) => self.before = slice,
            None => {
                self.rest = rest;
                return None;
            }
        }
        Some(self.before)
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::level::one::LEVEL as ONE;

    fn slice(base_offset: i64, number: u64, max_timestamp: i64) -> Slice {
        Slice {
            file: FileId {
                incarnation: Incarnation(u64::MAX - number),
                number,
            },
            position: number,
            base_offset,
            max_timestamp,
            time_source: TimeSource::Records,
            length: 5,
            span: 10,
        }
    }

    #[test]
    fn what_is_packed_comes_back_and_nothing_else_is_read() {
        let slices = [
            slice(7, 3, i64::MIN),
            Slice {
                time_source: TimeSource::Header,
                ..slice(17, u64::MAX, i64::MAX)
            },
            Slice {
                time_source: TimeSource::Agent,
                ..slice(i64::MAX - 10, 0, -1)
            },
        ];
        let block = Block::pack(slices.iter()).expect("there are some");
        assert!(block.iter().eq(slices));
        let known = (block.base_offset, block.end, block.max_timestamp);
        assert_eq!(known, (7, i64::MAX, i64::MAX));
        assert_eq!((block.slices, block.bytes), (3, 15));
        let packed = block.packed().clone();
        assert_eq!(Block::read(&ONE, packed.clone()), Some(block));
        for cut in 0..packed.len() {
            let read = Block::read(&ONE, packed.slice(..cut));
            assert!(read.is_none_or(|block| block.slices < 3), "{cut}");
        }
        // A varint longer than need be.
        let padded = [
            &packed[..packed.len() - 1],
            &[packed[packed.len() - 1] | 0x80, 0],
        ]
        .concat();
        assert_eq!(Block::read(&ONE, padded.into()), None);
        let beyond = slice(i64::MAX - 9, 0, 0);
        assert_eq!(Block::read(&ONE, pack([beyond].iter()).into()), None);
        assert_eq!(Block::pack([].iter()), None);
    }

    #[test]
    fn a_block_has_a_limit() {
        let many: Vec<Slice> = (0..129).map(|n| slice(n * 10, 1, n)).collect();
        assert!(Block::read(&ONE, pack(many[..128].iter()).into()).is_some());
        assert_eq!(Block::read(&ONE, pack(many.iter()).into()), None);
    }
}
