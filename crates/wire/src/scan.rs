//! Walks over the records of a batch as they come out of its codec: where they are in time, and
//! whether they are laid out as records are. What it keeps in memory is the codec's window, however
//! much comes out. It must not know keys, values or headers beyond their lengths.

use std::io::{self, BufRead, BufReader, Read};

use crate::batch::{Batch, TimestampType};
use crate::compression::{Compression, DecompressError, decompressor};
use crate::records::RecordError;
use crate::varint;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordPosition {
    /// Offset less the batch's base offset.
    pub offset_delta: i32,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
}

/// The first record whose timestamp is at least `timestamp_ms`, for ListOffsets. A batch whose
/// records all carry the server's time is not decompressed; for `window_bytes` see
/// [`decompressor`].
pub fn first_record_since(
    batch: &Batch,
    timestamp_ms: i64,
    window_bytes: usize,
) -> Result<Option<RecordPosition>, RecordError> {
    if batch.max_timestamp_ms() < timestamp_ms {
        return Ok(None);
    }
    if batch.timestamp_type() == TimestampType::LogAppendTime {
        return Ok(Some(RecordPosition {
            offset_delta: 0,
            timestamp_ms: batch.max_timestamp_ms(),
        }));
    }
    let payload = batch.payload();
    for position in Scan::of(batch, &payload, window_bytes)? {
        let position = position?;
        if position.timestamp_ms >= timestamp_ms {
            return Ok(Some(position));
        }
    }
    Ok(None)
}

/// The first record that carries the batch's greatest timestamp, for ListOffsets of "max timestamp";
/// None if the batch has no records. For `window_bytes` see [`decompressor`].
pub fn record_of_max_timestamp(
    batch: &Batch,
    window_bytes: usize,
) -> Result<Option<RecordPosition>, RecordError> {
    let payload = batch.payload();
    let mut best: Option<RecordPosition> = None;
    for position in Scan::of(batch, &payload, window_bytes)? {
        let position = position?;
        if best.is_none_or(|best| position.timestamp_ms > best.timestamp_ms) {
            best = Some(position);
        }
    }
    Ok(best)
}

/// The positions of a batch's records, in order. It ends after the first error.
pub(crate) struct Scan<R> {
    input: BufReader<R>,
    codec: Compression,
    index: i32,
    count: i32,
    is_over: bool,
    base_timestamp_ms: i64,
    /// The one timestamp of all records, if the server set it.
    append_time_ms: Option<i64>,
}

impl<'a> Scan<Box<dyn Read + 'a>> {
    fn of(batch: &Batch, payload: &'a [u8], window_bytes: usize) -> Result<Self, RecordError> {
        let codec = batch.compression()?;
        Ok(Scan::new(
            batch,
            codec,
            decompressor(codec, payload, window_bytes)?,
        ))
    }
}

impl<R: Read> Scan<R> {
    /// Walks over what comes out of the codec of a batch.
    pub(crate) fn new(batch: &Batch, codec: Compression, input: R) -> Self {
        let append_time_ms = match batch.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(batch.max_timestamp_ms()),
        };
        Scan {
            input: BufReader::new(input),
            codec,
            index: 0,
            count: batch.count(),
            is_over: false,
            base_timestamp_ms: batch.base_timestamp_ms(),
            append_time_ms,
        }
    }

    /// What it reads from.
    pub(crate) fn into_inner(self) -> R {
        self.input.into_inner()
    }

    fn is_at_end(&mut self) -> Result<bool, RecordError> {
        let next = self.input.fill_buf();
        next.map(<[u8]>::is_empty)
            .map_err(|error| DecompressError::of_stream(self.codec, &error).into())
    }

    fn position(&mut self) -> Result<RecordPosition, RecordError> {
        let index = self.index;
        let mut fields = Fields {
            input: &mut self.input,
            left: u64::MAX,
        };
        let (timestamp_delta, offset_delta) = fields.record().map_err(|error| match error {
            FieldError::Malformed => RecordError::Malformed { index },
            FieldError::Stream(error) => DecompressError::of_stream(self.codec, &error).into(),
        })?;
        let create_time = self.base_timestamp_ms.checked_add(timestamp_delta);
        let timestamp = self.append_time_ms.or(create_time);
        Ok(RecordPosition {
            offset_delta,
            timestamp_ms: timestamp.ok_or(RecordError::TimestampOverflow { index })?,
        })
    }
}

impl<R: Read> Iterator for Scan<R> {
    type Item = Result<RecordPosition, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let position = match self.is_at_end() {
            Ok(true) if self.index == self.count => return None,
            Ok(false) if self.index < self.count => self.position(),
            Ok(_) => Err(RecordError::CountMismatch),
            Err(error) => Err(error),
        };
        self.index += 1;
        self.is_over = position.is_err();
        Some(position)
    }
}

/// Why a field of a record is not read.
enum FieldError {
    Malformed,
    Stream(io::Error),
}

impl From<io::Error> for FieldError {
    fn from(error: io::Error) -> Self {
        FieldError::Stream(error)
    }
}

/// The fields of one record.
struct Fields<'a, R> {
    input: &'a mut R,
    /// How much of the record is left.
    left: u64,
}

impl<R: BufRead> Fields<'_, R> {
    /// Steps over a record; its timestamp delta and its offset delta.
    fn record(&mut self) -> Result<(i64, i32), FieldError> {
        self.left = self.length()?.ok_or(FieldError::Malformed)?;
        // The attributes of a record are unused.
        self.byte()?;
        let timestamp_delta = self.number()?;
        let offset_delta = i32::try_from(self.number()?).map_err(|_| FieldError::Malformed)?;
        self.skip()?;
        self.skip()?;
        let headers = i32::try_from(self.number()?).map_err(|_| FieldError::Malformed)?;
        if headers < 0 {
            return Err(FieldError::Malformed);
        }
        for _ in 0..headers {
            let key = self.length()?.ok_or(FieldError::Malformed)?;
            self.skip_bytes(key)?;
            self.skip()?;
        }
        if self.left > 0 {
            return Err(FieldError::Malformed);
        }
        Ok((timestamp_delta, offset_delta))
    }

    /// Steps over bytes that may be null.
    fn skip(&mut self) -> Result<(), FieldError> {
        match self.length()? {
            Some(bytes) => self.skip_bytes(bytes),
            None => Ok(()),
        }
    }

    fn skip_bytes(&mut self, bytes: u64) -> Result<(), FieldError> {
        self.left = self.left.checked_sub(bytes).ok_or(FieldError::Malformed)?;
        let mut skipped = self.input.by_ref().take(bytes);
        if io::copy(&mut skipped, &mut io::sink())? < bytes {
            return Err(FieldError::Malformed);
        }
        Ok(())
    }

    /// The length of what follows; `None` is null.
    fn length(&mut self) -> Result<Option<u64>, FieldError> {
        match i32::try_from(self.number()?) {
            Ok(-1) => Ok(None),
            length => length
                .ok()
                .and_then(|length| u64::try_from(length).ok())
                .map(Some)
                .ok_or(FieldError::Malformed),
        }
    }

    fn number(&mut self) -> Result<i64, FieldError> {
        varint::read_i64_by(|| self.byte())?.ok_or(FieldError::Malformed)
    }

    fn byte(&mut self) -> Result<u8, FieldError> {
        self.left = self.left.checked_sub(1).ok_or(FieldError::Malformed)?;
        let next = self.input.fill_buf()?;
        let byte = *next.first().ok_or(FieldError::Malformed)?;
        self.input.consume(1);
        Ok(byte)
    }
}
