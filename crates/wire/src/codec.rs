//! Reads and writes the protocol's primitive types; every generated message is built on it.
//!
//! The input is hostile: nothing here allocates by a length that the input merely claims, and no
//! input panics. It knows no message and no socket.
//!
//! Types and encodings: Apache Kafka's protocol guide; compact types and tagged fields: KIP-482.

use bytes::{BufMut, Bytes, BytesMut};

use crate::rope::Rope;
use crate::text::Str;
use crate::uuid::Uuid;

/// What the structures decoded from one message may occupy at most, in bytes, apart from the frame
/// itself. A million partitions fit; a hostile frame of one-byte elements does not.
pub const DECODED_BYTES_MAX: usize = 64 << 20;
/// Decoded structures may also be at most this many times larger than their frame...
const DECODED_BYTES_PER_FRAME_BYTE: usize = 16;
/// ...and this much on top, so that small frames are never refused.
const DECODED_BYTES_FREE: usize = 64 << 10;
/// Record pieces below this size are copied into the surrounding bytes: a vectored write costs more
/// for another piece than for another two KiB.
pub const INLINE_PIECE_BYTES: usize = 2 << 10;

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the message does.
    #[error("the message ends early")]
    Truncated,
    /// Bytes are left after the message.
    #[error("{0} bytes are left after the message")]
    TrailingBytes(usize),
    /// A length is negative where null is not allowed, or below -1.
    #[error("a length is negative or null where it may not be")]
    InvalidLength,
    /// A variable-length integer is longer than its type.
    #[error("a variable-length integer does not end")]
    InvalidVarint,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    InvalidUtf8,
    /// A tagged field does not fill the size it states.
    #[error("a tagged field differs from its stated size")]
    InvalidTag,
    /// A marker of a nullable structure is neither -1 nor 1.
    #[error("a structure's null marker is unknown")]
    InvalidMarker,
    /// The decoded message would occupy more memory than allowed.
    #[error("the message would take too much memory")]
    TooLarge,
    /// The message has no such version here.
    #[error("version {0} of the message is not known")]
    UnsupportedVersion(i16),
}

/// Why a message cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string, an array or the whole frame is longer than its length field can say.
    #[error("a part of the message is longer than the protocol can express")]
    TooLong,
    /// The message has no such version here.
    #[error("version {0} of the message is not known")]
    UnsupportedVersion(i16),
}

/// Reads one message. Strings, byte fields and records are slices of the input, not copies.
#[derive(Debug)]
pub struct Decoder<'a> {
    input: &'a Bytes,
    at: usize,
    end: usize,
    flexible: bool,
    budget_bytes: usize,
}

impl<'a> Decoder<'a> {
    /// Reads `input` from its start; `flexible` chooses compact types and tagged fields.
    pub fn new(input: &'a Bytes, flexible: bool) -> Self {
        let budget_bytes = input
            .len()
            .saturating_mul(DECODED_BYTES_PER_FRAME_BYTE)
            .saturating_add(DECODED_BYTES_FREE)
            .min(DECODED_BYTES_MAX);
        Self {
            input,
            at: 0,
            end: input.len(),
            flexible,
            budget_bytes,
        }
    }

    /// Lets decoded structures occupy no more than so many bytes from now on.
    pub(crate) fn limit_decoded(&mut self, bytes_max: usize) {
        self.budget_bytes = self.budget_bytes.min(bytes_max);
    }

    /// What decoded structures may still occupy, in bytes.
    pub(crate) fn decoded_bytes_left(&self) -> usize {
        self.budget_bytes
    }

