//! The engine over three buckets passes the conformance suite, with all buckets, with one down, with one
//! slow, and while answers get lost; what a bucket misses is filled, and one that is not what it was counts for nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::clock;
use store::bucket::{Bucket, Op};
use store::faulty::{Fault, FaultRule, Faulty};
use store::marker::{self, Marker};
use store::memory::Memory;

use super::configuration::Configuration;
use super::engine::{Three, prepare};
use super::name;
use super::record::{Place, Record};
use crate::conformance;
use crate::engine::{Append, Content, End, Engine, Tenure};

pub(crate) fn configuration() -> Configuration {
    Configuration {
        cluster: "three".to_owned(),
        shard: 0,
        number: 1,
        generations: [10, 11, 12],
    }
}

/// Three buckets of a new cluster.
pub(crate) async fn buckets() -> [Arc<Faulty>; 3] {
    let configuration = configuration();
    let mut made = Vec::new();
    for number in 0..3 {
        let bucket = Arc::new(Faulty::new(Arc::new(Memory::new()), number));
        let wanted = Marker {
            cluster: configuration.cluster.clone(),
            created_ms: 0,
            bucket: number as u32,
            generation: configuration.generations[number as usize],
            siblings: configuration.generations.to_vec(),
            journal: None,
        };
        let claimed = marker::claim(bucket.as_ref(), &wanted).await;
        claimed.expect("an empty bucket is claimed");
        prepare(bucket.as_ref(), &configuration)
            .await
            .expect("a first floor");
        made.push(bucket);
    }
    let made: Result<[_; 3], _> = made.try_into();
    made.unwrap_or_else(|_| panic!("three buckets"))
}

pub(super) fn open(buckets: &[Arc<Faulty>; 3]) -> Three {
    let buckets = buckets.clone().map(|bucket| bucket as Arc<dyn Bucket>);
    Three::new(buckets, configuration())
}

async fn suite(rules: impl Fn(&[Arc<Faulty>; 3])) {
    conformance::run(|| async {
        let buckets = buckets().await;
        rules(&buckets);
        let open = move || Box::new(open(&buckets)) as Box<dyn Engine>;
        Box::new(open) as conformance::Journal
    })
    .await;
}

#[tokio::test]
async fn it_passes_the_suite() {
    suite(|_| {}).await;
}

#[tokio::test]
async fn it_passes_the_suite_with_any_one_bucket_down() {
    for down in 0..3 {
        suite(|buckets| {
            buckets[down]
                .faults()
                .add(FaultRule::always(Fault::Unknown));
        })
        .await;
    }
}

#[tokio::test]
async fn it_passes_the_suite_with_one_slow_bucket() {
    suite(|buckets| {
        let slow = Fault::Delay(Duration::from_secs(4));
        let faults = buckets[1].faults();
        faults.add(FaultRule::always(slow).one_in(33));
        faults.add(FaultRule::always(Fault::Silence).one_in(100));
    })
    .await;
}

#[tokio::test]
async fn it_passes_the_suite_while_answers_get_lost() {
    suite(|buckets| {
        for bucket in buckets {
            let faults = bucket.faults();
            faults.add(FaultRule::on(Op::PutNew, Fault::LoseReply).one_in(20));
            faults.add(FaultRule::on(Op::PutNew, Fault::Unknown).one_in(20));
            faults.add(FaultRule::on(Op::PutNew, Fault::Conflict).one_in(20));
            faults.add(FaultRule::on(Op::Get, Fault::LoseReply).one_in(20));
        }
    })
    .await;
}

/// A tenure of an empty journal, with entries up to this slot.
async fn lead(engine: &Three, through: u64) -> Arc<dyn Tenure> {
    let taken = engine.take(1, 1).await;
    let tenure = taken.unwrap_or_else(|error| panic!("{error}")).tenure;
    for slot in 1..=through {
        let sent = tenure.append(slot, 1, ENTRY).await;
        assert_eq!(sent, Append::Appended, "slot {slot}");
        tenure.confirmed();
    }
    tenure
}

const ENTRY: Bytes = Bytes::from_static(b"entry");

#[tokio::test]
async fn a_bucket_of_another_generation_counts_for_nothing() {
    let buckets = buckets().await;
    let mut expected = configuration();
    expected.generations[2] += 1;
    let shared = buckets.clone().map(|bucket| bucket as Arc<dyn Bucket>);
    let engine = Three::new(shared, expected);
    lead(&engine, 3).await;
    let until = clock::now() + Duration::from_secs(10);
    while engine.health()[2].refused.is_none() && clock::now() < until {
        clock::sleep(Duration::from_millis(5)).await;
    }
    let refused = engine.health().map(|bucket| bucket.refused.is_some());
    assert_eq!(refused, [false, false, true]);
    // With one of the two others down, the refused one does not make a quorum.
    buckets[0].faults().add(FaultRule::always(Fault::Unknown));
    let floor = clock::timeout(Duration::from_secs(1), engine.floor()).await;
    assert!(!matches!(floor, Ok(Ok(_))), "{floor:?}");
}

/// Deletes all records of slots from a bucket, as if it were an older copy: its marker and its floor are there.
async fn roll_back(bucket: &Faulty) {
    let base = name::slots(0, 1);
    let listed = bucket.list(&base, None, 1_000).await.expect("a listing");
    assert!(!listed.is_empty());
    for object in listed {
        bucket.delete(&object.key).await.expect("a deletion");
    }
}

