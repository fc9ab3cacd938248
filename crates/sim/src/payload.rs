//! What simulated clients put into records: the value that the history names, padding, and a hash of both.
//!
//! Must not know who sends or reads.

use std::collections::BTreeMap;

use bytes::Bytes;
use host::rng::Rng;
use wire::batch::Batch;
use wire::builder::BatchBuilder;
use wire::compression::Compression;

use crate::history::{Detail, Record, Value};

/// The most bytes that a batch may decompress to.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The bytes of a record that carries `value`.
pub(crate) fn record_bytes(value: i64, rng: &mut Rng) -> Vec<u8> {
    let padding = rng.below(40) as usize;
    let mut bytes = format!("{value}:").into_bytes();
    bytes.extend((0..padding).map(|_| b'a' + rng.below(26) as u8));
    bytes
}

/// The hash by which the checker compares payloads (FNV-1a, 64 bits).
pub(crate) fn hash(bytes: &[u8]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// A batch of these records; `producer` is (id, epoch, first sequence).
pub(crate) fn batch(
    records: &[Vec<u8>],
    timestamp_ms: i64,
    producer: Option<(i64, i16, i32)>,
) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(id, epoch, sequence);
    }
    for record in records {
        builder.append(timestamp_ms, None, Some(record), &[]);
    }
    builder.build()
}

/// The records of batches from an offset on, as a history tells them, and the offset after the last.
pub(crate) fn read(batches: &[(i64, Bytes)], from: i64) -> (Vec<Record>, i64) {
    let (mut records, mut next) = (Vec::new(), from);
    for (base, bytes) in batches {
        let mut rest = bytes.clone();
        let Ok(Some(batch)) = Batch::take(&mut rest) else {
            continue;
        };
        let Ok(found) = wire::records::records(&batch, BATCH_BYTES_MAX) else {
            continue;
        };
        for record in found {
            let Ok(record) = record else { break };
            let offset = base + i64::from(record.offset_delta);
            if offset < from {
                continue;
            }
            let value = record.value.unwrap_or_default();
            let detail = Detail {
                hash: Some(hash(&value)),
                pid: Some(batch.producer_id()),
                epoch: Some(i64::from(batch.producer_epoch())),
                seq: Some(i64::from(batch.base_sequence() + record.offset_delta)),
            };
            let offset_told = u64::try_from(offset).unwrap_or_default();
            records.push(Record {
                offset: offset_told,
                value: label(&value),
                detail,
            });
            next = next.max(offset + 1);
        }
        next = next.max(base + i64::from(batch.last_offset_delta()) + 1);
    }
    (records, next)
}

/// The value in a record's bytes; what cannot be told is a value that nobody sent.
fn label(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    match text
        .split_once(':')
        .and_then(|(number, _)| number.parse().ok())
    {
        Some(number) => Value::Int(number),
        None => Value::Text(text.into_owned()),
    }
}

/// Records of several keys, as one poll returns them.
pub(crate) type Polled = BTreeMap<String, Vec<Record>>;
