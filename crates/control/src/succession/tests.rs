//! Three control nodes on one journal: the lead handed over, and nodes that are gone.

use std::sync::Arc;

use journal::node::Role;
use meta::State;
use meta::command::RegisterAgent;
use meta::ids::Incarnation;
use rpc::peer::Follower;
use rpc::{Asked, Control, Position, Return, Served, Speaker};
use store::bucket::Bucket;
use store::buckets::Buckets;
use store::faulty::Faulty;
use store::meter::Meter;

use super::*;
use crate::attendance;
use crate::clocks::Standing;
use crate::lead::Because;
use crate::preferring::NotPreferred;
use crate::presence;
use crate::setting_time::NotSet;
use crate::start::tests::{bucket, settings};
use crate::start::{Settings, Tasks};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A control node of several.
fn one_of_several(name: &str) -> Settings {
    let mut settings = settings(&[], None);
    name.clone_into(&mut settings.identity.name);
    settings.identity.address = format!("{name}:1");
    let claims_as = format!("{name}, process 7");
    settings.journal = match name {
        "a" => journal::node::Settings::alone(claims_as),
        // These take no lead without being told.
        _ => journal::node::Settings {
            takeover_after: Duration::from_secs(600),
            ..journal::node::Settings::one_of_several(claims_as)
        },
    };
    settings
}

/// The call that an agent keeps open.
fn present_call(incarnation: Incarnation) -> Call {
    let version = "0.1.0".to_owned();
    Call::Present {
        incarnation,
        buckets: 1,
        version,
    }
}

struct Cluster {
    nodes: Vec<(Arc<Node>, Tasks)>,
}

impl Cluster {
    /// Nodes that all know each other, the first of which leads.
    async fn start() -> Self {
        Cluster::with(one_of_several).await
    }

    async fn with(settings: impl Fn(&str) -> Settings) -> Self {
        let bucket = bucket();
        let mut cluster = Cluster { nodes: Vec::new() };
        for name in NAMES {
            let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(&bucket);
            let engine = Box::new(journal::object::Object::new(Arc::clone(&shared), 0));
            let started = Node::start(&settings(name), engine, shared);
            cluster.nodes.push(started);
            if cluster.nodes.len() == 1 {
                assert_eq!(cluster.node(0).lead().await, Ok(()));
            } else {
                cluster.register(cluster.nodes.len() - 1).await;
            }
        }
        cluster
    }

    fn node(&self, at: usize) -> &Arc<Node> {
        &self.nodes[at].0
    }

    async fn register(&self, at: usize) {
        let own = self.node(at).registration.clone();
        let register = meta::Command::RegisterControlNode(own);
        let (position, _) = self.node(0).propose(&register).await.expect("it leads");
        self.node(at).replica.look_for(position.0);
        self.node(at).reach_position(position).await.expect("read");
    }

    /// Calls the node at an address; those of `away` do not answer.
    async fn ask(&self, away: &[&str], address: String, call: Call) -> Result<Answer, Error> {
        let names_it = |name: &&str| address == format!("{name}:1");
        let at = NAMES.iter().position(names_it).expect("a node's address");
        if away.contains(&NAMES[at]) {
            let reason = "nobody listens there".to_owned();
            return Err(Error::Unavailable { reason });
        }
        let speaker = Speaker::ControlNode(NAMES[0].to_owned());
        self.node(at).serve(call, Asked::by(speaker)).await.outcome
    }

    async fn hand_over(&self, away: &[&str]) {
        let ask = |address, call| self.ask(away, address, call);
        self.node(0).hand_over(ask).await;
    }
}

