//! A region is lost with the node that leads and its bucket: how soon another node answers commands, in simulated time, over three
//! buckets as far apart as regions are. It must not know what is left undecided, nor how it is settled.

use std::future::pending;

use futures::StreamExt;
use futures::future::{Either, join_all, select};
use host::rng::Rng;
use host::task::Task;
use store::far::Far;

use super::*;
use crate::three::Three;
use crate::three::tests::{buckets, configuration};

/// Round trips between the regions.
const ROUND_TRIPS_MS: [[u64; 3]; 3] = [[0, 12, 65], [12, 0, 70], [65, 70, 0]];
/// How long a bucket takes to make an object, beyond the way to it.
const PUT: Duration = Duration::from_millis(10);
/// Losses of each region.
const SEEDS: u64 = 14;

fn round_trip(one: usize, other: usize) -> Duration {
    Duration::from_millis(ROUND_TRIPS_MS[one][other])
}

/// A node in a region.
struct At {
    region: usize,
    handle: Handle<Sum>,
    replica: Replica,
}

fn begin(region: usize, buckets: &[Arc<Faulty>; 3]) -> At {
    let mut numbers = 0..;
    let seen = buckets.clone().map(|bucket| {
        let number = numbers.next().unwrap_or_default();
        let far = Far::new(bucket, round_trip(region, number), PUT, Vec::new());
        Arc::new(far) as Arc<dyn Bucket>
    });
    let parts = Parts {
        engine: Box::new(Three::new(seen, configuration())),
        bucket: Arc::new(store::memory::Memory::new()),
        others: Arc::new(Alone),
        settings: Settings::one_of_several(format!("c{region}")),
    };
    let (handle, replica) = start(parts, Sum::default());
    At {
        region,
        handle,
        replica,
    }
}

/// What the node that leads tells another, half a round trip later.
fn tell(from: &At, to: &At) -> Task<()> {
    let late = round_trip(from.region, to.region) / 2;
    let (mut grown, follower) = (from.handle.growth(), to.handle.clone());
    host::task::spawn("telling", async move {
        while let Some(one) = grown.next().await {
            let follower = follower.clone();
            host::task::spawn_detached("told", async move {
                clock::sleep(late).await;
                follower.tell(
                    one.entry
                        .map(|bytes| (one.index, bytes))
                        .into_iter()
                        .collect(),
                );
                follower.look_for(one.index);
            });
        }
    })
}

/// One command each few milliseconds, so that some are in flight when the region is lost.
fn load(leader: &At) -> Task<()> {
    let handle = leader.handle.clone();
    host::task::spawn("load", async move {
        loop {
            let handle = handle.clone();
            host::task::spawn_detached("command", async move {
                drop(handle.propose(CLUSTER, Bytes::from_static(b"1")).await);
            });
            clock::sleep(Duration::from_millis(7)).await;
        }
    })
}

/// A follower finds the node that leads refusing connections, again and again; the first time once its connection has broken and
/// the first dial is answered.
async fn find_gone(follower: &At, lost: usize) {
    let way = round_trip(follower.region, lost);
    let claim = follower.handle.status().claim_index;
    clock::sleep(way / 2).await;
    loop {
        clock::sleep(Duration::from_millis(20) + way).await;
        follower.handle.leader_is_gone(claim);
    }
}

/// Asks a node to lead and to append, until it has.
async fn answered(node: &At) {
    while node
        .handle
        .propose(CLUSTER, Bytes::from_static(b"1"))
        .await
        .is_err()
    {
        clock::sleep(Duration::from_millis(10)).await;
    }
}

/// How long after the loss of a region, with the node that leads, another answers a command.
async fn loss(lost: usize, is_used: bool, seed: u64) -> Duration {
    let buckets = buckets().await;
    let leader = begin(lost, &buckets);
    answered(&leader).await;
    let survivors: Vec<At> = (0..3)
        .filter(|region| *region != lost)
        .map(|region| begin(region, &buckets))
        .collect();
    let tellers: Vec<_> = survivors.iter().map(|to| tell(&leader, to)).collect();
    let load = is_used.then(|| load(&leader));
    let warm = 2_000_000 + Rng::seeded(seed).below(100_000);
    clock::sleep(Duration::from_micros(warm)).await;
    drop((load, tellers));
    drop(leader.replica);
    buckets[lost]
        .faults()
        .add(FaultRule::always(Fault::Unknown));
    let begun = clock::now();
    let gone = survivors.iter().map(|node| find_gone(node, lost));
    let gone = Box::pin(join_all(gone));
    let first = survivors.iter().map(|node| Box::pin(answered(node)));
    let first = futures::future::select_all(first);
    match select(gone, first).await {
        Either::Left(_) => pending().await,
        Either::Right(_) => clock::now().since(begun),
    }
}

fn losses(is_used: bool) -> Vec<Duration> {
    let mut pauses = Vec::new();
    for lost in 0..3 {
        for seed in 0..SEEDS {
            let lost = host::seeded::run(seed, Box::new(|_, _| {}), loss(lost, is_used, seed));
            pauses.push(
                lost.unwrap_or_else(|why| panic!("seed {seed}: {why}"))
                    .value,
            );
        }
        let own = &mut pauses[lost * SEEDS as usize..];
        own.sort();
        println!(
            "used {is_used}, region {lost} lost: {:?} in the median, {:?} at most",
            own[own.len() / 2],
            own[own.len() - 1]
        );
    }
    pauses.sort();
    pauses
}

#[test]
fn the_loss_of_the_region_that_leads_is_over_soon() {
    for is_used in [false, true] {
        let pauses = losses(is_used);
        let (median, worst) = (pauses[pauses.len() / 2], pauses[pauses.len() - 1]);
        assert!(
            median < Duration::from_millis(700),
            "{median:?} in the median"
        );
        assert!(worst < Duration::from_millis(1_200), "{worst:?} at most");
    }
}
