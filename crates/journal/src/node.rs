//! The role of a node: follows the journal, takes it, leads, falls back. It is sans-IO: an event
//! goes in with the time, effects come out, and every effect that asks for something is answered
//! by exactly one event. It must not know engines, buckets or what commands mean.
//!
//! Each state owns its data and turns into the next one by itself; data that outlive states are in
//! [`Lasting`].

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use host::clock::Instant;

use crate::chain::Chain;
use crate::engine::{self, Append, Content, End, TakeError};
use crate::entry::{EntryId, Item, Position, Stamp};
use crate::quarantine::{Order, Quarantined, Word};
use crate::rule::Rules;
use crate::snapshot::Cut;

mod accept;
mod claiming;
mod context;
mod flight;
mod following;
mod hearsay;
mod horizon;
mod leading;
mod loading;
mod quarantining;
mod queue;
mod retention;
mod settings;
mod stuck;
mod unstored;
mod wall_clock;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use claiming::{Claiming, Confirming, Taking};
use context::{Cx, Lasting};
use following::Following;
use leading::Leading;
use loading::{Loading, Verifying};
use quarantining::Quarantining;
pub use settings::{Settings, SnapshotPolicy, Takeover};
use stuck::Stuck;
pub use wall_clock::WallClock;

/// For how long after the start of an append that succeeded a leader answers from memory
/// (ARCHITECTURE.md, metadata). Whoever takes over cannot have been current before that start.
pub const ANSWER_FROM_MEMORY_FOR: Duration = Duration::from_secs(1);

/// A leader none of whose appends has finished for so long may lead no more: somebody else may have taken the lead, or the bucket be
/// out of its reach alone (three regions, rule L2).
pub const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// The time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// By boot clock: everything that measures.
    pub boot: Instant,
    /// By wall clock, in milliseconds since 1970: only for stamps.
    pub wall_millis: u64,
}

/// Identifies a caller that waits for an answer; the shell numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A command to append, and the caller that waits for its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub ticket: Ticket,
    pub item: Item,
    /// Bytes that were stored elsewhere and that the command is about: the more it stands for, the
    /// sooner its entry is worth what it costs.
    pub stored_bytes: u64,
}

/// A slot as it was read, with its body if that lies in the bucket and is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub index: u64,
    pub content: Content,
    /// The object that its entry refers to.
    pub body: Option<Bytes>,
}

/// What a scan found, bodies included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub slots: Vec<Slot>,
    pub end: End,
}

/// The purpose of a request, which comes back with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Starting from a snapshot.
    Start,
    /// Checking that the journal holds the entry at which a snapshot was cut.
    Verify,
    Follow,
    /// Looking for a free slot ahead of those that are read.
    Horizon,
    /// Leading: a take, and the floor after the claim.
    Lead,
    /// Checking that nobody else has taken the lead.
    Look,
}

/// Identifies one request of the node; the answer carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub purpose: Purpose,
    pub number: u64,
}

/// What a snapshot load found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The state machine is as it was at this cut. The floor was read before.
    Restored {
        /// Where the snapshot was cut.
        cut: Box<Cut>,
        floor: u64,
        /// Bytes of the snapshot's chunks.
        bytes: u64,
    },
    /// No snapshot is newer than the one asked for; the state machine is unchanged.
    Nothing {
        floor: u64,
        /// Why existing snapshots cannot be used, for people; empty if there are none.
        damaged: Vec<String>,
        /// True if a newer version wrote some of them.
        is_newer: bool,
    },
}

/// The result of restoring a snapshot beside the state in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It restores to the state from which it was cut; the core time that this took.
    Whole(Duration),
    /// It does not restore to that state, and never will.
    Useless,
    /// The snapshot could not be read just now.
    Unknown,
}

/// What another node that is there says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub name: String,
    /// The version of its build, if it says that.
    pub version: Option<String>,
    /// The last slot that it has applied; `None` if it answers and does not say.
    pub applied: Option<u64>,
}

