//! A simulated Kafka producer: five requests in flight, retries with the same sequences, order kept by draining first.
//!
//! It does what librdkafka and the Java client have in common. A producer that is not idempotent never repeats, so that any
//! duplicate is the server's. Must not know how agents work.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::history::{Act, Client, Kind, Micro, Producer as Known, Shape};
use crate::network::Place;

use super::context::{Context, Input, Life};
use super::message::{Ask, Blob, Body, Number, Produced, Told};
use crate::{payload, recorder};

/// Requests in flight on a connection.
const IN_FLIGHT: usize = 5;
/// Batches that wait, in all.
const QUEUE: usize = 20;
/// A request without an answer: the connection is dropped.
const PATIENCE_US: u64 = 4_000_000;
/// A batch that is not acknowledged by then is given up, and the producer with it.
const DELIVERY_US: u64 = 40_000_000;
/// Pause before a failed batch is sent again.
const BACKOFF_US: u64 = 50_000;

struct Pending {
    sequence: i32,
    /// Value, hash and operation of each record.
    records: Vec<(i64, String, u64)>,
    bytes: Bytes,
    since_us: u64,
    flying: Option<Number>,
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
    place: Place,
    idempotent: bool,
    agents: Vec<Place>,
    agent: usize,
    lane: u64,
    run: u32,
    identity: Option<(i64, i16)>,
    identity_asked: Option<Number>,
    queues: BTreeMap<String, Queue>,
    interval_us: u64,
    stop_us: u64,
    next_batch_us: u64,
}

impl Producer {
    /// A producer that sends until `stop_us`.
    pub(super) fn new(
        cx: &mut Context,
        place: Place,
        agents: Vec<Place>,
        idempotent: bool,
        stop_us: u64,
    ) -> Self {
        let rng = &mut cx.scheduler.rng;
        let agent = rng.below(agents.len() as u64) as usize;
        let interval_us = 5_000 + rng.below(80_000);
        let lane = cx.number();
        Producer {
            place,
            idempotent,
            agents,
            agent,
            lane,
            run: 0,
            identity: None,
            identity_asked: None,
            queues: BTreeMap::new(),
            interval_us,
            stop_us,
            next_batch_us: 0,
        }
    }

    /// Whether everything sent has its outcome.
    pub(super) fn is_done(&self, cx: &Context) -> bool {
        cx.now_us() >= self.stop_us && self.queues.values().all(|queue| queue.batches.is_empty())
    }

    pub(super) fn handle(&mut self, cx: &mut Context, life: Life, input: Input) {
        match input {
            Input::Start | Input::Wake => self.wake(cx, life),
            Input::Message(_, Body::Told(number, told)) => self.told(cx, life, number, told),
            Input::TimedOut(number) => self.timed_out(cx, number),
            _ => {}
        }
    }

    fn process(&self) -> String {
        format!("p{}.{}", self.place, self.run)
    }

    fn wake(&mut self, cx: &mut Context, life: Life) {
        cx.wake_at(self.place, life, cx.now_us() + self.interval_us);
        if self.idempotent && self.identity.is_none() {
            if self.identity_asked.is_none() {
                self.identity_asked = Some(self.ask(cx, life, Ask::InitProducer));
            }
            return;
        }
        if cx.now_us() >= self.next_batch_us && cx.now_us() < self.stop_us {
            self.next_batch_us = cx.now_us() + self.interval_us;
            self.create(cx);
        }
        self.give_up(cx);
        self.pump(cx, life);
    }

    fn ask(&self, cx: &mut Context, life: Life, ask: Ask) -> Number {
        let number = cx.number();
        cx.send(self.place, self.agents[self.agent], Body::Ask(number, ask));
        cx.time_out(self.place, life, PATIENCE_US, number);
        number
    }

