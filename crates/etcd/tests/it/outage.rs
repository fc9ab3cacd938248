//! Members are killed while entries are appended: nothing is lost, and the pause is that of the election.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::clock;
use journal::engine::{Append, Content, End, Engine, Tenure};

use crate::server::{Servers, admit};

/// Longer than members with timers of 20 and 200 ms need, on a machine that does other things too.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// Appends until the slot is known to hold the entry, as the journal does.
async fn append(tenure: &dyn Tenure, index: u64) -> Duration {
    let began = clock::now();
    let entry = Bytes::from(format!("entry {index}"));
    loop {
        match tenure.append(index, 1, entry.clone()).await {
            Append::Appended => return clock::now().since(began),
            Append::Unknown(why) => {
                let waited = clock::now().since(began);
                assert!(waited < PAUSE_MAX, "slot {index} after {waited:?}: {why}");
            }
            Append::Superseded => panic!("nobody else writes slot {index}"),
        }
        clock::sleep(Duration::from_millis(10)).await;
    }
}

async fn leader(servers: &Servers) -> usize {
    let found = clock::timeout(PAUSE_MAX, async {
        loop {
            if let Some(leader) = servers.leader() {
                return leader;
            }
            clock::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.expect("a member leads")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_appended_outlives_the_members_that_led() {
    let Some(mut servers) = Servers::start(3) else {
        return;
    };
    let engine = servers.engine("outage");
    admit(&engine).await;
    let taken = engine.take(1, 1).await;
    let tenure: Arc<dyn Tenure> = taken.unwrap_or_else(|error| panic!("{error}")).tenure;
    append(tenure.as_ref(), 1).await;
    tenure.confirmed();
    let mut next = 2;
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let killed = leader(&servers).await;
        let until = next + 50;
        let mut longest = Duration::ZERO;
        while next < until {
            if next + 25 == until {
                servers.kill(killed);
            }
            longest = longest.max(append(tenure.as_ref(), next).await);
            next += 1;
        }
        pauses.push(longest);
        servers.start_one(killed);
    }
    eprintln!("longest append around each of the leader's deaths: {pauses:?}");
    let reader = servers.engine("outage");
    for index in 1..next {
        let scan = reader.scan(index, 1).await;
        let entry = Content::Entry(Bytes::from(format!("entry {index}")));
        assert_eq!(scan.slots, [(index, entry)]);
    }
    let scan = reader.scan(next, 1).await;
    assert_eq!((scan.slots, scan.end), (Vec::new(), End::Free));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_majority_nothing_is_acknowledged_and_nothing_is_free() {
    let Some(mut servers) = Servers::start(3) else {
        return;
    };
    let engine = servers.engine("minority");
    admit(&engine).await;
    let taken = engine.take(1, 1).await;
    let tenure = taken.unwrap_or_else(|error| panic!("{error}")).tenure;
    append(tenure.as_ref(), 1).await;
    tenure.confirmed();
    servers.kill(0);
    servers.kill(1);
    let sent = tenure.append(2, 1, Bytes::from_static(b"entry 2")).await;
    assert!(matches!(sent, Append::Unknown(_)), "{sent:?}");
    let scan = engine.scan(2, 1).await;
    assert!(
        scan.slots.is_empty() && matches!(scan.end, End::Undecided(_)),
        "{scan:?}"
    );
    assert!(servers.engine("minority").take(2, 2).await.is_err());
    servers.start_one(0);
    append(tenure.as_ref(), 2).await;
    append(tenure.as_ref(), 3).await;
}
