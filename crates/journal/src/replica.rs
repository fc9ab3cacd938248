//! The shell around a node: one task that performs the node's effects on an engine, a bucket and a
//! state machine, and a handle for callers that propose and read. It must not know what commands
//! mean, nor decide anything about the journal; the node does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use host::budget::{Budget, Held};
use host::clock::Instant;
use store::bucket::Bucket;
use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::Engine;
use crate::entry::{ClusterNumber, EntryId, Item, Position, Stamp};
use crate::node::{Node, ProposeError, Refusal, Role, Settings, WallClock};
use crate::snapshot::Unreadable;
use crate::snapshot::manifest::Seal;

mod apply;
mod driver;
mod growth;
mod losses;
mod others;
mod requests;
#[cfg(test)]
mod rounds;
#[cfg(test)]
mod tests;

pub use growth::Grown;
use growth::Growth;
pub use others::{Alone, Others};

/// A command that the state machine cannot apply: the replica stops there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Poison(pub String);

/// What the journal drives: the same commands in the same order give the same state everywhere.
pub trait StateMachine: Send + Sync + 'static {
    /// The reply to a command.
    type Reply: Send + 'static;

    /// Applies one command of the entry `entry`; refusals are replies. After an error, as after a panic, the state is given up,
    /// and the replica goes no further than the entry before.
    fn apply(
        &mut self,
        entry: EntryId,
        stamp: Stamp,
        cluster: ClusterNumber,
        command: &[u8],
    ) -> Result<Self::Reply, Poison>;

    /// Called once all commands of the entry `entry` are applied, if it has any.
    fn applied(&mut self, _entry: EntryId) {}

    /// Called before the commands of the entry `entry`, which leaves an earlier one out. Callers may have been told of what that
    /// one did, so nothing that it can have given out is given again, and listeners look again at everything.
    fn left_out(&mut self, entry: EntryId, stamp: Stamp);

    /// The kind of a command, for people.
    fn kind(command: &[u8]) -> String;

    /// What is lost with a command that is left out, for people: a line for each thing. The state is that before the command's entry.
    /// `None`: this build cannot read the command.
    fn lost_with(&self, cluster: ClusterNumber, command: &[u8]) -> Option<Vec<String>>;

    /// Captures the state as it is now, which must be quick.
    fn capture(&self) -> Box<dyn Capture>;

    /// An empty machine to take the place of this one, made quickly: the same cluster and
    /// listeners, the state before the first command.
    #[must_use]
    fn genesis(&self) -> Self
    where
        Self: Sized;

    /// Restores what was captured. The machine in use still serves readers meanwhile, so this one
    /// tells its listeners nothing.
    fn restore(&mut self, chunks: Vec<Bytes>) -> Result<(), Unreadable>;

    /// Called when this machine, as it is after the entry `last`, has taken the place of another: its listeners look again at
    /// everything.
    fn adopted(&mut self, _last: EntryId) {}

    /// A digest of the logical state and its level: equal on all replicas at one entry.
    fn seal(&self) -> Seal;

    /// The slots below `end` that the state still needs, which are not trimmed.
    fn needs(&self, _end: u64) -> BTreeSet<u64> {
        BTreeSet::new()
    }
}

/// A state as it was at one entry, for a snapshot. Its work is done on a thread of its own.
pub trait Capture: Send {
    fn seal(&self) -> Seal;

    /// Encodes the state in parts. A part whose identity `is_known` is unchanged since the last
    /// snapshot and need not be encoded again.
    fn encode(self: Box<Self>, is_known: &dyn Fn(PartId) -> bool) -> Vec<Part>;
}

/// Identifies a part of a state within one process: parts of equal identity have equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId(pub u128);

/// A part of a captured state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Unchanged since the last snapshot.
    Same(PartId),
    /// Equal bytes are stored once, whether they have an identity or not.
    Encoded(Option<PartId>, Bytes),
}

pub struct Parts {
    /// The node's own engine.
    pub engine: Box<dyn Engine>,
    /// Where snapshots and large bodies go.
    pub bucket: Arc<dyn Bucket>,
    /// Who else has a replica of the journal.
    pub others: Arc<dyn Others>,
    /// The node's settings; the engine's limits lower those that are too large for it.
    pub settings: Settings,
}

/// A running replica; it stops when this is dropped.
#[must_use = "the replica stops when this is dropped"]
pub struct Replica {
    _task: host::task::Task<()>,
}

