//! The bucket of a process: opened, tried out, found to be the cluster's, and watched. It waits for one that is away, and refuses
//! one that is certainly wrong.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use host::backoff::Backoff;
use host::log_limit::LogLimit;
use store::bucket::Bucket;
use store::hedge::Hedged;
use store::layout::{FILES, JOURNAL, SNAPSHOTS};
use store::marker::{self, Marker, Watch};
use store::meter::{Counters, Meter};
use store::{open, probe};

use crate::health::Health;

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

/// A cluster's bucket.
pub struct Admitted {
    pub cluster_id: String,
    pub bucket: Arc<dyn Bucket>,
    pub counters: Arc<Counters>,
}

/// Whose bucket a process takes.
pub enum Whose<'a> {
    /// This cluster's; if there is none, one that is nobody's.
    Expected(Option<&'a str>),
    /// Whatever cluster's it is; it waits as long as it is nobody's.
    Anybodys,
}

/// Opens the bucket at `url`, however long it takes to answer.
pub async fn admit(url: &str, whose: &Whose<'_>, health: &Health) -> Result<Admitted> {
    let options = open::Options::from_environment();
    let bucket = open::open(url, &options).await?;
    let meter = Meter::new(bucket);
    let counters = Arc::clone(meter.counters());
    let bucket: Arc<dyn Bucket> = Arc::new(Hedged::new(Arc::new(meter), Arc::clone(&counters)));
    let mut pauses = RETRY.start();
    let log = LogLimit::every(LOG_EVERY);
    loop {
        let why = match try_admit(&bucket, whose).await? {
            Ok(cluster_id) => {
                return Ok(Admitted {
                    cluster_id,
                    bucket,
                    counters,
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
async fn try_admit(bucket: &Arc<dyn Bucket>, whose: &Whose<'_>) -> Result<Result<String, String>> {
    let expected = match whose {
        Whose::Expected(cluster) => *cluster,
        Whose::Anybodys => None,
    };
    let found = match marker::read_again(&**bucket, expected.is_some()).await {
        Ok(found) => Some(found.cluster),
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
    /// Waits until the bucket is certainly not this cluster's any more: exchanged, or wiped.
    pub async fn lost(&self) -> String {
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
}
