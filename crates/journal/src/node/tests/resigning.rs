//! A leader that resigns: what it still does, and who takes the lead then.

use super::*;

fn is_refused(bench: &Bench, ticket: u64) -> bool {
    let definite = ProposeError::Definite(Refusal::NotLeader { leader: None });
    bench.seen.iter().any(|effect| {
        matches!(effect, Effect::Lost { tickets, why } if *why == definite && tickets.contains(&Ticket(ticket)))
    })
}

fn has_resigned_at(bench: &Bench, ticket: u64) -> Option<Position> {
    bench.seen.iter().find_map(|effect| match effect {
        Effect::BarrierPassed { tickets, position } if *tickets == [Ticket(ticket)] => {
            Some(*position)
        }
        _ => None,
    })
}

/// A node that follows what another has written.
fn follower_of(leader: &Bench) -> Bench {
    let mut bench = Bench::new(Settings::one_of_several("m"));
    bench.slots = leader.slots.clone();
    bench.run(Event::Started);
    assert_eq!(bench.node.role(), Role::Follower);
    bench
}

#[test]
fn a_leader_that_resigns_settles_what_it_has_taken_and_takes_nothing_more() {
    let mut bench = Bench::leader();
    let [first, second] = two_in_flight(&mut bench);
    // This waits for its entry, which cannot be paid for.
    bench.give(propose(2..3));
    bench.give(Event::Resign(Ticket(9)));
    bench.run(propose(3..4));
    bench.run(Event::Barrier(Ticket(4)));
    assert!(is_refused(&bench, 3) && is_refused(&bench, 4));
    assert_eq!(bench.node.role(), Role::Leader, "entries are in flight");
    let done = bench.land(second);
    bench.run(done);
    assert_eq!(applied(&bench), [0_u64; 0], "the one before is not known");
    let done = bench.land(first);
    bench.run(done);
    assert_eq!(applied(&bench), [0, 1, 2]);
    assert_eq!(bench.node.role(), Role::Follower);
    let claim = Position(bench.node.chain().claim().index);
    assert_eq!(has_resigned_at(&bench, 9), Some(claim));
    assert_eq!(bench.node.claimant(), None, "nobody is sent to it");
    assert_eq!(bench.node.leading_until(), None);
    bench.run(propose(5..6));
    assert!(is_refused(&bench, 5));
}

#[test]
fn a_leader_with_nothing_in_flight_resigns_at_once_and_who_does_not_lead_cannot() {
    let mut bench = Bench::leader();
    bench.run(Event::Resign(Ticket(1)));
    assert_eq!(bench.node.role(), Role::Follower);
    assert_eq!(has_resigned_at(&bench, 1), Some(Position(1)));
    bench.run(Event::Resign(Ticket(2)));
    assert_eq!(has_resigned_at(&bench, 2), None);
    assert!(is_refused(&bench, 2));
}

#[test]
fn a_leader_that_loses_its_tenure_resigns_once_it_has_settled_that() {
    let mut bench = Bench::leader();
    bench.give(propose(0..1));
    let (id, bytes) = bench.append();
    bench.give(Event::Resign(Ticket(9)));
    // Somebody has closed its slot.
    bench
        .slots
        .take(id.index, id.index + 1)
        .expect("it is free");
    let done = bench.land((id, bytes));
    bench.run(done);
    assert_eq!(bench.takes, 2, "it renews its lead");
    assert_eq!(applied(&bench), [0]);
    let claim = bench.node.chain().claim().index;
    assert!(claim > id.index, "it is another claim");
    assert_eq!(has_resigned_at(&bench, 9), Some(Position(claim)));
    assert_eq!(bench.node.role(), Role::Follower);
}

#[test]
fn a_successor_that_is_told_claims_without_waiting_for_silence() {
    let mut leader = Bench::leader();
    leader.run(propose(0..3));
    leader.run(Event::Resign(Ticket(9)));
    let claim = leader.node.chain().claim().index;
    let mut bench = follower_of(&leader);
    let mut other = follower_of(&leader);
    // The lead that is said to have ended is another one.
    bench.run(Event::LeaderResigned(claim + 1));
    assert_eq!(bench.node.role(), Role::Follower);
    assert_eq!(bench.takes, 0);
    bench.run(Event::LeaderResigned(claim));
    assert_eq!(bench.node.role(), Role::Leader);
    // It is told to another as well, late.
    other.slots = bench.slots.clone();
    other.run(Event::Grew(bench.node.chain().last().index));
    other.run(Event::LeaderResigned(claim));
    assert_eq!(other.node.role(), Role::Follower);
    assert_eq!(other.takes, 0);
    assert_eq!(other.node.claimant(), Some("m"));
}

#[test]
fn a_successor_that_is_told_before_it_has_read_the_renewed_claim_reads_it_and_claims() {
    let mut leader = Bench::leader();
    leader.run(propose(0..1));
    let mut bench = follower_of(&leader);
    let mut rival = follower_of(&leader);
    leader.give(propose(1..2));
    let (id, bytes) = leader.append();
    leader.give(Event::Resign(Ticket(9)));
    leader
        .slots
        .take(id.index, id.index + 1)
        .expect("it is free");
    let done = leader.land((id, bytes));
    leader.run(done);
    let claim = leader.node.chain().claim().index;
    bench.slots = leader.slots.clone();
    bench.run(Event::LeaderResigned(claim));
    assert_eq!(bench.node.role(), Role::Leader, "without any time passing");
    // Another has claimed since: that one is deposed by nobody who is told late.
    rival.slots = bench.slots.clone();
    rival.run(Event::LeaderResigned(claim));
    assert_eq!(rival.node.role(), Role::Follower);
    assert_eq!(rival.takes, 0);
    assert_eq!(rival.node.claimant(), Some("m"));
}

#[test]
fn a_leader_that_is_said_to_have_resigned_and_has_not_loses_nothing() {
    let mut leader = Bench::leader();
    leader.run(propose(0..1));
    let claim = leader.node.chain().claim().index;
    let mut bench = follower_of(&leader);
    leader.give(propose(1..2));
    let entry = leader.append();
    bench.run(Event::LeaderResigned(claim));
    assert_eq!(bench.node.role(), Role::Leader);
    // What was in flight meets the slots that the other has closed.
    leader.slots = bench.slots.clone();

    let done = leader.land(entry);
    leader.run(done);
    assert_eq!(leader.node.role(), Role::Follower);
    assert_eq!(applied(&leader), [0], "it is not acknowledged");
}
