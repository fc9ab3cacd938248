//! A node that is stuck at an entry: what it does on an operator's word, and what keeps it from that.

use super::*;
use crate::quarantine::{Order, Word};

/// The slot of the entry that cannot be applied.
const POISON: u64 = 3;

/// Gives an event and answers every request at once. The entry cannot be applied, and the newest snapshot is at `snapshot`.
fn run(bench: &mut Bench, event: Event, snapshot: Option<u64>) {
    run_among(bench, event, snapshot, &mut Vec::new());
}

/// The same with others, of whom each time that they are asked the last answers are taken.
fn run_among(
    bench: &mut Bench,
    event: Event,
    snapshot: Option<u64>,
    others: &mut Vec<Result<Vec<Said>, engine::Error>>,
) {
    bench.give(event);
    loop {
        let is_poison =
            |effect: &Effect| matches!(effect, Effect::Apply { id, .. } if id.index == POISON);
        if let Some(at) = bench.effects.iter().position(is_poison) {
            let unperformed = bench.effects.split_off(at).into_iter();
            let unperformed: Vec<Event> = unperformed
                .filter_map(|effect| effect.unperformed())
                .collect();
            bench.effects.clear();
            bench.give(Event::Poisoned(POISON, "overflow".to_owned()));
            unperformed.into_iter().for_each(|event| bench.give(event));
        }
        let finds = |effect: &mut Effect| matches!(effect, Effect::FindSnapshot { .. });
        let finds: Vec<Effect> = bench.effects.extract_if(.., finds).collect();
        if let [Effect::FindSnapshot { ask, from }] = finds[..] {
            assert_eq!(from, POISON);
            bench.give(Event::SnapshotFound(ask, Ok(snapshot)));
            continue;
        }
        let hears = |effect: &mut Effect| matches!(effect, Effect::Hear { .. });
        let hears: Vec<Effect> = bench.effects.extract_if(.., hears).collect();
        if let [Effect::Hear { ask, slot }] = hears[..] {
            assert_eq!(slot, POISON);
            let said = others.pop().unwrap_or_else(|| Ok(Vec::new()));
            bench.give(Event::Heard(ask, said));
            continue;
        }
        match bench.answer() {
            Some(event) => bench.give(event),
            None => return,
        }
    }
}

/// The slots of a leader that has appended two entries, of which nobody can apply the second.
fn poisoned() -> Slots {
    let mut leader = Bench::leader();
    leader.run(propose(0..1));
    leader.run(propose(1..2));
    leader.slots
}

/// A node that has come to its end on these slots.
fn begun(slots: Slots, word: Option<Word>, rules: Rules, snapshot: Option<u64>) -> Bench {
    begun_among(
        slots,
        word.map(Order::from),
        rules,
        snapshot,
        &mut Vec::new(),
    )
}

fn begun_among(
    slots: Slots,
    order: Option<Order>,
    rules: Rules,
    snapshot: Option<u64>,
    others: &mut Vec<Result<Vec<Said>, engine::Error>>,
) -> Bench {
    let mut settings = Settings::alone("n");
    settings.quarantine = order;
    let mut bench = Bench::new(settings.clone());
    let mut next = 1_000;
    let entropy = Box::new(move || {
        next += 1;
        next
    });
    bench.node = Node::under(rules, settings, entropy);
    bench.slots = slots;
    run_among(&mut bench, Event::Started, snapshot, others);
    bench
}

/// What a node says that has applied so much.
fn said(name: &str, applied: Option<u64>) -> Said {
    Said {
        name: name.to_owned(),
        version: Some("0.9".to_owned()),
        applied,
    }
}

fn ordered(slots: &Slots, is_forced: bool) -> Option<Order> {
    let word = word(slots);
    Some(Order { word, is_forced })
}

