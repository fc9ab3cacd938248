//! Record batches of format 2 as they lie in requests and files: a view of the header, the checks
//! of a Produce, and the fields that may be changed without touching the records.
//!
//! It must not know partitions or decompress anything; what is inside a batch is for `records`.
//!
//! Layout (Kafka's protocol guide, "Record Batch"; offsets in bytes): 0 base offset, 8 length of what
//! follows, 12 leader epoch, 16 magic, 17 CRC-32C of all from 21, 21 attributes, 23 last offset delta,
//! 27 base timestamp, 35 max timestamp, 43 producer id, 51 producer epoch, 53 base sequence, 57
//! count, 61 records. Base offset and leader epoch lie outside the checksum: they are written when a
//! batch is sent, and the rest stays as it came.

use bytes::{Bytes, BytesMut};

use crate::compression::Compression;
use crate::errors::ErrorCode;
use crate::rope::Rope;

/// Bytes before the records.
pub const HEADER_BYTES: usize = 61;
/// Bytes at the start that a sender may write anew: base offset, length, leader epoch.
pub const PATCHED_BYTES: usize = 16;
/// Base offset and length, which the length does not count.
const OVERHEAD_BYTES: usize = 12;
const MAGIC: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const MAX_TIMESTAMP: usize = 35;

const COMPRESSION_BITS: i16 = 0b111;
const TIMESTAMP_TYPE_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;
const DELETE_HORIZON_BIT: i16 = 1 << 6;

/// Whose clock a batch's timestamps come from; Kafka's `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer's, record by record.
    #[default]
    CreateTime,
    /// The server's: one for the whole batch.
    LogAppendTime,
}

/// What is wrong with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("the batch is cut off")]
    Truncated,
    /// The length field is smaller than a header.
    #[error("the batch states a length of {0} bytes")]
    InvalidLength(i32),
    #[error("the batch has magic {0}, not 2")]
    UnsupportedMagic(i8),
    #[error("the batch's checksum is wrong")]
    Corrupt,
    /// A partition of a Produce must have exactly one batch.
    #[error("a partition must be sent exactly one batch")]
    NotOneBatch,
    #[error("the batch has {length_bytes} bytes, {max_bytes} are allowed")]
    TooLarge {
        length_bytes: usize,
        max_bytes: usize,
    },
    /// The codec does not exist, or not in this version of the request.
    #[error("the batch's compression is not supported here")]
    UnsupportedCompression,
    /// A client may not write control records.
    #[error("a client may not write control records")]
    Control,
    /// A client must send base offset 0.
    #[error("the batch's base offset is {0}, not 0")]
    InvalidBaseOffset(i64),
    /// The count is not positive or does not match the last offset delta.
    #[error("the batch's count is {count} at a last offset delta of {last_offset_delta}")]
    InvalidCount {
        /// Records, by the header.
        count: i32,
        /// Last offset delta, by the header.
        last_offset_delta: i32,
    },
    /// Producer id, epoch and sequence do not go together.
    #[error("the batch's producer id, epoch and sequence do not go together")]
    InvalidProducer,
    /// A client set the bit that says "append time".
    #[error("a client may not set the time of the append")]
    InvalidTimestamp,
    /// Base offset and delta exceed 63 bits.
    #[error("the batch's offsets overflow")]
    OffsetOverflow,
}

impl BatchError {
    /// The code that the producer gets: as in Kafka's `ProduceRequest.validateRecords`,
    /// `UnifiedLog` and `LogValidator`.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Truncated | Self::InvalidLength(_) | Self::Corrupt => ErrorCode::CorruptMessage,
            Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::UnsupportedCompression => ErrorCode::UnsupportedCompressionType,
            Self::InvalidTimestamp => ErrorCode::InvalidTimestamp,
            Self::UnsupportedMagic(_)
            | Self::NotOneBatch
            | Self::Control
            | Self::InvalidBaseOffset(_)
            | Self::InvalidCount { .. }
            | Self::InvalidProducer
            | Self::OffsetOverflow => ErrorCode::InvalidRecord,
        }
    }
}

/// The bytes of one whole batch of format 2. Its checksum and fields are checked separately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch(Bytes);

impl Batch {
    /// Takes the first batch out of `records`; None if nothing is left.
    pub fn take(records: &mut Bytes) -> Result<Option<Self>, BatchError> {
        if records.is_empty() {
            return Ok(None);
        }
        let length = records
            .get(8..OVERHEAD_BYTES)
            .ok_or(BatchError::Truncated)?;
        let length = i32::from_be_bytes(array(length));
        let bytes = usize::try_from(length).map_err(|_| BatchError::InvalidLength(length))?;
        let magic = *records.get(MAGIC).ok_or(BatchError::Truncated)? as i8;
        if magic != 2 {
            return Err(BatchError::UnsupportedMagic(magic));
        }
        if bytes < HEADER_BYTES - OVERHEAD_BYTES {
            return Err(BatchError::InvalidLength(length));
        }
        if bytes > records.len() - OVERHEAD_BYTES {
            return Err(BatchError::Truncated);
        }
        Ok(Some(Self(records.split_to(OVERHEAD_BYTES + bytes))))
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        array(&self.0[at..at + N])
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Size of the whole batch in bytes.
    pub fn length_bytes(&self) -> usize {
        self.0.len()
    }

    /// Offset of the first record; 0 until a server writes it.
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(self.field(0))
    }