    /// Chooses compact types and tagged fields for what follows.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// Refuses what is left over.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes(left)),
        }
    }

    fn advance(&mut self, count: usize) -> Result<usize, DecodeError> {
        if count > self.remaining() {
            return Err(DecodeError::Truncated);
        }
        let start = self.at;
        self.at += count;
        Ok(start)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let start = self.advance(N)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.input[start..start + N]);
        Ok(out)
    }

    /// A signed byte.
    pub fn int8(&mut self) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.fixed()?))
    }

    /// Two bytes, big-endian.
    pub fn int16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.fixed()?))
    }

    /// Four bytes, big-endian.
    pub fn int32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    /// Eight bytes, big-endian.
    pub fn int64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    /// One byte; whatever is not zero is true.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.int8()? != 0)
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid::from(self.fixed::<16>()?))
    }

    /// An unsigned variable-length integer of at most 32 bits.
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(DecodeError::InvalidVarint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::InvalidVarint)
    }

    /// A length in the encoding that `flexible` chose; None is null.
    fn length(&mut self, short: bool) -> Result<Option<usize>, DecodeError> {
        if self.flexible {
            return Ok(self.uvarint()?.checked_sub(1).map(|length| length as usize));
        }
        let length = if short {
            i32::from(self.int16()?)
        } else {
            self.int32()?
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| DecodeError::InvalidLength),
        }
    }

    fn slice(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        let start = self.advance(length)?;
        Ok(self.input.slice(start..start + length))
    }

    /// A string or null.
    pub fn nullable_string(&mut self) -> Result<Option<Str>, DecodeError> {
        let Some(length) = self.length(true)? else {
            return Ok(None);
        };
        // Kafka's compact strings keep the limit of the two-byte length.
        if length > i16::MAX as usize {
            return Err(DecodeError::InvalidLength);
        }
        let bytes = self.slice(length)?;
        Str::from_utf8(bytes)
            .map(Some)
            .ok_or(DecodeError::InvalidUtf8)
    }

    /// A string; null is refused.
    pub fn string(&mut self) -> Result<Str, DecodeError> {
        self.nullable_string()?.ok_or(DecodeError::InvalidLength)
    }

    /// Bytes or null, as a slice of the input.
    pub fn nullable_bytes(&mut self) -> Result<Option<Bytes>, DecodeError> {
        match self.length(false)? {
            Some(length) => self.slice(length).map(Some),
            None => Ok(None),
        }
    }

    /// Bytes, as a slice of the input; null is refused.
    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        self.nullable_bytes()?.ok_or(DecodeError::InvalidLength)
    }

    /// Record bytes of a response, as one piece.
    pub fn nullable_rope(&mut self) -> Result<Option<Rope>, DecodeError> {
        Ok(self.nullable_bytes()?.map(Rope::from))
    }

    /// An array or null; no element is shorter than `element_bytes_min`.
    pub fn nullable_array<T>(
        &mut self,
        element_bytes_min: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.length(false)? else {
            return Ok(None);
        };
        if count > self.remaining() / element_bytes_min.max(1) {
            return Err(DecodeError::Truncated);
        }
        let bytes = count.saturating_mul(size_of::<T>());
        self.budget_bytes = self
            .budget_bytes
            .checked_sub(bytes)
            .ok_or(DecodeError::TooLarge)?;
        let mut out = Vec::with_capacity(count);
        for _ in 0..count {
            out.push(element(self)?);
        }
        Ok(Some(out))
    }

    /// An array; null is refused.
    pub fn array<T>(
        &mut self,
        element_bytes_min: usize,
        element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.nullable_array(element_bytes_min, element)?
            .ok_or(DecodeError::InvalidLength)
    }

    /// A structure or null.
    pub fn nullable_struct<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.int8()? {
            -1 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(DecodeError::InvalidMarker),
        }
    }

    /// The tagged fields at the end of a structure. `field` reads the tags it knows and returns
    /// whether it did; others are skipped, as the protocol wants.
    pub fn tags(
        &mut self,
        mut field: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let size = self.uvarint()? as usize;
            if size > self.remaining() {
                return Err(DecodeError::Truncated);
            }
            let outer_end = std::mem::replace(&mut self.end, self.at + size);
            let known = field(self, tag)?;
            if known && self.at != self.end {
                return Err(DecodeError::InvalidTag);
            }
            self.at = self.end;
            self.end = outer_end;
        }
        Ok(())
    }

    /// Tagged fields, none of which is known.
    pub fn skip_tags(&mut self) -> Result<(), DecodeError> {
        self.tags(|_, _| Ok(false))
    }
}

/// Writes one frame. A part too long for its length field is noted and reported at the end, so that
/// generated code stays free of error paths.
#[derive(Debug)]
pub struct Encoder {
    out: BytesMut,
    /// Pieces to be inserted at positions of `out`, in order.
    pieces: Vec<(usize, Bytes)>,
    piece_bytes: usize,
    flexible: bool,
    too_long: bool,
}

impl Encoder {
    /// Starts a frame with room for its length.
    pub fn new(flexible: bool) -> Self {
        let mut out = BytesMut::with_capacity(256);
        out.put_i32(0);
        Self {
            out,
            pieces: Vec::new(),
            piece_bytes: 0,
            flexible,
            too_long: false,
        }
    }

