//! Calls and notices over real connections: between a [`link::Cluster`] and nodes that answer as they are told.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod parts;
mod tls;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use host::clock::Instant;
use link::keys::Security;
use link::process::{Process, Role};
use link::watch::Sign;
use link::{Caller, Cluster, Found};
use meta::ids::PartitionId;
use meta::level::{Level, Levels};
use rpc::group::{FetchGroup, GroupError, GroupReply, GroupRequest};
use rpc::growth::{Growing, Growth, JournalEntry};
use rpc::notice::{Notice, Notices, Told};
use rpc::{Answer, Asked, Call, Control, Error, Given, Leader, Position, Return, Served, Speaker};
use tokio::sync::broadcast;

const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";

/// A level of a later release.
static TWO: Level = Level {
    number: 2,
    ..meta::level::one::LEVEL
};

/// A control node that names another as the leader, or leads itself.
struct Node {
    leader: Mutex<Option<String>>,
    /// It led when requests of groups came, and leads no more when it answers them.
    leads_no_more: AtomicBool,
    /// It leads, and may lead no more.
    is_doubtful: AtomicBool,
    calls: AtomicUsize,
    /// Calls for bounds are not answered; how many wait.
    waiting: Arc<AtomicUsize>,
    told: broadcast::Sender<Told>,
    /// How long ago it has seen the end of the journal, as it says when somebody begins to listen.
    age_millis: AtomicU64,
    /// Who has called.
    spoke: Mutex<Vec<Speaker>>,
    /// How long before each call its client was found to wait.
    awaited: Mutex<Vec<Option<Duration>>>,
    /// The feature level in force there.
    level: AtomicU64,
}

/// Counts a call for as long as it waits.
struct Waits(Arc<AtomicUsize>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[async_trait]
impl Control for Node {
    async fn call_for(&self, call: Call, _: Option<Instant>) -> Result<Answer, Error> {
        self.calls.fetch_add(1, SeqCst);
        if let Call::Bounds(_) = call {
            self.waiting.fetch_add(1, SeqCst);
            let _waits = Waits(Arc::clone(&self.waiting));
            std::future::pending::<()>().await;
        }
        let led_until_now = self.leads_no_more.load(SeqCst);
        if led_until_now && let Call::Group(_) = call {
            let value = Return::Group(GroupReply::Heartbeat(Err(GroupError::NotCoordinator)));
            let at = Position(6);
            return Ok(Answer { at, value });
        }
        if let Some(address) = self.leader.lock().unwrap().clone() {
            let leader = Some(Leader {
                name: "the other".to_owned(),
                address: Some(address),
                claim: 5,
            });
            return Err(Error::NotLeader { leader });
        }
        let (at, value) = (Position(7), Return::Done);
        Ok(Answer { at, value })
    }

    fn notices(&self) -> Notices {
        let told = self.told.subscribe();
        let begin = Told {
            from: Position(10),
            to: Position(10),
            age_millis: self.age_millis.load(SeqCst),
            notices: Vec::new(),
        };
        let told = futures::stream::unfold(told, |mut told| async move {
            Some((told.recv().await.ok()?, told))
        });
        futures::stream::iter([begin]).chain(told).boxed()
    }
}

#[async_trait]
impl Served for Node {
    fn level(&self) -> &'static Level {
        match self.level.load(SeqCst) {
            1 => Levels::KNOWN.first(),
            _ => &TWO,
        }
    }

    fn growth(&self) -> Growing {
        let grown = (8..=10).map(|at| Growth {
            to: Position(at),
            entries: vec![JournalEntry {
                at: Position(at),
                bytes: Bytes::from_static(b"an entry"),
            }],
        });
        // In quiet there is a beat.
        let beat = Growth {
            to: Position(10),
            entries: Vec::new(),
        };
        futures::stream::iter(grown)
            .chain(futures::stream::iter([beat]))
            .chain(futures::stream::pending())
            .boxed()
    }

    async fn serve(&self, call: Call, asked: Asked) -> Given {
        let awaited = asked.awaited_at.map(|at| host::clock::now().since(at));
        self.awaited.lock().unwrap().push(awaited);
        self.spoke.lock().unwrap().push(asked.speaker);
        let outcome = self.call(call).await;
        let by = None;
        Given { outcome, by }
    }

    fn doubted(&self, _: &Call) -> BoxFuture<'static, ()> {
        match self.is_doubtful.load(SeqCst) {
            true => std::future::ready(()).boxed(),
            false => std::future::pending().boxed(),
        }
    }
}

