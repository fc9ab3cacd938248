//! What members see when the journal stalls, loses a proposal, or another node takes over.

use std::time::Duration;

use meta::group::{Action, Leaving, Phase, Refusal};
use rpc::group::{CommitOffsets, CommitPartition, GroupError, GroupReply, GroupRequest, TopicName};

use super::rig::{DELAY, Rig, SESSION, back, modern, new, settings};
use crate::coordinator::{Coordinator, Event, Ticket};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_change_of_leaders_causes_no_rebalance() {
    let mut rig = Rig::stable(&["a", "b"]);
    rig.pass_with(SESSION, &["a", "b"], 1);
    rig.fail_over(settings());
    rig.pass(SESSION - SECOND);
    assert_eq!(
        rig.heartbeat("a", 1),
        Ok(()),
        "members that spoke have their whole session again"
    );
    assert_eq!(rig.heartbeat("b", 1), Ok(()));
    rig.pass(SESSION - SECOND);
    rig.fail_over(settings());
    rig.pass(SECOND * 3);
    assert_eq!(
        rig.heartbeat("a", 1),
        Ok(()),
        "those that were silent have time to be heard"
    );
    assert_eq!(rig.heartbeat("b", 1), Ok(()));
    rig.pass_with(SESSION * 3, &["a", "b"], 1);
    assert_eq!((rig.phase(), rig.group().generation()), (Phase::Stable, 1));
}

#[test]
fn a_member_that_dies_with_the_leader_is_out_after_a_session() {
    let mut rig = Rig::stable(&["a", "b"]);
    rig.fail_over(settings());
    rig.pass_with(SESSION + SECOND, &["a"], 1);
    assert!(rig.group().member("b").is_none());
    assert_eq!(rig.phase(), Phase::PreparingRebalance);
}

/// How a lead ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Killed,
    HandedOver,
}

/// How long a member that dies outlives its last heartbeat while leaders lead for so many milliseconds, one after the other, and
/// after the last of these the next one stays; "a" lives.
fn outlives(tenures: &[u64], end: End) -> Duration {
    let mut rig = Rig::stable(&["a", "b"]);
    rig.pass_with(SESSION, &["a", "b"], 1);
    let dies_at = rig.now;
    let step = Duration::from_millis(100);
    let mut tenures = tenures.iter().copied();
    let mut ends_at = tenures.next();
    let (mut led, mut passed) = (0, 0);
    while rig.group().member("b").is_some() {
        assert!(rig.now.since(dies_at) < SESSION * 20, "it never goes");
        rig.pass(step);
        (led, passed) = (led + 100, passed + 100);
        if passed % 1_000 == 0 && rig.phase() == Phase::Stable {
            assert_eq!(rig.heartbeat("a", 1), Ok(()));
        }
        if ends_at.is_some_and(|at| led >= at) {
            if end == End::HandedOver {
                rig.handle(Event::HandsOver);
            }
            rig.fail_over(settings());
            (ends_at, led) = (tenures.next(), 0);
        }
    }
    assert!(rig.group().member("a").is_some());
    rig.now.since(dies_at)
}

#[test]
fn silence_adds_up_over_leaders_of_any_length_of_tenure() {
    for tenure in [2_500, 3_500, 5_000, 7_000, 9_000] {
        for count in 1..12 {
            let outlived = outlives(&vec![tenure; count], End::Killed);
            let max = SESSION + Duration::from_millis(10_000);
            assert!(
                outlived <= max,
                "{outlived:?} after {count} leaders of {tenure} ms"
            );
        }
    }
    for tenure in [300, 900, 2_500, 3_500, 5_000, 7_000, 9_000] {
        for count in 1..40 {
            let outlived = outlives(&vec![tenure; count], End::HandedOver);
            let max = SESSION + Duration::from_millis(6_500);
            assert!(
                outlived <= max,
                "{outlived:?} after {count} hand-overs every {tenure} ms"
            );
        }
    }
}

#[test]
fn leaders_that_are_killed_at_once_keep_a_dead_member_no_longer_than_they_last() {
    let tenures = [2_500, 400, 400, 1_300, 400, 1_900, 700, 3_000, 100, 100];
    let outlived = outlives(&tenures, End::Killed);
    assert!(
        outlived <= SESSION + Duration::from_secs(10),
        "{outlived:?}"
    );
}

#[test]
fn members_that_live_outlive_any_number_of_leaders() {
    for tenure in [2_000, 3_500, 7_000, 11_000] {
        let mut rig = Rig::stable(&["a", "b"]);
        for second in 0..200_u64 {
            rig.pass(SECOND);
            if second % 3 == 0 {
                for member in ["a", "b"] {
                    assert_eq!(rig.heartbeat(member, 1), Ok(()));
                }
            }
            if (second * 1_000) % tenure < 1_000 {
                rig.fail_over(settings());
            }
        }
        assert_eq!((rig.phase(), rig.group().generation()), (Phase::Stable, 1));
    }
}

