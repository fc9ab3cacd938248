//! The buckets of a process: opened, tried out, found to be the cluster's, and watched. It waits for one that is away, and refuses
//! one that is certainly wrong.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use etcd::Etcd;
use host::backoff::Backoff;
use host::log_limit::LogLimit;
use journal::engine::Engine;
use journal::object::Object;
use journal::three::Three;
use meta::command::Placement;
use store::bucket::Bucket;
use store::buckets::Buckets;
use store::hedge::Hedged;
use store::layout::{FILES, JOURNAL, SNAPSHOTS};
use store::marker::{self, Marker, Watch};
use store::meter::{Counters, Meter};
use store::{open, probe};

use crate::fail_points;
use crate::health::Health;
use crate::journals::Journal;
use crate::places::Places;

mod elsewhere;
mod several;

use several::Several;

/// The pauses after the bucket gave no answer.
const RETRY: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// How often the log says that the bucket does not answer.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How often the marker is read while all is well: one GET, some 20 cents a month at Amazon's price.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same once a look found something other than the marker.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long one look at the marker may take.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// How long a process that cannot go on looks for the reason.
const EXPLAINED_WITHIN: Duration = Duration::from_secs(2);

/// A cluster's buckets.
pub struct Admitted {
    pub cluster_id: String,
    pub buckets: Arc<Buckets>,
    pub counters: Arc<Counters>,
    /// What is known of them beyond that, if there are several.
    several: Option<Several>,
    /// The engine of the journal, if it is not in the buckets.
    elsewhere: Option<Etcd>,
}

/// Whose bucket a process takes.
pub enum Whose<'a> {
    /// This cluster's; if there is none, one that is nobody's.
    Expected(Option<&'a str>),
    /// Whatever cluster's it is; it waits as long as it is nobody's.
    Anybodys,
}

/// Opens the buckets, and the journal if it is elsewhere, however long they take to answer; `region` is where this process is. A
/// process without a journal of its own does not care where it is.
pub async fn admit(
    places: &Places,
    region: &str,
    whose: &Whose<'_>,
    journal: Option<&Journal>,
    health: &Health,
) -> Result<Admitted> {
    places.check_region(region)?;
    let counters: Arc<Counters> = Arc::default();
    match places {
        Places::One(url) => admit_one(url, whose, journal, counters, health).await,
        Places::Three(places) => {
            if let Some(Journal::Etcd(_)) = journal {
                bail!(
                    "a cluster with three buckets keeps its journal in them: leave --journal out, or give one bucket"
                );
            }
            let several = several::admit(places, region, whose, &counters, health).await?;
            Ok(Admitted {
                cluster_id: several.known.configuration.cluster.clone(),
                buckets: Arc::clone(&several.buckets),
                counters,
                several: Some(several),
                elsewhere: None,
            })
        }
    }
}

async fn open(url: &str) -> Result<Arc<dyn Bucket>> {
    let options = open::Options::from_environment();
    fail_points::in_bucket(open::open(url, &options).await?)
}

/// Counts what is asked of a bucket, and makes it steady.
fn steady(bucket: Arc<dyn Bucket>, counters: &Arc<Counters>) -> Arc<dyn Bucket> {
    let meter = Meter::counting_with(bucket, Arc::clone(counters));
    Arc::new(Hedged::new(Arc::new(meter), Arc::clone(counters)))
}

async fn admit_one(
    url: &str,
    whose: &Whose<'_>,
    journal: Option<&Journal>,
    counters: Arc<Counters>,
    health: &Health,
) -> Result<Admitted> {
    let bucket = steady(open(url).await?, &counters);
    let mut pauses = RETRY.start();
    let log = LogLimit::every(LOG_EVERY);
    loop {
        let why = match try_admit(&bucket, whose, journal).await? {
            Ok(cluster_id) => {
                let elsewhere = match journal {
                    Some(Journal::Etcd(place)) => {
                        Some(elsewhere::admit(place, &*bucket, &cluster_id, health).await?)
                    }
                    Some(Journal::Buckets) | None => None,
                };
                return Ok(Admitted {
                    cluster_id,
                    buckets: Arc::new(Buckets::one(bucket, Arc::clone(&counters))),
                    counters,
                    several: None,
                    elsewhere,
                });
            }
            Err(why) => why,
        };
        health.waiting(&why);
        if let Some(left_out) = log.pass(host::clock::now()) {
            tracing::warn!(%why, left_out, "the bucket cannot be used yet; trying again");
        }
        pauses.pause().await;
    }
}

