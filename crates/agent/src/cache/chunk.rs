//! Record batches of one part of a file, found by position. It must not know offsets: these are in
//! the index, not in the file.

use bytes::Bytes;
use host::budget::Held;
use store::file::FileIndex;
use wire::batch::Batch;

/// What a batch costs beside its bytes.
const ENTRY_BYTES: u64 = 48;

/// Bytes that are not what the index says; the text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Corrupt(pub String);

/// A batch, and where it lies.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its first byte in the file.
    pub position: u64,
    /// The batch.
    pub batch: Batch,
}

/// Batches of a part of a file, in the order of their positions.
#[derive(Debug)]
pub struct Chunk {
    entries: Vec<Entry>,
    held_bytes: u64,
    /// Room in memory, given back when the last reader is done.
    _held: Held,
}

impl Chunk {
    /// A chunk of batches that are known to be good. `held_bytes` is what they keep alive.
    pub fn new(entries: Vec<Entry>, held_bytes: u64, held: Held) -> Self {
        let held_bytes = held_bytes + entries.len() as u64 * ENTRY_BYTES;
        Chunk {
            entries,
            held_bytes,
            _held: held,
        }
    }

    /// Memory that the chunk keeps alive.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// The batches that fill `length` bytes from `position` exactly.
    pub fn batches(&self, position: u64, length: u32) -> Result<&[Entry], Corrupt> {
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
        if starts && ends {
            return Ok(found);
        }
        Err(Corrupt(format!("no batches lie at {position}..{end}")))
    }
}

/// The batches of a whole file, every checksum compared, file and batches alike.
pub fn read_file(id: store::layout::FileId, file: &Bytes) -> Result<Vec<Entry>, Corrupt> {
    let index = FileIndex::decode_whole(file).map_err(|error| Corrupt(error.to_string()))?;
    if index.id != id {
        return Err(Corrupt(format!(
            "it says that it is another file: {:?}",
            index.id
        )));
    }
    let mut entries = Vec::new();
    for slice in &index.slices {
        // The decoder has found every slice within the file.
        let bytes = file.slice(slice.position as usize..slice.end() as usize);
        read_slice(slice.position, bytes, &mut entries)?;
    }
    Ok(entries)
}

/// The batches of a slice, every checksum compared.
pub fn read_slice(position: u64, bytes: Bytes, entries: &mut Vec<Entry>) -> Result<(), Corrupt> {
    let mut position = position;
    for batch in wire::batch::batches(bytes) {
        let batch = batch
            .and_then(|batch| batch.check_crc().map(|()| batch))
            .map_err(|error| Corrupt(format!("the batch at {position}: {error}")))?;
        let length = batch.length_bytes() as u64;
        entries.push(Entry { position, batch });
        position += length;
    }
    Ok(())
}