#[test]
fn a_member_that_is_heard_after_all_is_renewed() {
    let mut rig = Rig::stable(&["a", "b"]);
    rig.fail_over(settings());
    rig.pass_with(SESSION / 2, &["a"], 1);
    let since = |rig: &Rig| rig.group().member("b").expect("is there").silent_since;
    assert!(since(&rig).is_some());
    rig.pass_with(SESSION, &["a", "b"], 1);
    assert!(since(&rig).is_none());
    rig.fail_over(settings());
    rig.pass_with(SESSION - SECOND, &["a"], 1);
    assert!(rig.group().member("b").is_some());
}

#[test]
fn silence_while_the_journal_does_not_answer_is_not_noted() {
    let mut rig = Rig::stable(&["a", "b"]);
    rig.pass_with(SESSION, &["a", "b"], 1);
    rig.held = true;
    let _ = rig.join(new("c"));
    rig.pass(SESSION * 3);
    let mut proposed = rig.journal.iter().map(|(_, command)| &command.action);
    assert!(!proposed.any(|action| matches!(action, Action::MarkSilence { .. })));
    assert_eq!(rig.group().members().len(), 2);
}

#[test]
fn a_node_that_does_not_lead_sends_everybody_away() {
    let mut rig = Rig::stable(&["a", "b"]);
    let a = rig.join(back("a"));
    rig.held = true;
    let c = rig.join(new("c"));
    rig.current = false;
    let b = rig.send_heartbeat("b", 1);
    rig.handle(Event::LostLeadership);
    assert_eq!(rig.joined(a), Err(GroupError::NotCoordinator));
    assert_eq!(rig.joined(c), Err(GroupError::NotCoordinator));
    assert_eq!(
        rig.answer(b),
        GroupReply::Heartbeat(Err(GroupError::NotCoordinator))
    );
    assert_eq!(rig.coordinator.waiting(), 0);
    let late = rig.join(back("a"));
    assert_eq!(rig.joined(late), Err(GroupError::NotCoordinator));
    rig.held = false;
    rig.decide_all();
    assert_eq!(rig.coordinator.waiting(), 0, "late outcomes concern nobody");

    let mut follower = Coordinator::new(settings());
    let request = GroupRequest::List(Vec::new());
    let event = Event::Request {
        ticket: Ticket(1),
        request,
        current: true,
    };
    assert_eq!(follower.handle(rig.now, event, &rig.world).len(), 1);
}

#[test]
fn a_rebalance_goes_on_under_the_next_leader() {
    let mut rig = Rig::stable(&["a", "b"]);
    let a = rig.join(back("a"));
    rig.fail_over(settings());
    assert_eq!(rig.joined(a), Err(GroupError::NotCoordinator));
    let a = rig.join(back("a"));
    assert!(rig.waits(a));
    let b = rig.join(back("b"));
    assert_eq!(rig.joined(a).expect("joins").members.len(), 2);
    rig.joined(b).expect("joins");

    let b = rig.sync("b", 2, &[]);
    rig.fail_over(settings());
    assert_eq!(rig.synced(b), Err(GroupError::NotCoordinator));
    let b = rig.sync("b", 2, &[]);
    let a = rig.sync("a", 2, &["a", "b"]);
    assert_eq!(rig.synced(a).expect("syncs").assignment, "a");
    assert_eq!(rig.synced(b).expect("syncs").assignment, "b");
}

#[test]
fn a_first_rebalance_whose_requests_were_lost_still_ends() {
    let mut rig = Rig::new();
    rig.join(new("a"));
    rig.fail_over(settings());
    rig.pass(DELAY * 2);
    assert_eq!(rig.phase(), Phase::CompletingRebalance);
    let a = rig.join(back("a"));
    assert_eq!(
        rig.joined(a).expect("joins").members.len(),
        1,
        "the member missed the answer"
    );
}

#[test]
fn a_join_whose_outcome_is_unknown_makes_one_member() {
    for applied in [true, false] {
        let mut rig = Rig::new();
        rig.held = true;
        let a = rig.join(new("a"));
        let (proposal, command) = rig.journal.pop_front().expect("is proposed");
        if applied {
            rig.apply(None, &command);
        }
        rig.handle(Event::Failed {
            proposal,
            ambiguous: true,
        });
        rig.held = false;
        rig.decide_all();
        rig.pass(DELAY);
        assert_eq!(rig.joined(a).expect("joins").members.len(), 1);
    }
}

#[test]
fn an_outcome_that_stays_unknown_is_said_to_be() {
    let mut rig = Rig::new();
    rig.held = true;
    let a = rig.join(new("a"));
    let mut proposals = 0;
    while let Some((proposal, _)) = rig.journal.pop_front() {
        proposals += 1;
        rig.handle(Event::Failed {
            proposal,
            ambiguous: true,
        });
    }
    assert!(proposals > 1 && proposals < 10);
    assert_eq!(rig.joined(a), Err(GroupError::CoordinatorNotAvailable));
}

#[test]
fn a_definite_failure_sends_the_member_elsewhere() {
    let mut rig = Rig::stable(&["a"]);
    rig.held = true;
    let a = rig.join(back("a"));
    let (proposal, _) = rig.journal.pop_front().expect("is proposed");
    rig.handle(Event::Failed {
        proposal,
        ambiguous: false,
    });
    assert_eq!(rig.joined(a), Err(GroupError::NotCoordinator));
}