/// One try to admit the bucket: the outer error is final, the inner one may pass by itself.
async fn try_admit(
    bucket: &Arc<dyn Bucket>,
    whose: &Whose<'_>,
    journal: Option<&Journal>,
) -> Result<Result<String, String>> {
    let expected = match whose {
        Whose::Expected(cluster) => *cluster,
        Whose::Anybodys => None,
    };
    let found = match marker::read_again(&**bucket, expected.is_some()).await {
        Ok(found) if !found.siblings.is_empty() => bail!(
            "the bucket is number {} of the {} of cluster {}: give them all, --bucket 'multi://URL<>URL<>URL'",
            found.bucket,
            found.siblings.len(),
            found.cluster
        ),
        Ok(found) => {
            elsewhere::check(&found, journal)?;
            Some(found.cluster)
        }
        Err(marker::Error::Empty) => None,
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
    let cluster = match (found, expected, whose) {
        (Some(found), ..) => found,
        (None, Some(ours), _) => bail!(
            "the bucket is empty, but this data directory belongs to cluster {ours}: it was \
             wiped, or --bucket names another; restore it, or choose another --data-dir"
        ),
        (None, None, Whose::Anybodys) => {
            let why = "the bucket holds no cluster yet: a control node makes one (seaway control)";
            return Ok(Err(why.to_owned()));
        }
        (None, None, Whose::Expected(_)) => {
            wire::uuid::Uuid::from(host::rng::nonce().to_be_bytes()).to_string()
        }
    };
    if let Err(why) = refuse_files_alone(&**bucket).await? {
        return Ok(Err(why));
    }
    let wanted = Marker {
        cluster,
        created_ms: host::clock::wall_millis(),
        bucket: 0,
        generation: host::rng::nonce() as u64,
        siblings: Vec::new(),
        journal: journal.and_then(Journal::word).map(str::to_owned),
    };
    match marker::claim(&**bucket, &wanted).await {
        Ok(marker) => Ok(Ok(marker.cluster)),
        Err(marker::Error::Bucket(error)) => Ok(Err(error.to_string())),
        Err(marker::Error::OtherCluster { .. }) if expected.is_none() => {
            let why =
                "another process has just made the first cluster in the bucket; this one joins it";
            Ok(Err(why.to_owned()))
        }
        Err(error) => Err(error.into()),
    }
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

impl Admitted {
    /// The buckets, used as one.
    pub fn bucket(&self) -> Arc<dyn Bucket> {
        Arc::<Buckets>::clone(&self.buckets)
    }

    /// Whether requests to the buckets are paid for.
    pub fn is_billed(&self) -> bool {
        self.buckets.is_remote()
    }

    /// Whether requests of the journal are paid for.
    pub fn is_journal_billed(&self) -> bool {
        self.is_billed() && self.elsewhere.is_none()
    }

    /// The engine of the cluster's journal.
    pub fn engine(&self, shard: u16) -> Box<dyn Engine> {
        if let Some(elsewhere) = &self.elsewhere {
            return Box::new(elsewhere.clone());
        }
        match &self.several {
            None => Box::new(Object::new(self.bucket(), shard)),
            Some(several) => {
                let configuration = several.known.configuration.clone();
                Box::new(Three::new(several.by_number(), configuration))
            }
        }
    }

    /// What a new cluster is told of its buckets, if it has several.
    pub fn placement(&self) -> Option<Placement> {
        self.several.as_ref().map(Several::placement)
    }

    /// Why the journal has stopped, with what the marker of the cluster's only bucket says of that: of a bucket that was wiped
    /// entries are missed before it is certain that the bucket is another.
    pub async fn explained(&self, why: anyhow::Error) -> anyhow::Error {
        if self.several.is_some() {
            return why;
        }
        let look = host::clock::timeout(EXPLAINED_WITHIN, marker::read(&*self.buckets)).await;
        match look
            .ok()
            .and_then(|found| marker::contradiction(&self.cluster_id, found))
        {
            Some(change) => anyhow!("{why}. It may be since {change}"),
            None => why,
        }
    }

    /// Waits until the cluster's only bucket is certainly not its any more: exchanged, or wiped. One of several only counts for
    /// nothing from then on.
    pub async fn lost(&self) -> String {
        if self.several.is_some() {
            return std::future::pending().await;
        }
        let mut watch = Watch::new(&self.cluster_id);
        loop {
            let pause = if watch.is_calm() {
                LOOK_EVERY
            } else {
                LOOK_AGAIN_AFTER
            };
            host::clock::sleep(pause).await;
            let look = marker::read(&*self.buckets);
            // Without an answer nothing is known about whose bucket it is.
            let Ok(found) = host::clock::timeout(LOOK_LIMIT, look).await else {
                continue;
            };
            if let Some(why) = watch.found(found) {
                return why;
            }
        }
    }
}