/// The word for the entry, as it is told.
fn word(slots: &Slots) -> Word {
    let bench = begun(slots.clone(), None, Rules::all(), None);
    assert_eq!(bench.takes, 0, "it does not claim of itself");
    let told = bench.node.stuck().expect("it is stuck");
    let (_, word) = told.split_once("journal.quarantine=").expect("a word");
    word.parse().expect("a word")
}

#[test]
fn the_word_is_followed_by_one_claim_and_one_entry_and_then_it_leads() {
    let slots = poisoned();
    let bench = begun(slots.clone(), Some(word(&slots)), Rules::all(), None);
    assert_eq!(bench.node.role(), Role::Leader);
    assert_eq!(bench.node.stuck(), None);
    assert_eq!(bench.node.word(), Some((word(&slots), true)));
    // A take closes the slots that the leader before may have sent to; then a claim, the quarantine and a claim.
    let head = bench.slots.head().expect("a journal");
    let entries = (POISON + 1..=head).filter_map(|slot| match bench.slots.read(slot) {
        Some(Content::Entry(bytes)) => Some(Entry::decode(&bytes).expect("an entry").body),
        _ => None,
    });
    let entries: Vec<_> = entries.collect();
    let [
        crate::entry::Body::Claim { .. },
        crate::entry::Body::Commands(items),
        crate::entry::Body::Claim { .. },
    ] = &entries[..]
    else {
        panic!("{entries:?}");
    };
    assert_eq!(items.len(), 1);
}

#[test]
fn a_snapshot_that_holds_the_entry_keeps_it_from_being_left_out() {
    let slots = poisoned();
    let word = Some(word(&slots));
    let mut bench = begun(slots.clone(), word, Rules::all(), Some(POISON));
    let told = bench.node.stuck().expect("it is stuck");
    assert!(told.contains("the snapshot at entry 3 holds it"), "{told}");
    let takes = bench.takes;
    for _ in 0..20 {
        bench.now.boot = bench.node.deadline().expect("it reads on");
        run(&mut bench, Event::Timer, None);
    }
    assert_eq!(
        (bench.takes, bench.node.role()),
        (takes, Role::Stuck),
        "once is enough"
    );
    let careless = Rules::without(Rule::QuarantineBeforeSnapshots);
    let bench = begun(slots, word, careless, Some(POISON));
    assert_eq!(bench.node.role(), Role::Leader, "the rule is what keeps it");
}

#[test]
fn a_node_that_is_there_and_has_applied_it_keeps_it_from_being_left_out() {
    let slots = poisoned();
    let order = ordered(&slots, false);
    let has = said("c9", Some(POISON));
    for (answer, tells) in [
        (vec![has.clone()], "c9, of version 0.9, has applied it"),
        (
            vec![said("c8", Some(POISON - 1)), said("c7", None)],
            "c7 is there and does not say",
        ),
    ] {
        let mut others = vec![Ok(answer.clone())];
        let bench = begun_among(slots.clone(), order, Rules::all(), None, &mut others);
        let told = bench.node.stuck().expect("it is stuck");
        assert!(told.contains(tells) && !told.contains("c8"), "{told}");
        assert_eq!((bench.takes, bench.node.role()), (0, Role::Stuck));
        let careless = Rules::without(Rule::QuarantineBeforeLiveReplicas);
        let mut others = vec![Ok(answer)];
        let bench = begun_among(slots.clone(), order, careless, None, &mut others);
        assert_eq!(bench.node.role(), Role::Leader, "the rule is what keeps it");
    }
    // When it was asked first it had not.
    let mut others = vec![Ok(vec![has.clone()]), Ok(Vec::new())];
    let bench = begun_among(slots.clone(), order, Rules::all(), None, &mut others);
    assert_eq!((bench.takes, bench.node.role()), (1, Role::Stuck));
    let told = bench.node.stuck().expect("it is stuck");
    assert!(told.contains("c9, of version 0.9"), "{told}");
    assert!(
        told.ends_with(&format!("journal.quarantine={}-forced", word(&slots))),
        "{told}"
    );
    let mut others = vec![Ok(vec![has])];
    let forced = ordered(&slots, true);
    let bench = begun_among(slots, forced, Rules::all(), None, &mut others);
    assert_eq!(bench.node.role(), Role::Leader);
}