#[test]
fn what_the_journal_never_takes_is_final() {
    let mut rig = Rig::stable(&["a"]);
    rig.held = true;
    let join = rig.join(back("a"));
    too_large(&mut rig);
    assert_eq!(rig.joined(join), Err(GroupError::TooLarge));

    rig.held = false;
    let join = rig.join(back("a"));
    rig.joined(join).expect("joins");
    rig.held = true;
    let sync = rig.sync("a", 2, &["a"]);
    too_large(&mut rig);
    assert_eq!(rig.synced(sync), Err(GroupError::TooLarge));

    let partition = |partition| CommitPartition {
        partition,
        offset: 1,
        leader_epoch: 1,
        metadata: String::new(),
    };
    let commit = rig.ask(GroupRequest::Commit(CommitOffsets {
        by: None,
        group: "g".to_owned(),
        generation: 2,
        member: "a".to_owned(),
        instance: None,
        topics: vec![(
            TopicName::Name("t".to_owned()),
            vec![partition(0), partition(-1)],
        )],
    }));
    too_large(&mut rig);
    let GroupReply::Commit(results) = rig.answer(commit) else {
        panic!("not an answer to a commit")
    };
    let expected = [
        Err(GroupError::TooLarge),
        Err(GroupError::Refused(Refusal::UnknownTopicOrPartition)),
    ];
    assert_eq!(results, expected);
}

/// The journal does not take what was proposed last.
fn too_large(rig: &mut Rig) {
    let (proposal, _) = rig.journal.pop_back().expect("is proposed");
    rig.handle(Event::TooLarge { proposal });
}

#[test]
fn leaving_twice_for_one_request_is_leaving_once() {
    let mut rig = Rig::stable(&["a", "b"]);
    rig.held = true;
    let member = Leaving {
        member: "b".to_owned(),
        instance: None,
    };
    let ticket = rig.ask(GroupRequest::Leave {
        group: "g".to_owned(),
        members: vec![member],
    });
    let (proposal, command) = rig.journal.pop_front().expect("is proposed");
    rig.apply(None, &command);
    rig.handle(Event::Failed {
        proposal,
        ambiguous: true,
    });
    rig.held = false;
    rig.decide_all();
    let GroupReply::Leave(Ok(results)) = rig.answer(ticket) else {
        panic!("has left")
    };
    assert_eq!(results, [Ok(())]);
}

#[test]
fn an_expiry_or_completion_that_fails_is_tried_again() {
    let mut rig = Rig::stable(&["a", "b"]);
    rig.pass_with(SESSION - SECOND, &["a"], 1);
    rig.held = true;
    rig.pass_with(SECOND * 2, &["a"], 1);
    let (proposal, command) = rig.journal.pop_front().expect("is proposed");
    assert_eq!(command.action, Action::Expire(vec!["b".to_owned()]));
    rig.handle(Event::Failed {
        proposal,
        ambiguous: true,
    });
    rig.held = false;
    rig.pass_with(SECOND * 2, &["a"], 1);
    assert!(rig.group().member("b").is_none());

    let a = rig.join(modern("c"));
    rig.joined(a).expect_err("is given an id");
    let a = rig.join(back("a"));
    rig.held = true;
    rig.pass(SESSION + SECOND);
    let (proposal, command) = rig.journal.pop_front().expect("is proposed");
    assert!(matches!(command.action, Action::CompleteJoin { .. }));
    rig.handle(Event::Failed {
        proposal,
        ambiguous: false,
    });
    rig.held = false;
    rig.pass(SECOND * 2);
    assert!(rig.joined(a).is_ok());
}

#[test]
fn nobody_is_out_because_the_journal_stalls() {
    let mut rig = Rig::stable(&["a", "b"]);
    rig.held = true;
    rig.current = false;
    let waiting = [rig.send_heartbeat("a", 1), rig.send_heartbeat("b", 1)];
    rig.pass(SESSION * 5);
    assert_eq!(
        rig.journal.len(),
        0,
        "silence says nothing while nobody can get through"
    );
    rig.held = false;
    rig.current = true;
    rig.decide_all();
    for ticket in waiting {
        assert_eq!(rig.answer(ticket), GroupReply::Heartbeat(Ok(())));
    }
    rig.pass(SESSION - SECOND);
    assert_eq!(rig.phase(), Phase::Stable);
}

#[test]
fn a_barrier_that_does_not_pass_sends_the_member_elsewhere() {
    let mut rig = Rig::stable(&["a"]);
    rig.held = true;
    rig.current = false;
    let ticket = rig.send_heartbeat("a", 1);
    let asked = rig.barriers.pop_front().expect("a barrier is asked for");
    assert_eq!(asked, ticket);
    rig.handle(Event::Barrier {
        ticket,
        passed: false,
    });
    assert_eq!(
        rig.answer(ticket),
        GroupReply::Heartbeat(Err(GroupError::NotCoordinator))
    );
}
