//! The role of a node: follows the journal, claims the lead, appends, falls back. It is sans-IO:
//! an event goes in with the time, effects come out, and every effect that asks for something is
//! answered by exactly one event. It must not know engines, buckets or what commands mean.

use std::time::Duration;

use bytes::Bytes;
use host::clock::Instant;

use crate::chain::Chain;
use crate::engine::{self, Append};
use crate::entry::{EntryId, Item, Position, Stamp};
use crate::rule::Rules;
use crate::snapshot::Cut;

mod flight;
mod follow;
mod lead;
mod retention;
mod settings;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use flight::{Flight, entry_id};
use follow::Following;
use lead::Leading;
use retention::Retention;
pub use settings::{Settings, SnapshotPolicy, Takeover};

/// For how long after the start of an append that succeeded a leader answers from memory
/// (ARCHITECTURE.md, metadata). Whoever takes over cannot have been current before that start.
pub const ANSWER_FROM_MEMORY_FOR: Duration = Duration::from_secs(1);

/// How often snapshots are looked for again before a node refuses to go on without one.
const LOOKS_FOR_SNAPSHOTS: u32 = 5;

/// The time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// By boot clock: everything that measures.
    pub boot: Instant,
    /// By wall clock, in milliseconds since 1970: only for stamps.
    pub wall_millis: u64,
}

/// Who waits for an answer; the shell's to number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A command to append, and who waits for its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub ticket: Ticket,
    pub item: Item,
}

/// A slot as it was read, with its body if that lies in the bucket and is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub index: u64,
    pub bytes: Bytes,
    /// The object that it refers to.
    pub body: Option<Bytes>,
}

/// What a snapshot load found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The state machine is now as it was at this cut. The floor was read before.
    Restored {
        /// Where the snapshot was cut.
        cut: Box<Cut>,
        floor: u64,
        /// Bytes of the snapshot's chunks.
        bytes: u64,
    },
    /// There is no snapshot as new as was asked for; the state machine is as it was.
    Nothing {
        floor: u64,
        /// Snapshots that are there but cannot be used, for people; empty if there are none.
        damaged: Vec<String>,
    },
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// It starts, with an empty state machine.
    Started,
    /// The time of [`Node::deadline`] has come.
    Timer,
    /// Answer to [`Effect::LoadSnapshot`].
    SnapshotLoaded(Result<Loaded, engine::Error>),
    /// Answer to [`Effect::ReadSlot`].
    SlotRead(u64, Result<Option<Bytes>, engine::Error>),
    /// Answer to [`Effect::Scan`]: the unbroken run from the slot asked for.
    Scanned(u64, Result<Vec<Slot>, engine::Error>),
    /// Answer to [`Effect::ReadFloor`].
    FloorRead(Result<u64, engine::Error>),
    /// Answer to [`Effect::Append`] of this entry.
    AppendDone(EntryId, Append),
    /// Commands were proposed together.
    Propose(Vec<Proposal>),
    /// Somebody wants to know when an entry appended from now on has been applied.
    Barrier(Ticket),
    /// Answer to [`Effect::WriteSnapshot`] at this index: it was written and read back, and has so
    /// many bytes; or why not.
    SnapshotWritten(u64, Result<u64, String>),
    /// Answer to [`Effect::Trim`].
    Trimmed(Result<(), engine::Error>),
    /// The state machine could not apply the entry at this index.
    Poisoned(u64, String),
}

