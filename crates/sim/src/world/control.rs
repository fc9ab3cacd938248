//! A simulated control node: the journal's node and the metadata state machine, as in production, under the scheduler.
//!
//! It is the shell of both: it performs their effects against simulated stores and answers calls. Must not know agents'
//! insides or clients.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use control::answer::{Freshness, Step, conclude, failed, step};
use host::rng::Rng;
use journal::engine::{Append, End, Error as EngineError, TakeError};
use journal::entry::{ClusterNumber, EntryId, Item};
use journal::memory::Books;
use journal::node::{
    Ask, Effect, Event, Loaded, Node, Now, Proposal, ProposeError, Refusal, Run, Settings, Ticket,
    Verdict,
};
use meta::State;
use meta::command::{Command, CreateTopic};
use meta::ids::{Stamp, TopicId};
use meta::reply::Reply;
use rpc::{Answer, Call, Position, Return};

use crate::faults::Fault;
use crate::network::Place;
use crate::thrift;

use super::context::{Context, Input, Life, file_key};
use super::coordination::Coordination;
use super::message::{Body, Number};
use super::store::{JournalAnswer, JournalRequest};

/// The cluster in the journal.
const CLUSTER: ClusterNumber = ClusterNumber(1);
/// Wall time at the start of every run, in milliseconds since 1970.
const WALL_START_MILLIS: u64 = 1_800_000_000_000;
/// Time between two runs of the leader's chores.
const CHORES_US: u64 = 500_000;
/// Every so many entries all replicas compare their digests.
const DIGEST_EVERY: u64 = 8;

/// What all control nodes of a run are started with.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Topics: name, partitions, configs.
    pub(super) topics: Vec<(String, u32, BTreeMap<String, String>)>,
    /// The journal's settings but for the name.
    pub(super) journal: Settings,
}

/// Who waits for a ticket.
#[allow(
    clippy::large_enum_variant,
    reason = "few of them exist at a time, and a box each would cost more"
)]
enum Waiting {
    /// An agent, for the reply to its command.
    Call(Place, Number),
    /// An agent, for a read that must be current.
    Read(Place, Number, Call),
    /// The coordinator, for the outcome of a proposal.
    Group(control::coordinator::ProposalId),
    /// The coordinator, for a barrier.
    GroupBarrier(control::coordinator::Ticket),
    Chore,
}

/// What was asked of the journal's stores.
enum Asked {
    /// In which tenure.
    Append(EntryId, u64),
    Take(Ask),
    Scan(Ask),
    Floor(Ask),
    /// Of the slots below this one.
    Trim(u64),
    Load(Ask),
    /// A snapshot at this index, of so many bytes.
    Write(u64, u64),
    /// The snapshot at this index, to be restored and compared.
    Verify(u64),
}

/// A control node in one life.
pub(super) struct Control {
    place: Place,
    life: Life,
    plan: Plan,
    node: Node,
    /// Tenures so far, and the books of the last one.
    tenures: u64,
    books: Option<Books>,
    pub(super) state: State,
    pub(super) applied: u64,
    waiting: BTreeMap<Ticket, Waiting>,
    next_ticket: u64,
    asked: BTreeMap<Number, Asked>,
    armed_us: u64,
    wall_skew_millis: i64,
    chores_at_us: u64,
    pub(super) halted: Option<String>,
    groups: Coordination,
    /// Reads that wait until a position is applied.
    reads: BTreeMap<(Position, Number), (Place, Call)>,
}

