//! Several agents of one cluster: whom clients are told of, and where they are sent.

use std::sync::Arc;

use agent::Settings;
use agent::settings::Listener;
use meta::endpoint::PLAINTEXT;
use store::faulty::Faulty;
use store::memory::Memory;
use wire::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use wire::messages::describe_cluster::DescribeClusterRequest;
use wire::messages::fetch::FetchRequest;
use wire::messages::find_coordinator::FindCoordinatorRequest;
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use wire::messages::metadata::{MetadataRequest, MetadataResponse, MetadataResponsePartition};
use wire::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use crate::client::{Client, batch, batches_of, fetch_request, only, values_of};
use crate::control::Fake;
use crate::stand::{Stand, listener, settings};

const PARTITIONS: i32 = 40;

/// Agents of one cluster, and a topic.
struct Cluster {
    control: Arc<Fake>,
    bucket: Arc<Faulty>,
    agents: Vec<Stand>,
}

impl Cluster {
    /// An agent for each zone, with one listener.
    async fn of_zones(zones: &[&str]) -> Self {
        let mut cluster = Cluster {
            control: Fake::new(),
            bucket: Arc::new(Faulty::new(Arc::new(Memory::new()), 1)),
            agents: Vec::new(),
        };
        for zone in zones {
            cluster.join(zone, vec![listener(PLAINTEXT)]).await;
        }
        cluster.topic("t").await;
        cluster
    }

    async fn join(&mut self, zone: &str, listeners: Vec<Listener>) {
        let settings = Settings {
            name: format!("agent-{}", self.agents.len() + 1),
            zone: zone.to_owned(),
            ..settings()
        };
        let (control, bucket) = (self.control.clone(), self.bucket.clone());
        let stand = Stand::listening(settings, listeners, control, bucket).await;
        self.agents.push(stand);
    }

    async fn topic(&self, name: &str) {
        let partitions = u32::try_from(PARTITIONS).unwrap();
        let none = crate::control::configs(&[]);
        self.control.create_topic(name, partitions, none).await;
    }

    /// A client of an agent, by number, that calls itself by this client id.
    async fn client(&self, agent: usize, id: &str) -> Client {
        self.agents[agent].client().await.named(id)
    }

    fn id(&self, agent: usize) -> i32 {
        self.agents[agent].agent.id().0
    }
}

