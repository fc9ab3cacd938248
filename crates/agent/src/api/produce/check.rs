//! Decides which batches of a produce request may be written: checks each batch, reads its records
//! as far as that is worth its cost, and rewrites it where its topic wants another codec or time.
//! It must not know what becomes of the batches.

use std::ops::RangeInclusive;

use bytes::Bytes;
use meta::commit::TimeSource;
use wire::batch::{Batch, BatchError, CheckedBatch, ProduceLimits, TimestampType, check_produce};
use wire::compression::{Compression, DecompressError, Limits};
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

/// How much of a compressed batch is decompressed and read. Most clients' largest batches by
/// default (16 KiB, compressed) fit in whole. Beyond this the header is trusted.
const TRIED_BYTES: u64 = 64 << 10;
/// A request whose check costs more than this, in bytes of records walked over, is checked off the
/// async threads. It allows the largest request that clients send by default.
const LIGHT_BYTES: u64 = (1 << 20) + (64 << 10);
/// Decompressing a byte costs this much more than walking over it.
const DECOMPRESSING_COSTS: u64 = 4;

/// The memory that a check on an async thread may use.
pub(super) const HERE: Room = Room {
    unpacked_bytes: LIGHT_BYTES as usize,
    ..LITTLE
};

pub(super) struct Checked {
    pub(super) batch: Placed,
    /// The append time, if the topic's timestamps are the server's; else -1.
    pub(super) log_append_time_ms: i64,
    /// Memory of the batch outside its request's frame.
    pub(super) own_bytes: usize,
}

pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) why: Option<String>,
    /// Index of the record at fault within the batch.
    pub(super) record: Option<i32>,
}

/// The outcome of the check of one batch.
pub(super) type Verdict = Result<Checked, Refusal>;

/// The memory was not enough for all batches; the verdicts are those that it was enough for.
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

/// True if a request may be checked on an async thread: its batches have few records and little is
/// to be decompressed.
pub(super) fn is_light(view: &View, request: &ProduceRequest, version: i16) -> bool {
    let now_ms = now_ms();
    let weights = request.topic_data.iter().flat_map(|topic| {
        let rules = view
            .find(topic_key(topic, version))
            .map(|topic| topic.rules);
        let records = topic.partition_data.iter();
        let records = records.filter_map(|data| data.records.as_ref());
        records.map(move |records| weight(rules.as_ref(), records, now_ms))
    });
    weights.fold(0, u64::saturating_add) <= LIGHT_BYTES
}

fn now_ms() -> i64 {
    i64::try_from(host::clock::wall_millis()).unwrap_or(i64::MAX)
}

fn weight(rules: Option<&Rules>, records: &Bytes, now_ms: i64) -> u64 {
    let (Some(rules), Ok(Some(batch))) = (rules, Batch::take(&mut records.clone())) else {
        return 0;
    };
    match batch.compression() {
        Ok(codec) if rules.compression.is_some_and(|wanted| wanted != codec) => u64::MAX,
        Ok(Compression::None) => records.len() as u64,
        Ok(_) => enough_bytes(rules, &batch, now_ms).saturating_mul(DECOMPRESSING_COSTS),
        Err(_) => 0,
    }
}

/// How many decompressed bytes of a batch are read: all of them if the header's largest timestamp
/// cannot be right, or would not be allowed. In both cases only the records' timestamps count.
fn enough_bytes(rules: &Rules, batch: &Batch, now_ms: i64) -> u64 {
    let (least_ms, said_ms) = (batch.base_timestamp_ms().max(0), batch.max_timestamp_ms());
    let is_possible = said_ms >= least_ms && rules.times(now_ms).contains(&said_ms);
    if rules.has_our_time() || is_possible {
        TRIED_BYTES
    } else {
        u64::MAX
    }
}

