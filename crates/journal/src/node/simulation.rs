//! Several nodes on one journal under random schedules: lost replies, appends that land long after,
//! crashes, pauses, a floor that moves under sleepers, and a stray writer that obeys no rule. One
//! seed gives one run. Invariants are checked at every step and at the end; if any rule of the
//! journal is removed, some seed must notice.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use host::rng::Rng;

use super::*;
use crate::engine::settle::{Settle, Step};
use crate::entry::{Body, ClusterNumber, Entry, Header};
use crate::memory::{Books, Slots};
use crate::quarantine::Order;
use crate::rule::Rule;

mod engine_side;
mod nemesis;
mod operator;
mod oracle;
mod rules;
mod settings;
mod stores;

use engine_side::Side;
use oracle::Oracle;
use settings::{IN_FLIGHT, settings};
use stores::Stores;

const MILLIS: u64 = 1_000;
const SECONDS: u64 = 1_000 * MILLIS;
/// The fault-ridden part of a run, then the part in which all must recover.
const STORM: u64 = 40 * SECONDS;
const CALM: u64 = 30 * SECONDS;

/// An event of the simulated world.
enum Happening {
    /// A node gets an event, if it was not restarted meanwhile.
    Heard(usize, u64, Event),
    /// A node's own deadline may have come.
    Deadline(usize, u64),
    /// An append takes effect; with the node, life and tenure that wait for the answer, and when it
    /// comes.
    Lands(EntryId, Bytes, Option<(usize, u64, u64)>, u64),
    /// One step of a node's take.
    Step(usize, u64, Step),
    /// A slot is closed by a request whose sender has stopped waiting.
    Fills(u64),
    /// The bodies of slots that were read are read.
    Bodies(usize, u64, Ask, Vec<(u64, Content)>),
    Deletes(Vec<u64>, Vec<(u64, [u8; 32])>),
    SnapshotNamed(usize, u64, Box<Cut>, Option<u64>, Vec<u64>),
    Client,
    Nemesis,
    Operator,
    Restart(usize),
}

struct Place {
    node: Option<Node>,
    life: u64,
    paused_until: u64,
    applied: Vec<u64>,
    stamp: Stamp,
    /// How far its boot clock is ahead of the others'.
    offset: u64,
    /// Slots to which it has sent an entry since its start.
    sent: BTreeSet<u64>,
    engine: Side,
    /// True for a build that can apply every command.
    applies_all: bool,
    /// The last slot that it has applied.
    applied_to: u64,
    /// The operator's word at its next start.
    word: Option<Order>,
    /// What the others have said in this life of whether they have applied the entry that is to be left out: nothing yet, or whether one
    /// of them has.
    heard: Option<bool>,
}

struct World {
    rng: Rng,
    removed: Option<Rule>,
    now: u64,
    agenda: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    places: Vec<Place>,
    stores: Stores,
    oracle: Oracle,
    next_value: u64,
    faults: bool,
    /// True if some commands cannot be applied by some builds.
    poison: bool,
    /// True if nodes resign.
    resigns: bool,
    /// True if nodes hear of what counts from those that lead.
    tells: bool,
}

/// Every so many values there is one that some builds cannot apply.
const POISON: u64 = 12;

impl World {
    fn new(seed: u64, removed: Option<Rule>, poison: bool) -> Self {
        let mut rng = Rng::seeded(seed);
        let count = 2 + rng.below(3) as usize;
        let places = (0..count)
            .map(|number| Place {
                node: None,
                life: 0,
                paused_until: 0,
                applied: Vec::new(),
                stamp: Stamp::default(),
                offset: rng.below(100 * SECONDS),
                sent: BTreeSet::new(),
                engine: Side::default(),
                // In every third schedule no build can, in the others every second.
                applies_all: !poison
                    || (!seed.is_multiple_of(3) && (number + seed as usize).is_multiple_of(2)),
                applied_to: 0,
                word: None,
                heard: None,
            })
            .collect();
        let mut world = World {
            rng,
            removed,
            now: 0,
            agenda: BTreeMap::new(),
            sequence: 0,
            places,
            stores: Stores::default(),
            oracle: Oracle::default(),
            next_value: 1,
            faults: true,
            poison,
            resigns: false,
            tells: false,
        };
        for place in 0..count {
            world.at(0, Happening::Restart(place));
        }
        world.at(0, Happening::Client);
        world.at(SECONDS, Happening::Nemesis);
        if poison {
            world.at(SECONDS, Happening::Operator);
        }
        world
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.sequence += 1;
        let time = time.max(self.now);
        self.agenda.insert((time, self.sequence), happening);
    }

