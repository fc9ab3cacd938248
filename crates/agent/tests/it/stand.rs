//! An agent on a free port, with its control plane and bucket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::settings::{Budgets, FailPoints, Listener};
use agent::{Agent, Settings, Zone};
use rpc::Control;
use store::buckets::Buckets;
use store::faulty::Faulty;
use store::memory::Memory;

use crate::client::Client;
use crate::control::{Fake, configs};

/// A listener that advertises where it listens.
pub fn listener(name: &str) -> Listener {
    Listener {
        name: name.to_owned(),
        zone: None,
        advertised_host: None,
        advertised_port: None,
    }
}

/// An agent, its control plane and its bucket.
pub struct Stand {
    pub control: Arc<Fake>,
    pub bucket: Arc<Faulty>,
    pub agent: Agent,
}

pub fn settings() -> Settings {
    Settings {
        name: "agent-1".to_owned(),
        levels: meta::level::Levels::KNOWN,
        region: "local".to_owned(),
        zone: "zone-a".to_owned(),
        auto_create_topics_enable: true,
        num_partitions: 2,
        socket_request_max_bytes: 8 << 20,
        max_connections: 100,
        max_connections_per_ip: usize::MAX,
        connections_max_idle: Duration::from_secs(60),
        budgets: Budgets::SMALL,
        fetch_max_bytes: 16 << 20,
        fetch_sessions_max: 10,
        flush_bytes: 1 << 20,
        file_batches_max: 10_000,
        flush_interval: Duration::from_millis(8),
        flush_interval_max: Duration::from_millis(8),
        flush_requests_per_second: 0,
        upload_concurrency: 8,
        upload_timeout: Duration::from_secs(10),
        bucket_reserve_bytes: 0,
        collect_interval: Duration::from_secs(3_600),
        collect_list_interval: Duration::from_secs(3_600),
        repair_bytes_per_second: 1 << 30,
        repair_files_per_second: 100_000,
        file_delete_grace: Duration::from_secs(600),
        version: "0.1.0".to_owned(),
        tells_presence: false,
        broker_configs: Vec::new(),
        fail_points: FailPoints::NONE,
    }
}

impl Stand {
    pub async fn new() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let bucket = Arc::new(Faulty::new(Arc::new(Memory::new()), 1));
        Self::over(settings, Fake::new(), bucket).await
    }

    /// An agent over a control plane and a bucket that another agent may have used before.
    pub async fn over(settings: Settings, control: Arc<Fake>, bucket: Arc<Faulty>) -> Self {
        let alone = vec![listener(meta::endpoint::PLAINTEXT)];
        Self::listening(settings, alone, control, bucket).await
    }

    /// An agent that listens in several places.
    pub async fn listening(
        settings: Settings,
        listeners: Vec<Listener>,
        control: Arc<Fake>,
        bucket: Arc<Faulty>,
    ) -> Self {
        Self::beside(settings, listeners, control, bucket, None).await
    }

    /// An agent with others in its zone.
    pub async fn beside(
        settings: Settings,
        listeners: Vec<Listener>,
        control: Arc<Fake>,
        bucket: Arc<Faulty>,
        zone: Option<Zone>,
    ) -> Self {
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut bound = Vec::new();
        for listener in listeners {
            bound.push((listener, host::net::listen(local).await.unwrap()));
        }
        let as_bucket = Arc::new(Buckets::one(bucket.clone(), Arc::default()));
        let as_control: Arc<dyn Control> = control.clone();
        let agent = Agent::start(settings, bound, as_bucket, as_control, zone)
            .await
            .unwrap();
        Stand {
            control,
            bucket,
            agent,
        }
    }

    pub async fn topic(&self, name: &str, partitions: u32, pairs: &[(&str, &str)]) {
        let configs = configs(pairs);
        self.control.create_topic(name, partitions, configs).await;
    }

    pub async fn delete(&self, topic: &str) {
        let id = self.control.find(topic).id;
        let delete = meta::Command::DeleteTopic { id };
        self.control.client().change(delete).await.unwrap();
    }

    /// Where its first listener listens.
    pub fn address(&self) -> SocketAddr {
        self.agent.addresses()[0]
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }
}
