//! The records of an answer: the batches of the chosen places that fit, with their offsets written
//! into them. It must not know where chunks come from, nor Kafka's messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use host::budget::Held;
use wire::codec::INLINE_PIECE_BYTES;
use wire::compression::Compression;
use wire::rope::Rope;

use super::item::Slot;
use super::plan;
use super::poll::{Chosen, Taken};
use super::read::{self, Reader};
use crate::data::cache::{Cache, Chunk, LoadError, Part};
use crate::metrics::Origin;

/// Smaller batches are copied into the answer: some two KiB of records, and the header.
const COPIED_BYTES: u64 = INLINE_PIECE_BYTES as u64 + 16;
/// Memory of a batch in an answer beside its bytes: its header, and two pieces in two lists.
const PIECES_BYTES: u64 = 192;
/// Memory for those is taken in steps of a few hundred batches.
const ROOM_BYTES: u64 = 64 << 10;

/// Chunks for an answer, each with where its records come from, as far as this answer goes.
pub(super) type Chunks = BTreeMap<Part, (Arc<Chunk>, Origin)>;

/// Why a partition has no records in the answer although it has some.
#[derive(Clone, Debug)]
pub enum Problem {
    Load(LoadError),
    /// The client's version of Fetch does not allow the codec.
    Zstd,
}

/// The bounds of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub max_bytes: u64,
    pub takes_zstd: bool,
}

/// The records of an answer, and the memory that they lie in: drop it when the answer is sent.
#[derive(Default)]
pub struct Records {
    pub of: BTreeMap<Slot, Result<Rope, Problem>>,
    pub bytes: u64,
    /// The same bytes, by where they came from.
    pub bytes_from: BTreeMap<Origin, u64>,
    /// The offset after the last record of each partition that has some.
    pub next: Vec<(Slot, i64)>,
    /// Chunks in which the records lie.
    pub chunks: Vec<Arc<Chunk>>,
    /// Memory for batches that lie in no chunk, and for lists of pieces.
    pub held: Option<Held>,
    /// How much of `held` is left.
    room_bytes: u64,
}

impl Records {
    /// Reads the records that a fetch chose.
    pub(super) fn of(taken: &Taken, chunks: &Chunks, room: Room, reader: &Reader) -> Self {
        let mut records = Records::default();
        for chosen in &taken.chosen {
            let mut rope = Rope::new();
            let mut next = chosen.want.offset;
            let read = records.append(chosen, (taken, chunks), room, reader, &mut rope, &mut next);
            // Records before the problem are sent; the next fetch meets the problem again.
            match read {
                Err(problem) if rope.is_empty() => {
                    records.of.insert(chosen.slot, Err(problem));
                }
                _ if rope.is_empty() => {}
                _ => {
                    records.next.push((chosen.slot, next));
                    records.of.insert(chosen.slot, Ok(rope));
                }
            }
        }
        records
    }

    /// Appends the batches of one partition that fit.
    fn append(
        &mut self,
        chosen: &Chosen,
        (taken, chunks): (&Taken, &Chunks),
        room: Room,
        reader: &Reader,
        rope: &mut Rope,
        next: &mut i64,
    ) -> Result<(), Problem> {
        let cache = reader.cache();
        for place in &chosen.places {
            let part = plan::part_of(place);
            let Some((chunk, origin)) = chunks.get(&part) else {
                return match taken.failed.get(&part) {
                    Some(LoadError::NoRoom) => {
                        cache.note_short(host::clock::now());
                        Ok(())
                    }
                    Some(error) => Err(Problem::Load(error.clone())),
                    None => Ok(()),
                };
            };
            let batches = read::check_place(chunk, chosen.partition, place).map_err(|corrupt| {
                let error = LoadError::Corrupt(corrupt);
                reader.report(place, &error);
                Problem::Load(error)
            })?;
            let mut offset = place.base_offset;
            let mut is_kept = false;
            for batch in batches.iter().map(|entry| &entry.batch) {
                let base = offset;
                offset += i64::from(batch.last_offset_delta()) + 1;
                if offset <= chosen.want.offset {
                    continue;
                }
                let bytes = batch.length_bytes() as u64;
                let of_partition = rope.len() as u64 + bytes;
                let is_too_much =
                    of_partition > chosen.want.max_bytes || self.bytes + bytes > room.max_bytes;
                if self.bytes > 0 && is_too_much || !self.make_room(cache, bytes) {
                    return Ok(());
                }
                if !room.takes_zstd && batch.compression() == Ok(Compression::Zstd) {
                    return Err(Problem::Zstd);
                }
                if !std::mem::replace(&mut is_kept, true) {
                    self.keep(chunk);
                }
                batch.append_patched(base, meta::LEADER_EPOCH, rope);
                self.bytes += bytes;
                *self.bytes_from.entry(*origin).or_default() += bytes;
                *next = offset;
            }
        }
        Ok(())
    }

    /// Takes memory for what a batch of this size takes beside its chunk; false if there is none.
    /// The answer's first batch needs none, so that every answer moves its reader on.
    fn make_room(&mut self, cache: &Cache, bytes: u64) -> bool {
        let copied = if bytes < COPIED_BYTES { bytes } else { 0 };
        let cost = copied + PIECES_BYTES;
        if self.bytes == 0 {
            return true;
        }
        if self.room_bytes < cost {
            let Some(held) = cache.try_hold(ROOM_BYTES) else {
                cache.note_short(host::clock::now());
                return false;
            };
            self.room_bytes += held.bytes();
            match &mut self.held {
                Some(before) => before.merge(held),
                None => self.held = Some(held),
            }
        }
        self.room_bytes -= cost;
        true
    }

    /// Keeps a chunk alive, once: slices of one file follow each other.
    fn keep(&mut self, chunk: &Arc<Chunk>) {
        let last = self.chunks.last();
        if !last.is_some_and(|last| Arc::ptr_eq(last, chunk)) {
            self.chunks.push(Arc::clone(chunk));
        }
    }
}