#[tokio::test]
async fn the_lead_is_handed_over_to_a_node_that_answers() {
    let cluster = Cluster::start().await;
    cluster.hand_over(&["b"]).await;
    assert!(!cluster.node(0).leads());
    cluster.node(2).reach(&[Role::Leader]).await;
    // Whoever asks the one that led is told who does.
    let told = cluster
        .node(0)
        .serve(Call::Barrier, Asked::by(Speaker::Believed))
        .await
        .outcome;
    let Err(Error::NotLeader {
        leader: Some(leader),
    }) = told
    else {
        panic!("{told:?}")
    };
    assert_eq!(leader.address.as_deref(), Some("c:1"));
    let barrier = cluster.node(2).call(Call::Barrier).await;
    assert_eq!(barrier.map(|answer| answer.value), Ok(Return::Done));
}

#[tokio::test]
async fn a_lead_that_nobody_can_take_is_kept() {
    let cluster = Cluster::start().await;
    cluster.hand_over(&["b", "c"]).await;
    assert!(cluster.node(0).leads());
    // Nor does one that follows give anything away.
    let nobody = |address: String, call: Call| async move { panic!("{address}: {call:?}") };
    cluster.node(1).hand_over(nobody).await;
    assert!(cluster.node(0).leads());
}

/// What another that leads by then would be deposed by.
#[tokio::test]
async fn who_has_lost_the_lead_meanwhile_names_no_successor() {
    let cluster = Cluster::start().await;
    let ask = |address: String, call: Call| {
        let cluster = &cluster;
        async move {
            assert!(!matches!(call, Call::Peer(_)), "{address}: {call:?}");
            if address == "b:1" {
                let claim = cluster.node(0).replica.resign().await.expect("it leads");
                cluster.node(1).replica.leader_has_resigned(claim.0);
                cluster.node(1).reach(&[Role::Leader]).await;
            }
            cluster.ask(&["c"], address, call).await
        }
    };
    cluster.node(0).hand_over(ask).await;
    assert!(cluster.node(1).leads());
}

/// Nodes that fence nobody while a test lasts.
fn attended(name: &str) -> Settings {
    let within = |silence_max| presence::Settings {
        silence_max,
        lost_for: silence_max,
    };
    Settings {
        presence: Some(attendance::Settings {
            agents: within(Duration::from_secs(600)),
            followers: within(Duration::from_secs(600)),
        }),
        ..one_of_several(name)
    }
}

impl Cluster {
    /// Nodes with an agent, of which the first leads.
    async fn with_agent() -> (Self, Incarnation) {
        let cluster = Cluster::with(attended).await;
        let incarnation = crate::commits::tests::registered(cluster.node(0)).await;
        (cluster, incarnation)
    }

    /// Lets the leader look for so long whether agents reach it.
    async fn look(&self, away: &[&str], for_so_long: Duration) {
        let ask = |address, call| self.ask(away, address, call);
        let looking = self.node(0).stand_aside(ask);
        let _never = host::clock::timeout(for_so_long, looking).await;
    }
}

/// For how long a leader that is to keep the lead is watched; it would give it up after two seconds.
const WATCHED_FOR: Duration = Duration::from_millis(2_400);

#[tokio::test]
async fn a_leader_that_no_agent_reaches_gives_up_the_lead_to_one_that_agents_ask() {
    let (cluster, incarnation) = Cluster::with_agent().await;
    let present = present_call(incarnation);
    let calls = async {
        for _ in 0..3 {
            let answer = cluster
                .node(0)
                .serve(present.clone(), Asked::by(Speaker::Believed))
                .await
                .outcome;
            assert_eq!(answer.map(|answer| answer.value), Ok(Return::Done));
        }
    };
    futures::join!(calls, cluster.look(&[], WATCHED_FOR));
    assert!(cluster.node(0).leads(), "an agent reaches it");
    // Agents reach nobody.
    cluster.look(&[], WATCHED_FOR).await;
    assert!(cluster.node(0).leads(), "agents ask nobody else");
    // They reach another.
    let asks = async {
        for _ in 0..20 {
            let away = Asked {
                is_leader_away: true,
                ..Asked::by(Speaker::Believed)
            };
            let told = cluster.node(2).serve(present.clone(), away).await;
            if told.outcome.is_ok() {
                return;
            }
            host::clock::sleep(UNREACHED_CHECK).await;
        }
        panic!("nobody leads whom agents reach");
    };
    futures::join!(asks, cluster.look(&[], WATCHED_FOR));
    assert!(cluster.node(2).leads());
    assert!(!cluster.node(0).leads());
    // Who has taken over knows that it has happened once.
    assert_eq!(cluster.node(2).leads_given_up(), 1);
}