    /// Chooses compact types and tagged fields for what follows.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Fills in the frame's length and returns its pieces in order.
    pub fn finish(mut self) -> Result<Rope, EncodeError> {
        let body = self.out.len() - 4 + self.piece_bytes;
        let length = i32::try_from(body).map_err(|_| EncodeError::TooLong)?;
        if self.too_long {
            return Err(EncodeError::TooLong);
        }
        self.out[..4].copy_from_slice(&length.to_be_bytes());
        let out = self.out.freeze();
        if self.pieces.is_empty() {
            return Ok(Rope::from(out));
        }
        let mut rope = Rope::with_capacity(2 * self.pieces.len() + 1);
        let mut start = 0;
        for (at, piece) in self.pieces {
            rope.push(out.slice(start..at));
            rope.push(piece);
            start = at;
        }
        rope.push(out.slice(start..));
        Ok(rope)
    }

    /// A signed byte.
    pub fn int8(&mut self, value: i8) {
        self.out.put_i8(value);
    }

    /// Two bytes, big-endian.
    pub fn int16(&mut self, value: i16) {
        self.out.put_i16(value);
    }

    /// Four bytes, big-endian.
    pub fn int32(&mut self, value: i32) {
        self.out.put_i32(value);
    }

    /// Eight bytes, big-endian.
    pub fn int64(&mut self, value: i64) {
        self.out.put_i64(value);
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.out.put_u8(u8::from(value));
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, value: Uuid) {
        self.out.put_slice(value.as_bytes());
    }

    /// An unsigned variable-length integer.
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    fn length(&mut self, length: Option<usize>, short: bool) {
        let limit = if short {
            i16::MAX as usize
        } else {
            i32::MAX as usize - 1
        };
        let length = match length {
            Some(length) if length > limit => {
                self.too_long = true;
                Some(0)
            }
            length => length,
        };
        match (self.flexible, length) {
            (true, None) => self.uvarint(0),
            (true, Some(length)) => self.uvarint(length as u32 + 1),
            (false, None) if short => self.int16(-1),
            (false, None) => self.int32(-1),
            (false, Some(length)) if short => self.int16(length as i16),
            (false, Some(length)) => self.int32(length as i32),
        }
    }

    /// A string or null.
    pub fn nullable_string(&mut self, value: Option<&Str>) {
        self.length(value.map(Str::len), true);
        if let Some(value) = value {
            self.out.put_slice(value.as_bytes());
        }
    }

    pub fn string(&mut self, value: &Str) {
        self.nullable_string(Some(value));
    }

    /// Bytes or null.
    pub fn nullable_bytes(&mut self, value: Option<&Bytes>) {
        self.length(value.map(Bytes::len), false);
        if let Some(value) = value {
            self.piece(value);
        }
    }

    /// Bytes.
    pub fn bytes(&mut self, value: &Bytes) {
        self.nullable_bytes(Some(value));
    }

    /// Record bytes or null.
    pub fn nullable_rope(&mut self, value: Option<&Rope>) {
        self.length(value.map(Rope::len), false);
        for piece in value.map(Rope::pieces).unwrap_or_default() {
            self.piece(piece);
        }
    }

    fn piece(&mut self, piece: &Bytes) {
        if piece.len() < INLINE_PIECE_BYTES {
            self.out.put_slice(piece);
        } else {
            self.piece_bytes += piece.len();
            self.pieces.push((self.out.len(), piece.clone()));
        }
    }

    /// An array or null.
    pub fn nullable_array<T>(
        &mut self,
        value: Option<&[T]>,
        mut element: impl FnMut(&mut Self, &T),
    ) {
        self.length(value.map(<[T]>::len), false);
        for item in value.unwrap_or_default() {
            element(self, item);
        }
    }

    pub fn array<T>(&mut self, value: &[T], element: impl FnMut(&mut Self, &T)) {
        self.nullable_array(Some(value), element);
    }

    /// A structure or null.
    pub fn nullable_struct<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.int8(if value.is_some() { 1 } else { -1 });
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// How many tagged fields follow; nothing where the version has none.
    pub fn tag_count(&mut self, count: u32) {
        if self.flexible {
            self.uvarint(count);
        }
    }

    /// One tagged field: number, size, content. Content is small and never records.
    pub fn tag(&mut self, tag: u32, write: impl FnOnce(&mut Self)) {
        self.uvarint(tag);
        let start = self.out.len();
        write(self);
        let content_bytes = self.out.len() - start;
        // The size stands before the content: write it behind, then swap the two.
        self.uvarint(content_bytes as u32);
        self.out[start..].rotate_left(content_bytes);
    }
}