/// Events of a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// It starts, with an empty state machine.
    Started,
    /// The time of [`Node::deadline`] has come.
    Timer,
    /// Answer to [`Effect::LoadSnapshot`].
    SnapshotLoaded(Ask, Result<Loaded, engine::Error>),
    /// Answer to [`Effect::Scan`]: the unbroken run from the slot asked for.
    Scanned(Ask, Run),
    /// Answer to [`Effect::FindSnapshot`]: its index.
    SnapshotFound(Ask, Result<Option<u64>, engine::Error>),
    /// Answer to [`Effect::Hear`]: all other nodes that are there. The error says that it is not known which there are.
    Heard(Ask, Result<Vec<Said>, engine::Error>),
    /// Answer to [`Effect::ReadFloor`].
    FloorRead(Ask, Result<u64, engine::Error>),
    /// Answer to [`Effect::Take`]: what is settled. The tenure is the shell's to keep.
    Taken(Ask, Result<Vec<Slot>, TakeError>),
    /// Answer to [`Effect::Append`] of this entry.
    AppendDone(EntryId, Append),
    /// Commands were proposed together.
    Propose(Vec<Proposal>),
    /// A caller wants to know when an entry appended from now on has been applied.
    Barrier(Ticket),
    /// A caller wants to know when everything appended before now has been applied here, whoever
    /// leads.
    Confirm(Ticket),
    /// The journal is said, by the node that leads, to have an entry at this slot: a hint to look, and a sign of life.
    Grew(u64),
    /// Entries, each with its slot, that the node that leads says count. Only what [`Effect::Tell`] gave to that node may come here.
    Told(Vec<(u64, Bytes)>),
    /// The process whose claim is in this slot is said to be gone, since its machine refuses connections: a hint to look, and to
    /// claim after a short silence if that claim is still the last.
    LeaderGone(u64),
    /// The process whose claim is in this slot is said to have resigned and to name this node as its successor: a hint to claim
    /// at once.
    LeaderResigned(u64),
    /// Its wall clock was compared with those of others.
    WallClock(WallClock),
    /// A caller wants this node to lead no more, once all that it has taken is settled.
    Resign(Ticket),
    /// Answer to [`Effect::WriteSnapshot`] at this index: its size in bytes, if it was written and
    /// read back.
    SnapshotWritten(u64, Result<u64, String>),
    /// Answer to [`Effect::VerifySnapshot`] at this index.
    SnapshotVerified(u64, Verdict),
    /// Answer to [`Effect::Trim`] of the slots below this one.
    Trimmed(u64, Result<(), engine::Error>),
    /// The state machine could not apply the entry at this index, and may have changed in part. No effect after that was
    /// performed, and nobody waits for a reply any more. [`Effect::unperformed`] follows.
    Poisoned(u64, String),
}

/// What the shell has to do, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Restore the newest whole snapshot with an index above this.
    LoadSnapshot {
        ask: Ask,
        /// The index above which a snapshot is of use.
        above: u64,
        /// The state in use is void: before anything else, put that before the first command in its place.
        anew: bool,
        /// Snapshots that hold one of these entries are of no use ([`Cut::holds`]).
        leaves_out: Vec<Quarantined>,
    },
    /// Look for a snapshot at or above this index.
    FindSnapshot { ask: Ask, from: u64 },
    /// Ask the other nodes how far they have applied the journal, once each has come to this slot or shows that it does not. Who does
    /// not answer within a bounded time is not there.
    Hear { ask: Ask, slot: u64 },
    /// The entry in this slot, at which this node was stuck, is left out as its operator wants: what these commands of it did is lost. The
    /// state in use is still that before the entry.
    LeftOut { slot: u64, items: Vec<Item> },
    /// Read the unbroken run of slots from here.
    Scan { ask: Ask, from: u64, limit: usize },
    /// Read the engine's floor, and check that no slot was lost at the end of the chain.
    ReadFloor {
        ask: Ask,
        /// The slot after the last one known.
        end: u64,
    },
    /// Settle the slots from `from` on, close those below `through`, and begin a tenure in place of
    /// the one before.
    Take { ask: Ask, from: u64, through: u64 },
    /// Tell the tenure that its claim counts.
    Confirmed,
    /// Write the body to the bucket if there is one, then append in the last tenure.
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
        /// The callers that wait for the replies, one per command; empty if nobody waits.
        tickets: Vec<Ticket>,
        /// True if it leaves an earlier entry out, of which the state machine is told before its commands.
        quarantines: bool,
    },
    /// Others may be told that the entry in this slot, which this node has appended, counts: its bytes, unless its commands lie
    /// elsewhere.
    Tell { index: u64, entry: Option<Bytes> },
    /// Everything that these callers waited for has been applied.
    BarrierPassed {
        tickets: Vec<Ticket>,
        /// The position of the applied state.
        position: Position,
    },
    /// These callers get no reply.
    Lost {
        tickets: Vec<Ticket>,
        /// Why, and whether the command may have been applied.
        why: ProposeError,
    },
    /// Capture the state machine as it is now, write the snapshot, read it back.
    WriteSnapshot {
        /// The cut for the snapshot's manifest.
        cut: Box<Cut>,
        /// The older of the two newest verified snapshots; earlier ones may be removed.
        older: Option<u64>,
    },
    /// Restore the snapshot at this index beside the state in use, and compare.
    VerifySnapshot { index: u64 },
    /// In the last tenure, raise the floor, then delete slots and bodies.
    Trim {
        floor: u64,
        /// After this trim, every slot below this one is deleted or spared for good.
        through: u64,
        indices: Vec<u64>,
        /// The bodies, each with the slot that refers to it.
        bodies: Vec<(u64, [u8; 32])>,
    },
}

