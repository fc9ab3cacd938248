//! The task of a replica: takes messages of handles and answers to requests, gives them to the
//! node, and performs the node's effects. It must not know how requests are made.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use host::clock::{self, Instant};
use host::log_limit::LogLimit;
use tokio::sync::mpsc;

use super::apply::{Entries, Entry, apply};
use super::growth::Grown;
use super::requests::Requests;
use super::{Answer, Input, Parts, Shared, StateMachine, Waiters, Waiting, losses};
use crate::engine::{Append, End, TakeError};
use crate::entry::{EntryId, Item, Position};
use crate::node::{
    Effect, Event, Loaded, Node, Now, Proposal, ProposeError, Refusal, Role, Ticket,
};
use crate::quarantine::Word;

/// Messages of handles taken in one turn.
const INPUTS_AT_ONCE: usize = 1_024;
/// Failed requests of the journal are logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The driver of one replica.
pub(super) struct Driver<S: StateMachine> {
    node: Node,
    shared: Arc<Shared<S>>,
    requests: Arc<Requests<S>>,
    under_way: FuturesUnordered<BoxFuture<'static, Event>>,
    waiters: Waiters<S::Reply>,
    next_ticket: u64,
    effects: Vec<Effect>,
    commands_applied: u64,
    entries_appended: u64,
    applied: u64,
    /// The slot of the claim of which the engine was told.
    claim: u64,
    /// The claim of another node that was last logged.
    told: Option<EntryId>,
    /// What was last logged of the operator's word.
    word: Option<(Word, bool)>,
    /// Keeps a bucket that refuses for hours from filling the log.
    failures: LogLimit,
}

impl<S: StateMachine> Driver<S> {
    pub(super) fn new(parts: Parts, node: Node, shared: Arc<Shared<S>>) -> Self {
        Driver {
            node,
            requests: Arc::new(Requests::new(parts, Arc::clone(&shared))),
            shared,
            under_way: FuturesUnordered::new(),
            waiters: Waiters::new(),
            next_ticket: 0,
            effects: Vec::new(),
            commands_applied: 0,
            entries_appended: 0,
            applied: 0,
            claim: 0,
            told: None,
            word: None,
            failures: LogLimit::every(LOG_EVERY),
        }
    }

