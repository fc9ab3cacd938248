//! The format of files (docs/formats/file.md): slices of many partitions, an index and checksums.
//! Decoding is strict: whatever this module did not write itself is an error, whatever the bytes.
//! It must not know what a slice's bytes mean, nor where files lie.
//!
//! ```text
//! header | slice of partition 3 | slice of partition 7 | ... | index | footer
//! ```
//! Integers are big-endian, as in Kafka's protocol.

use crate::checksum::{append, combine, crc32c};
use crate::layout::FileId;

mod builder;
mod tombstone;

pub use builder::{Built, Counts, FileBuilder, Piece};
pub use tombstone::{TOMBSTONE_BYTES, Tombstone};

/// The newest format that this build writes, and the only one it reads.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes before the first slice.
pub const HEADER_BYTES: u64 = 16;
/// Bytes of one index entry.
pub const ENTRY_BYTES: u64 = 40;
/// Bytes after the index.
pub const FOOTER_BYTES: u64 = 64;
/// Slices that one file may have: an index of 40 MiB, far above what any file needs.
pub const MAX_SLICES: u64 = 1 << 20;

const HEADER_MAGIC: [u8; 8] = *b"SEAWAYWF";
const FOOTER_MAGIC: [u8; 8] = *b"SEAWAYFE";

/// Why bytes are not a file, or not the file that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are no file of ours, or a damaged one.
    #[error("the file is corrupt: {0}")]
    Corrupt(&'static str),
    /// A newer release wrote the file.
    #[error("the file has format version {0}; this release reads version {FORMAT_VERSION}")]
    NewerFormat(u16),
    /// The builder's input does not fit the format.
    #[error("no file can hold this: {0}")]
    Unwritable(&'static str),
}

/// One partition's contiguous batches in a file, as its index describes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The partition's number: unique in the cluster, never used again.
    pub partition: u64,
    /// The slice's first byte, counted from the start of the file.
    pub position: u64,
    pub length: u32,
    pub checksum: u32,
    /// Record batches in it.
    pub batches: u32,
    /// Records in all its batches.
    pub records: u32,
    /// The greatest timestamp in its batches' headers, in milliseconds since 1970; -1 for none.
    /// Producers choose it: any value may occur.
    pub max_timestamp_ms: i64,
}

impl Slice {
    /// Position of the first byte after the slice.
    pub fn end(&self) -> u64 {
        self.position.saturating_add(u64::from(self.length))
    }

    /// Checks that `bytes` have this slice's length and checksum.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() as u64 != u64::from(self.length) {
            return Err(Error::Corrupt(
                "a slice has another length than its index says",
            ));
        }
        if crc32c(bytes) != self.checksum {
            return Err(Error::Corrupt("a slice's checksum does not match"));
        }
        Ok(())
    }
}

/// The footer: where the index is, and checksums over the rest of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    pub id: FileId,
    /// Where the index starts.
    pub index_position: u64,
    pub slices: u32,
    pub index_checksum: u32,
    /// CRC-32C of everything before the footer.
    pub content_checksum: u32,
}

impl Footer {
    /// Reads the footer from a file's last [`FOOTER_BYTES`] bytes.
    pub fn decode(bytes: &[u8; FOOTER_BYTES as usize]) -> Result<Self, Error> {
        if bytes[56..64] != FOOTER_MAGIC {
            return Err(Error::Corrupt("it does not end with the footer's mark"));
        }
        if crc32c(&bytes[..52]) != u32_at(bytes, 52) {
            return Err(Error::Corrupt("the footer's checksum does not match"));
        }
        check_version(u16_at(bytes, 42))?;
        if bytes[44..52] != [0; 8] {
            return Err(Error::Corrupt("the footer's reserved bytes are not zero"));
        }
        let footer = Footer {
            index_position: u64_at(bytes, 0),
            slices: u32_at(bytes, 8),
            index_checksum: u32_at(bytes, 12),
            content_checksum: u32_at(bytes, 16),
            id: FileId {
                incarnation: u64_at(bytes, 24),
                number: u64_at(bytes, 32),
                shard: u16_at(bytes, 40),
            },
        };
        if u32_at(bytes, 20) != 0 {
            return Err(Error::Corrupt("the footer's reserved bytes are not zero"));
        }
        if footer.slices == 0 || u64::from(footer.slices) > MAX_SLICES {
            return Err(Error::Corrupt("the number of slices is out of bounds"));
        }
        footer.file_length()?;
        Ok(footer)
    }

