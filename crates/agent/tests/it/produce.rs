//! The answers that producers get, and the records that are written then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meta::level::one::LEVEL as ONE;
use meta::level::{Level, Levels};
use store::bucket::Op;
use store::directory::Directory;
use store::faulty::{Fault, FaultRule, Faulty};
use store::memory::Memory;
use wire::batch::{Batch, TimestampType};
use wire::builder::BatchBuilder;
use wire::compression::Compression;
use wire::errors::ErrorCode;
use wire::messages::fetch::FetchRequest;
use wire::messages::init_producer_id::InitProducerIdRequest;
use wire::messages::metadata::MetadataRequest;
use wire::messages::produce::{PartitionProduceData, ProduceRequest};

use crate::client::{
    batch, fetch_request, large_batch, only, partition_of, produce_request, values_of,
};
use crate::control::Fake;
use crate::stand::{Stand, settings};

#[tokio::test]
async fn what_is_acknowledged_can_be_read() {
    let stand = Stand::new().await;
    stand.topic("t", 2, &[]).await;
    let mut client = stand.client().await;
    for (n, values) in [["a", "b"], ["c", "d"]].iter().enumerate() {
        let produced = client.produce("t", 1, batch(values)).await;
        assert_eq!(
            (produced.error_code, produced.base_offset),
            (0, 2 * n as i64)
        );
        assert_eq!(produced.log_append_time_ms, -1);
    }
    let data = client.fetch("t", 1, 0).await;
    let values: Vec<(i64, String)> = (0..).zip(["a", "b", "c", "d"].map(str::to_owned)).collect();
    assert_eq!(values_of(&data), values);
    assert_eq!(
        (
            data.high_watermark,
            data.last_stable_offset,
            data.log_start_offset
        ),
        (4, 4, 0)
    );
    assert!(values_of(&client.fetch("t", 0, 0).await).is_empty());
}

#[tokio::test]
async fn another_agent_reads_it_from_the_bucket() {
    let first = Stand::new().await;
    first.topic("t", 1, &[]).await;
    let mut client = first.client().await;
    client.produce("t", 0, batch(&["a"])).await;
    client.produce("t", 0, large_batch(300_000)).await;
    let (control, bucket) = (first.control.clone(), first.bucket.clone());
    let other = settings();
    let second = Stand::over(
        agent::Settings {
            name: "agent-2".into(),
            ..other
        },
        control,
        bucket,
    )
    .await;
    let before = second.bucket.faults().calls(Op::Get);
    let data = second.client().await.fetch("t", 0, 0).await;
    assert_eq!(values_of(&data).len(), 2);
    assert_eq!(
        second.bucket.faults().calls(Op::Get),
        before + 2,
        "one request a file"
    );
    // The agent that wrote the records has kept them in memory.
    assert_eq!(values_of(&client.fetch("t", 0, 0).await).len(), 2);
    assert_eq!(first.bucket.faults().calls(Op::Get), before + 2);
}

#[tokio::test]
async fn while_the_disk_is_almost_full_producers_get_the_code_that_every_client_repeats() {
    let place = tempfile::tempdir().expect("a directory");
    let disk = Directory::open(place.path().to_owned()).expect("a bucket");
    let greedy = agent::Settings {
        bucket_reserve_bytes: u64::MAX,
        ..settings()
    };
    let bucket = Arc::new(Faulty::new(Arc::new(disk), 1));
    let stand = Stand::over(greedy, Fake::new(), bucket).await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    // Until the agent has looked for the first time, records are taken.
    let refused = host::clock::timeout(Duration::from_secs(60), async {
        loop {
            let produced = client.produce("t", 0, batch(&["a"])).await;
            if produced.error_code != 0 {
                break produced;
            }
        }
    });
    let refused = refused.await.expect("it looks");
    assert_eq!(
        refused.error_code,
        ErrorCode::NotLeaderOrFollower.code(),
        "sarama does not repeat KAFKA_STORAGE_ERROR"
    );
    let why = refused.error_message.expect("a reason");
    assert!(why.as_str().contains("no room"), "{why:?}");
}