impl Effect {
    /// The answer to an effect that was not performed, since an entry before it cannot be applied; `None` if the node does not
    /// wait for one then.
    pub fn unperformed(&self) -> Option<Event> {
        match self {
            Effect::WriteSnapshot { cut, .. } => {
                let why = "an entry cannot be applied".to_owned();
                Some(Event::SnapshotWritten(cut.last.index, Err(why)))
            }
            Effect::VerifySnapshot { index } => {
                Some(Event::SnapshotVerified(*index, Verdict::Unknown))
            }
            _ => None,
        }
    }
}

/// Why a command got no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The command was not applied and never will be.
    #[error("not done: {0}")]
    Definite(Refusal),
    /// The command may have been applied, or may be later.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
}

/// Why a command was refused.
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
    /// The command waited too long for the entries before it.
    #[error("the journal did not take it in time")]
    Expired,
    /// The command is larger than an entry may be.
    #[error("the command has {bytes} bytes, more than the {max} of an entry")]
    TooLarge { bytes: usize, max: usize },
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
    /// It settles what others left, and tries to append a claim.
    Candidate,
    /// Its claim is in the journal; it makes sure that the claim counts.
    BecomingLeader,
    /// It leads, or renews its claim after another writer got in its way.
    Leader,
    /// It cannot apply an entry, or builds another state because of one: what it has applied is of no use to anybody. Or it
    /// cannot read what a newer version wrote.
    Stuck,
    /// It has stopped for good.
    Halted,
}

enum State {
    Loading(Loading),
    Verifying(Verifying),
    Following(Following),
    Taking(Taking),
    Claiming(Claiming),
    Confirming(Confirming),
    Leading(Box<Leading>),
    Quarantining(Quarantining),
    /// It waits to be replaced by a newer version, for this reason.
    Outdated(String),
    Halted(String),
}

pub struct Node {
    lasting: Lasting,
    state: State,
}

impl Node {
    /// A node before [`Event::Started`]. `entropy` gives fresh random numbers; they must not
    /// repeat, even across processes.
    pub fn new(settings: Settings, entropy: Box<dyn FnMut() -> u128 + Send>) -> Self {
        Node::under(Rules::all(), settings, entropy)
    }

    fn under(rules: Rules, settings: Settings, entropy: Box<dyn FnMut() -> u128 + Send>) -> Self {
        Node {
            lasting: Lasting::new(rules, settings, entropy),
            state: State::Loading(Loading::default()),
        }
    }

    /// The same node with one safety rule removed, so that a simulation can show that the rule is
    /// needed.
    #[cfg(any(test, feature = "mutations"))]
    pub fn without(
        rule: crate::rule::Rule,
        settings: Settings,
        entropy: Box<dyn FnMut() -> u128 + Send>,
    ) -> Self {
        Node::under(Rules::without(rule), settings, entropy)
    }

