//! Simulated consumers that assign partitions themselves: one that reads along, and the final one that reads everything.
//!
//! Must not know how agents work.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::history::{Act, Assign, From, Kind};
use crate::network::Place;

use super::context::{Context, Input, Life};
use super::message::{Ask, Body, Number, Read, Told};
use crate::payload::{self, Polled};
use crate::recorder;

/// A request without an answer is asked elsewhere.
const PATIENCE_US: u64 = 4_000_000;

/// What a consumer waits for.
enum Waiting {
    Poll(Number, u64),
    Offsets(Number, u64),
}

pub(super) struct Consumer {
    place: Place,
    agents: Vec<Place>,
    agent: usize,
    run: u32,
    positions: BTreeMap<String, i64>,
    assigned: bool,
    waiting: Option<Waiting>,
    pause_us: u64,
    /// Wakes before that are left over from one that was put forward.
    wake_us: u64,
    /// Of a final reader: its operation, and where to read to.
    reading: Option<u64>,
    targets: Option<BTreeMap<String, i64>>,
    /// Keys whose position is gone.
    reset: Vec<String>,
    is_final: bool,
    done: bool,
}

impl Consumer {
    /// A consumer that reads along, at any agent.
    pub(super) fn along(cx: &mut Context, place: Place, agents: Vec<Place>) -> Self {
        let agent = cx.scheduler.rng.below(agents.len() as u64) as usize;
        let pause_us = 5_000 + cx.scheduler.rng.below(100_000);
        Consumer {
            place,
            agents,
            agent,
            run: 0,
            positions: BTreeMap::new(),
            assigned: false,
            waiting: None,
            pause_us,
            wake_us: 0,
            reading: None,
            targets: None,
            reset: Vec::new(),
            is_final: false,
            done: false,
        }
    }

    /// A reader of everything, at one agent.
    pub(super) fn last(cx: &mut Context, place: Place, agent: Place) -> Self {
        Consumer {
            is_final: true,
            ..Consumer::along(cx, place, vec![agent])
        }
    }

