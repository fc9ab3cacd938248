//! Counts the rounds of requests that a takeover takes: requests sent together are one round. The
//! bucket answers none before all that are sent at one time have come.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use host::clock;
use store::bucket::{Bucket, Error, Key, ObjectMeta, Op, Payload, Put};
use store::faulty::{Fault, FaultRule, Faulty};
use tokio::sync::oneshot;

use super::tests::{Sum, World, add, role};
use super::{Alone, Parts, start};
use crate::node::Role;
use crate::object::Object;

/// A waiting request, and the channel that lets it go on.
type Waiting = (Op, String, oneshot::Sender<()>);

/// A bucket whose requests wait for their round.
struct Gate {
    bucket: Arc<Faulty>,
    waiting: Mutex<Vec<Waiting>>,
}

impl Gate {
    async fn pass(&self, op: Op, key: &str) {
        let (go, gone) = oneshot::channel();
        let wait = (op, key.to_owned(), go);
        self.waiting.lock().expect("nobody panics").push(wait);
        gone.await.expect("every round is let go");
    }

    /// The requests that wait once no more come.
    async fn round(&self) -> Vec<Waiting> {
        let mut seen = 0;
        loop {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            // Longer than the time between appends, so that a round is whole.
            clock::sleep(Duration::from_millis(3)).await;
            let mut waiting = self.waiting.lock().expect("nobody panics");
            if !waiting.is_empty() && waiting.len() == seen {
                return std::mem::take(&mut *waiting);
            }
            seen = waiting.len();
        }
    }
}

#[async_trait]
impl Bucket for Gate {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        self.pass(Op::PutNew, key.as_str()).await;
        self.bucket.put_new(key, body).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        self.pass(Op::Get, key.as_str()).await;
        self.bucket.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        self.pass(Op::Get, key.as_str()).await;
        self.bucket.get_range(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        self.bucket.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        self.bucket.list(prefix, start_after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.bucket.delete(key).await
    }
}

/// A journal whose leader died with eight entries in flight, all of them held back.
async fn eight_in_flight() -> World {
    let mut world = World::new();
    world.settings.append_spacing = Duration::ZERO;
    // Each request is sent once.
    world.settings.retry_min = Duration::from_secs(60);
    world.settings.retry_max = Duration::from_secs(60);
    world.settings.snapshot.entries = u64::MAX;
    world.settings.snapshot.interval = Duration::from_secs(1 << 40);
    let (handle, replica) = world.start();
    role(&handle, Role::Leader).await;
    add(&handle, 1).await.expect("added");
    world
        .bucket
        .faults()
        .add(FaultRule::on(Op::PutNew, Fault::Hold));
    let mut adds = Vec::new();
    for flying in 1..=8 {
        let handle = handle.clone();
        adds.push(host::task::spawn("an add", async move {
            drop(add(&handle, 1).await);
        }));
        while world.bucket.faults().held() < flying {
            clock::sleep(Duration::from_millis(1)).await;
        }
    }
    drop(replica);
    world.bucket.faults().clear();
    world
}

#[tokio::test]
async fn after_a_death_with_eight_entries_in_flight_the_next_leader_needs_three_rounds_of_each() {
    // The entries in flight land before this round of the takeover; 9 means never.
    for lands_before in [0, 1, 2, 3, 4, 9] {
        let world = eight_in_flight().await;
        let gate = Arc::new(Gate {
            bucket: Arc::clone(&world.bucket),
            waiting: Mutex::new(Vec::new()),
        });
        let bucket: Arc<dyn Bucket> = Arc::<Gate>::clone(&gate);
        let mut settings = world.settings.clone();
        settings.retry_min = Duration::from_millis(1);
        settings.retry_max = Duration::from_millis(5);
        let parts = Parts {
            engine: Box::new(Object::new(Arc::clone(&bucket), 0)),
            bucket,
            others: Arc::new(Alone),
            settings,
        };
        let (handle, _replica) = start(parts, Sum::default());
        let mut proposed = None;
        let (mut puts, mut gets, mut rounds) = (0, 0, None);
        loop {
            let round = gate.round().await;
            let is_slot = |(_, key, _): &&Waiting| key.starts_with("journal/0000/");
            let reads = round
                .iter()
                .filter(is_slot)
                .filter(|(op, ..)| *op == Op::Get);
            if reads.count() > 8 {
                // The takeover begins when many slots are read at the same time: that is the take.
                rounds = rounds.or(Some(0));
            }
            if let Some(number) = &mut rounds {
                if *number == lands_before {
                    world.bucket.apply_held().await;
                }
                *number += 1;
                puts += u32::from(round.iter().any(|(op, ..)| *op == Op::PutNew));
                gets += u32::from(round.iter().any(|(op, ..)| *op == Op::Get));
            }
            for (_, _, go) in round {
                let _sent = go.send(());
            }
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            if handle.is_leader() && proposed.is_none() {
                let handle = handle.clone();
                proposed = Some(host::task::spawn("an add", async move {
                    add(&handle, 0).await.expect("it leads");
                }));
            }
            if handle.status().commands_applied > 0 && proposed.is_some() {
                let appended = handle.status().entries_appended;
                if appended >= 2 {
                    break;
                }
            }
        }
        assert!(
            puts <= 3 && gets <= 3,
            "landing before round {lands_before}: {puts} rounds of PUTs, {gets} of GETs"
        );
    }
}