impl Control {
    /// A node at its start.
    pub(super) fn new(cx: &mut Context, place: Place, life: Life, plan: Plan) -> Self {
        let mut entropy = Rng::seeded(cx.scheduler.rng.next_u64());
        let draw = move || u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64());
        let settings = Settings {
            name: format!("control-{place}"),
            ..plan.journal.clone()
        };
        let node = match cx.removed {
            Some(rule) => Node::without(rule, settings, Box::new(draw)),
            None => Node::new(settings, Box::new(draw)),
        };
        Control {
            place,
            life,
            plan,
            node,
            tenures: 0,
            books: None,
            state: genesis(),
            applied: 0,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            asked: BTreeMap::new(),
            armed_us: u64::MAX,
            wall_skew_millis: 0,
            chores_at_us: 0,
            halted: None,
            groups: Coordination::new(),
            reads: BTreeMap::new(),
        }
    }

    pub(super) fn handle(&mut self, cx: &mut Context, input: Input) {
        match input {
            Input::Start => self.feed(cx, Event::Started),
            Input::Wake => self.wake(cx),
            Input::Message(from, Body::Call(number, call)) => self.call(cx, from, number, call),
            Input::Journal(number, answer) => self.answered(cx, number, answer),
            Input::Message(..) | Input::TimedOut(_) | Input::Bucket(..) => {}
        }
        self.arm(cx);
    }

    /// The wall clock jumps.
    pub(super) fn skew(&mut self, millis: i64) {
        self.wall_skew_millis = millis;
    }

    pub(super) fn leads(&self) -> bool {
        self.node.role() == journal::node::Role::Leader
    }

    fn now(&self, cx: &Context) -> Now {
        let wall_millis = WALL_START_MILLIS + cx.now_us() / 1000;
        let wall_millis = wall_millis.saturating_add_signed(self.wall_skew_millis);
        Now {
            boot: cx.now(),
            wall_millis,
        }
    }

    fn arm(&mut self, cx: &mut Context) {
        let node = self.node.deadline().map(|at| at.as_micros());
        let chores = self.leads().then_some(self.chores_at_us);
        let at_us = [node, chores, self.groups.timer_us()]
            .into_iter()
            .flatten()
            .min();
        let Some(at_us) = at_us.map(|at_us| at_us.max(cx.now_us())) else {
            return;
        };
        if at_us < self.armed_us || self.armed_us <= cx.now_us() {
            self.armed_us = at_us;
            cx.wake_at(self.place, self.life, at_us);
        }
    }

    fn wake(&mut self, cx: &mut Context) {
        if self.armed_us <= cx.now_us() {
            self.armed_us = u64::MAX;
        }
        if self.node.deadline().is_some_and(|at| at <= cx.now()) {
            self.feed(cx, Event::Timer);
        }
        if self.leads() && self.chores_at_us <= cx.now_us() {
            self.chores_at_us = cx.now_us() + CHORES_US;
            self.chores(cx);
        }
        if self
            .groups
            .timer_us()
            .is_some_and(|at_us| at_us <= cx.now_us())
        {
            self.coordinate(cx, control::coordinator::Event::Timer);
        }
    }

    /// What a leader sees to without being asked.
    fn chores(&mut self, cx: &mut Context) {
        let plan = self.plan.clone();
        for (number, (name, partitions, configs)) in (1..).zip(plan.topics) {
            if self.state.topic(&name).is_none() {
                let id = TopicId(number);
                let topic = CreateTopic {
                    id,
                    name,
                    partitions,
                    configs,
                    replication_factor: 0,
                };
                self.propose(cx, Waiting::Chore, &Command::CreateTopic(topic));
            }
        }
        self.propose(cx, Waiting::Chore, &Command::Housekeep);
    }

    fn ticket(&mut self, waiting: Waiting) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.waiting.insert(ticket, waiting);
        ticket
    }

    fn propose(&mut self, cx: &mut Context, waiting: Waiting, command: &Command) {
        let ticket = self.ticket(waiting);
        let item = Item {
            cluster: CLUSTER,
            command: Bytes::from(command.encode(self.state.level()).expect("it is no newer")),
        };
        let stored_bytes = command.stored_bytes();
        let proposal = Proposal {
            ticket,
            item,
            stored_bytes,
        };
        self.feed(cx, Event::Propose(vec![proposal]));
    }

    fn barrier(&mut self, cx: &mut Context, waiting: Waiting) {
        let ticket = self.ticket(waiting);
        self.feed(cx, Event::Barrier(ticket));
    }

    fn call(&mut self, cx: &mut Context, from: Place, number: Number, call: Call) {
        let applied = Freshness::Applied(Position(self.applied));
        self.answer(cx, (from, number), call, applied);
    }

    /// Does about a call what production's control nodes do.
    fn answer(
        &mut self,
        cx: &mut Context,
        (from, number): (Place, Number),
        call: Call,
        freshness: Freshness,
    ) {
        match step(&self.state, call, freshness) {
            Ok(Step::Now(value)) => self.tell(cx, from, number, Ok(value)),
            Ok(Step::Reach(position, call)) => {
                self.reads.insert((position, number), (from, call));
            }
            Ok(Step::Current(call)) => self.barrier(cx, Waiting::Read(from, number, call)),
            Ok(Step::Propose(command)) => {
                self.propose(cx, Waiting::Call(from, number), &command);
            }
            // The agents of this world are not fenced for being away.
            Ok(Step::Attend(..)) => self.tell(cx, from, number, Ok(Return::Done)),
            // The agents of this world send heartbeats one at a time; those of the town are production's.
            Ok(Step::Hear(_)) => {
                let reason = "one at a time".to_owned();
                self.tell(cx, from, number, Err(rpc::Error::Refused { reason }));
            }
            // Nor do its control nodes call each other.
            Ok(Step::Peer(_) | Step::WhoLeads) => {
                self.tell(cx, from, number, Ok(Return::Done));
            }
            Ok(Step::Coordinate(request)) => {
                let current = self
                    .node
                    .leading_until()
                    .is_some_and(|until| cx.now() < until);
                let event = self.groups.request(from, number, request, current);
                self.coordinate(cx, event);
            }
            Err(error) => self.tell(cx, from, number, Err(error)),
        }
    }

    fn tell(
        &self,
        cx: &mut Context,
        to: Place,
        number: Number,
        result: Result<Return, rpc::Error>,
    ) {
        let at = Position(self.applied);
        let answer = result.map(|value| Answer { at, value });
        cx.send(self.place, to, Body::Return(number, answer));
    }

    /// Answers the reads that waited for what is applied now.
    fn answer_reads(&mut self, cx: &mut Context) {
        let applied = Position(self.applied);
        while let Some(first) = self.reads.first_entry()
            && first.key().0 <= applied
        {
            let ((_, number), (from, call)) = first.remove_entry();
            self.answer(cx, (from, number), call, Freshness::Applied(applied));
        }
    }

    /// Hands an event to the journal's node and performs what it wants.
    fn feed(&mut self, cx: &mut Context, event: Event) {
        let led = self.leads();
        let mut effects = Vec::new();
        let now = self.now(cx);
        self.node.handle(now, event, &mut effects);
        for effect in effects {
            if cx.strike(Fault::KillBetweenEffects) {
                cx.dying = Some(self.place);
            }
            if cx.dying == Some(self.place) {
                return;
            }
            self.perform(cx, effect);
        }
        if self.halted.is_none()
            && let Some(why) = self.node.halted()
        {
            cx.violation(format!("control node {} halted: {why}", self.place));
            self.halted = Some(why.to_owned());
        }
        if led != self.leads() {
            self.chores_at_us = cx.now_us();
            let event = if led {
                control::coordinator::Event::LostLeadership
            } else {
                control::coordinator::Event::BecameLeader
            };
            self.coordinate(cx, event);
        }
    }

    fn perform(&mut self, cx: &mut Context, effect: Effect) {
        match effect {
            Effect::LoadSnapshot { ask, above, .. } => {
                self.ask(cx, Asked::Load(ask), JournalRequest::LoadSnapshot { above });
            }
            Effect::Scan { ask, from, limit } => {
                self.ask(cx, Asked::Scan(ask), JournalRequest::Scan { from, limit });
            }
            Effect::ReadFloor { ask, .. } => self.ask(cx, Asked::Floor(ask), JournalRequest::Floor),
            Effect::Take { ask, from, through } => {
                self.books = None;
                self.tenures += 1;
                self.ask(cx, Asked::Take(ask), JournalRequest::Take { from, through });
            }
            Effect::Confirmed => {
                if let Some(books) = &mut self.books {
                    books.confirmed();
                }
            }
            Effect::Append { id, bytes, body } => {
                let request = match self.admit(cx, id, &bytes) {
                    true => JournalRequest::Append { id, bytes, body },
                    false => JournalRequest::Over,
                };
                self.ask(cx, Asked::Append(id, self.tenures), request);
            }
            Effect::Apply {
                id,
                stamp,
                items,
                tickets,
                ..
            } => {
                let stamp = Stamp {
                    wall_millis: stamp.wall_millis,
                    ticks_millis: stamp.ticks_millis,
                };
                self.apply(cx, id, stamp, items, tickets);
            }
            // Those that follow in this world read each slot; in the town, and in the journal's own schedules, they are told.
            Effect::Tell { .. } => {}
            Effect::BarrierPassed { tickets, .. } => {
                tickets
                    .into_iter()
                    .for_each(|ticket| self.passed(cx, ticket));
            }
            Effect::Lost { tickets, why } => {
                tickets
                    .into_iter()
                    .for_each(|ticket| self.lost(cx, ticket, &why));
            }
            Effect::WriteSnapshot { cut, older } => {
                let index = cut.last.index;
                let chunks = self.state.capture().encode_chunks();
                let bytes = size_of_all(&chunks);
                let write = JournalRequest::WriteSnapshot { cut, chunks, older };
                self.ask(cx, Asked::Write(index, bytes), write);
            }
            Effect::VerifySnapshot { index } => {
                let request = JournalRequest::ReadSnapshot { index };
                self.ask(cx, Asked::Verify(index), request);
            }
            Effect::Trim {
                floor,
                through,
                indices,
                bodies,
            } => {
                self.ask(
                    cx,
                    Asked::Trim(through),
                    JournalRequest::Trim {
                        floor,
                        indices,
                        bodies,
                    },
                );
            }
            Effect::FindSnapshot { .. } | Effect::Hear { .. } | Effect::LeftOut { .. } => {
                cx.violation(format!("control node {} quarantines an entry", self.place));
            }
        }
    }

    /// Whether the tenure sends an entry; what it must refuse breaks its contract.
    fn admit(&mut self, cx: &mut Context, id: EntryId, bytes: &Bytes) -> bool {
        let Some(books) = self.books.as_mut().filter(|books| !books.is_over()) else {
            return false;
        };
        if let Err(why) = books.admit(id.index, bytes) {
            cx.violation(format!("{id:?} breaks the contract of its tenure: {why}"));
            return false;
        }
        true
    }

    fn appended(&mut self, id: EntryId, tenure: u64, holds: bool) -> Append {
        match &mut self.books {
            Some(books) if tenure == self.tenures => books.answered(id.index, holds),
            _ if holds => Append::Appended,
            _ => Append::Superseded,
        }
    }

    fn ask(&mut self, cx: &mut Context, asked: Asked, request: JournalRequest) {
        let number = cx.ask_journal(self.place, self.life, request);
        self.asked.insert(number, asked);
    }

    fn answered(&mut self, cx: &mut Context, number: Number, answer: JournalAnswer) {
        let Some(asked) = self.asked.remove(&number) else {
            return;
        };
        let failed = || EngineError::Unavailable("simulated".to_owned());
        let event = match (asked, answer) {
            (Asked::Append(id, tenure), JournalAnswer::Holds(holds)) => {
                Event::AppendDone(id, self.appended(id, tenure, holds))
            }
            (Asked::Append(id, _), _) => {
                Event::AppendDone(id, Append::Unknown("simulated".to_owned()))
            }
            (Asked::Take(ask), JournalAnswer::Taken(taken)) => {
                let taken = taken.map(|(slots, books)| {
                    self.books = Some(books);
                    slots
                });
                Event::Taken(ask, taken)
            }
            (Asked::Take(ask), _) => {
                let why = "simulated".to_owned();
                Event::Taken(ask, Err(TakeError::Unavailable(why)))
            }
            (Asked::Scan(ask), JournalAnswer::Scanned(slots)) => {
                let end = match slots.is_empty() {
                    true => End::Free,
                    false => End::More,
                };
                Event::Scanned(ask, Run { slots, end })
            }
            (Asked::Scan(ask), _) => {
                let (slots, end) = (Vec::new(), End::Undecided("simulated".to_owned()));
                Event::Scanned(ask, Run { slots, end })
            }
            (Asked::Floor(ask), JournalAnswer::Floor(floor)) => Event::FloorRead(ask, Ok(floor)),
            (Asked::Floor(ask), _) => Event::FloorRead(ask, Err(failed())),
            (Asked::Trim(through), JournalAnswer::Trimmed) => Event::Trimmed(through, Ok(())),
            (Asked::Trim(through), _) => Event::Trimmed(through, Err(failed())),
            (Asked::Load(ask), JournalAnswer::Snapshot { found, floor }) => {
                Event::SnapshotLoaded(ask, Ok(self.restore(cx, found, floor)))
            }
            (Asked::Load(ask), _) => Event::SnapshotLoaded(ask, Err(failed())),
            (Asked::Verify(index), JournalAnswer::Snapshot { found, .. }) => {
                Event::SnapshotVerified(index, verify(cx, found))
            }
            (Asked::Verify(index), _) => Event::SnapshotVerified(index, Verdict::Unknown),
            (Asked::Write(index, bytes), JournalAnswer::SnapshotWritten) => {
                Event::SnapshotWritten(index, Ok(bytes))
            }
            (Asked::Write(index, _), _) => {
                Event::SnapshotWritten(index, Err("simulated".to_owned()))
            }
        };
        self.feed(cx, event);
    }

    fn restore(
        &mut self,
        cx: &mut Context,
        found: Option<(Box<journal::snapshot::Cut>, Vec<Bytes>)>,
        floor: u64,
    ) -> Loaded {
        let Some((cut, chunks)) = found else {
            return Loaded::Nothing {
                floor,
                damaged: Vec::new(),
                is_newer: false,
            };
        };
        let bytes = size_of_all(&chunks);
        match State::restore(&chunks) {
            Ok(state) => {
                self.state = state;
                self.applied = cut.last.index;
                self.coordinate(cx, control::coordinator::Event::Reloaded);
                Loaded::Restored { cut, floor, bytes }
            }
            Err(error) => {
                cx.violation(format!("a snapshot cannot be restored: {error}"));
                Loaded::Nothing {
                    floor,
                    damaged: vec![error.to_string()],
                    is_newer: false,
                }
            }
        }
    }

    fn apply(
        &mut self,
        cx: &mut Context,
        id: journal::entry::EntryId,
        stamp: Stamp,
        items: Vec<Item>,
        tickets: Vec<Ticket>,
    ) {
        let (index, nonce) = (id.index, id.nonce);
        let entry = meta::ids::EntryId { index, nonce };
        let mut tickets = tickets.into_iter();
        let mut changed = Vec::new();
        for item in items {
            let ticket = tickets.next();
            let command = match Command::decode(&item.command) {
                Ok(command) => command,
                Err(error) => {
                    cx.violation(format!("entry {index} does not decode: {error}"));
                    return;
                }
            };
            let applied = self.state.apply(entry, stamp, &command);
            if index > cx.newest_applied {
                check_commit(cx, &self.state, &command, &applied.reply);
            }
            changed.extend(applied.events.into_iter().filter_map(|event| match event {
                meta::reply::Event::Group(event) => Some(event),
                _ => None,
            }));
            if let Some(ticket) = ticket {
                self.replied(cx, ticket, applied.reply);
            }
        }
        self.applied = index;
        cx.newest_applied = cx.newest_applied.max(index);
        cx.learn_topics(&self.state);
        if index.is_multiple_of(DIGEST_EVERY) {
            cx.compare_digests(index, self.state.digest());
        }
        for event in changed {
            self.coordinate(cx, control::coordinator::Event::Changed(event));
        }
        self.answer_reads(cx);
    }

    fn replied(&mut self, cx: &mut Context, ticket: Ticket, reply: Reply) {
        match self.waiting.remove(&ticket) {
            Some(Waiting::Call(to, number)) => {
                let result = conclude(&self.state, reply);
                self.tell(cx, to, number, result);
            }
            Some(Waiting::Group(proposal)) => {
                let event = match reply {
                    Reply::Group(reply) => control::coordinator::Event::Applied { proposal, reply },
                    _ => control::coordinator::Event::Failed {
                        proposal,
                        ambiguous: true,
                    },
                };
                self.coordinate(cx, event);
            }
            _ => {}
        }
    }

    fn passed(&mut self, cx: &mut Context, ticket: Ticket) {
        match self.waiting.remove(&ticket) {
            Some(Waiting::Read(from, number, call)) => {
                self.answer(cx, (from, number), call, Freshness::Current);
            }
            Some(Waiting::GroupBarrier(ticket)) => {
                let event = control::coordinator::Event::Barrier {
                    ticket,
                    passed: true,
                };
                self.coordinate(cx, event);
            }
            _ => {}
        }
    }

    fn lost(&mut self, cx: &mut Context, ticket: Ticket, why: &ProposeError) {
        let error = failed(&self.state, self.node.chain().claim().index, why.clone());
        match self.waiting.remove(&ticket) {
            Some(Waiting::Call(to, number) | Waiting::Read(to, number, _)) => {
                self.tell(cx, to, number, Err(error));
            }
            Some(Waiting::Group(proposal)) => {
                let event = match why {
                    ProposeError::Definite(Refusal::TooLarge { .. }) => {
                        control::coordinator::Event::TooLarge { proposal }
                    }
                    _ => control::coordinator::Event::Failed {
                        proposal,
                        ambiguous: !error.is_definite(),
                    },
                };
                self.coordinate(cx, event);
            }
            Some(Waiting::GroupBarrier(ticket)) => {
                let event = control::coordinator::Event::Barrier {
                    ticket,
                    passed: false,
                };
                self.coordinate(cx, event);
            }
            Some(Waiting::Chore) | None => {}
        }
    }

    /// Hands an event to the coordinator of groups and performs what it wants.
    fn coordinate(&mut self, cx: &mut Context, event: control::coordinator::Event) {
        let effects = self.groups.handle(cx.now(), event, &self.state);
        for effect in effects {
            match effect {
                control::coordinator::Effect::Propose { proposal, command } => {
                    let command = Command::Group(command);
                    self.propose(cx, Waiting::Group(proposal), &command);
                }
                control::coordinator::Effect::Answer { ticket, reply } => {
                    if let Some((to, number)) = self.groups.answered(ticket) {
                        self.tell(cx, to, number, Ok(Return::Group(reply)));
                    }
                }
                control::coordinator::Effect::Current { ticket } => {
                    self.barrier(cx, Waiting::GroupBarrier(ticket));
                }
                control::coordinator::Effect::SetTimer { at } => self.groups.set_timer(at),
                // Memory is not simulated.
                control::coordinator::Effect::Parked { .. } => {}
            }
        }
    }
}

