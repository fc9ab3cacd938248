//! What members see while the journal works: joining, syncing, silence, leaving.

use std::time::Duration;

use meta::group::Phase;
use meta::group::Refusal;
use rpc::group::{GroupError, GroupReply, GroupRequest};

use super::rig::{DELAY, REBALANCE, Rig, SESSION, back, fixed, modern, new, settings};
use crate::coordinator::Settings;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_first_members_wait_for_more() {
    let mut rig = Rig::new();
    let a = rig.join(new("a"));
    rig.pass(DELAY - SECOND);
    let b = rig.join(new("b"));
    rig.pass(DELAY);
    assert!(rig.waits(a) && rig.waits(b), "somebody came: another delay");
    rig.pass(SECOND * 2);
    let (member_a, a) = rig.joined_as(a).expect("joins");
    let (member_b, b) = rig.joined_as(b).expect("joins");
    assert_eq!(
        (a.generation, a.leader.as_str(), a.members.len()),
        (1, "a", 2)
    );
    assert_eq!(
        (b.generation, b.leader.as_str(), b.members.len()),
        (1, "a", 0)
    );
    assert_eq!((member_a.as_str(), member_b.as_str()), ("a", "b"));
}

#[test]
fn who_waits_for_others_says_so_once_what_he_brought_is_applied() {
    let mut rig = Rig::new();
    rig.held = true;
    let a = rig.join(new("a"));
    assert!(rig.waits(a) && !rig.parked.contains(&a), "not applied yet");
    rig.held = false;
    rig.decide_all();
    assert!(rig.waits(a) && rig.parked.contains(&a));
    let b = rig.join(new("b"));
    rig.pass(DELAY * 2);
    let generation = rig.joined(a).expect("joins").generation;
    rig.joined(b).expect("joins");
    let follower = rig.sync("b", generation, &[]);
    assert!(rig.waits(follower) && rig.parked.contains(&follower));
    let leader = rig.sync("a", generation, &["a", "b"]);
    rig.synced(leader).expect("the leader syncs");
    rig.synced(follower).expect("is assigned");
}

#[test]
fn a_lone_member_waits_one_delay_and_a_delay_of_zero_not_at_all() {
    let mut rig = Rig::new();
    let a = rig.join(new("a"));
    rig.pass(DELAY);
    assert!(rig.joined(a).is_ok());

    let mut rig = Rig::with(Settings {
        initial_rebalance_delay: Duration::ZERO,
        ..settings()
    });
    let a = rig.join(new("a"));
    assert!(rig.joined(a).is_ok());
}

#[test]
fn the_first_wait_ends_with_the_rebalance_timeout_however_many_come() {
    let mut rig = Rig::new();
    let first = rig.join(new("0"));
    for number in 1..=30 {
        rig.pass(SECOND * 2);
        if !rig.waits(first) {
            assert!(number >= 28, "not before: {number}");
            return;
        }
        rig.join(new(&number.to_string()));
    }
    rig.pass(SECOND);
    assert!(!rig.waits(first), "after a minute at the latest");
}

#[test]
fn a_group_of_three_goes_on_without_its_silent_member() {
    let mut rig = Rig::stable(&["a", "b", "c"]);
    rig.pass_with(SESSION - SECOND, &["a", "b"], 1);
    assert_eq!(rig.phase(), Phase::Stable);
    rig.pass_with(SECOND * 2, &["a", "b"], 1);
    assert_eq!(
        rig.phase(),
        Phase::PreparingRebalance,
        "c was silent for its session"
    );
    assert_eq!(
        rig.heartbeat("a", 1),
        Err(GroupError::Refused(Refusal::RebalanceInProgress))
    );
    assert_eq!(
        rig.heartbeat("c", 1),
        Err(GroupError::Refused(Refusal::UnknownMemberId))
    );

    let a = rig.join(back("a"));
    assert!(rig.waits(a));
    let b = rig.join(back("b"));
    let (a, b) = (rig.joined(a).expect("joins"), rig.joined(b).expect("joins"));
    assert_eq!((a.generation, b.generation, a.members.len()), (2, 2, 2));
    let b = rig.sync("b", 2, &[]);
    assert!(rig.waits(b), "until the leader has assigned");
    let a = rig.sync("a", 2, &["a", "b"]);
    assert_eq!(rig.synced(a).expect("syncs").assignment, "a");
    assert_eq!(rig.synced(b).expect("syncs").assignment, "b");
    rig.pass_with(SESSION * 3, &["a", "b"], 2);
    assert_eq!(rig.phase(), Phase::Stable);
}

