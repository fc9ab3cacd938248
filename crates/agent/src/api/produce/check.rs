//! What of a produce request may be written: each batch is checked, its records are read as far as
//! that is worth it, and it is made what its topic wants. It must not know what becomes of it.

use std::ops::RangeInclusive;

use bytes::Bytes;
use wire::batch::{Batch, BatchError, CheckedBatch, ProduceLimits, TimestampType, check_produce};
use wire::compression::{Compression, Limits};
use wire::errors::ErrorCode;
use wire::messages::produce::{PartitionProduceData, ProduceRequest};
use wire::recompress::recompress;
use wire::records::RecordError;
use wire::scan::check_records;

use super::topic_key;
use crate::api::errors;
use crate::data::produce::Batch as Placed;
use crate::edge::memory::{LITTLE, Room};
use crate::view::{Rules, Topic, View};

/// What is read of the records of a compressed batch, decompressed: all of what most clients send at
/// most by default (16 KiB, compressed). Beyond it the header is trusted.
const TRIED_BYTES: u64 = 64 << 10;
/// What a request may cost to be checked on the spot, in bytes of records that are walked over: the
/// largest that clients send by default, and some more.
const LIGHT_BYTES: u64 = (1 << 20) + (64 << 10);
/// What it costs to decompress, beside walking over as many bytes.
const DECOMPRESSING_COSTS: u64 = 4;

/// What may be used on an async thread.
pub(super) const HERE: Room = Room {
    unpacked_bytes: LIGHT_BYTES as usize,
    ..LITTLE
};

/// A batch that may be written.
pub(super) struct Checked {
    pub(super) batch: Placed,
    /// The time it is given, if its topic's clock is ours; else -1.
    pub(super) log_append_time_ms: i64,
    /// Bytes that it has in memory of its own, outside its request.
    pub(super) own_bytes: usize,
}

/// Why a batch is refused.
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) why: Option<String>,
    /// The record that is at fault, by its place in the batch.
    pub(super) record: Option<i32>,
}

/// What came of a batch.
pub(super) type Verdict = Result<Checked, Refusal>;

/// Memory was not enough for all of them.
pub(super) struct Short(pub(super) Vec<Verdict>);

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Refusal {
            code,
            why: None,
            record: None,
        }
    }
}

impl From<BatchError> for Refusal {
    fn from(error: BatchError) -> Self {
        Refusal {
            code: errors::of_batch(error),
            why: Some(error.to_string()),
            record: None,
        }
    }
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        Refusal {
            code: error.code(),
            why: Some(error.to_string()),
            record: match error {
                RecordError::Malformed { index }
                | RecordError::OffsetDelta { index, .. }
                | RecordError::TimestampOverflow { index }
                | RecordError::InvalidTimestamp { index } => Some(index),
                _ => None,
            },
        }
    }
}

/// True if the batches of a request may be checked on an async thread: neither are there many
/// records, nor is much to be decompressed.
pub(super) fn is_light(view: &View, request: &ProduceRequest, version: i16) -> bool {
    let weights = request.topic_data.iter().flat_map(|topic| {
        let rules = view
            .find(topic_key(topic, version))
            .map(|topic| topic.rules);
        let records = topic.partition_data.iter();
        let records = records.filter_map(|data| data.records.as_ref());
        records.map(move |records| weight(rules.as_ref(), records))
    });
    weights.fold(0, u64::saturating_add) <= LIGHT_BYTES
}

fn weight(rules: Option<&Rules>, records: &Bytes) -> u64 {
    let (Some(rules), Ok(Some(batch))) = (rules, Batch::take(&mut records.clone())) else {
        return 0;
    };
    match batch.compression() {
        Ok(codec) if rules.compression.is_some_and(|wanted| wanted != codec) => u64::MAX,
        Ok(Compression::None) => records.len() as u64,
        Ok(_) => enough_bytes(rules, &batch).saturating_mul(DECOMPRESSING_COSTS),
        Err(_) => 0,
    }
}

/// What is to be read of the records of a compressed batch: all of them if its largest timestamp
/// cannot be what its header says.
fn enough_bytes(rules: &Rules, batch: &Batch) -> u64 {
    let least_ms = batch.base_timestamp_ms().max(0);
    if rules.has_our_time() || batch.max_timestamp_ms() >= least_ms {
        TRIED_BYTES
    } else {
        u64::MAX
    }
}

/// Checks the batches of a request, in its order.
pub(super) fn check_all(
    view: &View,
    request: &ProduceRequest,
    version: i16,
    room: Room,
) -> Result<Vec<Verdict>, Short> {
    let mut checks = Checks {
        version,
        now_ms: i64::try_from(host::clock::wall_millis()).unwrap_or(i64::MAX),
        limits: Limits {
            window_bytes: room.window_bytes,
            out_bytes: room.unpacked_bytes,
        },
        output_left: room.output_bytes,
        is_short: false,
    };
    let mut verdicts = Vec::new();
    for topic in &request.topic_data {
        let found = view.find(topic_key(topic, version));
        verdicts.extend(topic.partition_data.iter().map(|data| match found {
            Some(topic) => checks.check(topic, data),
            None => Err(super::unknown_topic(version).into()),
        }));
    }
    match checks.is_short {
        true => Err(Short(verdicts)),
        false => Ok(verdicts),
    }
}

