//! Agents, incarnations, control nodes, features, producer ids.

use std::collections::BTreeMap;

use meta::Command;
use meta::commit::FileReply;
use meta::endpoint::{Endpoint, PLAINTEXT};
use meta::group::{self, CommitOffsets, OffsetEntry};
use meta::ids::{AgentId, Incarnation, ProducerId};
use meta::places::Fate;
use meta::reply::Refusal;
use meta::reply::{Event, Reply};

use crate::support::{
    Cluster, GRACE, LATER, accepted, agent, control_node, file, file_id, plain, three_buckets,
    topic_id,
};

#[test]
fn a_new_run_fences_the_earlier_one_and_keeps_the_node_id() {
    let mut cluster = Cluster::new();
    let first = Reply::Registered {
        agent: AgentId(1),
        incarnation: Incarnation(1),
    };
    assert_eq!(cluster.register("a", 10), first);
    assert_eq!(cluster.events, [Event::AgentsChanged]);
    assert_eq!(
        cluster.register("a", 10),
        first,
        "a repeat gets the first answer"
    );
    assert_eq!(cluster.events, []);
    let other = Reply::Registered {
        agent: AgentId(2),
        incarnation: Incarnation(2),
    };
    assert_eq!(cluster.register("b", 10), other);
    let again = Reply::Registered {
        agent: AgentId(1),
        incarnation: Incarnation(3),
    };
    assert_eq!(cluster.register("a", 11), again);
    assert_eq!(cluster.state.incarnation(Incarnation(1)), Some((0, true)));
    assert_eq!(cluster.skip(file_id(Incarnation(1), 0)), FileReply::Fenced);
    assert_eq!(cluster.skip(file_id(Incarnation(3), 0)), FileReply::Skipped);
    let names: Vec<_> = cluster
        .state
        .agents()
        .map(|agent| agent.name.clone())
        .collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_fenced_agent_is_gone_until_it_starts_again() {
    let mut cluster = Cluster::new();
    let incarnation = cluster.agent("a", 1);
    let former = |cluster: &Cluster| -> Vec<_> {
        let former = cluster.state.former_agents();
        former
            .map(|(agent, ticks)| (agent.name.clone(), ticks))
            .collect()
    };
    assert_eq!(former(&cluster), []);
    cluster.pass(7);
    assert_eq!(
        cluster.apply(&Command::FenceAgent { incarnation }),
        Reply::Done
    );
    let fenced_ticks = cluster.state.stamp().ticks_millis;
    assert_eq!(former(&cluster), [("a".to_owned(), fenced_ticks)]);
    assert_eq!(cluster.state.agents().count(), 0);
    assert_eq!(cluster.register("a", 1), Reply::Refused(Refusal::Fenced));
    assert_ne!(cluster.agent("a", 2), incarnation);
    assert_eq!(cluster.state.agents().count(), 1);
    assert_eq!(former(&cluster), []);
    let nobody = Command::FenceAgent {
        incarnation: Incarnation(99),
    };
    assert_eq!(
        cluster.apply(&nobody),
        Reply::Refused(Refusal::UnknownIncarnation)
    );
}

#[test]
fn offsets_that_a_fenced_run_passes_on_late_do_not_replace_later_ones() {
    let mut cluster = Cluster::new();
    cluster.topic("t", 1);
    let (first, other) = (cluster.agent("a", 1), cluster.agent("b", 1));
    let commit = |by, offset| {
        let offset = OffsetEntry {
            topic: topic_id("t"),
            partition: 0,
            offset,
            leader_epoch: -1,
            metadata: String::new(),
        };
        let commit = CommitOffsets {
            by: Some(by),
            member: String::new(),
            instance: None,
            generation: -1,
            offsets: vec![offset],
        };
        let command = group::Command {
            group: "g".to_owned(),
            action: group::Action::Commit(commit),
        };
        Command::Group(command)
    };
    let reply = |result| Reply::Group(group::Reply::Commit(result));
    let done = reply(Ok(vec![Ok(())]));
    let refused = reply(Err(group::Refusal::AgentFenced));
    assert_eq!(cluster.apply(&commit(first, 100)), done);
    assert_eq!(cluster.apply(&commit(other, 120)), done);
    let nobody = commit(Incarnation(99), 100);
    assert_eq!(cluster.apply(&nobody), refused);
    cluster.apply(&Command::FenceAgent { incarnation: first });
    assert_eq!(cluster.apply(&commit(first, 100)), refused);
    let committed = cluster.state.groups().get("g").expect("it is there");
    let kept = committed.offsets().get(topic_id("t"), 0);
    assert_eq!(kept.map(|kept| kept.offset), Some(120));
}

#[test]
fn an_agent_that_drains_is_seen_to_until_it_starts_again() {
    let mut cluster = Cluster::new();
    let incarnation = cluster.agent("a", 1);
    let version = cluster.state.view_version();
    let drains = |cluster: &Cluster| {
        let mut agents = cluster.state.agents();
        agents.next().map(|agent| agent.drains)
    };
    assert_eq!(drains(&cluster), Some(false));
    let drain = Command::DrainAgent { incarnation };
    assert_eq!(cluster.apply(&drain), Reply::Done);
    assert_eq!(cluster.events, [Event::AgentsChanged]);
    assert!(cluster.state.view_version() > version);
    assert_eq!(drains(&cluster), Some(true));
    assert_eq!(cluster.apply(&drain), Reply::Done);
    assert_eq!(cluster.events, [], "it was known");
    // Its files still count.
    assert_eq!(cluster.skip(file_id(incarnation, 0)), FileReply::Skipped);
    assert_eq!(cluster.register("a", 1), {
        let agent = AgentId(1);
        Reply::Registered { agent, incarnation }
    });
    assert_eq!(drains(&cluster), Some(true), "the same run");
    let again = cluster.agent("a", 2);
    assert_eq!(drains(&cluster), Some(false), "another run");
    assert_eq!(
        cluster.apply(&drain),
        Reply::Refused(Refusal::UnknownIncarnation),
        "the earlier run has ended"
    );
    assert_ne!(again, incarnation);
    assert_eq!(drains(&cluster), Some(false));
}

#[test]
fn an_agent_that_is_cut_off_is_seen_to_until_it_is_not_or_starts_again() {
    let mut cluster = Cluster::new();
    let incarnation = cluster.agent("a", 1);
    let is_cut_off = |cluster: &Cluster| {
        let mut agents = cluster.state.agents();
        agents.next().map(|agent| agent.cut_off)
    };
    let note = |cut_off| Command::SetAgentCutOff {
        incarnation,
        cut_off,
    };
    assert_eq!(cluster.apply(&note(false)), Reply::Done);
    assert_eq!(cluster.events, [], "it was known");
    for cut_off in [true, false, true] {
        let version = cluster.state.view_version();
        assert_eq!(cluster.apply(&note(cut_off)), Reply::Done);
        assert_eq!(cluster.events, [Event::AgentsChanged]);
        assert!(cluster.state.view_version() > version);
        assert_eq!(is_cut_off(&cluster), Some(cut_off));
    }
    // Its files still count.
    assert_eq!(cluster.skip(file_id(incarnation, 0)), FileReply::Skipped);
    assert_ne!(cluster.agent("a", 2), incarnation);
    assert_eq!(is_cut_off(&cluster), Some(false), "another run");
    let refused = Reply::Refused(Refusal::UnknownIncarnation);
    assert_eq!(cluster.apply(&note(true)), refused);
    assert_eq!(is_cut_off(&cluster), Some(false));
}

#[test]
fn registrations_are_checked() {
    let mut cluster = Cluster::new();
    let plaintext = agent("a", 1).listeners[PLAINTEXT].clone();
    for broken in [
        meta::command::RegisterAgent {
            name: String::new(),
            ..agent("a", 1)
        },
        meta::command::RegisterAgent {
            listeners: Endpoint::alone("", 1),
            ..agent("a", 1)
        },
        meta::command::RegisterAgent {
            listeners: [(String::new(), plaintext.clone())].into(),
            ..agent("a", 1)
        },
        meta::command::RegisterAgent {
            listeners: BTreeMap::new(),
            ..agent("a", 1)
        },
        meta::command::RegisterAgent {
            listeners: (0..17)
                .map(|n| (format!("L{n}"), plaintext.clone()))
                .collect(),
            ..agent("a", 1)
        },
        meta::command::RegisterAgent {
            zone: "z".repeat(256),
            ..agent("a", 1)
        },
        meta::command::RegisterAgent {
            neighbour_address: "h".repeat(256),
            ..agent("a", 1)
        },
    ] {
        let reply = cluster.apply(&Command::RegisterAgent(broken));
        assert!(
            matches!(reply, Reply::Refused(Refusal::Invalid { .. })),
            "{reply:?}"
        );
    }
    let old = meta::command::RegisterAgent {
        level: 0,
        ..agent("a", 1)
    };
    let reply = cluster.apply(&Command::RegisterAgent(old));
    assert_eq!(
        reply,
        Reply::Refused(Refusal::LevelUnsupported { level: 1 })
    );
    assert_eq!(cluster.state.agents().count(), 0);
}

#[test]
fn what_is_kept_of_a_fenced_incarnation_goes_once_nothing_needs_it() {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    let committed = file(file_id(run, 0), &[(partition, &[plain(1)])]);
    cluster.commit(&committed);
    cluster.apply(&Command::FenceAgent { incarnation: run });
    cluster.pass(GRACE - 1);
    cluster.housekeep();
    assert_eq!(
        *cluster.outcomes(&committed),
        [accepted(0)],
        "kept during the grace"
    );
    assert_eq!(cluster.fate(file_id(run, 1)), Fate::Undecided);
    cluster.pass(1);
    cluster.housekeep();
    assert_eq!(cluster.commit(&committed), FileReply::Decided);
    assert_eq!(cluster.fate(file_id(run, 1)), Fate::Dead);
    assert_eq!(cluster.fate(file_id(run, 0)), Fate::Live);
    assert!(
        cluster.state.incarnation(run).is_some(),
        "a file of it is left"
    );

    cluster.apply(&Command::DeleteTopic {
        id: crate::support::topic_id("t"),
    });
    cluster.housekeep();
    cluster.pass(GRACE);
    assert_eq!(cluster.forget([file_id(run, 0)]).len(), 0);
    cluster.housekeep();
    assert_eq!(cluster.state.incarnation(run), None);
    assert_eq!(cluster.fate(file_id(run, 0)), Fate::Dead);
    assert_eq!(
        cluster.commit(&committed),
        FileReply::UnknownIncarnation,
        "its agent registers anew"
    );
    assert_eq!(cluster.register("a", 2), {
        Reply::Registered {
            agent: AgentId(2),
            incarnation: Incarnation(run.0 + 1),
        }
    });
}

#[test]
fn an_incarnation_that_was_never_given_is_unknown() {
    let mut cluster = Cluster::new();
    let id = file_id(Incarnation(5), 0);
    assert_eq!(cluster.skip(id), FileReply::UnknownIncarnation);
    assert_eq!(
        cluster.fate(id),
        Fate::Undecided,
        "it may be registered yet"
    );
    assert_eq!(cluster.fate(file_id(Incarnation(0), 0)), Fate::Dead);
}

#[test]
fn the_feature_level_waits_for_everyone() {
    let mut cluster = Cluster::of(LATER);
    let raise = Command::SetFeatureLevel { level: 2 };
    let node = |level| Command::RegisterControlNode(control_node("c", level));
    assert_eq!(
        cluster.apply(&raise),
        Reply::Refused(Refusal::UnknownControlNode)
    );
    cluster.apply(&node(2));
    let incarnation = cluster.agent("old", 1);
    let behind = Refusal::LevelAhead {
        name: "old".to_owned(),
        supported: 1,
    };
    assert_eq!(cluster.apply(&raise), Reply::Refused(behind));
    cluster.apply(&Command::FenceAgent { incarnation });
    let seen = cluster.state.view_version();
    assert_eq!(cluster.apply(&raise), Reply::Done);
    assert_eq!(cluster.state.level().number, 2);
    let told = cluster.state.view_since(Some(seen)).expect("it changed");
    assert_eq!((told.level, told.topics.len(), told.agents), (2, 0, None));
    let again = Reply::Refused(Refusal::LevelBehind { level: 2 });
    assert_eq!(cluster.apply(&raise), again);
    assert_eq!(cluster.register("old", 2), {
        Reply::Refused(Refusal::LevelUnsupported { level: 2 })
    });
    assert_eq!(
        cluster.apply(&node(1)),
        Reply::Refused(Refusal::LevelUnsupported { level: 2 })
    );
    let remove = |nonce| Command::RemoveControlNode {
        name: "c".to_owned(),
        nonce,
    };
    let unknown = Reply::Refused(Refusal::UnknownControlNode);
    assert_eq!(cluster.apply(&remove(8)), unknown, "another run of it");
    let remove = remove(7);
    assert_eq!(cluster.apply(&remove), Reply::Done);
    assert_eq!(
        cluster.apply(&remove),
        Reply::Refused(Refusal::UnknownControlNode)
    );
}

#[test]
fn producers_get_ids_that_nobody_had_and_epochs_until_these_are_used_up() {
    let mut cluster = Cluster::new();
    let mut allocate = |known: Option<(i64, i16)>| {
        let known = known.map(|(id, epoch)| (ProducerId(id), epoch));
        match cluster.apply(&Command::AllocateProducer { known }) {
            Reply::Producer { id, epoch } => (id.0, epoch),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(allocate(None), (0, 0));
    assert_eq!(allocate(None), (1, 0));
    assert_eq!(allocate(Some((0, 0))), (0, 1));
    assert_eq!(allocate(Some((0, 0))), (0, 1), "a repeat is answered alike");
    assert_eq!(allocate(Some((0, i16::MAX - 2))), (0, i16::MAX - 1));
    assert_eq!(
        allocate(Some((0, i16::MAX - 1))),
        (2, 0),
        "no epoch is left"
    );
    assert_eq!(allocate(Some((77, 3))), (3, 0), "nobody has this id");
    assert_eq!(allocate(Some((-1, -1))), (4, 0));
}

#[test]
fn a_file_must_be_in_enough_failure_domains() {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    assert_eq!(
        cluster.apply(&Command::SetPlacement(three_buckets())),
        Reply::Done
    );
    let mut commit = file(file_id(run, 0), &[(partition, &[plain(1)])]);
    assert_eq!(cluster.commit(&commit), FileReply::PlacementRefused);
    commit.placement = vec![0, 3];
    assert_eq!(cluster.commit(&commit), FileReply::PlacementRefused);
    assert_eq!(cluster.bounds(partition), (0, 0));
    commit.placement = vec![0, 2];
    assert_eq!(*cluster.outcomes(&commit), [accepted(0)]);
    let file = cluster.state.file(commit.file).expect("it is committed");
    assert_eq!(file.placement().collect::<Vec<_>>(), [0, 2]);
}
