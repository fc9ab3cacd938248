//! Loads: producers that keep a number of requests in flight, and readers that keep up with them,
//! at the wire level, so that the generator costs little and the same bytes go to any server. It
//! must not know which server it loads.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::{Mutex, Semaphore};
use wire::batch::{BatchError, batches};
use wire::builder::BatchBuilder;
use wire::compression::Compression;
use wire::frame::{decode_response, encode_request};
use wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use wire::records::records;
use wire::text::Str;

use crate::connection::{Client, Writer, dial};
use crate::latency::Latencies;

/// Produce version that Kafka and Seaway both serve, with plain topic names.
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 11;
/// Bytes of one record's value, as in the published benchmarks.
const RECORD_BYTES: usize = 1_000;

/// In a paced load, batches below this size are made anew for each request.
const TIMED_BYTES_MAX: usize = 256 << 10;

#[derive(Clone, Debug)]
pub struct Load {
    pub address: SocketAddr,
    pub topic: String,
    pub partitions: i32,
    pub connections: usize,
    /// Requests in flight on each connection.
    pub in_flight: usize,
    /// Bytes of each batch, one of which goes into each request.
    pub batch_bytes: usize,
    /// Readers that follow all partitions, each on a connection.
    pub readers: usize,
    /// Produced bytes per second over all connections, if limited.
    pub bytes_per_second: Option<u64>,
    /// Time that is not measured, at the start.
    pub warm_up: Duration,
    /// Time that is measured.
    pub measured: Duration,
}

impl Load {
    /// True if each batch carries its own time, from which end-to-end latency is read; false where
    /// that would make the generator the slowest part.
    fn is_timed(&self) -> bool {
        self.bytes_per_second.is_some() && self.batch_bytes < TIMED_BYTES_MAX
    }
}

/// The results of a load within the measured time.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Bytes of record batches acknowledged.
    pub produced_bytes: u64,
    pub requests: u64,
    /// Bytes of record batches that all readers received together.
    pub fetched_bytes: u64,
    /// Latencies from the first byte of a request to its answer.
    pub acks: Latencies,
    /// Latencies from a record's timestamp to its arrival at a reader, in whole milliseconds.
    pub end_to_end: Latencies,
    pub seconds: f64,
}

impl Outcome {
    /// MiB acknowledged per second.
    pub fn produced_mib_per_second(&self) -> f64 {
        self.produced_bytes as f64 / (1 << 20) as f64 / self.seconds
    }

    /// MiB received per second by each of `readers` on average.
    pub fn fetched_mib_per_second(&self, readers: usize) -> f64 {
        self.fetched_bytes as f64 / (1 << 20) as f64 / self.seconds / readers.max(1) as f64
    }
}

/// Counters that all connections share while a load runs.
#[derive(Debug, Default)]
struct Shared {
    measuring: AtomicBool,
    stopping: AtomicBool,
    produced_bytes: AtomicU64,
    requests: AtomicU64,
    fetched_bytes: AtomicU64,
}

/// Kafka's error for a topic that is there already.
const TOPIC_EXISTS: i16 = 36;

/// Creates a topic, or takes the one of that name that is there, if it has so many partitions at least.
pub async fn have_topic(address: SocketAddr, name: &str, partitions: i32) -> Result<()> {
    let mut client = Client::dial(address).await?;
    match created(&mut client, name, partitions).await? {
        0 => Ok(()),
        TOPIC_EXISTS => {
            let found = partitions_of(&mut client, name).await?;
            ensure!(
                found >= partitions,
                "there is a topic {name} of {found} partitions, and {partitions} are needed: delete it first"
            );
            Ok(())
        }
        error => bail!("cannot create {name}: error {error}"),
    }
}

pub async fn create_topic(address: SocketAddr, name: &str, partitions: i32) -> Result<()> {
    let mut client = Client::dial(address).await?;
    let error = created(&mut client, name, partitions).await?;
    ensure!(error == 0, "cannot create {name}: error {error}");
    Ok(())
}

/// Asks for a topic; yields Kafka's error code.
async fn created(client: &mut Client, name: &str, partitions: i32) -> Result<i16> {
    let topic = CreatableTopic {
        name: Str::from(name),
        num_partitions: partitions,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let response = client.call(&request, 5).await?;
    let topic = response
        .topics
        .first()
        .context("no answer about the topic")?;
    Ok(topic.error_code)
}

/// How many partitions a topic has.
async fn partitions_of(client: &mut Client, name: &str) -> Result<i32> {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(Str::from(name)),
            ..MetadataRequestTopic::default()
        }]),
        ..MetadataRequest::default()
    };
    let told = client.call(&request, 9).await?;
    let topic = told.topics.first().context("no answer about the topic")?;
    ensure!(
        topic.error_code == 0,
        "nothing is told of {name}: error {}",
        topic.error_code
    );
    Ok(i32::try_from(topic.partitions.len())?)
}

