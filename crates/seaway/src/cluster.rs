//! The parts of `seaway dev`, started in order: bucket, control node, agent. It waits for a bucket
//! that is away.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use host::task::Task;

use crate::admission::{self, Admitted, Whose};
use crate::config::Configured;
use crate::data_dir::DataDir;
use crate::health::{self, Health, Parts};
use crate::journals::Journal;
use crate::listening::{self, Sockets, Told, send_away};
use crate::places::Places;
use crate::running::{Broken, Running};
use crate::settings::REGION;
use crate::spending::Spending;
use crate::tuning;

/// How often the reason for a slow start is updated.
const TELL_EVERY: Duration = Duration::from_millis(500);

pub struct Plan {
    pub configured: Configured,
    pub buckets: Places,
    pub files: u64,
    /// Where Kafka clients connect.
    pub kafka: Sockets,
}

pub struct Cluster {
    admitted: Admitted,
    control: Arc<control::Node>,
    control_tasks: control::start::Tasks,
    _marking: Option<Task<()>>,
    agent: agent::Agent,
}

/// What an agent needs of the parts started before it.
struct Base {
    admitted: Admitted,
    control: Arc<control::Node>,
    control_tasks: control::start::Tasks,
}

/// Starts everything, however long the bucket takes to answer.
pub async fn start(plan: Plan, directory: &mut DataDir, health: &Health) -> Result<Cluster> {
    let base = tokio::select! {
        base = start_base(&plan, directory, health) => base?,
        never = send_away(&plan.kafka) => match never {},
    };
    health.waiting("starting the agent");
    let is_billed = base.admitted.is_billed();
    let Configured { settings, shares } = &plan.configured;
    let agent_settings = tuning::agent(settings, shares, tuning::DEV, plan.files, is_billed)?;
    let shared: Arc<dyn rpc::Control> = Arc::<control::Node>::clone(&base.control);
    let buckets = Arc::clone(&base.admitted.buckets);
    let agent = agent::Agent::start(agent_settings, plan.kafka, buckets, shared, None).await?;
    let marking = (base.admitted.buckets.numbers().len() > 1).then(|| {
        let buckets = Arc::clone(&base.admitted.buckets);
        let after = settings.millis("bucket.away.after.ms");
        let marking = Arc::clone(&base.control).keep_marking(buckets, after);
        host::task::spawn("bucket marks", async move { match marking.await {} })
    });
    health.serving(Parts {
        control: Some(Arc::clone(&base.control)),
        agent: Some(agent.probe()),
        spending: Spending::watch(Arc::clone(&base.admitted.counters), is_billed),
        bucket: Arc::clone(&base.admitted.counters),
        buckets: Arc::clone(&base.admitted.buckets),
    });
    Ok(Cluster {
        admitted: base.admitted,
        control: base.control,
        control_tasks: base.control_tasks,
        _marking: marking,
        agent,
    })
}

async fn start_base(plan: &Plan, directory: &mut DataDir, health: &Health) -> Result<Base> {
    let whose = Whose::Expected(directory.cluster_id());
    let admitted = admission::admit(
        &plan.buckets,
        plan.configured.settings.text(REGION),
        &whose,
        Some(&Journal::Buckets),
        health,
    )
    .await?;
    directory.bind(&admitted.cluster_id)?;
    health.waiting("reading the journal");
    let (_, kafka) = plan.kafka.first().context("there is no listener")?;
    let kafka = kafka.local_addr()?.to_string();
    let identity = tuning::Identity {
        name: tuning::DEV,
        address: &kafka,
        is_alone: true,
    };
    let is_billed = admitted.is_billed();
    let Configured { settings, shares } = &plan.configured;
    let cluster_id = &admitted.cluster_id;
    let mut settings = tuning::control(settings, shares, cluster_id, &identity, is_billed);
    settings.cluster_configs.placement = admitted.placement();
    let engine = admitted.engine(settings.journal.shard);
    let (control, control_tasks) = control::Node::start(&settings, engine, admitted.bucket());
    let led = tokio::select! {
        led = control.lead() => led,
        never = tell(&control, health) => match never {},
    };
    led.map_err(|error| anyhow!("the journal: {error}"))?;
    Ok(Base {
        admitted,
        control,
        control_tasks,
    })
}

/// Tells what the start waits for while this process does not lead, for ever.
async fn tell(control: &control::Node, health: &Health) -> Infallible {
    loop {
        host::clock::sleep(TELL_EVERY).await;
        if let Some(why) = health::journal_obstacle(control) {
            health.waiting(&format!("reading the journal: {why}"));
        }
    }
}

impl Cluster {
    /// What Kafka clients are told, listener by listener.
    pub fn told(&self) -> Vec<Told> {
        listening::told_by(&self.agent)
    }

    pub fn cluster_id(&self) -> &str {
        &self.admitted.cluster_id
    }
}

impl Running for Cluster {
    async fn broken(&self) -> Broken {
        tokio::select! {
            why = self.control.halted() => Broken::Journal(self.admitted.explained(anyhow!("the journal stopped: {why}")).await),
            why = self.admitted.lost() => Broken::Bucket(anyhow!(why)),
        }
    }

    /// Ends the agent first, so that what it has in flight can still be committed.
    async fn stop(self) {
        self.agent.stop().await;
        drop(self.control_tasks);
    }
}