struct Running {
    node: Arc<Node>,
    address: String,
    task: host::task::Task<()>,
}

async fn serve_at(address: SocketAddr, cluster: &str, security: Security) -> Running {
    let node = Arc::new(Node {
        leader: Mutex::default(),
        leads_no_more: AtomicBool::new(false),
        is_doubtful: AtomicBool::new(false),
        calls: AtomicUsize::new(0),
        waiting: Arc::default(),
        told: broadcast::channel(100).0,
        age_millis: AtomicU64::new(0),
        spoke: Mutex::default(),
        awaited: Mutex::default(),
        level: AtomicU64::new(1),
    });
    // One that was stopped is given the time to close.
    let listener = loop {
        match host::net::listen(address).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => tokio::task::yield_now().await,
            listening => break listening.unwrap(),
        }
    };
    let address = listener.local_addr().unwrap().to_string();
    let served: Arc<dyn Served> = node.clone();
    let serving = link::serve(listener, cluster.to_owned(), served, security, 192 << 20);
    let task = host::task::spawn("node", serving);
    Running {
        node,
        address,
        task,
    }
}

async fn serve(cluster: &str) -> Running {
    serve_at(([127, 0, 0, 1], 0).into(), cluster, Security::Plaintext).await
}

fn agent(name: &str) -> Process {
    Process {
        role: Role::Agent,
        name: name.to_owned(),
    }
}

fn cluster(addresses: &[&str]) -> (Cluster, Found) {
    cluster_by(agent("a"), Security::Plaintext, addresses)
}