/// The state of a replica, for people and for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub role: Role,
    pub leader: Option<String>,
    pub claim_index: u64,
    /// The node that has taken the lead from this one, which now waits for its silence.
    pub deposed_by: Option<String>,
    /// The last entry applied here.
    pub index: u64,
    /// The last moment, by boot clock, by which everything appended is applied here; it grows old
    /// under a leader that nobody uses. `None` if the end was not reached yet.
    pub confirmed_at: Option<Instant>,
    /// The same, by what the next slot showed or the leader told: a hint, which is a few seconds old at most while the journal can be
    /// read.
    pub seemed_current_at: Option<Instant>,
    /// Index of the newest snapshot known to be whole.
    pub snapshot_index: Option<u64>,
    /// It leads and has stored no snapshot though one was due twice.
    pub is_snapshot_overdue: bool,
    /// How many snapshots it could not write since it started.
    pub snapshots_failed: u64,
    /// How long the last successful append took.
    pub append_latency: Option<Duration>,
    /// Entries that this replica appended since it started.
    pub entries_appended: u64,
    /// Commands that it applied since it started.
    pub commands_applied: u64,
    /// The last failure of the engine or the bucket, if nothing has succeeded since.
    pub trouble: Option<String>,
    /// The entry that cannot be applied here, and what an operator can do.
    pub stuck: Option<String>,
    /// Why it has stopped for good, if it has.
    pub halted: Option<String>,
}

/// Access to a replica. Clones are cheap.
pub struct Handle<S: StateMachine> {
    shared: Arc<Shared<S>>,
    inputs: mpsc::Sender<Input<S::Reply>>,
}

impl<S: StateMachine> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Handle {
            shared: Arc::clone(&self.shared),
            inputs: self.inputs.clone(),
        }
    }
}

/// The data that handles and the driver share.
struct Shared<S> {
    state: RwLock<S>,
    status: Mutex<Status>,
    /// By boot clock, in microseconds; 0 while it does not lead.
    leading_until: AtomicU64,
    /// From when on it may be that another leads, by boot clock, in microseconds; the largest number if nothing says so.
    doubtful_from: AtomicU64,
    roles: watch::Sender<Role>,
    /// How far the state has come.
    applied: watch::Sender<Position>,
    budget: Budget,
    /// Where others hear of what this node appends.
    growth: Growth,
    /// For what this node has heard of that and has not looked at.
    told: Budget,
    /// True while the state is not to be used: changed in part, or holding what the journal leaves out. It is set while the state
    /// is locked.
    is_void: AtomicBool,
}

/// Entries that were told and that the driver has not taken.
const TOLD_BYTES_MAX: u64 = 16 << 20;

type Answer<T> = oneshot::Sender<Result<T, ProposeError>>;

/// Messages from handles to the driver.
enum Input<R> {
    Propose {
        item: Item,
        stored_bytes: u64,
        answer: Answer<R>,
        held: Held,
    },
    Barrier {
        answer: Answer<Position>,
    },
    Confirm {
        answer: Answer<Position>,
    },
    Grew(u64),
    Told {
        entries: Vec<(u64, Bytes)>,
        held: Held,
    },
    LeaderGone(u64),
    LeaderResigned(u64),
    WallClock(WallClock),
    Resign {
        answer: Answer<Position>,
    },
}

/// The caller that waits for a ticket.
enum Waiting<R> {
    Reply { answer: Answer<R>, _held: Held },
    Barrier { answer: Answer<Position> },
}

type Waiters<R> = BTreeMap<crate::node::Ticket, Waiting<R>>;

/// Starts a replica with an empty `state`. It goes on trying for as long as the engine and the
/// bucket are away.
pub fn start<S: StateMachine>(parts: Parts, state: S) -> (Handle<S>, Replica) {
    let mut parts = parts;
    let limits = parts.engine.limits();
    let settings = &mut parts.settings;
    settings.slot_bytes_max = settings.slot_bytes_max.min(limits.slot_bytes_max);
    settings.takes_seal |= limits.takes_seal;
    let (inputs, receiver) = mpsc::channel(settings.queue_items_max);
    let shared = Arc::new(Shared {
        state: RwLock::new(state),
        status: Mutex::new(Status::starting()),
        leading_until: AtomicU64::new(0),
        doubtful_from: AtomicU64::new(u64::MAX),
        roles: watch::Sender::new(Role::Loading),
        applied: watch::Sender::new(Position(0)),
        budget: Budget::of_bytes(settings.queue_bytes_max as u64),
        growth: Growth::default(),
        told: Budget::of_bytes(TOLD_BYTES_MAX),
        is_void: AtomicBool::new(false),
    });
    let node = Node::new(settings.clone(), Box::new(host::rng::nonce));
    let driver = driver::Driver::new(parts, node, Arc::clone(&shared));
    let task = host::task::spawn("journal replica", driver.run(receiver));
    (Handle { shared, inputs }, Replica { _task: task })
}

