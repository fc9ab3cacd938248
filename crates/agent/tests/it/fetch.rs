//! What consumers are given.

use agent::settings::Budgets;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use store::bucket::Op;
use store::faulty::{Fault, FaultRule};
use wire::builder::BatchBuilder;
use wire::compression::Compression;
use wire::errors::ErrorCode;
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};

use crate::client::{
    Client, batch, batches_of, fetch_request, large_batch, only, produce_request, values_of,
};
use crate::stand::{Stand, settings};

#[tokio::test]
async fn an_offset_within_a_batch_brings_the_whole_batch() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    client.produce("t", 0, batch(&["a", "b", "c"])).await;
    client.produce("t", 0, batch(&["d"])).await;
    assert_eq!(values_of(&client.fetch("t", 0, 1).await).len(), 4);
    assert_eq!(
        values_of(&client.fetch("t", 0, 3).await),
        [(3, "d".to_owned())]
    );
    assert_eq!(values_of(&client.fetch("t", 0, 4).await), []);
}

#[tokio::test]
async fn the_first_batch_comes_whole_and_the_others_within_the_limits() {
    let stand = Stand::new().await;
    stand.topic("t", 2, &[]).await;
    let mut client = stand.client().await;
    for partition in [0, 0, 1] {
        client.produce("t", partition, large_batch(10_000)).await;
    }
    let mut request = fetch_request("t", &[(0, 0), (1, 0)]);
    let count = async |client: &mut Client, request: &FetchRequest| {
        let response = client.call(request, 12).await;
        let counts: Vec<usize> = response.responses[0]
            .partitions
            .iter()
            .map(|data| batches_of(data).len())
            .collect();
        (counts[0], counts[1])
    };
    assert_eq!(count(&mut client, &request).await, (2, 1));
    request.max_bytes = 100;
    assert_eq!(count(&mut client, &request).await, (1, 0));
    request.max_bytes = 25_000;
    assert_eq!(count(&mut client, &request).await, (1, 1));
    request.max_bytes = 1 << 20;
    request.topics[0].partitions[0].partition_max_bytes = 5;
    assert_eq!(count(&mut client, &request).await, (1, 1));
}

#[tokio::test]
async fn a_partition_that_is_named_often_is_answered_once() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    client.produce("t", 0, batch(&["a"])).await;
    let mut request = fetch_request("t", &[(0, 0); 20_000]);
    request.topics.push(request.topics[0].clone());
    let response = client.call(&request, 12).await;
    let answered: Vec<usize> = response
        .responses
        .iter()
        .map(|topic| topic.partitions.len())
        .collect();
    assert_eq!(answered, [1, 0]);
    assert_eq!(values_of(&response.responses[0].partitions[0]).len(), 1);
}

#[tokio::test]
async fn a_long_poll_is_woken_by_a_commit() {
    let stand = Stand::new().await;
    stand.topic("t", 2, &[]).await;
    let mut reader = stand.client().await;
    let mut request = fetch_request("t", &[(0, 0), (1, 0)]);
    request.max_wait_ms = 600_000;
    reader.send(&request, 12).await;
    while !stand
        .agent
        .probe()
        .metrics()
        .contains("seaway_agent_fetch_waits_total 1")
    {
        tokio::task::yield_now().await;
    }
    stand.client().await.produce("t", 1, batch(&["a"])).await;
    let response = reader.receive::<FetchRequest>(12);
    let response = host::clock::timeout(Duration::from_secs(60), response).await;
    let response = response.expect("an answer before the ten minutes are over");
    assert_eq!(values_of(&response.responses[0].partitions[1]).len(), 1);
}

