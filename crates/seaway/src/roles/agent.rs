//! `seaway agent`: serves Kafka clients, on the bucket and the control nodes of a cluster.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use host::backoff::Backoff;
use host::log_limit::LogLimit;
use host::task::Task;
use link::process::{Process, Role};
use link::{Caller, Cluster, Neighbours};
use meta::level::Levels;
use rpc::{Call, Control};
use store::bucket::Bucket;
use store::nodes;

use super::discovery;
use super::zones::{Place, tell_if_alone};
use crate::admission::{self, Admitted, Whose};
use crate::config::Configured;
use crate::health::{Health, Parts};
use crate::links::Links;
use crate::listening::{self, Sockets, Street, Told, send_away};
use crate::places::Places;
use crate::running::{Broken, Running};
use crate::settings::REGION;
use crate::spending::Spending;
use crate::tuning;

/// The pauses before the leader is looked for again.
const RETRY: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What it means for an agent to be alone in its zone.
const ALONE: &str = "clients who name another zone are sent to the agents of that one, and this agent reads all that it is asked for from the bucket by itself";

pub struct Plan {
    pub configured: Configured,
    pub name: String,
    pub buckets: Places,
    /// Addresses of control nodes, beyond those that the bucket tells.
    pub control: Vec<String>,
    pub files: u64,
    /// Where Kafka clients connect.
    pub kafka: Sockets,
    /// Where other agents of its zone connect.
    pub street: Street,
    /// How it talks to control nodes and other agents.
    pub links: Links,
}

pub struct Agent {
    admitted: Admitted,
    agent: agent::Agent,
    /// How long clients may take to go to other agents.
    drain_max: Duration,
    _discovery: Task<()>,
    /// Answers other agents of the zone.
    _offering: Task<()>,
    _hint: Task<()>,
}

/// Starts the agent, however long the bucket and the control nodes take to answer.
pub async fn start(plan: Plan, health: &Health) -> Result<Agent> {
    let starting = async {
        let admitted = admission::admit(
            &plan.buckets,
            plan.configured.settings.text(REGION),
            &Whose::Anybodys,
            None,
            health,
        )
        .await?;
        let caller = Caller {
            cluster_id: admitted.cluster_id.clone(),
            process: Process {
                role: Role::Agent,
                name: plan.name.clone(),
            },
            security: plan.links.security(),
        };
        let (cluster, found) = Cluster::new(&caller, Levels::KNOWN).context("the cluster's id")?;
        let bucket = admitted.bucket();
        let looking = discovery::keep_looking(bucket, plan.control, found);
        let discovery = host::task::spawn("discovery", async move { match looking.await {} });
        wait_for_leader(&cluster, health).await;
        let is_billed = admitted.is_billed();
        let Configured { settings, shares } = &plan.configured;
        let settings = agent::Settings {
            tells_presence: true,
            ..tuning::agent(settings, shares, &plan.name, plan.files, is_billed)?
        };
        let others = Neighbours::new(&caller, Levels::KNOWN).context("the cluster's id")?;
        Ok::<_, anyhow::Error>((admitted, cluster, discovery, settings, others))
    };
    let own = Place::of(&plan.configured.settings);
    let drain_max = plan.configured.settings.millis("agent.drain.max.ms");
    let (admitted, cluster, discovery, settings, others) = tokio::select! {
        started = starting => started?,
        never = send_away(&plan.kafka) => match never {},
    };
    let buckets = Arc::clone(&admitted.buckets);
    let zone = agent::Zone {
        address: plan.street.address.to_string(),
        others: Arc::new(others),
    };
    let cluster = Arc::new(cluster);
    let agent = agent::Agent::start(settings, plan.kafka, buckets, cluster, Some(zone)).await?;
    let (cluster_id, security) = (admitted.cluster_id.clone(), plan.links.security());
    let offering = link::serve_parts(plan.street.socket, cluster_id, agent.offer(), security);
    let others = others_of(agent.probe(), admitted.bucket());
    let hint = tell_if_alone(own, ALONE, async || others.await);
    health.serving(Parts {
        control: None,
        agent: Some(agent.probe()),
        spending: Spending::watch(Arc::clone(&admitted.counters), admitted.is_billed()),
        bucket: Arc::clone(&admitted.counters),
        buckets: Arc::clone(&admitted.buckets),
    });
    Ok(Agent {
        admitted,
        agent,
        drain_max,
        _discovery: discovery,
        _offering: host::task::spawn("parts", offering),
        _hint: host::task::spawn("zones", hint),
    })
}

/// Where the other agents and all control nodes are; `None` if the bucket does not tell.
async fn others_of(agent: agent::Probe, bucket: Arc<dyn Bucket>) -> Option<Vec<Place>> {
    let control = nodes::find(&*bucket, nodes::CONTROL).await.ok()?;
    let control = control.into_iter().map(|node| (node.region, node.zone));
    let all = control.chain(agent.whereabouts_of_others());
    Some(all.map(|(region, zone)| Place { region, zone }).collect())
}

/// Waits until a control node leads, however long that takes: until then no client can be served.
async fn wait_for_leader(cluster: &Cluster, health: &Health) {
    let mut pauses = RETRY.start();
    let log = LogLimit::every(LOG_EVERY);
    while let Err(error) = cluster.call(Call::Barrier).await {
        health.waiting(&format!(
            "no control node leads that this agent reaches: {error}"
        ));
        if let Some(left_out) = log.pass(host::clock::now()) {
            tracing::warn!(%error, left_out, "no control node leads that this agent reaches; it goes on looking");
        }
        pauses.pause().await;
    }
    health.waiting("starting the agent");
}

impl Agent {
    /// What Kafka clients are told, listener by listener.
    pub fn told(&self) -> Vec<Told> {
        listening::told_by(&self.agent)
    }

    pub fn cluster_id(&self) -> &str {
        &self.admitted.cluster_id
    }
}

impl Running for Agent {
    async fn broken(&self) -> Broken {
        Broken::Bucket(anyhow!(self.admitted.lost().await))
    }

    async fn drain(&self) {
        self.agent.drain(self.drain_max).await;
    }

    async fn stop(self) {
        self.agent.stop().await;
    }
}
