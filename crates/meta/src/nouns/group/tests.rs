//! The classic group protocol, transition by transition, as members see it.

mod kept;
mod many;
mod statics;

use bytes::Bytes;

use super::*;
use crate::terms::level::one::LEVEL as ONE;

const TOPIC: TopicId = TopicId(7);
const MINUTE: u64 = 60_000;
/// A topic of four partitions; Kafka's default of `offset.metadata.max.bytes`.
const RULES: OffsetRules<'static> = OffsetRules {
    partitions: &|topic| if topic.0 == TOPIC.0 { Some(4) } else { None },
    metadata_units_max: 4096,
};

/// Groups, with a topic of four partitions, driven by commands for the group "g".
#[derive(Default)]
struct Rig {
    groups: Groups,
    ticks_millis: u64,
}

impl Rig {
    fn apply(&mut self, action: Action) -> Reply {
        let stamp = Stamp {
            wall_millis: 0,
            ticks_millis: self.ticks_millis,
        };
        let command = Command {
            group: "g".to_owned(),
            action,
        };
        let message = proto_round_trip(&command);
        let (reply, _) = self.groups.apply(stamp, RULES, &message);
        self.groups.assert_invariants();
        reply
    }

    fn group(&self) -> &Group {
        self.groups.get("g").expect("the group exists")
    }

    fn phase(&self) -> Phase {
        self.group().phase()
    }

    fn join(&mut self, join: Join) -> Result<JoinOutcome, Refusal> {
        match self.apply(Action::Join(join)) {
            Reply::Join(result) => result,
            other => panic!("not a reply to a join: {other:?}"),
        }
    }

    /// Joins members that are new, and forms a generation of them.
    fn form(&mut self, members: &[&str]) -> i32 {
        for member in members {
            self.join(new(member)).expect("joins");
        }
        self.complete()
    }

    fn complete(&mut self) -> i32 {
        let generation = self.group().generation();
        let reply = self.apply(Action::CompleteJoin { generation });
        assert_eq!(reply, Reply::CompleteJoin(Completion::Completed));
        self.group().generation()
    }

    fn sync(&mut self, member: &str, assigned: &[(&str, &str)]) -> Result<SyncOutcome, Refusal> {
        let sync = self.sync_of(member, assigned);
        self.sync_as(sync)
    }

    fn sync_of(&self, member: &str, assigned: &[(&str, &str)]) -> Sync {
        let own = |(member, assignment): &(&str, &str)| {
            (
                String::from(*member),
                Bytes::copy_from_slice(assignment.as_bytes()),
            )
        };
        Sync {
            member: member.to_owned(),
            instance: None,
            generation: self.group().generation(),
            protocol_type: None,
            protocol: None,
            assignments: assigned.iter().map(own).collect(),
        }
    }

    fn sync_as(&mut self, sync: Sync) -> Result<SyncOutcome, Refusal> {
        match self.apply(Action::Sync(sync)) {
            Reply::Sync(result) => result,
            other => panic!("not a reply to a sync: {other:?}"),
        }
    }

    /// A stable group of these members, each assigned its own name.
    fn stable(members: &[&str]) -> Rig {
        let mut rig = Rig::default();
        rig.form(members);
        let assigned: Vec<_> = members.iter().map(|member| (*member, *member)).collect();
        rig.sync(members[0], &assigned).expect("the leader syncs");
        assert_eq!(rig.phase(), Phase::Stable);
        rig
    }

    fn leave(&mut self, member: &str, instance: Option<&str>) -> Result<(), Refusal> {
        let instance = instance.map(str::to_owned);
        let leaving = Leaving {
            member: member.to_owned(),
            instance,
        };
        match self.apply(Action::Leave(vec![leaving])) {
            Reply::Leave(results) => results[0],
            other => panic!("not a reply to leaving: {other:?}"),
        }
    }

    fn heartbeat(&self, member: &str) -> Result<(), Refusal> {
        self.group()
            .heartbeat(member, None, self.group().generation())
    }

