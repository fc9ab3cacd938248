//! `seaway agent`: serves Kafka clients, on the bucket and the control nodes of a cluster.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use host::task::Task;
use link::{Caller, Cluster};
use meta::level::Levels;

use super::discovery;
use crate::admission::{self, Admitted, Whose};
use crate::cluster::send_away;
use crate::health::{Health, Parts};
use crate::running::{Broken, Running};
use crate::settings::Settings;
use crate::tuning;

pub struct Plan {
    pub settings: Settings,
    pub name: String,
    pub bucket: String,
    /// Addresses of control nodes, beyond those that the bucket tells.
    pub control: Vec<String>,
    pub files: u64,
    /// Where Kafka clients connect.
    pub kafka: host::net::TcpListener,
}

pub struct Agent {
    admitted: Admitted,
    agent: agent::Agent,
    _discovery: Task<()>,
}

/// Starts the agent, however long the bucket and the control nodes take to answer.
pub async fn start(plan: Plan, health: &Health) -> Result<Agent> {
    let starting = async {
        let admitted = admission::admit(&plan.bucket, &Whose::Anybodys, health).await?;
        health.waiting("no control node has registered this agent yet");
        let caller = Caller {
            cluster_id: admitted.cluster_id.clone(),
            name: format!("agent {}", plan.name),
        };
        let (cluster, found) = Cluster::new(&caller, Levels::KNOWN).context("the cluster's id")?;
        let bucket = Arc::clone(&admitted.bucket);
        let looking = discovery::keep_looking(bucket, plan.control, found);
        let discovery = host::task::spawn("discovery", async move { match looking.await {} });
        let settings = agent::Settings {
            tells_presence: true,
            ..tuning::agent(&plan.settings, &plan.name, plan.files)?
        };
        Ok::<_, anyhow::Error>((admitted, cluster, discovery, settings))
    };
    let (admitted, cluster, discovery, settings) = tokio::select! {
        started = starting => started?,
        never = send_away(&plan.kafka) => match never {},
    };
    let bucket = Arc::clone(&admitted.bucket);
    let agent = agent::Agent::start(settings, plan.kafka, bucket, Arc::new(cluster)).await?;
    health.serving(Parts {
        control: None,
        agent: Some(agent.probe()),
        bucket: Arc::clone(&admitted.counters),
    });
    Ok(Agent {
        admitted,
        agent,
        _discovery: discovery,
    })
}

impl Agent {
    /// Where Kafka clients connect, host:port.
    pub fn kafka_address(&self) -> String {
        self.agent.advertised()
    }

    pub fn cluster_id(&self) -> &str {
        &self.admitted.cluster_id
    }
}

impl Running for Agent {
    async fn broken(&self) -> Broken {
        Broken::Bucket(anyhow!(self.admitted.lost().await))
    }

    async fn stop(self) {
        self.agent.stop().await;
    }
}
