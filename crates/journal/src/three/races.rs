//! Nodes that want to lead at the same time: in simulated time, with all buckets, one down, or one slow, one of them leads soon
//! and the others follow it. It must not know how the engine keeps them from deposing each other.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use host::clock;
use host::rng::Rng;
use store::bucket::Op;
use store::faulty::{Fault, FaultRule, Faulty};

use super::engine::Three;
use super::tests::{buckets, open};
use crate::engine::{Append, Content, Engine, TakeError};

/// What is wrong with one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Down,
    /// Some answers are seconds late, some never come.
    Slow,
}

/// How long a put usually takes. A get takes half of that; one request in fifty takes five times as long.
fn distance(bucket: &Faulty, put: Duration) {
    let faults = bucket.faults();
    for (op, usual) in [(Op::PutNew, put), (Op::Get, put / 2)] {
        faults.add(FaultRule::on(op, Fault::Delay(usual * 2 / 3)));
        faults.add(FaultRule::on(op, Fault::Delay(usual / 3)).one_in(2));
        faults.add(FaultRule::on(op, Fault::Delay(usual * 4)).one_in(50));
    }
}

fn trouble(bucket: &Faulty, trouble: Trouble) {
    let faults = bucket.faults();
    match trouble {
        Trouble::None => {}
        Trouble::Down => faults.add(FaultRule::always(Fault::Unknown)),
        Trouble::Slow => {
            let slow = Fault::Delay(Duration::from_secs(4));
            faults.add(FaultRule::always(slow).one_in(33));
            faults.add(FaultRule::always(Fault::Silence).one_in(100));
        }
    }
}

/// What came of a race.
#[derive(Debug)]
struct Race {
    /// When the first claim counted.
    led: Duration,
    /// When every node led or followed.
    calm: Duration,
    takes: usize,
}

/// So many nodes, each of which wants to lead until it does or follows one that does, without any pause of its own.
async fn race(racers: u64, put: Duration, wrong: Trouble, seed: u64) -> Race {
    let buckets = buckets().await;
    for bucket in &buckets {
        distance(bucket, put);
    }
    trouble(&buckets[(seed % 3) as usize], wrong);
    let begun = clock::now();
    let nodes = (0..racers).map(|racer| {
        let engine = open(&buckets);
        let late = Duration::from_micros(Rng::seeded(seed * 100 + racer).below(100_000));
        async move {
            clock::sleep(late).await;
            let (led, takes) = lead_or_follow(&engine, racer).await;
            let at = clock::now().since(begun);
            (led.then_some(at), at, takes, engine)
        }
    });
    let ended = join_all(nodes).await;
    let led = ended.iter().filter_map(|(led, ..)| *led).min();
    let calm = ended.iter().map(|(_, at, ..)| *at).max();
    Race {
        led: led.expect("one leads"),
        calm: calm.expect("a node"),
        takes: ended.iter().map(|(.., takes, _)| takes).sum(),
    }
}

/// Returns once this node leads, or has read the claim of another; true if it leads, and how often it took.
async fn lead_or_follow(engine: &Three, racer: u64) -> (bool, usize) {
    let claim = Bytes::from(format!("claim {racer}"));
    let is_anothers = |(_, content): &(u64, Content)| match content {
        Content::Entry(bytes) => *bytes != claim,
        Content::Filler => false,
    };
    for takes in 1.. {
        match engine.take(1, 1).await {
            Ok(taken) => {
                if taken.settled.iter().any(is_anothers) {
                    return (false, takes);
                }
                let slot = taken.settled.last().map_or(1, |(slot, _)| slot + 1);
                let sent = taken.tenure.append(slot, 1, claim.clone()).await;
                if sent == Append::Appended && engine.floor().await.is_ok() {
                    taken.tenure.confirmed();
                    return (true, takes);
                }
            }
            Err(TakeError::Superseded | TakeError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
        if engine.scan(1, 100).await.slots.iter().any(is_anothers) {
            return (false, takes);
        }
    }
    unreachable!("a race ends")
}

/// The longest of many races, from the first wish to lead to the first claim that counts, and to the last that follows.
fn longest(racers: u64, put: u64, wrong: Trouble) -> (Duration, Duration) {
    let put = Duration::from_millis(put);
    let (mut led, mut calm, mut takes) = (Duration::ZERO, Duration::ZERO, 0);
    for seed in 0..SEEDS {
        let ended = host::seeded::run(seed, Box::new(|_, _| {}), race(racers, put, wrong, seed));
        let ended =
            ended.unwrap_or_else(|why| panic!("{racers} nodes, {wrong:?}, seed {seed}: {why}"));
        led = led.max(ended.value.led);
        calm = calm.max(ended.value.calm);
        takes = takes.max(ended.value.takes);
    }
    println!(
        "{racers} nodes, a put takes {put:?}, {wrong:?}: led after {led:?}, calm after {calm:?}, {takes} takes"
    );
    (led, calm)
}

/// Races of each kind.
const SEEDS: u64 = 40;

#[test]
fn a_race_ends_soon() {
    for wrong in [Trouble::None, Trouble::Down, Trouble::Slow] {
        for racers in [2, 3, 8] {
            for put in [10, 60] {
                let (led, calm) = longest(racers, put, wrong);
                let bound = Duration::from_millis(if put == 10 { 800 } else { 2_500 });
                assert!(led.max(calm) < bound, "{racers} nodes, {put} ms, {wrong:?}");
            }
        }
    }
}