    pub fn role(&self) -> Role {
        let is_halted = matches!(self.state, State::Halted(_));
        if (self.lasting.stuck.is_some() || self.lasting.rebuilds) && !is_halted {
            return Role::Stuck;
        }
        match &self.state {
            State::Loading(_) | State::Verifying(_) => Role::Loading,
            State::Following(_) => Role::Follower,
            State::Taking(Taking {
                mandate: Some(_), ..
            })
            | State::Claiming(Claiming {
                mandate: Some(_), ..
            })
            | State::Confirming(Confirming {
                mandate: Some(_), ..
            })
            | State::Leading(_) => Role::Leader,
            State::Taking(_) | State::Claiming(_) => Role::Candidate,
            State::Confirming(_) => Role::BecomingLeader,
            State::Quarantining(_) | State::Outdated(_) => Role::Stuck,
            State::Halted(_) => Role::Halted,
        }
    }

    /// How far the journal is known here.
    pub fn chain(&self) -> &Chain {
        &self.lasting.chain
    }

    /// The node whose claim is the last valid one known here.
    pub fn claimant(&self) -> Option<&str> {
        self.lasting.claimant.as_deref()
    }

    /// The node whose lead keeps this one from leading, and its claim: this node claims again only
    /// after a silence. `None` while it leads, or has no such reason to wait.
    pub fn deposed_by(&self) -> Option<(EntryId, &str)> {
        let claim = self.lasting.chain.claim();
        let theirs = self.lasting.deposed && self.lasting.own_claim != Some(claim);
        let name = self.lasting.claimant.as_deref().filter(|_| theirs)?;
        Some((claim, name))
    }

    /// The entry that cannot be applied here, or what is too new, and what an operator can do; `None` until the journal was read
    /// to its end.
    pub fn stuck(&self) -> Option<String> {
        if let State::Outdated(why) = &self.state {
            return Some(why.clone());
        }
        let stuck = self
            .lasting
            .stuck
            .as_ref()
            .filter(|stuck| stuck.is_last_word)?;
        Some(stuck.tell(self.lasting.settings.quarantine))
    }

    /// Why it has stopped for good, and what to do, if it has: going on would be unsafe, and an operator has to act.
    pub fn halted(&self) -> Option<&str> {
        match &self.state {
            State::Halted(why) => Some(why),
            _ => None,
        }
    }

    /// What became of the operator's word, once that is known: whether the entry is left out, or can be applied here, so that
    /// nothing is done.
    pub fn word(&self) -> Option<(Word, bool)> {
        let lasting = &self.lasting;
        let order = lasting.settings.quarantine;
        let Order { word, .. } = order.filter(|_| lasting.stuck.is_none())?;
        lasting.confirmed_at?;
        let one = lasting.quarantined.get(&word.slot);
        Some((
            word,
            one.is_some_and(|one| Word::of(one.slot, &one.sha256) == word),
        ))
    }

    /// Until when this node may answer from memory as the leader; `None` if it does not lead.
    pub fn leading_until(&self) -> Option<Instant> {
        let leads = self.role() == Role::Leader;
        leads.then_some(self.lasting.leading_until).flatten()
    }

    /// From when on this node, which leads, may lead no more, unless something finishes before; `None` if nothing says so.
    pub fn doubtful_from(&self) -> Option<Instant> {
        match &self.state {
            State::Leading(leading) => leading.doubtful_from(),
            // Another writer has got in its way.
            _ => (self.role() == Role::Leader).then_some(Instant::default()),
        }
    }

    /// The last moment by which everything appended is known here; `None` if the end was not read
    /// yet.
    pub fn confirmed_at(&self) -> Option<Instant> {
        self.lasting.confirmed_at
    }

    /// The same, by what the next slot showed or the leader told: a hint, since the floor was not read each time. It does not grow
    /// old under a leader that nobody uses.
    pub fn seemed_current_at(&self) -> Option<Instant> {
        self.lasting.seemed_current_at
    }

    /// Whether this node leads and has stored no snapshot though one was due twice.
    pub fn is_snapshot_overdue(&self, now: Instant) -> bool {
        let Lasting {
            retention,
            settings,
            ..
        } = &self.lasting;
        let leads = matches!(self.state, State::Leading(_));
        leads && retention.is_overdue(now, &settings.snapshot)
    }

    /// How many snapshots this node could not write since it started.
    pub fn snapshots_failed(&self) -> u64 {
        self.lasting.retention.failures()
    }