    fn commit(&mut self, member: &str, generation: i32) -> Result<(), Refusal> {
        let results = self.commit_as(member, None, generation, &[offset(0, 5)]);
        results.and_then(|results| results[0])
    }

    fn commit_as(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        offsets: &[OffsetEntry],
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let commit = CommitOffsets {
            by: None,
            member: member.to_owned(),
            instance: instance.map(str::to_owned),
            generation,
            offsets: offsets.to_vec(),
        };
        match self.apply(Action::Commit(commit)) {
            Reply::Commit(result) => result,
            other => panic!("not a reply to a commit: {other:?}"),
        }
    }
}

/// Every command of these tests goes through its bytes' shape.
fn proto_round_trip(command: &Command) -> Command {
    let message = crate::bytes::proto::GroupCommand::from(command);
    let back = Command::try_from(message).expect("a command reads back");
    assert_eq!(&back, command);
    back
}

fn protocols(names: &[&str]) -> Vec<Protocol> {
    let protocol = |name: &&str| Protocol {
        name: (*name).to_owned(),
        metadata: Bytes::copy_from_slice(format!("{name} of me").as_bytes()),
    };
    names.iter().map(protocol).collect()
}

/// A join of a member that may be made.
fn new(member: &str) -> Join {
    Join {
        member: member.to_owned(),
        admitted: true,
        instance: None,
        client_id: "client".to_owned(),
        client_host: "host".to_owned(),
        session_timeout_millis: 10_000,
        rebalance_timeout_millis: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: protocols(&["range"]),
        can_skip_assignment: true,
        members_max: 100,
    }
}

/// A join of a member that has its id.
fn back(member: &str) -> Join {
    Join {
        admitted: false,
        ..new(member)
    }
}

fn fixed(member: &str, instance: &str) -> Join {
    Join {
        instance: Some(instance.to_owned()),
        ..new(member)
    }
}

fn offset(partition: u32, offset: i64) -> OffsetEntry {
    OffsetEntry {
        topic: TOPIC,
        partition,
        offset,
        leader_epoch: 1,
        metadata: String::new(),
    }
}

fn joined(outcome: Result<JoinOutcome, Refusal>) -> Joined {
    match outcome.expect("may join") {
        JoinOutcome::Joined(joined) => joined,
        JoinOutcome::Waits { .. } => panic!("waits, but the generation was to be answered"),
    }
}

fn waits(outcome: &Result<JoinOutcome, Refusal>) -> bool {
    matches!(outcome, Ok(JoinOutcome::Waits { .. }))
}

fn assigned(outcome: Result<SyncOutcome, Refusal>) -> Bytes {
    match outcome.expect("may sync") {
        SyncOutcome::Synced(synced) => synced.assignment,
        SyncOutcome::Waits => panic!("waits, but the assignment was to be answered"),
    }
}

#[test]
fn members_join_sync_and_are_stable() {
    let mut rig = Rig::default();
    assert_eq!(rig.join(new("a")), Ok(JoinOutcome::Waits { generation: 0 }));
    assert_eq!(rig.phase(), Phase::PreparingRebalance);
    assert!(rig.group().is_initial());
    assert!(waits(&rig.join(new("b"))));
    assert_eq!(rig.complete(), 1);
    assert_eq!(rig.phase(), Phase::CompletingRebalance);

    let (leader, follower) = (rig.group().joined("a"), rig.group().joined("b"));
    assert_eq!(
        (leader.leader.as_str(), leader.protocol.as_str()),
        ("a", "range")
    );
    let members: Vec<_> = leader
        .members
        .iter()
        .map(|member| member.member.as_str())
        .collect();
    assert_eq!(members, ["a", "b"], "the leader learns all members");
    assert_eq!(leader.members[1].metadata, "range of me");
    assert!(
        follower.members.is_empty(),
        "only the leader learns the members"
    );

    assert_eq!(rig.sync("b", &[]), Ok(SyncOutcome::Waits));
    assert_eq!(
        assigned(rig.sync("a", &[("a", "one"), ("b", "two")])),
        "one"
    );
    assert_eq!(assigned(rig.sync("b", &[])), "two");
    assert_eq!(rig.heartbeat("b"), Ok(()));
}

