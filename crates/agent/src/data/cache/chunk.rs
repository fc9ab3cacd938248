//! Record batches of one part of a file, found by partition and position. It must not know offsets:
//! these are in the metadata, not in the file.

use bytes::Bytes;
use host::budget::Held;
use meta::ids::{FileId, PartitionId};
use store::file::{FileIndex, Slice};
use wire::batch::Batch;

use crate::data::batch_sum;
use crate::metrics::Origin;

/// Memory of a batch beside its bytes.
const ENTRY_BYTES: u64 = 56;
/// Memory of a piece beside its bytes.
const PIECE_BYTES: u64 = 32;

/// The bytes are not what the index says; the text says how, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Corrupt(pub String);

impl From<store::file::Error> for Corrupt {
    fn from(error: store::file::Error) -> Self {
        Corrupt(error.to_string())
    }
}

/// A batch, and where it lies.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The partition whose batch it is, as the file itself says.
    pub partition: PartitionId,
    /// Its first byte in the file.
    pub position: u64,
    pub batch: Batch,
}

/// Batches of a part of a file, in the order of their positions.
#[derive(Debug)]
pub struct Chunk {
    entries: Vec<Entry>,
    /// The part as it is in the bucket, for other agents of the zone; the entries are parts of these bytes.
    stored: Vec<Bytes>,
    held_bytes: u64,
    /// Where it came from when it came to this agent's memory.
    origin: Origin,
    /// The memory that the chunk counts for, given back when the last reader is done.
    _held: Held,
}

impl Chunk {
    /// A chunk of verified batches that this agent wrote. `held_bytes` is the memory that they keep alive.
    pub fn new(entries: Vec<Entry>, held_bytes: u64, held: Held) -> Self {
        let held_bytes = held_bytes + entries.len() as u64 * ENTRY_BYTES;
        Chunk {
            entries,
            stored: Vec::new(),
            held_bytes,
            origin: Origin::Memory,
            _held: held,
        }
    }

    /// The same chunk, with all bytes of its part, in pieces.
    pub(crate) fn with_stored(mut self, pieces: Vec<Bytes>) -> Self {
        self.held_bytes += pieces.len() as u64 * PIECE_BYTES;
        self.stored = pieces;
        self
    }

    /// The same chunk, which was loaded from elsewhere.
    pub(crate) fn loaded_from(self, origin: Origin) -> Self {
        Chunk { origin, ..self }
    }

    /// Where it came from when it came to this agent's memory.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// The part as it is in the bucket.
    pub(crate) fn stored(&self) -> &[Bytes] {
        &self.stored
    }

    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// All batches of `partition`, whatever the metadata say of it: what rule 2 forbids (docs/safety.md).
    pub fn batches_of(&self, partition: PartitionId) -> &[Entry] {
        let before = |entry: &Entry| entry.partition < partition;
        let through = |entry: &Entry| entry.partition <= partition;
        &self.entries[self.entries.partition_point(before)..self.entries.partition_point(through)]
    }

    /// The batches of `partition` that fill exactly `length` bytes from `position` on.
    pub fn batches(
        &self,
        partition: PartitionId,
        position: u64,
        length: u32,
    ) -> Result<&[Entry], Corrupt> {
        let end = position + u64::from(length);
        let first = self
            .entries
            .partition_point(|entry| entry.position < position);
        let last = self.entries.partition_point(|entry| entry.position < end);
        let found = self.entries.get(first..last).unwrap_or_default();
        let starts = found
            .first()
            .is_some_and(|entry| entry.position == position);
        let ends = found
            .last()
            .is_some_and(|entry| entry.position + entry.batch.length_bytes() as u64 == end);
        if !starts || !ends {
            return Err(Corrupt(format!("no batches lie at {position}..{end}")));
        }
        match found.iter().find(|entry| entry.partition != partition) {
            None => Ok(found),
            Some(stranger) => Err(Corrupt(format!(
                "the batch at {} is partition {}'s, not partition {}'s",
                stranger.position, stranger.partition.0, partition.0
            ))),
        }
    }
}

/// The metadata shard of all files: there is only one.
const SHARD: u16 = 0;

/// The id of a file as its bytes and key have it.
pub fn stored_id(file: FileId) -> store::layout::FileId {
    store::layout::FileId {
        shard: SHARD,
        incarnation: file.incarnation.0,
        number: file.number,
    }
}

/// Reads the batches of a whole file in one pass, verifying the checksums of file and batches.
pub fn read_file(id: store::layout::FileId, file: &Bytes) -> Result<Vec<Entry>, Corrupt> {
    let mut entries = Vec::new();
    let index = FileIndex::decode_whole_with(file, |slice, bytes| {
        let bytes = file.slice_ref(bytes);
        let partition = PartitionId(slice.partition);
        read_batches(partition, slice.position, bytes, &mut entries)
    })?;
    check_id(&index, id)?;
    Ok(entries)
}

/// Checks that a file says that it is the one that was asked for.
pub fn check_id(index: &FileIndex, id: store::layout::FileId) -> Result<(), Corrupt> {
    if index.id == id {
        return Ok(());
    }
    let other = &index.id;
    Err(Corrupt(format!(
        "it says that it is another file: {other:?}"
    )))
}

/// Reads the batches in a part of a slice, whose first byte lies at `position` in the file;
/// verifies each batch's checksum, and the slice's if the part is all of it.
pub fn read_slice(slice: &Slice, position: u64, bytes: Bytes) -> Result<Vec<Entry>, Corrupt> {
    let end = position.saturating_add(bytes.len() as u64);
    if position < slice.position || end > slice.end() {
        return Err(Corrupt(format!(
            "bytes {position}..{end} are not within partition {}'s slice, {}..{}",
            slice.partition,
            slice.position,
            slice.end()
        )));
    }
    let is_whole = bytes.len() as u64 == u64::from(slice.length);
    let partition = PartitionId(slice.partition);
    let mut entries = Vec::new();
    let sum = read_batches(partition, position, bytes, &mut entries)?;
    if is_whole && sum != slice.checksum {
        return Err(store::file::Error::Corrupt("a slice's checksum does not match").into());
    }
    Ok(entries)
}

/// Appends the batches in `bytes`, verifying each; yields the checksum over all of them.
fn read_batches(
    partition: PartitionId,
    mut position: u64,
    bytes: Bytes,
    entries: &mut Vec<Entry>,
) -> Result<u32, Corrupt> {
    let mut sum = 0;
    for batch in wire::batch::batches(bytes) {
        let batch = batch
            .and_then(|batch| match batch.check_crc() {
                Err(error) if !host::trial::leaves_out("ignore-checksums") => Err(error),
                _ => Ok(batch),
            })
            .map_err(|error| Corrupt(format!("the batch at {position}: {error}")))?;
        sum = batch_sum::append_batch(sum, &batch);
        let length = batch.length_bytes() as u64;
        entries.push(Entry {
            partition,
            position,
            batch,
        });
        position += length;
    }
    Ok(sum)
}