#[tokio::test]
async fn five_in_flight_on_one_connection_keep_their_order() {
    let stand = Stand::with(agent::Settings {
        flush_bytes: 1,
        ..settings()
    })
    .await;
    stand.topic("t", 1, &[]).await;
    // Every third upload takes longer than the following ones.
    stand
        .bucket
        .faults()
        .add(FaultRule::on(Op::PutNew, Fault::Delay(Duration::from_millis(30))).one_in(3));
    let mut client = stand.client().await;
    let values: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    for chunk in values.chunks(5) {
        for value in chunk {
            client
                .send(&produce_request("t", 0, batch(&[value.as_str()])), 9)
                .await;
        }
        for value in chunk {
            let produced = partition_of(client.receive::<ProduceRequest>(9).await);
            assert_eq!(
                (produced.error_code, produced.base_offset.to_string()),
                (0, value.clone())
            );
        }
    }
    let read: Vec<String> = values_of(&client.fetch("t", 0, 0).await)
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(read, values);
}

#[tokio::test]
async fn requests_in_flight_overlap() {
    let stand = Stand::with(agent::Settings {
        flush_bytes: 1,
        ..settings()
    })
    .await;
    stand.topic("t", 1, &[]).await;
    let delay = Duration::from_millis(200);
    stand
        .bucket
        .faults()
        .add(FaultRule::on(Op::PutNew, Fault::Delay(delay)));
    let mut client = stand.client().await;
    let start = host::clock::now();
    for _ in 0..5 {
        client
            .send(&produce_request("t", 0, batch(&["x"])), 9)
            .await;
    }
    for _ in 0..5 {
        client.receive::<ProduceRequest>(9).await;
    }
    let took = host::clock::now().since(start);
    assert!(took >= delay && took < 3 * delay, "five took {took:?}");
}

#[tokio::test]
async fn a_corrupt_batch_is_refused_and_nothing_is_stored() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let mut bytes = batch(&["a"]).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let produced = client.produce("t", 0, bytes.into()).await;
    assert_eq!(produced.error_code, ErrorCode::CorruptMessage.code());
    assert_eq!(produced.base_offset, -1);
    assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 0);
    assert_eq!(stand.bucket.faults().calls(Op::PutNew), 0);
}

#[tokio::test]
async fn records_that_no_client_can_read_are_refused_and_named() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    for codec in Compression::ALL {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.append(host::clock::wall_millis() as i64, None, Some(b"a"), &[]);
        let mut bytes = builder.build().to_vec();
        // The record's last field becomes a negative number of headers.
        *bytes.last_mut().unwrap() = 1;
        let packed = wire::compression::compress(codec, &bytes[61..]);
        bytes.truncate(61);
        bytes.extend_from_slice(&packed);
        let length = bytes.len() as i32 - 12;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[22] = codec as u8;
        let sealed = Batch::take(&mut bytes.into()).unwrap().unwrap();
        let sealed = sealed.with_time(TimestampType::CreateTime, sealed.max_timestamp_ms());
        let refused = client.produce("t", 0, sealed.into_bytes()).await;
        assert_eq!(
            refused.error_code,
            ErrorCode::InvalidRecord.code(),
            "{codec:?}"
        );
        assert_eq!(refused.record_errors[0].batch_index, 0);
    }
    assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 0);
}

/// Timestamps in a header are no reason to refuse a batch; those of its records are.
#[tokio::test]
async fn records_too_late_or_too_early_are_refused_and_named() {
    let stand = Stand::new().await;
    let configs = [("message.timestamp.before.max.ms", "3600000")];
    stand.topic("t", 1, &configs).await;
    let mut client = stand.client().await;
    let now = host::clock::wall_millis() as i64;
    for codec in Compression::ALL {
        for (other, code) in [
            (now, ErrorCode::None),
            (-1, ErrorCode::None),
            (now + 7_200_000, ErrorCode::InvalidTimestamp),
            (now - 7_200_000, ErrorCode::InvalidTimestamp),
        ] {
            let mut builder = BatchBuilder::new(codec);
            builder.append(now, None, None, &[]);
            builder.append(other, None, None, &[]);
            let produced = client.produce("t", 0, builder.build()).await;
            assert_eq!(produced.error_code, code.code(), "{codec:?} {other}");
            let named = produced
                .record_errors
                .first()
                .map(|error| error.batch_index);
            assert_eq!(named, code.is_error().then_some(1));
        }
    }
}

