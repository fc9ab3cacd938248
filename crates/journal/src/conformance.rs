//! The suite that every engine passes, public so that other crates and other people's engines can
//! run it. Each check panics with what was broken. It must not know which engine it tests.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use crate::engine::{Append, Engine};

/// Runs every check. `fresh` gives an engine with an empty journal, another one at every call.
///
/// # Panics
/// If the engine breaks a promise of [`Engine`].
pub async fn run<F, Fut>(mut fresh: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Arc<dyn Engine>>,
{
    an_empty_journal_is_empty(fresh().await).await;
    a_slot_is_created_once(fresh().await).await;
    the_same_bytes_are_known_again(fresh().await).await;
    races_have_one_winner(fresh().await).await;
    a_scan_is_an_unbroken_run(fresh().await).await;
    the_largest_slot_fits(fresh().await).await;
    the_floor_only_rises(fresh().await).await;
    a_spared_slot_stays_occupied(fresh().await).await;
    a_trimmed_slot_shows_in_the_floor(fresh().await).await;
    trimming_again_is_fine(fresh().await).await;
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn put(engine: &dyn Engine, index: u64, text: &str) {
    let outcome = engine.append(index, u128::from(index), bytes(text)).await;
    assert_eq!(outcome, Append::Appended, "slot {index} was free");
}

async fn fill(engine: &dyn Engine, through: u64) {
    for index in 1..=through {
        put(engine, index, &format!("entry {index}")).await;
    }
}

async fn an_empty_journal_is_empty(engine: Arc<dyn Engine>) {
    assert_eq!(engine.above(0).await, Ok(None));
    assert_eq!(engine.read(1).await, Ok(None));
    assert_eq!(engine.scan(1, 10).await, Ok(Vec::new()));
    let floor = engine.floor().await.expect("the floor can be read");
    assert!(floor <= 1, "the floor of an empty journal is {floor}");
}

async fn a_slot_is_created_once(engine: Arc<dyn Engine>) {
    put(engine.as_ref(), 1, "first").await;
    let second = engine.append(1, 2, bytes("second")).await;
    assert_eq!(second, Append::Occupied(bytes("first")));
    assert_eq!(engine.read(1).await, Ok(Some(bytes("first"))));
}

async fn the_same_bytes_are_known_again(engine: Arc<dyn Engine>) {
    // What a writer sees that repeats an append after a lost reply.
    put(engine.as_ref(), 1, "ours").await;
    put(engine.as_ref(), 1, "ours").await;
    let prefix = engine.append(1, 1, bytes("our")).await;
    assert_eq!(prefix, Append::Occupied(bytes("ours")));
}

async fn races_have_one_winner(engine: Arc<dyn Engine>) {
    for index in 1..=4 {
        let racers = (0..16_u128).map(|racer| {
            let engine = Arc::clone(&engine);
            async move {
                let bytes = bytes(&format!("racer {racer}"));
                loop {
                    // An engine may not know; whoever repeats the same bytes will.
                    match engine.append(index, racer, bytes.clone()).await {
                        Append::Unknown(_) => {}
                        outcome => return (bytes, outcome),
                    }
                }
            }
        });
        let outcomes = join_all(racers).await;
        let kept = engine.read(index).await.expect("readable").expect("filled");
        for (bytes, outcome) in &outcomes {
            let expected = if *bytes == kept {
                Append::Appended
            } else {
                Append::Occupied(kept.clone())
            };
            assert_eq!(*outcome, expected, "slot {index} holds {kept:?}");
        }
    }
}

async fn a_scan_is_an_unbroken_run(engine: Arc<dyn Engine>) {
    fill(engine.as_ref(), 40).await;
    let mut next = 3;
    while next <= 40 {
        let slots = engine.scan(next, 16).await.expect("a scan");
        assert!((1..=16).contains(&slots.len()), "{} slots", slots.len());
        for (index, found) in slots {
            assert_eq!((index, found), (next, bytes(&format!("entry {next}"))));
            next += 1;
        }
    }
    assert_eq!(engine.scan(41, 16).await, Ok(Vec::new()));
    assert_eq!(engine.above(39).await, Ok(Some(40)));
    assert_eq!(engine.above(40).await, Ok(None));
}

async fn the_largest_slot_fits(engine: Arc<dyn Engine>) {
    let large = Bytes::from(vec![0x5a; engine.limits().slot_bytes_max]);
    assert_eq!(engine.append(1, 1, large.clone()).await, Append::Appended);
    assert_eq!(engine.read(1).await, Ok(Some(large.clone())));
    let other = engine.append(1, 2, bytes("late")).await;
    assert_eq!(other, Append::Occupied(large));
}

async fn the_floor_only_rises(engine: Arc<dyn Engine>) {
    fill(engine.as_ref(), 9).await;
    for floor in [3, 7, 5] {
        engine.trim(floor, &[]).await.expect("a trim");
    }
    assert_eq!(engine.floor().await, Ok(7));
    assert_eq!(engine.read(1).await, Ok(Some(bytes("entry 1"))));
}

/// The first slot that a sleeper lost was spared, so the sleeper learns that it lost.
async fn a_spared_slot_stays_occupied(engine: Arc<dyn Engine>) {
    fill(engine.as_ref(), 9).await;
    engine.trim(8, &[2, 3, 5, 6, 7]).await.expect("a trim");
    let zombie = engine.append(4, 99, bytes("zombie")).await;
    assert_eq!(zombie, Append::Occupied(bytes("entry 4")));
    for (index, kept) in [(1, true), (2, false), (4, true), (7, false), (8, true)] {
        let slot = engine.read(index).await.expect("readable");
        assert_eq!(slot.is_some(), kept, "slot {index}");
    }
    assert_eq!(engine.scan(2, 10).await, Ok(Vec::new()));
    assert_eq!(engine.scan(8, 10).await.map(|slots| slots.len()), Ok(2));
    assert_eq!(engine.above(8).await, Ok(Some(9)));
    assert_eq!(engine.above(9).await, Ok(None));
}

/// A claim put where a slot was trimmed is known by the floor, read after it.
async fn a_trimmed_slot_shows_in_the_floor(engine: Arc<dyn Engine>) {
    fill(engine.as_ref(), 9).await;
    engine.trim(8, &[5]).await.expect("a trim");
    match engine.append(5, 99, bytes("a sleeper's claim")).await {
        // An engine may also refuse what lies below the floor.
        Append::Occupied(_) => {}
        outcome => assert_eq!(outcome, Append::Appended),
    }
    let floor = engine.floor().await.expect("the floor can be read");
    assert!(floor > 5, "slot 5 was trimmed and the floor is {floor}");
}

async fn trimming_again_is_fine(engine: Arc<dyn Engine>) {
    fill(engine.as_ref(), 9).await;
    for _ in 0..2 {
        engine.trim(6, &[2, 3, 4]).await.expect("a trim");
    }
    assert_eq!(engine.read(3).await, Ok(None));
    assert_eq!(engine.floor().await, Ok(6));
}
