//! The parts of `seaway dev`, started in order: bucket, control node, agent. It waits for a
//! bucket that is away, and refuses one that cannot be right.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use store::bucket::Bucket;
use store::layout::{FILES, JOURNAL, SNAPSHOTS};
use store::marker::{self, Marker};
use store::meter::{Counters, Meter};
use store::{open, probe};

use crate::data_dir::DataDir;
use crate::health::{Health, Parts};
use crate::settings::Settings;
use crate::tuning;

/// The first pause after the bucket did not answer, and the longest.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long clients wait for a start to end before they are sent away: the usual start is quicker,
/// and a client that is sent away comes again.
const CLIENTS_WAIT: Duration = Duration::from_secs(1);

/// What to start.
pub struct Plan {
    /// All settings.
    pub settings: Settings,
    /// The bucket's URL.
    pub bucket: String,
    /// Where Kafka clients connect.
    pub kafka: host::net::TcpListener,
}

/// A running cluster.
pub struct Cluster {
    cluster_id: String,
    control: Arc<control::Node>,
    control_tasks: control::node::Tasks,
    agent: agent::Agent,
}

/// What an agent needs of the rest.
struct Base {
    cluster_id: String,
    bucket: Arc<dyn Bucket>,
    counters: Arc<Counters>,
    control: Arc<control::Node>,
    control_tasks: control::node::Tasks,
}

/// Starts everything, however long the bucket takes to answer.
pub async fn start(plan: Plan, directory: &mut DataDir, health: &Health) -> Result<Cluster> {
    let base = tokio::select! {
        base = start_base(&plan, directory, health) => base?,
        never = send_away(&plan.kafka) => match never {},
    };
    health.waiting("starting the agent");
    let agent_settings = tuning::agent(&plan.settings)?;
    let shared: Arc<dyn rpc::Control> = Arc::<control::Node>::clone(&base.control);
    let agent = agent::Agent::start(agent_settings, plan.kafka, base.bucket, shared).await?;
    health.serving(Parts {
        control: Arc::clone(&base.control),
        agent: agent.probe(),
        bucket: base.counters,
    });
    Ok(Cluster {
        cluster_id: base.cluster_id,
        control: base.control,
        control_tasks: base.control_tasks,
        agent,
    })
}

async fn start_base(plan: &Plan, directory: &mut DataDir, health: &Health) -> Result<Base> {
    let options = open::Options::from_environment();
    let bucket = open::open(&plan.bucket, &options).await?;
    let meter = Meter::new(bucket);
    let counters = Arc::clone(meter.counters());
    let bucket: Arc<dyn Bucket> = Arc::new(meter);
    let cluster_id = admit(&bucket, directory, health).await?;
    directory.bind(&cluster_id)?;
    health.waiting("reading the journal");
    let settings = tuning::control(&plan.settings, &cluster_id);
    let (control, control_tasks) = control::Node::start(&settings, Arc::clone(&bucket));
    control
        .lead(&settings)
        .await
        .map_err(|error| anyhow!("the journal: {error}"))?;
    Ok(Base {
        cluster_id,
        bucket,
        counters,
        control,
        control_tasks,
    })
}

/// Refuses a bucket with files and nothing that says what is in them: going on would be an empty
/// cluster, whose collector deletes them. The inner error may pass by itself.
async fn refuse_files_alone(bucket: &dyn Bucket) -> Result<Result<(), String>> {
    for (prefix, is_refused) in [(JOURNAL, false), (SNAPSHOTS, false), (FILES, true)] {
        match bucket.list(prefix, None, 1).await {
            Ok(found) if found.is_empty() => {}
            Ok(_) if is_refused => bail!(
                "the bucket has files of records, but neither a journal nor a snapshot: restore what \
                 was below {JOURNAL}, {SNAPSHOTS} and chunks/ from a copy of the bucket and start again"
            ),
            Ok(_) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    Ok(Ok(()))
}

/// Closes connections of clients while nobody can serve them, for ever: a client that hears nothing
/// waits for its own timeout, one that is sent away tries another agent, or this one again.
async fn send_away(kafka: &host::net::TcpListener) -> Infallible {
    host::clock::sleep(CLIENTS_WAIT).await;
    loop {
        if host::net::accept(kafka).await.is_err() {
            host::clock::sleep(RETRY_MIN).await;
        }
    }
}

/// Probes the bucket and finds out whose it is, claiming it if it is nobody's.
async fn admit(bucket: &Arc<dyn Bucket>, directory: &DataDir, health: &Health) -> Result<String> {
    let mut pause = RETRY_MIN;
    loop {
        let why = match try_admit(bucket, directory).await? {
            Ok(cluster_id) => return Ok(cluster_id),
            Err(why) => why,
        };
        health.waiting(&why);
        tracing::warn!(%why, "the bucket does not answer; trying again");
        host::clock::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// One try: the outer error is for good, the inner one may pass by itself.
async fn try_admit(
    bucket: &Arc<dyn Bucket>,
    directory: &DataDir,
) -> Result<Result<String, String>> {
    let cluster_id = match marker::read(&**bucket).await {
        Ok(found) => found.cluster,
        Err(marker::Error::Empty) => match directory.cluster_id() {
            Some(ours) => bail!(
                "the bucket is empty, but this data directory belongs to cluster {ours}: it was \
                 wiped, or --bucket names another; restore it, or choose another --data-dir"
            ),
            None => wire::uuid::Uuid::from(host::rng::nonce().to_be_bytes()).to_string(),
        },
        Err(marker::Error::Bucket(error)) => return Ok(Err(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    match probe::run(bucket).await {
        Ok(()) => {}
        Err(probe::Error::Bucket(error)) => return Ok(Err(error.to_string())),
        Err(error) => return Err(error.into()),
    }
    if let Err(why) = refuse_files_alone(&**bucket).await? {
        return Ok(Err(why));
    }
    let wanted = Marker {
        cluster: cluster_id,
        created_ms: host::clock::wall_millis(),
    };
    match marker::claim(&**bucket, &wanted).await {
        Ok(marker) => Ok(Ok(marker.cluster)),
        Err(marker::Error::Bucket(error)) => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

impl Cluster {
    /// Where Kafka clients connect, host:port.
    pub fn kafka_address(&self) -> String {
        self.agent.advertised()
    }

    /// Kafka's cluster id.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Waits until the journal cannot go on, and says why.
    pub async fn broken(&self) -> anyhow::Error {
        anyhow!("the journal stopped: {}", self.control.halted().await)
    }

    /// Ends the agent first, so that what it has in flight can still be committed.
    pub async fn stop(self) {
        self.agent.stop().await;
        drop(self.control_tasks);
    }
}

/// Settings that the whole cluster shares, as the state machine names them.
pub fn cluster_configs(settings: &Settings) -> BTreeMap<String, String> {
    let shared = settings
        .all()
        .filter(|(name, _)| meta::config::find(meta::config::CLUSTER, name).is_some());
    shared
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