    /// A short delay, sometimes a long one.
    fn delay(&mut self) -> u64 {
        match self.rng.below(20) {
            0 if self.faults => self.rng.below(2 * SECONDS),
            _ => 200 + self.rng.below(10 * MILLIS),
        }
    }

    fn run(mut self) -> Result<Oracle, String> {
        while let Some(((time, _), happening)) = self.agenda.pop_first() {
            if time > STORM + CALM {
                break;
            }
            self.now = time;
            if self.faults && time > STORM {
                self.calm_down();
            }
            self.step(happening)?;
        }
        self.finish()
    }

    fn calm_down(&mut self) {
        self.faults = false;
        for place in 0..self.places.len() {
            self.places[place].paused_until = 0;
            self.at(self.now, Happening::Restart(place));
        }
    }

    fn step(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Heard(place, life, event) => self.hear(place, life, event)?,
            Happening::Deadline(place, life) => self.deadline(place, life)?,
            Happening::Lands(id, bytes, waiting, tenure) => {
                let holds = self.stores.append(id.index, bytes)?;
                if let Some((place, life, at)) = waiting {
                    let outcome = self.places[place].engine.answered(tenure, id.index, holds);
                    let event = Event::AppendDone(id, outcome);
                    self.at(at, Happening::Heard(place, life, event));
                }
            }
            Happening::Step(place, life, step) => self.take_step(place, life, step)?,
            Happening::Fills(index) => drop(self.stores.fill(index)?),
            Happening::Bodies(place, life, ask, slots) => {
                let slots = self.stores.complete(slots);
                let end = End::More;
                let event = Event::Scanned(ask, Run { slots, end });
                self.at(self.now, Happening::Heard(place, life, event));
            }
            Happening::Deletes(indices, bodies) => {
                let floor = self.stores.slots.floor();
                self.stores.slots.trim(floor, &indices);
                self.stores.delete_bodies(&bodies);
            }
            Happening::SnapshotNamed(place, life, cut, older, applied) => {
                let index = cut.last.index;
                self.stores.name(*cut, applied);
                self.stores.sweep(older);
                let event = Event::SnapshotWritten(index, Ok(0));
                self.at(self.now, Happening::Heard(place, life, event));
            }
            Happening::Client => self.client()?,
            Happening::Nemesis => self.nemesis()?,
            Happening::Operator => self.operator(),
            Happening::Restart(place) => self.restart(place)?,
        }
        Ok(())
    }

    fn restart(&mut self, place: usize) -> Result<(), String> {
        if self.places[place].node.is_some() {
            return Ok(());
        }
        let mut draws = Rng::seeded(self.rng.next_u64());
        let entropy =
            Box::new(move || u128::from(draws.next_u64()) << 64 | u128::from(draws.next_u64()));
        // One node claims as soon as it may; the others wait for silence.
        let mut settings = settings(place, place == 0);
        settings.quarantine = self.places[place].word;
        let node = match self.removed {
            None => Node::new(settings, entropy),
            Some(rule) => Node::without(rule, settings, entropy),
        };
        let slot = &mut self.places[place];
        slot.node = Some(node);
        slot.life += 1;
        slot.applied.clear();
        slot.applied_to = 0;
        slot.heard = None;
        slot.stamp = Stamp::default();
        slot.sent.clear();
        slot.engine = Side::default();
        let life = slot.life;
        self.hear(place, life, Event::Started)
    }

    fn crash(&mut self, place: usize) {
        self.places[place].node = None;
        self.places[place].life += 1;
        self.oracle.crashed(place);
        let pause = self.rng.below(3 * SECONDS);
        self.at(self.now + pause, Happening::Restart(place));
    }

    /// Proposes values or asks for a barrier now and then.
    fn client(&mut self) -> Result<(), String> {
        // Whether it is served is judged at the end, so it does not pause then.
        let quiet = self.rng.once_in(40) && self.faults;
        let pause = if quiet { 2 * SECONDS } else { 60 * MILLIS };
        let next = self.now + self.rng.below(pause) + MILLIS;
        self.at(next, Happening::Client);
        let place = self.rng.below(self.places.len() as u64) as usize;
        let life = self.places[place].life;
        if self.places[place].node.is_none() || self.places[place].paused_until > self.now {
            return Ok(());
        }
        if self.rng.once_in(4) {
            let ticket = self.oracle.barrier(place);
            let event = match self.rng.once_in(2) {
                true => Event::Barrier(ticket),
                false => Event::Confirm(ticket),
            };
            return self.hear(place, life, event);
        }
        let mut proposals = Vec::new();
        for _ in 0..=self.rng.below(3) {
            let calm = !self.faults && self.poison && is_poison(self.next_value);
            self.next_value += u64::from(calm);
            let value = self.next_value;
            self.next_value += 1;
            let ticket = self.oracle.proposed(place, value);
            let command = Bytes::copy_from_slice(&value.to_le_bytes());
            let item = Item {
                cluster: ClusterNumber(1),
                command,
            };
            proposals.push(Proposal {
                ticket,
                item,
                stored_bytes: 0,
            });
        }
        self.hear(place, life, Event::Propose(proposals))
    }

    fn deadline(&mut self, place: usize, life: u64) -> Result<(), String> {
        let at = &self.places[place];
        if at.life != life
            || at
                .node
                .as_ref()
                .is_none_or(|node| node.deadline().is_none())
        {
            return Ok(());
        }
        self.hear(place, life, Event::Timer)
    }

    fn boot(&self, place: usize) -> Instant {
        Instant::from_micros(self.now + self.places[place].offset)
    }

    fn hear(&mut self, place: usize, life: u64, event: Event) -> Result<(), String> {
        let at = &self.places[place];
        if at.life != life {
            return Ok(());
        }
        if at.paused_until > self.now {
            let wake = at.paused_until;
            self.at(wake, Happening::Heard(place, life, event));
            return Ok(());
        }
        let now = Now {
            boot: self.boot(place),
            // Wall clocks are wrong and jump.
            wall_millis: self.now / MILLIS + self.rng.below(5_000),
        };
        let Some(node) = &mut self.places[place].node else {
            return Ok(());
        };
        let mut effects = Vec::new();
        node.handle(now, event, &mut effects);
        let mut effects = effects.into_iter();
        while let Some(effect) = effects.next() {
            if let Some(index) = self.poisoned(place, &effect) {
                let why = "poison".to_owned();
                self.oracle.told_all(place);
                self.hear(place, life, Event::Poisoned(index, why))?;
                let mut unperformed = effects.filter_map(|effect| effect.unperformed());
                return unperformed.try_for_each(|event| self.hear(place, life, event));
            }
            self.perform(place, life, effect)?;
        }
        self.look(place)?;
        let node = self.places[place].node.as_ref();
        if let Some(deadline) = node.and_then(Node::deadline) {
            let wake = deadline.as_micros() - self.places[place].offset;
            self.at(wake.max(self.now + 1), Happening::Deadline(place, life));
        }
        Ok(())
    }

    /// The index of an entry that cannot be applied by this node's build.
    fn poisoned(&self, place: usize, effect: &Effect) -> Option<u64> {
        let Effect::Apply { id, items, .. } = effect else {
            return None;
        };
        let cannot =
            !self.places[place].applies_all && items.iter().any(|item| is_poison(value_of(item)));
        cannot.then_some(id.index)
    }

    /// Checks the invariants of a node after an event.
    fn look(&mut self, place: usize) -> Result<(), String> {
        let now = self.boot(place);
        let at = &self.places[place];
        let Some(node) = &at.node else {
            return Ok(());
        };
        if let Some(why) = node.halted() {
            return Err(format!("n{place} halts: {why}"));
        }
        for id in [node.chain().claim(), node.chain().last()] {
            if !self.stores.valid.contains(&id) {
                return Err(format!("n{place} takes {id:?} for valid, which it is not"));
            }
        }
        if node.leading_until().is_some_and(|until| now < until) {
            let length = at.applied.len() + self.stores.given_up;
            self.oracle.answers_from_memory(place, length, self.now)?;
        }
        Ok(())
    }

    fn perform(&mut self, place: usize, life: u64, effect: Effect) -> Result<(), String> {
        let reply_at = self.now + self.delay();
        let failed = self.faults && self.rng.once_in(15);
        let error = || engine::Error::Unavailable("a fault".to_owned());
        if let Effect::LoadSnapshot { anew: true, .. } = effect {
            self.places[place].applied.clear();
            self.places[place].applied_to = 0;
            self.places[place].stamp = Stamp::default();
        }
        let event = match effect {
            Effect::Append { id, bytes, body } => {
                self.check_quarantine(place, &bytes)?;
                if let Some((sha256, object)) = body {
                    self.stores.put_body(sha256, object);
                }
                return self.append(place, life, id, bytes);
            }
            Effect::Take { ask, from, through } => {
                return self.take(place, life, ask, (from, through));
            }
            Effect::Confirmed => {
                self.places[place].engine.confirmed();
                return Ok(());
            }
            Effect::Apply {
                id,
                stamp,
                items,
                tickets,
                quarantines,
            } => {
                if quarantines {
                    self.places[place].applied.push(mark(id.index));
                }
                self.places[place].applied_to = id.index;
                return self.apply(place, id.index, stamp, &items, &tickets);
            }
            // What is lost the history shows.
            Effect::LeftOut { .. } => return Ok(()),
            Effect::Tell { index, entry } => {
                self.tell(place, index, entry);
                return Ok(());
            }
            Effect::BarrierPassed { tickets, .. } => {
                let length = self.places[place].applied.len() + self.stores.given_up;
                return self.oracle.passed(place, &tickets, length);
            }
            Effect::Lost { tickets, why } => {
                let definite = matches!(why, ProposeError::Definite(_));
                return self.oracle.lost(place, &tickets, definite);
            }
            Effect::WriteSnapshot { cut, older } => {
                let applied = self.places[place].applied.clone();
                if failed {
                    Event::SnapshotWritten(cut.last.index, Err("a fault".to_owned()))
                } else {
                    let named = Happening::SnapshotNamed(place, life, cut, older, applied);
                    self.at(reply_at, named);
                    return Ok(());
                }
            }
            Effect::VerifySnapshot { index } => {
                let verdict = match failed {
                    true => Verdict::Unknown,
                    false => Verdict::Whole(Duration::from_micros(1)),
                };
                Event::SnapshotVerified(index, verdict)
            }
            Effect::Trim { through, .. } if self.places[place].engine.is_over() => {
                Event::Trimmed(through, Err(error()))
            }
            Effect::Trim {
                floor,
                through,
                indices,
                bodies,
            } => {
                let deletes_at = reply_at + self.delay();
                self.stores.slots.trim(floor, &[]);
                self.at(deletes_at, Happening::Deletes(indices, bodies));
                let trimmed = Event::Trimmed(through, Ok(()));
                self.at(deletes_at, Happening::Heard(place, life, trimmed));
                return Ok(());
            }
            Effect::LoadSnapshot { ask, .. } if failed => Event::SnapshotLoaded(ask, Err(error())),
            Effect::LoadSnapshot {
                ask,
                above,
                leaves_out,
                ..
            } => self.load(place, ask, above, &leaves_out),
            Effect::FindSnapshot { ask, .. } if failed => Event::SnapshotFound(ask, Err(error())),
            Effect::FindSnapshot { ask, from } => {
                Event::SnapshotFound(ask, Ok(self.stores.snapshot_from(from)))
            }
            Effect::Hear { ask, .. } if failed => Event::Heard(ask, Err(error())),
            Effect::Hear { ask, slot } => Event::Heard(ask, Ok(self.others_say(place, slot))),
            Effect::Scan { ask, .. } if failed => {
                let end = End::Undecided("a fault".to_owned());
                Event::Scanned(
                    ask,
                    Run {
                        slots: Vec::new(),
                        end,
                    },
                )
            }
            Effect::Scan { ask, from, limit } => {
                // A scan may give fewer slots than there are.
                let short = self.faults && self.rng.once_in(4);
                let limit = if short { limit.min(2) } else { limit };
                let slots = self.stores.slots.run(from, limit);
                if !slots.is_empty() {
                    let bodies = Happening::Bodies(place, life, ask, slots);
                    self.at(reply_at, bodies);
                    return Ok(());
                }
                let (slots, end) = (Vec::new(), End::Free);
                Event::Scanned(ask, Run { slots, end })
            }
            Effect::ReadFloor { ask, .. } if failed => Event::FloorRead(ask, Err(error())),
            Effect::ReadFloor { ask, end } => {
                self.check_ahead(end)?;
                Event::FloorRead(ask, Ok(self.stores.slots.floor()))
            }
        };
        self.at(reply_at, Happening::Heard(place, life, event));
        Ok(())
    }

    /// Tells the others of an entry, sometimes late, twice or not at all.
    fn tell(&mut self, place: usize, index: u64, entry: Option<Bytes>) {
        if !self.tells {
            return;
        }
        let event = match entry {
            Some(entry) => Event::Told(vec![(index, entry)]),
            None => Event::Grew(index),
        };
        for other in (0..self.places.len()).filter(|other| *other != place) {
            for _ in 0..[0, 1, 1, 1, 2][self.rng.below(5) as usize] {
                let (life, at) = (self.places[other].life, self.now + self.delay());
                self.at(at, Happening::Heard(other, life, event.clone()));
            }
        }
    }

    /// Checks that no more slots lie beyond the first free one than may be in flight: nodes
    /// conclude from more that a slot was lost.
    fn check_ahead(&self, end: u64) -> Result<(), String> {
        let slots = &self.stores.slots;
        let is_end = slots.read(end).is_none() && slots.floor() <= end;
        let head = slots.head().unwrap_or(0);
        if is_end && head >= end + IN_FLIGHT {
            return Err(format!("slot {end} is free, and slot {head} is not"));
        }
        Ok(())
    }

    fn load(&mut self, place: usize, ask: Ask, above: u64, leaves_out: &[Quarantined]) -> Event {
        let floor = self.stores.slots.floor();
        let loaded = match self.stores.newest_above(above, leaves_out) {
            None => Loaded::Nothing {
                floor,
                damaged: Vec::new(),
                is_newer: false,
            },
            Some((cut, applied)) => {
                self.places[place].applied = applied;
                self.places[place].applied_to = cut.last.index;
                self.places[place].stamp = cut.stamp;
                let cut = Box::new(cut);
                Loaded::Restored {
                    cut,
                    floor,
                    bytes: 0,
                }
            }
        };
        Event::SnapshotLoaded(ask, Ok(loaded))
    }

    fn apply(
        &mut self,
        place: usize,
        index: u64,
        stamp: Stamp,
        items: &[Item],
        tickets: &[Ticket],
    ) -> Result<(), String> {
        let at = &mut self.places[place];
        if stamp.max(at.stamp) != stamp {
            return Err(format!("time goes back at entry {index} of n{place}"));
        }
        at.stamp = stamp;
        for (number, item) in items.iter().enumerate() {
            let value = value_of(item);
            at.applied.push(value);
            let truth = &self.stores.history;
            let length = at.applied.len();
            if !self.poison && truth.get(length - 1) != Some(&value) {
                return Err(format!(
                    "n{place} applies {value} as number {length}, in entry {index}; the journal \
                     has {:?} there",
                    truth.get(length - 1)
                ));
            }
            if let Some(ticket) = tickets.get(number) {
                self.oracle
                    .acked(place, *ticket, self.now, (length, index))?;
            }
        }
        // Quarantines that a node has not read may be in the history already, but not those before its own entry.
        if self.poison && !tickets.is_empty() && !self.stores.has_at(index, &at.applied) {
            return Err(format!(
                "n{place} answers from a history of its own at entry {index}"
            ));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Oracle, String> {
        self.oracle.end(&self.stores)?;
        let truth = self.stores.history.len();
        for (place, at) in self.places.iter().enumerate() {
            if at.applied.len() + 20 < truth {
                let applied = at.applied.len();
                return Err(format!("n{place} applied {applied} of {truth} in the end"));
            }
            if !self.stores.history.starts_with(&at.applied) {
                return Err(format!("n{place} has a history of its own in the end"));
            }
        }
        Ok(self.oracle)
    }
}

/// What a history has where the entry at `index` leaves another out.
fn mark(index: u64) -> u64 {
    (1 << 63) + index
}

/// True for values that some builds cannot apply.
fn is_poison(value: u64) -> bool {
    value % POISON == POISON - 1
}

fn value_of(item: &Item) -> u64 {
    let bytes = item.command.as_ref().try_into().unwrap_or_default();
    u64::from_le_bytes(bytes)
}

fn simulate(seed: u64, removed: Option<Rule>) -> Result<Oracle, String> {
    simulate_with(seed, removed, false)
}

fn simulate_with(seed: u64, removed: Option<Rule>, poison: bool) -> Result<Oracle, String> {
    run(|| World::new(seed, removed, poison))
}

fn run(world: impl Fn() -> World) -> Result<Oracle, String> {
    let run = || world().run();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("it panicked".to_owned()))
}