/// What a node wants done, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Restore the newest whole snapshot with an index above this.
    LoadSnapshot {
        /// Only newer ones are of use.
        above: u64,
    },
    ReadSlot {
        index: u64,
    },
    /// Read the unbroken run of slots from here.
    Scan {
        from: u64,
        /// The most to give.
        limit: usize,
    },
    /// Read the engine's floor, and look whether a slot was lost at the end of the chain.
    ReadFloor {
        /// The slot after the last one known.
        end: u64,
    },
    /// Write the body to the bucket if there is one, then append.
    Append {
        id: EntryId,
        /// The slot's bytes.
        bytes: Bytes,
        /// The object that the entry refers to, with its SHA-256.
        body: Option<([u8; 32], Bytes)>,
    },
    /// Apply commands to the state machine.
    Apply {
        id: EntryId,
        stamp: Stamp,
        /// Its commands, in order.
        items: Vec<Item>,
        /// Who waits for the replies, one per command; empty if nobody does.
        tickets: Vec<Ticket>,
    },
    /// What everything before has been applied for.
    BarrierPassed {
        tickets: Vec<Ticket>,
        /// What is applied by then: it rests on this.
        position: Position,
    },
    /// These get no reply.
    Lost {
        tickets: Vec<Ticket>,
        /// Why, and whether the command may have been applied.
        why: ProposeError,
    },
    /// Capture the state machine as it is right here, write the snapshot, read it back.
    WriteSnapshot {
        /// What its manifest says.
        cut: Box<Cut>,
        /// The older of the two verified snapshots from then on; those before it may go.
        older: Option<u64>,
    },
    /// Raise the floor, then delete slots and bodies.
    Trim {
        floor: u64,
        indices: Vec<u64>,
        /// The bodies, by SHA-256.
        bodies: Vec<[u8; 32]>,
    },
    /// Stop for good: going on would be unsafe. Somebody has to act.
    Halt {
        /// What happened and what to do.
        why: String,
    },
}

/// Why a command got no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was not applied and never will be.
    #[error("not done: {0}")]
    Definite(Refusal),
    /// It may have been applied, or may be later.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
}

/// Why a command was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another node leads, or none does just now.
    #[error("this node does not lead the journal (the last claim is {leader:?}'s)")]
    NotLeader {
        /// The node whose claim is the last one known here.
        leader: Option<String>,
    },
    /// Too much is waiting already.
    #[error("too many commands are waiting")]
    Busy,
    /// It waited too long for the entries before it.
    #[error("the journal did not take it in time")]
    Expired,
    /// It is larger than an entry may be.
    #[error("the command has {bytes} bytes, more than the {max} of an entry")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The most that is taken, in bytes.
        max: usize,
    },
    /// The node has stopped for good.
    #[error("this node has stopped: {0}")]
    Halted(String),
}

/// The role of a node, for people and for routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It looks for a snapshot to start from.
    Loading,
    /// It reads what others append.
    Follower,
    /// It tries to append a claim.
    Candidate,
    /// Its claim is in the journal; it makes sure that the claim counts.
    BecomingLeader,
    Leader,
    /// It has stopped for good.
    Halted,
}

/// What is asked and not answered yet, or to be asked again; appends are asked for besides
/// ([`flight`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Load { above: u64 },
    ReadSlot { index: u64 },
    Scan { from: u64 },
    ReadFloor,
}

enum State {
    Loading,
    /// A snapshot is restored; the journal must still hold the entry at which it was cut.
    Verifying(EntryId),
    Following(Following),
    Claiming(Flight),
    Confirming(Flight),
    Leading(Box<Leading>),
    Halted(String),
}

/// Time, and where effects go, during one event.
struct Turn<'a> {
    now: Now,
    out: &'a mut Vec<Effect>,
}

/// Proposals whose entry lost its slot, until it is certain to whom.
struct Limbo {
    index: u64,
    tickets: Vec<Ticket>,
}

pub struct Node {
    settings: Settings,
    rules: Rules,
    entropy: Box<dyn FnMut() -> u128 + Send>,
    chain: Chain,
    retention: Retention,
    state: State,
    request: Option<Request>,
    retry_at: Option<Instant>,
    failures: u32,
    /// When somebody here last proposed or asked for a barrier.
    used_at: Option<Instant>,
    /// Whose claim is the last valid one.
    claimant: Option<String>,
    leading_until: Option<Instant>,
    limbo: Option<Limbo>,
    /// Somebody else has led since this node last did.
    deposed: bool,
    /// Claims in a row whose slot held an entry of the leader so far.
    claims_beaten: u64,
    /// Somebody else has claimed during this life of the node, and may do so again.
    contested: bool,
    /// The last claim of this node that counted.
    own_claim: Option<EntryId>,
    /// Looks for a snapshot that found none that can be used, in a row.
    looks: u32,
    /// When the open request was made.
    asked_at: Instant,
    /// When the look at the journal began that found its end.
    looked_at: Instant,
    confirmed_at: Option<Instant>,
}

impl Node {
    /// A node before [`Event::Started`]. `entropy` gives fresh random numbers; they must not
    /// repeat, even across processes.
    pub fn new(settings: Settings, entropy: Box<dyn FnMut() -> u128 + Send>) -> Self {
        Node::under(Rules::all(), settings, entropy)
    }

