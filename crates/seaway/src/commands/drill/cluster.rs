//! The `dev` cluster of a drill: its regions are looked at, one is lost and comes back. It must not know of the drill's clients.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use host::clock::{self, Instant};
use hyper::StatusCode;
use serde_json::Value;

use crate::commands::node::Where;
use crate::commands::region::{check_known, describe, order, regions};
use crate::data_dir::{Endpoints, published};
use crate::http;

/// How often the regions are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a bucket is looked at that is being completed, which takes a while.
const LOOK_AT_COPIES_EVERY: Duration = Duration::from_millis(500);
/// How long a region may take to lead: changes of leader take some seconds at most.
const LEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a region may take to start and be counted again.
const REJOIN_LIMIT: Duration = Duration::from_secs(120);
/// How long a bucket may take to be completed: the youngest files are left alone for `upload.timeout.ms` and ten seconds.
const COPIES_LIMIT: Duration = Duration::from_secs(600);
/// How often a region is told to come back before an operator has to.
const RESTORE_TRIES: u32 = 3;

pub struct Cluster<'a> {
    place: &'a Where,
    /// The region that is lost, or may be.
    lost: RefCell<Option<String>>,
}

impl<'a> Cluster<'a> {
    pub fn new(place: &'a Where) -> Self {
        Cluster {
            place,
            lost: RefCell::new(None),
        }
    }

    fn endpoints(&self) -> Result<Endpoints> {
        published(&self.place.data_dir)
    }

    /// The names of the regions.
    pub fn regions(&self) -> Result<Vec<String>> {
        regions(&self.endpoints()?, self.place)
    }

    /// Where the agents listen, those of a region first.
    pub fn addresses(&self, first: &str) -> Result<Vec<String>> {
        let endpoints = self.endpoints()?;
        let agents = endpoints.nodes.iter().filter(|node| node.role == "agent");
        let (own, others): (Vec<_>, Vec<_>) =
            agents.partition(|node| node.region.as_deref() == Some(first));
        let all = own.into_iter().chain(others);
        let addresses: Vec<String> = all.filter_map(|node| node.kafka.clone()).collect();
        if addresses.is_empty() {
            bail!("the cluster has no agents");
        }
        Ok(addresses)
    }

    /// Refuses a region that the cluster does not have.
    pub fn check_known(&self, region: &str) -> Result<()> {
        check_known(region, &self.regions()?)
    }

    /// Refuses a cluster of which a region is away already: with another one lost, nothing could be written.
    pub async fn check_well(&self) -> Result<()> {
        let endpoints = self.endpoints()?;
        for region in regions(&endpoints, self.place)? {
            if let Some(what) = ailment(&describe(&endpoints, &region).await) {
                bail!(
                    "{region} is not well ({what}), and only one region may be lost at a time: wait, or have it back with \
                     `seaway region restore {region}`"
                );
            }
        }
        Ok(())
    }

    /// The region that leads, once one does.
    pub async fn leader(&self) -> Result<String> {
        let deadline = clock::now() + LEAD_LIMIT;
        loop {
            let endpoints = self.endpoints()?;
            let mut leaders = Vec::new();
            for region in regions(&endpoints, self.place)? {
                if describe(&endpoints, &region).await["leads"] == true {
                    leaders.push(region);
                }
            }
            if let [leader] = &mut leaders[..] {
                return Ok(std::mem::take(leader));
            }
            let late = || {
                anyhow!(
                    "no region has led for {} s: `seaway region list` and the logs of the control nodes say why",
                    LEAD_LIMIT.as_secs()
                )
            };
            pause(deadline, LOOK_EVERY, late).await?;
        }
    }

    /// Loses a region: none of its processes runs any more.
    pub async fn kill(&self, region: &str) -> Result<()> {
        *self.lost.borrow_mut() = Some(region.to_owned());
        order(&self.endpoints()?, region, "kill").await
    }

