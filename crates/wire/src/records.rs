//! The records inside a batch, read only where they are needed: for keys, for timestamps, by a
//! consumer.
//!
//! It must not know partitions; offsets and timestamps are relative to the batch. What a batch
//! decompresses to is bounded by the caller.
//!
//! Layout (Kafka's protocol guide, "Record"): length, attributes, timestamp delta, offset delta, key,
//! value, headers; all numbers but the attributes are signed variable-length integers.

use bytes::Bytes;

use crate::batch::{Batch, BatchError, TimestampType};
use crate::compression::{DecompressError, decompress};
use crate::errors::ErrorCode;
use crate::varint;

/// What is wrong with the records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The batch itself is wrong.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The records do not decompress.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// A record is malformed.
    #[error("record {index} is malformed")]
    Malformed { index: i32 },
    /// The batch holds fewer or more records than its header says.
    #[error("the batch does not hold the number of records that its header states")]
    CountMismatch,
    /// Offset deltas do not count up from 0.
    #[error("record {index} has offset delta {offset_delta}")]
    OffsetDelta { index: i32, offset_delta: i32 },
    /// Base timestamp and delta exceed 63 bits.
    #[error("the timestamp of record {index} overflows")]
    TimestampOverflow { index: i32 },
    /// The timestamp is later or earlier than the topic allows.
    #[error("the timestamp of record {index} is out of range")]
    InvalidTimestamp { index: i32 },
    /// The batch would exceed the bound with the topic's codec or time.
    #[error("more than {limit_bytes} bytes when rewritten as the topic has it")]
    TooLarge { limit_bytes: usize },
}

impl RecordError {
    /// The code that the producer gets.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Batch(error) => error.code(),
            Self::Decompress(DecompressError::TooLarge { .. }) | Self::TooLarge { .. } => {
                ErrorCode::MessageTooLarge
            }
            Self::InvalidTimestamp { .. } => ErrorCode::InvalidTimestamp,
            // CORRUPT_MESSAGE would make clients repeat the batch.
            Self::Decompress(DecompressError::Invalid(_) | DecompressError::WindowTooLarge)
            | Self::Malformed { .. }
            | Self::CountMismatch
            | Self::OffsetDelta { .. }
            | Self::TimestampOverflow { .. } => ErrorCode::InvalidRecord,
        }
    }
}

/// A header of a record. Keys may repeat and their order counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Text by convention; kept as it came.
    pub key: Bytes,
    /// The value, or null.
    pub value: Option<Bytes>,
}

/// One record. Key, value and headers are slices of the decompressed batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Offset less the batch's base offset.
    pub offset_delta: i32,
    /// Milliseconds since 1970, or -1; the server's time if the batch carries that.
    pub timestamp_ms: i64,
    /// The key, or null.
    pub key: Option<Bytes>,
    /// The value, or null.
    pub value: Option<Bytes>,
    /// Headers in the order in which they were sent.
    pub headers: Vec<Header>,
}

/// The records of one batch, in order. It ends after the first error.
#[derive(Debug, Clone)]
pub struct Records {
    data: Bytes,
    at: usize,
    index: i32,
    count: i32,
    base_timestamp_ms: i64,
    /// The one timestamp of all records, if the server set it.
    append_time_ms: Option<i64>,
}

/// Decompresses a batch into at most `limit_bytes` and walks over its records.
pub fn records(batch: &Batch, limit_bytes: usize) -> Result<Records, RecordError> {
    let data = decompress(batch.compression()?, &batch.payload(), limit_bytes)?;
    let append_time_ms = match batch.timestamp_type() {
        TimestampType::CreateTime => None,
        TimestampType::LogAppendTime => Some(batch.max_timestamp_ms()),
    };
    Ok(Records {
        data,
        at: 0,
        index: 0,
        count: batch.count(),
        base_timestamp_ms: batch.base_timestamp_ms(),
        append_time_ms,
    })
}

impl Iterator for Records {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            let left_over = self.at < self.data.len();
            self.at = self.data.len();
            return left_over.then_some(Err(RecordError::CountMismatch));
        }
        let record = self.read();
        match record {
            Ok(_) => self.index += 1,
            Err(_) => {
                self.index = self.count;
                self.at = self.data.len();
            }
        }
        Some(record)
    }
}

impl Records {
    fn read(&mut self) -> Result<Record, RecordError> {
        if self.at == self.data.len() {
            return Err(RecordError::CountMismatch);
        }
        let index = self.index;
        let malformed = RecordError::Malformed { index };
        let length = varint::read_i32(&self.data, &mut self.at).ok_or(malformed)?;
        let length = usize::try_from(length).map_err(|_| malformed)?;
        if length > self.data.len() - self.at {
            return Err(malformed);
        }
        let mut fields = Fields {
            data: self.data.slice(self.at..self.at + length),
            at: 0,
        };
        self.at += length;
        let (timestamp_delta, mut record) = fields.record().ok_or(malformed)?;
        let create_time = self.base_timestamp_ms.checked_add(timestamp_delta);
        let timestamp = self.append_time_ms.or(create_time);
        record.timestamp_ms = timestamp.ok_or(RecordError::TimestampOverflow { index })?;
        Ok(record)
    }
}

/// A cursor over the fields of one record.
struct Fields {
    data: Bytes,
    at: usize,
}

impl Fields {
    fn record(&mut self) -> Option<(i64, Record)> {
        // The attributes of a record are unused.
        self.data.get(self.at)?;
        self.at += 1;
        let timestamp_delta = varint::read_i64(&self.data, &mut self.at)?;
        let offset_delta = varint::read_i32(&self.data, &mut self.at)?;
        let key = self.nullable_bytes()?;
        let value = self.nullable_bytes()?;
        let header_count = varint::read_i32(&self.data, &mut self.at)?;
        if header_count < 0 {
            return None;
        }
        let mut headers = Vec::new();
        for _ in 0..header_count {
            let key = self.nullable_bytes()??;
            headers.push(Header {
                key,
                value: self.nullable_bytes()?,
            });
        }
        let record = Record {
            offset_delta,
            timestamp_ms: 0,
            key,
            value,
            headers,
        };
        (self.at == self.data.len()).then_some((timestamp_delta, record))
    }

    /// None if malformed, Some(None) if null.
    fn nullable_bytes(&mut self) -> Option<Option<Bytes>> {
        let length = varint::read_i32(&self.data, &mut self.at)?;
        if length == -1 {
            return Some(None);
        }
        let length = usize::try_from(length).ok()?;
        if length > self.data.len() - self.at {
            return None;
        }
        let start = self.at;
        self.at += length;
        Some(Some(self.data.slice(start..self.at)))
    }
}