    /// Index of the newest snapshot that is known to be whole.
    pub fn snapshot_index(&self) -> Option<u64> {
        self.lasting.retention.newest()
    }

    /// When to give [`Event::Timer`]; `None` if only other events can change anything.
    pub fn deadline(&self) -> Option<Instant> {
        let lasting = &self.lasting;
        let of_state = match &self.state {
            State::Loading(loading) => loading.deadline(),
            State::Verifying(verifying) => verifying.deadline(),
            State::Following(following) => following.deadline(lasting),
            State::Taking(taking) => taking.deadline(lasting),
            State::Claiming(claiming) => claiming.deadline(lasting),
            State::Confirming(confirming) => confirming.deadline(lasting),
            State::Leading(leading) => leading.deadline(lasting),
            State::Quarantining(quarantining) => quarantining.deadline(),
            State::Outdated(_) | State::Halted(_) => None,
        };
        [lasting.limbo_expires_at(), of_state]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes one event; appends what is to be done to `out`.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        let lasting = &mut self.lasting;
        let cx = &mut Cx { now, out, lasting };
        let state = std::mem::replace(&mut self.state, State::Halted(String::new()));
        if matches!(event, Event::Timer) {
            cx.expire_limbo();
        }
        self.state = match (state, event) {
            (State::Halted(why), event) => {
                cx.refuse(event, &Refusal::Halted(why.clone()));
                State::Halted(why)
            }
            (state, Event::Poisoned(index, why)) => {
                let is_left_out = cx.lasting.quarantined.contains_key(&index);
                state.rebuild(cx, (!is_left_out).then(|| Stuck::at(index, why)))
            }
            (state, Event::SnapshotWritten(index, written)) => {
                cx.lasting.retention.written(now.boot, index, written.ok());
                state.go_on(cx)
            }
            (state, Event::SnapshotVerified(index, verdict)) => {
                let verdict = match cx.lasting.is_void(index) {
                    true => Verdict::Useless,
                    false => verdict,
                };
                cx.lasting.retention.verified(now.boot, index, verdict);
                state.go_on(cx)
            }
            (state, Event::Trimmed(through, result)) => {
                let retention = &mut cx.lasting.retention;
                retention.trimmed(now.boot, through, result.is_ok());
                state.go_on(cx)
            }
            (state, Event::WallClock(found)) => {
                cx.lasting.wall_clock = found;
                state
            }
            (State::Following(mut following), Event::Grew(slot)) => {
                following.leader_is_heard(cx);
                following.look_for(cx, slot);
                State::Following(following)
            }
            (State::Following(following), Event::Told(entries)) => following.told(cx, entries),
            (State::Following(mut following), Event::LeaderGone(claim)) => {
                following.leader_is_gone(cx, claim);
                State::Following(following)
            }
            (State::Following(mut following), Event::LeaderResigned(claim)) => {
                following.leader_resigned(cx, claim);
                State::Following(following)
            }
            (
                state,
                Event::Grew(_) | Event::Told(_) | Event::LeaderGone(_) | Event::LeaderResigned(_),
            ) => state,
            (State::Outdated(why), event) => {
                cx.refuse_for_want_of_lead(event);
                State::Outdated(why)
            }
            (State::Loading(state), event) => state.handle(cx, event),
            (State::Verifying(state), event) => state.handle(cx, event),
            (State::Following(state), event) => state.handle(cx, event),
            (State::Taking(state), event) => state.handle(cx, event),
            (State::Claiming(state), event) => state.handle(cx, event),
            (State::Confirming(state), event) => state.handle(cx, event),
            (State::Leading(state), event) => state.handle(cx, event),
            (State::Quarantining(state), event) => state.handle(cx, event),
        };
    }
}

const GIVEN_UP: &str = "this node cannot apply an entry before it, or the journal leaves one out";
const TOO_NEW: &str = "a newer version has written what this node cannot read";
const SLEPT: &str = "this node slept while others went on";

impl State {
    /// Goes on after an event that concerns only a leader's snapshots and trims.
    fn go_on(self, cx: &mut Cx<'_>) -> State {
        if let State::Leading(leading) = &self {
            leading.maintain(cx);
        }
        self
    }

