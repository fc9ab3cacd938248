//! A Kafka producer of the town: five requests in flight on a connection, retries with the same sequences,
//! order kept by draining first, as librdkafka and the Java client do. One that is not idempotent never
//! repeats, so that any duplicate is the server's. It must not know how servers work.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::clock;
use host::seeded::{self, Place};
use wire::errors::ErrorCode;
use wire::frame::decode_response;
use wire::messages::init_producer_id::InitProducerIdRequest;
use wire::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};

use crate::history::{Act, Client as Known, Kind, Micro, Producer as Identity, Shape};
use crate::{payload, recorder};

use super::client::{Broken, Client, Connection};
use super::{KEYS, Town, key_parts};

const VERSION: i16 = 9;
/// Requests in flight on a connection.
const IN_FLIGHT: usize = 5;
/// Batches that wait, in all.
const QUEUE: usize = 20;
/// A request without an answer: the connection is dropped.
const PATIENCE_US: u64 = 3_000_000;
/// A batch that is not acknowledged by then is given up, and the producer with it.
const DELIVERY_US: u64 = 40_000_000;
/// Pause before a failed batch is sent again.
const BACKOFF_US: u64 = 50_000;

/// What came of a batch, as its error code tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Produced {
    /// In the log, from this offset on if it is known.
    Written(Option<i64>),
    OutOfOrder,
    Fenced,
    /// Certainly not written; worth repeating.
    NotWritten,
    /// Perhaps written; worth repeating.
    Unknown,
}

struct Pending {
    sequence: i32,
    /// Value, hash and operation of each record.
    records: Vec<(i64, String, u64)>,
    bytes: Bytes,
    since_us: u64,
    /// The request that carries it, and since when.
    flying: Option<(i32, u64)>,
}

#[derive(Default)]
struct Queue {
    next_sequence: i32,
    batches: VecDeque<Pending>,
    /// Something failed: nothing is sent until everything in flight is back.
    draining: bool,
    not_before_us: u64,
}

pub(super) struct Producer {
    town: Arc<Town>,
    place: Place,
    idempotent: bool,
    client: Client,
    connection: Option<Connection>,
    run: u32,
    identity: Option<(i64, i16)>,
    queues: BTreeMap<&'static str, Queue>,
    interval_us: u64,
    timeout_ms: i32,
    next_batch_us: u64,
}

impl Producer {
    pub(super) fn new(town: &Arc<Town>, place: Place, idempotent: bool) -> Self {
        Producer {
            town: Arc::clone(town),
            place,
            idempotent,
            client: Client::new(town.servers.clone()),
            connection: None,
            run: 0,
            identity: None,
            queues: BTreeMap::new(),
            interval_us: seeded::draw(|rng| 10_000 + rng.below(100_000)),
            // Short ones end while batches are on their way.
            timeout_ms: seeded::draw(|rng| {
                [30_000, 50 + rng.below(1_000) as i32][rng.below(2) as usize]
            }),
            next_batch_us: 0,
        }
    }

