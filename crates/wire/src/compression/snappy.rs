//! Snappy as Kafka's clients write it: in the chunks of xerial's snappy-java, or, as some do, raw.
//! A chunk is in memory whole, since the codec may refer back to any of it.

use std::io::{self, Read, Write};

use super::{Compression, DecompressError};

/// The bytes that snappy-java writes before its chunks.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Version and least compatible version, both 1.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
/// The size of snappy-java's chunks by default, before compression.
const XERIAL_CHUNK_BYTES: usize = 32 << 10;
/// Three bytes of snappy stand for at most 64, so a claim beyond this is a lie.
const RATIO_MAX: usize = 32;

const INVALID: DecompressError = DecompressError::Invalid(Compression::Snappy);

/// Reads decompressed bytes.
pub(super) struct Decompressor<'a> {
    rest: Rest<'a>,
    chunk: Vec<u8>,
    at: usize,
    chunk_bytes_max: usize,
}

/// The input that is still compressed.
enum Rest<'a> {
    Raw(&'a [u8]),
    Chunks(&'a [u8]),
}

impl<'a> Decompressor<'a> {
    pub(super) fn new(input: &'a [u8], chunk_bytes_max: usize) -> Self {
        Decompressor {
            rest: match input.starts_with(&XERIAL_MAGIC) {
                true => Rest::Chunks(input),
                false => Rest::Raw(input),
            },
            chunk: Vec::new(),
            at: 0,
            chunk_bytes_max,
        }
    }

    /// The compressed bytes of the next chunk, if there is one.
    fn next_packed(&mut self) -> Result<Option<&'a [u8]>, DecompressError> {
        let rest = match &mut self.rest {
            Rest::Raw(chunk) => {
                let chunk = *chunk;
                self.rest = Rest::Chunks(&[]);
                return Ok(Some(chunk));
            }
            Rest::Chunks(rest) => rest,
        };
        // Several streams may follow one another. The magic number cannot be a chunk's length: it
        // would be negative.
        while let Some(after) = rest.strip_prefix(&XERIAL_MAGIC) {
            *rest = after.get(XERIAL_VERSIONS.len()..).ok_or(INVALID)?;
        }
        if rest.is_empty() {
            return Ok(None);
        }
        let (length, after) = rest.split_first_chunk::<4>().ok_or(INVALID)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| INVALID)?;
        let (chunk, after) = after.split_at_checked(length).ok_or(INVALID)?;
        *rest = after;
        Ok(Some(chunk))
    }

    /// Decompresses the next chunk; false if there is none.
    fn next_chunk(&mut self) -> Result<bool, DecompressError> {
        let Some(chunk) = self.next_packed()? else {
            return Ok(false);
        };
        let length = snap::raw::decompress_len(chunk).map_err(|_| INVALID)?;
        if length > chunk.len().saturating_mul(RATIO_MAX) {
            return Err(INVALID);
        }
        if length > self.chunk_bytes_max {
            return Err(DecompressError::TooLarge {
                limit_bytes: self.chunk_bytes_max,
            });
        }
        self.at = 0;
        self.chunk.resize(length, 0);
        let written = snap::raw::Decoder::new().decompress(chunk, &mut self.chunk);
        written.map(|_| true).map_err(|_| INVALID)
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            if !self.next_chunk().map_err(io::Error::other)? {
                return Ok(0);
            }
        }
        let read = (&self.chunk[self.at..]).read(out)?;
        self.at += read;
        Ok(read)
    }
}

/// Compresses what is written, in chunks.
pub(crate) struct Compressor<W> {
    out: W,
    chunk: Vec<u8>,
}

impl<W: Write> Compressor<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&XERIAL_MAGIC)?;
        out.write_all(&XERIAL_VERSIONS)?;
        let chunk = Vec::with_capacity(XERIAL_CHUNK_BYTES);
        Ok(Compressor { out, chunk })
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.end_chunk()?;
        Ok(self.out)
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let packed = snap::raw::Encoder::new().compress_vec(&self.chunk)?;
        self.chunk.clear();
        self.out.write_all(&(packed.len() as u32).to_be_bytes())?;
        self.out.write_all(&packed)
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, input: &[u8]) -> io::Result<usize> {
        let taken = input.len().min(XERIAL_CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&input[..taken]);
        if self.chunk.len() == XERIAL_CHUNK_BYTES {
            self.end_chunk()?;
        }
        Ok(taken)
    }

    /// Writes nothing: a chunk ends when it is full, or at the end of the whole.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