#[test]
fn who_is_no_member_may_not_speak_for_one() {
    let mut rig = Rig::default();
    assert_eq!(
        rig.join(back("a")),
        Err(Refusal::UnknownMemberId),
        "no group"
    );
    assert!(
        rig.groups.is_empty(),
        "a refused join leaves no group behind"
    );

    let mut rig = Rig::stable(&["a"]);
    assert_eq!(rig.join(back("z")), Err(Refusal::UnknownMemberId));
    assert_eq!(rig.sync("z", &[]), Err(Refusal::UnknownMemberId));
    assert_eq!(rig.heartbeat("z"), Err(Refusal::UnknownMemberId));
    assert_eq!(rig.leave("z", None), Err(Refusal::UnknownMemberId));
    assert_eq!(rig.leave("", None), Err(Refusal::UnknownMemberId));
    assert_eq!(rig.phase(), Phase::Stable, "and disturbs nobody");
}

#[test]
fn a_member_of_an_older_generation_is_told_so() {
    let mut rig = Rig::stable(&["a"]);
    let old = rig.group().generation() - 1;
    assert_eq!(
        rig.group().heartbeat("a", None, old),
        Err(Refusal::IllegalGeneration)
    );
    let sync = Sync {
        generation: old,
        ..rig.sync_of("a", &[])
    };
    assert_eq!(rig.sync_as(sync), Err(Refusal::IllegalGeneration));
    assert_eq!(rig.commit("a", old), Err(Refusal::IllegalGeneration));
}

#[test]
fn a_new_member_starts_a_rebalance_that_all_must_join() {
    let mut rig = Rig::stable(&["a", "b"]);
    assert!(waits(&rig.join(new("c"))));
    assert_eq!(rig.phase(), Phase::PreparingRebalance);
    assert!(!rig.group().is_initial());
    assert_eq!(rig.heartbeat("a"), Err(Refusal::RebalanceInProgress));
    assert_eq!(rig.sync("a", &[]), Err(Refusal::RebalanceInProgress));
    assert!(!rig.group().all_joined());
    assert!(waits(&rig.join(back("b"))));
    assert!(waits(&rig.join(back("a"))));
    assert!(rig.group().all_joined());
    assert_eq!(rig.complete(), 2);
    assert_eq!(
        rig.group().leader(),
        Some("a"),
        "a leader that comes back stays leader"
    );
}

#[test]
fn members_that_do_not_rejoin_are_out_and_somebody_else_leads() {
    let mut rig = Rig::stable(&["a", "b"]);
    assert!(waits(&rig.join(new("c"))));
    assert!(waits(&rig.join(back("b"))));
    rig.complete();
    assert!(rig.group().member("a").is_none());
    assert_eq!(rig.group().leader(), Some("b"));
    assert_eq!(rig.join(back("a")), Err(Refusal::UnknownMemberId));
}

#[test]
fn a_join_phase_completes_once() {
    let mut rig = Rig::default();
    rig.form(&["a"]);
    let reply = rig.apply(Action::CompleteJoin { generation: 0 });
    assert_eq!(reply, Reply::CompleteJoin(Completion::Superseded));
    assert!(waits(&rig.join(new("b"))));
    let reply = rig.apply(Action::CompleteJoin { generation: 0 });
    assert_eq!(
        reply,
        Reply::CompleteJoin(Completion::Superseded),
        "a late timer of another phase"
    );
    assert!(rig.group().member("a").is_some());
}

#[test]
fn a_member_that_missed_the_answer_gets_the_same_generation() {
    let mut rig = Rig::default();
    rig.form(&["a", "b"]);
    let repeat = joined(rig.join(back("a")));
    assert_eq!((repeat.generation, repeat.members.len()), (1, 2));
    rig.sync("a", &[]).expect("syncs");
    assert_eq!(
        joined(rig.join(back("b"))).generation,
        1,
        "a follower of a stable group too"
    );
    assert_eq!(rig.phase(), Phase::Stable);
}