/// What a client is told of all topics, once it is told of so many agents.
async fn metadata(client: &mut Client, agents: usize) -> MetadataResponse {
    let all = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    loop {
        let told = client.call(&all, 12).await;
        if told.brokers.len() == agents && !told.topics.is_empty() {
            return told;
        }
        host::clock::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn partitions(told: &MetadataResponse) -> &[MetadataResponsePartition] {
    &told.topics[0].partitions
}

fn leaders(told: &MetadataResponse) -> Vec<i32> {
    let partitions = partitions(told).iter();
    partitions.map(|partition| partition.leader_id).collect()
}

#[tokio::test]
async fn a_client_is_sent_to_agents_of_the_zone_that_its_client_id_names() {
    let cluster = Cluster::of_zones(&["a", "b", "c"]).await;
    for (client_id, zone) in [
        ("zone=a", 0),
        ("app,warpstream_az=b", 1),
        ("automq_type=producer&automq_az=c", 2),
        ("zone=nobodys diskless_az=b", 1),
    ] {
        // Every agent says the same.
        for asked in 0..3 {
            let mut client = cluster.client(asked, client_id).await;
            let told = metadata(&mut client, 3).await;
            assert!(leaders(&told).iter().all(|id| *id == cluster.id(zone)));
        }
    }
    let mut somebody = cluster.client(1, "app").await;
    let mut elsewhere = cluster.client(2, "zone=d").await;
    let told = metadata(&mut somebody, 3).await;
    assert_eq!(leaders(&told), leaders(&metadata(&mut elsewhere, 3).await));
    for agent in 0..3 {
        assert!(leaders(&told).contains(&cluster.id(agent)));
    }
    let racks: Vec<_> = told.brokers.iter().map(|one| one.rack.as_deref()).collect();
    assert_eq!(racks, [Some("a"), Some("b"), Some("c")]);
}

#[tokio::test]
async fn the_replicas_are_an_agent_of_each_zone_and_as_many_as_were_asked_for_all_in_sync() {
    let cluster = Cluster::of_zones(&["a", "a", "b"]).await;
    let mut client = cluster.client(0, "zone=b").await;
    metadata(&mut client, 3).await;
    let topic = |name: &str, replication_factor, in_sync: Option<&str>| CreatableTopic {
        name: name.into(),
        num_partitions: 6,
        replication_factor,
        configs: in_sync
            .map(|value| CreatableTopicConfig {
                name: "min.insync.replicas".into(),
                value: Some(value.into()),
            })
            .into_iter()
            .collect(),
        ..CreatableTopic::default()
    };
    let assigned = CreatableTopic {
        num_partitions: -1,
        assignments: vec![CreatableReplicaAssignment {
            partition_index: 0,
            broker_ids: vec![1, 2, 3, 4],
        }],
        ..topic("assigned", -1, None)
    };
    let create = CreateTopicsRequest {
        topics: vec![
            topic("default", -1, None),
            topic("one", 1, None),
            topic("three", 3, None),
            topic("five", 5, Some("2")),
            topic("synced", 1, Some("3")),
            assigned,
        ],
        ..CreateTopicsRequest::default()
    };
    let expected = [2, 2, 3, 5, 3, 4];
    for version in [5, 7] {
        let request = CreateTopicsRequest {
            validate_only: version == 5,
            ..create.clone()
        };
        let created = client.call(&request, version).await;
        let shown = created.topics.iter().map(|topic| topic.replication_factor);
        assert!(shown.eq(expected), "{created:?}");
    }
    let told = metadata(&mut client, 3).await;
    for (asked, expected) in create.topics.iter().zip(expected) {
        let mut named = told.topics.iter();
        let topic = named.find(|topic| topic.name.as_ref() == Some(&asked.name));
        for partition in &topic.unwrap().partitions {
            let replicas = &partition.replica_nodes;
            assert_eq!(replicas.len(), usize::try_from(expected).unwrap());
            assert_eq!(&partition.isr_nodes, replicas);
            assert_eq!(partition.leader_id, cluster.id(2), "the agent of zone b");
            assert_eq!(replicas[0], partition.leader_id);
            let of_a = [cluster.id(0), cluster.id(1)];
            assert!(replicas.iter().any(|id| of_a.contains(id)));
            if expected >= 3 {
                assert!(of_a.iter().all(|id| replicas.contains(id)));
            }
        }
    }
}

#[tokio::test]
async fn a_client_is_told_the_addresses_of_the_listener_by_which_it_came() {
    let mut cluster = Cluster::of_zones(&["a"]).await;
    let outside = |zone: Option<&str>, port| Listener {
        zone: zone.map(str::to_owned),
        advertised_host: Some("kafka.example".to_owned()),
        advertised_port: Some(port),
        ..listener("OUTSIDE")
    };
    let inside = || listener(PLAINTEXT);
    cluster
        .join("b", vec![inside(), outside(None, 1_002)])
        .await;
    cluster
        .join("c", vec![outside(Some("b"), 1_003), inside()])
        .await;
    let mut client = cluster.client(1, "").await;
    assert_eq!(metadata(&mut client, 3).await.brokers[1].host, "127.0.0.1");
    for (agent, at) in [(1, 1), (2, 0)] {
        let address = cluster.agents[agent].agent.addresses()[at];
        let mut client = Client::connect(address).await;
        let told = metadata(&mut client, 2).await;
        let brokers = told.brokers.iter().map(|one| (one.node_id, one.port));
        let expected = [(cluster.id(1), 1_002), (cluster.id(2), 1_003)];
        assert!(brokers.eq(expected), "{:?}", told.brokers);
        assert!(told.brokers.iter().all(|one| one.host == "kafka.example"));
        assert_eq!(told.controller_id, cluster.id(1));
        // The agent that lacks the listener leads nothing for those who came by it.
        assert!(!leaders(&told).contains(&cluster.id(0)));
        let described = client.call(&DescribeClusterRequest::default(), 0).await;
        let ports = described.brokers.iter().map(|one| one.port);
        assert!(ports.eq([1_002, 1_003]));
        let find = FindCoordinatorRequest {
            key: "g".into(),
            ..FindCoordinatorRequest::default()
        };
        let found = client.call(&find, 3).await;
        assert_eq!(found.host, "kafka.example");
        assert!([cluster.id(1), cluster.id(2)].contains(&found.node_id));
        // The listener of the last agent is that of clients in zone b, if they say nothing else.
        let is_b = leaders(&told).iter().all(|id| *id == cluster.id(1));
        assert_eq!(is_b, agent == 2);
        assert!(found.node_id == cluster.id(1) || agent == 1);
        let mut client = client.named("zone=c");
        // Whichever agent is asked names the same one for a group: the one in the client's zone.
        assert_eq!(client.call(&find, 3).await.node_id, cluster.id(2));
        let told = metadata(&mut client, 2).await;
        assert!(leaders(&told).iter().all(|id| *id == cluster.id(2)));
    }
}

/// A fetch of a partition from its beginning by a reader in a zone.
fn from_rack(rack: &str, partition: i32) -> FetchRequest {
    FetchRequest {
        rack_id: rack.into(),
        max_wait_ms: 10_000,
        ..fetch_request("t", &[(partition, 0)])
    }
}

#[tokio::test]
async fn a_reader_is_sent_to_the_agent_of_its_rack_and_served_there() {
    let cluster = Cluster::of_zones(&["a", "b"]).await;
    let mut clients = [cluster.client(0, "").await, cluster.client(1, "").await];
    metadata(&mut clients[1], 2).await;
    let told = metadata(&mut clients[0], 2).await;
    // Whoever is named, all serve.
    for (client, value) in [(0, "x"), (1, "y")] {
        let produced = clients[client].produce("t", 0, batch(&[value])).await;
        assert_eq!(produced.error_code, 0);
    }
    let records = [(0, "x".to_owned()), (1, "y".to_owned())];
    for (rack, own) in [("a", 0), ("b", 1)] {
        let other = 1 - own;
        let sent = only(clients[other].call(&from_rack(rack, 0), 12).await);
        assert_eq!(
            (sent.error_code, sent.preferred_read_replica),
            (0, cluster.id(own))
        );
        assert!(values_of(&sent).is_empty());
        assert!(
            partitions(&told)[0]
                .replica_nodes
                .contains(&cluster.id(own))
        );
        let served = only(clients[own].call(&from_rack(rack, 0), 12).await);
        assert_eq!((served.error_code, served.preferred_read_replica), (0, -1));
        assert_eq!(values_of(&served), records);
        // Those who cannot be sent, or are in no zone that an agent is in, are served wherever they ask.
        for (version, rack) in [(10, rack), (12, ""), (12, "z")] {
            let served = only(clients[other].call(&from_rack(rack, 0), version).await);
            assert_eq!(served.preferred_read_replica, -1);
            assert_eq!(values_of(&served), records);
        }
        // What a request says of its epoch is looked at first.
        let mut fenced = from_rack(rack, 0);
        fenced.topics[0].partitions[0].current_leader_epoch = meta::LEADER_EPOCH - 1;
        let fenced = only(clients[other].call(&fenced, 12).await);
        assert_ne!(fenced.error_code, 0);
        assert_eq!(fenced.preferred_read_replica, -1);
    }
    // Metadata has sent a client whose client id names a zone to its agents.
    let mut named = cluster.client(0, "zone=a").await;
    let served = only(named.call(&from_rack("b", 0), 12).await);
    assert_eq!(served.preferred_read_replica, -1);
}

#[tokio::test]
async fn a_session_is_sent_away_once_an_agent_of_its_zone_is_there() {
    let mut cluster = Cluster::of_zones(&["a"]).await;
    let mut client = cluster.client(0, "").await;
    assert_eq!(client.produce("t", 3, batch(&["x"])).await.error_code, 0);
    let ask = |session_id, session_epoch, offset| {
        let mut request = FetchRequest {
            session_id,
            session_epoch,
            max_wait_ms: 0,
            ..from_rack("b", 3)
        };
        request.topics[0].partitions[0].fetch_offset = offset;
        request
    };
    let first = client.call(&ask(0, 0, 0), 12).await;
    let id = first.session_id;
    assert_eq!(values_of(&only(first)), [(0, "x".to_owned())]);
    let nothing_new = client.call(&ask(id, 1, 1), 12).await;
    assert_eq!(nothing_new.responses.len(), 0);
    cluster.join("b", vec![listener(PLAINTEXT)]).await;
    metadata(&mut client, 2).await;
    let sent = only(client.call(&ask(id, 2, 1), 12).await);
    assert_eq!(
        (sent.error_code, sent.preferred_read_replica),
        (0, cluster.id(1))
    );
    // Who stays is told again, and served once there is no other.
    let again = only(client.call(&ask(id, 3, 1), 12).await);
    assert_eq!(again.preferred_read_replica, cluster.id(1));
    drop(cluster.agents.pop());
    cluster.control.fence(2);
    metadata(&mut client, 1).await;
    assert_eq!(client.produce("t", 3, batch(&["y"])).await.error_code, 0);
    let served = only(client.call(&ask(id, 4, 1), 12).await);
    assert_eq!(served.preferred_read_replica, -1);
    assert_eq!(values_of(&served), [(1, "y".to_owned())]);
}

#[tokio::test]
async fn a_partition_has_one_leader_epoch_whoever_leads_and_wherever_it_is_told() {
    let mut cluster = Cluster::of_zones(&["a"]).await;
    let mut client = cluster.client(0, "").await;
    assert_eq!(client.produce("t", 0, batch(&["x"])).await.error_code, 0);
    for agents in [1, 2, 3] {
        for asked in 0..agents {
            let mut client = cluster.client(asked, "").await;
            let told = metadata(&mut client, agents).await;
            let mut epochs: Vec<i32> = Vec::new();
            epochs.extend(partitions(&told).iter().map(|one| one.leader_epoch));
            for timestamp in [-1, -2, 0] {
                let listed = ListOffsetsRequest {
                    topics: vec![ListOffsetsTopic {
                        name: "t".into(),
                        partitions: vec![ListOffsetsPartition {
                            timestamp,
                            ..ListOffsetsPartition::default()
                        }],
                    }],
                    ..ListOffsetsRequest::default()
                };
                let listed = client.call(&listed, 7).await;
                epochs.push(listed.topics[0].partitions[0].leader_epoch);
            }
            let epoch = OffsetForLeaderEpochRequest {
                topics: vec![OffsetForLeaderTopic {
                    topic: "t".into(),
                    partitions: vec![OffsetForLeaderPartition {
                        current_leader_epoch: meta::LEADER_EPOCH,
                        leader_epoch: meta::LEADER_EPOCH,
                        ..OffsetForLeaderPartition::default()
                    }],
                }],
                ..OffsetForLeaderEpochRequest::default()
            };
            let ends = client.call(&epoch, 4).await;
            epochs.push(ends.topics[0].partitions[0].leader_epoch);
            let fetched = client.fetch("t", 0, 0).await;
            let batches = batches_of(&fetched);
            epochs.extend(batches.iter().map(|batch| batch.leader_epoch()));
            assert_eq!(epochs, vec![meta::LEADER_EPOCH; epochs.len()]);
            assert_eq!(batches.len(), 1);
        }
        cluster.join("b", vec![listener(PLAINTEXT)]).await;
    }
}
