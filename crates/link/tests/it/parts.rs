//! Parts of files, asked of another agent over real connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use link::keys::Security;
use link::process::Process;
use link::{Caller, Neighbours, serve_parts};
use meta::ids::{FileId, PartitionId};
use meta::level::Levels;
use meta::places::SlicePlace;
use rpc::part::{Neighbours as _, NotGiven, Offers, Part, Wanted};

use crate::tls::{ca, control, keys};
use crate::{CLUSTER, agent, until};

/// Gives parts of large pieces, and is told when they were sent.
#[derive(Default)]
struct Shelf {
    is_sent: Arc<AtomicBool>,
}

struct Sent(Arc<AtomicBool>);

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

const PIECE: usize = 700_001;

#[async_trait]
impl Offers for Shelf {
    async fn part(&self, _: &str, wanted: Wanted) -> Result<Part, NotGiven> {
        match wanted.partition {
            PartitionId(1) => Ok(Part {
                pieces: (0..5).map(|at| Bytes::from(vec![at; PIECE])).collect(),
                kept: Box::new(Sent(Arc::clone(&self.is_sent))),
            }),
            PartitionId(2) => Err(NotGiven::Busy),
            PartitionId(3) => Err(NotGiven::Missing),
            PartitionId(4) => std::future::pending().await,
            _ => Err(NotGiven::Failed("no file has such a place".to_owned())),
        }
    }
}

fn wanted(partition: u64) -> Wanted {
    let place = SlicePlace {
        file: FileId::default(),
        nonce: 7,
        file_length: 5 * PIECE as u64,
        position: 16,
        length: 100,
        base_offset: 0,
        last_offset: 0,
        max_timestamp: 0,
    };
    Wanted {
        partition: PartitionId(partition),
        place,
    }
}

struct Running {
    address: String,
    shelf: Arc<Shelf>,
    _serving: host::task::Task<()>,
}

async fn serve(security: Security) -> Running {
    let listener = host::net::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let shelf = Arc::new(Shelf::default());
    let offers: Arc<dyn Offers> = Arc::<Shelf>::clone(&shelf);
    let serving = serve_parts(listener, CLUSTER.to_owned(), offers, security);
    let _serving = host::task::spawn("parts", serving);
    Running {
        address,
        shelf,
        _serving,
    }
}

fn neighbours(process: Process, cluster_id: &str, security: Security) -> Neighbours {
    let caller = Caller {
        cluster_id: cluster_id.to_owned(),
        process,
        security,
    };
    Neighbours::new(&caller, Levels::KNOWN).unwrap()
}

const LENGTH: u64 = 5 * PIECE as u64;

#[tokio::test]
async fn a_part_comes_whole_and_its_memory_is_given_back() {
    let ca = ca("one");
    let tls = |name| Security::Tls(keys(&agent(name), &ca));
    for (here, there) in [
        (Security::Plaintext, Security::Plaintext),
        (tls("a"), tls("b")),
    ] {
        let running = serve(there).await;
        let neighbours = neighbours(agent("a"), CLUSTER, here);
        let part = neighbours.ask(&running.address, &wanted(1), LENGTH).await;
        let expected: Vec<u8> = (0..5).flat_map(|at| vec![at; PIECE]).collect();
        assert!(part == Ok(expected.into()));
        let is_sent = &running.shelf.is_sent;
        until(|| is_sent.load(SeqCst)).await;
    }
}

#[tokio::test]
async fn what_is_not_given_is_told_from_what_failed() {
    let running = serve(Security::Plaintext).await;
    let neighbours = neighbours(agent("a"), CLUSTER, Security::Plaintext);
    for partition in [2, 3] {
        let wanted = wanted(partition);
        let asked = neighbours.ask(&running.address, &wanted, LENGTH);
        assert_eq!(asked.await, Err(NotGiven::Busy));
    }
    let mut failures = vec![(wanted(5), LENGTH, "no file has such a place")];
    failures.push((wanted(1), LENGTH - 1, "another length"));
    for (wanted, bytes, why) in failures {
        match neighbours.ask(&running.address, &wanted, bytes).await {
            Err(NotGiven::Failed(said)) => assert!(said.contains(why), "{said}"),
            other => panic!("{other:?}"),
        }
    }
    let nobody = neighbours.ask("127.0.0.1:1", &wanted(1), LENGTH).await;
    assert!(matches!(nobody, Err(NotGiven::Failed(_))), "{nobody:?}");
    // A request that is waited for no longer keeps nobody else waiting.
    let unanswered = wanted(4);
    let silent = neighbours.ask(&running.address, &unanswered, LENGTH);
    let waited = host::clock::timeout(Duration::from_millis(20), silent).await;
    assert!(waited.is_err());
    assert!(
        neighbours
            .ask(&running.address, &wanted(1), LENGTH)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn only_agents_of_the_cluster_are_given_parts_and_only_agents_are_believed() {
    let (own, other) = (ca("own"), ca("other"));
    let running = serve(Security::Tls(keys(&agent("b"), &own))).await;
    let impostor = serve(Security::Tls(keys(&control("b"), &own))).await;
    let asked = async |process: Process, cluster_id: &str, ca, running: &Running| {
        let security = Security::Tls(keys(&process, ca));
        let neighbours = neighbours(process, cluster_id, security);
        match neighbours.ask(&running.address, &wanted(1), LENGTH).await {
            Ok(_) => String::new(),
            Err(NotGiven::Failed(why)) => why,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(asked(agent("a"), CLUSTER, &own, &running).await, "");
    for (process, cluster_id, ca, running, why) in [
        (control("a"), CLUSTER, &own, &running, "is no agent"),
        (agent("a"), "another", &own, &running, "belongs to cluster"),
        (agent("a"), CLUSTER, &other, &running, "another CA"),
        (agent("a"), CLUSTER, &own, &impostor, "an agent needs one"),
    ] {
        let said = asked(process, cluster_id, ca, running).await;
        assert!(said.contains(why), "{why}: {said}");
    }
}