    /// Whether a final reader has read to the end.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn handle(&mut self, cx: &mut Context, life: Life, input: Input) {
        match input {
            Input::Start | Input::Wake => self.wake(cx, life),
            Input::Message(_, Body::Told(number, told)) => self.told(cx, life, number, told),
            Input::TimedOut(number) => self.timed_out(cx, life, number),
            _ => {}
        }
    }

    fn process(&self) -> String {
        let role = if self.is_final { "f" } else { "c" };
        format!("{role}{}.{}", self.place, self.run)
    }

    fn wake(&mut self, cx: &mut Context, life: Life) {
        if self.done || cx.now_us() < self.wake_us {
            return;
        }
        self.wake_after(cx, life, self.pause_us);
        if self.waiting.is_some() || !cx.topics_known() {
            return;
        }
        if !self.is_final && cx.scheduler.rng.once_in(100) {
            self.restart();
        }
        if !self.assigned {
            self.assign(cx);
        }
        if self.is_final && self.targets.is_none() || !self.reset.is_empty() {
            return self.list(cx, life);
        }
        let op = cx.recorder.begin(
            cx.now_us(),
            &self.process(),
            recorder::polling(Polled::new()),
        );
        let wants = self
            .positions
            .iter()
            .filter_map(|(key, &offset)| Some((*cx.partitions.get(key)?, offset)));
        let ask = Ask::Fetch(wants.collect());
        let number = self.ask(cx, life, ask);
        self.waiting = Some(Waiting::Poll(number, op));
    }

    fn wake_after(&mut self, cx: &mut Context, life: Life, delay_us: u64) {
        self.wake_us = cx.now_us() + delay_us;
        cx.wake_at(self.place, life, self.wake_us);
    }

    fn restart(&mut self) {
        self.run += 1;
        self.assigned = false;
        self.positions.clear();
        self.reset.clear();
    }

    fn assign(&mut self, cx: &mut Context) {
        let keys: Vec<String> = cx.partitions.keys().cloned().collect();
        self.positions = keys.iter().map(|key| (key.clone(), 0)).collect();
        let process = self.process();
        let now_us = cx.now_us();
        let assign = Assign {
            keys: keys.clone(),
            kept: Vec::new(),
            from: Some(From::Beginning),
        };
        cx.recorder.at_once(
            now_us,
            &process,
            Act::Assign(Some(assign)),
            Act::Assign(None),
        );
        self.assigned = true;
        if self.is_final {
            self.reading = Some(cx.recorder.begin(now_us, &process, Act::FinalBegin(keys)));
        }
    }

    fn ask(&self, cx: &mut Context, life: Life, ask: Ask) -> Number {
        let number = cx.number();
        cx.send(self.place, self.agents[self.agent], Body::Ask(number, ask));
        cx.time_out(self.place, life, PATIENCE_US, number);
        number
    }

    fn list(&mut self, cx: &mut Context, life: Life) {
        let op = cx
            .recorder
            .begin(cx.now_us(), &self.process(), Act::Debug(BTreeMap::new()));
        let ask = Ask::ListOffsets(cx.partitions.values().copied().collect());
        let number = self.ask(cx, life, ask);
        self.waiting = Some(Waiting::Offsets(number, op));
    }

    fn told(&mut self, cx: &mut Context, life: Life, number: Number, told: Told) {
        match (&self.waiting, told) {
            (Some(Waiting::Poll(asked, op)), Told::Fetched(parts)) if *asked == number => {
                let op = *op;
                self.waiting = None;
                self.polled(cx, op, parts);
                self.check_end(cx);
                self.wake_after(cx, life, self.pause_us / 4);
            }
            (Some(Waiting::Offsets(asked, op)), Told::Offsets(Some(bounds)))
                if *asked == number =>
            {
                let op = *op;
                self.waiting = None;
                let keys = cx.partitions.keys().cloned();
                let listed: BTreeMap<String, meta::places::Bounds> = keys
                    .zip(bounds)
                    .filter_map(|(key, bounds)| Some((key, bounds?)))
                    .collect();
                for key in std::mem::take(&mut self.reset) {
                    if let Some(bounds) = listed.get(&key) {
                        self.positions.insert(key, bounds.log_start);
                    }
                }
                let ends = listed
                    .iter()
                    .map(|(key, b)| (key.clone(), b.high_watermark));
                self.targets.get_or_insert_with(|| ends.collect());
                let told = listed
                    .iter()
                    .map(|(key, b)| (key.clone(), recorder::bounds(b)))
                    .collect();
                let (now_us, process) = (cx.now_us(), self.process());
                cx.recorder
                    .end(now_us, &process, op, Kind::Ok, Act::Debug(told));
                self.check_end(cx);
            }
            (Some(Waiting::Offsets(asked, op)), Told::Offsets(None)) if *asked == number => {
                let op = *op;
                self.waiting = None;
                let nothing = Act::Debug(BTreeMap::new());
                cx.recorder
                    .end(cx.now_us(), &self.process(), op, Kind::Info, nothing);
            }
            _ => {}
        }
    }

    fn polled(&mut self, cx: &mut Context, op: u64, parts: Vec<(meta::ids::PartitionId, Read)>) {
        let mut polled = Polled::new();
        let process = self.process();
        for (partition, read) in parts {
            let key = cx.partitions.iter().find(|(_, id)| **id == partition);
            let Some(key) = key.map(|(key, _)| key.clone()) else {
                continue;
            };
            let Some(position) = self.positions.get_mut(&key) else {
                continue;
            };
            match read {
                Read::Batches(batches) => {
                    let batches: Vec<(i64, Bytes)> = batches
                        .into_iter()
                        .map(|(base, blob)| (base, blob.0))
                        .collect();
                    let (records, next) = payload::read(&batches, *position);
                    *position = next;
                    if !records.is_empty() {
                        polled.insert(key, records);
                    }
                }
                // auto.offset.reset = earliest: it lists offsets next.
                Read::OutOfRange => self.reset.push(key),
                Read::Failed => {}
            }
        }
        cx.recorder.end(
            cx.scheduler.now_us(),
            &process,
            op,
            Kind::Ok,
            recorder::polling(polled),
        );
    }

    fn check_end(&mut self, cx: &mut Context) {
        let Some(targets) = &self.targets else { return };
        let reached = |(key, target): (&String, &i64)| {
            self.positions
                .get(key)
                .is_some_and(|position| position >= target)
        };
        if targets.iter().all(reached)
            && let Some(op) = self.reading.take()
        {
            self.done = true;
            let end = Act::FinalEnd {
                unreached: Some(Vec::new()),
            };
            cx.recorder
                .end(cx.scheduler.now_us(), &self.process(), op, Kind::Ok, end);
        }
    }

    fn timed_out(&mut self, cx: &mut Context, _life: Life, number: Number) {
        let process = self.process();
        match self.waiting {
            Some(Waiting::Poll(asked, op)) if asked == number => {
                let nothing = recorder::polling(Polled::new());
                cx.recorder
                    .end(cx.scheduler.now_us(), &process, op, Kind::Ok, nothing);
            }
            Some(Waiting::Offsets(asked, op)) if asked == number => {
                let nothing = Act::Debug(BTreeMap::new());
                cx.recorder
                    .end(cx.scheduler.now_us(), &process, op, Kind::Info, nothing);
            }
            _ => return,
        }
        self.waiting = None;
        self.agent = (self.agent + 1) % self.agents.len();
    }
}

