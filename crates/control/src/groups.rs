//! The shell around the coordinator of groups: one task that feeds it requests, outcomes of its
//! proposals and changes, and performs its effects. It decides nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use host::clock::Instant;
use host::task::Task;
use journal::replica::{Handle, Role};
use meta::command::Command;
use meta::group::Groups;
use meta::ids::TopicId;
use meta::reply::Reply;
use meta::state::State;
use rpc::Error;
use rpc::group::{GroupReply, GroupRequest};
use tokio::sync::{mpsc, oneshot};

use crate::coordinator::{Coordinator, Effect, Event, Metadata, ProposalId, Settings, Ticket};
use crate::machine::Machine;
use crate::node::CLUSTER;

/// Requests that may wait for the task to take them.
const QUEUE: usize = 4_096;
/// A timer that never fires: there is none set.
const FAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// How the rest of the node reaches the coordinator.
pub struct Client {
    asked: mpsc::Sender<Asked>,
}

struct Asked {
    request: GroupRequest,
    answer: oneshot::Sender<GroupReply>,
}

impl Client {
    /// Asks the coordinator; the answer may take as long as a rebalance.
    pub async fn request(&self, request: GroupRequest) -> Result<GroupReply, Error> {
        let (answer, answered) = oneshot::channel();
        self.asked
            .try_send(Asked { request, answer })
            .map_err(|_| Error::Busy)?;
        answered.await.map_err(|_| Error::Unknown {
            reason: "the coordinator stopped".to_owned(),
        })
    }
}

/// Starts the coordinator's task. `changed` is what the state machine says of groups.
pub fn start(
    settings: Settings,
    replica: Handle<Machine>,
    changed: mpsc::UnboundedReceiver<meta::group::Event>,
) -> (Client, Task<()>) {
    let (asked, inbox) = mpsc::channel(QUEUE);
    let shell = Shell {
        coordinator: Coordinator::new(settings),
        replica,
        inbox,
        changed,
        waiting: BTreeMap::new(),
        next_ticket: 0,
        timer: None,
        outcomes: FuturesUnordered::new(),
    };
    (Client { asked }, host::task::spawn("groups", shell.run()))
}

struct Shell {
    coordinator: Coordinator,
    replica: Handle<Machine>,
    inbox: mpsc::Receiver<Asked>,
    changed: mpsc::UnboundedReceiver<meta::group::Event>,
    waiting: BTreeMap<Ticket, oneshot::Sender<GroupReply>>,
    next_ticket: u64,
    timer: Option<Instant>,
    outcomes: FuturesUnordered<BoxFuture<'static, Event>>,
}

impl Shell {
    async fn run(mut self) {
        let mut role = self.replica.watch_role();
        let mut leads = false;
        loop {
            let wake = self.timer.map_or(FAR, |at| at.since(host::clock::now()));
            let event = tokio::select! {
                biased;
                changed = role.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let leader = matches!(*role.borrow_and_update(), Role::Leader);
                    if leader == leads {
                        continue;
                    }
                    leads = leader;
                    if leads { Event::BecameLeader } else { Event::LostLeadership }
                }
                Some(event) = self.changed.recv() => Event::Changed { group: event.group },
                Some(event) = self.outcomes.next() => event,
                asked = self.inbox.recv() => match asked {
                    Some(asked) => match self.admit(asked) {
                        Some(event) => event,
                        None => continue,
                    },
                    None => return,
                },
                () = host::clock::sleep(wake) => Event::Timer,
            };
            self.handle(event);
        }
    }

    /// Takes a request in; one that may not be answered from memory now waits for a barrier first.
    fn admit(&mut self, asked: Asked) -> Option<Event> {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.waiting.insert(ticket, asked.answer);
        let request = asked.request;
        let from_memory = matches!(
            request,
            GroupRequest::Heartbeat(_)
                | GroupRequest::Sync(_)
                | GroupRequest::Describe(_)
                | GroupRequest::List(_)
        );
        if !from_memory || self.replica.answers_from_memory() {
            return Some(Event::Request { ticket, request });
        }
        let passed = self.replica.barrier();
        self.outcomes.push(Box::pin(async move {
            // If the barrier fails the node does not lead, and the coordinator will say so.
            drop(passed.await);
            Event::Request { ticket, request }
        }));
        None
    }

    fn handle(&mut self, event: Event) {
        let coordinator = &mut self.coordinator;
        let effects = self.replica.with_state(|machine| {
            coordinator.handle(host::clock::now(), event, &View(machine.state()))
        });
        for effect in effects {
            match effect {
                Effect::Propose { proposal, command } => self.propose(proposal, command),
                Effect::Answer { ticket, reply } => {
                    if let Some(answer) = self.waiting.remove(&ticket) {
                        // An agent that is gone needs no answer.
                        drop(answer.send(reply));
                    }
                }
                Effect::Current { ticket } => {
                    let passed = self.replica.barrier();
                    self.outcomes.push(Box::pin(async move {
                        Event::Barrier {
                            ticket,
                            passed: passed.await.is_ok(),
                        }
                    }));
                }
                Effect::SetTimer { at } => self.timer = Some(at),
            }
        }
    }

    fn propose(&mut self, proposal: ProposalId, command: meta::group::Command) {
        let bytes = Bytes::from(Command::Group(command).encode());
        // Queued here and now: proposals reach the journal in the order of the effects.
        let outcome = self.replica.propose(CLUSTER, bytes);
        self.outcomes.push(Box::pin(async move {
            match outcome.await {
                Ok(Reply::Group(reply)) => Event::Applied { proposal, reply },
                Ok(other) => {
                    tracing::error!(?other, "a group's command got another command's reply");
                    Event::Failed {
                        proposal,
                        ambiguous: true,
                    }
                }
                Err(error) => Event::Failed {
                    proposal,
                    ambiguous: !error.is_definite(),
                },
            }
        }));
    }
}

struct View<'a>(&'a State);

impl Metadata for View<'_> {
    fn groups(&self) -> &Groups {
        self.0.groups()
    }

    fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.0.topic(name).map(|topic| topic.id)
    }

    fn topic_name(&self, id: TopicId) -> Option<&str> {
        self.0.topic_by_id(id).map(|topic| topic.name.as_str())
    }
}
