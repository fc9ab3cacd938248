//! A commit that is held up between its agent and the leader, while its client gives up and commits a later offset by another agent: the
//! first must not replace the second once it arrives (three regions, rule P1). It must not know how a call travels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use host::clock;
use host::seeded::{self, Place};
use wire::messages::offset_fetch::OffsetFetchRequest;
use wire::text::Str;

use super::client::Client;
use super::consumer::commit;
use super::{Town, nemesis};

const GROUP: Str = Str::from_static("late");
/// The offsets that are committed: before all, the one that is held up, and the one that is committed meanwhile.
const BEGUN: i64 = 50;
const EARLY: i64 = 100;
const LATER: i64 = 120;
/// Where the client is.
const FIRST_CLIENT: u16 = 600;
/// In one of so many runs it is tried.
const ONCE_IN: u64 = 3;
/// The client gives up after so long.
const GIVES_UP_AFTER: Duration = Duration::from_millis(100);
/// The way to the control nodes is open again after so long: sooner than the connections are closed for silence, with all that is under way.
const HELD_US: u64 = 2_700_000;
/// What was held up has had its effect, if any, so long after the later commit.
const AFTERWARDS: Duration = Duration::from_secs(4);
/// How long one attempt of a client may take that does not give up.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long all is tried. There is service.
const WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Holds one commit up, if the run has two agents and control nodes elsewhere.
pub(super) async fn try_one(town: &Arc<Town>) {
    let is_tried = seeded::draw(|rng| rng.once_in(ONCE_IN));
    let [held, other, ..] = town.serving_clients()[..] else {
        return;
    };
    if !is_tried || town.controls.is_empty() {
        return;
    }
    let is_done = Arc::new(AtomicBool::new(false));
    let (shared, done) = (Arc::clone(town), Arc::clone(&is_done));
    seeded::spawn_at(Place(FIRST_CLIENT + held.0), "late", async move {
        let trial = clock::timeout(WITHIN, hold_up(&shared, held, other));
        match trial.await {
            Ok(LATER) => {}
            Ok(found) => shared.violation(format!(
                "offset {EARLY} was given up and {LATER} committed elsewhere, and then {found} was found"
            )),
            Err(_) => shared.violation(
                "offsets were not committed in time, when all was well".to_owned(),
            ),
        }
        done.store(true, SeqCst);
    });
    while !is_done.load(SeqCst) {
        clock::sleep(LOOK_EVERY).await;
    }
}

/// Gives up one commit at the agent `held`, whose way to the control nodes is closed, and commits a later offset by `other`; yields what
/// is committed once the way is open again.
async fn hold_up(town: &Arc<Town>, held: Place, other: Place) -> i64 {
    let (mut first, mut second) = (Client::new(vec![held]), Client::new(vec![other]));
    while commit(&mut first, GROUP, BEGUN, PATIENCE).await.is_err() {}
    nemesis::tell(town, format!("commits of {} are held up", held.0));
    let until_us = seeded::now_us() + HELD_US;
    for control in &town.controls {
        seeded::cut(held, *control, until_us);
    }
    let _given_up = commit(&mut first, GROUP, EARLY, GIVES_UP_AFTER).await;
    while commit(&mut second, GROUP, LATER, PATIENCE).await.is_err() {}
    clock::sleep(AFTERWARDS).await;
    loop {
        let request = OffsetFetchRequest {
            group_id: GROUP,
            topics: None,
            ..OffsetFetchRequest::default()
        };
        let fetched = second.call(&request, 5, PATIENCE).await;
        let topics = fetched.iter().flat_map(|fetched| &fetched.topics);
        let partitions = topics.flat_map(|topic| &topic.partitions);
        if let Some(committed) = partitions
            .map(|partition| partition.committed_offset)
            .next()
        {
            return committed;
        }
    }
}