/// A process that lists offsets now and then.
pub(super) struct Lister {
    place: Place,
    agents: Vec<Place>,
    waiting: Option<(Number, u64)>,
}

impl Lister {
    /// A lister that asks any agent.
    pub(super) fn new(place: Place, agents: Vec<Place>) -> Self {
        Lister {
            place,
            agents,
            waiting: None,
        }
    }

    pub(super) fn handle(&mut self, cx: &mut Context, life: Life, input: Input) {
        let process = format!("d{}", self.place);
        match input {
            Input::Start | Input::Wake => {
                let pause_us = 50_000 + cx.scheduler.rng.below(500_000);
                cx.wake_at(self.place, life, cx.now_us() + pause_us);
                if self.waiting.is_none() && cx.topics_known() {
                    let act = Act::Debug(BTreeMap::new());
                    let op = cx.recorder.begin(cx.now_us(), &process, act);
                    let at = cx.scheduler.rng.below(self.agents.len() as u64) as usize;
                    let number = cx.number();
                    let ask = Ask::ListOffsets(cx.partitions.values().copied().collect());
                    cx.send(self.place, self.agents[at], Body::Ask(number, ask));
                    cx.time_out(self.place, life, PATIENCE_US, number);
                    self.waiting = Some((number, op));
                }
            }
            Input::Message(_, Body::Told(number, Told::Offsets(Some(bounds)))) => {
                if let Some((_, op)) = self.waiting.take_if(|(asked, _)| *asked == number) {
                    let keys = cx.partitions.keys().cloned();
                    let told = keys.zip(bounds);
                    let told = told
                        .filter_map(|(key, b)| Some((key, recorder::bounds(&b?))))
                        .collect();
                    let now_us = cx.now_us();
                    cx.recorder
                        .end(now_us, &process, op, Kind::Ok, Act::Debug(told));
                }
            }
            Input::TimedOut(number) => {
                if let Some((_, op)) = self.waiting.take_if(|(asked, _)| *asked == number) {
                    let act = Act::Debug(BTreeMap::new());
                    let now_us = cx.now_us();
                    cx.recorder.end(now_us, &process, op, Kind::Info, act);
                }
            }
            _ => {}
        }
    }
}