/// Checks the batches of one request.
struct Checks {
    version: i16,
    now_ms: i64,
    limits: Limits,
    /// What batches that are compressed anew may still come to.
    output_left: usize,
    is_short: bool,
}

impl Checks {
    fn check(&mut self, topic: &Topic, data: &PartitionProduceData) -> Verdict {
        let partition = topic
            .partition(data.index)
            .ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let records = data.records.as_ref().ok_or(ErrorCode::InvalidRecord)?;
        let rules = &topic.rules;
        let limits = ProduceLimits {
            produce_version: self.version,
            batch_bytes_max: rules.batch_bytes_max,
            timestamp_type: rules.timestamp_type,
        };
        let CheckedBatch { batch, summary } = check_produce(records, limits)?;
        if summary.is_transactional {
            return Err(ErrorCode::InvalidTxnState.into());
        }
        let read = match rules.compression {
            Some(wanted) if wanted != summary.compression => {
                let again = self.recompress(rules, &batch, wanted);
                again.map(|batch| (batch, false))
            }
            _ => self.read(rules, batch),
        };
        let (mut batch, time_claimed) = read.map_err(|error| self.refuse(rules, error))?;
        let log_append_time_ms = match rules.timestamp_type {
            TimestampType::CreateTime => -1,
            TimestampType::LogAppendTime => {
                batch = batch.with_time(TimestampType::LogAppendTime, self.now_ms);
                self.now_ms
            }
        };
        let is_own = batch.bytes().as_ptr() != records.as_ptr();
        let own_bytes = if is_own { batch.length_bytes() } else { 0 };
        let batch = Placed {
            partition,
            checksum: crate::data::batch_sum::known(&batch),
            // The check made sure that the count is positive.
            records: summary.count.cast_unsigned(),
            max_timestamp: batch.max_timestamp_ms(),
            time_claimed,
            producer_id: summary.producer_id,
            producer_epoch: summary.producer_epoch,
            base_sequence: summary.base_sequence,
            bytes: batch.into_bytes(),
        };
        Ok(Checked {
            batch,
            log_append_time_ms,
            own_bytes,
        })
    }

    fn recompress(
        &mut self,
        rules: &Rules,
        batch: &Batch,
        wanted: Compression,
    ) -> Result<Batch, RecordError> {
        let limit_bytes = rules.batch_bytes_max.min(self.output_left);
        let times = rules.times(self.now_ms);
        let again = recompress(batch, wanted, &times, &mut self.limits, limit_bytes);
        match &again {
            Ok(again) => self.output_left -= again.length_bytes(),
            Err(RecordError::TooLarge { .. }) => {
                self.is_short |= limit_bytes < rules.batch_bytes_max;
            }
            Err(_) => {}
        }
        again
    }

    /// Reads the records of a batch, and has its header say what their largest timestamp is: clients
    /// of several kinds say otherwise. Of compressed ones no more is read than is worth it, unless
    /// the header is seen to be wrong. True if it is only claimed what the largest timestamp is.
    fn read(&mut self, rules: &Rules, batch: Batch) -> Result<(Batch, bool), RecordError> {
        let said_ms = batch.max_timestamp_ms();
        let times = rules.times(self.now_ms);
        let mut content = None;
        if enough_bytes(rules, &batch) == TRIED_BYTES {
            let mut limits = Limits {
                out_bytes: TRIED_BYTES as usize,
                ..self.limits
            };
            let tried = check_records(&batch, &times, &mut limits, TRIED_BYTES)?;
            let is_possible = rules.has_our_time() || tried.max_timestamp_ms <= said_ms;
            content = Some(tried).filter(|tried| tried.is_whole || is_possible);
        }
        let content = match content {
            Some(content) => content,
            None => check_records(&batch, &times, &mut self.limits, u64::MAX)?,
        };
        if rules.has_our_time() {
            return Ok((batch, false));
        }
        if !content.is_whole {
            let is_within = times.contains(&said_ms);
            return is_within
                .then_some((batch, true))
                .ok_or_else(|| BatchError::InvalidTimestamp.into());
        }
        match content.max_timestamp_ms {
            max_ms if max_ms == said_ms => Ok((batch, false)),
            max_ms => Ok((batch.with_time(TimestampType::CreateTime, max_ms), false)),
        }
    }

    fn refuse(&mut self, rules: &Rules, error: RecordError) -> Refusal {
        // More memory may be what it takes.
        self.is_short |= matches!(error, RecordError::Decompress(_));
        let mut refusal = Refusal::from(error);
        if refusal.code == ErrorCode::InvalidTimestamp {
            let (before, after) = (rules.before_max_ms, rules.after_max_ms);
            let limits = format!(
                ": message.timestamp.before.max.ms is {before}, message.timestamp.after.max.ms is {after}"
            );
            refusal.why = refusal.why.map(|why| why + &limits);
        }
        refusal
    }
}

impl Rules {
    fn has_our_time(&self) -> bool {
        self.timestamp_type == TimestampType::LogAppendTime
    }

    /// The timestamps that records may have; any where they are ours.
    fn times(&self, now_ms: i64) -> RangeInclusive<i64> {
        if self.has_our_time() {
            return i64::MIN..=i64::MAX;
        }
        now_ms.saturating_sub(self.before_max_ms)..=now_ms.saturating_add(self.after_max_ms)
    }
}