#[test]
fn all_members_fall_silent() {
    let mut rig = Rig::stable(&["a", "b"]);
    rig.pass(SESSION + SECOND);
    assert_eq!(rig.phase(), Phase::Empty);
}

#[test]
fn a_request_that_waits_keeps_its_member() {
    let mut rig = Rig::stable(&["a", "b"]);
    let a = rig.join(back("a"));
    rig.pass_with(SESSION * 3, &["b"], 1);
    assert!(rig.waits(a), "b has not rejoined, but lives");
    assert!(rig.group().member("a").is_some());
    rig.pass_with(REBALANCE - SESSION * 3 - SECOND, &["b"], 1);
    rig.pass(SECOND * 2);
    assert_eq!(
        rig.joined(a).expect("joins").members.len(),
        1,
        "b had its rebalance timeout"
    );
    assert!(rig.group().member("b").is_none());
}

#[test]
fn a_member_that_does_not_sync_is_out() {
    let mut rig = Rig::new();
    let tickets = [rig.join(new("a")), rig.join(new("b"))];
    rig.pass(DELAY * 2);
    for ticket in tickets {
        rig.joined(ticket).expect("joins");
    }
    let a = rig.sync("a", 1, &["a", "b"]);
    rig.synced(a).expect("syncs");
    rig.pass_with(REBALANCE - SECOND * 2, &["a", "b"], 1);
    assert_eq!(rig.phase(), Phase::Stable);
    for _ in 0..4 {
        rig.pass(SECOND);
        rig.heartbeat("a", 1).ok();
    }
    assert!(
        rig.group().member("b").is_none(),
        "b had its rebalance timeout to sync"
    );
    assert_eq!(rig.phase(), Phase::PreparingRebalance);
}

#[test]
fn a_leader_that_dies_before_it_assigns_frees_the_others() {
    let mut rig = Rig::new();
    let tickets = [rig.join(new("a")), rig.join(new("b"))];
    rig.pass(DELAY * 2);
    for ticket in tickets {
        rig.joined(ticket).expect("joins");
    }
    let b = rig.sync("b", 1, &[]);
    rig.pass(SESSION + SECOND);
    assert_eq!(
        rig.synced(b),
        Err(GroupError::Refused(Refusal::RebalanceInProgress))
    );
    let b = rig.join(back("b"));
    assert_eq!(rig.joined(b).expect("joins").leader, "b");
}

#[test]
fn a_new_client_is_given_an_id_first() {
    let mut rig = Rig::new();
    let a = rig.join(modern("a"));
    let GroupReply::Join(Err(refused)) = rig.answer(a) else {
        panic!("given an id")
    };
    assert_eq!(
        (refused.error, refused.member.as_str()),
        (GroupError::MemberIdRequired, "a")
    );
    assert!(
        rig.world.groups.is_empty(),
        "that alone leaves nothing in the journal"
    );
    let a = rig.join(modern_back("a"));
    rig.pass(DELAY);
    assert_eq!(rig.joined_as(a).expect("joins").0, "a");

    let nobody = rig.join(modern_back("never given out"));
    assert_eq!(
        rig.joined(nobody),
        Err(GroupError::Refused(Refusal::UnknownMemberId))
    );
}