    pub fn file_length(&self) -> Result<u64, Error> {
        self.index_position
            .checked_add(self.index_bytes())
            .and_then(|end| end.checked_add(FOOTER_BYTES))
            .ok_or(Error::Corrupt("the index lies beyond any file"))
    }

    pub fn index_bytes(&self) -> u64 {
        u64::from(self.slices) * ENTRY_BYTES
    }

    fn encode(&self) -> [u8; FOOTER_BYTES as usize] {
        let mut bytes = [0; FOOTER_BYTES as usize];
        bytes[0..8].copy_from_slice(&self.index_position.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.slices.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.index_checksum.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.content_checksum.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.id.incarnation.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.id.number.to_be_bytes());
        bytes[40..42].copy_from_slice(&self.id.shard.to_be_bytes());
        bytes[42..44].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
        let checksum = crc32c(&bytes[..52]);
        bytes[52..56].copy_from_slice(&checksum.to_be_bytes());
        bytes[56..64].copy_from_slice(&FOOTER_MAGIC);
        bytes
    }
}

/// What a file holds: its identity and its slices, ordered by partition and contiguous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileIndex {
    pub id: FileId,
    /// Its slices: partitions strictly ascending, one behind the other, never empty.
    pub slices: Vec<Slice>,
}

impl FileIndex {
    /// Reads footer and index from the end of a file that is `file_length` bytes long. `tail` must
    /// reach back to the start of the index at least; [`Footer::decode`] says where that is.
    pub fn decode(tail: &[u8], file_length: u64) -> Result<Self, Error> {
        let Some((rest, footer)) = tail.split_last_chunk::<{ FOOTER_BYTES as usize }>() else {
            return Err(Error::Corrupt("it is shorter than a footer"));
        };
        let footer = Footer::decode(footer)?;
        if footer.file_length()? != file_length {
            return Err(Error::Corrupt("its length is not what the footer says"));
        }
        let start = usize::try_from(footer.index_bytes())
            .ok()
            .and_then(|bytes| rest.len().checked_sub(bytes))
            .ok_or(Error::Corrupt("the index is not within what was read"))?;
        let index = &rest[start..];
        if crc32c(index) != footer.index_checksum {
            return Err(Error::Corrupt("the index's checksum does not match"));
        }
        Ok(FileIndex {
            id: footer.id,
            slices: decode_entries(index, footer.index_position)?,
        })
    }

    /// Reads and checks a whole file: every checksum, every bound.
    pub fn decode_whole(file: &[u8]) -> Result<Self, Error> {
        FileIndex::decode_whole_with(file, |_, bytes| Ok(crc32c(bytes)))
    }

    /// As [`FileIndex::decode_whole`], for a caller that reads the slices anyway: `sum` is given
    /// each slice's bytes, in order, and yields their CRC-32C. It is compared with the index and
    /// combined into the file's checksum, so that no byte is read twice. Use what `sum` collected
    /// only if the whole call succeeds.
    pub fn decode_whole_with<E: From<Error>>(
        file: &[u8],
        mut sum: impl FnMut(&Slice, &[u8]) -> Result<u32, E>,
    ) -> Result<Self, E> {
        let index = FileIndex::decode(file, file.len() as u64)?;
        let (content, footer) = file
            .split_last_chunk::<{ FOOTER_BYTES as usize }>()
            .ok_or(Error::Corrupt("it is shorter than a footer"))?;
        let footer = Footer::decode(footer)?;
        let header = check_header(content)?;
        let mut checksum = crc32c(header);
        for slice in &index.slices {
            let bytes = usize::try_from(slice.position)
                .ok()
                .zip(usize::try_from(slice.end()).ok())
                .and_then(|(start, end)| content.get(start..end))
                .ok_or(Error::Corrupt("a slice lies outside the file"))?;
            let found = sum(slice, bytes)?;
            if found != slice.checksum && !host::trial::leaves_out("ignore-checksums") {
                return Err(Error::Corrupt("a slice's checksum does not match").into());
            }
            checksum = combine(checksum, found, u64::from(slice.length));
        }
        // Decoding the index made sure that it starts where the last slice ends.
        let rest = usize::try_from(footer.index_position).map(|start| content.get(start..));
        let rest = rest.ok().flatten().unwrap_or_default();
        let is_whole = append(checksum, rest) == footer.content_checksum;
        if !is_whole && !host::trial::leaves_out("ignore-checksums") {
            return Err(Error::Corrupt("the file's checksum does not match").into());
        }
        Ok(index)
    }

