//! What takes looking at the records of a batch: their number, and a topic's own compression. Only
//! the latter decompresses, and off the async threads. It must not know requests' headers.

use std::collections::HashMap;

use wire::batch::{Batch, HEADER_BYTES, ProduceLimits, check_produce};
use wire::compression::Compression;
use wire::messages::produce::{PartitionProduceData, ProduceRequest};
use wire::recompress::recompress;
use wire::records::RecordError;

use super::{Gap, Refusal, topic_key};
use crate::edge::memory::Room;
use crate::view::{Rules, View};

/// What precedes the timestamp delta of a record.
const ATTRIBUTES_BYTES: usize = 1;
/// Where the bits of a batch's codec are: the lower byte of its attributes.
const CODEC_AT: usize = 22;
const CODEC_BITS: u8 = 0b111;

/// Batches of a request as their topics want them compressed, by place in the request.
pub(super) type Recompressed = HashMap<Gap, Result<Batch, RecordError>>;

/// Memory was not enough for all of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Short(pub(super) Recompressed);

/// Checks what a batch says of its records, as far as that can be done without decompressing.
pub(super) fn check(compression: Compression, batch: &Batch) -> Result<(), Refusal> {
    // Where nothing need be decompressed the records are counted: a header that lies about them
    // would make offsets that no reader ever sees.
    match compression {
        Compression::None => count(batch).map_err(refuse),
        _ => Ok(()),
    }
}

pub(super) fn refuse(error: RecordError) -> Refusal {
    Refusal {
        code: error.code(),
        why: Some(error.to_string()),
        record: match error {
            RecordError::Malformed { index }
            | RecordError::OffsetDelta { index, .. }
            | RecordError::TimestampOverflow { index } => Some(index),
            _ => None,
        },
    }
}

/// The batches of a request that their topics want compressed otherwise.
fn unlike<'a>(
    view: &'a View,
    request: &'a ProduceRequest,
    version: i16,
) -> impl Iterator<Item = (Gap, &'a Rules, Compression, &'a PartitionProduceData)> {
    let topics = request.topic_data.iter().enumerate();
    let wanting = topics.filter_map(move |(at, topic)| {
        let rules = &view.find(topic_key(topic, version))?.rules;
        Some((at, topic, rules, rules.compression?))
    });
    wanting.flat_map(|(at, topic, rules, wanted)| {
        let partitions = topic.partition_data.iter().enumerate();
        let unlike = partitions.filter(move |(_, data)| {
            let records = data.records.as_ref();
            let codec = records.and_then(|records| records.get(CODEC_AT));
            codec.is_some_and(|codec| codec & CODEC_BITS != wanted as u8)
        });
        unlike.map(move |(index, data)| ((at, index), rules, wanted, data))
    })
}

/// True if a topic wants a batch of a request compressed otherwise.
pub(super) fn is_unlike(view: &View, request: &ProduceRequest, version: i16) -> bool {
    unlike(view, request, version).next().is_some()
}

/// Compresses the batches of a request as their topics want them. Those that may not be written
/// anyway are left out.
pub(super) fn recompress_all(
    view: &View,
    request: &ProduceRequest,
    version: i16,
    room: Room,
) -> Result<Recompressed, Short> {
    let mut done = Recompressed::new();
    let mut output_left = room.output_bytes;
    let mut is_short = false;
    for (gap, rules, wanted, data) in unlike(view, request, version) {
        let limits = ProduceLimits {
            produce_version: version,
            batch_bytes_max: rules.batch_bytes_max,
            timestamp_type: rules.timestamp_type,
        };
        let records = data.records.clone().unwrap_or_default();
        let Ok(checked) = check_produce(&records, limits) else {
            continue;
        };
        let limit_bytes = rules.batch_bytes_max.min(output_left);
        let batch = recompress(&checked.batch, wanted, room.window_bytes, limit_bytes);
        match &batch {
            Ok(batch) => output_left -= batch.length_bytes(),
            Err(RecordError::TooLarge { .. }) => is_short |= limit_bytes < rules.batch_bytes_max,
            Err(RecordError::Decompress(_)) => is_short = true,
            Err(_) => {}
        }
        done.insert(gap, batch);
    }
    if is_short { Err(Short(done)) } else { Ok(done) }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use wire::builder::BatchBuilder;

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