    /// The leader epoch that a server writes.
    pub fn leader_epoch(&self) -> i32 {
        i32::from_be_bytes(self.field(12))
    }

    /// The checksum as stated.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.field(CRC))
    }

    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(self.field(ATTRIBUTES))
    }

    /// The codec of the records.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let bits = (self.attributes() & 7) as u8;
        Compression::from_bits(bits).ok_or(BatchError::UnsupportedCompression)
    }

    /// Whose clock the timestamps come from.
    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes() & TIMESTAMP_TYPE_BIT {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch holds transaction markers.
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL_BIT != 0
    }

    /// Whether the base timestamp is a delete horizon, which only log compaction sets.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes() & DELETE_HORIZON_BIT != 0
    }

    /// Offset of the last record less that of the first.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.field(23))
    }

    /// Milliseconds since 1970 of the first record; -1 if it has none.
    pub fn base_timestamp_ms(&self) -> i64 {
        i64::from_be_bytes(self.field(27))
    }

    /// Milliseconds since 1970, the greatest of all records; -1 if they have none.
    pub fn max_timestamp_ms(&self) -> i64 {
        i64::from_be_bytes(self.field(MAX_TIMESTAMP))
    }

    /// The producer; -1 if it is not idempotent.
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(self.field(43))
    }

    /// The producer's epoch, or -1.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.field(51))
    }

    /// The sequence number of the first record, or -1.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.field(53))
    }

    /// Records, by the header.
    pub fn count(&self) -> i32 {
        i32::from_be_bytes(self.field(57))
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> Result<i64, BatchError> {
        let next = i64::from(self.last_offset_delta()) + 1;
        self.base_offset()
            .checked_add(next)
            .ok_or(BatchError::OffsetOverflow)
    }

    /// The records as they lie here, compressed or not.
    pub fn payload(&self) -> Bytes {
        self.0.slice(HEADER_BYTES..)
    }

    pub fn check_crc(&self) -> Result<(), BatchError> {
        if checksum(&self.0[ATTRIBUTES..]) == self.crc() {
            return Ok(());
        }
        Err(BatchError::Corrupt)
    }

    /// The header fields that metadata needs.
    pub fn summary(&self) -> Result<BatchSummary, BatchError> {
        Ok(BatchSummary {
            length_bytes: self.0.len(),
            compression: self.compression()?,
            timestamp_type: self.timestamp_type(),
            is_transactional: self.is_transactional(),
            is_control: self.is_control(),
            count: self.count(),
            last_offset_delta: self.last_offset_delta(),
            base_timestamp_ms: self.base_timestamp_ms(),
            max_timestamp_ms: self.max_timestamp_ms(),
            producer_id: self.producer_id(),
            producer_epoch: self.producer_epoch(),
            base_sequence: self.base_sequence(),
        })
    }

    /// The first bytes of the batch with the offset and epoch that it has in the log. The rest,
    /// `bytes()[16..]`, is sent as it is: the checksum covers none of these.
    pub fn patched_header(&self, base_offset: i64, leader_epoch: i32) -> [u8; PATCHED_BYTES] {
        let mut header: [u8; PATCHED_BYTES] = self.field(0);
        header[..8].copy_from_slice(&base_offset.to_be_bytes());
        header[12..].copy_from_slice(&leader_epoch.to_be_bytes());
        header
    }

    /// Appends the batch, with the offset and epoch that it has in the log, without copying
    /// records.
    pub fn append_patched(&self, base_offset: i64, leader_epoch: i32, out: &mut Rope) {
        out.push(Bytes::copy_from_slice(
            &self.patched_header(base_offset, leader_epoch),
        ));
        out.push(self.0.slice(PATCHED_BYTES..));
    }

    /// Everything before the records.
    pub(crate) fn header(&self) -> &[u8] {
        &self.0[..HEADER_BYTES]
    }

    /// The batch's header in front of its records in another codec, with attributes, length and
    /// checksum adjusted.
    pub(crate) fn rewritten(
        mut bytes: BytesMut,
        compression: Compression,
        max_timestamp_ms: i64,
    ) -> Self {
        let length = (bytes.len() - OVERHEAD_BYTES) as i32;
        bytes[OVERHEAD_BYTES - 4..OVERHEAD_BYTES].copy_from_slice(&length.to_be_bytes());
        let attributes = i16::from_be_bytes(array(&bytes[ATTRIBUTES..ATTRIBUTES + 2]));
        let attributes = attributes & !COMPRESSION_BITS | compression as i16;
        bytes[ATTRIBUTES..ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
        bytes[MAX_TIMESTAMP..MAX_TIMESTAMP + 8].copy_from_slice(&max_timestamp_ms.to_be_bytes());
        write_checksum(&mut bytes);
        Self(bytes.freeze())
    }

    /// A copy with another timestamp type and largest timestamp in its header, and a new checksum.
    pub fn with_time(&self, timestamp_type: TimestampType, max_timestamp_ms: i64) -> Self {
        let mut bytes = BytesMut::from(&self.0[..]);
        let attributes = match timestamp_type {
            TimestampType::CreateTime => self.attributes() & !TIMESTAMP_TYPE_BIT,
            TimestampType::LogAppendTime => self.attributes() | TIMESTAMP_TYPE_BIT,
        };
        bytes[ATTRIBUTES..ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
        bytes[MAX_TIMESTAMP..MAX_TIMESTAMP + 8].copy_from_slice(&max_timestamp_ms.to_be_bytes());
        write_checksum(&mut bytes);
        Self(bytes.freeze())
    }
}

/// Computes and writes the checksum of a batch whose other fields are final.
pub(crate) fn write_checksum(batch: &mut BytesMut) {
    let crc = checksum(&batch[ATTRIBUTES..]);
    batch[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
}

fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

/// The batches of a records field or of a slice of a file, in order. It ends after the first error.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
}

/// Walks over the batches in `records`.
pub fn batches(records: Bytes) -> Batches {
    Batches { rest: records }
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let taken = Batch::take(&mut self.rest);
        if taken.is_err() {
            self.rest.clear();
        }
        taken.transpose()
    }
}

/// The header fields that decide what happens to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSummary {
    /// Size of the whole batch in bytes.
    pub length_bytes: usize,
    /// The codec of the records.
    pub compression: Compression,
    /// Whose clock the timestamps come from.
    pub timestamp_type: TimestampType,
    /// Whether the batch belongs to a transaction.
    pub is_transactional: bool,
    /// Whether the batch holds transaction markers.
    pub is_control: bool,
    /// Records, by the header.
    pub count: i32,
    /// Offset of the last record less that of the first.
    pub last_offset_delta: i32,
    /// Milliseconds since 1970 of the first record; -1 if it has none.
    pub base_timestamp_ms: i64,
    /// Milliseconds since 1970, the greatest of all records; -1 if they have none.
    pub max_timestamp_ms: i64,
    /// The producer; -1 if it is not idempotent.
    pub producer_id: i64,
    /// The producer's epoch, or -1.
    pub producer_epoch: i16,
    /// The sequence number of the first record, or -1.
    pub base_sequence: i32,
}

