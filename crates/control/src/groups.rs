//! The shell around the coordinator of groups: one task that feeds it requests, outcomes of its
//! proposals and changes, and performs its effects. It decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered, StreamExt};
use host::budget::{Budget, Held};
use host::clock::Instant;
use host::task::Task;
use journal::node::{ProposeError, Refusal, Role};
use journal::replica::Handle;
use meta::State;
use meta::command::Command;
use meta::group::Groups;
use meta::ids::TopicId;
use meta::reply::Reply;
use rpc::Error;
use rpc::group::{GroupError, GroupReply, GroupRequest, Heartbeat};
use tokio::sync::{mpsc, oneshot, watch};

use crate::coordinator::{Coordinator, Effect, Event, Metadata, ProposalId, Settings, Ticket};
use crate::machine::{CLUSTER, Machine};

/// Requests that may wait for the task to take them.
const QUEUE: usize = 4_096;
/// Heartbeats of one call that may be in it at one time.
const HEARD_AT_ONCE: usize = 256;
/// Heartbeats that are looked into while the metadata may not change: less than a tenth of a millisecond's worth.
const AT_ONCE: usize = 64;
/// A timer that never fires: there is none set.
const FAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// How the rest of the node reaches the coordinator.
pub(crate) struct Client {
    asked: mpsc::Sender<Asked>,
    handing_over: mpsc::Sender<oneshot::Sender<()>>,
    /// For requests that wait for the task or for the journal: whatever agents count of them is not known here. What
    /// waits for other members alone is counted by `groups.max.bytes`.
    budget: Budget,
    pub(crate) bytes_max: u64,
    pub(crate) awaited_bytes: Arc<AtomicU64>,
}

/// Memory of groups, in bytes.
pub struct GroupsMemory {
    pub bytes: u64,
    /// `groups.max.bytes`.
    pub bytes_max: u64,
    /// Of member ids that are awaited, which have memory of their own.
    pub awaited_bytes: u64,
}

struct Asked {
    request: GroupRequest,
    waiting: Waiting,
}

/// Who is to be answered.
struct Waiting {
    answer: oneshot::Sender<GroupReply>,
    /// Of the request, while it is more than a wish to be answered.
    held: Option<Held>,
}

impl Client {
    /// Asks the coordinator; the answer may take as long as a rebalance.
    pub(crate) async fn request(&self, request: GroupRequest) -> Result<GroupReply, Error> {
        let held = self.budget.try_hold(request.bytes() as u64);
        let held = Some(held.ok_or(Error::Busy)?);
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { answer, held };
        self.asked
            .try_send(Asked { request, waiting })
            .map_err(|_| Error::Busy)?;
        answered.await.map_err(|_| Error::Unknown {
            reason: "the coordinator stopped".to_owned(),
        })
    }
}

impl Client {
    /// Has what the next leader is to know of members put into the journal's queue, before this node takes nothing new.
    pub(crate) async fn hand_over(&self) {
        let (done, is_done) = oneshot::channel();
        if self.handing_over.send(done).await.is_ok() {
            // Without a coordinator there is nothing to know.
            drop(is_done.await);
        }
    }

    /// Tells the coordinator that members are alive, each by itself: what is true of one is not of another, and a member for
    /// whom there is no room just now is no reason to refuse the others.
    pub(crate) async fn heartbeats(&self, members: Vec<Heartbeat>) -> Vec<Result<(), GroupError>> {
        let tell = |member| async move {
            match self.request(GroupRequest::Heartbeat(member)).await {
                Ok(GroupReply::Heartbeat(result)) => result,
                Ok(_) | Err(_) => Err(GroupError::CoordinatorNotAvailable),
            }
        };
        let told = stream::iter(members.into_iter().map(tell));
        told.buffered(HEARD_AT_ONCE).collect().await
    }
}

/// Starts the coordinator's task. `budget` is for requests that wait for it or for the journal; `changed` is what the state
/// machine says of groups.
pub(crate) fn start(
    settings: Settings,
    budget: Budget,
    replica: Handle<Machine>,
    changed: mpsc::UnboundedReceiver<Event>,
) -> (Client, Task<()>) {
    let (client, shell) = shell(settings, budget, replica, changed);
    (client, host::task::spawn("groups", shell.run()))
}