/// Runs a load. `at_start` and `at_end` are called as the measured time begins and ends.
pub async fn run(load: &Load, mut at_edge: impl FnMut()) -> Result<Outcome> {
    let shared = Arc::new(Shared::default());
    let pace = load.bytes_per_second.map(|rate| Arc::new(Pace::new(rate)));
    let mut producers = Vec::new();
    for connection in 0..load.connections {
        let task = produce(load.clone(), connection, Arc::clone(&shared), pace.clone());
        producers.push(tokio::spawn(task));
    }
    let mut readers = Vec::new();
    for _ in 0..load.readers {
        readers.push(tokio::spawn(follow(load.clone(), Arc::clone(&shared))));
    }
    tokio::time::sleep(load.warm_up).await;
    at_edge();
    shared.measuring.store(true, Ordering::Relaxed);
    let start = Instant::now();
    tokio::time::sleep(load.measured).await;
    shared.measuring.store(false, Ordering::Relaxed);
    let seconds = start.elapsed().as_secs_f64();
    at_edge();
    shared.stopping.store(true, Ordering::Relaxed);
    let mut outcome = Outcome {
        produced_bytes: shared.produced_bytes.load(Ordering::Relaxed),
        requests: shared.requests.load(Ordering::Relaxed),
        fetched_bytes: shared.fetched_bytes.load(Ordering::Relaxed),
        seconds,
        ..Outcome::default()
    };
    for producer in producers {
        outcome.acks.merge(producer.await??);
    }
    for reader in readers {
        outcome.end_to_end.merge(reader.await??);
    }
    Ok(outcome)
}

/// When each request that is under way was sent.
type Sent = Arc<Mutex<VecDeque<Instant>>>;

async fn produce(
    load: Load,
    connection: usize,
    shared: Arc<Shared>,
    pace: Option<Arc<Pace>>,
) -> Result<Latencies> {
    let (mut reader, mut writer) = dial(load.address).await?;
    let slots = Arc::new(Semaphore::new(load.in_flight));
    let sent: Sent = Arc::default();
    let writing = {
        let (slots, sent, shared) = (Arc::clone(&slots), Arc::clone(&sent), Arc::clone(&shared));
        let load = load.clone();
        tokio::spawn(async move {
            let mut frames = Frames::new(&load, connection)?;
            while !shared.stopping.load(Ordering::Relaxed) {
                slots.acquire().await?.forget();
                if let Some(pace) = &pace {
                    pace.wait(load.batch_bytes).await;
                }
                sent.lock().await.push_back(Instant::now());
                frames.send_next(&mut writer).await?;
            }
            // Dropping the writer would end the connection before the last answers have come.
            std::future::pending::<anyhow::Result<()>>().await
        })
    };
    let mut latencies = Latencies::default();
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(1), reader.frame()).await;
        let Ok(frame) = frame else {
            if shared.stopping.load(Ordering::Relaxed) && sent.lock().await.is_empty() {
                break;
            }
            continue;
        };
        check_produced(&frame?)?;
        let since = sent
            .lock()
            .await
            .pop_front()
            .context("an answer without a request")?;
        slots.add_permits(1);
        if shared.measuring.load(Ordering::Relaxed) {
            latencies.add(since.elapsed());
            shared.requests.fetch_add(1, Ordering::Relaxed);
            shared
                .produced_bytes
                .fetch_add(load.batch_bytes as u64, Ordering::Relaxed);
        }
        if shared.stopping.load(Ordering::Relaxed) {
            // Requests still in flight at the end are not measured.
            break;
        }
    }
    writing.abort();
    Ok(latencies)
}

fn check_produced(frame: &Bytes) -> Result<()> {
    let (_, response) = decode_response::<ProduceRequest>(frame, PRODUCE_VERSION)?;
    for topic in &response.responses {
        for partition in &topic.partition_responses {
            ensure!(
                partition.error_code == 0,
                "partition {} answers error {}",
                partition.index,
                partition.error_code
            );
        }
    }
    Ok(())
}

/// The requests of one connection: made once and sent repeatedly or, in a timed load, made anew so
/// that their timestamps are true.
struct Frames {
    load: Load,
    partition: i32,
    correlation_id: i32,
    made: Vec<Vec<Bytes>>,
}