    fn under(rules: Rules, settings: Settings, entropy: Box<dyn FnMut() -> u128 + Send>) -> Self {
        Node {
            chain: Chain::genesis(settings.shard).under(rules),
            settings,
            rules,
            entropy,
            retention: Retention::new(rules),
            state: State::Loading,
            request: None,
            retry_at: None,
            failures: 0,
            used_at: None,
            claimant: None,
            leading_until: None,
            limbo: None,
            deposed: false,
            claims_beaten: 0,
            contested: false,
            own_claim: None,
            looks: 0,
            asked_at: Instant::default(),
            looked_at: Instant::default(),
            confirmed_at: None,
        }
    }

    /// The same with one safety rule removed, so that a simulation can show that it is missed.
    #[cfg(any(test, feature = "mutations"))]
    pub fn without(
        rule: crate::rule::Rule,
        settings: Settings,
        entropy: Box<dyn FnMut() -> u128 + Send>,
    ) -> Self {
        Node::under(Rules::without(rule), settings, entropy)
    }

    pub fn role(&self) -> Role {
        match &self.state {
            State::Loading | State::Verifying(_) => Role::Loading,
            State::Following(_) => Role::Follower,
            State::Claiming(_) => Role::Candidate,
            State::Confirming(_) => Role::BecomingLeader,
            State::Leading(_) => Role::Leader,
            State::Halted(_) => Role::Halted,
        }
    }

    /// How far the journal is known here.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The node whose claim is the last valid one known here.
    pub fn claimant(&self) -> Option<&str> {
        self.claimant.as_deref()
    }

    /// Whose lead keeps this node from leading, and the claim by which that node took it: it claims
    /// again only after a silence. `None` while it leads, or has no such reason to wait.
    pub fn deposed_by(&self) -> Option<(EntryId, &str)> {
        let claim = self.chain.claim();
        let theirs = self.deposed && self.own_claim != Some(claim);
        let name = self.claimant.as_deref().filter(|_| theirs)?;
        Some((claim, name))
    }

    /// Until when this node may answer from memory as the leader; `None` if it does not lead.
    pub fn leading_until(&self) -> Option<Instant> {
        match &self.state {
            State::Leading(_) => self.leading_until,
            _ => None,
        }
    }

    /// The last moment of which this node knows everything that was appended before it; `None` if
    /// it has not read to the end yet.
    pub fn confirmed_at(&self) -> Option<Instant> {
        self.confirmed_at
    }

    /// Index of the newest snapshot that is known to be whole.
    pub fn snapshot_index(&self) -> Option<u64> {
        self.retention.newest()
    }

    /// When to give [`Event::Timer`]; `None` if only other events can change anything.
    pub fn deadline(&self) -> Option<Instant> {
        let of_state = match &self.state {
            State::Following(following) => following.poll_at(),
            State::Claiming(flight) => flight.retry_at(),
            State::Leading(leading) => self.leading_deadline(leading),
            _ => None,
        };
        [self.retry_at, of_state].into_iter().flatten().min()
    }