fn shell(
    settings: Settings,
    budget: Budget,
    replica: Handle<Machine>,
    changed: mpsc::UnboundedReceiver<Event>,
) -> (Client, Shell) {
    let (asked, inbox) = mpsc::channel(QUEUE);
    let (handing_over, hands_over) = mpsc::channel(1);
    let bytes_max = settings.bytes_max;
    let awaited_bytes = Arc::new(AtomicU64::new(0));
    let shell = Shell {
        coordinator: Coordinator::new(settings),
        awaited_bytes: Arc::clone(&awaited_bytes),
        replica,
        inbox,
        hands_over,
        told: Vec::new(),
        changed,
        waiting: BTreeMap::new(),
        next_ticket: 0,
        timer: None,
        leads: false,
        outcomes: FuturesUnordered::new(),
    };
    let client = Client {
        asked,
        handing_over,
        budget,
        bytes_max,
        awaited_bytes,
    };
    (client, shell)
}

struct Shell {
    coordinator: Coordinator,
    /// Told to the client after each event.
    awaited_bytes: Arc<AtomicU64>,
    replica: Handle<Machine>,
    inbox: mpsc::Receiver<Asked>,
    /// Who hands the lead over asks for what the next leader is to know.
    hands_over: mpsc::Receiver<oneshot::Sender<()>>,
    /// Who is to be told that it is in the journal's queue.
    told: Vec<oneshot::Sender<()>>,
    changed: mpsc::UnboundedReceiver<Event>,
    waiting: BTreeMap<Ticket, Waiting>,
    next_ticket: u64,
    timer: Option<Instant>,
    leads: bool,
    outcomes: FuturesUnordered<BoxFuture<'static, Event>>,
}

impl Shell {
    async fn run(mut self) {
        let mut roles = self.replica.roles();
        // It may lead already.
        roles.mark_changed();
        while let Some(event) = self.next(&mut roles).await {
            let events = self.more(event);
            self.handle(events).await;
            for done in self.told.drain(..) {
                // It may have been given up.
                let _ = done.send(());
            }
        }
    }

    /// An event with those that follow it at once, as long as they are heartbeats: these come by the hundred, and to look at the
    /// metadata costs as much as one.
    fn more(&mut self, event: Event) -> Vec<Event> {
        let mut events = vec![event];
        while events.len() < AT_ONCE
            && events.last().is_some_and(is_heartbeat)
            && let Ok(asked) = self.inbox.try_recv()
        {
            events.push(self.admit(asked));
        }
        events
    }

    /// Waits for what happens next; `None` once nobody can ask any more.
    async fn next(&mut self, roles: &mut watch::Receiver<Role>) -> Option<Event> {
        loop {
            let wake = self.timer.map_or(FAR, |at| at.since(host::clock::now()));
            let event = tokio::select! {
                biased;
                changed = roles.changed() => {
                    changed.ok()?;
                    let leader = *roles.borrow_and_update() == Role::Leader;
                    if leader == self.leads {
                        continue;
                    }
                    self.leads = leader;
                    if leader { Event::BecameLeader } else { Event::LostLeadership }
                }
                Some(event) = self.changed.recv() => event,
                Some(event) = self.outcomes.next() => event,
                Some(done) = self.hands_over.recv() => {
                    self.told.push(done);
                    Event::HandsOver
                }
                asked = self.inbox.recv() => self.admit(asked?),
                () = host::clock::sleep(wake) => {
                    // The coordinator sets another one only if something is due.
                    self.timer = None;
                    Event::Timer
                }
            };
            return Some(event);
        }
    }

    fn admit(&mut self, asked: Asked) -> Event {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.waiting.insert(ticket, asked.waiting);
        let current = self.replica.leading_until().is_some();
        Event::Request {
            ticket,
            request: asked.request,
            current,
        }
    }

