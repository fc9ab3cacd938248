//! The three buckets of a cluster that spans regions: opened, found to be the cluster's, and watched. Two are enough to go on; one
//! that is not what it was counts for nothing, and stops no process.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use host::backoff::Backoff;
use host::clock::Instant;
use host::log_limit::LogLimit;
use host::task::Task;
use journal::three::founding::{self, Known};
use meta::command::Placement;
use store::bucket::Bucket;
use store::buckets::{Buckets, Member, Standing};
use store::far::Far;
use store::marker::{self, Marker, Watch};
use store::meter::{Counters, Meter};
use store::probe;
use store::switch::Switched;

use super::{LOOK_AGAIN_AFTER, Whose, open, steady};
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
/// How often a bucket is looked at, and how long a look may take, so that what it says counts without a gap.
const CALM: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(2);
/// How often it is told what the start waits for.
const TELL_EVERY: Duration = Duration::from_millis(20);
/// How long the probe of one bucket may take before it is tried again.
const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// Three buckets of one cluster.
pub struct Several {
    pub known: Known,
    pub buckets: Arc<Buckets>,
    /// Look whether each bucket still is what it was.
    _watches: Vec<Task<()>>,
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
    let (mut opened, mut each) = (Vec::new(), Vec::new());
    for place in &places {
        let (bucket, own) = open_place(place, counters).await?;
        opened.push(bucket);
        each.push(own);
    }
    let opened: [Arc<dyn Bucket>; 3] = opened.try_into().ok().context("three buckets")?;
    let new_cluster = match whose {
        Whose::Expected(None) => {
            Some(wire::uuid::Uuid::from(host::rng::nonce().to_be_bytes()).to_string())
        }
        Whose::Expected(Some(_)) | Whose::Anybodys => None,
    };
    let known = know(&opened, new_cluster.as_deref(), health).await?;
    if let Whose::Expected(Some(ours)) = whose
        && known.configuration.cluster != **ours
    {
        bail!(
            "the buckets belong to cluster {}, this data directory to {ours}: name the buckets of {ours}, or choose another \
             --data-dir",
            known.configuration.cluster
        );
    }
    let order = nearest_first(&places, own);
    let members = order.iter().map(|at| Member {
        number: known.numbers[*at],
        name: places[*at].region.clone(),
        bucket: Arc::clone(&opened[*at]),
        counters: Arc::clone(&each[*at]),
    });
    let buckets = Buckets::new(members.collect(), COPIES as usize)?;
    let buckets = Arc::new(buckets);
    let mut watches = Vec::new();
    for (at, place) in places.into_iter().enumerate() {
        let watched = Watched {
            cluster: known.configuration.cluster.clone(),
            number: known.numbers[at],
            generation: known.configuration.generations[known.numbers[at] as usize],
            region: place.region,
            bucket: Arc::clone(&opened[at]),
            buckets: Arc::clone(&buckets),
        };
        let found = known.standings[at].clone();
        watches.push(host::task::spawn("bucket watch", watched.watch(found)));
    }
    await_two(&buckets, health).await?;
    Ok(Several {
        known,
        buckets,
        _watches: watches,
    })
}

