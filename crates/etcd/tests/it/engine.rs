//! The engine keeps what every engine promises, and what trims leave behind is forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use journal::conformance::{self, Journal};
use journal::engine::{Append, Content, End, Engine, TakeError, Tenure};
use serde_json::json;

use crate::server::{Servers, admit};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes_the_suite() {
    let Some(servers) = Servers::start(3) else {
        return;
    };
    let servers = Arc::new(servers);
    let number = AtomicU64::new(0);
    conformance::run(|| {
        let prefix = format!("journal-{}", number.fetch_add(1, Ordering::Relaxed));
        let servers = Arc::clone(&servers);
        async move {
            admit(&servers.engine(&prefix)).await;
            Box::new(move || Box::new(servers.engine(&prefix)) as Box<dyn Engine>) as Journal
        }
    })
    .await;
}

/// Slots of the journal up to this one, the first of which is a claim.
async fn fill(engine: &dyn Engine, through: u64) -> Arc<dyn Tenure> {
    let taken = engine.take(1, 1).await;
    let tenure = taken.unwrap_or_else(|error| panic!("{error}")).tenure;
    for index in 1..=through {
        let entry = Bytes::from(format!("entry {index}"));
        let appended = tenure.append(index, 1, entry).await;
        assert_eq!(appended, Append::Appended, "slot {index}");
        tenure.confirmed();
    }
    tenure
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn long_journals_are_read_in_pages_and_trimmed_in_steps_and_etcd_forgets_them() {
    let Some(servers) = Servers::start(1) else {
        return;
    };
    let engine = servers.engine("long");
    admit(&engine).await;
    let tenure = fill(&engine, 2_500).await;
    let (mut next, mut scans) = (1, 0);
    loop {
        let scan = engine.scan(next, 1_000).await;
        scans += 1;
        for (index, content) in scan.slots {
            let entry = Content::Entry(Bytes::from(format!("entry {index}")));
            assert_eq!((index, content), (next, entry));
            next += 1;
        }
        if scan.end == End::Free {
            break;
        }
    }
    assert_eq!(next, 2_501);
    assert!(scans < 10, "{scans} scans of 2,500 small slots");
    let early: Vec<u64> = (2..2_000).filter(|index| index % 7 != 0).collect();
    tenure.trim(2_000, &early).await.expect("a trim");
    let late: Vec<u64> = (2_000..2_400).collect();
    tenure.trim(2_400, &late).await.expect("a trim");
    for index in [1, 7, 1_995, 2_400] {
        assert_eq!(
            engine.scan(index, 1).await.slots.len(),
            1,
            "slot {index} is kept"
        );
    }
    for index in [2, 1_999, 2_000, 2_399] {
        assert_eq!(
            engine.scan(index, 1).await.slots,
            [],
            "slot {index} is trimmed"
        );
    }
    // What keys held before the first of the two trims cannot be read any more.
    let old = json!({"key": "bG9uZw==", "revision": 2});
    let answer = servers.ask(0, "/v3/kv/range", &old).expect("an answer");
    let why = answer["message"].as_str().unwrap_or_default();
    assert!(why.contains("compacted"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_writer_that_slept_through_a_trim_appends_nothing_behind_it() {
    let Some(servers) = Servers::start(1) else {
        return;
    };
    let (sleeper, engine) = (servers.engine("sleeper"), servers.engine("sleeper"));
    admit(&engine).await;
    let old = fill(&sleeper, 3).await;
    let taken = engine.take(1, 1).await;
    let tenure = taken.unwrap_or_else(|error| panic!("{error}")).tenure;
    for index in 4..=9 {
        let entry = Bytes::from_static(b"later");
        assert_eq!(tenure.append(index, 1, entry).await, Append::Appended);
        tenure.confirmed();
    }
    // Not even the slot of the claim that deposed it is left.
    tenure.trim(8, &[4, 5, 6, 7]).await.expect("a trim");
    for index in 4..8 {
        let late = old.append(index, 1, Bytes::from_static(b"late")).await;
        assert_eq!(late, Append::Superseded, "slot {index}");
        let scan = engine.scan(index, 1).await;
        assert_eq!((scan.slots, scan.end), (Vec::new(), End::Free));
    }
    let taken = sleeper.take(4, 12).await.map(drop);
    assert_eq!(taken, Err(TakeError::Trimmed(8)));
    assert_eq!(
        engine.scan(4, 1).await.slots,
        [],
        "it closes no trimmed slot either"
    );
}