/// A request so large that it is checked off the async threads keeps its place in the order.
#[tokio::test]
async fn large_and_small_requests_of_one_connection_keep_their_order() {
    let stand = Stand::new().await;
    stand
        .topic("t", 1, &[("max.message.bytes", "3000000")])
        .await;
    let mut client = stand.client().await;
    let requests = [
        large_batch(1_500_000),
        batch(&["a"]),
        large_batch(2_500_000),
    ];
    for records in &requests {
        client
            .send(&produce_request("t", 0, records.clone()), 9)
            .await;
    }
    for offset in 0..3 {
        let produced = partition_of(client.receive::<ProduceRequest>(9).await);
        assert_eq!((produced.error_code, produced.base_offset), (0, offset));
    }
}

#[tokio::test]
async fn a_request_that_says_no_time_waits_as_long_as_it_takes() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    for timeout_ms in [0, -1] {
        let mut request = produce_request("t", 0, batch(&["a"]));
        request.timeout_ms = timeout_ms;
        let produced = partition_of(client.call(&request, 9).await);
        assert_eq!(produced.error_code, 0);
    }
}

#[tokio::test]
async fn limits_and_unknown_partitions_have_kafkas_codes() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[("max.message.bytes", "1000")]).await;
    let mut client = stand.client().await;
    let mut code = async |topic: &str, partition, records| {
        client.produce(topic, partition, records).await.error_code
    };
    assert_eq!(
        code("t", 0, large_batch(2_000)).await,
        ErrorCode::MessageTooLarge.code()
    );
    assert_eq!(
        code("t", 1, batch(&["a"])).await,
        ErrorCode::UnknownTopicOrPartition.code()
    );
    assert_eq!(
        code("no", 0, batch(&["a"])).await,
        ErrorCode::UnknownTopicOrPartition.code()
    );
    assert_eq!(code("t", 0, batch(&["a"])).await, 0);
    let mut odd = produce_request("t", 0, batch(&["a"]));
    odd.acks = 2;
    let refused = partition_of(client.call(&odd, 9).await);
    assert_eq!(refused.error_code, ErrorCode::InvalidRequiredAcks.code());
}

#[tokio::test]
async fn a_topic_may_set_the_time_and_the_codec() {
    let stand = Stand::new().await;
    let configs = [
        ("message.timestamp.type", "LogAppendTime"),
        ("compression.type", "zstd"),
    ];
    stand.topic("t", 1, &configs).await;
    let mut client = stand.client().await;
    let produced = client.produce("t", 0, batch(&["a", "b"])).await;
    assert_eq!(produced.error_code, 0);
    let data = client.fetch("t", 0, 0).await;
    let stored = &crate::client::batches_of(&data)[0];
    assert_eq!(stored.compression(), Ok(Compression::Zstd));
    assert_eq!(stored.max_timestamp_ms(), produced.log_append_time_ms);
    assert_eq!(values_of(&data).len(), 2);
}

#[tokio::test]
async fn an_idempotent_retry_gets_the_first_offset() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let init = InitProducerIdRequest {
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    };
    let producer = client.call(&init, 4).await;
    assert_eq!(producer.error_code, 0);
    let sequenced = |sequence: i32| {
        let mut builder = BatchBuilder::new(Compression::None).producer(
            producer.producer_id,
            producer.producer_epoch,
            sequence,
        );
        builder.append(host::clock::wall_millis() as i64, None, Some(b"v"), &[]);
        builder.build()
    };
    for (sequence, code, offset) in [
        (0, ErrorCode::None, 0),
        (1, ErrorCode::None, 1),
        (0, ErrorCode::None, 0),
        (3, ErrorCode::OutOfOrderSequenceNumber, -1),
        (2, ErrorCode::None, 2),
    ] {
        let produced = client.produce("t", 0, sequenced(sequence)).await;
        assert_eq!(
            (produced.error_code, produced.base_offset),
            (code.code(), offset),
            "{sequence}"
        );
    }
}

#[tokio::test]
async fn a_lost_commit_answer_is_settled_without_a_second_copy() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    stand
        .control
        .lose_commit_answers
        .store(true, Ordering::Relaxed);
    let mut client = stand.client().await;
    client
        .send(&produce_request("t", 0, batch(&["a"])), 9)
        .await;
    // The commit is applied: a reader sees the records, but the producer has no answer yet.
    let mut reader = stand.client().await;
    while values_of(&reader.fetch("t", 0, 0).await).is_empty() {
        tokio::task::yield_now().await;
    }
    stand
        .control
        .lose_commit_answers
        .store(false, Ordering::Relaxed);
    let produced = partition_of(client.receive::<ProduceRequest>(9).await);
    assert_eq!((produced.error_code, produced.base_offset), (0, 0));
    assert_eq!(reader.fetch("t", 0, 0).await.high_watermark, 1);
}

