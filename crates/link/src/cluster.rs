//! All control nodes of a cluster, as one: calls go to whoever can answer them, notices come from one of them at a time. It
//! decides nothing about whom to ask; [`crate::attempt`] does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use host::backoff::{Backoff, Pauses};
use host::clock::Instant;
use host::latest::Latest;
use host::trial::leaves_out;
use hyper::header::{HeaderMap, InvalidHeaderValue};
use meta::command::Command;
use meta::level::{Level, Levels};
use rpc::call::PRESENT_HELD_FOR;
use rpc::group::GroupRequest;
use rpc::notice::{Notice, Notices, Told};
use rpc::{Answer, Call, Control, Error, LedBy, Position, encoding};
use tokio::sync::Notify;

use crate::ask::answer;
use crate::attempt::{self, ALL_AFTER, Attempt, Effect, Event};
use crate::caller::Caller;
use crate::connection::{Connection, Failure, Manner};
use crate::directory::{Directory, NodeId};
use crate::keys::Security;
use crate::stream::{SILENCE, Stream};

/// How long a leader is sought for a call before its caller is told that there is none.
const SEEK_FOR: Duration = Duration::from_secs(3);
/// How long the journal may take for an entry, and some more.
const ENTRY_LIMIT: Duration = Duration::from_secs(25);
/// How long a read may take.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// How much longer than it is held the answer to an agent that says that it is there may take.
const PRESENT_GRACE: Duration = Duration::from_secs(1);
/// A node that has not seen the end of the journal for longer is left for one that has, if there is one.
const AGE_MAX: Duration = Duration::from_secs(3);
/// How often one is looked for.
const SEEK_FRESHER_EVERY: Duration = Duration::from_secs(2);
/// How long a node may take to say who leads, or that it is there.
const WHO_LEADS_LIMIT: Duration = Duration::from_secs(1);
/// The pauses before another node is asked for notices.
const FOLLOW: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));

/// The control nodes of a cluster.
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    headers: HeaderMap,
    security: Security,
    levels: Levels,
    /// The highest level that a node has answered for.
    level: AtomicU32,
    known: Mutex<Known>,
    missed: Notify,
    /// The node that leads, as far as calls have found out: what one learns, all that wait know.
    leader: Latest<Led>,
    /// The highest position that any node has told of: no later answer knows less.
    seen: AtomicU64,
}

#[derive(Default)]
struct Known {
    directory: Directory,
    connections: BTreeMap<NodeId, Arc<Connection>>,
}

/// Tells a [`Cluster`] where control nodes are.
#[derive(Clone)]
pub struct Found {
    inner: Arc<Inner>,
}

impl Found {
    pub fn list(&self, addresses: &[String]) {
        let mut known = self.inner.known();
        let Known {
            directory,
            connections,
        } = &mut *known;
        directory.list(addresses);
        // Nodes come and go, and nobody needs those that are gone.
        connections.retain(|node, _| directory.is_asked(*node));
    }

    /// Waits until a call reaches no control node, or has no answer for a while, so that it is worth looking for others.
    pub async fn missed(&self) {
        self.inner.missed.notified().await;
    }
}

impl Cluster {
    /// `caller` is told to the nodes; `levels` are those that it knows. Where the nodes are is to be told by [`Found`].
    pub fn new(caller: &Caller, levels: Levels) -> Result<(Cluster, Found), InvalidHeaderValue> {
        let inner = Arc::new(Inner {
            headers: caller.headers(levels.newest().number)?,
            security: caller.security.clone(),
            levels,
            level: AtomicU32::new(levels.first().number),
            known: Mutex::default(),
            missed: Notify::new(),
            leader: Latest::default(),
            seen: AtomicU64::new(0),
        });
        let found = Found {
            inner: Arc::clone(&inner),
        };
        Ok((Cluster { inner }, found))
    }
}

#[async_trait]
impl Control for Cluster {
    async fn call_for(&self, call: Call, awaited_at: Option<Instant>) -> Result<Answer, Error> {
        self.inner.call(call, awaited_at).await
    }

    fn notices(&self) -> Notices {
        let following = Following {
            inner: Arc::clone(&self.inner),
            stream: None,
            to: Position::default(),
            is_silent: false,
            sought_at: None,
            pauses: FOLLOW.start(),
        };
        futures::stream::unfold(following, |mut following| async move {
            let told = following.next().await;
            Some((told, following))
        })
        .boxed()
    }
}

