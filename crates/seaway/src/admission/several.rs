//! The three buckets of a cluster that spans regions: opened, found to be the cluster's, and watched. Two are enough to go on; one
//! that is not what it was counts for nothing, and stops no process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::join_all;
use host::backoff::Backoff;
use host::log_limit::LogLimit;
use journal::three::founding::{self, Known};
use meta::command::Placement;
use store::bucket::Bucket;
use store::buckets::{Buckets, Member, Standing};
use store::far::Far;
use store::marker::{self, Watch};
use store::meter::Counters;
use store::probe;
use store::switch::Switched;

use super::{LOOK_AGAIN_AFTER, LOOK_EVERY, LOOK_LIMIT, Whose, open, steady};
use crate::health::Health;
use crate::places::{Place, Rehearsal};

/// The buckets that have to hold a file before it may be committed.
const COPIES: u32 = 2;
/// The shard of a cluster that is one state machine.
const SHARD: u16 = 0;
/// The pauses before buckets are looked at again that cannot be used yet.
const RETRY: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// How often the log says that they cannot be used.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// How long the probe of one bucket may take before the process starts without it.
const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// Three buckets of one cluster.
pub struct Several {
    pub known: Known,
    /// In the order on which all processes of the cluster agree.
    places: [Place; 3],
    opened: [Arc<dyn Bucket>; 3],
    pub buckets: Arc<Buckets>,
}

/// Opens the buckets, however long they take to answer; those of the region `own` are read from first.
pub async fn admit(
    places: &[Place; 3],
    own: &str,
    whose: &Whose<'_>,
    counters: &Arc<Counters>,
    health: &Health,
) -> Result<Several> {
    let mut places = places.clone();
    places.sort();
    let mut opened = Vec::new();
    for place in &places {
        opened.push(open_place(place, counters).await?);
    }
    let opened: [Arc<dyn Bucket>; 3] = opened.try_into().ok().context("three buckets")?;
    let new_cluster = match whose {
        Whose::Expected(_) => {
            Some(wire::uuid::Uuid::from(host::rng::nonce().to_be_bytes()).to_string())
        }
        Whose::Anybodys => None,
    };
    let mut known = know(&opened, new_cluster.as_deref(), health).await?;
    if let Whose::Expected(Some(ours)) = whose
        && known.configuration.cluster != **ours
    {
        bail!(
            "the buckets belong to cluster {}, this data directory to {ours}: name the buckets of {ours}, or choose another \
             --data-dir",
            known.configuration.cluster
        );
    }
    try_out(&opened, &mut known).await;
    let usable = known
        .standings
        .iter()
        .filter(|standing| **standing == Standing::Proven);
    if usable.count() < 2 {
        bail!(
            "fewer than two of the buckets can be used: {:?}",
            known.standings
        );
    }
    let order = nearest_first(&places, own);
    let members = order.iter().map(|at| Member {
        number: known.numbers[*at],
        name: places[*at].region.clone(),
        bucket: Arc::clone(&opened[*at]),
    });
    let buckets = Buckets::new(members.collect(), COPIES as usize)?;
    for (number, standing) in known.numbers.iter().zip(&known.standings) {
        if let Standing::Refused(why) = standing {
            tracing::error!(bucket = number, %why, "a bucket is not used; the cluster goes on with the two others");
        }
        buckets.set_standing(*number, standing.clone());
    }
    Ok(Several {
        known,
        places,
        opened,
        buckets: Arc::new(buckets),
    })
}

/// Finds out whose buckets they are, however long they take to answer.
async fn know(
    opened: &[Arc<dyn Bucket>; 3],
    new_cluster: Option<&str>,
    health: &Health,
) -> Result<Known> {
    let mut pauses = RETRY.start();
    let log = LogLimit::every(LOG_EVERY);
    loop {
        let why = match founding::admit(opened, SHARD, new_cluster).await {
            Ok(known) => return Ok(known),
            Err(founding::Error::Refused(why)) => bail!(why),
            Err(founding::Error::Waits(why)) => why,
        };
        health.waiting(&why);
        if let Some(left_out) = log.pass(host::clock::now()) {
            tracing::warn!(%why, left_out, "the buckets cannot be used yet; trying again");
        }
        pauses.pause().await;
    }
}