    /// Takes one event; appends what is to be done to `out`.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        let turn = &mut Turn { now, out };
        if let State::Halted(why) = &self.state {
            let why = why.clone();
            return self.refuse_all(turn, event, Refusal::Halted(why));
        }
        match event {
            Event::Started => self.ask(turn, Request::Load { above: 0 }),
            Event::Timer => self.timer(turn),
            Event::SnapshotLoaded(result) => self.snapshot_loaded(turn, result),
            Event::SlotRead(index, result) => self.slot_read(turn, index, result),
            Event::Scanned(from, result) => self.scanned(turn, from, result),
            Event::FloorRead(result) => self.floor_read(turn, result),
            Event::AppendDone(id, outcome) => self.append_done(turn, id, outcome),
            Event::Propose(_) | Event::Barrier(_) => self.wanted(turn, event),
            Event::SnapshotWritten(index, result) => {
                self.retention.written(now.boot, index, result.ok());
                self.maintain(turn);
            }
            Event::Trimmed(result) => {
                self.retention.trimmed(now.boot, result.is_ok());
                self.maintain(turn);
            }
            Event::Poisoned(index, why) => {
                let why = format!(
                    "entry {index} of the journal cannot be applied: {why}. Nothing after it is \
                     applied here; run a version that can apply it"
                );
                self.halt(turn, why);
            }
        }
    }

    fn timer(&mut self, turn: &mut Turn<'_>) {
        if self.retry_at.is_some_and(|at| at <= turn.now.boot) {
            self.retry_at = None;
            self.issue(turn);
        }
        self.flights_timer(turn);
        match &self.state {
            State::Following(_) => self.following_timer(turn),
            State::Leading(_) => self.leading_timer(turn),
            _ => {}
        }
    }

    /// A proposal or a barrier.
    fn wanted(&mut self, turn: &mut Turn<'_>, event: Event) {
        self.used_at = Some(turn.now.boot);
        if let State::Leading(_) = &self.state {
            return self.lead(turn, event);
        }
        let leader = self.claimant.clone();
        self.refuse_all(turn, event, Refusal::NotLeader { leader });
        if let State::Following(_) = &self.state {
            // Whoever wants a leader may have ended a silence that did not matter before.
            self.following_timer(turn);
        }
    }

    fn refuse_all(&mut self, turn: &mut Turn<'_>, event: Event, refusal: Refusal) {
        let tickets = match event {
            Event::Propose(proposals) => proposals.iter().map(|p| p.ticket).collect(),
            Event::Barrier(ticket) => vec![ticket],
            _ => return,
        };
        let why = ProposeError::Definite(refusal);
        turn.out.push(Effect::Lost { tickets, why });
    }

    /// Asks for something, in place of anything asked before.
    fn ask(&mut self, turn: &mut Turn<'_>, request: Request) {
        self.request = Some(request);
        self.retry_at = None;
        self.failures = 0;
        self.issue(turn);
    }

    /// Asks for the same again, after a pause that grows.
    fn ask_later(&mut self, turn: &mut Turn<'_>, request: Request) {
        self.request = Some(request);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(turn.now.boot + self.pause_after(self.failures));
    }

    /// How long to wait after so many failures in a row, at least one.
    fn pause_after(&mut self, failures: u32) -> Duration {
        let doubled = self.settings.retry_min * (1 << (failures - 1).min(16));
        self.jitter(doubled.min(self.settings.retry_max))
    }

    fn issue(&mut self, turn: &mut Turn<'_>) {
        let Some(request) = self.request else {
            return;
        };
        self.asked_at = turn.now.boot;
        let effect = match request {
            Request::Load { above } => Effect::LoadSnapshot { above },
            Request::ReadSlot { index } => Effect::ReadSlot { index },
            Request::Scan { from } => Effect::Scan {
                from,
                limit: self.settings.scan_limit,
            },
            Request::ReadFloor => Effect::ReadFloor {
                end: self.chain.next(),
            },
        };
        turn.out.push(effect);
    }

    /// Whether an answer is to the question that is open; closes it.
    fn answers(&mut self, request: Request) -> bool {
        let open = self.request == Some(request) && self.retry_at.is_none();
        if open {
            self.request = None;
        }
        open
    }

    /// Between half of `base` and one and a half of it.
    fn jitter(&mut self, base: Duration) -> Duration {
        let micros = u64::try_from(base.as_micros()).unwrap_or(u64::MAX);
        let draw = ((self.entropy)() as u64) % micros.saturating_add(1);
        Duration::from_micros(micros / 2 + draw)
    }

    fn snapshot_loaded(&mut self, turn: &mut Turn<'_>, result: Result<Loaded, engine::Error>) {
        let Some(Request::Load { above }) = self.request else {
            return;
        };
        if !self.answers(Request::Load { above }) {
            return;
        }
        let refusal = match result {
            Err(_) => return self.ask_later(turn, Request::Load { above }),
            Ok(Loaded::Restored { cut, floor, .. }) if cut.last.index < floor => {
                let index = cut.last.index;
                unreadable(floor, &[format!("the one at {index} is too old")])
            }
            Ok(Loaded::Restored { cut, bytes, .. }) => {
                return self.adopt(turn, *cut, bytes);
            }
            Ok(Loaded::Nothing { floor, damaged }) if floor > self.chain.next() => {
                unreadable(floor, &damaged)
            }
            Ok(Loaded::Nothing { .. }) => return self.follow(turn),
        };
        // A listing may lag and bytes may be altered on the way: one look is not enough to stop.
        self.looks += 1;
        if self.looks < LOOKS_FOR_SNAPSHOTS {
            return self.ask_later(turn, Request::Load { above });
        }
        self.halt(turn, refusal);
    }

    /// Goes on from a snapshot, once the journal is known to be the one it was cut from.
    fn adopt(&mut self, turn: &mut Turn<'_>, cut: Cut, bytes: u64) {
        if cut.shard != self.settings.shard {
            let found = cut.shard;
            let why = format!("the newest snapshot belongs to shard {found} of the journal");
            return self.halt(turn, why);
        }
        let last = cut.last;
        self.chain = Chain::resume(cut.shard, cut.claim, last, cut.stamp).under(self.rules);
        self.claimant = Some(cut.claimant.clone());
        self.retention.resume(turn.now.boot, cut, bytes);
        self.state = State::Verifying(last);
        self.ask(turn, Request::ReadSlot { index: last.index });
    }

    /// Reads the snapshots again, because slots that come next may be trimmed.
    fn reload(&mut self, turn: &mut Turn<'_>) {
        self.lose_lead(turn);
        self.lose_limbo(turn, ProposeError::Unknown(SLEPT.to_owned()));
        self.contested |= self.own_claim == Some(self.chain.claim());
        self.deposed = true;
        self.state = State::Loading;
        let above = self.chain.last().index;
        self.ask(turn, Request::Load { above });
    }

    fn slot_read(
        &mut self,
        turn: &mut Turn<'_>,
        index: u64,
        result: Result<Option<Bytes>, engine::Error>,
    ) {
        let State::Verifying(expected) = self.state else {
            self.look_answered(turn, index, &result);
            return self.flight_slot_read(turn, index, result);
        };
        if !self.answers(Request::ReadSlot { index }) {
            return;
        }
        let Ok(slot) = result else {
            return self.ask_later(turn, Request::ReadSlot { index });
        };
        match slot.as_ref().and_then(entry_id) {
            Some(found) if found == expected => self.follow(turn),
            // Gone, or a sleeper's: it may have been trimmed since.
            _ => self.ask(turn, Request::ReadFloor),
        }
    }

    fn floor_read(&mut self, turn: &mut Turn<'_>, result: Result<u64, engine::Error>) {
        if !self.answers(Request::ReadFloor) {
            return;
        }
        let floor = match result {
            Ok(floor) => floor,
            Err(engine::Error::Corrupt(why)) => return self.halt(turn, why),
            Err(engine::Error::Unavailable(_)) => return self.ask_later(turn, Request::ReadFloor),
        };
        match &self.state {
            State::Verifying(last) if last.index < floor => self.reload(turn),
            State::Verifying(last) => {
                let why = format!(
                    "a snapshot was cut at entry {last:?}, which the journal does not hold: the \
                     journal is older than its snapshots or another cluster's. Point to the right \
                     bucket, or restore the journal and the snapshots together"
                );
                self.halt(turn, why);
            }
            State::Following(_) => self.following_floor(turn, floor),
            State::Confirming(_) => self.confirm(turn, floor),
            State::Leading(_) => self.leading_floor(turn, floor),
            _ => {}
        }
    }

    fn lose_limbo(&mut self, turn: &mut Turn<'_>, why: ProposeError) {
        if let Some(Limbo { tickets, .. }) = self.limbo.take() {
            lose(turn, tickets, why);
        }
    }

    fn halt(&mut self, turn: &mut Turn<'_>, why: String) {
        let refusal = ProposeError::Definite(Refusal::Halted(why.clone()));
        let doubt = ProposeError::Unknown(why.clone());
        self.lose_limbo(turn, doubt.clone());
        if let State::Leading(leading) = &mut self.state {
            let (flying, waiting) = leading.abandon();
            lose(turn, flying, doubt);
            lose(turn, waiting, refusal);
        }
        self.state = State::Halted(why.clone());
        self.request = None;
        self.retry_at = None;
        turn.out.push(Effect::Halt { why });
    }
}

const SLEPT: &str = "this node slept while others went on";

fn lose(turn: &mut Turn<'_>, tickets: Vec<Ticket>, why: ProposeError) {
    if !tickets.is_empty() {
        turn.out.push(Effect::Lost { tickets, why });
    }
}

fn unreadable(floor: u64, damaged: &[String]) -> String {
    let found = match damaged {
        [] => "there is no snapshot".to_owned(),
        some => format!("no snapshot can be used: {}", some.join("; ")),
    };
    format!(
        "the journal begins at {floor} and {found}. This node does not start with an empty state; \
         restore the objects below snapshots/ and chunks/ from a copy of the bucket"
    )
}