    /// Runs until every handle is gone and nobody waits, or the task is dropped.
    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input<S::Reply>>) {
        let mut batch = Vec::new();
        let mut open = true;
        self.event(Event::Started).await;
        while open || !self.waiters.is_empty() {
            let deadline = self.node.deadline();
            tokio::select! {
                biased;
                Some(event) = self.under_way.next() => self.answered(event).await,
                taken = inputs.recv_many(&mut batch, INPUTS_AT_ONCE), if open => {
                    open = taken > 0;
                    self.take(&mut batch).await;
                }
                () = until(deadline) => self.event(Event::Timer).await,
            }
            self.publish();
        }
    }

    /// Gives the node all messages that handles have sent, with proposals together so that they
    /// share an entry.
    async fn take(&mut self, batch: &mut Vec<Input<S::Reply>>) {
        let mut proposals = Vec::new();
        let mut others = Vec::new();
        for input in batch.drain(..) {
            let ticket = Ticket(self.next_ticket);
            self.next_ticket += 1;
            let waiting = match input {
                Input::Grew(slot) => {
                    others.push(Event::Grew(slot));
                    continue;
                }
                Input::Told { entries, held } => {
                    others.push(Event::Told(entries));
                    drop(held);
                    continue;
                }
                Input::LeaderGone(claim) => {
                    others.push(Event::LeaderGone(claim));
                    continue;
                }
                Input::LeaderResigned(claim) => {
                    others.push(Event::LeaderResigned(claim));
                    continue;
                }
                Input::WallClock(clock) => {
                    others.push(Event::WallClock(clock));
                    continue;
                }
                Input::Resign { answer } => {
                    others.push(Event::Resign(ticket));
                    Waiting::Barrier { answer }
                }
                Input::Propose {
                    item,
                    stored_bytes,
                    answer,
                    held,
                } => {
                    proposals.push(Proposal {
                        ticket,
                        item,
                        stored_bytes,
                    });
                    Waiting::Reply {
                        answer,
                        _held: held,
                    }
                }
                Input::Barrier { answer } => {
                    others.push(Event::Barrier(ticket));
                    Waiting::Barrier { answer }
                }
                Input::Confirm { answer } => {
                    others.push(Event::Confirm(ticket));
                    Waiting::Barrier { answer }
                }
            };
            self.waiters.insert(ticket, waiting);
        }
        if !proposals.is_empty() {
            self.event(Event::Propose(proposals)).await;
        }
        for event in others {
            self.event(event).await;
        }
    }

    /// Takes the answer to a request.
    async fn answered(&mut self, event: Event) {
        let trouble = match &event {
            Event::AppendDone(_, Append::Unknown(why)) => Some(Some(why.clone())),
            Event::AppendDone(_, Append::Appended) => {
                self.entries_appended += 1;
                Some(None)
            }
            Event::Taken(_, Err(error @ TakeError::Unavailable(_))) => {
                Some(Some(error.to_string()))
            }
            Event::Scanned(_, run) => match &run.end {
                End::Undecided(why) => Some(Some(why.clone())),
                End::Free | End::More | End::Unsettled => Some(None),
            },
            Event::FloorRead(_, Err(error))
            | Event::Trimmed(_, Err(error))
            | Event::SnapshotLoaded(_, Err(error)) => Some(Some(error.to_string())),
            Event::SnapshotWritten(_, Err(why)) => Some(Some(why.clone())),
            Event::SnapshotFound(_, Err(error)) | Event::Heard(_, Err(error)) => {
                Some(Some(error.to_string()))
            }
            Event::SnapshotLoaded(_, Ok(Loaded::Restored { cut, .. })) => {
                self.applied = cut.last.index;
                Some(None)
            }
            Event::SnapshotLoaded(..) => Some(None),
            _ => None,
        };
        match trouble {
            Some(Some(why)) => {
                if let Some(left_out) = self.failures.pass(clock::now()) {
                    tracing::warn!(%why, left_out, "a request of the journal failed; it is tried again");
                }
                self.shared.status().trouble = Some(why);
            }
            Some(None) => self.shared.status().trouble = None,
            None => {}
        }
        self.event(event).await;
    }

    /// Handles one event and everything that follows from it.
    async fn event(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = Now {
                boot: clock::now(),
                wall_millis: clock::wall_millis(),
            };
            let mut effects = std::mem::take(&mut self.effects);
            self.node.handle(now, event, &mut effects);
            events.extend(self.perform_all(effects.drain(..)).await);
            self.effects = effects;
        }
    }

    /// Performs effects in order, up to an entry that cannot be applied; yields what the node must know of that.
    async fn perform_all(&mut self, effects: impl Iterator<Item = Effect>) -> Vec<Event> {
        let mut effects = effects.peekable();
        while let Some(effect) = effects.next() {
            let poisoned = match Entries::take(effect, &mut effects) {
                Ok(entries) => self.apply_apart(entries).await,
                Err(few) => few.into_iter().find_map(|effect| self.perform(effect)),
            };
            if let Some(Event::Poisoned(index, why)) = &poisoned {
                tracing::warn!(
                    index,
                    why,
                    "this entry of the journal cannot be applied here, so this node serves nothing now; it reads on, since a later entry may \
                     leave this one out, and says what can be done once it has found none"
                );
                self.answer_all(&format!(
                    "entry {index} of the journal cannot be applied: {why}"
                ));
                let unperformed = effects.filter_map(|effect| effect.unperformed());
                return poisoned.into_iter().chain(unperformed).collect();
            }
        }
        Vec::new()
    }

    /// Applies entries of others off the async threads: at a start it may take a second, and
    /// meanwhile handles must still be able to ask for the status and to stop.
    async fn apply_apart(&mut self, entries: Entries) -> Option<Event> {
        let shared = Arc::clone(&self.shared);
        let applied = host::task::spawn_blocking(move || entries.apply(&shared)).await;
        self.commands_applied += applied.commands;
        self.applied = self.applied.max(applied.index);
        applied.poisoned
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Apply {
                id,
                stamp,
                items,
                tickets,
                quarantines,
            } => {
                let entry = Entry {
                    id,
                    stamp,
                    items,
                    quarantines,
                };
                return self.apply(&entry, &tickets);
            }
            Effect::Tell { index, entry } => self.shared.growth.tell(Grown { index, entry }),
            Effect::BarrierPassed { tickets, position } => {
                for ticket in tickets {
                    if let Some(Waiting::Barrier { answer }) = self.waiters.remove(&ticket) {
                        reply(answer, Ok(position));
                    }
                }
            }
            Effect::Lost { tickets, why } => {
                for ticket in tickets {
                    self.lose(ticket, why.clone());
                }
            }
            Effect::Append { id, bytes, body } => {
                let requests = Arc::clone(&self.requests);
                self.start(async move { requests.append(id, bytes, body).await });
            }
            Effect::Scan { ask, from, limit } => {
                let requests = Arc::clone(&self.requests);
                self.start(async move { requests.scan(ask, from, limit).await });
            }
            Effect::ReadFloor { ask, end } => {
                let requests = Arc::clone(&self.requests);
                self.start(async move { requests.read_floor(ask, end).await });
            }
            Effect::Take { ask, from, through } => {
                let requests = Arc::clone(&self.requests);
                self.start(async move { requests.take(ask, from, through).await });
            }
            Effect::Confirmed => self.requests.confirmed(),
            Effect::LoadSnapshot {
                ask,
                above,
                anew,
                leaves_out,
            } => {
                if anew {
                    self.begin_anew();
                }
                let requests = Arc::clone(&self.requests);
                self.start_apart("journal snapshot load", async move {
                    requests.load_snapshot(ask, above, &leaves_out).await
                });
            }
            Effect::FindSnapshot { ask, from } => {
                let requests = Arc::clone(&self.requests);
                self.start(async move { requests.find_snapshot(ask, from).await });
            }
            Effect::Hear { ask, slot } => {
                let requests = Arc::clone(&self.requests);
                self.start(async move { requests.hear(ask, slot).await });
            }
            Effect::LeftOut { slot, items } => self.tell_what_is_lost(slot, &items),
            Effect::WriteSnapshot { cut, older } => {
                let state = self.shared.state.read();
                let capture = state.unwrap_or_else(PoisonError::into_inner).capture();
                let requests = Arc::clone(&self.requests);
                self.start_apart("journal snapshot", async move {
                    requests.write_snapshot(*cut, older, capture).await
                });
            }
            Effect::VerifySnapshot { index } => {
                let requests = Arc::clone(&self.requests);
                self.start_apart("journal snapshot verification", async move {
                    requests.verify_snapshot(index).await
                });
            }
            Effect::Trim {
                floor,
                through,
                indices,
                bodies,
            } => {
                let requests = Arc::clone(&self.requests);
                self.start_apart("journal trim", async move {
                    requests.trim((floor, through), indices, bodies).await
                });
            }
        }
        None
    }

    /// Starts a request on this task, which adds no latency to it.
    fn start(&mut self, request: impl Future<Output = Event> + Send + 'static) {
        self.under_way.push(Box::pin(request));
    }

    /// Starts a request that uses much CPU on a task of its own, so that appends do not wait for
    /// it.
    fn start_apart(
        &mut self,
        name: &'static str,
        request: impl Future<Output = Event> + Send + 'static,
    ) {
        let task = host::task::spawn(name, request);
        self.start(async move {
            match task.join().await {
                Some(event) => event,
                // The task is aborted only by the end of the runtime, and then nobody waits for it.
                None => std::future::pending().await,
            }
        });
    }

    fn apply(&mut self, entry: &Entry, tickets: &[Ticket]) -> Option<Event> {
        let Driver {
            shared,
            waiters,
            commands_applied,
            ..
        } = self;
        let outcome = apply(shared, entry, |number, answer| {
            *commands_applied += 1;
            let ticket = tickets.get(number);
            if let Some(Waiting::Reply { answer: to, .. }) =
                ticket.and_then(|ticket| waiters.remove(ticket))
            {
                reply(to, Ok(answer));
            }
        });
        if let Err(poisoned) = outcome {
            return Some(poisoned);
        }
        self.applied = entry.id.index;
        None
    }

    fn lose(&mut self, ticket: Ticket, why: ProposeError) {
        match self.waiters.remove(&ticket) {
            Some(Waiting::Reply { answer, .. }) => reply(answer, Err(why)),
            Some(Waiting::Barrier { answer }) => reply(answer, Err(why)),
            None => {}
        }
    }

    /// Tells once that the node has stopped for good.
    fn tell_of_halt(&mut self) {
        let halted = self.node.halted().map(str::to_owned);
        if let Some(why) = &halted
            && self.shared.status().halted != halted
        {
            tracing::error!(why, "the journal's replica has stopped for good");
            self.answer_all(why);
            self.shared.status().halted = halted;
        }
    }

    /// Answers all callers: what they wait for is not applied here.
    fn answer_all(&mut self, why: &str) {
        for (_, waiting) in std::mem::take(&mut self.waiters) {
            match waiting {
                Waiting::Reply { answer, .. } => {
                    reply(answer, Err(ProposeError::Unknown(why.to_owned())));
                }
                Waiting::Barrier { answer } => {
                    let refusal = Refusal::Halted(why.to_owned());
                    reply(answer, Err(ProposeError::Definite(refusal)));
                }
            }
        }
    }

    /// Puts the state before the first command in the place of the one in use.
    fn begin_anew(&mut self) {
        let before = {
            let state = self.shared.state.write();
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            self.shared.is_void.store(true, Ordering::Release);
            let genesis = state.genesis();
            std::mem::replace(&mut *state, genesis)
        };
        self.applied = 0;
        self.shared.applied.send_replace(Position(0));
        // Dropping a large state takes a while.
        let drop = host::task::spawn_blocking(move || drop(before));
        host::task::spawn_detached("drop of a state", drop);
    }

    /// Logs, once, what is lost with an entry that this node has had left out.
    fn tell_what_is_lost(&self, slot: u64, items: &[Item]) {
        let lines = {
            let state = self.shared.state.read();
            losses::lines(&*state.unwrap_or_else(PoisonError::into_inner), items)
        };
        tracing::warn!(
            entry = slot,
            lines = lines.len(),
            "an entry of the journal is left out; what follows is lost by it, also where a client was told that it is done"
        );
        for what in lines {
            tracing::warn!(entry = slot, what, "lost");
        }
    }

    /// Logs what an operator has to know of an entry that cannot be applied, and of one that was to be left out.
    fn tell_of_quarantine(&mut self) {
        let stuck = self.node.stuck();
        if let Some(why) = &stuck
            && self.shared.status().stuck != stuck
        {
            tracing::error!(why, "the journal's replica is stuck");
        }
        self.shared.status().stuck = stuck;
        let word = self.node.word();
        match word {
            Some((word, true)) if self.word != Some((word, true)) => tracing::info!(
                %word,
                "this entry of the journal is left out: journal.quarantine can go from the settings"
            ),
            Some((word, false)) if self.word != Some((word, false)) => tracing::error!(
                %word,
                "refused: journal.quarantine names no entry that cannot be applied here, so nothing is left out; take it from the \
                 settings, or look up the word again"
            ),
            _ => {}
        }
        self.word = word;
    }

    /// Logs at once that another node leads, since nothing works here until it is gone.
    fn warn_if_deposed(&mut self) {
        let deposed_by = self.node.deposed_by();
        let claim = deposed_by.map(|(claim, _)| claim);
        if claim == self.told {
            return;
        }
        if let Some((_, leader)) = deposed_by {
            tracing::warn!(
                leader,
                "another process leads the journal of this bucket, so this one does not serve; it \
                 takes the lead again once the journal has been silent. Stop one of the two, or \
                 give each a bucket or prefix of its own"
            );
        }
        self.told = claim;
    }

    /// How far the state has come: to the end of the chain, with void entries and claims, unless an
    /// entry cannot be applied.
    fn come_to(&self) -> Position {
        match self.node.role() {
            Role::Halted | Role::Loading | Role::Stuck => Position(self.applied),
            _ => Position(self.node.chain().next() - 1),
        }
    }

    /// Publishes changes to handles.
    fn publish(&mut self) {
        self.warn_if_deposed();
        self.tell_of_halt();
        self.tell_of_quarantine();
        let until = self.node.leading_until().map_or(0, Instant::as_micros);
        self.shared.leading_until.store(until, Ordering::Release);
        let claim = self.node.chain().claim().index;
        if claim > self.claim {
            self.claim = claim;
            self.requests.claimed(claim);
        }
        let from = self.node.doubtful_from();
        let from = from.map_or(u64::MAX, Instant::as_micros);
        self.shared.doubtful_from.store(from, Ordering::Release);
        let role = self.node.role();
        let applied = self.come_to();
        // Nobody is answered from the state of a node that does not go on.
        let is_given_up = role == Role::Stuck || role == Role::Halted;
        self.shared.is_void.store(is_given_up, Ordering::Release);
        {
            let mut status = self.shared.status();
            status.role = role;
            if status.leader.as_deref() != self.node.claimant() {
                status.leader = self.node.claimant().map(str::to_owned);
            }
            let deposed_by = self.node.deposed_by().map(|(_, name)| name);
            if status.deposed_by.as_deref() != deposed_by {
                status.deposed_by = deposed_by.map(str::to_owned);
            }
            status.claim_index = claim;
            status.index = applied.0;
            status.confirmed_at = self.node.confirmed_at();
            status.seemed_current_at = self.node.seemed_current_at();
            status.snapshot_index = self.node.snapshot_index();
            status.is_snapshot_overdue = self.node.is_snapshot_overdue(clock::now());
            status.snapshots_failed = self.node.snapshots_failed();
            status.commands_applied = self.commands_applied;
            status.entries_appended = self.entries_appended;
        }
        self.shared.applied.send_if_modified(|shown| {
            let further = applied > *shown;
            *shown = applied.max(*shown);
            further
        });
        let changed = self.shared.roles.send_if_modified(|shown| {
            let changed = *shown != role;
            *shown = role;
            changed
        });
        if changed && role != Role::BecomingLeader {
            let index = self.node.chain().last().index;
            tracing::info!(?role, index, "the journal's replica has a new role");
        }
    }
}

/// Sends an answer; the caller may be gone.
fn reply<T>(to: Answer<T>, answer: Result<T, ProposeError>) {
    drop(to.send(answer));
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => clock::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