/// Waits until two of the buckets can be used.
async fn await_two(buckets: &Buckets, health: &Health) -> Result<()> {
    loop {
        let states = buckets.states();
        let count =
            |is: fn(&Standing) -> bool| states.iter().filter(|state| is(&state.standing)).count();
        if count(|standing| *standing == Standing::Proven) >= 2 {
            return Ok(());
        }
        let told: Vec<String> = states
            .iter()
            .map(|state| format!("{}: {:?}", state.name, state.standing))
            .collect();
        let told = told.join("; ");
        if count(|standing| matches!(standing, Standing::Refused(_))) >= 2 {
            bail!("two of the three buckets are needed, and two are refused: {told}");
        }
        health.waiting(&format!("two of the three buckets are needed: {told}"));
        host::clock::sleep(TELL_EVERY).await;
    }
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

/// A bucket, and counters of what is asked of it alone; `counters` are of all.
async fn open_place(
    place: &Place,
    counters: &Arc<Counters>,
) -> Result<(Arc<dyn Bucket>, Arc<Counters>)> {
    let bucket = open(&place.url).await?;
    let Rehearsal {
        switch,
        round_trip,
        put,
        slow,
    } = place.rehearsal.clone();
    let bucket = match switch {
        Some(file) => Arc::new(Switched::new(bucket, file)) as Arc<dyn Bucket>,
        None => bucket,
    };
    let bucket = match (round_trip, put) {
        (Duration::ZERO, Duration::ZERO) => bucket,
        _ => Arc::new(Far::new(bucket, round_trip, put, slow)),
    };
    let counted = Meter::new(bucket);
    let own = Arc::clone(counted.counters());
    Ok((steady(Arc::new(counted), counters), own))
}

/// The places of a region before the others.
fn nearest_first(places: &[Place; 3], own: &str) -> [usize; 3] {
    let mut order = [0, 1, 2];
    order.sort_by_key(|at: &usize| places[*at].region != own);
    order
}

impl Several {
    /// The buckets in the order of their numbers, as the journal has them.
    pub fn by_number(&self) -> [Arc<dyn Bucket>; 3] {
        let numbered = self.buckets.by_number();
        std::array::from_fn(|number| Arc::clone(&numbered[number]))
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
}

/// One of the buckets, and what it has to be.
struct Watched {
    cluster: String,
    number: u32,
    generation: u64,
    region: String,
    bucket: Arc<dyn Bucket>,
    buckets: Arc<Buckets>,
}

impl Watched {
    /// Keeps looking whether the bucket is what it was, until it certainly is not; `found` is what was found of it before.
    async fn watch(self, found: Standing) {
        let mut watch = Watch::new(&self.cluster);
        let (mut was_proven, mut is_tried) = (false, false);
        let mut told = Standing::Unproven;
        if let Standing::Refused(why) = found {
            return self.tell(host::clock::now(), &mut told, Standing::Refused(why));
        }
        loop {
            let began = host::clock::now();
            let look = host::clock::timeout(SOON, marker::read(&*self.bucket)).await;
            let answers = matches!(look, Ok(Ok(_)));
            let took = answers.then(|| host::clock::now().since(began));
            self.buckets.timed(self.number, took);
            let standing = match look {
                Err(_) | Ok(Err(marker::Error::Bucket(_))) => None,
                // It may be about to be made the cluster's.
                Ok(Err(marker::Error::Empty)) if !was_proven => None,
                Ok(Ok(marker)) if self.is_another(&marker) => {
                    let why = "it was made anew since: it has lost what it held";
                    Some(Standing::Refused(why.to_owned()))
                }
                Ok(found) => Some(match watch.found(found) {
                    Some(why) => Standing::Refused(why),
                    None if watch.is_calm() => Standing::Proven,
                    None => Standing::Unproven,
                }),
            };
            let standing = match standing {
                Some(Standing::Proven) if !is_tried => self.try_out().await,
                standing => standing,
            };
            let is_proven = standing == Some(Standing::Proven);
            (was_proven, is_tried) = (was_proven || is_proven, is_tried || is_proven);
            if let Some(standing) = standing {
                self.tell(began, &mut told, standing);
            }
            if matches!(told, Standing::Refused(_)) {
                return;
            }
            let pause = if watch.is_calm() && is_proven {
                CALM
            } else {
                LOOK_AGAIN_AFTER
            };
            host::clock::sleep(pause).await;
        }
    }

    fn is_another(&self, marker: &Marker) -> bool {
        let is_same = (marker.bucket, marker.generation) == (self.number, self.generation);
        marker.cluster == self.cluster && !is_same
    }

    /// Probes a bucket that is the cluster's; one that breaks its promises is not used, and one that gives no answer not yet.
    async fn try_out(&self) -> Option<Standing> {
        match host::clock::timeout(PROBE_LIMIT, probe::run(&self.bucket)).await {
            Ok(Ok(())) => Some(Standing::Proven),
            Ok(Err(probe::Error::Unfit(why))) => Some(Standing::Refused(why.to_owned())),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    fn tell(&self, began: Instant, told: &mut Standing, standing: Standing) {
        let (bucket, region) = (self.number, &self.region);
        if *told != standing {
            match &standing {
                Standing::Refused(why) => {
                    tracing::error!(bucket, region, %why, "a bucket is not used; the cluster goes on with the others");
                }
                Standing::Proven => tracing::info!(bucket, region, "a bucket is the cluster's"),
                Standing::Unproven => {
                    tracing::warn!(bucket, region, "a bucket may not be the cluster's any more")
                }
            }
        }
        self.buckets.looked(bucket, began, standing.clone());
        *told = standing;
    }
}
