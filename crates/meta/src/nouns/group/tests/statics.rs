//! Static members: restarts, fencing, removal (KIP-345, KIP-814).

use super::*;

#[test]
fn a_restarted_static_member_takes_its_place_without_a_rebalance() {
    let mut rig = Rig::default();
    rig.join(fixed("a", "i1")).expect("joins");
    rig.join(fixed("b", "i2")).expect("joins");
    rig.complete();
    rig.sync("a", &[("a", "one"), ("b", "two")]).expect("syncs");

    let restarted = joined(rig.join(fixed("b2", "i2")));
    assert_eq!((restarted.generation, restarted.leader.as_str()), (1, "a"));
    assert!(!restarted.skip_assignment);
    assert_eq!(rig.phase(), Phase::Stable);
    let sync = Sync {
        instance: Some("i2".to_owned()),
        ..rig.sync_of("b2", &[])
    };
    assert_eq!(assigned(rig.sync_as(sync)), "two", "with its assignment");

    let fenced = Err(Refusal::FencedInstanceId);
    assert_eq!(rig.group().heartbeat("b", Some("i2"), 1), fenced);
    assert_eq!(
        rig.join(Join {
            admitted: false,
            ..fixed("b", "i2")
        }),
        Err(Refusal::FencedInstanceId)
    );
    assert_eq!(
        rig.commit_as("b", Some("i2"), 1, &[]),
        Err(Refusal::FencedInstanceId)
    );
    assert_eq!(rig.leave("b", Some("i2")), fenced);
    assert_eq!(
        rig.heartbeat("b"),
        Err(Refusal::UnknownMemberId),
        "nor without its instance"
    );
}

#[test]
fn a_restarted_static_leader_skips_the_assignment_or_does_not_know_that_it_leads() {
    let leader = || {
        let mut rig = Rig::default();
        rig.join(fixed("a", "i1")).expect("joins");
        rig.complete();
        rig.sync("a", &[("a", "one")]).expect("syncs");
        rig
    };
    let mut rig = leader();
    let restarted = joined(rig.join(fixed("a2", "i1")));
    assert_eq!(restarted.leader, "a2");
    assert!(restarted.skip_assignment);
    assert_eq!(restarted.members.len(), 1);
    assert_eq!(
        joined(rig.join(fixed("a2", "i1"))),
        restarted,
        "a repeat is answered the same"
    );

    let mut rig = leader();
    let old = Join {
        can_skip_assignment: false,
        ..fixed("a2", "i1")
    };
    let restarted = joined(rig.join(old.clone()));
    assert_eq!(restarted.leader, "a");
    assert!(restarted.members.is_empty());
    let repeat = joined(rig.join(old));
    assert_ne!(repeat.leader, "a2");
    assert_eq!(rig.phase(), Phase::Stable);
}

#[test]
fn a_static_member_that_comes_back_during_the_assignment_starts_over() {
    let mut rig = Rig::default();
    rig.join(fixed("a", "i1")).expect("joins");
    rig.join(fixed("b", "i2")).expect("joins");
    rig.complete();
    assert!(
        waits(&rig.join(fixed("b2", "i2"))),
        "the leader may be assigning to the old id"
    );
    assert_eq!(rig.phase(), Phase::PreparingRebalance);
}

#[test]
fn static_members_need_not_rejoin_but_somebody_must() {
    let mut rig = Rig::default();
    rig.join(fixed("a", "i1")).expect("joins");
    rig.join(fixed("b", "i2")).expect("joins");
    rig.complete();
    rig.sync("a", &[]).expect("syncs");
    rig.join(new("c")).expect("joins");
    rig.leave("c", None).expect("leaves");
    let generation = rig.group().generation();
    let reply = rig.apply(Action::CompleteJoin { generation });
    assert_eq!(reply, Reply::CompleteJoin(Completion::Postponed));
    assert_eq!(rig.phase(), Phase::PreparingRebalance);
    assert!(waits(&rig.join(Join {
        admitted: false,
        ..fixed("b", "i2")
    })));
    rig.complete();
    assert_eq!(
        rig.group().members().len(),
        2,
        "the silent static member stays"
    );
    assert_eq!(rig.group().leader(), Some("b"));
}

#[test]
fn a_static_member_is_removed_by_its_instance_alone() {
    let mut rig = Rig::default();
    rig.join(fixed("a", "i1")).expect("joins");
    rig.complete();
    assert_eq!(rig.leave("", Some("i2")), Err(Refusal::UnknownMemberId));
    assert_eq!(rig.leave("", Some("i1")), Ok(()));
    assert_eq!(rig.phase(), Phase::Empty);
}

#[test]
fn an_id_cannot_move_to_another_instance() {
    let mut rig = Rig::default();
    rig.join(fixed("a", "i1")).expect("joins");
    assert_eq!(rig.join(fixed("a", "i2")), Err(Refusal::UnknownMemberId));
}