    /// Stops for good.
    fn halt(self, cx: &mut Cx<'_>, why: String) -> State {
        let doubt = ProposeError::Unknown(why.clone());
        let refusal = ProposeError::Definite(Refusal::Halted(why.clone()));
        self.abandon(cx, &refusal);
        cx.lose_limbo(doubt);
        State::Halted(why)
    }

    /// Reads nothing more, and stays up to say why.
    fn outdated(self, cx: &mut Cx<'_>, found: &str) -> State {
        self.abandon(cx, &not_leader());
        cx.lose_limbo(ProposeError::Unknown(TOO_NEW.to_owned()));
        State::Outdated(format!(
            "{found}. This node serves nothing. Run a newer version"
        ))
    }

    /// Does not go on from slots that were accepted.
    fn stop(self, cx: &mut Cx<'_>, stop: accept::Stop) -> State {
        match stop {
            accept::Stop::Damaged(why) => self.halt(cx, why),
            accept::Stop::Newer(why) => self.outdated(cx, &why),
            accept::Stop::Quarantine => self.rebuild(cx, None),
        }
    }

    /// Gives the state up and builds another, up to an entry that cannot be applied if there is one, and without those that are
    /// quarantined.
    fn rebuild(self, cx: &mut Cx<'_>, stuck: Option<Stuck>) -> State {
        self.abandon(cx, &not_leader());
        cx.lose_limbo(ProposeError::Unknown(GIVEN_UP.to_owned()));
        let lasting = &mut cx.lasting;
        let before = std::mem::replace(&mut lasting.stuck, stuck);
        let left_out = before.filter(|stuck| lasting.quarantined.contains_key(&stuck.index));
        if let Some(stuck) = left_out {
            let slot = stuck.index;
            let items = stuck.into_items(lasting.settings.quarantine);
            cx.out
                .extend(items.map(|items| Effect::LeftOut { slot, items }));
        }
        lasting.rebuilds = true;
        lasting.confirmed_at = None;
        lasting.seemed_current_at = None;
        lasting.chain = Chain::genesis(lasting.settings.shard).under(lasting.rules);
        lasting.claimant = None;
        lasting.retention.restart();
        State::Loading(Loading::anew(cx))
    }

    /// Loads a snapshot again, because the next slots may be trimmed.
    fn reload(self, cx: &mut Cx<'_>) -> State {
        self.abandon(cx, &not_leader());
        cx.lose_limbo(ProposeError::Unknown(SLEPT.to_owned()));
        let lasting = &mut cx.lasting;
        lasting.contested |= lasting.own_claim == Some(lasting.chain.claim());
        lasting.deposed = true;
        let above = lasting.chain.last().index;
        State::Loading(Loading::begin(cx, above))
    }

    /// Stops leading, or trying to, since another node leads.
    fn stand_down(self, cx: &mut Cx<'_>) -> State {
        self.abandon(cx, &not_leader());
        cx.lasting.deposed = true;
        State::Following(Following::begin(cx))
    }

    /// Refuses callers whose commands were not sent; commands that were sent stay in limbo.
    fn abandon(self, cx: &mut Cx<'_>, why: &ProposeError) {
        cx.lasting.leading_until = None;
        let mandate = match self {
            State::Taking(taking) => taking.mandate,
            State::Claiming(claiming) => claiming.mandate,
            State::Confirming(confirming) => confirming.mandate,
            State::Leading(leading) => Some(leading.give_up(cx)),
            State::Following(following) => return following.give_up(cx, why),
            State::Loading(_)
            | State::Verifying(_)
            | State::Quarantining(_)
            | State::Outdated(_)
            | State::Halted(_) => None,
        };
        if let Some(mandate) = mandate {
            cx.lose(mandate.into_tickets(), why.clone());
        }
    }
}

fn not_leader() -> ProposeError {
    ProposeError::Definite(Refusal::NotLeader { leader: None })
}

/// Entries of an earlier lead whose fate is open, in the order of their slots.
type Limbo = VecDeque<flight::Flight>;

impl Slot {
    /// Bytes of the slot and of its body.
    pub(crate) fn len(&self) -> usize {
        let content = match &self.content {
            Content::Entry(bytes) => bytes.len(),
            Content::Filler => 0,
        };
        content + self.body.as_ref().map_or(0, Bytes::len)
    }
}