#[tokio::test]
async fn readers_at_the_end_and_those_of_the_last_records_ask_no_control_node() {
    let stand = Stand::new().await;
    stand.topic("t", 2, &[]).await;
    let mut reader = stand.client().await;
    // One answer tells where the ends are.
    reader
        .call(&fetch_request("t", &[(0, 0), (1, 0)]), 12)
        .await;
    let located = || stand.control.locates.load(Relaxed);
    let before = located();
    let mut producer = stand.client().await;
    for offset in 0..3 {
        let mut request = fetch_request("t", &[(0, 0), (1, offset)]);
        request.max_wait_ms = 30_000;
        reader.send(&request, 12).await;
        producer.produce("t", 1, batch(&["a"])).await;
        let response = reader.receive::<FetchRequest>(12).await;
        let partitions = &response.responses[0].partitions;
        assert_eq!(values_of(&partitions[1]), [(offset, "a".to_owned())]);
        assert_eq!(partitions[1].high_watermark, offset + 1);
    }
    let mut other = stand.client().await;
    for offset in 0..4 {
        let data = other.fetch("t", 1, offset).await;
        assert_eq!((data.error_code, data.high_watermark), (0, 3));
        assert_eq!(data.log_start_offset, 0);
        assert_eq!(i64::try_from(values_of(&data).len()).unwrap(), 3 - offset);
    }
    assert_eq!(located(), before, "notices say where the records are");
    let outside = ErrorCode::OffsetOutOfRange.code();
    assert_eq!(other.fetch("t", 1, 4).await.error_code, outside);

    // Who comes back to a name finds another topic.
    stand.delete("t").await;
    stand.topic("t", 2, &[]).await;
    while other.fetch("t", 1, 3).await.error_code != outside {
        tokio::task::yield_now().await;
    }
    assert_eq!(other.fetch("t", 1, 0).await.high_watermark, 0);
    producer.produce("t", 1, batch(&["b"])).await;
    let data = other.fetch("t", 1, 0).await;
    assert_eq!(values_of(&data), [(0, "b".to_owned())]);
}

#[tokio::test]
async fn an_offset_that_a_node_does_not_know_yet_is_not_out_of_range() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    stand.control.lag();
    client.produce("t", 0, batch(&["a"])).await;
    client.produce("t", 0, batch(&["b"])).await;
    let data = client.fetch("t", 0, 1).await;
    assert_eq!((data.error_code, data.high_watermark), (0, 2));
    assert_eq!(values_of(&data), [(1, "b".to_owned())]);
}

#[tokio::test]
async fn a_long_poll_without_records_ends_in_time_and_empty() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut request = fetch_request("t", &[(0, 0)]);
    request.max_wait_ms = 50;
    let start = host::clock::now();
    let data = only(stand.client().await.call(&request, 12).await);
    assert!(host::clock::now().since(start) >= Duration::from_millis(50));
    assert_eq!((data.error_code, data.high_watermark), (0, 0));
    assert_eq!(values_of(&data), []);
}

/// The answer to a fetch of one partition that could wait for a minute but must come at once.
async fn at_once(client: &mut Client, min_bytes: i32, max_bytes: i32) -> usize {
    let mut request = fetch_request("t", &[(0, 0)]);
    (request.max_wait_ms, request.min_bytes) = (60_000, min_bytes);
    request.max_bytes = max_bytes;
    let answer = host::clock::timeout(Duration::from_secs(20), client.call(&request, 12)).await;
    batches_of(&only(answer.expect("an answer at once"))).len()
}

#[tokio::test]
async fn a_fetch_does_not_wait_for_more_than_its_answer_may_hold() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    for _ in 0..2 {
        client.produce("t", 0, large_batch(10_000)).await;
    }
    assert_eq!(at_once(&mut client, 1 << 20, 15_000).await, 1);
}

#[tokio::test]
async fn a_fetch_does_not_wait_while_more_lies_there_than_is_named_at_one_time() {
    let stand = Stand::with(agent::Settings {
        flush_bytes: 1,
        ..settings()
    })
    .await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    // A control node names 1,024 places.
    for _ in 0..1_025 {
        client.produce("t", 0, batch(&["a"])).await;
    }
    assert_eq!(at_once(&mut client, 100_000, 1 << 20).await, 1_024);
}