/// How a call may be asked. What needs the leader is what must be current, and what is appended.
fn manner(call: &Call) -> attempt::Manner {
    let of_leader = attempt::Manner {
        needs_leader: true,
        shows_leader: true,
        may_repeat: true,
        all_after: Some(ALL_AFTER),
        seek_for: SEEK_FOR,
        limit: Some(ENTRY_LIMIT),
    };
    match call {
        Call::View { .. }
        | Call::Locate { .. }
        | Call::FindTime { .. }
        | Call::Short { .. }
        | Call::Stored(_) => attempt::Manner {
            needs_leader: false,
            shows_leader: false,
            limit: Some(READ_LIMIT),
            ..of_leader
        },
        Call::Group(GroupRequest::Join(_) | GroupRequest::Sync { .. }) => attempt::Manner {
            all_after: None,
            limit: None,
            ..of_leader
        },
        // A leader that has not answered by then is asked no longer alone.
        Call::Present { .. } => attempt::Manner {
            all_after: Some(PRESENT_HELD_FOR + PRESENT_GRACE),
            ..of_leader
        },
        Call::Peer(_) => attempt::Manner {
            all_after: None,
            ..of_leader
        },
        // The leader may have to find out first whether another process of the name is there.
        Call::Propose(command) if matches!(**command, Command::RegisterAgent(_)) => {
            attempt::Manner {
                all_after: None,
                ..of_leader
            }
        }
        // A repeat might overwrite what was committed since.
        Call::Group(GroupRequest::Commit(_)) => attempt::Manner {
            may_repeat: false,
            ..of_leader
        },
        Call::Check(_)
        | Call::Barrier
        | Call::Bounds(_)
        | Call::Collectable { .. }
        | Call::Fates(_) => attempt::Manner {
            shows_leader: false,
            ..of_leader
        },
        Call::Propose(_) | Call::Group(_) | Call::Heartbeats(_) | Call::WhoLeads => of_leader,
    }
}

