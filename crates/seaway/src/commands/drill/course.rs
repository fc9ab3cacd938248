//! The course of a drill: clients in every region are under way, a region is lost and comes back, and what was written is read. It must
//! not know how the outcome is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use host::clock;
use host::task::{self, Task};
use tokio::sync::watch;
use wire::errors::ErrorCode;

use super::account::{Comparison, Written, acknowledged};
use super::client::{Phase, Seat};
use super::cluster::Cluster;
use super::report::{Client, Kind, Report, Return};
use super::{consumer, producer};
use crate::client::{Client as Connection, Refused};
use crate::commands::topic::{LATEST, offsets, topic_metadata};

/// Producers in each region.
const PRODUCERS: u32 = 2;
/// How long an agent may take to hear of a new topic.
const TOPIC_LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is to be done.
pub struct Plan {
    pub topic: String,
    pub partitions: i32,
    /// The region to be lost, and the one that leads.
    pub region: String,
    pub leader: String,
    /// How long clients work before the loss, while the region is away, and once it is told to come back.
    pub load: Duration,
    /// Records of all producers in a second.
    pub rate: u32,
}

/// Carries a plan out. The topic was made.
pub async fn run(plan: &Plan, cluster: &Cluster<'_>) -> Result<Report> {
    await_topic(plan, cluster).await?;
    let mut crowd = Crowd::start(plan, cluster)?;
    clock::sleep(plan.load).await;
    crowd.check_served(plan.load)?;
    eprintln!(
        "{} records are acknowledged; {} is lost now",
        crowd.acknowledged(),
        plan.region
    );
    let lost = clock::now();
    crowd.phase.send_replace(Phase::Since);
    cluster.kill(&plan.region).await?;
    clock::sleep_until(lost + plan.load).await;
    eprintln!(
        "{} records are acknowledged; {} comes back",
        crowd.acknowledged(),
        plan.region
    );
    cluster.restore().await?;
    let restored = clock::now();
    cluster.await_rejoin(&plan.region).await?;
    let rejoined = clock::now().since(restored);
    let copies = async {
        cluster.await_copies(&plan.region, restored).await?;
        anyhow::Ok(clock::now().since(restored))
    };
    let rest = async {
        clock::sleep_until(restored + plan.load).await;
        let outcome = crowd.end(plan).await?;
        eprintln!(
            "everything is read; now the bucket of {} is to be complete",
            plan.region
        );
        anyhow::Ok(outcome)
    };
    let (completed, outcome) = tokio::try_join!(copies, rest)?;
    Ok(Report {
        topic: plan.topic.clone(),
        partitions: plan.partitions,
        region: plan.region.clone(),
        led_before: plan.leader.clone(),
        led_after: cluster.leader().await?,
        away: restored.since(lost),
        back: Return {
            rejoined,
            completed,
        },
        acknowledged: outcome.acknowledged,
        compared: outcome.compared,
        clients: outcome.clients,
    })
}

