//! Where partitions begin and end, and where times lie in them.

use bytes::Bytes;
use meta::Command;
use meta::command::ConfigChanges;
use rpc::Call;
use wire::batch::{Batch, TimestampType};
use wire::builder::BatchBuilder;
use wire::compression::Compression;
use wire::errors::ErrorCode;
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use wire::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use crate::client::{Client, batch_at};
use crate::control::configs;
use crate::stand::Stand;

fn request(timestamps: &[i64]) -> ListOffsetsRequest {
    ListOffsetsRequest {
        replica_id: -1,
        topics: timestamps
            .iter()
            .map(|timestamp| ListOffsetsTopic {
                name: "t".into(),
                partitions: vec![ListOffsetsPartition {
                    timestamp: *timestamp,
                    ..ListOffsetsPartition::default()
                }],
            })
            .collect(),
        ..ListOffsetsRequest::default()
    }
}

/// Error, timestamp and offset for one timestamp.
async fn offset(client: &mut Client, timestamp: i64, version: i16) -> (i16, i64, i64) {
    let response = client.call(&request(&[timestamp]), version).await;
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.timestamp, found.offset)
}

#[tokio::test]
async fn every_special_time_and_the_records_between() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let base = host::clock::wall_millis() as i64 - 10_000;
    client
        .produce(
            "t",
            0,
            batch_at(&[("a", base), ("b", base + 20), ("c", base + 10)]),
        )
        .await;
    client
        .produce("t", 0, batch_at(&[("d", base + 30), ("e", base + 40)]))
        .await;
    for (timestamp, expected) in [
        (-1, (0, -1, 5)),
        (-2, (0, -1, 0)),
        (-3, (0, base + 40, 4)),
        (-4, (0, -1, 0)),
        (-5, (0, -1, -1)),
        (-6, (0, -1, -1)),
        (-7, (ErrorCode::UnsupportedVersion.code(), -1, -1)),
        (0, (0, base, 0)),
        (base, (0, base, 0)),
        (base + 1, (0, base + 20, 1)),
        (base + 21, (0, base + 30, 3)),
        (base + 31, (0, base + 40, 4)),
        (base + 41, (0, -1, -1)),
    ] {
        assert_eq!(
            offset(&mut client, timestamp, 11).await,
            expected,
            "{timestamp}"
        );
    }
    let unsupported = ErrorCode::UnsupportedVersion.code();
    assert_eq!(offset(&mut client, -3, 6).await.0, unsupported);
    assert_eq!(offset(&mut client, -4, 7).await.0, unsupported);
}

/// A batch of records at these times whose header states another largest timestamp.
fn saying(codec: Compression, times: &[i64], max_timestamp_ms: i64) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for time in times {
        builder.append(*time, None, Some(b"v"), &[]);
    }
    let batch = Batch::take(&mut builder.build()).unwrap().unwrap();
    let lying = batch.with_time(TimestampType::CreateTime, max_timestamp_ms);
    lying.into_bytes()
}

/// The largest timestamp in the header: Sarama up to 1.45.0 says -1, kafkajs the largest of those
/// that its user gave, kafka-go the last.
#[tokio::test]
async fn records_are_found_by_time_whatever_their_batchs_header_says() {
    let base = host::clock::wall_millis() as i64 - 100_000;
    let times = [base + 10, base + 30, base + 20];
    for (n, codec) in Compression::ALL.into_iter().enumerate() {
        let stand = Stand::new().await;
        stand.topic("t", 1, &[]).await;
        let mut client = stand.client().await;
        let said = [-1, base + 10, base + 20, base + 7_300_000, i64::MIN, base];
        for (n, said) in said.into_iter().enumerate() {
            let batch = saying(codec, &times, said);
            assert_eq!(client.produce("t", 0, batch).await.error_code, 0);
            let data = client.fetch("t", 0, 3 * n as i64).await;
            let stored = &crate::client::batches_of(&data)[0];
            assert_eq!(stored.max_timestamp_ms(), base + 30, "{codec:?} {said}");
            assert_eq!(stored.check_crc(), Ok(()));
        }
        for (timestamp, expected) in [
            (base, (0, base + 10, 0)),
            (base + 11, (0, base + 30, 1)),
            (base + 30, (0, base + 30, 1)),
            (base + 31, (0, -1, -1)),
            (-3, (0, base + 30, 1)),
        ] {
            let found = offset(&mut client, timestamp, 9).await;
            assert_eq!(found, expected, "{timestamp} {codec:?} {n}");
        }
    }
}