impl Inner {
    async fn call(
        self: &Arc<Self>,
        mut call: Call,
        awaited_at: Option<Instant>,
    ) -> Result<Answer, Error> {
        self.look_no_further_back(&mut call);
        let message = encoding::encode_call(self.level(), &call);
        let message = Bytes::from(message.map_err(|too_new| Error::Refused {
            reason: too_new.to_string(),
        })?);
        let begun = host::clock::now();
        let manner = manner(&call);
        let limit = manner.limit;
        let mut attempt = Attempt::new(manner, begun);
        let mut asked = FuturesUnordered::new();
        let mut led = self.leader.get();
        let mut event = Event::Begun;
        loop {
            if event == Event::Timer {
                // The node that was asked may be gone, and others be there that are not known yet.
                self.missed.notify_one();
            }
            let mut effects = Vec::new();
            let now = host::clock::now();
            self.handle(&mut attempt, now, event, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Ask {
                        node,
                        is_leader_away,
                        relays,
                    } => {
                        let manner = Manner {
                            is_leader_away,
                            relays,
                            within: limit.map(|limit| (begun + limit).since(now)),
                            awaited_at,
                            ..Manner::default()
                        };
                        asked.push(self.ask(node, message.clone(), manner).boxed());
                    }
                    Effect::AskWhoLeads(node) => asked.push(self.ask_who_leads(node).boxed()),
                    Effect::Try(node) => self.try_again(node),
                    Effect::Done(outcome) => {
                        self.note(&outcome);
                        return outcome;
                    }
                }
            }
            let deadline = attempt.deadline();
            event = tokio::select! {
                biased;
                Some(heard) = asked.next(), if !asked.is_empty() => match heard {
                    Heard::Event(event) => event,
                    Heard::Doubt(node, answer) => {
                        asked.push(answer.map(Heard::Event).boxed());
                        Event::Doubted(node)
                    }
                },
                (now, node) = found(&self.leader, led), if attempt.seeks_leader() => {
                    led = now;
                    Event::LeaderFound(node)
                }
                () = until(deadline) => Event::Timer,
            };
        }
    }

    fn handle(&self, attempt: &mut Attempt, now: Instant, event: Event, out: &mut Vec<Effect>) {
        let mut known = self.known();
        attempt.handle(now, event, &mut known.directory, out);
        let by = known.directory.leader();
        let led = self.leader.get();
        if led.by != by {
            let changes = led.changes + 1;
            self.leader.set(Led { changes, by });
        }
    }

    /// What is read later knows at least what was seen before, whichever node is asked.
    fn look_no_further_back(&self, call: &mut Call) {
        if let Call::View { at, .. } | Call::Locate { at, .. } | Call::FindTime { at, .. } = call {
            *at = (*at).max(Position(self.seen.load(Relaxed)));
        }
    }

    fn note(&self, outcome: &Result<Answer, Error>) {
        match outcome {
            Ok(answer) => {
                self.seen.fetch_max(answer.at.0, Relaxed);
            }
            Err(Error::Unavailable { .. } | Error::Unknown { .. }) => self.missed.notify_one(),
            Err(_) => {}
        }
    }

    async fn ask(&self, node: NodeId, message: Bytes, manner: Manner<'_>) -> Heard<'_> {
        let connection = self.connection(node);
        let begun = match connection.call(message, manner).await {
            Ok(begun) => begun,
            Err(Failure::Broken(why)) => return Heard::Event(Event::Broken(node, why)),
            Err(failure) => return Heard::Event(Event::NotSent(node, failure.why())),
        };
        self.level.fetch_max(begun.level, Relaxed);
        let is_doubtful = begun.is_doubtful;
        let answer = async move {
            let by = begun.by.clone();
            match begun.end().await {
                Ok(bytes) => answered(node, bytes, by),
                Err(failure) => Event::Broken(node, failure.why()),
            }
        };
        match is_doubtful {
            true => Heard::Doubt(node, answer.boxed()),
            false => Heard::Event(answer.await),
        }
    }

    /// Asks a node who leads, which says by that that somebody wants a leader.
    async fn ask_who_leads(&self, node: NodeId) -> Heard<'_> {
        let connection = self.connection(node);
        let manner = Manner {
            is_leader_away: true,
            within: Some(WHO_LEADS_LIMIT),
            ..Manner::default()
        };
        let asked = self.ask_one(&connection, &Call::WhoLeads, manner);
        let named = host::clock::timeout(WHO_LEADS_LIMIT, asked).await;
        let named = named.unwrap_or_else(|_| {
            let reason = "it does not answer".to_owned();
            Err(Error::Unknown { reason })
        });
        Heard::Event(Event::Named(node, named))
    }

    async fn ask_one(
        &self,
        connection: &Connection,
        call: &Call,
        manner: Manner<'_>,
    ) -> Result<Answer, Error> {
        let message = encoding::encode_call(self.level(), call);
        let message = message.map_err(|too_new| Error::Refused {
            reason: too_new.to_string(),
        })?;
        answer(connection, Bytes::from(message), manner).await
    }

    /// Looks whether a node answers again.
    fn try_again(self: &Arc<Self>, node: NodeId) {
        let inner = Arc::clone(self);
        host::task::spawn_detached("leader trial", async move {
            let connection = inner.connection(node);
            let (wanted, at) = (Vec::new(), Position::default());
            let is_there = Call::Locate { wanted, at };
            let asked = inner.ask_one(&connection, &is_there, Manner::default());
            let answered = host::clock::timeout(WHO_LEADS_LIMIT, asked).await;
            if matches!(answered, Ok(Ok(_))) {
                let now = host::clock::now();
                inner.known().directory.answered(node, now);
            }
        });
    }

    fn connection(&self, node: NodeId) -> Arc<Connection> {
        let mut known = self.known();
        let Known {
            directory,
            connections,
        } = &mut *known;
        let connection = connections.entry(node).or_insert_with(|| {
            let address = directory.address(node).to_owned();
            let (headers, security) = (self.headers.clone(), self.security.clone());
            Arc::new(Connection::new(address, headers, security))
        });
        Arc::clone(connection)
    }

    /// The level for which calls are written: what nodes have answered for, as far as this build knows it.
    fn level(&self) -> &'static Level {
        let level = self.level.load(Relaxed).min(self.levels.newest().number);
        self.levels.find(level).unwrap_or(self.levels.first())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the node that tells may be behind.
fn is_old(told: &Told) -> bool {
    !host::trial::leaves_out("old-notices-are-left")
        && Duration::from_millis(told.age_millis) > AGE_MAX
}

/// What is heard of a node that was asked.
enum Heard<'a> {
    Event(Event),
    /// It may lead no more; the answer may still come.
    Doubt(NodeId, BoxFuture<'a, Event>),
}

/// The answer of a node, as the bytes have it.
fn answered(node: NodeId, bytes: Bytes, by: Option<LedBy>) -> Event {
    match encoding::decode_answer(bytes) {
        // Its coordinator ended with its lead. The client's coordinator is the agent, which has not moved.
        Ok(Ok(Answer { value, .. })) if value.is_of_no_coordinator() => {
            Event::Answered(node, Err(Error::NotLeader { leader: None }))
        }
        Ok(outcome) => match by {
            Some(by) => Event::Relayed(node, by, outcome),
            None => Event::Answered(node, outcome),
        },
        Err(malformed) => Event::Broken(node, format!("an answer that is none: {malformed}")),
    }
}

