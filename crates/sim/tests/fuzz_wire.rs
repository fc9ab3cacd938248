//! Fuzzes every decoder of the Kafka protocol: frames, requests, responses, batches, records.
#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

#[path = "../../wire/tests/it/sample.rs"]
#[allow(dead_code, reason = "the samples serve other tests too")]
mod sample;

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};
use sample::{Random, Side};
use sim::mutate::fuzz;
use wire::batch::{ProduceLimits, TimestampType, batches, check_produce};
use wire::builder::BatchBuilder;
use wire::codec::{Decoder, Encoder};
use wire::compression::{Compression, Limits};
use wire::frame::{Split, decode_request, split_frame};
use wire::message::{Body, RequestBody};
use wire::messages as m;
use wire::messages::ApiKey;
use wire::recompress::recompress;
use wire::records::records;
use wire::scan::{check_records, first_record_since, record_of_max_timestamp};

const LIMIT_BYTES: usize = 1 << 20;
const WITHIN: Limits = Limits {
    window_bytes: LIMIT_BYTES,
    out_bytes: LIMIT_BYTES,
};
const ANY_TIME: RangeInclusive<i64> = i64::MIN..=i64::MAX;

/// Reads a body; one that is valid is written and read again, and must be the same message.
fn read_body<M: Body + PartialEq + std::fmt::Debug>(body: &Bytes, version: i16, flexible: bool) {
    let mut decoder = Decoder::new(body, flexible);
    let Ok(message) = M::decode_body(&mut decoder, version) else {
        return;
    };
    if decoder.finish().is_err() {
        return;
    }
    let mut encoder = Encoder::new(flexible);
    message.encode_body(&mut encoder, version);
    let written = encoder
        .finish()
        .expect("what was read can be written")
        .to_bytes()
        .slice(4..);
    let mut decoder = Decoder::new(&written, flexible);
    let again = M::decode_body(&mut decoder, version).expect("what was written can be read");
    assert_eq!(again, message);
}

fn read_side<R>(side: u8, body: &Bytes, version: i16)
where
    R: RequestBody + PartialEq + std::fmt::Debug,
    R::Response: PartialEq + std::fmt::Debug,
{
    if R::check_version(version).is_err() {
        return;
    }
    let flexible = R::KEY.api().is_flexible(version);
    match side & 1 {
        0 => read_body::<R>(body, version, flexible),
        _ => read_body::<R::Response>(body, version, flexible),
    }
}

/// The input is key, version, side, body.
fn fuzz_message(input: &[u8]) {
    let Some((head, body)) = input.split_first_chunk::<4>() else {
        return;
    };
    let [key, version, side, _] = *head;
    let (body, version) = (Bytes::copy_from_slice(body), i16::from(version));
    let Some(key) = ApiKey::from_code(i16::from(key)) else {
        return;
    };
    match key {
        ApiKey::Produce => read_side::<m::produce::ProduceRequest>(side, &body, version),
        ApiKey::Fetch => read_side::<m::fetch::FetchRequest>(side, &body, version),
        ApiKey::ListOffsets => {
            read_side::<m::list_offsets::ListOffsetsRequest>(side, &body, version)
        }
        ApiKey::Metadata => read_side::<m::metadata::MetadataRequest>(side, &body, version),
        ApiKey::OffsetCommit => {
            read_side::<m::offset_commit::OffsetCommitRequest>(side, &body, version)
        }
        ApiKey::OffsetFetch => {
            read_side::<m::offset_fetch::OffsetFetchRequest>(side, &body, version)
        }
        ApiKey::FindCoordinator => {
            read_side::<m::find_coordinator::FindCoordinatorRequest>(side, &body, version)
        }
        ApiKey::JoinGroup => read_side::<m::join_group::JoinGroupRequest>(side, &body, version),
        ApiKey::Heartbeat => read_side::<m::heartbeat::HeartbeatRequest>(side, &body, version),
        ApiKey::LeaveGroup => read_side::<m::leave_group::LeaveGroupRequest>(side, &body, version),
        ApiKey::SyncGroup => read_side::<m::sync_group::SyncGroupRequest>(side, &body, version),
        ApiKey::DescribeGroups => {
            read_side::<m::describe_groups::DescribeGroupsRequest>(side, &body, version)
        }
        ApiKey::ListGroups => read_side::<m::list_groups::ListGroupsRequest>(side, &body, version),
        ApiKey::ApiVersions => {
            read_side::<m::api_versions::ApiVersionsRequest>(side, &body, version)
        }
        ApiKey::CreateTopics => {
            read_side::<m::create_topics::CreateTopicsRequest>(side, &body, version)
        }
        ApiKey::DeleteTopics => {
            read_side::<m::delete_topics::DeleteTopicsRequest>(side, &body, version)
        }
        ApiKey::DeleteRecords => {
            read_side::<m::delete_records::DeleteRecordsRequest>(side, &body, version)
        }
        ApiKey::InitProducerId => {
            read_side::<m::init_producer_id::InitProducerIdRequest>(side, &body, version)
        }
        ApiKey::OffsetForLeaderEpoch => read_side::<
            m::offset_for_leader_epoch::OffsetForLeaderEpochRequest,
        >(side, &body, version),
        ApiKey::DescribeConfigs => {
            read_side::<m::describe_configs::DescribeConfigsRequest>(side, &body, version)
        }
        ApiKey::CreatePartitions => {
            read_side::<m::create_partitions::CreatePartitionsRequest>(side, &body, version)
        }
        ApiKey::DeleteGroups => {
            read_side::<m::delete_groups::DeleteGroupsRequest>(side, &body, version)
        }
        ApiKey::IncrementalAlterConfigs => read_side::<
            m::incremental_alter_configs::IncrementalAlterConfigsRequest,
        >(side, &body, version),
        ApiKey::OffsetDelete => {
            read_side::<m::offset_delete::OffsetDeleteRequest>(side, &body, version)
        }
        ApiKey::DescribeCluster => {
            read_side::<m::describe_cluster::DescribeClusterRequest>(side, &body, version)
        }
        ApiKey::DescribeTopicPartitions => read_side::<
            m::describe_topic_partitions::DescribeTopicPartitionsRequest,
        >(side, &body, version),
    }
}

