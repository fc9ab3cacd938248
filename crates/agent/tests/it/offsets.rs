//! Where partitions begin and end, and where times lie in them.

use wire::errors::ErrorCode;
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use wire::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use crate::client::{Client, batch_at};
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
async fn the_only_epoch_ends_at_the_end() {
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