#[tokio::test]
async fn a_leader_that_reaches_nobody_and_that_nobody_reaches_gives_up_the_lead() {
    let (cluster, _) = Cluster::with_agent().await;
    cluster.look(&["b", "c"], WATCHED_FOR).await;
    assert!(!cluster.node(0).leads());
    assert_eq!(cluster.node(0).journal_status().leader, None);
}

fn known(node: &Node) -> Vec<String> {
    let names = |state: &State| {
        state
            .control_nodes()
            .map(|node| node.name.clone())
            .collect()
    };
    node.with_state(names)
}

#[tokio::test]
async fn a_control_node_that_is_not_heard_is_forgotten() {
    let within = |silence_max| presence::Settings {
        silence_max,
        lost_for: silence_max,
    };
    let cluster = Cluster::with(|name| Settings {
        presence: Some(attendance::Settings {
            agents: within(Duration::from_secs(600)),
            followers: within(Duration::from_millis(900)),
        }),
        ..one_of_several(name)
    })
    .await;
    assert_eq!(known(cluster.node(0)), NAMES);
    let nonce = cluster.node(1).registration.nonce;
    let said = Follower {
        nonce,
        version: "0.2.0".to_owned(),
        applied: Position(1),
        current_millis_ago: Some(0),
    };
    let follows = Call::Peer(PeerRequest::Follows(said.clone()));
    while known(cluster.node(0)).len() > 2 {
        let heard = cluster.node(0).call(follows.clone()).await;
        let Ok(Return::Roster(roster)) = heard.map(|answer| answer.value) else {
            panic!("the leader says whom it hears");
        };
        let told: Vec<_> = roster.followers.iter().map(|heard| &heard.said).collect();
        assert_eq!(told, [&said]);
        host::clock::sleep(LOOK_EVERY).await;
    }
    assert_eq!(known(cluster.node(0)), ["a", "b"]);
    let refused = cluster.node(2).call(follows).await;
    assert!(
        matches!(refused, Err(Error::NotLeader { .. })),
        "{refused:?}"
    );
    // It comes back.
    cluster.register(2).await;
    assert_eq!(known(cluster.node(0)), NAMES);
}

/// Some years, as the clocks of machines are off that have lost their battery.
const YEARS_MILLIS: u64 = 100_000_000_000;

impl Cluster {
    /// Lets the first node compare its clock with those of the others, which are so far behind.
    async fn compare(&self, behind_millis: [u64; 2], for_so_long: Duration) {
        let ask = |address: String, call: Call| async move {
            let is_first = address == "b:1";
            let mut answer = self.ask(&[], address, call).await?;
            if let Return::Condition(condition) = &mut answer.value {
                condition.wall_millis -= behind_millis[usize::from(!is_first)];
            }
            Ok(answer)
        };
        let comparing = self.node(0).compare_clocks(ask);
        let _never = host::clock::timeout(for_so_long, comparing).await;
    }
}

#[tokio::test]
async fn a_leader_whose_clock_is_wrong_hands_the_lead_over_to_one_whose_clock_is_not() {
    let cluster = Cluster::start().await;
    let briefly = Duration::from_millis(200);
    cluster.compare([0, 1_000], briefly).await;
    assert_eq!(cluster.node(0).wall_clock().standing, Standing::Right);
    assert!(cluster.node(0).leads());
    cluster.compare([YEARS_MILLIS, 0], briefly).await;
    let found = cluster.node(0).wall_clock();
    assert_eq!(found.standing, Standing::Right, "another is wrong");
    assert!(cluster.node(0).leads());
    let within = Duration::from_secs(3);
    cluster.compare([YEARS_MILLIS, YEARS_MILLIS], within).await;
    let found = cluster.node(0).wall_clock();
    assert_eq!((found.standing, found.others), (Standing::Wrong, 2));
    assert!(found.ahead_millis.abs_diff(YEARS_MILLIS.cast_signed()) < 1_000);
    assert!(!cluster.node(0).leads());
    assert!(cluster.node(1).leads() || cluster.node(2).leads());
}