    /// The slice of `partition`, if the file has one.
    pub fn find(&self, partition: u64) -> Option<&Slice> {
        self.slices
            .binary_search_by_key(&partition, |slice| slice.partition)
            .ok()
            .map(|at| &self.slices[at])
    }
}

fn header() -> [u8; HEADER_BYTES as usize] {
    let mut bytes = [0; HEADER_BYTES as usize];
    bytes[..8].copy_from_slice(&HEADER_MAGIC);
    bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
    bytes
}

fn check_header(content: &[u8]) -> Result<&[u8], Error> {
    let Some(bytes) = content.first_chunk::<{ HEADER_BYTES as usize }>() else {
        return Err(Error::Corrupt("it is shorter than a header"));
    };
    if bytes[..8] != HEADER_MAGIC {
        return Err(Error::Corrupt("it does not begin with the header's mark"));
    }
    check_version(u16_at(bytes, 8))?;
    if bytes[10..] != [0; 6] {
        return Err(Error::Corrupt("the header's reserved bytes are not zero"));
    }
    Ok(bytes)
}

fn check_version(version: u16) -> Result<(), Error> {
    match version {
        FORMAT_VERSION => Ok(()),
        0 => Err(Error::Corrupt("format version 0 does not exist")),
        newer => Err(Error::NewerFormat(newer)),
    }
}

fn decode_entries(index: &[u8], index_position: u64) -> Result<Vec<Slice>, Error> {
    let (entries, rest) = index.as_chunks::<{ ENTRY_BYTES as usize }>();
    if !rest.is_empty() {
        return Err(Error::Corrupt("the index ends within an entry"));
    }
    let mut slices: Vec<Slice> = Vec::with_capacity(entries.len());
    let mut end = HEADER_BYTES;
    for entry in entries {
        let slice = decode_entry(entry);
        if slices
            .last()
            .is_some_and(|previous| previous.partition >= slice.partition)
        {
            return Err(Error::Corrupt("the index is not ordered by partition"));
        }
        if slice.position != end {
            return Err(Error::Corrupt("the slices are not contiguous"));
        }
        // A batch has at least one byte, and a record batch of no records is allowed.
        if slice.batches == 0 || slice.length < slice.batches {
            return Err(Error::Corrupt("an index entry is out of bounds"));
        }
        end = end
            .checked_add(u64::from(slice.length))
            .ok_or(Error::Corrupt("the slices lie beyond any file"))?;
        slices.push(slice);
    }
    if end != index_position {
        return Err(Error::Corrupt(
            "the slices do not end where the index starts",
        ));
    }
    Ok(slices)
}

fn decode_entry(entry: &[u8; ENTRY_BYTES as usize]) -> Slice {
    Slice {
        partition: u64_at(entry, 0),
        position: u64_at(entry, 8),
        length: u32_at(entry, 16),
        checksum: u32_at(entry, 20),
        batches: u32_at(entry, 24),
        records: u32_at(entry, 28),
        max_timestamp_ms: u64_at(entry, 32).cast_signed(),
    }
}

fn encode_entry(slice: &Slice, into: &mut Vec<u8>) {
    into.extend_from_slice(&slice.partition.to_be_bytes());
    into.extend_from_slice(&slice.position.to_be_bytes());
    into.extend_from_slice(&slice.length.to_be_bytes());
    into.extend_from_slice(&slice.checksum.to_be_bytes());
    into.extend_from_slice(&slice.batches.to_be_bytes());
    into.extend_from_slice(&slice.records.to_be_bytes());
    into.extend_from_slice(&slice.max_timestamp_ms.to_be_bytes());
}

// Reads one field of a fixed-size array; the offset is a constant within the array.

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests;