/// Waits until every agent knows the topic: others hear of it a moment after the one that was asked to make it.
async fn await_topic(plan: &Plan, cluster: &Cluster<'_>) -> Result<()> {
    for address in cluster.addresses(&plan.leader)? {
        let mut connection = Connection::of(vec![address.clone()]);
        let deadline = clock::now() + TOPIC_LIMIT;
        while let Err(error) = topic_metadata(&mut connection, &plan.topic, false).await {
            let refused = error.downcast_ref::<Refused>();
            let is_unknown = refused
                .is_some_and(|refused| refused.code == Some(ErrorCode::UnknownTopicOrPartition));
            if !is_unknown || clock::now() >= deadline {
                return Err(error.context(format!(
                    "the agent at {address} does not tell of the topic that was made for the drill: `seaway status` says how the \
                     cluster is"
                )));
            }
            clock::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

/// A client under way.
struct Member<T> {
    name: String,
    is_of_lost_region: bool,
    /// What it has had acknowledged so far, if it is a producer.
    acknowledged: Arc<AtomicU64>,
    task: Task<T>,
}

/// All clients.
struct Crowd {
    addresses: Vec<String>,
    /// How many producers there are.
    count: u32,
    phase: watch::Sender<Phase>,
    ends: watch::Sender<consumer::Ends>,
    producers: Vec<Member<producer::Outcome>>,
    consumers: Vec<Member<consumer::Outcome>>,
}

/// What came of all clients.
struct Outcome {
    acknowledged: u64,
    compared: Comparison,
    clients: Vec<Client>,
}

impl Crowd {
    fn start(plan: &Plan, cluster: &Cluster<'_>) -> Result<Self> {
        let (phase, ends) = (watch::Sender::new(Phase::Before), watch::Sender::new(None));
        let regions = cluster.regions()?;
        let count = u32::try_from(regions.len())? * PRODUCERS;
        let mut crowd = Crowd {
            addresses: cluster.addresses(&plan.leader)?,
            count,
            phase,
            ends,
            producers: Vec::new(),
            consumers: Vec::new(),
        };
        for region in regions {
            let addresses = cluster.addresses(&region)?;
            let seat = |name: &str| Seat {
                name: format!("{region}-{name}"),
                addresses: addresses.clone(),
                topic: plan.topic.clone(),
                partitions: plan.partitions,
                producers: count,
                phase: crowd.phase.subscribe(),
            };
            let is_of_lost_region = region == plan.region;
            for number in 1..=PRODUCERS {
                let seat = seat(&format!("producer-{number}"));
                let name = seat.name.clone();
                let acknowledged = Arc::new(AtomicU64::new(0));
                let order = producer::Order {
                    seat,
                    number: u32::try_from(crowd.producers.len())?,
                    rate_millis: u64::from(plan.rate) * 1_000 / u64::from(count),
                    acknowledged: Arc::clone(&acknowledged),
                };
                crowd.producers.push(Member {
                    name,
                    is_of_lost_region,
                    acknowledged,
                    task: task::spawn("producer", producer::run(order)),
                });
            }
            let seat = seat("consumer-1");
            crowd.consumers.push(Member {
                name: seat.name.clone(),
                is_of_lost_region,
                acknowledged: Arc::default(),
                task: task::spawn("consumer", consumer::run(seat, crowd.ends.subscribe())),
            });
        }
        Ok(crowd)
    }

    fn acknowledged(&self) -> u64 {
        let producers = self.producers.iter();
        producers
            .map(|producer| producer.acknowledged.load(Ordering::Relaxed))
            .sum()
    }

    /// Refuses to go on if the cluster does not serve its clients even with all regions.
    fn check_served(&self, load: Duration) -> Result<()> {
        for producer in &self.producers {
            if producer.acknowledged.load(Ordering::Relaxed) == 0 {
                bail!(
                    "no record of {} was acknowledged within {} s, and no region was lost so far: `seaway status` and \
                     `seaway region list` say how the cluster is; --seconds gives it more time",
                    producer.name,
                    load.as_secs()
                );
            }
        }
        Ok(())
    }

    /// Ends all clients, once producers know the outcome of everything, and consumers have read it.
    async fn end(&mut self, plan: &Plan) -> Result<Outcome> {
        self.phase.send_replace(Phase::Over);
        let (mut written, mut clients) = (Written::new(), Vec::new());
        for member in self.producers.drain(..) {
            let outcome = member.task.join().await.context("a producer was cut off")?;
            clients.push(Client {
                name: member.name,
                kind: Kind::Producer,
                is_of_lost_region: member.is_of_lost_region,
                records: acknowledged(&outcome.written),
                pauses: outcome.pauses,
                failure: outcome.failure,
                compared: None,
            });
            written.extend(outcome.written);
        }
        let mut connection = Connection::of(self.addresses.clone());
        let ends = offsets(&mut connection, &plan.topic, plan.partitions, LATEST).await?;
        self.ends.send_replace(Some(ends.into()));
        for member in self.consumers.drain(..) {
            let outcome = member.task.join().await.context("a consumer was cut off")?;
            let is_whole = outcome.failure.is_none();
            clients.push(Client {
                name: member.name,
                kind: Kind::Consumer,
                is_of_lost_region: member.is_of_lost_region,
                records: outcome.found.records(),
                pauses: outcome.pauses,
                failure: outcome.failure,
                compared: is_whole.then(|| outcome.found.compare(&written)),
            });
        }
        Ok(Outcome {
            acknowledged: acknowledged(&written),
            compared: self.read_again(plan, &written).await?,
            clients,
        })
    }

    /// What a consumer finds that begins now.
    async fn read_again(&self, plan: &Plan, written: &Written) -> Result<Comparison> {
        let seat = Seat {
            name: "the last reader".to_owned(),
            addresses: self.addresses.clone(),
            topic: plan.topic.clone(),
            partitions: plan.partitions,
            producers: self.count,
            phase: self.phase.subscribe(),
        };
        let outcome = consumer::run(seat, self.ends.subscribe()).await;
        match outcome.failure {
            Some(failure) => bail!("what was written cannot be read: {failure}"),
            None => Ok(outcome.found.compare(written)),
        }
    }
}
