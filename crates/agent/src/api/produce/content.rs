//! What takes looking at the records of a batch: their number, and a topic's own compression. Only
//! the latter decompresses. It must not know requests.

use wire::batch::{Batch, HEADER_BYTES};
use wire::builder::{BatchBuilder, HeaderRef};
use wire::compression::Compression;
use wire::errors::ErrorCode;
use wire::records::{RecordError, records};

use super::Refusal;
use crate::view::Rules;

/// How much a batch may grow when it is decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;
/// What precedes the timestamp delta of a record.
const ATTRIBUTES_BYTES: usize = 1;

/// The batch as the topic wants it.
pub(super) fn apply(
    rules: &Rules,
    compression: Compression,
    batch: Batch,
) -> Result<Batch, Refusal> {
    // Where nothing need be decompressed the records are counted: a header that lies about them
    // would make offsets that no reader ever sees.
    if compression == Compression::None {
        count(&batch).map_err(refuse)?;
    }
    match rules.compression {
        Some(wanted) if wanted != compression => recompress(&batch, wanted),
        _ => Ok(batch),
    }
}

fn refuse(error: RecordError) -> Refusal {
    Refusal {
        code: error.code(),
        why: Some(error.to_string()),
        record: None,
    }
}

/// Compares the number of records, and their offset deltas, with the header. It steps over keys and
/// values: reading them too would cost as much as all the rest of a request.
fn count(batch: &Batch) -> Result<(), RecordError> {
    let records = &batch.bytes()[HEADER_BYTES..];
    let (mut at, mut index) = (0, 0_i32);
    while at < records.len() {
        let malformed = RecordError::Malformed { index };
        let length = varint(records, &mut at).and_then(|length| usize::try_from(length).ok());
        let end = length
            .and_then(|length| at.checked_add(length))
            .ok_or(malformed)?;
        let record = records.get(..end).ok_or(malformed)?;
        at += ATTRIBUTES_BYTES;
        varint(record, &mut at).ok_or(malformed)?;
        let offset_delta = varint(record, &mut at).ok_or(malformed)?;
        if offset_delta != i64::from(index) {
            let offset_delta = i32::try_from(offset_delta).map_err(|_| malformed)?;
            return Err(RecordError::OffsetDelta {
                index,
                offset_delta,
            });
        }
        at = end;
        index = index.checked_add(1).ok_or(malformed)?;
    }
    if index == batch.count() {
        Ok(())
    } else {
        Err(RecordError::CountMismatch)
    }
}

/// A zigzag number of at most ten bytes.
fn varint(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
        }
    }
    None
}

fn recompress(batch: &Batch, wanted: Compression) -> Result<Batch, Refusal> {
    let mut builder = BatchBuilder::new(wanted).producer(
        batch.producer_id(),
        batch.producer_epoch(),
        batch.base_sequence(),
    );
    for record in records(batch, DECOMPRESSED_BYTES_MAX).map_err(refuse)? {
        let record = record.map_err(refuse)?;
        let headers: Option<Vec<HeaderRef<'_>>> = record
            .headers
            .iter()
            .map(|header| {
                Some((
                    std::str::from_utf8(&header.key).ok()?,
                    header.value.as_deref(),
                ))
            })
            .collect();
        let Some(headers) = headers else {
            return Err(Refusal {
                code: ErrorCode::InvalidRecord,
                why: Some("a header's key is not UTF-8".to_owned()),
                record: Some(record.offset_delta),
            });
        };
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.append(record.timestamp_ms, key, value, &headers);
    }
    if builder.count() != batch.count() {
        return Err(refuse(RecordError::CountMismatch));
    }
    let mut bytes = builder.build();
    match Batch::take(&mut bytes) {
        Ok(Some(batch)) => Ok(batch),
        _ => Err(ErrorCode::InvalidRecord.into()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn batch(edit: impl FnOnce(&mut Vec<u8>)) -> Batch {
        let mut builder = BatchBuilder::new(Compression::None);
        for n in 0..300 {
            builder.append(n * 1_000_000, Some(b"key"), Some(&[0; 100]), &[]);
        }
        let mut bytes = builder.build().to_vec();
        edit(&mut bytes);
        Batch::take(&mut Bytes::from(bytes)).unwrap().unwrap()
    }

    #[test]
    fn records_are_counted_without_being_read() {
        assert_eq!(count(&batch(|_| ())), Ok(()));
        let fewer = batch(|bytes| bytes[60] -= 1);
        assert_eq!(count(&fewer), Err(RecordError::CountMismatch));
        // The first record's offset delta, behind length (two bytes), attributes and timestamp.
        let shifted = batch(|bytes| bytes[HEADER_BYTES + 4] = 2);
        assert_eq!(
            count(&shifted),
            Err(RecordError::OffsetDelta {
                index: 0,
                offset_delta: 1
            })
        );
        let endless = batch(|bytes| bytes[HEADER_BYTES..HEADER_BYTES + 10].fill(0xff));
        assert_eq!(count(&endless), Err(RecordError::Malformed { index: 0 }));
    }
}
