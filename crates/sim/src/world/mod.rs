//! The simulated world: control nodes that contend for one journal, agents, clients, a bucket and a network, all of them
//! faulty, and the judgement of what clients saw and what lies in the bucket.
//!
//! One seed is one run: it draws how many of each there are, their settings, the faults and every delay. Must not reach
//! around the cores: what they decide is decided by the same code as in production.

mod agent;
mod consumer;
mod context;
mod control;
mod coordination;
mod desk;
mod member;
mod message;
mod producer;
mod reader;
mod store;

use std::collections::BTreeMap;
use std::time::Duration;

use host::rng::Rng;
use meta::State;

use crate::bucket::{self, Answer};
use crate::checker::{self, Report};
use crate::faults::{Fault, Faults};
use crate::history::{Act, Header, Line};
use crate::mutation::Mutation;
use crate::network::Place;
use crate::scheduler::{Scheduler, Trace};

use crate::recorder::Recorder;
use agent::Agent;
use consumer::{Consumer, Lister};
use context::{BucketAnswer, Context, Happening, Input, Life, file_key};
use control::Control;
use member::Member;
use producer::Producer;
use store::JournalAnswer;

/// Load lasts so long at least, and up to twice as long.
const LOAD_US: u64 = 10_000_000;
/// After healing, clients may take so long to finish.
const FINISH_US: u64 = 90_000_000;
/// Between two draws of what befalls processes.
const NEMESIS_US: u64 = 300_000;
/// Before the first fault, and after healing before the final readings.
const QUIET_US: u64 = 3_500_000;
/// A consumer that lags for longer than this after healing is stuck.
const LAG_BOUND_US: u64 = 20_000_000;
/// A killed process comes back within this time.
const RESTART_US: u64 = 2_000_000;
/// A paused process goes on within this time.
const PAUSE_US: u64 = 6_000_000;

const FIRST_CONTROL: Place = 1;
const FIRST_AGENT: Place = 11;
const FIRST_CLIENT: Place = 101;

/// What a run is.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub seed: u64,
    pub mutation: Option<Mutation>,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What the checker says of the clients' history.
    pub report: Report,
    /// What else went wrong, with the simulated time.
    pub violations: Vec<String>,
    /// (lines, hash) of the trace.
    pub trace: (u64, u64),
    pub injected: BTreeMap<Fault, u64>,
    pub header: Header,
    pub lines: Vec<Line>,
    /// Entries in the journal at the end.
    pub entries: u64,
    /// How long clients waited for service after the end of a leader, by what it came to; the town's alone.
    pub waits: Vec<(&'static str, Duration)>,
}

impl Outcome {
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.report.is_clean()
    }
}

enum Actor {
    Control(Box<Control>),
    Agent(Box<Agent>),
    Producer(Producer),
    Consumer(Consumer),
    Lister(Lister),
    Member(Member),
}

struct Process {
    life: Life,
    paused_until_us: u64,
    /// What reached it while it was paused, in order.
    held: Vec<(Life, Input)>,
    /// `None` while it is down.
    actor: Option<Actor>,
}

struct World {
    cx: Context,
    processes: BTreeMap<Place, Process>,
    controls: Vec<Place>,
    agents: Vec<Place>,
    plan: control::Plan,
    heal_us: u64,
    final_places: Vec<Place>,
    /// The newest state of a control node that is down.
    buried: Option<(u64, State)>,
}

pub fn run(settings: Settings, trace: Trace) -> Outcome {
    let mut world = World::new(settings, trace);
    let end_us = world.heal_us + QUIET_US + FINISH_US;
    while let Some(happening) = world.cx.scheduler.next_before(end_us) {
        world.happen(happening);
        if world.is_over() {
            break;
        }
    }
    world.judge()
}

impl World {
    fn new(settings: Settings, trace: Trace) -> Self {
        let mut scheduler = Scheduler::new(settings.seed, trace);
        let rng = &mut scheduler.rng;
        let mut faults = Faults::draw(rng);
        faults.hold();
        let controls = places(FIRST_CONTROL, 1 + rng.below(3));
        let agents = places(FIRST_AGENT, 1 + rng.below(3));
        let plan = plan(rng);
        let heal_us = LOAD_US + rng.below(LOAD_US);
        let (producers, consumers) = (1 + rng.below(4), 1 + rng.below(2));
        let removed = match settings.mutation {
            Some(Mutation::Journal(rule)) => Some(rule),
            _ => None,
        };
        let mut cx = Context::new(scheduler, faults, removed);
        cx.topics = plan
            .topics
            .iter()
            .map(|(name, count, _)| (name.clone(), *count))
            .collect();
        let mut world = World {
            cx,
            processes: BTreeMap::new(),
            controls,
            agents,
            plan,
            heal_us,
            final_places: Vec::new(),
            buried: None,
        };
        for place in world
            .controls
            .clone()
            .into_iter()
            .chain(world.agents.clone())
        {
            world.start(place, None);
        }
        world.start_clients(producers, consumers);
        world.cx.scheduler.at(QUIET_US, Happening::Nemesis);
        world.cx.scheduler.at(heal_us, Happening::Heal);
        world
    }