#[test]
fn messages() {
    let mut random = Random(1);
    let mut corpus = Vec::new();
    for api in sample::apis() {
        for version in api.versions.min..=api.versions.max {
            for side in [Side::Request, Side::Response] {
                let mut input = vec![api.key as u8, version as u8, side as u8, 0];
                input.extend(sample::body(&api, side, version, &mut random));
                corpus.push(input);
            }
        }
    }
    fuzz("messages", &corpus, fuzz_message);
}

#[test]
fn frames() {
    let mut random = Random(2);
    let mut corpus = Vec::new();
    for api in sample::apis() {
        for version in api.versions.min..=api.versions.max {
            let frame = sample::request(&api, version, &mut random);
            corpus.push([&(frame.len() as i32).to_be_bytes()[..], &frame].concat());
        }
    }
    fuzz("frames", &corpus, |input| {
        let mut buffer = BytesMut::from(input);
        while let Ok(Split::Frame(frame)) = split_frame(&mut buffer, LIMIT_BYTES) {
            let _ = decode_request(&frame);
        }
    });
}

#[test]
fn record_batches() {
    let mut corpus = Vec::new();
    for codec in Compression::ALL {
        for count in [1, 30] {
            let mut builder = BatchBuilder::new(codec).producer(1, 0, 0);
            for index in 0..count {
                let value = [index; 70];
                builder.append(
                    1_000 + i64::from(index),
                    Some(&[index]),
                    Some(&value),
                    &[("h", None)],
                );
            }
            corpus.push(builder.build().to_vec());
        }
    }
    corpus.push(corpus.concat());
    let limits = ProduceLimits {
        produce_version: 9,
        batch_bytes_max: LIMIT_BYTES,
        timestamp_type: TimestampType::CreateTime,
    };
    fuzz("record batches", &corpus, |input| {
        let input = Bytes::copy_from_slice(input);
        let _ = check_produce(&input, limits);
        for batch in batches(input).flatten() {
            let _ = (batch.summary(), batch.check_crc(), batch.next_offset());
            let _ = records(&batch, LIMIT_BYTES).map(|records| records.for_each(drop));
            for enough_bytes in [100, u64::MAX] {
                let _ = check_records(&batch, &ANY_TIME, &mut WITHIN.clone(), enough_bytes);
            }
            let _ = first_record_since(&batch, 1_010, &mut WITHIN.clone());
            let _ = record_of_max_timestamp(&batch, &mut WITHIN.clone());
            // What is compressed anew is what the records say, or nothing.
            for codec in Compression::ALL {
                let mut limits = WITHIN;
                let again = recompress(&batch, codec, &ANY_TIME, &mut limits, LIMIT_BYTES);
                if let Ok(again) = again {
                    // Zstandard's window is chosen by whoever compresses: two MiB here.
                    let mut wide = Limits {
                        window_bytes: 4 * LIMIT_BYTES,
                        ..WITHIN
                    };
                    check_records(&again, &ANY_TIME, &mut wide, u64::MAX).unwrap();
                }
            }
        }
    });
}
