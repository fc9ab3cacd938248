//! Prints what the codec costs per GiB: reading and checking Produce requests, writing Fetch
//! responses, beside the checksum alone. `cargo run --release -p wire --example codec_cost`.

use std::hint::black_box;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use wire::batch::{Batch, ProduceLimits, TimestampType, check_produce};
use wire::builder::BatchBuilder;
use wire::compression::{Compression, Limits};
use wire::frame::{Split, decode_request, encode_request, split_frame};
use wire::messages::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use wire::messages::{Request, Response};
use wire::rope::Rope;
use wire::scan::check_records;

const TOTAL_BYTES: usize = 1 << 30;
const LIMITS: ProduceLimits = ProduceLimits {
    produce_version: 11,
    batch_bytes_max: 2 << 20,
    timestamp_type: TimestampType::CreateTime,
};

const LITTLE: Limits = Limits {
    window_bytes: 8 << 20,
    out_bytes: 1 << 20,
};

fn main() {
    for batch_bytes in [1 << 20, 16 << 10, 1 << 10] {
        let batch = batch_of(batch_bytes);
        let rounds = (TOTAL_BYTES / batch_bytes).min(400_000);
        let frame = produce_frame(&batch);
        println!("batches of {batch_bytes} bytes");
        measure("  checksum alone", rounds, batch_bytes, || {
            black_box(crc_fast::crc32_iscsi(black_box(&batch[21..])));
        });
        measure("  Produce: read and check", rounds, batch_bytes, || {
            black_box(read_produce(black_box(&frame)));
        });
        let whole = Batch::take(&mut batch.clone())
            .ok()
            .flatten()
            .expect("a valid batch");
        measure("  Produce: walk over records", rounds, batch_bytes, || {
            let (any, mut limits) = (i64::MIN..=i64::MAX, LITTLE);
            let read = check_records(black_box(&whole), &any, &mut limits, u64::MAX);
            black_box(read.expect("valid records"));
        });
        measure("  Fetch: place and write", rounds, batch_bytes, || {
            black_box(write_fetch(black_box(&whole)));
        });
    }
    for raw_bytes in [16 << 10, 64 << 10, 256 << 10] {
        measure_records(raw_bytes);
    }
    let frame = produce_frame(&batch_of(1 << 20));
    let stream = [&(frame.len() as i32).to_be_bytes()[..], &frame].concat();
    measure(
        "split, with one copy into the buffer",
        1_000,
        1 << 20,
        || {
            let mut buffer = BytesMut::from(&stream[..]);
            let split = split_frame(&mut buffer, 4 << 20);
            assert!(matches!(black_box(split), Ok(Split::Frame(_))));
        },
    );
}

/// Prints what it costs to read the records of a batch of so many bytes before compression.
fn measure_records(raw_bytes: usize) {
    for codec in Compression::ALL {
        let bytes = texts(codec, raw_bytes);
        println!(
            "{raw_bytes} bytes of JSON in {}: {}",
            codec.name(),
            bytes.len()
        );
        let batch = Batch::take(&mut bytes.clone())
            .ok()
            .flatten()
            .expect("a valid batch");
        measure("  checksum", 3_000, raw_bytes, || {
            black_box(black_box(&batch).check_crc().is_ok());
        });
        for enough_bytes in [16 << 10, 64 << 10, u64::MAX] {
            let what = format!("  records, {} KiB", enough_bytes >> 10);
            measure(&what, 3_000, raw_bytes, || {
                let any = i64::MIN..=i64::MAX;
                let read =
                    check_records(black_box(&batch), &any, &mut LITTLE.clone(), enough_bytes);
                black_box(read.expect("valid records"));
            });
        }
    }
}

/// A batch of records of some 200 bytes, as applications write them.
fn texts(codec: Compression, raw_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    let mut number = 0_u64;
    while builder.length_bytes() < raw_bytes {
        number += 1;
        let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let text = format!(
            r#"{{"order":"{hash:016x}","customer":{},"status":"shipped","amount":{},"currency":"EUR","items":[{{"sku":"A-{}","count":{}}}],"warehouse":"north-{}","note":""}}"#,
            hash % 100_000,
            hash % 9_973,
            hash % 7_919,
            hash % 9 + 1,
            hash % 4,
        );
        let key = format!("{}", hash % 100_000);
        builder.append(
            1_700_000_000_000 + (number as i64),
            Some(key.as_bytes()),
            Some(text.as_bytes()),
            &[],
        );
    }
    builder.build()
}

#[allow(
    clippy::disallowed_methods,
    reason = "it measures this process, not the protocol"
)]
fn measure(what: &str, rounds: usize, bytes: usize, mut work: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let started = Instant::now();
        for _ in 0..rounds / 3 {
            work();
        }
        best = best.min(started.elapsed().as_secs_f64() / (rounds / 3) as f64);
    }
    let per_gib = best * (1_u64 << 30) as f64 / bytes as f64;
    println!("{what}: {:.2} us each, {per_gib:.4} s/GiB", best * 1e6);
}

fn batch_of(bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None).producer(1, 0, 0);
    let value = vec![b'x'; 900.min(bytes / 2)];
    while builder.length_bytes() + value.len() < bytes {
        builder.append(1_700_000_000_000, None, Some(&value), &[]);
    }
    builder.build()
}

fn produce_frame(batch: &Bytes) -> Bytes {
    let partition = PartitionProduceData {
        index: 0,
        records: Some(batch.clone()),
    };
    let topic = TopicProduceData {
        name: "orders".into(),
        partition_data: vec![partition],
        ..Default::default()
    };
    let request = ProduceRequest {
        acks: -1,
        topic_data: vec![topic],
        ..Default::default()
    };
    let frame = encode_request(&request, 1, None, 11).expect("it fits");
    frame.to_bytes().slice(4..)
}

fn read_produce(frame: &Bytes) -> i32 {
    let Ok((_, Request::Produce(request))) = decode_request(frame) else {
        panic!("a Produce");
    };
    let partitions = request
        .topic_data
        .iter()
        .flat_map(|topic| &topic.partition_data);
    let batches = partitions.filter_map(|partition| partition.records.as_ref());
    batches
        .map(|batch| {
            check_produce(batch, LIMITS)
                .expect("a valid batch")
                .summary
                .count
        })
        .sum()
}

fn write_fetch(batch: &Batch) -> Rope {
    let mut records = Rope::new();
    batch.append_patched(1_000, 0, &mut records);
    let partition = PartitionData {
        records: Some(records),
        ..Default::default()
    };
    let topic = FetchableTopicResponse {
        partitions: vec![partition],
        ..Default::default()
    };
    let response = FetchResponse {
        responses: vec![topic],
        ..Default::default()
    };
    Response::Fetch(response).encode(1, 13).expect("it fits")
}
