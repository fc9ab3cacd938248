//! What a leader makes of answers that come late or say less than they seem to.

use super::*;

#[test]
fn an_entry_whose_first_attempt_may_yet_land_is_settled_when_a_later_one_is_superseded() {
    let mut bench = Bench::leader();
    bench.give(propose(0..1));
    let (id, _) = bench.append();
    let (second, _) = bench.repeat(id);
    bench.give(Event::AppendDone(second, Append::Superseded));
    while !bench
        .effects
        .iter()
        .any(|effect| matches!(effect, Effect::Take { .. }))
    {
        bench.now.boot = bench.node.deadline().unwrap_or(bench.now.boot);
        let event = bench.answer().unwrap_or(Event::Timer);
        bench.give(event);
    }
    let mut takes = bench.effects.iter();
    let through = takes.find_map(|effect| match effect {
        Effect::Take { through, .. } => Some(*through),
        _ => None,
    });
    assert_eq!(through, Some(id.index + 1));
}

#[test]
fn an_idle_leader_does_not_take_its_own_new_entry_for_anothers() {
    let mut bench = Bench::leader();
    let is_scan = |effect: &Effect| matches!(effect, Effect::Scan { .. });
    while !bench.effects.iter().any(is_scan) {
        let event = bench.answer().unwrap_or(Event::Timer);
        bench.now.boot = bench
            .node
            .deadline()
            .map_or(bench.now.boot, |at| at.max(bench.now.boot));
        bench.give(event);
    }
    let at = bench.effects.iter().position(is_scan).expect("a look");
    let look = bench.effects.remove(at);
    bench.run(propose(0..1));
    let takes = bench.takes;
    // The look is answered after the entry has landed in the slot that it asked about.
    bench.effects.push(look);
    let answer = bench.answer().expect("an answer");
    assert!(matches!(&answer, Event::Scanned(_, run) if run.slots.len() == 1));
    bench.run(answer);
    assert_eq!(bench.node.role(), Role::Leader);
    assert_eq!(bench.takes, takes, "it took the journal again");
}