    /// A new batch for some partition.
    fn create(&mut self, cx: &mut Context) {
        let waiting: usize = self.queues.values().map(|queue| queue.batches.len()).sum();
        if waiting >= QUEUE || cx.partitions.is_empty() {
            return;
        }
        let at = cx.scheduler.rng.below(cx.partitions.len() as u64) as usize;
        let Some(key) = cx.partitions.keys().nth(at).cloned() else {
            return;
        };
        let count = 1 + cx.scheduler.rng.below(3);
        let process = self.process();
        let (mut records, mut bodies) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let value = cx.value();
            let body = payload::record_bytes(value, &mut cx.scheduler.rng);
            let hash = payload::hash(&body);
            let act = recorder::sending(&key, value, hash.clone(), None);
            let op = cx.recorder.begin(cx.scheduler.now_us(), &process, act);
            records.push((value, hash, op));
            bodies.push(body);
        }
        let queue = self.queues.entry(key).or_default();
        let sequence = queue.next_sequence;
        queue.next_sequence += count as i32;
        let identity = self.identity.map(|(id, epoch)| (id, epoch, sequence));
        let timestamp_ms = (cx.now_us() / 1000) as i64;
        let bytes = payload::batch(&bodies, timestamp_ms, identity);
        let since_us = cx.now_us();
        queue.batches.push_back(Pending {
            sequence,
            records,
            bytes,
            since_us,
            flying: None,
        });
    }

    /// Sends what may be sent, oldest first, never past a batch that waits.
    fn pump(&mut self, cx: &mut Context, life: Life) {
        let keys: Vec<String> = self.queues.keys().cloned().collect();
        for key in keys {
            let Some(&partition) = cx.partitions.get(&key) else {
                continue;
            };
            while let Some(at) = self.sendable(cx.now_us(), &key) {
                let Some(pending) = self.queues.get(&key).and_then(|q| q.batches.get(at)) else {
                    break;
                };
                let batch = Blob(pending.bytes.clone());
                let ask = Ask::Produce {
                    lane: self.lane,
                    partition,
                    batch,
                };
                let number = self.ask(cx, life, ask);
                self.queues.entry(key.clone()).or_default().batches[at].flying = Some(number);
            }
        }
    }

    fn in_flight(&self) -> usize {
        let batches = self.queues.values().flat_map(|queue| &queue.batches);
        batches.filter(|batch| batch.flying.is_some()).count()
    }

    /// The first batch of a key that is not in flight, if it may go.
    fn sendable(&mut self, now_us: u64, key: &str) -> Option<usize> {
        if self.in_flight() >= IN_FLIGHT {
            return None;
        }
        let queue = self.queues.get_mut(key)?;
        if queue.draining {
            let drained = queue.batches.iter().all(|batch| batch.flying.is_none());
            if !drained || now_us < queue.not_before_us {
                return None;
            }
            queue.draining = false;
        }
        queue
            .batches
            .iter()
            .position(|batch| batch.flying.is_none())
    }

    fn told(&mut self, cx: &mut Context, life: Life, number: Number, told: Told) {
        match told {
            Told::Producer(Some((id, epoch))) if self.identity_asked == Some(number) => {
                self.identity_asked = None;
                self.identity = Some((id.0, epoch));
                let known = Known {
                    id: Some(id.0),
                    epoch: Some(i64::from(epoch)),
                    idempotent: Some(true),
                    transactional: None,
                };
                let client = Client {
                    producer: Some(known),
                    consumer: None,
                };
                let now_us = cx.now_us();
                let invoke = Act::Open(Client::default());
                cx.recorder
                    .at_once(now_us, &self.process(), invoke, Act::Open(client));
            }
            Told::Producer(None) if self.identity_asked == Some(number) => {
                self.identity_asked = None;
            }
            Told::Produced(produced) => {
                let found = self.queues.iter().find_map(|(key, queue)| {
                    let mut batches = queue.batches.iter();
                    let at = batches.position(|batch| batch.flying == Some(number))?;
                    Some((key.clone(), at))
                });
                if let Some((key, at)) = found {
                    self.produced(cx, &key, at, produced);
                    self.pump(cx, life);
                }
            }
            _ => {}
        }
    }

    fn produced(&mut self, cx: &mut Context, key: &str, at: usize, produced: Produced) {
        let first = at == 0;
        match produced {
            Produced::At(base) => self.settle(cx, key, at, Kind::Ok, Some(base)),
            Produced::Somewhere => self.settle(cx, key, at, Kind::Ok, None),
            Produced::NotWritten if !self.idempotent => {
                self.settle(cx, key, at, Kind::Fail, None);
            }
            _ if !self.idempotent => self.settle(cx, key, at, Kind::Info, None),
            Produced::OutOfOrder | Produced::Fenced => {
                if first || produced == Produced::Fenced {
                    let sequence = self.queues.get(key).map(|q| q.batches[at].sequence);
                    cx.violation(format!(
                        "{} was told {produced:?} for {key} sequence {sequence:?}, with everything before it acknowledged",
                        self.process()
                    ));
                }
                self.again(cx, key, at);
            }
            Produced::NotWritten | Produced::Unknown => self.again(cx, key, at),
        }
    }

    /// The batch waits for its turn again.
    fn again(&mut self, cx: &Context, key: &str, at: usize) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.batches[at].flying = None;
            queue.draining = true;
            queue.not_before_us = cx.now_us() + BACKOFF_US;
        }
    }

    fn settle(&mut self, cx: &mut Context, key: &str, at: usize, kind: Kind, base: Option<i64>) {
        let process = self.process();
        let Some(pending) = self
            .queues
            .get_mut(key)
            .and_then(|queue| queue.batches.remove(at))
        else {
            return;
        };
        for (delta, (value, hash, op)) in (0..).zip(pending.records) {
            let offset = base.filter(|base| *base >= 0).map(|base| base + delta);
            let act = match kind {
                Kind::Ok => recorder::sending(key, value, hash, offset),
                _ => Act::Micro(Shape::Send, Vec::<Micro>::new()),
            };
            cx.recorder
                .end(cx.scheduler.now_us(), &process, op, kind, act);
        }
    }

    /// The connection is dropped; what was in flight on it may or may not have arrived.
    fn timed_out(&mut self, cx: &mut Context, number: Number) {
        let asked = self.identity_asked == Some(number);
        let mut batches = self.queues.values().flat_map(|queue| &queue.batches);
        if !asked && !batches.any(|batch| batch.flying == Some(number)) {
            return;
        }
        self.identity_asked = None;
        self.agent = (self.agent + 1) % self.agents.len();
        self.lane = cx.number();
        let keys: Vec<String> = self.queues.keys().cloned().collect();
        for key in keys {
            let count = self.queues.get(&key).map_or(0, |queue| queue.batches.len());
            for at in (0..count).rev() {
                let flying = self
                    .queues
                    .get(&key)
                    .is_some_and(|q| q.batches[at].flying.is_some());
                if flying && self.idempotent {
                    self.again(cx, &key, at);
                } else if flying {
                    self.settle(cx, &key, at, Kind::Info, None);
                }
            }
        }
    }

    /// A batch is too old: this producer ends, another begins in its place.
    fn give_up(&mut self, cx: &mut Context) {
        let now_us = cx.now_us();
        let old = |batch: &Pending| now_us > batch.since_us + DELIVERY_US;
        if !self
            .queues
            .values()
            .flat_map(|queue| &queue.batches)
            .any(old)
        {
            return;
        }
        let keys: Vec<String> = self.queues.keys().cloned().collect();
        for key in keys {
            while self
                .queues
                .get(&key)
                .is_some_and(|queue| !queue.batches.is_empty())
            {
                self.settle(cx, &key, 0, Kind::Info, None);
            }
        }
        self.queues.clear();
        self.identity = None;
        self.run += 1;
        self.lane = cx.number();
    }
}