    fn start_clients(&mut self, producers: u64, consumers: u64) {
        let agents = self.agents.clone();
        let mut place = FIRST_CLIENT;
        for number in 0..producers {
            // One in four does not number its batches.
            let idempotent = number == 0 || !self.cx.scheduler.rng.once_in(4);
            let stop_us = self.heal_us + 1_000_000;
            let producer = Producer::new(&mut self.cx, place, agents.clone(), idempotent, stop_us);
            self.start(place, Some(Actor::Producer(producer)));
            place += 1;
        }
        for _ in 0..consumers {
            let consumer = Consumer::along(&mut self.cx, place, agents.clone());
            self.start(place, Some(Actor::Consumer(consumer)));
            place += 1;
        }
        for _ in 0..self.cx.scheduler.rng.below(4) {
            let member = Member::new(&mut self.cx, place, agents.clone());
            self.start(place, Some(Actor::Member(member)));
            place += 1;
        }
        self.start(place, Some(Actor::Lister(Lister::new(place, agents))));
    }

    /// Starts a process, or starts it again with nothing.
    fn start(&mut self, place: Place, actor: Option<Actor>) {
        let life = self.processes.get(&place).map_or(0, |process| process.life) + 1;
        let actor = actor.unwrap_or_else(|| {
            if self.controls.contains(&place) {
                let control = Control::new(&mut self.cx, place, life, self.plan.clone());
                Actor::Control(Box::new(control))
            } else {
                Actor::Agent(Box::new(Agent::new(
                    &mut self.cx,
                    place,
                    life,
                    self.controls.clone(),
                )))
            }
        });
        self.cx.lives.insert(place, life);
        let process = Process {
            life,
            paused_until_us: 0,
            held: Vec::new(),
            actor: Some(actor),
        };
        self.processes.insert(place, process);
        self.cx
            .scheduler
            .after(0, Happening::To(place, life, Input::Start));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::To(place, life, input) => self.deliver(place, life, input),
            Happening::BucketEffect(number) => self.bucket_effect(number),
            Happening::BucketAnswer(number) => self.bucket_answer(number),
            Happening::JournalEffect(number) => {
                if let Some(flying) = self.cx.journal_flying.get_mut(&number) {
                    flying.answer = Some(self.cx.journal.perform(&flying.request));
                    if flying.plan.answer_us == 0 {
                        self.cx.journal_flying.remove(&number);
                    }
                }
            }
            Happening::JournalAnswer(number) => self.journal_answer(number),
            Happening::Resume(place) => self.resume(place),
            Happening::Restart(place) => self.start(place, None),
            Happening::Nemesis => self.nemesis(),
            Happening::Heal => self.heal(),
            Happening::Final => self.begin_final(),
        }
    }

    fn deliver(&mut self, place: Place, life: Life, input: Input) {
        let now_us = self.cx.now_us();
        let Some(process) = self.processes.get_mut(&place) else {
            return;
        };
        if life != 0 && life != process.life {
            return;
        }
        if now_us < process.paused_until_us {
            return process.held.push((life, input));
        }
        let life = process.life;
        let cx = &mut self.cx;
        match &mut process.actor {
            Some(Actor::Control(control)) => control.handle(cx, input),
            Some(Actor::Agent(agent)) => agent.handle(cx, input),
            Some(Actor::Producer(producer)) => producer.handle(cx, life, input),
            Some(Actor::Consumer(consumer)) => consumer.handle(cx, life, input),
            Some(Actor::Lister(lister)) => lister.handle(cx, life, input),
            Some(Actor::Member(member)) => member.handle(cx, life, input),
            None => {}
        }
        if let Some(dying) = self.cx.dying.take() {
            self.kill(dying, "between effects");
        }
    }

    /// What was held reaches the process, if its pause is over.
    fn resume(&mut self, place: Place) {
        let now_us = self.cx.now_us();
        let Some(process) = self.processes.get_mut(&place) else {
            return;
        };
        if process.paused_until_us <= now_us {
            for (life, input) in std::mem::take(&mut process.held) {
                self.deliver(place, life, input);
            }
        }
    }

    fn kill(&mut self, place: Place, how: &str) {
        let Some(process) = self.processes.get_mut(&place) else {
            return;
        };
        let Some(actor) = process.actor.take() else {
            return;
        };
        process.life += 1;
        self.cx.lives.insert(place, process.life);
        self.cx.network.reset(place);
        if let Actor::Control(control) = actor
            && self
                .buried
                .as_ref()
                .is_none_or(|(applied, _)| *applied < control.applied)
        {
            self.buried = Some((control.applied, control.state));
        }
        let what = format!("kill {place} {how}");
        self.cx
            .recorder
            .event(self.cx.scheduler.now_us(), Act::Fault(what));
        let delay_us = self.cx.scheduler.rng.below(RESTART_US);
        self.cx.scheduler.after(delay_us, Happening::Restart(place));
    }

    fn bucket_effect(&mut self, number: message::Number) {
        let Some(flying) = self.cx.bucket_flying.get(&number) else {
            return;
        };
        let request = flying.request.clone();
        let answer = self.cx.bucket.perform(&request);
        if let Some(flying) = self.cx.bucket_flying.get_mut(&number) {
            flying.answer = Some(answer);
        }
        self.cx.bucket_forget(number);
    }

    /// The state of the control node that has applied most.
    fn newest(&self) -> Option<&State> {
        let controls = self
            .processes
            .values()
            .filter_map(|process| match &process.actor {
                Some(Actor::Control(control)) => Some((control.applied, &control.state)),
                _ => None,
            });
        let buried = self.buried.iter().map(|(applied, state)| (*applied, state));
        controls
            .chain(buried)
            .max_by_key(|(applied, _)| *applied)
            .map(|(_, state)| state)
    }

    fn bucket_answer(&mut self, number: message::Number) {
        let Some(flying) = self.cx.bucket_flying.get_mut(&number) else {
            return;
        };
        let (place, life) = (flying.place, flying.life);
        let told = flying
            .plan
            .instead
            .clone()
            .or_else(|| flying.answer.clone());
        let corrupt = flying.plan.corrupt;
        flying.plan.answer_us = 0;
        let answer = match told {
            Some(Answer::Found(bytes)) if corrupt => {
                Answer::Found(bucket::corrupted(&bytes, &mut self.cx.scheduler.rng))
            }
            Some(answer) => answer,
            None => Answer::Unknown,
        };
        self.cx.bucket_forget(number);
        self.deliver(place, life, Input::Bucket(number, BucketAnswer(answer)));
    }

    fn journal_answer(&mut self, number: message::Number) {
        let Some(flying) = self.cx.journal_flying.get_mut(&number) else {
            return;
        };
        let (place, life) = (flying.place, flying.life);
        let answer = match (&flying.plan.instead, &flying.answer) {
            (None, Some(answer)) => answer.clone(),
            _ => JournalAnswer::Failed,
        };
        flying.plan.answer_us = 0;
        if flying.answer.is_some() || flying.plan.effect_us.is_none() {
            self.cx.journal_flying.remove(&number);
        }
        self.deliver(place, life, Input::Journal(number, answer));
    }

    /// Draws what befalls control nodes and agents now.
    fn nemesis(&mut self) {
        if self.cx.faults.healed() {
            return;
        }
        self.cx.faults.begin();
        self.cx.scheduler.after(NEMESIS_US, Happening::Nemesis);
        let now_us = self.cx.now_us();
        let servers: Vec<Place> = self.controls.iter().chain(&self.agents).copied().collect();
        for &place in &servers {
            if self.cx.strike(Fault::Kill) {
                self.kill(place, "at random");
            }
            if self.cx.strike(Fault::Pause) {
                let until_us = now_us + self.cx.scheduler.rng.below(PAUSE_US);
                if let Some(process) = self.processes.get_mut(&place) {
                    process.paused_until_us = process.paused_until_us.max(until_us);
                    let at_us = process.paused_until_us;
                    self.cx.scheduler.at(at_us, Happening::Resume(place));
                }
                self.cx
                    .recorder
                    .event(now_us, Act::Fault(format!("pause {place}")));
            }
            if self.cx.strike(Fault::OneWayCut) {
                let at = self.cx.scheduler.rng.below(servers.len() as u64) as usize;
                let rng = &mut self.cx.scheduler.rng;
                self.cx.network.cut_one_way(now_us, place, servers[at], rng);
                self.cx
                    .recorder
                    .event(now_us, Act::Fault(format!("cut {place}")));
            }
            if self.cx.strike(Fault::Isolation) {
                let rng = &mut self.cx.scheduler.rng;
                let others = self.processes.keys().copied();
                self.cx.network.isolate(now_us, place, others, rng);
                self.cx
                    .recorder
                    .event(now_us, Act::Fault(format!("isolate {place}")));
            }
            if self.cx.strike(Fault::ClockJump) {
                let millis = self.cx.scheduler.rng.below(1_200_000) as i64 - 600_000;
                if let Some(Process {
                    actor: Some(Actor::Control(control)),
                    ..
                }) = self.processes.get_mut(&place)
                {
                    control.skew(millis);
                }
                self.cx
                    .recorder
                    .event(now_us, Act::Fault(format!("clock of {place}")));
            }
        }
    }

    fn heal(&mut self) {
        // Requests that failed count as faults of the run as well.
        let injected: u64 = self.cx.faults.injected().values().sum();
        let now_us = self.cx.now_us();
        if injected > 0 {
            self.cx
                .recorder
                .event(now_us, Act::Fault(format!("{injected} in all")));
        }
        self.cx.faults.heal();
        for place in self.processes.keys().copied().collect::<Vec<_>>() {
            if let Some(process) = self.processes.get_mut(&place) {
                process.paused_until_us = process.paused_until_us.min(now_us);
            }
            self.resume(place);
        }
        // Some come back from snapshot and journal, to be compared with those that go on.
        for place in self.controls.clone() {
            if self.cx.scheduler.rng.below(2) == 0 {
                self.kill(place, "to replay");
            }
        }
        self.cx.recorder.event(now_us, Act::Heal);
        self.cx.scheduler.after(QUIET_US, Happening::Final);
    }

    /// Starts a final reader per agent, once the producers are through.
    fn begin_final(&mut self) {
        let busy = self.processes.values().any(|process| match &process.actor {
            Some(Actor::Producer(producer)) => !producer.is_done(&self.cx),
            _ => false,
        });
        let late = self.cx.now_us() > self.heal_us + FINISH_US / 2;
        if busy && !late {
            return self.cx.scheduler.after(500_000, Happening::Final);
        }
        if busy {
            self.cx
                .violation("producers did not finish after healing".to_owned());
        }
        let first = FIRST_CLIENT + 100;
        for (place, agent) in (first..).zip(self.agents.clone()) {
            let reader = Consumer::last(&mut self.cx, place, agent);
            self.final_places.push(place);
            self.start(place, Some(Actor::Consumer(reader)));
        }
    }

    fn is_over(&self) -> bool {
        let done = |place: &Place| match self.processes.get(place).map(|p| &p.actor) {
            Some(Some(Actor::Consumer(reader))) => reader.is_done(),
            _ => false,
        };
        !self.final_places.is_empty() && self.final_places.iter().all(done)
    }

    fn judge(mut self) -> Outcome {
        if !self.is_over() {
            self.cx
                .violation("the final readings did not end in bounded time".to_owned());
        }
        self.check_files();
        let faulty = self.cx.faults.injected().values().sum::<u64>() > 0;
        let header = Recorder::header(faulty, LAG_BOUND_US);
        let lines = std::mem::take(&mut self.cx.recorder).into_lines();
        let report = match checker::check_lines(header.clone(), lines.iter().cloned()) {
            Ok(report) => report,
            Err(error) => {
                self.cx
                    .violations
                    .push(format!("the history contradicts itself: {error}"));
                Report::default()
            }
        };
        Outcome {
            report,
            violations: self.cx.violations,
            trace: self.cx.scheduler.trace.digest(),
            injected: self.cx.faults.injected().clone(),
            header,
            lines,
            entries: self.cx.journal.head(),
            waits: Vec::new(),
        }
    }

    /// Every slice of every partition lies in a whole file in the bucket.
    fn check_files(&mut self) {
        let mut flaws = Vec::new();
        let Some(state) = self.newest() else { return };
        for &partition in self.cx.partitions.values() {
            let Some(known) = state.partition(partition) else {
                continue;
            };
            let located = state.locate(partition, known.log_start(), u64::MAX, usize::MAX);
            let meta::places::Located::Found { places, .. } = located else {
                continue;
            };
            for place in places {
                let key = file_key(place.file, place.nonce);
                let whole = self
                    .cx
                    .bucket
                    .peek(&key)
                    .is_some_and(|bytes| ::store::file::FileIndex::decode_whole(bytes).is_ok());
                if !whole {
                    flaws.push(format!("the live file {key} is not whole in the bucket"));
                }
            }
        }
        flaws.sort();
        flaws.dedup();
        flaws.into_iter().for_each(|flaw| self.cx.violation(flaw));
    }
}

fn places(first: Place, count: u64) -> Vec<Place> {
    (first..first + count as Place).collect()
}

/// What control nodes are started with.
fn plan(rng: &mut Rng) -> control::Plan {
    let kept = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
    let bytes = (500 + rng.below(4_000)).to_string();
    let short = BTreeMap::from([
        ("retention.ms".to_owned(), "-1".to_owned()),
        ("retention.bytes".to_owned(), bytes),
    ]);
    control::Plan {
        topics: vec![("t".to_owned(), 2, kept), ("short".to_owned(), 1, short)],
        journal: control::journal_settings(rng),
    }
}
