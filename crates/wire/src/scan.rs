//! Walks over the records of a batch as they come out of its codec: finds their positions in time,
//! and checks their layout. It keeps only the codec's window in memory, however much comes out. It
//! must not know keys, values or headers beyond their lengths.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::RangeInclusive;

use crate::batch::{Batch, HEADER_BYTES, TimestampType};
use crate::compression::{Compression, DecompressError, Decompressor, Limits, decompressor};
use crate::records::RecordError;
use crate::varint;

/// The timestamp that a record without one has.
const NO_TIMESTAMP: i64 = -1;

/// A record's offset and timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordPosition {
    /// Offset less the batch's base offset.
    pub offset_delta: i32,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
}

/// The first record whose timestamp is at least `timestamp_ms`, for ListOffsets. A batch whose
/// records all carry the server's time is not decompressed. Decompressed bytes are subtracted from
/// the limits.
pub fn first_record_since(
    batch: &Batch,
    timestamp_ms: i64,
    limits: &mut Limits,
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
    read(batch, limits, |scan| {
        let mut late = scan.filter(|position| {
            let is_early = |position: &RecordPosition| position.timestamp_ms < timestamp_ms;
            !position.as_ref().is_ok_and(is_early)
        });
        late.next().transpose()
    })
}

/// The first record with the batch's greatest timestamp, for ListOffsets of "max timestamp"; None
/// if the batch has no records. Decompressed bytes are subtracted from the limits.
pub fn record_of_max_timestamp(
    batch: &Batch,
    limits: &mut Limits,
) -> Result<Option<RecordPosition>, RecordError> {
    read(batch, limits, |scan| {
        let mut best: Option<RecordPosition> = None;
        for position in scan {
            let position = position?;
            if best.is_none_or(|best| position.timestamp_ms > best.timestamp_ms) {
                best = Some(position);
            }
        }
        Ok(best)
    })
}

/// Reads records of a batch, and subtracts the decompressed bytes from the limits.
fn read<'a, T>(
    batch: &'a Batch,
    limits: &mut Limits,
    work: impl FnOnce(&mut Scan<BufReader<Decompressor<'a>>>) -> Result<T, RecordError>,
) -> Result<T, RecordError> {
    let codec = batch.compression()?;
    let input = decompressor(codec, &batch.bytes()[HEADER_BYTES..], *limits)?;
    let mut scan = Scan::new(batch, codec, BufReader::new(input));
    let done = work(&mut scan);
    limits.out_bytes = scan.input.get_ref().left_bytes();
    done
}

/// What was found by reading the records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The largest timestamp of the records read, in milliseconds since 1970; -1 if none is later.
    pub max_timestamp_ms: i64,
    /// True if all records were read.
    pub is_whole: bool,
}

/// Checks the records of a batch that a client sent: their number must be the header's, each must
/// be laid out properly, offset deltas must count up from 0, and timestamps lie within `times` if
/// records have any. Of compressed records only the first `enough_bytes` of output are read; that
/// output is subtracted from the limits.
pub fn check_records(
    batch: &Batch,
    times: &RangeInclusive<i64>,
    limits: &mut Limits,
    enough_bytes: u64,
) -> Result<Content, RecordError> {
    let codec = batch.compression()?;
    let payload = &batch.bytes()[HEADER_BYTES..];
    if codec == Compression::None {
        let mut scan = Scan::new(batch, codec, payload);
        scan.check(times)?;
        return Ok(Content {
            max_timestamp_ms: scan.max_timestamp_ms,
            is_whole: true,
        });
    }
    let input = decompressor(codec, payload, *limits)?.take(enough_bytes);
    let mut scan = Scan::new(batch, codec, BufReader::new(input));
    let checked = scan.check(times);
    let input = scan.input.get_ref();
    let is_whole = input.limit() > 0;
    limits.out_bytes = input.get_ref().left_bytes();
    if is_whole || !scan.ran_out {
        checked?;
    }
    Ok(Content {
        max_timestamp_ms: scan.max_timestamp_ms,
        is_whole,
    })
}

/// The positions of a batch's records, in order. It ends after the first error.
pub(crate) struct Scan<R> {
    input: R,
    codec: Compression,
    index: i32,
    count: i32,
    is_over: bool,
    /// True if the input ended before the records did.
    ran_out: bool,
    base_timestamp_ms: i64,
    /// The one timestamp of all records, if the server set it.
    append_time_ms: Option<i64>,
    /// The largest timestamp so far; -1 if none is later.
    max_timestamp_ms: i64,
}