fn cluster_by(process: Process, security: Security, addresses: &[&str]) -> (Cluster, Found) {
    let caller = Caller {
        cluster_id: CLUSTER.to_owned(),
        process,
        security,
    };
    let (cluster, found) = Cluster::new(&caller, Levels::KNOWN).unwrap();
    let addresses: Vec<String> = addresses
        .iter()
        .map(|&address| address.to_owned())
        .collect();
    found.list(&addresses);
    (cluster, found)
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        host::clock::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_call_is_answered_and_a_redirect_followed_and_remembered() {
    let (one, two) = (serve(CLUSTER).await, serve(CLUSTER).await);
    *one.node.leader.lock().unwrap() = Some(two.address.clone());
    let (cluster, _found) = cluster(&[&one.address]);
    for _ in 0..3 {
        let call = Call::Propose(Box::new(meta::Command::Housekeep));
        assert_eq!(cluster.call(call).await.unwrap().at, Position(7));
    }
    let calls = [&one, &two].map(|node| node.node.calls.load(SeqCst));
    assert_eq!(calls, [1, 3]);
}

#[tokio::test]
async fn a_node_learns_by_its_own_clock_how_long_a_call_was_under_way() {
    let running = serve(CLUSTER).await;
    let (cluster, _found) = cluster(&[&running.address]);
    let housekeep = || Call::Propose(Box::new(meta::Command::Housekeep));
    for seconds in [0, 3] {
        let awaited_at = Instant::from_micros(
            host::clock::now().as_micros() - Duration::from_secs(seconds).as_micros() as u64,
        );
        // The first time the caller does not know the node's clock, and finds out.
        let answered = cluster.call_for(housekeep(), Some(awaited_at)).await;
        assert_eq!(answered.unwrap().at, Position(7));
    }
    cluster.call(housekeep()).await.unwrap();
    let awaited = running.node.awaited.lock().unwrap().clone();
    let [Some(now), Some(before), None] = awaited[..] else {
        unreachable!("{awaited:?}")
    };
    let three = Duration::from_secs(3);
    assert!(now < three && before >= three, "{awaited:?}");
}

#[tokio::test]
async fn a_node_of_a_later_level_answers_an_earlier_release_what_has_one_form_at_all_levels() {
    let running = serve(CLUSTER).await;
    running.node.level.store(2, SeqCst);
    let caller = Caller {
        cluster_id: CLUSTER.to_owned(),
        process: tls::control("c"),
        security: Security::Plaintext,
    };
    let (levels, call) = (Levels::KNOWN, Call::Barrier);
    let address = || running.address.clone();
    let asked = link::ask(address(), &caller, levels, levels.first(), &call).await;
    let refused = matches!(&asked, Err(Error::Refused { reason }) if reason.contains("level 2"));
    assert!(refused, "it is there, and says why not: {asked:?}");
    let asked = link::ask_at_any_level(address(), &caller, levels, &call).await;
    assert_eq!(asked.unwrap().at, Position(7));
    // Somebody who is not of this cluster is nobody.
    let other = serve("AAAAAAAAAAAAAAAAAAAAAA").await;
    for nobody in ["127.0.0.1:1", &*other.address] {
        let asked = link::ask_at_any_level(nobody.to_owned(), &caller, levels, &call).await;
        assert!(matches!(asked, Err(Error::Unavailable { .. })), "{asked:?}");
    }
}

#[tokio::test]
async fn a_request_of_a_group_that_meets_the_end_of_a_lead_is_asked_of_the_next_leader() {
    let (one, two) = (serve(CLUSTER).await, serve(CLUSTER).await);
    one.node.leads_no_more.store(true, SeqCst);
    let (cluster, _found) = cluster(&[&one.address, &two.address]);
    let group = FetchGroup {
        group: "g".to_owned(),
        topics: None,
    };
    let call = Call::Group(GroupRequest::Fetch(vec![group]));
    assert_eq!(cluster.call(call).await.unwrap().at, Position(7));
    assert_eq!(one.node.calls.load(SeqCst), 1);
}

#[tokio::test]
async fn a_node_of_another_cluster_answers_nothing() {
    let stranger = serve("AAAAAAAAAAAAAAAAAAAAAA").await;
    let (cluster, _found) = cluster(&[&stranger.address]);
    let Err(Error::Unavailable { reason }) = cluster.call(Call::Barrier).await else {
        panic!("nobody else is there");
    };
    assert!(reason.contains("agent a belongs to cluster"), "{reason}");
    assert_eq!(stranger.node.calls.load(SeqCst), 0);
}

#[tokio::test]
async fn an_address_that_another_cluster_has_now_keeps_nobody_from_the_own_nodes() {
    let (stranger, own) = (serve("AAAAAAAAAAAAAAAAAAAAAA").await, serve(CLUSTER).await);
    let (cluster, _found) = cluster(&[&stranger.address, &own.address]);
    assert!(cluster.call(Call::Barrier).await.is_ok());
}

#[tokio::test]
async fn a_caller_that_waits_no_longer_ends_the_work_of_the_node() {
    let node = serve(CLUSTER).await;
    let (cluster, _found) = cluster(&[&node.address]);
    let call = cluster.call(Call::Bounds(vec![PartitionId(1)]));
    tokio::select! {
        outcome = call => panic!("nobody answers, yet there is {outcome:?}"),
        () = until(|| node.node.waiting.load(SeqCst) == 1) => {}
    }
    until(|| node.node.waiting.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn a_leader_in_doubt_is_told_from_one_that_answers_before_it_does() {
    let (one, two) = (serve(CLUSTER).await, serve(CLUSTER).await);
    let (cluster, _found) = cluster(&[&one.address, &two.address]);
    one.node.is_doubtful.store(true, SeqCst);
    // It has no answer, and the other does.
    let begun = host::clock::now();
    let answered = cluster.call(Call::Bounds(vec![PartitionId(1)]));
    tokio::select! {
        answer = answered => panic!("{answer:?}"),
        () = until(|| two.node.calls.load(SeqCst) == 1) => {}
    }
    let waited = host::clock::now().since(begun);
    assert!(waited < Duration::from_millis(400), "after {waited:?}");
    // It has one after all.
    assert_eq!(cluster.call(Call::Barrier).await.unwrap().at, Position(7));
}

#[tokio::test]
async fn others_are_looked_for_while_a_node_is_silent() {
    let silent = serve(CLUSTER).await;
    let (cluster, found) = cluster(&[&silent.address]);
    let call = cluster.call(Call::Bounds(vec![PartitionId(1)]));
    tokio::select! {
        () = found.missed() => {}
        answer = call => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn a_node_that_comes_back_is_found_again() {
    let first = serve(CLUSTER).await;
    let (cluster, _found) = cluster(&[&first.address]);
    cluster.call(Call::Barrier).await.unwrap();
    let address = first.address.parse().unwrap();
    drop(first);
    let (outcome, _second) = tokio::join!(cluster.call(Call::Barrier), async {
        host::clock::sleep(Duration::from_millis(100)).await;
        serve_at(address, CLUSTER, Security::Plaintext).await
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[tokio::test]
async fn notices_come_and_what_may_be_missing_is_said() {
    let node = serve(CLUSTER).await;
    let (cluster, _found) = cluster(&[&node.address]);
    let mut notices = cluster.notices();
    let everything = notices.next().await.unwrap();
    assert_eq!(everything.notices, [Notice::Anything], "a new stream");
    let view = |version| vec![Notice::View { version }];
    let tell = |from, to, version| {
        let (from, to) = (Position(from), Position(to));
        let notices = view(version);
        node.node
            .told
            .send(Told {
                from,
                to,
                age_millis: 0,
                notices,
            })
            .unwrap();
    };
    until(|| node.node.told.receiver_count() == 1).await;
    tell(10, 12, 1);
    tell(12, 13, 2);
    let first = notices.next().await.unwrap();
    assert_eq!((first.to, first.notices), (Position(12), view(1)));
    let second = notices.next().await.unwrap();
    assert_eq!((second.from, second.to), (Position(12), Position(13)));
    // An entry is missing.
    tell(14, 15, 3);
    assert_eq!(notices.next().await.unwrap().notices, [Notice::Anything]);
    // The stream breaks, and begins again where nobody knows what came between.
    let address = node.address.parse().unwrap();
    drop(node.task);
    let (told, _again) = tokio::join!(
        notices.next(),
        serve_at(address, CLUSTER, Security::Plaintext)
    );
    assert_eq!(told.unwrap().notices, [Notice::Anything]);
}

#[tokio::test]
async fn a_node_that_may_be_behind_is_left_for_one_that_is_not() {
    let (old, fresh) = (serve(CLUSTER).await, serve(CLUSTER).await);
    let tell = |node: &Running, from, to, age_millis, version| {
        let told = Told {
            from: Position(from),
            to: Position(to),
            age_millis,
            notices: vec![Notice::View { version }],
        };
        node.node.told.send(told).unwrap();
    };
    let (cluster, _found) = cluster(&[&old.address, &fresh.address]);
    let mut notices = cluster.notices();
    assert_eq!(notices.next().await.unwrap().notices, [Notice::Anything]);
    until(|| old.node.told.receiver_count() == 1).await;
    tell(&old, 10, 11, 3_000, 1);
    let still = notices.next().await.unwrap();
    assert_eq!(still.notices, [Notice::View { version: 1 }]);
    tell(&old, 11, 12, 3_001, 2);
    let moved = notices.next().await.unwrap();
    assert_eq!(moved.notices, [Notice::Anything], "another stream");
    tell(&fresh, 10, 11, 0, 3);
    let told = notices.next().await.unwrap();
    assert_eq!(told.notices, [Notice::View { version: 3 }]);

    // Where all are behind, it stays.
    fresh.node.age_millis.store(9_000, SeqCst);
    old.node.age_millis.store(9_000, SeqCst);
    tell(&fresh, 11, 12, 9_000, 4);
    let told = notices.next().await.unwrap();
    assert_eq!(told.notices, [Notice::View { version: 4 }]);
}

#[tokio::test]
async fn who_follows_is_told_how_the_journal_grows() {
    let node = serve(CLUSTER).await;
    let caller = Caller {
        cluster_id: CLUSTER.to_owned(),
        process: tls::control("a follower"),
        security: Security::Plaintext,
    };
    let (signs, mut shown) = tokio::sync::mpsc::unbounded_channel();
    let address = node.address.clone();
    let watching = host::task::spawn("watch", async move {
        let tell = |sign| signs.send(sign).unwrap();
        link::watch::watch(address, &caller, Levels::KNOWN, tell).await;
    });
    for expected in 8..=10 {
        let Some(Sign::Grew(growth)) = shown.recv().await else {
            panic!("the node is there");
        };
        let at = Position(expected);
        assert_eq!((growth.to, growth.entries[0].at), (at, at));
        assert_eq!(growth.entries[0].bytes, "an entry");
    }
    let beat = Growth {
        to: Position(10),
        entries: Vec::new(),
    };
    assert_eq!(shown.recv().await, Some(Sign::Grew(beat)));
    drop(node);
    loop {
        match shown.recv().await {
            Some(Sign::Gone) => break,
            sign => assert!(sign.is_some(), "it goes on watching"),
        }
    }
    drop(watching);
}
