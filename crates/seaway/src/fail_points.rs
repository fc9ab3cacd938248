//! Where tests end a process: `SEAWAY_FAILPOINTS="after-put=kill@3"` ends an agent the third time that a file of its is durable and not
//! committed. Nothing is set in production. It must not know what the points lie between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use agent::settings::{FailPoint, FailPoints};
use anyhow::{Context, Result, bail};
use store::bucket::{Bucket, Key};
use store::layout::SNAPSHOTS;
use store::watched::Watched;

const VARIABLE: &str = "SEAWAY_FAILPOINTS";

/// What a test wants to happen at a fail point.
#[derive(Clone, Copy)]
enum Failure {
    /// The process ends as by `kill -9`.
    Kill,
    /// The task panics, which must end the process.
    Panic,
}

/// A place where a test may stop the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    Agent(FailPoint),
    /// The parts of a snapshot are there, and the manifest that names them is not.
    BeforeManifest,
}

impl Point {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "before-manifest" => Some(Point::BeforeManifest),
            name => FailPoint::from_name(name).map(Point::Agent),
        }
    }

    /// The point that is reached before this object is made.
    fn before(key: &Key) -> Option<Self> {
        let is_manifest = key.as_str().starts_with(SNAPSHOTS);
        is_manifest.then_some(Point::BeforeManifest)
    }
}

/// One point at which something is to happen, the n-th time that it is reached.
struct Planned {
    point: Point,
    failure: Failure,
    count: u64,
    seen: AtomicU64,
}

/// Reads `POINT=FAILURE@N`.
fn planned(part: &str) -> Option<Planned> {
    let (name, rest) = part.split_once('=')?;
    let (failure, count) = rest.split_once('@')?;
    let failure = match failure {
        "kill" => Failure::Kill,
        "panic" => Failure::Panic,
        _ => return None,
    };
    Some(Planned {
        point: Point::from_name(name)?,
        failure,
        count: count.parse().ok()?,
        seen: AtomicU64::new(0),
    })
}

/// What a test has planned, read from text.
struct Plan(Vec<Planned>);

impl Plan {
    fn parse(text: &str) -> Result<Self> {
        let mut plan = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let Some(planned) = planned(part) else {
                bail!(
                    "{VARIABLE}: {part}: write it as POINT=FAILURE@N, with after-put, after-commit or before-manifest, and kill or \
                     panic"
                );
            };
            plan.push(planned);
        }
        Ok(Plan(plan))
    }

    /// What this process was started with; `None` if with nothing.
    fn of_environment() -> Result<Option<Self>> {
        let Some(text) = std::env::var_os(VARIABLE) else {
            return Ok(None);
        };
        let text = text.into_string().ok();
        let text = text.with_context(|| format!("{VARIABLE} is not text"))?;
        Plan::parse(&text).map(Some)
    }

    fn reach(&self, reached: Point) {
        for planned in self.0.iter().filter(|planned| planned.point == reached) {
            if planned.seen.fetch_add(1, Ordering::Relaxed) + 1 == planned.count {
                match planned.failure {
                    Failure::Kill => host::process::kill_now(),
                    Failure::Panic => panic!("a test wants this task to panic"),
                }
            }
        }
    }
}

/// Those in the path of a record.
pub fn of_agent() -> Result<FailPoints> {
    let Some(plan) = Plan::of_environment()? else {
        return Ok(FailPoints::NONE);
    };
    Ok(FailPoints::calling(move |reached| {
        plan.reach(Point::Agent(reached));
    }))
}

/// The bucket, with those that lie between what is done with its objects.
pub fn in_bucket(bucket: Arc<dyn Bucket>) -> Result<Arc<dyn Bucket>> {
    let Some(plan) = Plan::of_environment()? else {
        return Ok(bucket);
    };
    let hook = move |key: &Key| {
        if let Some(reached) = Point::before(key) {
            plan.reach(reached);
        }
    };
    Ok(Arc::new(Watched::new(bucket, Arc::new(hook))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).expect("a key")
    }

    #[test]
    fn a_point_is_named_with_what_is_to_happen_and_when() {
        let plan = Plan::parse("after-put=kill@3,before-manifest=panic@1").expect("a plan");
        let points: Vec<(Point, u64)> = plan.0.iter().map(|one| (one.point, one.count)).collect();
        let after_put = Point::Agent(FailPoint::AfterPut);
        assert_eq!(points, [(after_put, 3), (Point::BeforeManifest, 1)]);
        for wrong in [
            "after-put",
            "nowhere=kill@1",
            "after-put=stop@1",
            "after-put=kill@x",
        ] {
            assert!(Plan::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn in_a_bucket_one_lies_before_a_manifest() {
        assert_eq!(
            Point::before(&key("snapshots/1-2")),
            Some(Point::BeforeManifest)
        );
        assert_eq!(Point::before(&key("chunks/1-2")), None);
    }
}