/// A client of today that comes back with the id it was given.
fn modern_back(member: &str) -> rpc::group::JoinGroup {
    rpc::group::JoinGroup {
        id_required: true,
        ..back(member)
    }
}

#[test]
fn an_id_that_was_given_out_is_awaited_for_a_session() {
    let mut rig = Rig::stable(&["a"]);
    let b = rig.join(modern("b"));
    assert_eq!(rig.joined(b), Err(GroupError::MemberIdRequired));
    let a = rig.join(back("a"));
    assert!(rig.waits(a), "b is awaited");
    let b = rig.join(modern_back("b"));
    assert_eq!(rig.joined(a).expect("joins").members.len(), 2);
    rig.joined(b).expect("joins");

    let mut rig = Rig::stable(&["a"]);
    let b = rig.join(modern("b"));
    rig.joined(b).expect_err("is given an id");
    let a = rig.join(back("a"));
    rig.pass(SESSION + SECOND);
    assert_eq!(
        rig.joined(a).expect("joins").members.len(),
        1,
        "b never came"
    );
}

#[test]
fn an_id_can_be_given_back() {
    let mut rig = Rig::stable(&["a"]);
    let b = rig.join(modern("b"));
    rig.joined(b).expect_err("is given an id");
    let a = rig.join(back("a"));
    assert_eq!(rig.leave("b"), Ok(()));
    assert_eq!(rig.joined(a).expect("joins").members.len(), 1);
}

#[test]
fn requests_out_of_bounds_are_refused() {
    let mut rig = Rig::new();
    for millis in [0, 5_999, 1_800_001, u32::MAX] {
        let mut join = new("a");
        join.join.session_timeout_millis = millis;
        let ticket = rig.join(join);
        assert_eq!(
            rig.joined(ticket),
            Err(GroupError::InvalidSessionTimeout),
            "{millis}"
        );
    }
    let ticket = rig.join(rpc::group::JoinGroup {
        group: String::new(),
        ..new("a")
    });
    assert_eq!(rig.joined(ticket), Err(GroupError::InvalidGroupId));
    let mut join = modern("a");
    join.join.protocols.clear();
    let ticket = rig.join(join);
    assert_eq!(
        rig.joined(ticket),
        Err(GroupError::Refused(Refusal::InconsistentGroupProtocol))
    );
    assert!(rig.world.groups.is_empty());
}

#[test]
fn leaving_frees_the_others_at_once() {
    let mut rig = Rig::stable(&["a", "b"]);
    let a = rig.join(back("a"));
    assert!(rig.waits(a));
    assert_eq!(rig.leave("b"), Ok(()));
    assert_eq!(rig.joined(a).expect("joins").members.len(), 1);
    assert_eq!(
        rig.leave("b"),
        Err(GroupError::Refused(Refusal::UnknownMemberId))
    );
    assert_eq!(rig.leave("a"), Ok(()));
    assert_eq!(rig.phase(), Phase::Empty);
    assert_eq!(
        rig.leave("a"),
        Err(GroupError::Refused(Refusal::UnknownMemberId))
    );
}

#[test]
fn a_member_that_leaves_while_it_waits_is_answered() {
    let mut rig = Rig::stable(&["a", "b"]);
    let a = rig.join(back("a"));
    assert_eq!(rig.leave("a"), Ok(()));
    assert_eq!(
        rig.joined(a),
        Err(GroupError::Refused(Refusal::UnknownMemberId))
    );
}

#[test]
fn a_static_instance_that_is_taken_over_is_fenced_while_it_waits() {
    let mut rig = Rig::new();
    let old = rig.join(fixed("old", "i"));
    let new = rig.join(fixed("new", "i"));
    assert_eq!(
        rig.joined(old),
        Err(GroupError::Refused(Refusal::FencedInstanceId))
    );
    rig.pass(DELAY);
    assert_eq!(rig.joined(new).expect("joins").members.len(), 1);
}