/// The state before the first command.
pub(super) fn genesis() -> State {
    State::genesis("c2VhdAAAAAAAAAAAAAAAAA".to_owned())
}

/// Restores a snapshot and compares it with what replicas have at its entry.
fn verify(cx: &mut Context, found: Option<(Box<journal::snapshot::Cut>, Vec<Bytes>)>) -> Verdict {
    let Some((cut, chunks)) = found else {
        return Verdict::Unknown;
    };
    match State::restore(&chunks) {
        Ok(state) => {
            cx.compare_digests(cut.last.index, state.digest());
            Verdict::Whole(Duration::from_millis(1))
        }
        Err(error) => {
            cx.violation(format!("a snapshot cannot be restored: {error}"));
            Verdict::Useless
        }
    }
}

/// Bytes of all chunks of a snapshot.
fn size_of_all(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

/// A committed file lies in the bucket, whole, with the bytes that the commit names (rules 1, 2 and 3).
fn check_commit(cx: &mut Context, state: &State, command: &Command, reply: &Reply) {
    let Command::CommitFile(file) = command else {
        return;
    };
    let Reply::File(meta::commit::FileReply::Committed { .. }) = reply else {
        return;
    };
    let found = meta::places::FileRef {
        file: file.file,
        nonce: file.nonce,
    };
    if state.fate(found) != meta::places::Fate::Live {
        return;
    }
    let key = file_key(file.file, file.nonce);
    let flaw = match cx.bucket.peek(&key) {
        None => Some("is not in the bucket".to_owned()),
        Some(bytes) if store::checksum::crc32c(bytes) != file.checksum => {
            Some("holds other bytes than its commit says".to_owned())
        }
        Some(bytes) if bytes.len() as u64 != file.length => Some("has another length".to_owned()),
        Some(_) => None,
    };
    if let Some(flaw) = flaw {
        cx.violation(format!("the committed file {key} {flaw}"));
    }
}

/// The journal's settings of a run.
pub(super) fn journal_settings(rng: &mut Rng) -> Settings {
    let mut settings = Settings::one_of_several("control");
    settings.append_thrift = thrift::draw(rng);
    settings.takeover_after = Duration::from_millis(500 + rng.below(1500));
    settings.heartbeat_interval = Duration::from_millis(100 + rng.below(300));
    settings.snapshot.entries = 16 + rng.below(200);
    settings.snapshot.first_after = Duration::from_millis(rng.below(2_000));
    if rng.below(2) == 0 {
        // Bodies that lie in the bucket.
        settings.slot_bytes_max = 400;
    }
    settings
}
