//! An earlier entry is left out, after callers were told of what it did.

use meta::command::RegisterAgent;
use meta::commit::FileReply;
use meta::ids::{AgentId, FileId, Incarnation, ProducerId};
use meta::invariants::check_all;
use meta::places::Fate;
use meta::reply::{Refusal, Reply};
use meta::{Command, State};

use crate::support::{Cluster, GRACE, accepted, agent, create, file, file_id, plain, topic_id};

/// A cluster with a topic and an agent, whose incarnation is 1.
fn begun() -> Cluster {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 2)[0];
    let first = file(id(1, 0), &[(partition, &[plain(1)])]);
    assert_eq!(cluster.register("a", 10), registered(1, 1));
    assert_eq!(*cluster.outcomes(&first), [accepted(0)]);
    cluster
}

fn id(incarnation: u64, number: u64) -> FileId {
    file_id(Incarnation(incarnation), number)
}

fn registered(agent: i32, incarnation: u64) -> Reply {
    Reply::Registered {
        agent: AgentId(agent),
        incarnation: Incarnation(incarnation),
    }
}

/// The same cluster, to which an entry is applied that will be left out.
fn told(cluster: &Cluster) -> Cluster {
    Cluster {
        state: cluster.state.clone(),
        now: cluster.now,
        events: Vec::new(),
    }
}

fn leave_out(cluster: &mut Cluster) {
    cluster.state.leave_out(cluster.now);
    check_all(&cluster.state).expect("it is sound");
}

fn producer(cluster: &mut Cluster) -> ProducerId {
    match cluster.apply(&Command::AllocateProducer { known: None }) {
        Reply::Producer { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_number_that_was_told_is_given_again() {
    let mut cluster = begun();
    let mut gone = told(&cluster);
    let first = producer(&mut gone);
    let partitions = gone.topic("gone", 3);
    assert_eq!(gone.register("b", 1), registered(2, 2));
    leave_out(&mut cluster);
    assert_ne!(producer(&mut cluster), first);
    let others = cluster.topic("other", 3);
    assert!(others.iter().all(|other| !partitions.contains(other)));
    let Reply::Registered { agent, incarnation } = cluster.register("c", 1) else {
        panic!("it is registered");
    };
    assert!(agent > AgentId(2) && incarnation > Incarnation(2));
    assert!(cluster.state.view_version() > gone.state.view_version());
}

#[test]
fn agents_commit_nothing_more_until_they_have_registered_anew() {
    let mut cluster = begun();
    let mut gone = told(&cluster);
    let partition = gone.state.topic("t").expect("a topic").partitions[0];
    let second = file(id(1, 1), &[(partition, &[plain(1)])]);
    assert_eq!(*gone.outcomes(&second), [accepted(1)]);
    assert_eq!(gone.register("b", 1), registered(2, 2));
    leave_out(&mut cluster);
    let third = file(id(1, 2), &[(partition, &[plain(1)])]);
    assert_eq!(cluster.commit(&third), FileReply::Fenced);
    assert_eq!(cluster.skip(id(2, 0)), FileReply::UnknownIncarnation);
    // Clients find it all the while, and it sees that its incarnation is not the last one.
    let own: Vec<_> = cluster.state.agents().cloned().collect();
    assert!(own.len() == 1 && own[0].incarnation > Incarnation(2));
    let Reply::Registered { agent, incarnation } = cluster.register("a", 11) else {
        panic!("it is registered");
    };
    assert!(agent == AgentId(1) && incarnation > own[0].incarnation);
    let again = file(file_id(incarnation, 0), &[(partition, &[plain(1)])]);
    assert_eq!(*cluster.outcomes(&again), [accepted(1)]);
    // What the entry had committed is never part of the log again.
    cluster.pass(GRACE);
    cluster.housekeep();
    assert_eq!(cluster.fate(id(1, 1)), Fate::Dead);
    assert_eq!(cluster.fate(id(1, 0)), Fate::Live);
}

#[test]
fn whoever_repeats_its_registration_has_an_incarnation_of_its_own() {
    let mut cluster = begun();
    leave_out(&mut cluster);
    let Reply::Registered { incarnation, .. } = cluster.register("a", 10) else {
        panic!("it is registered");
    };
    assert!(incarnation > Incarnation(1));
    assert_eq!(cluster.state.incarnation(incarnation), Some((0, false)));
}

#[test]
fn agents_are_told_the_whole_view_whatever_they_know() {
    let mut cluster = begun();
    cluster.topic("deleted", 1);
    let deleted = topic_id("deleted");
    cluster.apply(&Command::DeleteTopic { id: deleted });
    let before = cluster.state.view_version();
    let mut gone = told(&cluster);
    gone.topic("gone", 1);
    leave_out(&mut cluster);
    for known in before..=gone.state.view_version() {
        let seen = cluster.state.view_since(Some(known)).expect("a change");
        assert!(seen.whole && seen.topics.len() == 1, "{seen:?}");
    }
    let version = cluster.state.view_version();
    assert_eq!(cluster.state.view_since(Some(version)), None);
    cluster.topic("new", 1);
    let seen = cluster.state.view_since(Some(version)).expect("a change");
    assert!(!seen.whole && seen.topics.len() == 1, "{seen:?}");
    let repeated = cluster.apply(&create("deleted", 1));
    assert!(matches!(repeated, Reply::TopicRefused(_)), "{repeated:?}");
    let chunks = cluster.state.capture().encode_chunks();
    let restored = State::restore(&chunks).expect("it is a snapshot");
    assert_eq!(restored.digest(), cluster.state.digest());
}

#[test]
fn numbers_end_where_they_end() {
    let mut cluster = begun();
    for _ in 0..40_000 {
        cluster.state.leave_out(cluster.now);
    }
    check_all(&cluster.state).expect("it is sound");
    let full = cluster.apply(&Command::AllocateProducer { known: None });
    let exhausted = |what| Reply::Refused(Refusal::Exhausted { what });
    assert_eq!(full, exhausted("producers"));
    let request: RegisterAgent = agent("b", 1);
    let full = cluster.apply(&Command::RegisterAgent(request));
    assert_eq!(full, exhausted("agents"));
    let full = cluster.apply(&create("other", 1));
    assert!(matches!(full, Reply::TopicRefused(_)), "{full:?}");
    let chunks = cluster.state.capture().encode_chunks();
    State::restore(&chunks).expect("it is a snapshot");
}