#[test]
fn while_it_is_not_known_who_is_there_nothing_is_left_out() {
    let slots = poisoned();
    let away = || Err(engine::Error::Unavailable("the bucket is away".to_owned()));
    let mut others = vec![Ok(Vec::new()), Ok(Vec::new()), away(), away()];
    let order = ordered(&slots, false);
    let mut bench = begun_among(slots, order, Rules::all(), None, &mut others);
    assert_eq!((bench.takes, others.len()), (0, 3));
    while bench.node.role() != Role::Leader {
        bench.now.boot = bench.node.deadline().expect("it asks again");
        run_among(&mut bench, Event::Timer, None, &mut others);
    }
    assert_eq!(
        others.len(),
        0,
        "it has asked before its claim, and after it"
    );
}

#[test]
fn who_has_led_on_or_written_a_snapshot_keeps_it_from_being_left_out_by_force_too() {
    let slots = poisoned();
    let forced = ordered(&slots, true);
    let mut nobody = Vec::new();
    let bench = begun_among(
        slots.clone(),
        forced,
        Rules::all(),
        Some(POISON),
        &mut nobody,
    );
    let told = bench.node.stuck().expect("it is stuck");
    assert!(told.contains("the snapshot at entry 3 holds it"), "{told}");
    let mut rival = Bench::new(Settings::alone("rival"));
    rival.slots = slots;
    rival.run(Event::Started);
    rival.run(propose(5..6));
    let bench = begun_among(rival.slots, forced, Rules::all(), None, &mut nobody);
    let told = bench.node.stuck().expect("it is stuck");
    assert!(told.contains("rival has applied it and led on"), "{told}");
    assert_eq!(bench.takes, 0);
}

#[test]
fn who_has_it_left_out_tells_what_is_lost_and_who_only_reads_that_does_not() {
    let slots = poisoned();
    let lost = |bench: &Bench| -> Vec<usize> {
        let seen = bench.seen.iter();
        let lost = seen.filter_map(|effect| match effect {
            Effect::LeftOut { slot, items } if *slot == POISON => Some(items.len()),
            _ => None,
        });
        lost.collect()
    };
    let bench = begun(slots.clone(), Some(word(&slots)), Rules::all(), None);
    assert_eq!(lost(&bench), [1]);
    let mut reads = begun(slots, None, Rules::all(), None);
    reads.slots = bench.slots;
    reads.pass(2_000);
    run(&mut reads, Event::Timer, None);
    assert_eq!(reads.node.stuck(), None);
    assert_eq!(lost(&reads), [0; 0]);
}

#[test]
fn commands_of_a_later_leader_keep_it_from_being_left_out() {
    let mut slots = poisoned();
    let word = Some(word(&slots));
    let mut rival = Bench::new(Settings::alone("rival"));
    rival.slots = slots;
    rival.run(Event::Started);
    rival.run(propose(5..6));
    slots = rival.slots;
    let bench = begun(slots.clone(), word, Rules::all(), None);
    let told = bench.node.stuck().expect("it is stuck");
    assert!(told.contains("rival has applied it and led on"), "{told}");
    assert_eq!(bench.takes, 0);
    let careless = Rules::without(Rule::QuarantineBeforeOthersLead);
    let bench = begun(slots, word, careless, None);
    assert_eq!(bench.node.role(), Role::Leader, "the rule is what keeps it");
}