/// The limits for a batch of a Produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProduceLimits {
    /// Version of the request: Zstandard came with 7.
    pub produce_version: i16,
    /// The topic's `max.message.bytes`: the size of a whole batch.
    pub batch_bytes_max: usize,
    /// The topic's `message.timestamp.type`.
    pub timestamp_type: TimestampType,
}

/// A batch that passed every check which its header allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedBatch {
    /// The batch, as sent.
    pub batch: Batch,
    pub summary: BatchSummary,
}

/// Checks what a client sent for one partition: exactly one whole batch, its checksum, and a header
/// that makes sense. The records themselves are not read: see [`check_records`](crate::scan::check_records).
pub fn check_produce(records: &Bytes, limits: ProduceLimits) -> Result<CheckedBatch, BatchError> {
    let mut rest = records.clone();
    let batch = Batch::take(&mut rest)?.ok_or(BatchError::NotOneBatch)?;
    let compression = batch.compression()?;
    if compression == Compression::Zstd && limits.produce_version < 7 {
        return Err(BatchError::UnsupportedCompression);
    }
    if !rest.is_empty() {
        return Err(BatchError::NotOneBatch);
    }
    if batch.base_offset() != 0 {
        return Err(BatchError::InvalidBaseOffset(batch.base_offset()));
    }
    if batch.length_bytes() > limits.batch_bytes_max {
        let (length_bytes, max_bytes) = (batch.length_bytes(), limits.batch_bytes_max);
        return Err(BatchError::TooLarge {
            length_bytes,
            max_bytes,
        });
    }
    batch.check_crc()?;
    let summary = batch.summary()?;
    check_header(&summary, limits.timestamp_type)?;
    Ok(CheckedBatch { batch, summary })
}

fn check_header(header: &BatchSummary, timestamp_type: TimestampType) -> Result<(), BatchError> {
    let (count, last_offset_delta) = (header.count, header.last_offset_delta);
    if count <= 0 || i64::from(count) != i64::from(last_offset_delta) + 1 {
        return Err(BatchError::InvalidCount {
            count,
            last_offset_delta,
        });
    }
    if header.is_control {
        return Err(BatchError::Control);
    }
    let has_producer = header.producer_id >= 0;
    let sequenced = header.producer_epoch >= 0 && header.base_sequence >= 0;
    if has_producer && !sequenced || !has_producer && header.is_transactional {
        return Err(BatchError::InvalidProducer);
    }
    let claims_our_clock = header.timestamp_type == TimestampType::LogAppendTime;
    if claims_our_clock && timestamp_type == TimestampType::CreateTime {
        return Err(BatchError::InvalidTimestamp);
    }
    Ok(())
}
