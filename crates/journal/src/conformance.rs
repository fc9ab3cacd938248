//! The suite that every engine passes, public so that other crates and other people's engines can
//! run it. Each check panics with what was broken. It must not know which engine it tests.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use crate::engine::{Append, Content, End, Engine, TakeError, Taken, Tenure, WINDOW};

/// Engines on one journal, which is empty at first: each call yields the engine of another node.
pub type Journal = Box<dyn Fn() -> Box<dyn Engine> + Send + Sync>;

/// Runs every check. `fresh` gives another journal at every call.
///
/// # Panics
/// If the engine breaks a promise of [`Engine`] or [`Tenure`].
pub async fn run<F, Fut>(mut fresh: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Journal>,
{
    an_empty_journal_is_empty(fresh().await).await;
    a_tenure_begins_with_its_claim(fresh().await).await;
    the_same_bytes_are_known_again(fresh().await).await;
    other_bytes_for_a_slot_are_refused(fresh().await).await;
    a_tenure_keeps_to_its_window(fresh().await).await;
    slots_of_the_window_are_appended_in_any_order(fresh().await).await;
    another_owner_ends_a_tenure(fresh().await).await;
    a_later_take_ends_the_tenure_before(fresh().await).await;
    a_take_settles_what_is_there(fresh().await).await;
    a_take_shuts_out_what_is_on_its_way(fresh().await).await;
    of_many_who_take_at_once_each_slot_has_one_winner(fresh().await).await;
    a_scan_is_an_unbroken_run(fresh().await).await;
    the_largest_slot_fits(fresh().await).await;
    the_floor_only_rises(fresh().await).await;
    a_spared_slot_stays_occupied(fresh().await).await;
    a_sleeper_learns_of_the_floor(fresh().await).await;
    trimming_again_is_fine(fresh().await).await;
    a_mark_is_adopted(fresh().await).await;
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn entry(text: &str) -> Content {
    Content::Entry(bytes(text))
}

/// A take that is repeated until the engine answers and, if that is among what it may do, gives way to no other.
async fn take(engine: &dyn Engine, from: u64, through: u64) -> Taken {
    loop {
        match engine.take(from, through).await {
            Ok(taken) => return taken,
            Err(TakeError::Unavailable(_)) => {}
            Err(TakeError::Superseded) if engine.limits().takes_give_way => {}
            Err(error) => panic!("no tenure: {error}"),
        }
    }
}

/// An append that is repeated until its outcome is known.
async fn send(tenure: &dyn Tenure, index: u64, text: &str) -> Append {
    loop {
        let sent = tenure.append(index, u128::from(index), bytes(text)).await;
        if !matches!(sent, Append::Unknown(_)) {
            return sent;
        }
    }
}

async fn put(tenure: &dyn Tenure, index: u64, text: &str) {
    let outcome = send(tenure, index, text).await;
    assert_eq!(outcome, Append::Appended, "slot {index} was free");
}

/// A tenure of an empty journal whose claim is in slot 1 and counts.
async fn lead(engine: &dyn Engine) -> Arc<dyn Tenure> {
    let taken = take(engine, 1, 1).await;
    put(taken.tenure.as_ref(), 1, "entry 1").await;
    taken.tenure.confirmed();
    taken.tenure
}

async fn fill(engine: &dyn Engine, through: u64) -> Arc<dyn Tenure> {
    let tenure = lead(engine).await;
    for index in 2..=through {
        put(tenure.as_ref(), index, &format!("entry {index}")).await;
    }
    tenure
}

/// What the slot holds, on the engine's definite word.
async fn held(engine: &dyn Engine, index: u64) -> Option<Content> {
    loop {
        let scan = engine.scan(index, 1).await;
        match (scan.slots.into_iter().next(), scan.end) {
            (Some((at, content)), _) => {
                assert_eq!(at, index);
                return Some(content);
            }
            (None, End::Free) => return None,
            (None, _) => {}
        }
    }
}

async fn an_empty_journal_is_empty(journal: Journal) {
    let engine = journal();
    assert_eq!(engine.above(0).await, Ok(None));
    let scan = engine.scan(1, 10).await;
    assert_eq!((scan.slots, scan.end), (Vec::new(), End::Free));
    let floor = engine.floor().await.expect("the floor can be read");
    assert!(floor <= 1, "the floor of an empty journal is {floor}");
    assert_eq!(take(engine.as_ref(), 1, 1).await.settled, []);
}

async fn a_tenure_begins_with_its_claim(journal: Journal) {
    let engine = journal();
    let tenure = take(engine.as_ref(), 1, 1).await.tenure;
    put(tenure.as_ref(), 1, "claim").await;
    tenure.confirmed();
    put(tenure.as_ref(), 2, "commands").await;
    assert_eq!(held(engine.as_ref(), 1).await, Some(entry("claim")));
    assert_eq!(held(journal().as_ref(), 2).await, Some(entry("commands")));
    // The append comes before the claim is confirmed, so nothing is sent.
    let other = journal();
    let tenure = take(other.as_ref(), 1, 1).await.tenure;
    put(tenure.as_ref(), 3, "claim").await;
    let early = send(tenure.as_ref(), 4, "commands").await;
    assert_eq!(early, Append::Superseded);
    assert_eq!(held(engine.as_ref(), 4).await, None);
    tenure.confirmed();
    let over = send(tenure.as_ref(), 4, "commands").await;
    assert_eq!(over, Append::Superseded, "the tenure is over");
}

async fn the_same_bytes_are_known_again(journal: Journal) {
    // A writer repeats an append after a lost reply.
    let engine = journal();
    let tenure = lead(engine.as_ref()).await;
    for _ in 0..3 {
        put(tenure.as_ref(), 2, "ours").await;
    }
    put(tenure.as_ref(), 3, "and on").await;
}

async fn other_bytes_for_a_slot_are_refused(journal: Journal) {
    for other in ["other", "our", "ours!"] {
        let engine = journal();
        let from = 1;
        let taken = take(engine.as_ref(), from, from).await;
        let first = taken.settled.last().map_or(1, |(index, _)| index + 1);
        put(taken.tenure.as_ref(), first, "ours").await;
        let outcome = send(taken.tenure.as_ref(), first, other).await;
        assert_eq!(outcome, Append::Superseded, "{other}");
        assert_eq!(held(engine.as_ref(), first).await, Some(entry("ours")));
        let over = send(taken.tenure.as_ref(), first, "ours").await;
        assert_eq!(over, Append::Superseded, "the tenure is over");
    }
}

async fn a_tenure_keeps_to_its_window(journal: Journal) {
    let engine = journal();
    let tenure = fill(engine.as_ref(), 3).await;
    let beyond = 4 + WINDOW;
    assert_eq!(
        send(tenure.as_ref(), beyond, "far").await,
        Append::Superseded
    );
    assert_eq!(held(engine.as_ref(), beyond).await, None);
    let engine = journal();
    let taken = take(engine.as_ref(), 1, 1).await;
    assert_eq!(taken.settled.len(), 3);
    let before = send(taken.tenure.as_ref(), 3, "behind").await;
    assert_eq!(before, Append::Superseded);
}

async fn slots_of_the_window_are_appended_in_any_order(journal: Journal) {
    let engine = journal();
    let tenure = lead(engine.as_ref()).await;
    for round in 0..3 {
        let first = 2 + round * WINDOW;
        for index in (first..first + WINDOW).rev() {
            put(tenure.as_ref(), index, &format!("entry {index}")).await;
        }
    }
    let scan = engine.scan(1, 100).await;
    assert!(!scan.slots.is_empty());
}

async fn another_owner_ends_a_tenure(journal: Journal) {
    let (one, two) = (journal(), journal());
    let first = fill(one.as_ref(), 3).await;
    let taken = take(two.as_ref(), 1, 1).await;
    assert_eq!(taken.settled.len(), 3);
    put(taken.tenure.as_ref(), 4, "the other's claim").await;
    let lost = send(first.as_ref(), 4, "too late").await;
    assert_eq!(lost, Append::Superseded);
    let over = send(first.as_ref(), 5, "over").await;
    assert_eq!(over, Append::Superseded);
    assert_eq!(held(one.as_ref(), 5).await, None);
    assert!(first.trim(2, &[]).await.is_err(), "it trims no more");
    let again = take(one.as_ref(), 4, 4).await;
    assert_eq!(again.settled, [(4, entry("the other's claim"))]);
}

async fn a_later_take_ends_the_tenure_before(journal: Journal) {
    let engine = journal();
    let first = fill(engine.as_ref(), 3).await;
    let second = take(engine.as_ref(), 4, 4).await.tenure;
    assert_eq!(send(first.as_ref(), 4, "old").await, Append::Superseded);
    put(second.as_ref(), 4, "new").await;
}

async fn a_take_settles_what_is_there(journal: Journal) {
    let (one, two) = (journal(), journal());
    let tenure = fill(one.as_ref(), 3).await;
    // Slots as a leader leaves them that had several entries in flight.
    for index in [5, 6, 9] {
        put(tenure.as_ref(), index, "late").await;
    }
    let taken = take(two.as_ref(), 3, 3).await;
    let expected = [
        (3, entry("entry 3")),
        (4, Content::Filler),
        (5, entry("late")),
        (6, entry("late")),
        (7, Content::Filler),
        (8, Content::Filler),
        (9, entry("late")),
    ];
    assert_eq!(taken.settled, expected);
    put(taken.tenure.as_ref(), 10, "claim").await;
    assert_eq!(send(tenure.as_ref(), 4, "late").await, Append::Superseded);
    assert_eq!(held(one.as_ref(), 4).await, Some(Content::Filler));
    let scan = one.scan(4, 1).await;
    assert_eq!(scan.slots, [(4, Content::Filler)]);
}

async fn a_take_shuts_out_what_is_on_its_way(journal: Journal) {
    let (one, two) = (journal(), journal());
    let tenure = fill(one.as_ref(), 3).await;
    let taken = take(two.as_ref(), 4, 4 + WINDOW).await;
    assert_eq!(taken.settled.len(), WINDOW as usize);
    for index in (4..4 + WINDOW).rev() {
        let late = send(tenure.as_ref(), index, "late").await;
        assert_eq!(late, Append::Superseded, "slot {index}");
    }
    put(taken.tenure.as_ref(), 4 + WINDOW, "claim").await;
}

async fn of_many_who_take_at_once_each_slot_has_one_winner(journal: Journal) {
    let racers = (0..8).map(|racer| {
        let engine = journal();
        async move {
            let mut won = Vec::new();
            for _ in 0..3 {
                let taken = take(engine.as_ref(), 1, 1).await;
                let first = taken.settled.last().map_or(1, |(index, _)| index + 1);
                let text = format!("racer {racer}");
                if send(taken.tenure.as_ref(), first, &text).await == Append::Appended {
                    won.push((first, entry(&text)));
                }
            }
            won
        }
    });
    let won: Vec<_> = join_all(racers).await.into_iter().flatten().collect();
    let engine = journal();
    assert!(!won.is_empty(), "nobody ever wins");
    for (index, expected) in won {
        let found = held(engine.as_ref(), index).await;
        assert_eq!(found, Some(expected), "slot {index}");
    }
}

async fn a_scan_is_an_unbroken_run(journal: Journal) {
    let engine = journal();
    fill(engine.as_ref(), 40).await;
    let mut next = 3;
    while next <= 40 {
        let scan = engine.scan(next, 16).await;
        assert!(scan.slots.len() <= 16, "{} slots", scan.slots.len());
        assert!(!scan.slots.is_empty() || scan.end != End::Free);
        for (index, found) in scan.slots {
            assert_eq!((index, found), (next, entry(&format!("entry {next}"))));
            next += 1;
        }
    }
    let scan = engine.scan(41, 16).await;
    assert_eq!((scan.slots, scan.end), (Vec::new(), End::Free));
    assert_eq!(engine.above(39).await, Ok(Some(40)));
    assert_eq!(engine.above(40).await, Ok(None));
}

async fn the_largest_slot_fits(journal: Journal) {
    let engine = journal();
    let tenure = take(engine.as_ref(), 1, 1).await.tenure;
    let large = Bytes::from(vec![0x5a; engine.limits().slot_bytes_max]);
    assert_eq!(tenure.append(1, 1, large.clone()).await, Append::Appended);
    let found = held(journal().as_ref(), 1).await;
    assert_eq!(found, Some(Content::Entry(large)));
}

async fn the_floor_only_rises(journal: Journal) {
    let engine = journal();
    let tenure = fill(engine.as_ref(), 9).await;
    for floor in [3, 7, 5] {
        tenure.trim(floor, &[]).await.expect("a trim");
    }
    assert_eq!(journal().floor().await, Ok(7));
    assert_eq!(held(engine.as_ref(), 1).await, Some(entry("entry 1")));
}

/// A trim spared the first slot that the sleeper lost, so the sleeper learns that it lost.
async fn a_spared_slot_stays_occupied(journal: Journal) {
    let (sleeper, engine) = (journal(), journal());
    let old = fill(sleeper.as_ref(), 3).await;
    let taken = take(engine.as_ref(), 4, 4).await;
    put(taken.tenure.as_ref(), 4, "entry 4").await;
    taken.tenure.confirmed();
    for index in 5..=9 {
        put(taken.tenure.as_ref(), index, &format!("entry {index}")).await;
    }
    let trimmed = taken.tenure.trim(8, &[2, 3, 5, 6, 7]).await;
    trimmed.expect("a trim");
    assert_eq!(send(old.as_ref(), 4, "zombie").await, Append::Superseded);
    for (index, kept) in [(1, true), (2, false), (4, true), (7, false), (8, true)] {
        let slot = held(engine.as_ref(), index).await;
        assert_eq!(slot.is_some(), kept, "slot {index}");
    }
    assert_eq!(engine.above(8).await, Ok(Some(9)));
    assert_eq!(engine.above(9).await, Ok(None));
}

/// A sleeper that finds trimmed slots free learns of the trim, at the latest by the floor that it
/// reads after its claim.
async fn a_sleeper_learns_of_the_floor(journal: Journal) {
    let (sleeper, engine) = (journal(), journal());
    let tenure = fill(engine.as_ref(), 9).await;
    tenure.trim(8, &[5]).await.expect("a trim");
    match sleeper.take(5, 5).await {
        Err(TakeError::Trimmed(floor)) => assert!(floor > 5),
        Err(TakeError::Superseded) if sleeper.limits().takes_give_way => {}
        Err(error) => panic!("{error}"),
        Ok(_) => {}
    }
    let floor = sleeper.floor().await.expect("the floor can be read");
    assert!(floor > 5, "slot 5 was trimmed and the floor is {floor}");
}

async fn trimming_again_is_fine(journal: Journal) {
    let engine = journal();
    let tenure = fill(engine.as_ref(), 9).await;
    for _ in 0..2 {
        tenure.trim(6, &[2, 3, 4]).await.expect("a trim");
    }
    assert_eq!(held(engine.as_ref(), 3).await, None);
    assert_eq!(engine.floor().await, Ok(6));
}

async fn a_mark_is_adopted(journal: Journal) {
    let engine = journal();
    fill(engine.as_ref(), 9).await;
    let mark = engine.mark(9);
    assert_eq!(journal().adopt(&mark), Ok(()));
}