/// A bucket that lost its records, though not its marker, counts for nobody who has met the newest claim there: for who
/// appended it, nor for who has only read it.
#[test]
fn an_older_copy_of_a_bucket_is_noticed_by_whoever_met_a_later_claim() {
    for reads_only in [false, true] {
        let scenario = async move {
            let buckets = buckets().await;
            let (leader, follower) = (open(&buckets), open(&buckets));
            lead(&leader, 3).await;
            let engine = if reads_only { follower } else { leader };
            let scan = engine.scan(1, 10).await;
            assert_eq!(scan.slots[0], (1, Content::Entry(ENTRY)));
            engine.claimed(1);
            roll_back(&buckets[0]).await;
            roll_back(&buckets[1]).await;
            clock::sleep(Duration::from_secs(6)).await;
            // What the two say is not taken for an empty journal.
            for _ in 0..3 {
                let scan = engine.scan(1, 10).await;
                assert_ne!(scan.end, End::Free, "by one that reads only: {reads_only}");
            }
            engine.health().map(|bucket| bucket.refused.is_some())
        };
        let ran = host::seeded::run(1, Box::new(|_, _| {}), scenario);
        assert_eq!(ran.expect("it ends").value, [true, true, false]);
    }
}

#[tokio::test]
async fn a_bucket_that_was_away_is_filled() {
    let buckets = buckets().await;
    let engine = open(&buckets);
    let away = &buckets[2];
    away.faults().add(FaultRule::always(Fault::Unknown));
    // More than the stragglers that are kept for it.
    let _tenure = lead(&engine, 150).await;
    away.faults().clear();
    wait_until_it_holds(away, 140).await;
}

/// A bucket that was away under a leader which died, and whose tail was filled, gets the rest from the next one.
#[test]
fn a_bucket_that_was_away_under_an_earlier_leader_is_filled() {
    let scenario = async {
        let buckets = buckets().await;
        let away = &buckets[2];
        let dead = open(&buckets);
        away.faults().add(FaultRule::always(Fault::Unknown));
        drop(lead(&dead, 100).await);
        drop(dead);
        away.faults().clear();
        let engine = open(&buckets);
        let next = read_on(&engine).await;
        assert_eq!(next, 101);
        let taken = engine.take(next, next).await;
        let tenure = taken.unwrap_or_else(|error| panic!("{error}")).tenure;
        assert_eq!(tenure.append(next, 1, ENTRY).await, Append::Appended);
        tenure.confirmed();
        wait_until_it_holds(away, 100).await;
    };
    let ran = host::seeded::run(1, Box::new(|_, _| {}), scenario);
    ran.expect("it ends");
}

/// An older copy of a bucket is noticed even by a leader that has met no claim there: the records of the leader before say
/// what it had acknowledged.
#[test]
fn a_bucket_that_lacks_what_it_acknowledged_is_refused() {
    let scenario = async {
        let buckets = buckets().await;
        drop(lead(&open(&buckets), 100).await);
        // Nothing is still on its way to the two that are left.
        wait_until_it_holds(&buckets[0], 100).await;
        wait_until_it_holds(&buckets[1], 100).await;
        roll_back(&buckets[2]).await;
        let engine = open(&buckets);
        let next = read_on(&engine).await;
        let taken = engine.take(next, next).await;
        let tenure = taken.unwrap_or_else(|error| panic!("{error}")).tenure;
        assert_eq!(tenure.append(next, 1, ENTRY).await, Append::Appended);
        tenure.confirmed();
        let until = clock::now() + Duration::from_secs(30);
        while engine.health()[2].refused.is_none() && clock::now() < until {
            clock::sleep(Duration::from_millis(100)).await;
        }
        engine.health().map(|bucket| bucket.refused.is_some())
    };
    let ran = host::seeded::run(1, Box::new(|_, _| {}), scenario);
    assert_eq!(ran.expect("it ends").value, [false, false, true]);
}

/// The first slot that the engine finds free.
async fn read_on(engine: &Three) -> u64 {
    let mut next = 1;
    while let Some((last, _)) = engine.scan(next, 100).await.slots.last() {
        next = last + 1;
    }
    next
}

/// Waits until the bucket holds a value in every slot up to this one.
async fn wait_until_it_holds(bucket: &Faulty, through: u64) {
    let until = clock::now() + Duration::from_secs(30);
    let mut missing = Vec::new();
    while clock::now() < until {
        missing.clear();
        for slot in 1..=through {
            if !holds(bucket, slot).await {
                missing.push(slot);
            }
        }
        if missing.is_empty() {
            return;
        }
        clock::sleep(Duration::from_millis(100)).await;
    }
    panic!("it misses {missing:?}");
}

/// True if the slot's chain in the bucket holds a value.
async fn holds(bucket: &Faulty, slot: u64) -> bool {
    let place = Place {
        shard: 0,
        configuration: 1,
        slot,
    };
    for link in 0.. {
        let object = bucket.get(&name::link(place, link)).await;
        let Some(bytes) = object.expect("an answer") else {
            break;
        };
        let record = Record::decode(place, &bytes).expect("a record");
        if record.content().is_some() {
            return true;
        }
    }
    false
}