/// Who is known to lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Led {
    /// How often that has changed.
    changes: u64,
    by: Option<NodeId>,
}

/// Waits until a node is known to lead, by a later change than that to `known`.
async fn found(leader: &Latest<Led>, known: Led) -> (Led, NodeId) {
    loop {
        let is_later = |led: &Led| led.changes > known.changes && led.by.is_some();
        let led = leader.wait_for(is_later).await;
        if let Some(node) = led.by {
            return (led, node);
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => host::clock::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Follows the notices of one node after the other.
struct Following {
    inner: Arc<Inner>,
    stream: Option<Open>,
    /// What was told last.
    to: Position,
    /// No node has told anything for a while, and that was said.
    is_silent: bool,
    /// When a node that knows more was last looked for.
    sought_at: Option<Instant>,
    pauses: Pauses,
}

struct Open {
    node: NodeId,
    stream: Stream<Told>,
    /// Where the next message begins; unknown before the first.
    to: Option<Position>,
}

impl Following {
    async fn next(&mut self) -> Told {
        loop {
            let Some(open) = &mut self.stream else {
                let opened = host::clock::timeout(SILENCE, self.open()).await;
                if opened.is_err() && !std::mem::replace(&mut self.is_silent, true) {
                    return self.anything(self.to);
                }
                continue;
            };
            match open.stream.next().await {
                Ok(told) => {
                    self.pauses = FOLLOW.start();
                    self.is_silent = false;
                    let node = open.node;
                    if is_old(&told)
                        && let Some((fresher, begin)) = self.fresher_than(node).await
                    {
                        self.stream = Some(fresher);
                        return self.anything(begin.to);
                    }
                    let Some(open) = &mut self.stream else {
                        continue;
                    };
                    // What was told before a stream began is missing.
                    let joins = open.to.replace(told.to) == Some(told.from);
                    return match joins || leaves_out("the-tail-joins") {
                        true => self.pass_on(told),
                        false => self.anything(told.to),
                    };
                }
                Err(why) => {
                    tracing::debug!(%why, "the notices of a control node ended");
                    let node = open.node;
                    self.inner
                        .known()
                        .directory
                        .failed(node, host::clock::now());
                    self.stream = None;
                }
            }
        }
    }

    /// Passes on what joins what was passed on before.
    fn pass_on(&mut self, told: Told) -> Told {
        let from = std::mem::replace(&mut self.to, told.to);
        self.inner.seen.fetch_max(told.to.0, Relaxed);
        Told { from, ..told }
    }

    /// Says that everything may have changed up to here, from where on all will be told.
    fn anything(&mut self, to: Position) -> Told {
        self.pass_on(Told {
            from: to,
            to,
            age_millis: 0,
            notices: vec![Notice::Anything],
        })
    }

    /// Asks a node to tell.
    async fn open_at(&self, node: NodeId) -> Option<Open> {
        let connection = self.inner.connection(node);
        let opened = host::clock::timeout(SILENCE, connection.notices()).await;
        if let Ok(Ok(body)) = opened {
            return Some(Open {
                node,
                stream: Stream::of(body, encoding::decode_told),
                to: None,
            });
        }
        self.inner
            .known()
            .directory
            .failed(node, host::clock::now());
        None
    }

    /// Another node that has seen the end of the journal lately, and its first message. It is asked for reads as well then.
    async fn fresher_than(&mut self, node: NodeId) -> Option<(Open, Told)> {
        let now = host::clock::now();
        let is_due = |at| now.since(at) >= SEEK_FRESHER_EVERY;
        if !self.sought_at.is_none_or(is_due) {
            return None;
        }
        self.sought_at = Some(now);
        let order = self.inner.known().directory.order(true, now);
        for other in order.into_iter().filter(|other| *other != node) {
            let Some(mut open) = self.open_at(other).await else {
                continue;
            };
            if let Ok(begin) = open.stream.next().await
                && !is_old(&begin)
            {
                open.to = Some(begin.to);
                self.inner.known().directory.failed(node, now);
                return Some((open, begin));
            }
        }
        None
    }

    /// Finds a node that tells, however long it takes; the one that leads if it is known, since it is the first to know.
    async fn open(&mut self) {
        loop {
            let order = {
                let known = self.inner.known();
                known.directory.order(true, host::clock::now())
            };
            for node in order {
                self.stream = self.open_at(node).await;
                if self.stream.is_some() {
                    return;
                }
            }
            self.inner.missed.notify_one();
            self.pauses.pause().await;
        }
    }
}
