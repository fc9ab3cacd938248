//! Builds a file from batches that lie in memory in pieces. Large pieces are passed on without a
//! copy; small ones are gathered, because each piece costs a frame and a share of a system call on
//! its way to the socket. Every byte is read at most once, for its checksum, and not at all if the
//! caller knows the piece's checksum already.

use bytes::{Bytes, BytesMut};

use super::{ENTRY_BYTES, Error, FOOTER_BYTES, FileIndex, Footer, HEADER_BYTES, MAX_SLICES, Slice};
use super::{encode_entry, header};
use crate::bucket::Payload;
use crate::checksum::{append, combine, crc32c};
use crate::layout::FileId;

/// Pieces below this are copied together: copying 16 KiB takes about as long as handing one more
/// piece to the socket.
const GATHER_BELOW_BYTES: usize = 16 * 1024;
/// The size of a gathered piece.
const GATHERED_BYTES: usize = 256 * 1024;

/// Some bytes of a slice, with their CRC-32C if the caller knows it from checks of its own.
#[derive(Clone, Debug)]
pub struct Piece {
    /// One batch, or several.
    pub bytes: Bytes,
    pub checksum: Option<u32>,
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Piece {
            bytes,
            checksum: None,
        }
    }
}

/// The counts that the index keeps of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Record batches: at least one.
    pub batches: u32,
    /// Records in all of them.
    pub records: u32,
    /// The greatest timestamp in the batches' headers, in milliseconds since 1970; -1 for none.
    pub max_timestamp_ms: i64,
}

#[derive(Clone, Debug)]
pub struct Built {
    /// The file's bytes; large pieces are those that came in, not copies.
    pub payload: Payload,
    pub index: FileIndex,
    pub length: u64,
    /// CRC-32C of all its bytes, header and footer included.
    pub checksum: u32,
}

#[derive(Debug)]
pub struct FileBuilder {
    id: FileId,
    pieces: Vec<Bytes>,
    gathered: BytesMut,
    slices: Vec<Slice>,
    length: u64,
    checksum: u32,
}

impl FileBuilder {
    /// An empty file named `id`.
    pub fn new(id: FileId) -> Self {
        let header = header();
        let mut gathered = BytesMut::with_capacity(GATHER_BELOW_BYTES);
        gathered.extend_from_slice(&header);
        FileBuilder {
            id,
            pieces: Vec::new(),
            gathered,
            slices: Vec::new(),
            length: HEADER_BYTES,
            checksum: crc32c(&header),
        }
    }

    /// Appends the slice of `partition`, which must be above all before it.
    pub fn push(
        &mut self,
        partition: u64,
        batches: impl IntoIterator<Item = impl Into<Piece>>,
        counts: Counts,
    ) -> Result<(), Error> {
        if self
            .slices
            .last()
            .is_some_and(|previous| previous.partition >= partition)
        {
            return Err(Error::Unwritable(
                "slices must be pushed in order of partition",
            ));
        }
        if self.slices.len() as u64 >= MAX_SLICES {
            return Err(Error::Unwritable("too many slices"));
        }
        let batches: Vec<Piece> = batches.into_iter().map(Into::into).collect();
        let length: usize = batches.iter().map(|piece| piece.bytes.len()).sum();
        let length =
            u32::try_from(length).map_err(|_| Error::Unwritable("a slice is longer than 4 GiB"))?;
        if counts.batches == 0 || length < counts.batches {
            return Err(Error::Unwritable(
                "a slice is empty or its counts are impossible",
            ));
        }
        let mut checksum = 0;
        for piece in batches {
            checksum = match piece.checksum {
                Some(known) => combine(checksum, known, piece.bytes.len() as u64),
                None => append(checksum, &piece.bytes),
            };
            self.add(piece.bytes);
        }
        self.checksum = combine(self.checksum, checksum, u64::from(length));
        self.slices.push(Slice {
            partition,
            position: self.length,
            length,
            checksum,
            batches: counts.batches,
            records: counts.records,
            max_timestamp_ms: counts.max_timestamp_ms,
        });
        self.length += u64::from(length);
        Ok(())
    }

    /// Length of the file so far, with the index and footer that it would have.
    pub fn length(&self) -> u64 {
        self.length + self.slices.len() as u64 * ENTRY_BYTES + FOOTER_BYTES
    }

    /// Adds index and footer. A file without slices cannot be written.
    pub fn finish(mut self) -> Result<Built, Error> {
        if self.slices.is_empty() {
            return Err(Error::Unwritable("a file needs a slice"));
        }
        let length = self.length();
        let mut end = Vec::with_capacity((length - self.length) as usize);
        for slice in &self.slices {
            encode_entry(slice, &mut end);
        }
        let content_checksum = append(self.checksum, &end);
        let footer = Footer {
            id: self.id,
            index_position: self.length,
            // The cast cannot cut: `push` refuses more than MAX_SLICES.
            slices: self.slices.len() as u32,
            index_checksum: crc32c(&end),
            content_checksum,
        }
        .encode();
        end.extend_from_slice(&footer);
        self.add(end.into());
        self.flush();
        let checksum = append(content_checksum, &footer);
        Ok(Built {
            payload: Payload::new(self.pieces).with_checksum(checksum),
            index: FileIndex {
                id: self.id,
                slices: self.slices,
            },
            length,
            checksum,
        })
    }

    fn add(&mut self, bytes: Bytes) {
        if bytes.len() >= GATHER_BELOW_BYTES {
            self.flush();
            self.pieces.push(bytes);
            return;
        }
        if self.gathered.len() + bytes.len() > GATHERED_BYTES {
            self.flush();
        }
        self.gathered.extend_from_slice(&bytes);
    }

    fn flush(&mut self) {
        if !self.gathered.is_empty() {
            self.pieces.push(self.gathered.split().freeze());
        }
    }
}
