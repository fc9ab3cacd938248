//! What batches may use of their request's memory, and which timestamps count.

use std::sync::Arc;

use meta::config::Configs;
use meta::ids::{PartitionId, TopicId};
use wire::builder::BatchBuilder;

use super::*;

const NOW_MS: i64 = 1_700_000_000_000;
const HOUR_MS: i64 = 3_600_000;

fn topic(configs: &[(&str, &str)]) -> Topic {
    let configs = configs.iter();
    let configs = configs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let topic = meta::topic::Topic {
        version: 0,
        id: TopicId(1),
        name: "t".to_owned(),
        partitions: vec![PartitionId(1)],
        configs: configs.collect(),
        replication_factor: 0,
    };
    Topic::new(&meta::level::one::LEVEL, Arc::new(topic), &Configs::new())
}

fn checks(output_left: usize) -> Checks {
    Checks {
        version: 9,
        now_ms: NOW_MS,
        limits: Limits {
            window_bytes: 1 << 20,
            out_bytes: 1 << 20,
        },
        output_left,
        is_short: false,
    }
}

fn data(records: Bytes) -> PartitionProduceData {
    PartitionProduceData {
        index: 0,
        records: Some(records),
    }
}

/// A batch of 300 records of 1,000 bytes; `of_last` is the timestamp of the last one.
fn long(codec: Compression, of_last: i64) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    for index in 1..=300 {
        let time = if index == 300 { of_last } else { NOW_MS };
        builder.append(time, None, Some(&[7; 1_000]), &[]);
    }
    Batch::take(&mut builder.build()).unwrap().unwrap()
}

fn refusal(verdict: Verdict) -> Refusal {
    verdict.err().expect("a refusal")
}

#[test]
fn copies_for_another_time_count_as_output() {
    let plain = long(Compression::None, NOW_MS);
    let wrong = plain.with_time(TimestampType::CreateTime, -1);
    let length = plain.length_bytes();
    let timed = topic(&[("message.timestamp.type", "LogAppendTime")]);
    for (topic, batch) in [(timed, plain), (topic(&[]), wrong)] {
        let data = data(batch.into_bytes());
        let mut checks = checks(length + 10);
        assert_eq!(checks.check(&topic, &data).ok().unwrap().own_bytes, length);
        assert_eq!((checks.output_left, checks.is_short), (10, false));
        let second = refusal(checks.check(&topic, &data));
        assert_eq!(second.code, ErrorCode::MessageTooLarge);
        assert!(checks.is_short);
    }
}

#[test]
fn only_a_batch_that_more_memory_may_help_is_checked_again() {
    let recompressed = topic(&[("compression.type", "lz4")]);
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Zstd] {
        let batch = long(codec, NOW_MS);
        let mut bytes = batch.bytes().to_vec();
        bytes[61..].reverse();
        let invalid = Batch::take(&mut bytes.into()).unwrap().unwrap();
        let invalid = data(
            invalid
                .with_time(TimestampType::CreateTime, NOW_MS)
                .into_bytes(),
        );
        let mut checks = checks(1 << 20);
        let refused = refusal(checks.check(&recompressed, &invalid));
        assert_eq!(refused.code, ErrorCode::InvalidRecord, "{codec:?}");
        assert!(!checks.is_short, "{codec:?}");

        let data = data(batch.into_bytes());
        checks.limits.out_bytes = 100_000;
        refusal(checks.check(&recompressed, &data));
        assert!(checks.is_short, "{codec:?}");
    }
    let mut checks = checks(1 << 20);
    checks.limits.window_bytes = 16 << 10;
    let windowed = data(long(Compression::Zstd, NOW_MS).into_bytes());
    let refused = refusal(checks.check(&recompressed, &windowed));
    assert_eq!(refused.code, ErrorCode::InvalidRecord);
    assert!(checks.is_short, "a larger window may do");
}

#[test]
fn the_age_of_what_gets_this_agents_time_is_not_told_by_it() {
    let appended = topic(&[("message.timestamp.type", "LogAppendTime")]);
    let data = data(long(Compression::None, 0).into_bytes());
    let checked = checks(1 << 20).check(&appended, &data).ok().unwrap();
    assert_eq!(checked.log_append_time_ms, NOW_MS);
    assert_eq!(checked.batch.max_timestamp, NOW_MS);
    assert_eq!(checked.batch.time_source, TimeSource::Agent);
}

#[test]
fn timestamps_of_records_and_not_of_the_header_decide_whether_a_batch_is_allowed() {
    let later_ms = NOW_MS + 2 * HOUR_MS;
    let good = long(Compression::Gzip, NOW_MS).with_time(TimestampType::CreateTime, later_ms);
    let good = data(good.into_bytes());
    let checked = checks(1 << 20).check(&topic(&[]), &good).ok().unwrap();
    assert_eq!(checked.batch.max_timestamp, NOW_MS);
    assert_eq!(checked.batch.time_source, TimeSource::Records);

    let bad = data(long(Compression::Gzip, later_ms).into_bytes());
    let refused = refusal(checks(1 << 20).check(&topic(&[]), &bad));
    assert_eq!(refused.code, ErrorCode::InvalidTimestamp);
    assert_eq!(refused.record, Some(299));
}