    async fn handle(&mut self, events: Vec<Event>) {
        let now = host::clock::now();
        let (coordinator, leads, replica) = (&mut self.coordinator, &mut self.leads, &self.replica);
        let effects = replica.with_state(|machine| {
            let view = View(machine.state());
            let mut effects = Vec::new();
            // The role may not say yet that nobody can answer from this state.
            let is_void = replica.is_void();
            if is_void && std::mem::take(leads) {
                effects = coordinator.handle(now, Event::LostLeadership, &view);
            }
            for event in events {
                if !(is_void && event == Event::BecameLeader) {
                    effects.extend(coordinator.handle(now, event, &view));
                }
            }
            effects
        });
        let awaited = self.coordinator.awaited_bytes();
        self.awaited_bytes.store(awaited, Relaxed);
        for effect in effects {
            match effect {
                Effect::Propose { proposal, command } => self.propose(proposal, command).await,
                Effect::Answer { ticket, reply } => {
                    if let Some(waiting) = self.waiting.remove(&ticket) {
                        // An agent that is gone needs no answer.
                        drop(waiting.answer.send(reply));
                    }
                }
                Effect::Parked { ticket } => {
                    if let Some(waiting) = self.waiting.get_mut(&ticket) {
                        waiting.held = None;
                    }
                }
                Effect::Current { ticket } => {
                    let replica = self.replica.clone();
                    self.outcomes.push(Box::pin(async move {
                        let passed = replica.barrier().await.is_ok();
                        Event::Barrier { ticket, passed }
                    }));
                }
                Effect::SetTimer { at } => self.timer = Some(at),
            }
        }
    }

    async fn propose(&mut self, proposal: ProposalId, command: meta::group::Command) {
        let group = command.group.clone();
        let command = Command::Group(command);
        let level = self.replica.with_state(|machine| machine.state().level());
        let written = command.encode(level);
        let replica = self.replica.clone();
        let mut outcome: BoxFuture<'static, Event> = Box::pin(async move {
            let failed = |ambiguous| Event::Failed {
                proposal,
                ambiguous,
            };
            let bytes = match written {
                Ok(bytes) => Bytes::from(bytes),
                Err(too_new) => {
                    tracing::error!(group, %too_new, "a group's command cannot be written");
                    return failed(false);
                }
            };
            match replica.propose(CLUSTER, bytes).await {
                Ok((_, Reply::Group(reply))) => Event::Applied { proposal, reply },
                Ok((_, other)) => {
                    tracing::error!(?other, "a group's command got another command's reply");
                    failed(true)
                }
                Err(ProposeError::Definite(Refusal::TooLarge { bytes, max })) => {
                    // Not more lines than a client can send requests of this size.
                    tracing::warn!(
                        group,
                        bytes,
                        journal.entry.max.bytes = max,
                        "what a client asks of a group is refused: it is larger than \
                         journal.entry.max.bytes, which has to be raised, or the group is too large"
                    );
                    Event::TooLarge { proposal }
                }
                Err(ProposeError::Definite(_)) => failed(false),
                Err(ProposeError::Unknown(_)) => failed(true),
            }
        });
        // The first poll puts the command into the journal's queue: proposals get there in the
        // order of the effects.
        match futures::poll!(&mut outcome) {
            Poll::Ready(event) => self.outcomes.push(Box::pin(std::future::ready(event))),
            Poll::Pending => self.outcomes.push(outcome),
        }
    }
}

fn is_heartbeat(event: &Event) -> bool {
    matches!(
        event,
        Event::Request {
            request: GroupRequest::Heartbeat(_),
            ..
        }
    )
}

struct View<'a>(&'a State);

impl Metadata for View<'_> {
    fn groups(&self) -> &Groups {
        self.0.groups()
    }

    fn ticks_millis(&self) -> u64 {
        self.0.ticks_millis()
    }

    fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.0.topic(name).map(|topic| topic.id)
    }

    fn topic_name(&self, id: TopicId) -> Option<&str> {
        self.0.topic_by_id(id).map(|topic| topic.name.as_str())
    }
}

#[cfg(test)]
mod tests;