#[test]
fn a_leader_that_rejoins_or_a_change_of_metadata_forms_a_new_generation() {
    let mut rig = Rig::stable(&["a", "b"]);
    assert!(
        waits(&rig.join(back("a"))),
        "the leader saw something that members do not show"
    );
    assert_eq!(rig.phase(), Phase::PreparingRebalance);

    let mut rig = Rig::stable(&["a", "b"]);
    let changed = Join {
        protocols: protocols(&["range", "sticky"]),
        ..back("b")
    };
    assert!(waits(&rig.join(changed)));

    let mut rig = Rig::default();
    rig.form(&["a", "b"]);
    let changed = Join {
        protocols: protocols(&["range", "sticky"]),
        ..back("b")
    };
    assert!(waits(&rig.join(changed)), "before the assignment as well");
    assert_eq!(rig.sync("a", &[]), Err(Refusal::RebalanceInProgress));
}

#[test]
fn a_repeated_join_makes_no_second_member() {
    let mut rig = Rig::default();
    assert_eq!(rig.join(new("a")), rig.join(new("a")));
    assert_eq!(rig.group().members().len(), 1);
    rig.complete();
    assert_eq!(joined(rig.join(new("a"))).generation, 1);
}

#[test]
fn cooperative_members_rebalance_twice() {
    // First they give up what must move, then the new owner gets it: two generations in a row,
    // the second begun by whoever gave something up.
    let mut rig = Rig::stable(&["a", "b"]);
    rig.join(new("c")).expect("joins");
    rig.join(back("a")).expect("rejoins");
    rig.join(back("b")).expect("rejoins");
    rig.complete();
    let first = [("a", "1"), ("b", "2"), ("c", "")];
    assert_eq!(assigned(rig.sync("a", &first)), "1");
    assert_eq!(assigned(rig.sync("c", &[])), "");
    let owned = Protocol {
        name: "range".to_owned(),
        metadata: Bytes::from_static(b"gave up 3"),
    };
    assert!(waits(&rig.join(Join {
        protocols: vec![owned],
        ..back("b")
    })));
    assert_eq!(
        rig.commit("a", 2),
        Ok(()),
        "owners go on and commit meanwhile"
    );
    rig.join(back("a")).expect("rejoins");
    rig.join(back("c")).expect("rejoins");
    assert_eq!(rig.complete(), 3);
    let leader = rig.group().joined("a");
    assert_eq!(leader.members[1].metadata, "gave up 3");
    assert_eq!(assigned(rig.sync("a", &[("c", "3")])), "");
    assert_eq!(assigned(rig.sync("c", &[])), "3");
}

#[test]
fn the_protocol_is_one_that_all_support_and_most_prefer() {
    let mut rig = Rig::default();
    for (member, names) in [
        ("a", ["range", "sticky", "other"]),
        ("b", ["sticky", "range", "third"]),
        ("c", ["other", "sticky", "range"]),
    ] {
        rig.join(Join {
            protocols: protocols(&names),
            ..new(member)
        })
        .expect("joins");
    }
    rig.complete();
    assert_eq!(
        rig.group().protocol(),
        Some("sticky"),
        "votes: a range, b and c sticky"
    );

    let stranger = Join {
        protocols: protocols(&["other"]),
        ..new("d")
    };
    assert_eq!(rig.join(stranger), Err(Refusal::InconsistentGroupProtocol));
    let other_kind = Join {
        protocol_type: "connect".to_owned(),
        ..new("d")
    };
    assert_eq!(
        rig.join(other_kind),
        Err(Refusal::InconsistentGroupProtocol)
    );
    let none = Join {
        protocols: Vec::new(),
        ..new("d")
    };
    assert_eq!(
        Rig::default().join(none),
        Err(Refusal::InconsistentGroupProtocol)
    );
    assert_eq!(
        rig.phase(),
        Phase::CompletingRebalance,
        "refused joins disturb nobody"
    );
}