impl Status {
    fn starting() -> Self {
        Status {
            role: Role::Loading,
            leader: None,
            deposed_by: None,
            claim_index: 0,
            index: 0,
            confirmed_at: None,
            seemed_current_at: None,
            snapshot_index: None,
            is_snapshot_overdue: false,
            snapshots_failed: 0,
            append_latency: None,
            entries_appended: 0,
            commands_applied: 0,
            trouble: None,
            stuck: None,
            halted: None,
        }
    }
}

impl<S: StateMachine> Handle<S> {
    /// Appends a command and gives the state machine's reply to it. Dropping the future leaves the
    /// outcome unknown.
    pub async fn propose(
        &self,
        cluster: ClusterNumber,
        command: Bytes,
    ) -> Result<S::Reply, ProposeError> {
        self.propose_about(cluster, command, 0).await
    }

    /// The same for a command about so many bytes that were stored elsewhere: the more they are, the
    /// sooner its entry is worth what it costs.
    pub async fn propose_about(
        &self,
        cluster: ClusterNumber,
        command: Bytes,
        stored_bytes: u64,
    ) -> Result<S::Reply, ProposeError> {
        self.enqueue(cluster, command, stored_bytes).await
    }

    /// The same, with the command proposed before this returns: those proposed first are applied first.
    pub fn enqueue(
        &self,
        cluster: ClusterNumber,
        command: Bytes,
        stored_bytes: u64,
    ) -> impl Future<Output = Result<S::Reply, ProposeError>> + Send + use<S> {
        let (answer, reply) = oneshot::channel();
        let held = self.shared.budget.try_hold(command.len() as u64);
        let held = held.ok_or(ProposeError::Definite(Refusal::Busy));
        let sent = held.and_then(|held| {
            self.send(Input::Propose {
                item: Item { cluster, command },
                stored_bytes,
                answer,
                held,
            })
        });
        async move {
            sent?;
            reply.await.unwrap_or_else(|_| Err(gone()))
        }
    }