/// Beyond what is read of a compressed batch, its header is trusted. If the header lies, a search
/// for that time ends at the batch, whose reader learns what is wrong; searches for other times are
/// right.
#[tokio::test]
async fn a_batch_that_cannot_be_read_hides_no_other() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let base = host::clock::wall_millis() as i64 - 100_000;
    let sound = |at| saying(Compression::None, &[base + at], base + at);
    client.produce("t", 0, sound(0)).await;
    let mut builder = BatchBuilder::new(Compression::Zstd);
    // Noise does not compress.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    for n in 0..3 {
        let value: Vec<u8> = (0..70_000).map(|_| noise()).collect();
        builder.append(base + 10 + n, None, Some(&value), &[]);
    }
    let mut bytes = builder.build().to_vec();
    let end = bytes.len() - 20_000;
    bytes[end..].fill(0x5a);
    let broken = Batch::take(&mut bytes.into()).unwrap().unwrap();
    let broken = broken.with_time(TimestampType::CreateTime, base + 12);
    let produced = client.produce("t", 0, broken.into_bytes()).await;
    assert_eq!((produced.error_code, produced.base_offset), (0, 1));
    client.produce("t", 0, sound(20)).await;
    for (timestamp, expected) in [
        (base, (0, base, 0)),
        (base + 1, (0, base + 10, 1)),
        (base + 12, (0, base + 12, 1)),
        (base + 13, (0, base + 20, 4)),
        (base + 21, (0, -1, -1)),
        (-3, (0, base + 20, 4)),
    ] {
        assert_eq!(
            offset(&mut client, timestamp, 9).await,
            expected,
            "{timestamp}"
        );
    }
}

/// A batch whose header says that it ends 100 ms after its only record, which is too large to be
/// read when it is written.
fn promising(at: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::Zstd);
    builder.append(at, None, Some(&[0; 100_000]), &[]);
    let batch = Batch::take(&mut builder.build()).unwrap().unwrap();
    let batch = batch.with_time(TimestampType::CreateTime, at + 100);
    batch.into_bytes()
}

/// A time at which a search passes over the first of two slices, which are written.
async fn two_slices(client: &mut Client) -> i64 {
    let base = host::clock::wall_millis() as i64 - 100_000;
    client.produce("t", 0, promising(base)).await;
    client.produce("t", 0, batch_at(&[("b", base + 50)])).await;
    base + 50
}

#[tokio::test]
async fn times_are_looked_up_at_the_position_of_the_bounds_or_later() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    stand.control.lag();
    let time = two_slices(&mut client).await;
    assert_eq!(offset(&mut client, time - 50, 9).await, (0, time - 50, 0));
    assert_eq!(offset(&mut client, time, 9).await, (0, time, 1));
}

/// A search that the log's start, or the topic's end, has overtaken says so: that there is no such
/// record would be a plausible answer to a question that nobody could answer.
#[tokio::test]
async fn a_search_that_was_overtaken_is_repeated_by_the_client() {
    let is_locate = |call: &Call| matches!(call, Call::Locate { .. });
    let is_find = |call: &Call| matches!(call, Call::FindTime { .. });
    for (is_next, is_deleted, code) in [
        (
            is_locate as fn(&Call) -> bool,
            false,
            ErrorCode::NotLeaderOrFollower,
        ),
        (is_locate, true, ErrorCode::UnknownTopicOrPartition),
        (is_find, true, ErrorCode::UnknownTopicOrPartition),
    ] {
        let stand = Stand::new().await;
        stand.topic("t", 1, &[]).await;
        let mut client = stand.client().await;
        let time = two_slices(&mut client).await;
        let id = stand.control.find("t").id;
        let changes = ConfigChanges {
            set: configs(&[("retention.bytes", "0")]),
            ..ConfigChanges::default()
        };
        let commands = match is_deleted {
            true => vec![Command::DeleteTopic { id }],
            false => vec![Command::SetTopicConfigs { id, changes }, Command::Housekeep],
        };
        stand.control.meanwhile(is_next, commands);
        assert_eq!(offset(&mut client, time, 9).await, (code.code(), -1, -1));
    }
}

#[tokio::test]
async fn what_is_asked_twice_or_does_not_exist_is_an_error() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let twice = client.call(&request(&[-1, -2]), 8).await;
    let invalid = ErrorCode::InvalidRequest.code();
    assert!(
        twice
            .topics
            .iter()
            .all(|topic| topic.partitions[0].error_code == invalid)
    );
    let mut unknown = request(&[-1]);
    unknown.topics[0].name = "no".into();
    let answer = client.call(&unknown, 8).await;
    let code = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(answer.topics[0].partitions[0].error_code, code);
}

#[tokio::test]
async fn the_only_epoch_ends_at_the_end_and_those_before_it_at_the_start() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    client
        .produce(
            "t",
            0,
            batch_at(&[("a", host::clock::wall_millis() as i64)]),
        )
        .await;
    for (leader_epoch, expected) in [
        (meta::LEADER_EPOCH, (meta::LEADER_EPOCH, 1)),
        (meta::LEADER_EPOCH + 1, (-1, -1)),
        (0, (0, 0)),
        (-1, (-1, -1)),
    ] {
        let request = OffsetForLeaderEpochRequest {
            topics: vec![OffsetForLeaderTopic {
                topic: "t".into(),
                partitions: vec![OffsetForLeaderPartition {
                    leader_epoch,
                    ..OffsetForLeaderPartition::default()
                }],
            }],
            ..OffsetForLeaderEpochRequest::default()
        };
        let response = client.call(&request, 4).await;
        let end = &response.topics[0].partitions[0];
        assert_eq!((end.leader_epoch, end.end_offset), expected);
        assert_eq!(end.error_code, 0);
    }
}