/// Seeds that failed once. 65: a leader that met a void entry sent others beyond it, which were
/// void too and lay in its way, endlessly.
const FOUND_BUGS: [u64; 1] = [65];
/// The same for schedules in which leaders resign. 612: who had asked a paused node to resign was told at once that nothing was
/// known, before the node had heard of it, and was answered once more afterwards.
const FOUND_BUGS_WITH_RESIGNING: [u64; 1] = [612];
/// The same for schedules with entries that some builds cannot apply. 1180: a node stayed stuck at an entry that all snapshots
/// held by then, though it would have gone on from them after a restart.
const FOUND_BUGS_WITH_POISON: [u64; 1] = [1_180];

/// The number of schedules to try; `JOURNAL_SEEDS` asks for more.
fn seeds() -> u64 {
    let asked = std::env::var("JOURNAL_SEEDS").ok();
    asked.map_or(40, |text| text.parse().expect("JOURNAL_SEEDS is a number"))
}

#[test]
fn every_schedule_gives_one_history() {
    let (mut acked, mut barriers, mut refused) = (0, 0, 0);
    for seed in (0..seeds()).chain(FOUND_BUGS) {
        match simulate(seed, None) {
            Ok(oracle) => {
                acked += oracle.acked_in_all();
                barriers += oracle.barriers_passed;
                refused += oracle.lost_for_good;
            }
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    assert!(acked > 5_000, "only {acked} values were acknowledged");
    assert!(barriers > 1_000, "only {barriers} barriers passed");
    assert!(refused > 1_000, "only {refused} proposals were refused");
}

#[test]
fn leaders_that_resign_lose_nothing() {
    let (mut acked, mut resigned) = (0, 0);
    for seed in (0..seeds()).chain(FOUND_BUGS_WITH_RESIGNING) {
        let world = || World {
            resigns: true,
            ..World::new(seed, None, seed.is_multiple_of(2))
        };
        match run(world) {
            Ok(oracle) => {
                acked += oracle.acked_in_all();
                resigned += oracle.resigned;
            }
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    assert!(acked > 5_000, "only {acked} values were acknowledged");
    assert!(resigned > 20, "only {resigned} leaders resigned");
}

fn simulate_telling(seed: u64, removed: Option<Rule>) -> Result<Oracle, String> {
    run(|| World {
        tells: true,
        ..World::new(seed, removed, seed.is_multiple_of(4))
    })
}

#[test]
fn followers_that_are_told_come_to_the_same_history() {
    let mut acked = 0;
    for seed in 0..seeds() {
        match simulate_telling(seed, None) {
            Ok(oracle) => acked += oracle.acked_in_all(),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    assert!(acked > 5_000, "only {acked} values were acknowledged");
}

#[test]
fn entries_that_some_builds_cannot_apply_are_left_out_by_all_or_by_none() {
    let (mut acked, mut quarantined) = (0, 0);
    for seed in (0..seeds() / 2).chain(FOUND_BUGS_WITH_POISON) {
        match simulate_with(seed, None, true) {
            Ok(oracle) => {
                acked += oracle.acked_in_all();
                quarantined += oracle.quarantined;
            }
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    assert!(acked > 1_500, "only {acked} values were acknowledged");
    assert!(quarantined > 10, "only {quarantined} entries were left out");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let one = simulate(5, None).expect("a clean run");
    let two = simulate(5, None).expect("a clean run");
    assert_eq!(format!("{one:?}"), format!("{two:?}"));
}