    /// Has the lost region back, if one is; yields its name.
    pub async fn restore(&self) -> Result<Option<String>> {
        let Some(region) = self.lost.borrow().clone() else {
            return Ok(None);
        };
        let mut tries = RESTORE_TRIES;
        loop {
            tries -= 1;
            let ordered = match self.endpoints() {
                Ok(endpoints) => order(&endpoints, &region, "restore").await,
                Err(error) => Err(error),
            };
            match ordered {
                Ok(()) => {
                    *self.lost.borrow_mut() = None;
                    return Ok(Some(region));
                }
                Err(error) if tries == 0 => {
                    return Err(error.context(format!(
                        "{region} is still lost: have it back with `seaway region restore {region}`"
                    )));
                }
                Err(_) => clock::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Waits until a region's processes are ready and its bucket counts.
    pub async fn await_rejoin(&self, region: &str) -> Result<()> {
        let deadline = clock::now() + REJOIN_LIMIT;
        loop {
            let what = match self.unready(region).await? {
                None => return Ok(()),
                Some(what) => what,
            };
            let late = || {
                anyhow!(
                    "{region} did not come back within {} s ({what}): `seaway region list` shows how it is, and its processes have \
                     logs in the data directory, below nodes",
                    REJOIN_LIMIT.as_secs()
                )
            };
            pause(deadline, LOOK_EVERY, late).await?;
        }
    }

    /// What a region waits for to be ready.
    async fn unready(&self, region: &str) -> Result<Option<String>> {
        let endpoints = self.endpoints()?;
        let own = endpoints
            .nodes
            .iter()
            .filter(|node| node.region.as_deref() == Some(region));
        for node in own {
            let is_ready = node.pid.is_some()
                && matches!(
                    http::get(&node.http, "/readyz").await,
                    Ok((StatusCode::OK, _))
                );
            if !is_ready {
                return Ok(Some(format!("{} is not ready", node.name)));
            }
        }
        Ok(ailment(&describe(&endpoints, region).await))
    }

    /// Waits until a region's bucket has every file that was written before `since`; of younger ones a copy may be on its way.
    pub async fn await_copies(&self, region: &str, since: Instant) -> Result<()> {
        let deadline = clock::now() + COPIES_LIMIT;
        loop {
            let told = describe(&self.endpoints()?, region).await;
            if is_completed(&told, clock::now().since(since)) {
                return Ok(());
            }
            let late = || {
                anyhow!(
                    "the bucket of {region} still lacks {} files {} s after it came back: `seaway region list` shows how fast they are \
                     copied",
                    told["short_files"],
                    COPIES_LIMIT.as_secs()
                )
            };
            pause(deadline, LOOK_AT_COPIES_EVERY, late).await?;
        }
    }
}

/// Waits for the next look, if there is time for one.
async fn pause(
    deadline: Instant,
    pause: Duration,
    late: impl FnOnce() -> anyhow::Error,
) -> Result<()> {
    if clock::now() >= deadline {
        return Err(late());
    }
    clock::sleep(pause).await;
    Ok(())
}

/// What is wrong with a region, as `seaway region list` tells of it.
fn ailment(told: &Value) -> Option<String> {
    if told["running"] != told["processes"] {
        return Some(format!(
            "{} of its {} processes run",
            told["running"], told["processes"]
        ));
    }
    if told["is_suspect"] == true {
        return Some("its bucket is compared with the metadata".to_owned());
    }
    match told["bucket"].as_str() {
        Some("ok") => None,
        state => Some(format!("its bucket is {}", state.unwrap_or("unknown"))),
    }
}

/// True if a region's bucket lacks no file that is older than this.
fn is_completed(told: &Value, age: Duration) -> bool {
    let oldest_ms = match (told["short_files"].as_u64(), told["short_age_ms"].as_u64()) {
        (None, _) => return false,
        (Some(0), _) => 0,
        (Some(_), None) => return false,
        (Some(_), Some(oldest_ms)) => oldest_ms,
    };
    told["is_suspect"] != true && u128::from(oldest_ms) <= age.as_millis()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_region_is_well_with_all_its_processes_and_its_bucket() {
        let told = |running, bucket, is_suspect| json!({ "running": running, "processes": 2, "bucket": bucket, "is_suspect": is_suspect });
        assert_eq!(ailment(&told(2, "ok", false)), None);
        for (told, what) in [
            (told(1, "ok", false), "1 of its 2 processes run"),
            (told(2, "away", false), "its bucket is away"),
            (told(2, "ok", true), "compared"),
        ] {
            let ailment = ailment(&told).expect("it is not well");
            assert!(ailment.contains(what), "{ailment}");
        }
    }

    #[test]
    fn a_bucket_is_complete_though_young_files_are_on_their_way() {
        let told = |files: Option<u64>, oldest_ms: Option<u64>| json!({ "short_files": files, "short_age_ms": oldest_ms, "is_suspect": false });
        let age = Duration::from_secs(5);
        assert!(is_completed(&told(Some(0), None), age));
        assert!(is_completed(&told(Some(3), Some(4_000)), age));
        assert!(!is_completed(&told(Some(3), Some(6_000)), age));
        // Nobody tells.
        assert!(!is_completed(&told(None, None), age));
        assert!(!is_completed(&told(Some(3), None), age));
        let mut suspect = told(Some(0), None);
        suspect["is_suspect"] = json!(true);
        assert!(!is_completed(&suspect, age));
    }
}
