//! Several agents of one zone, which read for each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::{Settings, Zone};
use async_trait::async_trait;
use bytes::Bytes;
use meta::endpoint::PLAINTEXT;
use rpc::part::{Neighbours, NotGiven, Offers, Wanted};
use store::bucket::Op;
use store::faulty::Faulty;
use store::memory::Memory;

use crate::client::{batch, values_of};
use crate::control::Fake;
use crate::stand::{Stand, listener, settings};

/// The agents of a zone, which reach each other without sockets.
#[derive(Default)]
struct Street {
    offers: Mutex<BTreeMap<String, Arc<dyn Offers>>>,
    asked: AtomicU64,
}

#[async_trait]
impl Neighbours for Street {
    async fn ask(&self, address: &str, wanted: &Wanted, bytes: u64) -> Result<Bytes, NotGiven> {
        self.asked.fetch_add(1, Relaxed);
        let offer = self.offers.lock().unwrap().get(address).cloned();
        let offer = offer.ok_or_else(|| NotGiven::Failed("nobody is there".to_owned()))?;
        let part = offer.part("another", wanted.clone()).await?;
        let given: Vec<u8> = part.pieces.concat();
        assert_eq!(given.len() as u64, bytes);
        Ok(given.into())
    }
}

struct Cluster {
    control: Arc<Fake>,
    bucket: Arc<Faulty>,
    street: Arc<Street>,
    agents: Vec<Stand>,
}

impl Cluster {
    fn new() -> Self {
        Cluster {
            control: Fake::new(),
            bucket: Arc::new(Faulty::new(Arc::new(Memory::new()), 1)),
            street: Arc::default(),
            agents: Vec::new(),
        }
    }

    async fn join(&mut self, name: &str, zone: &str) {
        let settings = Settings {
            name: name.to_owned(),
            zone: zone.to_owned(),
            ..settings()
        };
        let others: Arc<dyn Neighbours> = self.street.clone();
        let address = format!("{name}:1");
        let zone = Zone {
            address: address.clone(),
            others,
        };
        let (control, bucket) = (self.control.clone(), self.bucket.clone());
        let listeners = vec![listener(PLAINTEXT)];
        let stand = Stand::beside(settings, listeners, control, bucket, Some(zone)).await;
        let mut offers = self.street.offers.lock().unwrap();
        offers.insert(address, stand.agent.offer());
        drop(offers);
        self.agents.push(stand);
    }

    /// Waits until each agent has seen that so many are there.
    async fn settle(&self, agents: usize) {
        for stand in &self.agents {
            let mut client = stand.client().await;
            let all = wire::messages::metadata::MetadataRequest {
                topics: Some(Vec::new()),
                ..Default::default()
            };
            while client.call(&all, 9).await.brokers.len() != agents {
                host::clock::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Writes so many files by way of one agent.
    async fn write(&self, agent: usize, files: usize) {
        let mut client = self.agents[agent].client().await;
        for number in 0..files {
            let value = number.to_string();
            client.produce("t", 0, batch(&[&value])).await;
        }
    }

    /// Reads all of them at every agent; the requests to the bucket that this took.
    async fn read_everywhere(&self, files: usize) -> u64 {
        let before = self.bucket.faults().calls(Op::Get);
        for stand in &self.agents {
            let mut client = stand.client().await;
            for number in 0..files {
                let read = client.fetch("t", 0, number as i64).await;
                assert_eq!(values_of(&read)[0], (number as i64, number.to_string()));
            }
        }
        self.bucket.faults().calls(Op::Get) - before
    }
}

const FILES: usize = 30;

#[tokio::test]
async fn a_zone_asks_the_bucket_once_for_each_file_however_many_agents_read_it() {
    let mut cluster = Cluster::new();
    cluster.join("writer", "elsewhere").await;
    cluster
        .control
        .create_topic("t", 1, Default::default())
        .await;
    cluster.write(0, FILES).await;
    cluster.agents.clear();
    for name in ["a", "b", "c"] {
        cluster.join(name, "z").await;
    }
    cluster.settle(4).await;
    assert_eq!(cluster.read_everywhere(FILES).await, FILES as u64);
    // Two of three agents had to ask, and kept what they were given.
    let asked = cluster.street.asked.load(Relaxed);
    assert_eq!(asked, 2 * FILES as u64);
    let given = |stand: &Stand| {
        let status: BTreeMap<_, _> = stand.agent.probe().status().into_iter().collect();
        let parts = ["memory", "neighbour", "bucket"];
        let parts = parts.map(|origin| status[&*format!("fetch_bytes_from_{origin}")]);
        assert_eq!(parts.iter().sum::<u64>(), status["fetch_bytes"]);
        assert!(status["fetch_bytes"] > 0);
        (
            status["loaded_bytes_neighbour"],
            status["loaded_bytes_bucket"],
        )
    };
    for stand in &cluster.agents {
        let (neighbour, bucket) = given(stand);
        assert!(neighbour > 0 && bucket > 0, "{neighbour} {bucket}");
    }
}

#[tokio::test]
async fn what_an_agent_of_the_zone_wrote_lately_the_others_have_from_its_memory() {
    let mut cluster = Cluster::new();
    for name in ["a", "b", "c"] {
        cluster.join(name, "z").await;
    }
    cluster.settle(3).await;
    cluster
        .control
        .create_topic("t", 1, Default::default())
        .await;
    cluster.write(1, FILES).await;
    assert_eq!(cluster.read_everywhere(FILES).await, 0);
    let metrics = cluster.agents[1].agent.probe().metrics();
    let given = metrics
        .lines()
        .find_map(|line| line.strip_prefix("seaway_agent_neighbour_given_bytes_total "));
    assert!(given.unwrap().parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn other_zones_and_agents_that_are_gone_are_no_help_and_no_hindrance() {
    let mut cluster = Cluster::new();
    cluster.join("a", "z").await;
    cluster
        .control
        .create_topic("t", 1, Default::default())
        .await;
    cluster.write(0, FILES).await;
    cluster.join("b", "y").await;
    cluster.settle(2).await;
    assert_eq!(cluster.read_everywhere(FILES).await, FILES as u64);
    assert_eq!(cluster.street.asked.load(Relaxed), 0);
    // One of its zone, of which only the others think that it is there.
    cluster.join("c", "y").await;
    cluster.settle(3).await;
    cluster.street.offers.lock().unwrap().remove("c:1");
    cluster.write(2, FILES).await;
    let before = cluster.bucket.faults().calls(Op::Get);
    let mut client = cluster.agents[1].client().await;
    for number in FILES..2 * FILES {
        let read = client.fetch("t", 0, number as i64).await;
        assert_eq!(values_of(&read)[0].0, number as i64);
    }
    assert_eq!(
        cluster.bucket.faults().calls(Op::Get) - before,
        FILES as u64
    );
    let asked = cluster.street.asked.load(Relaxed);
    assert!((1..FILES as u64).contains(&asked), "{asked}");
}