    /// Resolves once an entry that was appended after the call has been applied here: what is read
    /// afterwards is current, here and on any node that has come to the position given. Many at a
    /// time share one entry.
    pub async fn barrier(&self) -> Result<Position, ProposeError> {
        let (answer, passed) = oneshot::channel();
        self.send(Input::Barrier { answer })?;
        passed.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Resolves once everything that was appended before the call has been applied here, whoever
    /// leads: what is read afterwards is current. A follower looks for itself, and asks nobody.
    pub async fn confirm(&self) -> Result<Position, ProposeError> {
        let (answer, passed) = oneshot::channel();
        self.send(Input::Confirm { answer })?;
        passed.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Hints that the journal has an entry at this slot, so that a follower looks at once.
    pub fn look_for(&self, slot: u64) {
        // A hint that finds no room is one of many.
        drop(self.inputs.try_send(Input::Grew(slot)));
    }

    /// What this node appends from now on, as it counts. Whoever falls far behind misses some.
    pub fn growth(&self) -> BoxStream<'static, Grown> {
        self.shared.growth.follow()
    }

    /// Tells a follower of entries, with their slots, that the node which leads says count; those that find no room are read like
    /// others. Only what came from [`Handle::growth`] of that node may be told.
    pub fn tell(&self, entries: Vec<(u64, Bytes)>) {
        let bytes = entries.iter().map(|(_, entry)| entry.len() as u64).sum();
        if let Some(held) = self.shared.told.try_hold(bytes) {
            drop(self.inputs.try_send(Input::Told { entries, held }));
        }
    }

    /// Hints that the process whose claim is in this slot is gone, so that a follower claims after a short silence.
    pub fn leader_is_gone(&self, claim: u64) {
        drop(self.inputs.try_send(Input::LeaderGone(claim)));
    }

    /// Hints that the process whose claim is in this slot has resigned in favour of this one, so that a follower claims at once.
    pub fn leader_has_resigned(&self, claim: u64) {
        drop(self.inputs.try_send(Input::LeaderResigned(claim)));
    }

    /// This node's wall clock was compared with those of others: what stamps rest on from now on, as far as this node leads. It is
    /// to be told again and again, since a node that has much to do may miss it.
    pub fn has_compared(&self, clock: WallClock) {
        drop(self.inputs.try_send(Input::WallClock(clock)));
    }

    /// Leads no more: takes nothing new, settles what it has taken, and resolves to where the claim is by which it led last: it may
    /// have renewed that meanwhile. The error says that it did not lead, or does not any more.
    pub async fn resign(&self) -> Result<Position, ProposeError> {
        let (answer, resigned) = oneshot::channel();
        self.send(Input::Resign { answer })?;
        resigned.await.unwrap_or_else(|_| Err(gone()))
    }

    fn send(&self, input: Input<S::Reply>) -> Result<(), ProposeError> {
        self.inputs.try_send(input).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Definite(Refusal::Busy),
            mpsc::error::TrySendError::Closed(_) => {
                ProposeError::Definite(Refusal::Halted(STOPPED.to_owned()))
            }
        })
    }

    /// How far the state has come; later reads are at least as current.
    pub fn applied(&self) -> Position {
        *self.shared.applied.borrow()
    }

    /// Waits until the state has come to `position`: later reads are at least as current as the
    /// state that the position was taken from. It has no time limit of its own. The error says that
    /// it never will.
    pub async fn reach(&self, position: Position) -> Result<(), Refusal> {
        let mut applied = self.shared.applied.subscribe();
        let mut roles = self.roles();
        loop {
            if *applied.borrow_and_update() >= position {
                return Ok(());
            }
            if *roles.borrow_and_update() == Role::Halted {
                let why = self.shared.status().halted.clone();
                return Err(Refusal::Halted(why.unwrap_or_else(|| STOPPED.to_owned())));
            }
            if self.inputs.is_closed() {
                return Err(Refusal::Halted(STOPPED.to_owned()));
            }
            tokio::select! {
                biased;
                changed = applied.changed() => drop(changed),
                changed = roles.changed() => drop(changed),
                () = self.inputs.closed() => {}
            }
        }
    }

    /// True while this node leads, as far as it knows; another node may lead all the same.
    pub fn is_leader(&self) -> bool {
        *self.shared.roles.borrow() == Role::Leader
    }

    /// Until when this node may answer from memory as the leader: a second from the start of its
    /// last append that succeeded. `None` if it may not now.
    pub fn leading_until(&self) -> Option<Instant> {
        let micros = self.shared.leading_until.load(Ordering::Acquire);
        let until = Instant::from_micros(micros);
        (host::clock::now() < until).then_some(until)
    }

    /// True while this node leads, and may lead no more: no append has finished for [`crate::node::DOUBT_AFTER`], or another writer
    /// got in its way. It keeps trying.
    pub fn is_doubtful(&self) -> bool {
        let micros = self.shared.doubtful_from.load(Ordering::Acquire);
        host::clock::now() >= Instant::from_micros(micros)
    }

    /// The role and its changes.
    pub fn roles(&self) -> watch::Receiver<Role> {
        self.shared.roles.subscribe()
    }

    /// Reads the state as applied here. `read` must be quick: nothing is applied meanwhile.
    pub fn with_state<T>(&self, read: impl FnOnce(&S) -> T) -> T {
        read(
            &self
                .shared
                .state
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// True if what is read from the state may be wrong: an entry cannot be applied here, or is left out, and another state takes
    /// its place. It turns true only while the state is locked: who asks inside [`Handle::with_state`] is told of that very state.
    pub fn is_void(&self) -> bool {
        self.shared.is_void.load(Ordering::Acquire)
    }

    pub fn status(&self) -> Status {
        self.shared.status().clone()
    }
}

const STOPPED: &str = "the replica was stopped";

fn gone() -> ProposeError {
    ProposeError::Unknown(STOPPED.to_owned())
}

impl<S> Shared<S> {
    // Only the state machine can panic under these locks, and a panic there ends the process.
    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