#[tokio::test]
async fn a_bucket_that_fails_costs_a_retriable_error_and_no_more() {
    let timeout = Duration::from_millis(200);
    let stand = Stand::with(agent::Settings {
        upload_timeout: timeout,
        ..settings()
    })
    .await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    stand
        .bucket
        .faults()
        .add(FaultRule::on(Op::PutNew, Fault::Unknown));
    let failed = client.produce("t", 0, batch(&["lost"])).await;
    assert_eq!(failed.error_code, ErrorCode::NotLeaderOrFollower.code());
    stand.bucket.faults().clear();
    let produced = client.produce("t", 0, batch(&["kept"])).await;
    assert_eq!((produced.error_code, produced.base_offset), (0, 0));
    assert_eq!(
        values_of(&client.fetch("t", 0, 0).await),
        [(0, "kept".to_owned())]
    );
}

#[tokio::test]
async fn a_producer_that_stops_waiting_hears_that_nobody_knows() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let slow = Fault::Delay(Duration::from_millis(600));
    stand
        .bucket
        .faults()
        .add(FaultRule::on(Op::PutNew, slow).times(1));
    let mut client = stand.client().await;
    let mut request = produce_request("t", 0, batch(&["a"]));
    request.timeout_ms = 50;
    let answer = partition_of(client.call(&request, 9).await);
    assert_eq!(answer.error_code, ErrorCode::RequestTimedOut.code());
    let mut reader = stand.client().await;
    while reader.fetch("t", 0, 0).await.high_watermark == 0 {
        host::clock::sleep(Duration::from_millis(5)).await;
    }
}

/// While the client does not read, the connection's task must not run.
#[tokio::test]
async fn an_overdue_request_behind_an_answer_that_nobody_reads_costs_nothing() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    for _ in 0..14 {
        client.produce("t", 0, large_batch(900_000)).await;
    }
    let slow = Fault::Delay(Duration::from_secs(60));
    stand.bucket.faults().add(FaultRule::on(Op::PutNew, slow));
    let mut fetch = fetch_request("t", &[(0, 0)]);
    fetch.topics[0].partitions[0].partition_max_bytes = 16 << 20;
    client.send(&fetch, 12).await;
    let mut request = produce_request("t", 0, batch(&["a"]));
    request.timeout_ms = 50;
    client.send(&request, 9).await;
    let metrics = || stand.agent.probe().metrics();
    while !metrics().contains("seaway_agent_produce_requests_total 15") {
        tokio::task::yield_now().await;
    }
    host::clock::sleep(Duration::from_millis(200)).await;
    let runtime = tokio::runtime::Handle::current().metrics();
    let before = runtime.worker_park_count(0);
    host::clock::sleep(Duration::from_millis(300)).await;
    let woken = runtime.worker_park_count(0) - before;
    assert!(woken < 50, "woken {woken} times");
    let fetched = client.receive::<FetchRequest>(12).await;
    assert_eq!(values_of(&only(fetched)).len(), 14);
    let answer = partition_of(client.receive::<ProduceRequest>(9).await);
    assert_eq!(answer.error_code, ErrorCode::RequestTimedOut.code());
}

#[tokio::test]
async fn an_agent_that_was_fenced_registers_again_before_anybody_produces() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    assert_eq!(client.produce("t", 0, batch(&["a"])).await.error_code, 0);
    stand.control.fence(1);
    // Nobody would find it to produce to it.
    while stand.control.incarnations() < 2 {
        host::clock::sleep(Duration::from_millis(5)).await;
    }
    let again = client.produce("t", 0, batch(&["b"])).await;
    assert_eq!((again.error_code, again.base_offset), (0, 1));
}