impl<R: BufRead> Scan<R> {
    /// A scan over the output of a batch's codec.
    pub(crate) fn new(batch: &Batch, codec: Compression, input: R) -> Self {
        let append_time_ms = match batch.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(batch.max_timestamp_ms()),
        };
        Scan {
            input,
            codec,
            index: 0,
            count: batch.count(),
            is_over: false,
            ran_out: false,
            base_timestamp_ms: batch.base_timestamp_ms(),
            append_time_ms,
            max_timestamp_ms: NO_TIMESTAMP,
        }
    }

    pub(crate) fn into_input(self) -> R {
        self.input
    }

    /// The largest timestamp of the records so far; -1 if none is later.
    pub(crate) fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    /// Reads records, of which there must be some, to the end; see [`check_records`].
    pub(crate) fn check(&mut self, times: &RangeInclusive<i64>) -> Result<(), RecordError> {
        let mut index = 0;
        for position in self.by_ref() {
            let RecordPosition {
                offset_delta,
                timestamp_ms,
            } = position?;
            if offset_delta != index {
                return Err(RecordError::OffsetDelta {
                    index,
                    offset_delta,
                });
            }
            if timestamp_ms != NO_TIMESTAMP && !times.contains(&timestamp_ms) {
                return Err(RecordError::InvalidTimestamp { index });
            }
            index += 1;
        }
        if index == 0 {
            return Err(RecordError::CountMismatch);
        }
        Ok(())
    }

    fn is_at_end(&mut self) -> Result<bool, RecordError> {
        let next = self.input.fill_buf();
        next.map(<[u8]>::is_empty)
            .map_err(|error| DecompressError::of_stream(self.codec, &error).into())
    }

    #[inline]
    fn position(&mut self) -> Result<RecordPosition, RecordError> {
        let index = self.index;
        let (timestamp_delta, offset_delta) = match self.record_at_hand() {
            Some(record) => record,
            None => self.record().map_err(|error| {
                self.ran_out = matches!(error, FieldError::RanOut);
                match error {
                    FieldError::Malformed | FieldError::RanOut => RecordError::Malformed { index },
                    FieldError::Stream(error) => {
                        DecompressError::of_stream(self.codec, &error).into()
                    }
                }
            })?,
        };
        let create_time = self.base_timestamp_ms.checked_add(timestamp_delta);
        let timestamp = self.append_time_ms.or(create_time);
        let timestamp_ms = timestamp.ok_or(RecordError::TimestampOverflow { index })?;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        Ok(RecordPosition {
            offset_delta,
            timestamp_ms,
        })
    }

    /// Steps over the next record if it is well laid out, short, and here as a whole, as nearly all
    /// are. Bounds are checked once for each field then, and not for each byte.
    #[inline]
    fn record_at_hand(&mut self) -> Option<(i64, i32)> {
        let here = self.input.fill_buf().ok()?;
        let (length, bytes) = varint::short(here)?;
        let end = bytes + usize::try_from(length).ok()?;
        let mut fields = here.get(bytes..end)?;
        let record = fields.record().ok()?;
        self.input.consume(end);
        Some(record)
    }

    /// Steps over the next record, of which there may be more than is here.
    #[cold]
    fn record(&mut self) -> Result<(i64, i32), FieldError> {
        let mut fields = Stream {
            input: &mut self.input,
            left: u64::MAX,
        };
        fields.left = fields.length()?.ok_or(FieldError::Malformed)?;
        fields.record()
    }
}

impl<R: BufRead> Iterator for Scan<R> {
    type Item = Result<RecordPosition, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let position = match self.is_at_end() {
            Ok(true) if self.index == self.count => return None,
            Ok(false) if self.index < self.count => self.position(),
            Ok(at_end) => {
                self.ran_out = at_end;
                Err(RecordError::CountMismatch)
            }
            Err(error) => Err(error),
        };
        self.index += 1;
        self.is_over = position.is_err();
        Some(position)
    }
}

/// Why a field of a record cannot be read.
enum FieldError {
    Malformed,
    /// The input ends within the record.
    RanOut,
    Stream(io::Error),
}