async fn open_place(place: &Place, counters: &Arc<Counters>) -> Result<Arc<dyn Bucket>> {
    let bucket = open(&place.url).await?;
    let Rehearsal {
        switch,
        round_trip,
        put,
    } = place.rehearsal.clone();
    let bucket = match switch {
        Some(file) => Arc::new(Switched::new(bucket, file)) as Arc<dyn Bucket>,
        None => bucket,
    };
    let bucket = match (round_trip, put) {
        (Duration::ZERO, Duration::ZERO) => bucket,
        _ => Arc::new(Far::new(bucket, round_trip, put)),
    };
    Ok(steady(bucket, counters))
}

/// The places of a region before the others.
fn nearest_first(places: &[Place; 3], own: &str) -> [usize; 3] {
    let mut order = [0, 1, 2];
    order.sort_by_key(|at: &usize| places[*at].region != own);
    order
}

/// Probes the buckets that are the cluster's; one that breaks its promises is not used.
async fn try_out(opened: &[Arc<dyn Bucket>; 3], known: &mut Known) {
    let probes = opened
        .iter()
        .zip(&mut known.standings)
        .map(|(bucket, standing)| async move {
            if *standing != Standing::Proven {
                return;
            }
            match host::clock::timeout(PROBE_LIMIT, probe::run(bucket)).await {
                Ok(Ok(())) => {}
                Ok(Err(probe::Error::Unfit(why))) => *standing = Standing::Refused(why.to_owned()),
                // It may only be away: it is looked at again.
                Ok(Err(_)) | Err(_) => {}
            }
        });
    join_all(probes).await;
}

impl Several {
    /// The buckets in the order of their numbers, as the journal has them.
    pub fn by_number(&self) -> [Arc<dyn Bucket>; 3] {
        let numbered: BTreeMap<u32, &Arc<dyn Bucket>> = self
            .known
            .numbers
            .iter()
            .copied()
            .zip(&self.opened)
            .collect();
        std::array::from_fn(|number| Arc::clone(numbered[&(number as u32)]))
    }

    /// What a new cluster is told of its buckets: each may be lost alone.
    pub fn placement(&self) -> Placement {
        let bucket = |number: &u32| {
            let generation = self.known.configuration.generations[*number as usize];
            let bucket = meta::command::Bucket {
                domain: *number,
                generation,
            };
            (*number, bucket)
        };
        Placement {
            number: 1,
            copies: COPIES,
            buckets: self.known.numbers.iter().map(bucket).collect(),
        }
    }

    /// Keeps looking whether each bucket still is what it was, for ever.
    pub async fn watch(&self) -> std::convert::Infallible {
        let watches = (0..3).map(|at| self.watch_one(at));
        join_all(watches).await;
        std::future::pending().await
    }

    async fn watch_one(&self, at: usize) {
        let number = self.known.numbers[at];
        let expected = self.known.configuration.generations[number as usize];
        let mut watch = Watch::new(&self.known.configuration.cluster);
        let mut told: Option<Standing> = None;
        loop {
            let pause = if watch.is_calm() {
                LOOK_EVERY
            } else {
                LOOK_AGAIN_AFTER
            };
            host::clock::sleep(pause).await;
            let look = host::clock::timeout(LOOK_LIMIT, marker::read(&*self.opened[at])).await;
            let standing = match look {
                Err(_) | Ok(Err(marker::Error::Bucket(_))) => continue,
                Ok(Ok(marker))
                    if (marker.bucket, marker.generation) != (number, expected)
                        && marker.cluster == self.known.configuration.cluster =>
                {
                    Standing::Refused("it was made anew since: it has lost what it held".to_owned())
                }
                Ok(found) => match watch.found(found) {
                    Some(why) => Standing::Refused(why),
                    None if watch.is_calm() => Standing::Proven,
                    None => continue,
                },
            };
            if told.as_ref() != Some(&standing) {
                let region = &self.places[at].region;
                match &standing {
                    Standing::Refused(why) => {
                        tracing::error!(bucket = number, region, %why, "a bucket is not used any more")
                    }
                    _ => tracing::info!(bucket = number, region, "a bucket is the cluster's"),
                }
            }
            self.buckets.set_standing(number, standing.clone());
            if matches!(standing, Standing::Refused(_)) {
                return;
            }
            told = Some(standing);
        }
    }
}
