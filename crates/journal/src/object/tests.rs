//! The engine on a bucket passes the suite, and lies of a bucket do not mislead it.

use std::sync::Arc;

use bytes::Bytes;
use store::bucket::{Bucket, Op};
use store::faulty::{Fault, Faulty, Rule};
use store::memory::Memory;

use super::Object;
use crate::conformance;
use crate::engine::{Append, Engine};

fn faulty() -> (Arc<Faulty>, Object) {
    let bucket = Arc::new(Faulty::new(Arc::new(Memory::new()), 1));
    let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(&bucket);
    (bucket, Object::new(shared, 0))
}

#[tokio::test]
async fn it_passes_the_suite() {
    conformance::run(|| async {
        let bucket: Arc<dyn Bucket> = Arc::new(Memory::new());
        Arc::new(Object::new(bucket, 0)) as Arc<dyn Engine>
    })
    .await;
}

#[tokio::test]
async fn a_slot_is_an_object_with_a_sortable_name() {
    let bucket: Arc<dyn Bucket> = Arc::new(Memory::new());
    let engine = Object::new(Arc::clone(&bucket), 3);
    engine.append(7, 1, Bytes::from_static(b"x")).await;
    let listed = bucket.list("", None, 10).await.expect("a listing");
    assert_eq!(listed[0].key.as_str(), "journal/0003/00000000000000000007");
}

#[tokio::test]
async fn our_own_write_after_a_lost_reply_is_ours() {
    let (bucket, engine) = faulty();
    let entry = Bytes::from_static(b"entry");
    bucket
        .faults()
        .add(Rule::on(Op::PutNew, Fault::LoseReply).times(1));
    let lost = engine.append(1, 1, entry.clone()).await;
    assert!(matches!(lost, Append::Unknown(_)), "{lost:?}");
    assert_eq!(engine.append(1, 1, entry.clone()).await, Append::Appended);
    assert_eq!(engine.read(1).await, Ok(Some(entry)));
}

#[tokio::test]
async fn a_conflict_without_an_object_settles_nothing() {
    let (bucket, engine) = faulty();
    bucket
        .faults()
        .add(Rule::on(Op::PutNew, Fault::Conflict).times(1));
    let entry = Bytes::from_static(b"entry");
    let outcome = engine.append(1, 1, entry.clone()).await;
    assert!(matches!(outcome, Append::Unknown(_)), "{outcome:?}");
    assert_eq!(engine.append(1, 1, entry).await, Append::Appended);
}

#[tokio::test]
async fn an_empty_listing_hides_no_slots() {
    let (bucket, engine) = faulty();
    for index in 1..=5 {
        engine.append(index, 1, Bytes::from_static(b"x")).await;
    }
    bucket.faults().add(Rule::on(Op::List, Fault::Missing));
    let mut next = 1;
    loop {
        let slots = engine.scan(next, 100).await.expect("a scan");
        if slots.is_empty() {
            break;
        }
        next += slots.len() as u64;
    }
    assert_eq!(next, 6);
}

#[tokio::test]
async fn an_error_is_never_an_absence() {
    let (bucket, engine) = faulty();
    bucket.faults().add(Rule::on(Op::Get, Fault::Definite));
    assert!(engine.read(1).await.is_err());
    assert!(engine.scan(1, 1).await.is_err());
    assert!(engine.floor().await.is_err());
}

#[tokio::test]
async fn a_floor_raised_elsewhere_is_found_without_a_listing() {
    let (bucket, ours) = faulty();
    let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(&bucket);
    let other = Object::new(shared, 0);
    assert_eq!(ours.floor().await, Ok(0));
    bucket.faults().add(Rule::on(Op::List, Fault::Missing));
    for floor in 1..=100 {
        other.trim(floor, &[]).await.expect("a trim");
        if floor % 7 == 0 {
            assert_eq!(ours.floor().await, Ok(floor));
        }
    }
    ours.trim(50, &[]).await.expect("a lower floor is no error");
    assert_eq!(ours.floor().await, Ok(100));
    let cold = {
        let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(&bucket);
        Object::new(shared, 0)
    };
    let reads = bucket.faults().calls(Op::Get);
    assert_eq!(cold.floor().await, Ok(100));
    let reads = bucket.faults().calls(Op::Get) - reads;
    assert!(reads < 20, "a cold look at 100 links took {reads} reads");
}
