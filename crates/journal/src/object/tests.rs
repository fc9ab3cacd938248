//! The engine on a bucket passes the conformance suite, and a lying bucket does not mislead it.

use std::sync::Arc;

use bytes::Bytes;
use store::bucket::{Bucket, Op};
use store::faulty::{Fault, FaultRule, Faulty};
use store::memory::Memory;

use super::Object;
use crate::conformance;
use crate::engine::{Append, Content, End, Engine, Tenure};

fn faulty() -> (Arc<Faulty>, Object) {
    let bucket = Arc::new(Faulty::new(Arc::new(Memory::new()), 1));
    let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(&bucket);
    (bucket, Object::new(shared, 0))
}

#[tokio::test]
async fn it_passes_the_suite() {
    conformance::run(|| async {
        let bucket: Arc<dyn Bucket> = Arc::new(Memory::new());
        let open = move || Box::new(Object::new(Arc::clone(&bucket), 0)) as Box<dyn Engine>;
        Box::new(open) as conformance::Journal
    })
    .await;
}

const ENTRY: Bytes = Bytes::from_static(b"entry");

async fn tenure(engine: &Object) -> Arc<dyn Tenure> {
    let taken = engine.take(1, 1).await;
    taken.unwrap_or_else(|error| panic!("{error}")).tenure
}

/// Entries in the slots up to this one.
async fn fill(engine: &Object, through: u64) -> Arc<dyn Tenure> {
    let tenure = tenure(engine).await;
    for index in 1..=through {
        assert_eq!(tenure.append(index, 1, ENTRY).await, Append::Appended);
        tenure.confirmed();
    }
    tenure
}

#[tokio::test]
async fn a_slot_is_an_object_with_a_sortable_name() {
    let bucket: Arc<dyn Bucket> = Arc::new(Memory::new());
    let engine = Object::new(Arc::clone(&bucket), 3);
    fill(&engine, 1).await;
    let listed = bucket.list("", None, 10).await.expect("a listing");
    assert_eq!(listed[0].key.as_str(), "journal/0003/00000000000000000001");
}

#[tokio::test]
async fn our_own_write_after_a_lost_reply_is_ours() {
    let (bucket, engine) = faulty();
    let tenure = tenure(&engine).await;
    bucket
        .faults()
        .add(FaultRule::on(Op::PutNew, Fault::LoseReply).times(1));
    let lost = tenure.append(1, 1, ENTRY).await;
    assert!(matches!(lost, Append::Unknown(_)), "{lost:?}");
    assert_eq!(tenure.append(1, 1, ENTRY).await, Append::Appended);
    let scan = engine.scan(1, 1).await;
    assert_eq!(scan.slots, [(1, Content::Entry(ENTRY))]);
}

#[tokio::test]
async fn a_conflict_without_an_object_settles_nothing() {
    let (bucket, engine) = faulty();
    let tenure = tenure(&engine).await;
    bucket
        .faults()
        .add(FaultRule::on(Op::PutNew, Fault::Conflict).times(1));
    let outcome = tenure.append(1, 1, ENTRY).await;
    assert!(matches!(outcome, Append::Unknown(_)), "{outcome:?}");
    assert_eq!(tenure.append(1, 1, ENTRY).await, Append::Appended);
}

#[tokio::test]
async fn an_empty_listing_hides_no_slots() {
    let (bucket, engine) = faulty();
    fill(&engine, 5).await;
    bucket.faults().add(FaultRule::on(Op::List, Fault::Missing));
    let mut next = 1;
    loop {
        let scan = engine.scan(next, 100).await;
        if scan.end == End::Free {
            break;
        }
        next += scan.slots.len() as u64;
    }
    assert_eq!(next, 6);
}

#[tokio::test]
async fn an_error_is_never_an_absence() {
    let (bucket, engine) = faulty();
    bucket.faults().add(FaultRule::on(Op::Get, Fault::Definite));
    let scan = engine.scan(1, 1).await;
    assert!(matches!(scan.end, End::Undecided(_)), "{scan:?}");
    assert!(engine.floor().await.is_err());
    assert!(engine.take(1, 1).await.is_err());
}

#[tokio::test]
async fn a_floor_raised_elsewhere_is_found_without_a_listing() {
    let (bucket, ours) = faulty();
    let open = || {
        let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(&bucket);
        Object::new(shared, 0)
    };
    let other = tenure(&open()).await;
    assert_eq!(ours.floor().await, Ok(0));
    bucket.faults().add(FaultRule::on(Op::List, Fault::Missing));
    for floor in 1..=100 {
        other.trim(floor, &[]).await.expect("a trim");
        if floor % 7 == 0 {
            assert_eq!(ours.floor().await, Ok(floor));
        }
    }
    let lower = other.trim(50, &[]).await;
    lower.expect("a lower floor is no error");
    assert_eq!(ours.floor().await, Ok(100));
    let cold = open();
    let reads = bucket.faults().calls(Op::Get);
    assert_eq!(cold.floor().await, Ok(100));
    let reads = bucket.faults().calls(Op::Get) - reads;
    assert!(reads < 20, "a cold look at 100 links took {reads} reads");
}