impl Frames {
    fn new(load: &Load, connection: usize) -> Result<Self> {
        let partition = i32::try_from(connection)? % load.partitions;
        let mut frames = Frames {
            load: load.clone(),
            partition,
            correlation_id: 0,
            made: Vec::new(),
        };
        if !load.is_timed() {
            let records = batch(load.batch_bytes);
            for partition in 0..load.partitions {
                frames
                    .made
                    .push(frame(&load.topic, partition, records.clone())?);
            }
        }
        Ok(frames)
    }

    async fn send_next(&mut self, writer: &mut Writer) -> Result<()> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let partition = self.partition;
        self.partition = (partition + 1) % self.load.partitions;
        let mut pieces = match self.made.get(usize::try_from(partition)?) {
            Some(pieces) => pieces.clone(),
            None => frame(&self.load.topic, partition, batch(self.load.batch_bytes))?,
        };
        // The correlation id comes after length, key and version, which take eight bytes.
        let mut head = BytesMut::from(&pieces[0][..]);
        head[8..12].copy_from_slice(&self.correlation_id.to_be_bytes());
        pieces[0] = head.freeze();
        writer.send(pieces).await
    }
}

fn frame(topic: &str, partition: i32, records: Bytes) -> Result<Vec<Bytes>> {
    let partition = PartitionProduceData {
        index: partition,
        records: Some(records),
    };
    let topic = TopicProduceData {
        name: Str::from(topic),
        partition_data: vec![partition],
        ..TopicProduceData::default()
    };
    let request = ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![topic],
    };
    Ok(encode_request(&request, 0, None, PRODUCE_VERSION)?.into_pieces())
}

/// A batch of about `bytes`, of records with 1,000 random bytes each, stamped now.
fn batch(bytes: usize) -> Bytes {
    thread_local! {
        static NOISE: Bytes = noise(1 << 20);
    }
    let now = wall_millis();
    NOISE.with(|noise| {
        let mut builder = BatchBuilder::new(Compression::None);
        let mut at = 0;
        while builder.length_bytes() < bytes {
            let length = RECORD_BYTES.min(bytes - builder.length_bytes()).max(1);
            if at + length > noise.len() {
                at = 0;
            }
            builder.append(now, None, Some(&noise[at..at + length]), &[]);
            at += length;
        }
        builder.build()
    })
}

fn noise(bytes: usize) -> Bytes {
    let mut rng = host::rng::Rng::seeded(1);
    let mut out = BytesMut::with_capacity(bytes);
    while out.len() < bytes {
        out.put_u64(rng.next_u64());
    }
    out.freeze()
}

fn wall_millis() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Follows all partitions from their ends.
async fn follow(load: Load, shared: Arc<Shared>) -> Result<Latencies> {
    let mut client = Client::dial(load.address).await?;
    let mut positions = ends(&mut client, &load).await?;
    let mut latencies = Latencies::default();
    let timed = load.is_timed();
    while !shared.stopping.load(Ordering::Relaxed) {
        let request = fetch_request(&load.topic, &positions);
        let response = client.call(&request, FETCH_VERSION).await?;
        ensure!(
            response.error_code == 0,
            "fetch answers error {}",
            response.error_code
        );
        let arrived = wall_millis();
        for partition in response
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions)
        {
            let (index, error) = (partition.partition_index, partition.error_code);
            if error != 0 {
                bail!("fetch of partition {index} answers error {error}");
            }
            let Some(rope) = partition.records else {
                continue;
            };
            let measuring = shared.measuring.load(Ordering::Relaxed);
            if measuring {
                shared
                    .fetched_bytes
                    .fetch_add(rope.len() as u64, Ordering::Relaxed);
            }
            for batch in batches(rope.to_bytes()) {
                // Kafka cuts the last batch of an answer off where its limit falls.
                let batch = match batch {
                    Err(BatchError::Truncated) => break,
                    batch => batch?,
                };
                positions[usize::try_from(index)?] = batch.next_offset()?;
                if timed && measuring && records(&batch, 64 << 20).is_ok() {
                    let age = arrived.saturating_sub(batch.max_timestamp_ms()).max(0);
                    latencies.add(Duration::from_millis(age.unsigned_abs()));
                }
            }
        }
    }
    Ok(latencies)
}

