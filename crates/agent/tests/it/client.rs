//! A client that says exactly what a test wants, through the codec's client side.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use host::net::TcpStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::batch::{Batch, batches};
use wire::builder::BatchBuilder;
use wire::compression::Compression;
use wire::frame::{decode_response, encode_request};
use wire::message::RequestBody;
use wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};
use wire::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData,
};
use wire::records::records;
use wire::text::Str;

pub struct Client {
    stream: TcpStream,
    id: Str,
    next_id: i32,
    expected: VecDeque<i32>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = host::net::dial(&address.to_string()).await.unwrap();
        Client {
            stream,
            id: Str::from_static("test"),
            next_id: 1,
            expected: VecDeque::new(),
        }
    }

    /// Calls itself by another client id.
    pub fn named(self, id: &str) -> Self {
        let id = Str::from(id);
        Client { id, ..self }
    }

    /// Sends a request without waiting for the answer.
    pub async fn send<R: RequestBody>(&mut self, request: &R, version: i16) {
        let id = self.next_id;
        self.next_id += 1;
        let frame = encode_request(request, id, Some(&self.id), version).unwrap();
        self.expected.push_back(id);
        self.raw(&frame.to_bytes()).await;
    }

    /// Takes the next answer, which must be the one of the oldest request.
    pub async fn receive<R: RequestBody>(&mut self, version: i16) -> R::Response {
        let frame = self.frame().await.expect("an answer");
        let (id, response) = decode_response::<R>(&frame, version).unwrap();
        assert_eq!(
            Some(id),
            self.expected.pop_front(),
            "answers are out of order"
        );
        response
    }

    pub async fn call<R: RequestBody>(&mut self, request: &R, version: i16) -> R::Response {
        self.send(request, version).await;
        self.receive::<R>(version).await
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Says that nothing more will be sent.
    pub async fn end(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// The next frame; `None` once the connection is closed.
    pub async fn frame(&mut self) -> Option<Bytes> {
        let length = self.stream.read_i32().await.ok()?;
        let mut frame = BytesMut::zeroed(usize::try_from(length).unwrap());
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(frame.freeze())
    }

    pub async fn produce(&mut self, topic: &str, partition: i32, records: Bytes) -> Produced {
        let request = produce_request(topic, partition, records);
        partition_of(self.call(&request, 9).await)
    }

    pub async fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let request = fetch_request(topic, &[(partition, offset)]);
        only(self.call(&request, 12).await)
    }
}

pub type Produced = PartitionProduceResponse;

pub fn produce_request(topic: &str, partition: i32, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![PartitionProduceData {
                index: partition,
                records: Some(records),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

pub fn partition_of(response: ProduceResponse) -> Produced {
    response.responses[0].partition_responses[0].clone()
}

pub fn fetch_request(topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 16 << 20,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: partitions
                .iter()
                .map(|(partition, fetch_offset)| FetchPartition {
                    partition: *partition,
                    fetch_offset: *fetch_offset,
                    partition_max_bytes: 1 << 20,
                    ..FetchPartition::default()
                })
                .collect(),
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

pub fn only(response: FetchResponse) -> PartitionData {
    response.responses[0].partitions[0].clone()
}

pub fn batch_at(values: &[(&str, i64)]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for (value, timestamp_ms) in values {
        builder.append(*timestamp_ms, None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

/// A batch of records with these values, now.
pub fn batch(values: &[&str]) -> Bytes {
    let now_ms = host::clock::wall_millis() as i64;
    batch_at(
        &values
            .iter()
            .map(|value| (*value, now_ms))
            .collect::<Vec<_>>(),
    )
}

/// A batch with one value of so many bytes.
pub fn large_batch(bytes: usize) -> Bytes {
    batch(&["x".repeat(bytes).as_str()])
}

/// The batches that a fetch brought.
pub fn batches_of(data: &PartitionData) -> Vec<Batch> {
    let bytes = data
        .records
        .as_ref()
        .map(|rope| rope.to_bytes())
        .unwrap_or_default();
    batches(bytes).map(|batch| batch.unwrap()).collect()
}

/// Offsets and values that a fetch brought, checksums compared.
pub fn values_of(data: &PartitionData) -> Vec<(i64, String)> {
    let mut values = Vec::new();
    for batch in batches_of(data) {
        batch.check_crc().unwrap();
        assert_eq!(batch.leader_epoch(), meta::LEADER_EPOCH);
        for record in records(&batch, 64 << 20).unwrap() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            values.push((batch.base_offset() + i64::from(record.offset_delta), value));
        }
    }
    values
}