#[test]
fn a_restarted_static_member_causes_no_rebalance() {
    let mut rig = Rig::new();
    let tickets = [rig.join(fixed("a", "i")), rig.join(fixed("b", "j"))];
    rig.pass(DELAY * 2);
    for ticket in tickets {
        rig.joined(ticket).expect("joins");
    }
    for member in ["a", "b"] {
        let ticket = rig.sync(member, 1, &["a", "b"]);
        rig.synced(ticket).expect("syncs");
    }
    rig.pass_with(SESSION - SECOND, &["a"], 1);
    let restarted = rig.join(fixed("b2", "j"));
    assert_eq!(rig.joined(restarted).expect("joins").generation, 1);
    rig.pass_with(SESSION - SECOND, &["a", "b2"], 1);
    assert_eq!(rig.phase(), Phase::Stable);
    let sync = rig.sync("b2", 1, &[]);
    assert_eq!(rig.synced(sync).expect("syncs").assignment, "b");
}

#[test]
fn a_newer_request_takes_the_place_of_an_older() {
    let mut rig = Rig::stable(&["a", "b"]);
    let older = rig.join(back("a"));
    let newer = rig.join(back("a"));
    assert_eq!(
        rig.joined(older),
        Err(GroupError::Refused(Refusal::RebalanceInProgress))
    );
    let b = rig.join(back("b"));
    assert_eq!(rig.joined(newer).expect("joins").generation, 2);
    rig.joined(b).expect("joins");
    let older = rig.sync("b", 2, &[]);
    let newer = rig.sync("b", 2, &[]);
    assert_eq!(
        rig.synced(older),
        Err(GroupError::Refused(Refusal::RebalanceInProgress))
    );
    assert!(rig.waits(newer));
}

#[test]
fn groups_are_described_and_listed() {
    let mut rig = Rig::stable(&["a", "b"]);
    let ids = vec!["g".to_owned(), "nothing".to_owned()];
    let ticket = rig.ask(GroupRequest::Describe(ids));
    let GroupReply::Describe(Ok(groups)) = rig.answer(ticket) else {
        panic!("is described")
    };
    assert_eq!(
        (groups[0].state.as_str(), groups[0].protocol.as_str()),
        ("Stable", "range")
    );
    assert_eq!(groups[0].members.len(), 2);
    assert_eq!(groups[0].members[1].assignment, "b");
    assert_eq!(groups[0].members[1].metadata, "topics");
    assert_eq!(
        (groups[1].exists, groups[1].state.as_str()),
        (false, "Dead")
    );

    let mut list = |states: &[&str]| {
        let states = states.iter().map(|state| (*state).to_owned()).collect();
        let ticket = rig.ask(GroupRequest::List(states));
        let GroupReply::List(Ok(groups)) = rig.answer(ticket) else {
            panic!("is listed")
        };
        groups.len()
    };
    assert_eq!(
        (list(&[]), list(&["stable", "Empty"]), list(&["Empty"])),
        (1, 1, 0)
    );
}

#[test]
fn a_member_that_joins_in_the_entry_that_completes_the_phase_has_its_session_and_no_more() {
    let mut rig = Rig::new();
    let a = rig.join(new("a"));
    rig.pass(DELAY - SECOND);
    rig.held = true;
    let b = rig.join(new("b"));
    rig.pass(SECOND);
    assert_eq!(rig.journal.len(), 2, "b joins, and the phase completes");
    rig.decide_as_one_entry();
    rig.held = false;
    assert_eq!(rig.joined(a).expect("joins").members.len(), 2);
    assert_eq!(rig.joined(b).expect("joins").generation, 1);
    let b = rig.sync("b", 1, &[]);
    let a = rig.sync("a", 1, &["a", "b"]);
    rig.synced(a).expect("syncs");
    rig.synced(b).expect("syncs");
    rig.pass_with(SESSION + SECOND, &["a"], 1);
    assert!(rig.group().member("b").is_none(), "b is gone, and noticed");
}
