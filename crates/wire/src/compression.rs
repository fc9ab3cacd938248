//! Kafka's compression codecs, as streams, with a bound on the memory that they take.
//!
//! It must not know what the bytes are. Framing: gzip as RFC 1952; snappy in the chunks of xerial's
//! snappy-java, which Kafka's clients write, or raw; LZ4 and Zstandard in their own frames.

mod gzip;
mod snappy;

use std::io::{self, Read, Write};

use bytes::Bytes;

/// Kafka's default of `compression.zstd.level`.
const ZSTD_LEVEL: i32 = 3;
/// The largest window that Zstandard's own tools accept by default: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// The result of Zstandard's decoder for a frame whose window is above the limit; its crate hands
/// on the name alone.
const WINDOW_TOO_LARGE: usize =
    (zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge as usize)
        .wrapping_neg();

/// How the records of a batch are compressed: bits 0 to 2 of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Compression {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    /// LZ4.
    Lz4 = 3,
    /// Zstandard; only for Produce 7 and Fetch 10 or later.
    Zstd = 4,
}

impl Compression {
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
    /// The bytes are not valid for the codec.
    #[error("not valid {}", .0.name())]
    Invalid(Compression),
    /// The output would exceed the bound.
    #[error("more than {limit_bytes} bytes when decompressed")]
    TooLarge { limit_bytes: usize },
    /// The window that the sender chose exceeds the bound.
    #[error("takes more memory to decompress than is allowed")]
    WindowTooLarge,
}

impl DecompressError {
    /// Turns an I/O error of a [`decompressor`] into the codec's.
    pub(crate) fn of_stream(codec: Compression, error: &io::Error) -> Self {
        let own = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Self>());
        let is_window = || error.to_string() == zstd::zstd_safe::get_error_name(WINDOW_TOO_LARGE);
        own.copied().unwrap_or_else(|| match codec {
            Compression::Zstd if is_window() => Self::WindowTooLarge,
            _ => Self::Invalid(codec),
        })
    }
}

/// Bounds on the memory and output of decompressing; the input's own claims do not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The window of Zstandard and of snappy, which their sender chooses. LZ4 takes up to 16 MiB and
    /// gzip some KiB whatever is said here.
    pub window_bytes: usize,
    /// Bytes of the whole output.
    pub out_bytes: usize,
}

/// Decompressed bytes, read as they come out; only a window of them is in memory. A larger window,
/// or more output, than the limits allow is an error.
pub struct Decompressor<'a> {
    inner: Box<dyn Read + 'a>,
    limit_bytes: usize,
    left_bytes: usize,
}

impl Decompressor<'_> {
    /// How many bytes may still come out.
    pub(crate) fn left_bytes(&self) -> usize {
        self.left_bytes
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        let is_within = read <= self.left_bytes;
        self.left_bytes = self.left_bytes.saturating_sub(read);
        let limit_bytes = self.limit_bytes;
        let too_large = || io::Error::other(DecompressError::TooLarge { limit_bytes });
        is_within.then_some(read).ok_or_else(too_large)
    }
}

pub fn decompressor(
    codec: Compression,
    input: &[u8],
    limits: Limits,
) -> Result<Decompressor<'_>, DecompressError> {
    let invalid = |_| DecompressError::Invalid(codec);
    let inner: Box<dyn Read> = match codec {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(gzip::Decompressor::new(input)),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(input)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(invalid)?;
            let window_log = limits.window_bytes.checked_ilog2().unwrap_or(0);
            decoder
                .window_log_max(window_log.min(ZSTD_WINDOW_LOG_MAX))
                .map_err(invalid)?;
            Box::new(decoder)
        }
        Compression::Snappy => Box::new(snappy::Decompressor::new(input, limits.window_bytes)),
    };
    Ok(Decompressor {
        inner,
        limit_bytes: limits.out_bytes,
        left_bytes: limits.out_bytes,
    })
}

/// Decompresses into at most `limit_bytes`. Memory follows what really comes out, not what the
/// input claims.
pub fn decompress(
    codec: Compression,
    input: &Bytes,
    limit_bytes: usize,
) -> Result<Bytes, DecompressError> {
    if codec == Compression::None {
        return if input.len() > limit_bytes {
            Err(DecompressError::TooLarge { limit_bytes })
        } else {
            Ok(input.clone())
        };
    }
    // The sender chooses Zstandard's window, but only output fills it.
    let window_bytes = match codec {
        Compression::Zstd => 1 << ZSTD_WINDOW_LOG_MAX,
        _ => limit_bytes,
    };
    let limits = Limits {
        window_bytes,
        out_bytes: limit_bytes,
    };
    let mut out = Vec::new();
    decompressor(codec, input, limits)?
        .read_to_end(&mut out)
        .map_err(|error| DecompressError::of_stream(codec, &error))?;
    Ok(Bytes::from(out))
}

/// Compresses what is written to it into the writer below, as it comes.
pub(crate) enum Compressor<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
    Snappy(snappy::Compressor<W>),
}

impl<W: Write> Compressor<W> {
    /// Compresses as Kafka's Java client does by default.
    pub(crate) fn new(codec: Compression, out: W) -> io::Result<Self> {
        Ok(match codec {
            Compression::None => Self::None(out),
            Compression::Gzip => {
                let level = flate2::Compression::default();
                Self::Gzip(flate2::write::GzEncoder::new(out, level))
            }
            Compression::Lz4 => Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(out))),
            Compression::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?),
            Compression::Snappy => Self::Snappy(snappy::Compressor::new(out)?),
        })
    }

    /// Writes the rest, and returns the writer below.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::None(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::from),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Snappy(encoder) => encoder.finish(),
        }
    }

    fn inner(&mut self) -> &mut dyn Write {
        match self {
            Self::None(out) => out,
            Self::Gzip(encoder) => encoder,
            Self::Lz4(encoder) => encoder.as_mut(),
            Self::Zstd(encoder) => encoder,
            Self::Snappy(encoder) => encoder,
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, input: &[u8]) -> io::Result<usize> {
        self.inner().write(input)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner().flush()
    }
}

/// Compresses as Kafka's Java client does by default.
pub fn compress(codec: Compression, input: &[u8]) -> Bytes {
    let compress = || {
        let mut encoder = Compressor::new(codec, Vec::new())?;
        encoder.write_all(input)?;
        encoder.finish()
    };
    Bytes::from(compress().expect("writing to memory does not fail"))
}