#[tokio::test]
async fn the_lead_is_not_handed_over_to_a_node_whose_clock_is_wrong() {
    let cluster = Cluster::start().await;
    let briefly = Duration::from_millis(200);
    cluster.compare([YEARS_MILLIS, 0], briefly).await;
    cluster.hand_over(&[]).await;
    assert!(cluster.node(2).leads());
}

#[tokio::test]
async fn the_time_is_set_by_the_leader_alone_and_only_if_its_clock_is_known_to_be_right() {
    let cluster = Cluster::start().await;
    let refused = cluster.node(1).set_time().await;
    assert!(
        matches!(refused, Err(NotSet::NotLeader { .. })),
        "{refused:?}"
    );
    let refused = cluster.node(0).set_time().await;
    assert_eq!(refused, Err(NotSet::NotAhead));
    let ask = |address: String, call: Call| async {
        let mut answer = cluster.ask(&["c"], address, call).await?;
        if let Return::Condition(condition) = &mut answer.value {
            condition.wall_millis -= YEARS_MILLIS;
        }
        Ok(answer)
    };
    let comparing = cluster.node(0).compare_clocks(ask);
    let _never = host::clock::timeout(Duration::from_secs(1), comparing).await;
    assert_eq!(cluster.node(0).wall_clock().standing, Standing::Apart);
    let refused = cluster.node(0).set_time().await;
    assert!(
        matches!(refused, Err(NotSet::Doubtful { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_leader_that_stores_no_snapshots_hands_the_lead_over_to_one_that_can() {
    let cluster = Cluster::start().await;
    let ask = |address, call| cluster.ask(&[], address, call);
    cluster.node(1).cannot_store();
    cluster.node(0).hand_over_to_one_that_can_store(&ask).await;
    assert!(cluster.node(2).leads());
}

#[tokio::test]
async fn a_leader_that_stores_no_snapshots_keeps_the_lead_where_no_other_can() {
    let cluster = Cluster::start().await;
    let ask = |address, call| cluster.ask(&["c"], address, call);
    cluster.node(1).cannot_store();
    cluster.node(0).hand_over_to_one_that_can_store(&ask).await;
    assert!(cluster.node(0).leads());
}

impl Node {
    /// It has led, and stored no snapshot when one was due twice.
    fn cannot_store(&self) {
        let newest = self.journal_status().snapshot_index;
        assert!(self.storing().look(host::clock::now(), true, newest));
    }
}

/// A node in a region of its own.
fn in_a_region(name: &str) -> Settings {
    let mut settings = one_of_several(name);
    settings.identity.region = format!("region-{name}");
    settings
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        host::clock::sleep(LOOK_EVERY).await;
    }
}

#[tokio::test]
async fn the_lead_goes_to_the_region_that_an_operator_prefers_and_back_and_its_reason_is_told() {
    let cluster = Cluster::with(in_a_region).await;
    let counted = Meter::new(bucket());
    let counters = Arc::clone(counted.counters());
    let buckets = Buckets::one(Arc::new(counted), counters);
    let ask = |address, call| cluster.ask(&[], address, call);
    let choosing = NAMES.iter().enumerate();
    let choosing = choosing.map(|(at, _)| cluster.node(at).choose_region(&buckets, ask));
    let looks = |at| {
        let node = cluster.node(at);
        node.commit_latency().is_some() && node.journal_status().confirmed_at.is_some()
    };
    let all_look = || (0..3).all(looks);
    let comparing = async {
        until(all_look).await;
        let comparing = (0..3).map(|at| cluster.node(at).compare_clocks(ask));
        futures::future::join_all(comparing).await
    };
    let preferring = async {
        until(|| cluster.node(0).lead_taken().is_some()).await;
        let first = cluster.node(0).lead_taken().expect("taken");
        assert_eq!(first.because, Because::First);
        // A word is new to those who have looked before it was said, which each has after a few looks of this test.
        until(all_look).await;
        host::clock::sleep(Duration::from_secs(1)).await;
        let nowhere = cluster.node(0).prefer("nowhere").await;
        assert!(
            matches!(nowhere, Err(NotPreferred::Unknown { .. })),
            "{nowhere:?}"
        );
        for (from, to) in [(0, 2), (2, 0)] {
            let region = format!("region-{}", NAMES[to]);
            assert_eq!(cluster.node(from).prefer(&region).await, Ok(()));
            let preferred = Because::Resigned(Reason::Preferred);
            let taken = || cluster.node(to).lead_taken();
            until(|| taken().is_some_and(|taken| taken.because == preferred)).await;
            assert!(cluster.node(to).leads() && !cluster.node(from).leads());
            let from_whom = taken().and_then(|taken| taken.from);
            assert_eq!(from_whom.as_deref(), Some(NAMES[from]));
            let refused = cluster.node(from).prefer(&region).await;
            assert!(
                matches!(refused, Err(NotPreferred::NotLeader { .. })),
                "{refused:?}"
            );
        }
    };
    let work = futures::future::join(futures::future::join_all(choosing), comparing);
    let limit = Duration::from_secs(30);
    tokio::select! {
        _ = work => {}
        done = host::clock::timeout(limit, preferring) => assert!(done.is_ok(), "it takes too long"),
    }
}

/// Clients that look for another agent are not to be told of one that has just been lost.
#[tokio::test]
async fn agents_are_told_at_once_that_another_is_lost() {
    let (cluster, incarnation) = Cluster::with_agent().await;
    let present = |incarnation| {
        let asked = Asked::by(Speaker::Believed);
        cluster.node(0).serve(present_call(incarnation), asked)
    };
    let other = async {
        let call = present(Incarnation(incarnation.0 + 1));
        // Its connection breaks.
        let _lost = host::clock::timeout(Duration::from_millis(20), call).await;
    };
    let began = host::clock::now();
    let (told, ()) = futures::join!(present(incarnation), other);
    assert_eq!(
        told.outcome.map(|answer| answer.value),
        Ok(Return::OneIsLost)
    );
    let waited = host::clock::now().since(began);
    assert!(waited < Duration::from_millis(500), "{waited:?}");
    let quiet = present(incarnation).await;
    assert_eq!(quiet.outcome.map(|answer| answer.value), Ok(Return::Done));
}

/// The registration of an agent by a process.
fn agent(nonce: u128) -> Call {
    Call::Propose(Box::new(meta::Command::RegisterAgent(RegisterAgent {
        nonce,
        name: "agent-1".to_owned(),
        region: "r".to_owned(),
        zone: "z".to_owned(),
        level: 1,
        listeners: meta::endpoint::Endpoint::alone("h", 1),
        neighbour_address: String::new(),
    })))
}

/// It had waited there for its name, which only a node that leads can say to be free, and nobody wanted a leader.
#[tokio::test]
async fn an_agent_that_starts_anew_is_sent_on_by_a_node_that_leads_no_more() {
    let cluster = Cluster::with(attended).await;
    let register = async |nonce| {
        let asked = Asked::by(Speaker::Agent("agent-1".to_owned()));
        let served = cluster.node(0).serve(agent(nonce), asked);
        let given = host::clock::timeout(Duration::from_secs(20), served).await;
        given.expect("an answer").outcome
    };
    assert!(register(1).await.is_ok());
    cluster.node(0).replica.resign().await.expect("it leads");
    let told = register(2).await;
    assert!(matches!(told, Err(Error::NotLeader { .. })), "{told:?}");
}