#[tokio::test]
async fn an_agent_that_was_replaced_registers_again_before_anybody_produces() {
    let stand = Stand::new().await;
    let other = meta::command::RegisterAgent {
        nonce: 1,
        name: crate::stand::settings().name,
        listeners: meta::endpoint::Endpoint::alone("elsewhere", 1),
        region: "r".to_owned(),
        zone: "z".to_owned(),
        neighbour_address: String::new(),
        level: 1,
    };
    stand.control.client().register(other).await.unwrap();
    let mut client = stand.client().await;
    loop {
        let metadata = client.call(&MetadataRequest::default(), 9).await;
        if metadata.brokers[0].port == i32::from(stand.address().port()) {
            break;
        }
        host::clock::sleep(Duration::from_millis(5)).await;
    }
    stand.topic("t", 1, &[]).await;
    assert_eq!(client.produce("t", 0, batch(&["a"])).await.error_code, 0);
}

#[tokio::test]
async fn an_agent_of_an_earlier_build_holds_the_level_back_until_it_is_gone() {
    const LATER: Levels = Levels::new(&[ONE, Level { number: 2, ..ONE }]);
    let control = Fake::of(LATER);
    let bucket = Arc::new(Faulty::new(Arc::new(Memory::new()), 1));
    let early = crate::stand::settings();
    let late = agent::Settings {
        name: "agent-2".to_owned(),
        levels: LATER,
        ..early.clone()
    };
    let early = Stand::over(early, control.clone(), bucket.clone()).await;
    let late = Stand::over(late, control.clone(), bucket).await;
    assert_eq!(control.see_to_membership(), 1);
    drop(early);
    control.fence(1);
    assert_eq!(control.see_to_membership(), 2);
    late.topic("t", 1, &[]).await;
    let mut client = late.client().await;
    assert_eq!(client.produce("t", 0, batch(&["a"])).await.error_code, 0);
}

#[tokio::test]
async fn acks_0_has_no_answer_and_ends_the_connection_on_an_error() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let mut request = produce_request("t", 0, batch(&["a"]));
    request.acks = 0;
    let frame = wire::frame::encode_request(&request, 77, None, 9).unwrap();
    client.raw(&frame.to_bytes()).await;
    // The next answer is that of the next request.
    let metadata = client.call(&MetadataRequest::default(), 9).await;
    assert!(!metadata.brokers.is_empty());
    assert_eq!(values_of(&client.fetch("t", 0, 0).await).len(), 1);
    request.topic_data[0].partition_data = vec![PartitionProduceData {
        index: 9,
        records: Some(batch(&["a"])),
    }];
    let frame = wire::frame::encode_request(&request, 78, None, 9).unwrap();
    client.raw(&frame.to_bytes()).await;
    assert!(client.frame().await.is_none());
}

#[tokio::test]
async fn stopping_answers_what_is_in_flight() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let slow = Fault::Delay(Duration::from_millis(100));
    stand.bucket.faults().add(FaultRule::on(Op::PutNew, slow));
    let mut client = stand.client().await;
    client
        .send(&produce_request("t", 0, batch(&["a"])), 9)
        .await;
    // Once it is read, the request is in flight when the agent stops.
    while !stand
        .agent
        .probe()
        .metrics()
        .contains("seaway_agent_produce_batches_total 1")
    {
        tokio::task::yield_now().await;
    }
    stand.agent.stop().await;
    let produced = partition_of(client.receive::<ProduceRequest>(9).await);
    assert_eq!(produced.error_code, 0);
    assert!(client.frame().await.is_none());
}

#[tokio::test]
async fn a_request_with_more_batches_than_a_commit_holds_is_refused_for_good() {
    let stand = Stand::with(agent::Settings {
        file_batches_max: 2,
        ..settings()
    })
    .await;
    stand.topic("t", 3, &[]).await;
    let mut client = stand.client().await;
    let mut codes = async |partitions: i32| {
        let mut request = produce_request("t", 0, batch(&["a"]));
        let data = &mut request.topic_data[0].partition_data;
        let first = data[0].clone();
        data.extend((1..partitions).map(|index| PartitionProduceData {
            index,
            ..first.clone()
        }));
        let response = client.call(&request, 9).await;
        let answers = response.responses.into_iter();
        let answers = answers.flat_map(|topic| topic.partition_responses);
        answers.map(|answer| answer.error_code).collect::<Vec<_>>()
    };
    let refused = ErrorCode::RecordListTooLarge.code();
    assert_eq!(codes(3).await, [refused; 3]);
    assert_eq!(codes(2).await, [0; 2]);
    assert_eq!(stand.bucket.faults().calls(Op::PutNew), 1);
}