    /// Sends until the town has had enough, and everything sent has its outcome.
    pub(super) async fn run(mut self) {
        while !self.is_done() {
            if self.idempotent && self.identity.is_none() {
                self.identify().await;
                continue;
            }
            self.create();
            self.give_up();
            if self.turn().await.is_err() {
                self.broken().await;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.town.has_enough() && self.queues.values().all(|queue| queue.batches.is_empty())
    }

    fn process(&self) -> String {
        format!("p{}.{}", self.place.0, self.run)
    }

    async fn identify(&mut self) {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        let patience = Duration::from_micros(PATIENCE_US);
        let Ok(response) = self.client.call(&request, 1, patience).await else {
            return;
        };
        if response.error_code != 0 {
            return self.client.elsewhere().await;
        }
        let (id, epoch) = (response.producer_id, response.producer_epoch);
        self.identity = Some((id, epoch));
        let known = Known {
            producer: Some(Identity {
                id: Some(id),
                epoch: Some(i64::from(epoch)),
                idempotent: Some(true),
                transactional: None,
            }),
            consumer: None,
        };
        let process = self.process();
        let (invoke, ok) = (Act::Open(Known::default()), Act::Open(known));
        self.town
            .record(|now_us, history| history.at_once(now_us, &process, invoke, ok));
    }

    /// A new batch for some partition, if it is time.
    fn create(&mut self) {
        let now_us = seeded::now_us();
        let waiting: usize = self.queues.values().map(|queue| queue.batches.len()).sum();
        if now_us < self.next_batch_us || waiting >= QUEUE || self.town.has_enough() {
            return;
        }
        self.next_batch_us = now_us + self.interval_us;
        let (at, count) = seeded::draw(|rng| (rng.below(KEYS.len() as u64), 1 + rng.below(3)));
        let key = KEYS[at as usize];
        let process = self.process();
        let (mut records, mut bodies) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let value = self.town.value();
            let body = seeded::draw(|rng| payload::record_bytes(value, rng));
            let hash = payload::hash(&body);
            let act = recorder::sending(key, value, hash.clone(), None);
            let op = self
                .town
                .record(|now_us, history| history.begin(now_us, &process, act));
            records.push((value, hash, op));
            bodies.push(body);
        }
        let queue = self.queues.entry(key).or_default();
        let sequence = queue.next_sequence;
        queue.next_sequence += count as i32;
        let identity = self.identity.map(|(id, epoch)| (id, epoch, sequence));
        let timestamp_ms = clock::wall_millis() as i64;
        queue.batches.push_back(Pending {
            sequence,
            records,
            bytes: payload::batch(&bodies, timestamp_ms, identity),
            since_us: now_us,
            flying: None,
        });
    }

    /// Sends what may be sent, then waits for an answer or for what is due.
    async fn turn(&mut self) -> Result<(), Broken> {
        let patience = Duration::from_micros(PATIENCE_US);
        clock::timeout(patience, self.pump())
            .await
            .map_err(|_| Broken)??;
        let now_us = seeded::now_us();
        let flying = self.queues.values().flat_map(|queue| &queue.batches);
        let oldest_us = flying
            .filter_map(|batch| batch.flying.map(|(_, at_us)| at_us))
            .min();
        if oldest_us.is_some_and(|at_us| at_us + PATIENCE_US <= now_us) {
            return Err(Broken);
        }
        let wake_us = self
            .next_batch_us
            .saturating_sub(now_us)
            .clamp(1_000, BACKOFF_US);
        let wait = Duration::from_micros(wake_us);
        let (Some(connection), Some(_)) = (&mut self.connection, oldest_us) else {
            clock::sleep(wait).await;
            return Ok(());
        };
        let Ok(frame) = clock::timeout(wait, connection.receive()).await else {
            return Ok(());
        };
        let (id, response) =
            decode_response::<ProduceRequest>(&frame?, VERSION).map_err(|_| Broken)?;
        let topic = response.responses.into_iter().next().ok_or(Broken)?;
        let partition = topic.partition_responses.into_iter().next().ok_or(Broken)?;
        self.answered(id, &partition);
        Ok(())
    }

    async fn pump(&mut self) -> Result<(), Broken> {
        for key in KEYS {
            while let Some(at) = self.sendable(key) {
                if self.connection.is_none() {
                    self.connection = Some(Connection::open(self.client.server()).await?);
                }
                let (topic, index) = key_parts(key);
                let queue = self.queues.entry(key).or_default();
                let request = ProduceRequest {
                    acks: -1,
                    timeout_ms: self.timeout_ms,
                    topic_data: vec![TopicProduceData {
                        name: topic.into(),
                        partition_data: vec![PartitionProduceData {
                            index,
                            records: Some(queue.batches[at].bytes.clone()),
                        }],
                        ..TopicProduceData::default()
                    }],
                    ..ProduceRequest::default()
                };
                let connection = self.connection.as_mut().ok_or(Broken)?;
                // It may be there even if sending fails.
                queue.batches[at].flying = Some((0, seeded::now_us()));
                let id = connection.send(&request, VERSION).await?;
                queue.batches[at].flying = Some((id, seeded::now_us()));
            }
        }
        Ok(())
    }

    /// The first batch of a key that is not in flight, if it may go.
    fn sendable(&mut self, key: &str) -> Option<usize> {
        let batches = self.queues.values().flat_map(|queue| &queue.batches);
        if batches.filter(|batch| batch.flying.is_some()).count() >= IN_FLIGHT {
            return None;
        }
        let queue = self.queues.get_mut(key)?;
        if queue.draining {
            let drained = queue.batches.iter().all(|batch| batch.flying.is_none());
            if !drained || seeded::now_us() < queue.not_before_us {
                return None;
            }
            queue.draining = false;
        }
        let mut batches = queue.batches.iter();
        batches.position(|batch| batch.flying.is_none())
    }

    fn answered(&mut self, id: i32, partition: &PartitionProduceResponse) {
        let found = self.queues.iter().find_map(|(key, queue)| {
            let mut batches = queue.batches.iter();
            let at = batches.position(|b| b.flying.is_some_and(|(flying, _)| flying == id))?;
            Some((*key, at))
        });
        let Some((key, at)) = found else { return };
        let produced = outcome(partition);
        match produced {
            Produced::Written(base) => self.settle(key, at, Kind::Ok, base),
            Produced::NotWritten if !self.idempotent => self.settle(key, at, Kind::Fail, None),
            _ if !self.idempotent => self.settle(key, at, Kind::Info, None),
            Produced::OutOfOrder | Produced::Fenced => {
                if at == 0 || produced == Produced::Fenced {
                    let sequence = self.queues[key].batches[at].sequence;
                    self.town.violation(format!(
                        "{} was told {produced:?} for {key} sequence {sequence}, with everything before it acknowledged",
                        self.process()
                    ));
                }
                self.again(key, at);
            }
            Produced::NotWritten | Produced::Unknown => self.again(key, at),
        }
        if matches!(produced, Produced::NotWritten | Produced::Unknown) {
            self.look_elsewhere();
        }
    }

    /// Once nothing is in flight any more, the next server is tried.
    fn look_elsewhere(&mut self) {
        let mut batches = self.queues.values().flat_map(|queue| &queue.batches);
        if batches.all(|batch| batch.flying.is_none()) {
            self.connection = None;
            self.client.skip();
        }
    }

    /// The batch waits for its turn again.
    fn again(&mut self, key: &str, at: usize) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.batches[at].flying = None;
            queue.draining = true;
            queue.not_before_us = seeded::now_us() + BACKOFF_US;
        }
    }

    fn settle(&mut self, key: &str, at: usize, kind: Kind, base: Option<i64>) {
        let process = self.process();
        let queue = self.queues.get_mut(key);
        let Some(pending) = queue.and_then(|queue| queue.batches.remove(at)) else {
            return;
        };
        for (delta, (value, hash, op)) in (0..).zip(pending.records) {
            let offset = base.map(|base| base + delta);
            let act = match kind {
                Kind::Ok => recorder::sending(key, value, hash, offset),
                _ => Act::Micro(Shape::Send, Vec::<Micro>::new()),
            };
            self.town
                .record(|now_us, history| history.end(now_us, &process, op, kind, act));
        }
    }

    /// The connection is dropped; what was in flight on it may or may not have arrived.
    async fn broken(&mut self) {
        self.connection = None;
        for key in KEYS {
            let count = self.queues.get(key).map_or(0, |queue| queue.batches.len());
            for at in (0..count).rev() {
                let is_flying = self.queues[key].batches[at].flying.is_some();
                if is_flying && self.idempotent {
                    self.again(key, at);
                } else if is_flying {
                    self.settle(key, at, Kind::Info, None);
                }
            }
        }
        self.client.elsewhere().await;
    }

    /// A batch is too old: this producer ends, another begins in its place.
    fn give_up(&mut self) {
        let now_us = seeded::now_us();
        let mut batches = self.queues.values().flat_map(|queue| &queue.batches);
        if !batches.any(|batch| now_us > batch.since_us + DELIVERY_US) {
            return;
        }
        for key in KEYS {
            while self
                .queues
                .get(key)
                .is_some_and(|queue| !queue.batches.is_empty())
            {
                self.settle(key, 0, Kind::Info, None);
            }
        }
        self.queues.clear();
        self.connection = None;
        self.identity = None;
        self.run += 1;
    }
}

fn outcome(partition: &PartitionProduceResponse) -> Produced {
    let base = (partition.base_offset >= 0).then_some(partition.base_offset);
    match ErrorCode::from_code(partition.error_code) {
        Some(ErrorCode::None) => Produced::Written(base),
        Some(ErrorCode::DuplicateSequenceNumber) => Produced::Written(None),
        Some(ErrorCode::OutOfOrderSequenceNumber) => Produced::OutOfOrder,
        Some(ErrorCode::InvalidProducerEpoch) => Produced::Fenced,
        // What this server tells of what was certainly not written.
        Some(ErrorCode::NotLeaderOrFollower | ErrorCode::UnknownTopicOrPartition) => {
            Produced::NotWritten
        }
        _ => Produced::Unknown,
    }
}