#[tokio::test]
async fn what_does_not_exist_is_said_only_of_what_is_current() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    client.produce("t", 0, batch(&["a"])).await;
    let barriers = || {
        stand
            .control
            .barriers
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    for (topic, partition, offset, code) in [
        ("t", 0, 2, ErrorCode::OffsetOutOfRange),
        ("t", 0, -1, ErrorCode::OffsetOutOfRange),
        ("t", 7, 0, ErrorCode::UnknownTopicOrPartition),
        ("no", 0, 0, ErrorCode::UnknownTopicOrPartition),
    ] {
        let before = barriers();
        assert_eq!(
            client.fetch(topic, partition, offset).await.error_code,
            code.code()
        );
        assert!(barriers() > before, "{topic} {partition} {offset}");
    }
}

#[tokio::test]
async fn leader_epochs_are_compared() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    for (epoch, code) in [
        (-1, ErrorCode::None),
        (meta::LEADER_EPOCH, ErrorCode::None),
        (meta::LEADER_EPOCH - 1, ErrorCode::FencedLeaderEpoch),
        (meta::LEADER_EPOCH + 1, ErrorCode::UnknownLeaderEpoch),
    ] {
        let mut request = fetch_request("t", &[(0, 0)]);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        assert_eq!(
            only(client.call(&request, 12).await).error_code,
            code.code(),
            "{epoch}"
        );
    }
}

