//! Kafka's compression codecs, with a bound on what comes out.
//!
//! It must not know what the bytes are. Framing: gzip as RFC 1952; snappy in the chunks of
//! xerial's snappy-java, which Kafka's clients write, or raw; LZ4 and Zstandard in their own frames.

use std::io::{Read, Write};

use bytes::Bytes;

/// What snappy-java writes before its chunks.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// The magic and two version numbers.
const XERIAL_HEADER_BYTES: usize = 16;
/// What snappy-java compresses at once by default.
const XERIAL_CHUNK_BYTES: usize = 32 << 10;
/// Three bytes of snappy stand for at most 64, so a claim beyond this is a lie.
const SNAPPY_RATIO_MAX: usize = 32;
const ZSTD_LEVEL: i32 = 3;

/// How the records of a batch are compressed: bits 0 to 2 of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// Gzip.
    Gzip = 1,
    /// Snappy.
    Snappy = 2,
    /// LZ4.
    Lz4 = 3,
    /// Zstandard; only for Produce 7 and Fetch 10 or later.
    Zstd = 4,
}

impl Compression {
    /// Every codec.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec of a batch's attribute bits.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }

    /// Kafka's name, as in `compression.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }
}

/// Why bytes do not decompress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// They are not what the codec wrote.
    #[error("not valid {}", .0.name())]
    Invalid(Compression),
    /// They would exceed the bound.
    #[error("more than {limit_bytes} bytes when decompressed")]
    TooLarge {
        /// The bound.
        limit_bytes: usize,
    },
}

/// Decompresses into at most `limit_bytes`. Memory follows what really comes out, not what the input
/// claims.
pub fn decompress(
    codec: Compression,
    input: &Bytes,
    limit_bytes: usize,
) -> Result<Bytes, DecompressError> {
    let invalid = DecompressError::Invalid(codec);
    match codec {
        Compression::None if input.len() > limit_bytes => {
            Err(DecompressError::TooLarge { limit_bytes })
        }
        Compression::None => Ok(input.clone()),
        Compression::Gzip => drain(
            flate2::read::MultiGzDecoder::new(&input[..]),
            codec,
            limit_bytes,
        ),
        Compression::Lz4 => drain(
            lz4_flex::frame::FrameDecoder::new(&input[..]),
            codec,
            limit_bytes,
        ),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(&input[..]);
            drain(decoder.map_err(|_| invalid)?, codec, limit_bytes)
        }
        Compression::Snappy => decompress_snappy(input, limit_bytes),
    }
}

fn drain(
    reader: impl Read,
    codec: Compression,
    limit_bytes: usize,
) -> Result<Bytes, DecompressError> {
    let mut out = Vec::new();
    let mut bounded = reader.take(limit_bytes as u64 + 1);
    bounded
        .read_to_end(&mut out)
        .map_err(|_| DecompressError::Invalid(codec))?;
    if out.len() > limit_bytes {
        return Err(DecompressError::TooLarge { limit_bytes });
    }
    Ok(Bytes::from(out))
}

fn decompress_snappy(input: &Bytes, limit_bytes: usize) -> Result<Bytes, DecompressError> {
    let invalid = DecompressError::Invalid(Compression::Snappy);
    let mut out = Vec::new();
    if !input.starts_with(&XERIAL_MAGIC) {
        append_snappy(&mut out, input, limit_bytes)?;
        return Ok(Bytes::from(out));
    }
    let mut rest = input.get(XERIAL_HEADER_BYTES..).ok_or(invalid)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(invalid)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| invalid)?;
        let (chunk, after) = after.split_at_checked(length).ok_or(invalid)?;
        append_snappy(&mut out, chunk, limit_bytes)?;
        rest = after;
    }
    Ok(Bytes::from(out))
}

fn append_snappy(
    out: &mut Vec<u8>,
    chunk: &[u8],
    limit_bytes: usize,
) -> Result<(), DecompressError> {
    let invalid = DecompressError::Invalid(Compression::Snappy);
    let length = snap::raw::decompress_len(chunk).map_err(|_| invalid)?;
    if length > chunk.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(invalid);
    }
    let start = out.len();
    if length > limit_bytes - start {
        return Err(DecompressError::TooLarge { limit_bytes });
    }
    out.resize(start + length, 0);
    let written = snap::raw::Decoder::new().decompress(chunk, &mut out[start..]);
    written.map(|_| ()).map_err(|_| invalid)
}

/// Compresses as Kafka's Java client does by default.
pub fn compress(codec: Compression, input: &[u8]) -> Bytes {
    let in_memory = "writing to memory does not fail";
    match codec {
        Compression::None => Bytes::copy_from_slice(input),
        Compression::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            out.write_all(input).expect(in_memory);
            Bytes::from(out.finish().expect(in_memory))
        }
        Compression::Lz4 => {
            let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
            out.write_all(input).expect(in_memory);
            Bytes::from(out.finish().expect(in_memory))
        }
        Compression::Zstd => {
            let out = zstd::stream::encode_all(input, ZSTD_LEVEL);
            Bytes::from(out.expect(in_memory))
        }
        Compression::Snappy => compress_snappy(input),
    }
}

fn compress_snappy(input: &[u8]) -> Bytes {
    let mut out = XERIAL_MAGIC.to_vec();
    // Version and least compatible version, both 1.
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    for chunk in input.chunks(XERIAL_CHUNK_BYTES) {
        let packed = snap::raw::Encoder::new().compress_vec(chunk);
        let packed = packed.expect("a chunk is far below snappy's limit of 4 GiB");
        out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Bytes::from(out)
}
