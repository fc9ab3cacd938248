//! What takes reading the records of a batch: their number, keys that a compacted topic demands, and
//! a topic's own compression. Only the latter two decompress. It must not know requests.

use wire::batch::Batch;
use wire::builder::{BatchBuilder, HeaderRef};
use wire::compression::Compression;
use wire::errors::ErrorCode;
use wire::records::{RecordError, check_records, records};

use super::Refusal;
use crate::view::Rules;

/// How much a batch may grow when it is decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

/// The batch as the topic wants it.
pub(super) fn apply(
    rules: &Rules,
    compression: Compression,
    batch: Batch,
) -> Result<Batch, Refusal> {
    // Where nothing need be decompressed the records are counted: a header that lies about them
    // would make offsets that no reader ever sees.
    if rules.compacted || compression == Compression::None {
        let summary = check_records(&batch, DECOMPRESSED_BYTES_MAX).map_err(refuse)?;
        if let (true, Some(record)) = (rules.compacted, summary.first_without_key) {
            return Err(Refusal {
                code: ErrorCode::InvalidRecord,
                why: Some("a compacted topic takes no record without a key".to_owned()),
                record: Some(record),
            });
        }
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