#[tokio::test]
async fn topics_go_by_id_in_later_versions() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    client.produce("t", 0, batch(&["a"])).await;
    let metadata = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some("t".into()),
            ..MetadataRequestTopic::default()
        }]),
        ..MetadataRequest::default()
    };
    let id = client.call(&metadata, 12).await.topics[0].topic_id;
    assert!(!id.is_zero());
    let by_id = |topic_id| FetchRequest {
        max_bytes: 1 << 20,
        topics: vec![FetchTopic {
            topic_id,
            partitions: vec![FetchPartition {
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    assert_eq!(values_of(&only(client.call(&by_id(id), 17).await)).len(), 1);
    let unknown = only(client.call(&by_id([7; 16].into()), 17).await);
    assert_eq!(unknown.error_code, ErrorCode::UnknownTopicId.code());
}

#[tokio::test]
async fn old_versions_get_no_zstd() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let mut builder = BatchBuilder::new(Compression::Zstd);
    builder.append(
        host::clock::wall_millis() as i64,
        None,
        Some(&[7; 500]),
        &[],
    );
    assert_eq!(client.produce("t", 0, builder.build()).await.error_code, 0);
    let request = fetch_request("t", &[(0, 0)]);
    let old = only(client.call(&request, 9).await);
    assert_eq!(old.error_code, ErrorCode::UnsupportedCompressionType.code());
    assert_eq!(batches_of(&only(client.call(&request, 10).await)).len(), 1);
}

/// An agent with an empty cache, over records that another one wrote into two partitions.
async fn reopened() -> Stand {
    let first = Stand::new().await;
    first.topic("t", 2, &[]).await;
    let mut client = first.client().await;
    client.produce("t", 0, batch(&["a"])).await;
    client.produce("t", 1, batch(&["b"])).await;
    let (control, bucket) = (first.control.clone(), first.bucket.clone());
    first.agent.stop().await;
    Stand::over(settings(), control, bucket).await
}

#[tokio::test]
async fn a_flipped_bit_on_the_way_is_read_again() {
    let stand = reopened().await;
    stand
        .bucket
        .faults()
        .add(FaultRule::on(Op::Get, Fault::Corrupt).times(1));
    assert_eq!(
        values_of(&stand.client().await.fetch("t", 0, 0).await).len(),
        1
    );
    assert!(
        stand
            .agent
            .probe()
            .metrics()
            .contains("seaway_agent_corrupt_reads_total 1\n")
    );
}

#[tokio::test]
async fn a_corrupt_file_is_a_loud_error_for_its_range_alone() {
    let stand = reopened().await;
    stand
        .bucket
        .faults()
        .add(FaultRule::on(Op::Get, Fault::Corrupt).times(2));
    let mut client = stand.client().await;
    let corrupt = client.fetch("t", 0, 0).await;
    assert_eq!(corrupt.error_code, ErrorCode::CorruptMessage.code());
    assert_eq!(batches_of(&corrupt).len(), 0);
    assert_eq!(
        values_of(&client.fetch("t", 1, 0).await),
        [(0, "b".to_owned())]
    );
    // Two attempts to load, counted as one failed load.
    let metrics = stand.agent.probe().metrics();
    assert!(metrics.contains("seaway_agent_corrupt_reads_total 1\n"));
}

#[tokio::test]
async fn a_missing_file_is_a_loud_error_for_its_range_alone() {
    let stand = reopened().await;
    let keys = store::bucket::Bucket::list(&*stand.bucket, "files/", None, 10)
        .await
        .unwrap();
    let numbered = |number: u64| {
        let found = keys.iter().find(|object| {
            store::layout::parse_file_key(&object.key).is_some_and(|(id, _)| id.number == number)
        });
        found.unwrap().key.clone()
    };
    store::bucket::Bucket::delete(&*stand.bucket, &numbered(0))
        .await
        .unwrap();
    let mut client = stand.client().await;
    let mut request = fetch_request("t", &[(0, 0), (1, 0)]);
    request.max_wait_ms = 5_000;
    let response = client.call(&request, 12).await;
    let [missing, found] = response.responses[0].partitions.as_slice() else {
        panic!()
    };
    assert_eq!(missing.error_code, ErrorCode::KafkaStorageError.code());
    assert_eq!(values_of(found), [(0, "b".to_owned())]);
    assert!(
        stand
            .agent
            .probe()
            .metrics()
            .contains("seaway_agent_missing_files_total")
    );
}

#[tokio::test]
async fn slow_readers_of_much_data_do_not_outgrow_their_memory() {
    let small = agent::Settings {
        budgets: Budgets {
            cache_bytes: 1 << 20,
            fetch_bytes: 3 << 20,
            ..Budgets::SMALL
        },
        ..settings()
    };
    let stand = Stand::with(small).await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    for _ in 0..16 {
        assert_eq!(
            client
                .produce("t", 0, large_batch(900_000))
                .await
                .error_code,
            0
        );
    }
    // Clients that ask for everything and read nothing.
    let mut idle = Vec::new();
    for _ in 0..6 {
        let mut reader = stand.client().await;
        let mut request = fetch_request("t", &[(0, 0)]);
        request.topics[0].partitions[0].partition_max_bytes = 16 << 20;
        reader.send(&request, 12).await;
        idle.push(reader);
    }
    // All records pass through the little memory there is.
    let mut offset = 0;
    while offset < 16 {
        idle.drain(..idle.len().min(1));
        offset += values_of(&client.fetch("t", 0, offset).await).len() as i64;
    }
}

#[tokio::test]
async fn the_connection_goes_on_behind_a_fetch() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let mut request = fetch_request("t", &[(0, 0)]);
    request.max_wait_ms = 10_000;
    client.send(&request, 12).await;
    // A request sent behind the long poll ends it.
    client
        .send(&produce_request("t", 0, batch(&["a"])), 9)
        .await;
    assert_eq!(
        values_of(&only(client.receive::<FetchRequest>(12).await)).len(),
        1
    );
    let produced = client
        .receive::<wire::messages::produce::ProduceRequest>(9)
        .await;
    assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
}

#[tokio::test]
async fn what_does_not_exist_waits_with_the_others_and_alone_for_nothing() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let mut request = fetch_request("t", &[(0, 0), (7, 0)]);
    request.topics.extend(fetch_request("no", &[(0, 0)]).topics);
    request.max_wait_ms = 200;
    let start = host::clock::now();
    let response = client.call(&request, 12).await;
    assert!(host::clock::now().since(start) >= Duration::from_millis(200));
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    let codes: Vec<i16> = partitions.map(|data| data.error_code).collect();
    assert_eq!(codes, [0, unknown, unknown]);
    let mut request = fetch_request("no", &[(0, 0)]);
    request.max_wait_ms = 60_000;
    let answer = host::clock::timeout(Duration::from_secs(20), client.call(&request, 12)).await;
    assert_eq!(only(answer.expect("an answer at once")).error_code, unknown);
}

#[tokio::test]
async fn a_fetch_that_waits_notices_that_its_topic_is_deleted() {
    let stand = Stand::new().await;
    for (topic, version, code) in [
        ("t", 12, ErrorCode::UnknownTopicOrPartition),
        ("u", 13, ErrorCode::UnknownTopicId),
    ] {
        stand.topic(topic, 1, &[]).await;
        let mut reader = stand.client().await;
        let mut request = fetch_request(topic, &[(0, 0)]);
        let id = stand.control.find(topic).id;
        request.topics[0].topic_id = id.0.to_be_bytes().into();
        request.max_wait_ms = 60_000;
        reader.send(&request, version).await;
        let waits = format!("seaway_agent_fetch_requests_total {}\n", version - 11);
        while !stand.agent.probe().metrics().contains(&waits) {
            tokio::task::yield_now().await;
        }
        stand.delete(topic).await;
        let answer = reader.receive::<FetchRequest>(version);
        let answer = host::clock::timeout(Duration::from_secs(20), answer).await;
        let data = only(answer.expect("an answer before the minute is over"));
        assert_eq!(data.error_code, code.code());
    }
}

#[tokio::test]
async fn one_slow_part_does_not_keep_the_others_from_their_reader() {
    let stand = reopened().await;
    let slow = Fault::Delay(Duration::from_secs(60));
    stand
        .bucket
        .faults()
        .add(FaultRule::on(Op::Get, slow).times(1));
    let mut request = fetch_request("t", &[(0, 0), (1, 0)]);
    request.max_wait_ms = 100;
    let mut client = stand.client().await;
    let response = client.call(&request, 12).await;
    let [first, second] = response.responses[0].partitions.as_slice() else {
        panic!()
    };
    assert_eq!((first.error_code, second.error_code), (0, 0));
    assert_eq!((first.high_watermark, second.high_watermark), (1, 1));
    let read = values_of(first).len() + values_of(second).len();
    assert_eq!(read, 1, "what is there in time, and no error for the rest");
}

#[tokio::test]
async fn a_part_that_comes_too_late_is_there_for_the_next_fetch() {
    let stand = reopened().await;
    let slow = Fault::Delay(Duration::from_millis(1_500));
    stand
        .bucket
        .faults()
        .add(FaultRule::on(Op::Get, slow).times(1));
    let mut client = stand.client().await;
    let mut answers = 0;
    while values_of(&client.fetch("t", 0, 0).await).is_empty() {
        answers += 1;
    }
    assert!((1..=4).contains(&answers), "{answers} empty answers");
    assert_eq!(stand.bucket.faults().calls(Op::Get), 1);
}

#[tokio::test]
async fn of_a_reader_who_lags_behind_the_next_files_are_loaded_before_he_asks_each_once() {
    let writer = Stand::new().await;
    writer.topic("t", 1, &[]).await;
    let mut client = writer.client().await;
    for number in 0..40 {
        client.produce("t", 0, batch(&[&number.to_string()])).await;
    }
    let (control, bucket) = (writer.control.clone(), writer.bucket.clone());
    drop(writer);
    let stand = Stand::over(settings(), control, bucket).await;
    let before = stand.bucket.faults().calls(Op::Get);
    let mut client = stand.client().await;
    for number in 0..40 {
        let mut request = fetch_request("t", &[(0, number)]);
        request.topics[0].partitions[0].partition_max_bytes = 5;
        let read = only(client.call(&request, 12).await);
        assert_eq!(values_of(&read), [(number, number.to_string())]);
    }
    assert_eq!(stand.bucket.faults().calls(Op::Get) - before, 40);
    let metrics = stand.agent.probe().metrics();
    let ahead = metrics
        .lines()
        .find_map(|line| line.strip_prefix("seaway_agent_cache_loads_ahead_total "));
    assert!(ahead.unwrap().parse::<u64>().unwrap() > 0);
}