#[test]
fn who_is_stuck_goes_on_from_a_snapshot_once_the_journal_is_trimmed_beyond_the_entry() {
    let mut bench = begun(poisoned(), None, Rules::all(), None);
    assert_eq!(bench.node.role(), Role::Stuck);
    let trimmed_to = |bench: &mut Bench, floor| {
        bench.slots.trim(floor, &[]);
        bench.now.boot = bench.node.deadline().expect("it reads on") + Duration::from_secs(6);
        bench.give(Event::Timer);
        loop {
            let loads = |effect: &&Effect| matches!(effect, Effect::LoadSnapshot { .. });
            if let Some(load) = bench.effects.iter().find(loads) {
                return Some(load.clone());
            }
            let answer = bench.answer()?;
            bench.give(answer);
        }
    };
    assert!(
        trimmed_to(&mut bench, POISON).is_none(),
        "it is not trimmed"
    );
    let load = trimmed_to(&mut bench, POISON + 1);
    let from_the_start = |load: &Effect| {
        matches!(
            load,
            Effect::LoadSnapshot {
                above: 0,
                anew: true,
                ..
            }
        )
    };
    assert!(load.as_ref().is_some_and(from_the_start), "{load:?}");
    assert_eq!(bench.node.stuck(), None);
}

#[test]
fn commands_of_its_own_leader_do_so_from_where_that_has_applied_it() {
    for (after, may_be_left_out) in [(WINDOW - 1, true), (WINDOW, false)] {
        let mut leader = Bench::leader();
        (0..2 + after).for_each(|ticket| leader.run(propose(ticket..ticket + 1)));
        let bench = begun(leader.slots, None, Rules::all(), None);
        let told = bench.node.stuck().expect("it is stuck");
        assert!(told.contains("n appended it"), "{told}");
        assert_eq!(
            told.contains("journal.quarantine="),
            may_be_left_out,
            "{told}"
        );
    }
}

#[test]
fn who_finds_its_entry_and_its_quarantine_together_does_not_answer_from_it() {
    let mut bench = Bench::leader();
    bench.run(propose(0..1));
    bench.give(propose(1..2));
    let (id, bytes) = bench.append();
    assert_eq!(id.index, POISON);
    bench.slots.put(id.index, bytes);
    let word = Some(word(&bench.slots));
    bench.slots = begun(bench.slots.clone(), word, Rules::all(), None).slots;
    bench.seen.clear();
    bench.run(Event::AppendDone(id, Append::Superseded));
    assert_eq!(applied(&bench), [0; 0]);
    let lost = bench.seen.iter().find_map(|effect| match effect {
        Effect::Lost { tickets, why } => Some((tickets, why)),
        _ => None,
    });
    let (tickets, why) = lost.expect("its callers are answered");
    assert_eq!(tickets, &[Ticket(1)]);
    assert!(matches!(why, ProposeError::Unknown(_)), "{why}");
}

#[test]
fn a_snapshot_that_was_to_be_cut_at_the_entry_is_cut_later() {
    let mut settings = Settings::alone("n");
    settings.snapshot.entries = POISON;
    settings.snapshot.first_after = Duration::ZERO;
    let mut bench = Bench::new(settings);
    run(&mut bench, Event::Started, None);
    (0..2).for_each(|ticket| run(&mut bench, propose(ticket..ticket + 1), None));
    assert_eq!(bench.node.role(), Role::Stuck);
    bench.node.lasting.settings.quarantine = ordered(&bench.slots, false);
    while bench.node.role() != Role::Leader {
        bench.now.boot = bench.node.deadline().expect("it goes on");
        run(&mut bench, Event::Timer, None);
    }
    bench.seen.clear();
    bench.pass(60_000);
    run(&mut bench, propose(2..3), None);
    let cut = |effect: &Effect| matches!(effect, Effect::WriteSnapshot { .. });
    assert!(bench.seen.iter().any(cut), "{:?}", bench.seen);
}

#[test]
fn a_caller_is_not_told_that_everything_is_applied_where_something_cannot_be() {
    let slots = poisoned();
    let mut bench = begun(slots, None, Rules::all(), None);
    bench.seen.clear();
    run(&mut bench, Event::Confirm(Ticket(7)), None);
    assert!(
        matches!(&bench.seen[..], [Effect::Lost { tickets, .. }] if tickets == &[Ticket(7)]),
        "{:?}",
        bench.seen
    );
}