/// Writes one batch on a new connection and waits for its acknowledgement.
pub async fn write_once(
    address: SocketAddr,
    topic: &str,
    partition: i32,
    batch_bytes: usize,
) -> Result<()> {
    let (mut reader, mut writer) = dial(address).await?;
    writer
        .send(frame(topic, partition, batch(batch_bytes))?)
        .await?;
    check_produced(&reader.frame().await?)
}

/// One fetch from the beginning of the first `partitions` of a topic, which waits half a second for
/// records; yields the bytes that came of each.
pub async fn fetch_once(address: SocketAddr, topic: &str, partitions: usize) -> Result<Vec<usize>> {
    let mut client = Client::dial(address).await?;
    let request = fetch_request(topic, &vec![0; partitions]);
    let response = client.call(&request, FETCH_VERSION).await?;
    let mut bytes = vec![0; partitions];
    let topics = response.responses.into_iter();
    for partition in topics.flat_map(|topic| topic.partitions) {
        let (index, error) = (partition.partition_index, partition.error_code);
        ensure!(error == 0, "fetch of {index} answers error {error}");
        bytes[usize::try_from(index)?] = partition.records.map_or(0, |rope| rope.len());
    }
    Ok(bytes)
}

/// Reads a topic from its beginning to its current end; yields MiB per second.
pub async fn read_all(address: SocketAddr, topic: &str, partitions: i32) -> Result<f64> {
    let mut client = Client::dial(address).await?;
    let ends = offsets(&mut client, topic, partitions, LATEST).await?;
    let mut positions = offsets(&mut client, topic, partitions, EARLIEST).await?;
    let begin = Instant::now();
    let mut bytes = 0;
    while positions.iter().zip(&ends).any(|(at, end)| at < end) {
        let request = fetch_request(topic, &positions);
        let response = client.call(&request, FETCH_VERSION).await?;
        let topics = response.responses.into_iter();
        for partition in topics.flat_map(|topic| topic.partitions) {
            let (index, error) = (partition.partition_index, partition.error_code);
            ensure!(error == 0, "fetch of {index} answers error {error}");
            let Some(rope) = partition.records else {
                continue;
            };
            bytes += rope.len();
            for batch in batches(rope.to_bytes()) {
                let batch = match batch {
                    Err(BatchError::Truncated) => break,
                    batch => batch?,
                };
                positions[usize::try_from(index)?] = batch.next_offset()?;
            }
        }
    }
    Ok(bytes as f64 / (1 << 20) as f64 / begin.elapsed().as_secs_f64())
}

/// The ends of all partitions.
pub(crate) async fn ends(client: &mut Client, load: &Load) -> Result<Vec<i64>> {
    offsets(client, &load.topic, load.partitions, LATEST).await
}

/// The special timestamps of ListOffsets.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

async fn offsets(
    client: &mut Client,
    topic: &str,
    partitions: i32,
    timestamp: i64,
) -> Result<Vec<i64>> {
    let asked = (0..partitions).map(|index| ListOffsetsPartition {
        partition_index: index,
        timestamp,
        ..ListOffsetsPartition::default()
    });
    let topic = ListOffsetsTopic {
        name: Str::from(topic),
        partitions: asked.collect(),
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let response = client.call(&request, 5).await?;
    let mut found = vec![0; usize::try_from(partitions)?];
    for partition in response
        .topics
        .into_iter()
        .flat_map(|topic| topic.partitions)
    {
        ensure!(
            partition.error_code == 0,
            "offsets answer error {}",
            partition.error_code
        );
        found[usize::try_from(partition.partition_index)?] = partition.offset;
    }
    Ok(found)
}

fn fetch_request(topic: &str, positions: &[i64]) -> FetchRequest {
    let partitions = (0..)
        .zip(positions)
        .map(|(index, offset)| FetchPartition {
            partition: index,
            fetch_offset: *offset,
            partition_max_bytes: 8 << 20,
            ..FetchPartition::default()
        })
        .collect();
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 32 << 20,
        topics: vec![FetchTopic {
            topic: Str::from(topic),
            partitions,
            ..Default::default()
        }],
        ..FetchRequest::default()
    }
}

/// Limits bytes per second.
#[derive(Debug)]
struct Pace {
    rate: u64,
    start: Instant,
    passed: AtomicU64,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Pace {
            rate,
            start: Instant::now(),
            passed: AtomicU64::new(0),
        }
    }

    async fn wait(&self, bytes: usize) {
        let before = self.passed.fetch_add(bytes as u64, Ordering::Relaxed);
        let due = Duration::from_secs_f64(before as f64 / self.rate as f64);
        tokio::time::sleep_until((self.start + due).into()).await;
    }
}