impl From<io::Error> for FieldError {
    fn from(error: io::Error) -> Self {
        FieldError::Stream(error)
    }
}

/// The fields of one record, from the first that was not read yet.
trait Fields {
    fn byte(&mut self) -> Result<u8, FieldError>;
    fn skip_bytes(&mut self, bytes: u64) -> Result<(), FieldError>;
    /// How many bytes of the record are left.
    fn left(&self) -> u64;
    /// The next number, if it is short and here.
    fn short(&mut self) -> Option<i16>;

    /// Steps over all fields; yields the timestamp delta and the offset delta.
    #[inline]
    fn record(&mut self) -> Result<(i64, i32), FieldError> {
        // The attributes of a record are unused.
        self.byte()?;
        let timestamp_delta = self.number()?;
        let offset_delta = self.number32()?;
        self.skip()?;
        self.skip()?;
        let headers = u32::try_from(self.number32()?).map_err(|_| FieldError::Malformed)?;
        for _ in 0..headers {
            let key = self.length()?.ok_or(FieldError::Malformed)?;
            self.skip_bytes(key)?;
            self.skip()?;
        }
        if self.left() > 0 {
            return Err(FieldError::Malformed);
        }
        Ok((timestamp_delta, offset_delta))
    }

    /// Steps over a byte field, which may be null.
    #[inline]
    fn skip(&mut self) -> Result<(), FieldError> {
        match self.length()? {
            Some(bytes) => self.skip_bytes(bytes),
            None => Ok(()),
        }
    }

    /// The length of the next byte field; `None` for null.
    #[inline]
    fn length(&mut self) -> Result<Option<u64>, FieldError> {
        match self.number32()? {
            -1 => Ok(None),
            length => {
                let length = u64::try_from(length).map_err(|_| FieldError::Malformed)?;
                Ok(Some(length))
            }
        }
    }

    #[inline]
    fn number32(&mut self) -> Result<i32, FieldError> {
        match self.short() {
            Some(short) => Ok(i32::from(short)),
            None => varint::read_i32_by(|| self.byte())?.ok_or(FieldError::Malformed),
        }
    }

    #[inline]
    fn number(&mut self) -> Result<i64, FieldError> {
        match self.short() {
            Some(short) => Ok(i64::from(short)),
            None => varint::read_i64_by(|| self.byte())?.ok_or(FieldError::Malformed),
        }
    }
}

/// A record that is here as a whole.
impl Fields for &[u8] {
    #[inline]
    fn byte(&mut self) -> Result<u8, FieldError> {
        let (byte, rest) = self.split_first().ok_or(FieldError::Malformed)?;
        *self = rest;
        Ok(*byte)
    }

    #[inline]
    fn skip_bytes(&mut self, bytes: u64) -> Result<(), FieldError> {
        let bytes = usize::try_from(bytes).map_err(|_| FieldError::Malformed)?;
        *self = self.get(bytes..).ok_or(FieldError::Malformed)?;
        Ok(())
    }

    #[inline]
    fn left(&self) -> u64 {
        self.len() as u64
    }

    #[inline]
    fn short(&mut self) -> Option<i16> {
        let (short, bytes) = varint::short(self)?;
        *self = &self[bytes..];
        Some(short)
    }
}

/// A record that is read as it comes.
struct Stream<'a, R> {
    input: &'a mut R,
    left: u64,
}

impl<R: BufRead> Fields for Stream<'_, R> {
    fn byte(&mut self) -> Result<u8, FieldError> {
        self.left = self.left.checked_sub(1).ok_or(FieldError::Malformed)?;
        let next = self.input.fill_buf()?;
        let byte = *next.first().ok_or(FieldError::RanOut)?;
        self.input.consume(1);
        Ok(byte)
    }

    fn skip_bytes(&mut self, bytes: u64) -> Result<(), FieldError> {
        self.left = self.left.checked_sub(bytes).ok_or(FieldError::Malformed)?;
        let mut rest = bytes;
        while rest > 0 {
            let here = self.input.fill_buf()?.len();
            if here == 0 {
                return Err(FieldError::RanOut);
            }
            let step = here.min(usize::try_from(rest).unwrap_or(usize::MAX));
            self.input.consume(step);
            rest -= step as u64;
        }
        Ok(())
    }

    fn left(&self) -> u64 {
        self.left
    }

    fn short(&mut self) -> Option<i16> {
        None
    }
}