pub(super) fn check_all(
    view: &View,
    request: &ProduceRequest,
    version: i16,
    room: Room,
) -> Result<Vec<Verdict>, Short> {
    let mut checks = Checks {
        version,
        now_ms: now_ms(),
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

struct Checks {
    version: i16,
    now_ms: i64,
    limits: Limits,
    /// Bytes that rewritten batches may still take.
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
                again.map(|batch| (batch, TimeSource::Records))
            }
            _ => self.read(rules, batch),
        };
        let stamped = read.and_then(|(batch, time_source)| {
            let log_append_time_ms = match rules.timestamp_type {
                TimestampType::CreateTime => return Ok((batch, time_source, -1)),
                TimestampType::LogAppendTime => self.now_ms,
            };
            // A batch that was compressed anew is counted already.
            let is_counted = batch.bytes().as_ptr() != records.as_ptr();
            let batch = match is_counted {
                true => batch.with_time(TimestampType::LogAppendTime, log_append_time_ms),
                false => self.copy(&batch, TimestampType::LogAppendTime, log_append_time_ms)?,
            };
            Ok((batch, TimeSource::Agent, log_append_time_ms))
        });
        let (batch, time_source, log_append_time_ms) =
            stamped.map_err(|error| self.refuse(rules, error))?;
        let is_own = batch.bytes().as_ptr() != records.as_ptr();
        let own_bytes = if is_own { batch.length_bytes() } else { 0 };
        let batch = Placed {
            partition,
            checksum: crate::data::batch_sum::known(&batch),
            // The check refuses counts that are not positive, so the cast is exact.
            records: summary.count.cast_unsigned(),
            max_timestamp: batch.max_timestamp_ms(),
            time_source,
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

    /// Reads the records of a batch and corrects the largest timestamp in its header, which several
    /// clients set wrongly. A compressed batch is read only as far as is worth its cost, unless its
    /// header is seen to be wrong. Also yields where the largest timestamp comes from.
    fn read(&mut self, rules: &Rules, batch: Batch) -> Result<(Batch, TimeSource), RecordError> {
        let said_ms = batch.max_timestamp_ms();
        let times = rules.times(self.now_ms);
        let mut content = None;
        if enough_bytes(rules, &batch, self.now_ms) == TRIED_BYTES {
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
            return Ok((batch, TimeSource::Records));
        }
        match content.max_timestamp_ms {
            _ if !content.is_whole => Ok((batch, TimeSource::Header)),
            max_ms if max_ms == said_ms => Ok((batch, TimeSource::Records)),
            max_ms => {
                let corrected = self.copy(&batch, TimestampType::CreateTime, max_ms)?;
                Ok((corrected, TimeSource::Records))
            }
        }
    }

    /// Copies a batch with another time in its header.
    fn copy(
        &mut self,
        batch: &Batch,
        timestamp_type: TimestampType,
        max_timestamp_ms: i64,
    ) -> Result<Batch, RecordError> {
        let Some(left) = self.output_left.checked_sub(batch.length_bytes()) else {
            self.is_short = true;
            let limit_bytes = self.output_left;
            return Err(RecordError::TooLarge { limit_bytes });
        };
        self.output_left = left;
        Ok(batch.with_time(timestamp_type, max_timestamp_ms))
    }

    fn refuse(&mut self, rules: &Rules, error: RecordError) -> Refusal {
        // With more memory such a batch may decompress; one that is not valid never does.
        self.is_short |= matches!(
            error,
            RecordError::Decompress(
                DecompressError::TooLarge { .. } | DecompressError::WindowTooLarge
            )
        );
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

    /// The timestamps that records may have; any at all where the server sets them.
    fn times(&self, now_ms: i64) -> RangeInclusive<i64> {
        if self.has_our_time() {
            return i64::MIN..=i64::MAX;
        }
        now_ms.saturating_sub(self.before_max_ms)..=now_ms.saturating_add(self.after_max_ms)
    }
}

#[cfg(test)]
mod tests;
