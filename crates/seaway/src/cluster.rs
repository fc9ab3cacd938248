//! The parts of `seaway dev`, started in order: bucket, control node, agent. It waits for a bucket
//! that is away, and refuses one that is certainly wrong.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use host::backoff::Backoff;
use host::log_limit::LogLimit;
use store::bucket::Bucket;
use store::hedge::Hedged;
use store::layout::{FILES, JOURNAL, SNAPSHOTS};
use store::marker::{self, Marker, Watch};
use store::meter::{Counters, Meter};
use store::{open, probe};

use crate::data_dir::DataDir;
use crate::health::{self, Health, Parts};
use crate::settings::Settings;
use crate::tuning;

/// The pauses after the bucket gave no answer.
const RETRY: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// How often the log says that the bucket does not answer.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How often the reason for a slow start is updated.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// How often the marker is read while all is well: one GET, some 20 cents a month at Amazon's price.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same once a look found something other than the marker.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long one look at the marker may take.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// How long clients wait for a start to end before their connections are closed: most starts are
/// quicker, and a client whose connection is closed comes again.
const CLIENTS_WAIT: Duration = Duration::from_secs(1);

pub struct Plan {
    pub settings: Settings,
    pub bucket: String,
    pub files: u64,
    /// Where Kafka clients connect.
    pub kafka: host::net::TcpListener,
}

pub struct Cluster {
    cluster_id: String,
    control: Arc<control::Node>,
    control_tasks: control::start::Tasks,
    agent: agent::Agent,
    bucket: Arc<dyn Bucket>,
}

/// Why a cluster cannot go on.
pub enum Broken {
    /// The journal stopped; what is in flight may still be answered.
    Journal(anyhow::Error),
    /// The bucket is not the cluster's any more: nothing may be written to it.
    Bucket(anyhow::Error),
}

/// What an agent needs of the parts started before it.
struct Base {
    cluster_id: String,
    bucket: Arc<dyn Bucket>,
    counters: Arc<Counters>,
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
    let agent_settings = tuning::agent(&plan.settings, plan.files)?;
    let shared: Arc<dyn rpc::Control> = Arc::<control::Node>::clone(&base.control);
    let bucket = Arc::clone(&base.bucket);
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
        bucket,
    })
}

async fn start_base(plan: &Plan, directory: &mut DataDir, health: &Health) -> Result<Base> {
    let options = open::Options::from_environment();
    let bucket = open::open(&plan.bucket, &options).await?;
    let meter = Meter::new(bucket);
    let counters = Arc::clone(meter.counters());
    let bucket: Arc<dyn Bucket> = Arc::new(Hedged::new(Arc::new(meter), Arc::clone(&counters)));
    let cluster_id = admit(&bucket, directory, health).await?;
    directory.bind(&cluster_id)?;
    health.waiting("reading the journal");
    let kafka = plan.kafka.local_addr()?.to_string();
    let settings = tuning::control(&plan.settings, &cluster_id, &kafka);
    let engine = journal::object::Object::new(Arc::clone(&bucket), settings.journal.shard);
    let (control, control_tasks) =
        control::Node::start(&settings, Box::new(engine), Arc::clone(&bucket));
    let led = tokio::select! {
        led = control.lead() => led,
        never = tell(&control, health) => match never {},
    };
    led.map_err(|error| anyhow!("the journal: {error}"))?;
    Ok(Base {
        cluster_id,
        bucket,
        counters,
        control,
        control_tasks,
    })
}

/// Refuses a bucket that holds files but no journal: the cluster would begin empty, and its
/// collector delete them. The inner error may pass by itself.
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

/// Tells what the start waits for while this process does not lead, for ever.
async fn tell(control: &control::Node, health: &Health) -> Infallible {
    loop {
        host::clock::sleep(TELL_EVERY).await;
        if let Some(why) = health::journal_obstacle(control) {
            health.waiting(&format!("reading the journal: {why}"));
        }
    }
}

/// Closes clients' connections while nobody can serve them, for ever: a client without any answer
/// waits for its own timeout, but one whose connection is closed tries again.
async fn send_away(kafka: &host::net::TcpListener) -> Infallible {
    host::clock::sleep(CLIENTS_WAIT).await;
    loop {
        if host::net::accept(kafka).await.is_err() {
            host::clock::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Probes the bucket and finds out whose it is; claims one that is nobody's.
async fn admit(bucket: &Arc<dyn Bucket>, directory: &DataDir, health: &Health) -> Result<String> {
    let mut pauses = RETRY.start();
    let log = LogLimit::every(LOG_EVERY);
    loop {
        let why = match try_admit(bucket, directory).await? {
            Ok(cluster_id) => return Ok(cluster_id),
            Err(why) => why,
        };
        health.waiting(&why);
        if let Some(left_out) = log.pass(host::clock::now()) {
            tracing::warn!(%why, left_out, "the bucket does not answer; trying again");
        }
        pauses.pause().await;
    }
}

/// One try to admit the bucket: the outer error is final, the inner one may pass by itself.
async fn try_admit(
    bucket: &Arc<dyn Bucket>,
    directory: &DataDir,
) -> Result<Result<String, String>> {
    let is_expected = directory.cluster_id().is_some();
    let cluster_id = match marker::read_again(&**bucket, is_expected).await {
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
        Err(error @ (probe::Error::Bucket(_) | probe::Error::Directory(_))) => {
            return Ok(Err(error.to_string()));
        }
        Err(error) => return Err(error.into()),
    }
    if let Err(why) = refuse_files_alone(&**bucket).await? {
        return Ok(Err(why));
    }
    let wanted = Marker {
        cluster: cluster_id,
        created_ms: host::clock::wall_millis(),
        bucket: 0,
        generation: host::rng::nonce() as u64,
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

    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Waits until the cluster cannot go on; yields the reason.
    pub async fn broken(&self) -> Broken {
        tokio::select! {
            why = self.control.halted() => Broken::Journal(anyhow!("the journal stopped: {why}")),
            why = self.bucket_lost() => Broken::Bucket(anyhow!(why)),
        }
    }

    /// Waits until the bucket is certainly not this cluster's any more: exchanged, or wiped.
    async fn bucket_lost(&self) -> String {
        let mut watch = Watch::new(&self.cluster_id);
        loop {
            let pause = if watch.is_calm() {
                LOOK_EVERY
            } else {
                LOOK_AGAIN_AFTER
            };
            host::clock::sleep(pause).await;
            let look = marker::read(&*self.bucket);
            // Without an answer nothing is known about whose bucket it is.
            let Ok(found) = host::clock::timeout(LOOK_LIMIT, look).await else {
                continue;
            };
            if let Some(why) = watch.found(found) {
                return why;
            }
        }
    }

    /// Ends the agent first, so that what it has in flight can still be committed.
    pub async fn stop(self) {
        self.agent.stop().await;
        drop(self.control_tasks);
    }
}