#[test]
fn a_sync_that_names_another_protocol_is_refused() {
    let mut rig = Rig::stable(&["a"]);
    let sync = Sync {
        protocol: Some("sticky".to_owned()),
        ..rig.sync_of("a", &[])
    };
    assert_eq!(rig.sync_as(sync), Err(Refusal::InconsistentGroupProtocol));
    let sync = Sync {
        protocol_type: Some("connect".to_owned()),
        ..rig.sync_of("a", &[])
    };
    assert_eq!(rig.sync_as(sync), Err(Refusal::InconsistentGroupProtocol));
    let sync = Sync {
        protocol_type: Some("consumer".to_owned()),
        protocol: Some("range".to_owned()),
        ..rig.sync_of("a", &[])
    };
    assert_eq!(assigned(rig.sync_as(sync)), "a");
}

#[test]
fn a_full_group_takes_nobody_new() {
    let join = |member| Join {
        members_max: 2,
        ..new(member)
    };
    let mut rig = Rig::default();
    rig.join(join("a")).expect("joins");
    rig.join(join("b")).expect("joins");
    assert_eq!(rig.join(join("c")), Err(Refusal::GroupMaxSizeReached));
    rig.complete();
    assert_eq!(rig.join(join("c")), Err(Refusal::GroupMaxSizeReached));
    assert!(
        rig.join(Join {
            admitted: false,
            ..join("b")
        })
        .is_ok(),
        "members keep their place"
    );
}

#[test]
fn whoever_leaves_makes_the_others_rebalance_and_the_last_empties_the_group() {
    let mut rig = Rig::stable(&["a", "b"]);
    assert_eq!(rig.leave("a", None), Ok(()));
    assert_eq!(rig.phase(), Phase::PreparingRebalance);
    assert_eq!(rig.group().leader(), Some("b"));
    assert_eq!(rig.leave("b", None), Ok(()));
    assert_eq!(rig.phase(), Phase::Empty);
    assert_eq!(rig.group().generation(), 2);
    assert_eq!(rig.heartbeat("b"), Err(Refusal::UnknownMemberId));
    assert!(waits(&rig.join(new("c"))));
    assert!(rig.group().is_initial());
    assert_eq!(rig.complete(), 3, "generations go on");
}

#[test]
fn expired_members_are_out() {
    let mut rig = Rig::stable(&["a", "b", "c"]);
    let expire = Action::Expire(vec!["b".to_owned(), "nobody".to_owned()]);
    assert_eq!(rig.apply(expire.clone()), Reply::Done);
    assert_eq!(rig.phase(), Phase::PreparingRebalance);
    assert!(rig.group().member("b").is_none());
    rig.apply(expire);
    assert_eq!(rig.group().members().len(), 2, "a repeat takes nobody else");
    rig.apply(Action::Expire(vec!["a".to_owned(), "c".to_owned()]));
    assert_eq!(rig.phase(), Phase::Empty);
}

#[test]
fn a_join_phase_that_nobody_joined_empties_the_group() {
    let mut rig = Rig::stable(&["a", "b"]);
    rig.leave("b", None).expect("leaves");
    let generation = rig.group().generation();
    let reply = rig.apply(Action::CompleteJoin { generation });
    assert_eq!(reply, Reply::CompleteJoin(Completion::Emptied));
    assert_eq!(rig.phase(), Phase::Empty);
}

#[test]
fn silence_is_noted_until_the_member_speaks() {
    let mut rig = Rig::stable(&["a", "b"]);
    let silent = ["a", "b"].map(|member| Silent {
        member: member.to_owned(),
        for_millis: 400,
    });
    rig.ticks_millis = 10_000;
    rig.apply(Action::MarkSilence {
        silent: silent.into(),
        heard: Vec::new(),
    });
    rig.apply(Action::MarkSilence {
        silent: Vec::new(),
        heard: vec!["a".to_owned()],
    });
    let since = |rig: &Rig, member| {
        let member = rig.group().member(member).expect("a member");
        member.silent_since
    };
    assert_eq!(since(&rig, "a"), None);
    assert_eq!(since(&rig, "b"), Some(9_600));
    rig.sync("b", &[]).expect("syncs");
    assert_eq!(since(&rig, "b"), None);
}
