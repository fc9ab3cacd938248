//! `seaway region`: the regions of a cluster that spans several are listed, and one is preferred to lead; one of a `dev` cluster is lost
//! and comes back.

use std::path::PathBuf;

use anyhow::{Result, bail};
use control::preferring::AUTO;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::node::Where;
use super::time::leader;
use crate::data_dir::{Endpoints, NodeEndpoints, published};
use crate::output::say;
use crate::{http, leading, runtime};

#[derive(clap::Subcommand)]
pub enum Verb {
    /// List the regions: their processes, which leads, and how their buckets are.
    List(Where),
    /// Lose a region: its processes are killed, and its bucket answers nobody.
    Kill {
        /// The region, as `seaway region list` names it.
        region: String,
        #[command(flatten)]
        place: Where,
    },
    /// Have a region back that was lost.
    Restore {
        /// The region, as `seaway region list` names it.
        region: String,
        #[command(flatten)]
        place: Where,
    },
    /// List up to which offset each region's bucket holds all records of partitions: what is there though all others are gone.
    Offsets(super::offsets::Arguments),
    /// Have a region lead as long as it is well, or with `auto` the one in which commits take the least time.
    Prefer(Preferred),
}

/// Which region is preferred, and which control node to tell.
#[derive(clap::Args)]
pub struct Preferred {
    /// The region, as `seaway region list` names it, or `auto`.
    region: String,
    /// Data directory of a `dev` cluster: the node that leads is told.
    #[arg(long, value_name = "DIR", default_value = super::dev::DATA_DIR)]
    data_dir: PathBuf,
    /// Tell the control node at this address instead, as http://HOST:PORT: the one that leads.
    #[arg(long, value_name = "URL")]
    http: Option<String>,
}

pub fn run(verb: &Verb) -> Result<()> {
    match verb {
        Verb::List(place) => list(place),
        Verb::Kill { region, place } => ask(place, region, "kill", "is lost"),
        Verb::Restore { region, place } => ask(place, region, "restore", "comes back"),
        Verb::Offsets(arguments) => super::offsets::run(arguments),
        Verb::Prefer(preferred) => runtime::small()?.block_on(prefer(preferred)),
    }
}

async fn prefer(preferred: &Preferred) -> Result<()> {
    let region = &preferred.region;
    // It becomes part of a URL.
    if !region
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    {
        bail!("there is no region {region:?}: `seaway region list` names those that there are");
    }
    let base = match &preferred.http {
        Some(base) => base.clone(),
        None => leader(&published(&preferred.data_dir)?).await?,
    };
    let path = format!("{}{region}", leading::PREFER);
    let (status, answer) = http::post(&base, &path).await?;
    if status != StatusCode::OK {
        bail!("{base}: {}", answer.trim_end());
    }
    match region == AUTO {
        true => say!("the region leads in which commits take the least time"),
        false => say!("{region} leads as long as it is well"),
    }
    Ok(())
}

/// The regions of a cluster, in the order in which they were named.
pub(super) fn regions(endpoints: &Endpoints, place: &Where) -> Result<Vec<String>> {
    let mut regions: Vec<String> = Vec::new();
    for node in &endpoints.nodes {
        if let Some(region) = &node.region
            && !regions.contains(region)
        {
            regions.push(region.clone());
        }
    }
    if regions.is_empty() {
        bail!(
            "the cluster in {} is in one region: start it with `seaway dev --regions 3` for several",
            place.data_dir.display()
        );
    }
    Ok(regions)
}

fn ask(place: &Where, region: &str, verb: &str, told: &str) -> Result<()> {
    let endpoints = published(&place.data_dir)?;
    check_known(region, &regions(&endpoints, place)?)?;
    runtime::small()?.block_on(order(&endpoints, region, verb))?;
    say!("{region} {told}");
    Ok(())
}

/// Refuses a region that is none of these.
pub(super) fn check_known(region: &str, regions: &[String]) -> Result<()> {
    if !regions.iter().any(|known| known == region) {
        bail!(
            "there is no region {region}; there are {}",
            regions.join(", ")
        );
    }
    Ok(())
}

/// Has the `dev` cluster `kill` one of its regions, or `restore` it: that verb is done when this returns.
pub(super) async fn order(endpoints: &Endpoints, region: &str, verb: &str) -> Result<()> {
    let path = format!("/regions/{region}/{verb}");
    let (status, answer) = http::post(&endpoints.http, &path).await?;
    if status != StatusCode::OK {
        bail!("{}", answer.trim_end());
    }
    Ok(())
}

fn list(place: &Where) -> Result<()> {
    let endpoints = published(&place.data_dir)?;
    let regions = regions(&endpoints, place)?;
    let told = runtime::small()?.block_on(async {
        let mut told = Vec::new();
        for region in &regions {
            told.push(describe(&endpoints, region).await);
        }
        told
    });
    if place.json {
        say!("{}", serde_json::to_string_pretty(&told)?);
        return Ok(());
    }
    for region in &told {
        say!("{}", line(region));
    }
    for region in told.iter().filter_map(led_since) {
        say!("{region}");
    }
    Ok(())
}

/// A region in a line.
fn line(region: &Value) -> String {
    let text = |name: &str| region[name].as_str().unwrap_or("?").to_owned();
    let leads = if region["leads"] == true { "leads" } else { "" };
    let commit = match region["commit_latency_ms"].as_f64() {
        Some(latency_ms) => format!("  commit {latency_ms} ms"),
        None => String::new(),
    };
    let preferred = match region["preferred"] == true {
        true => "  preferred",
        false => "",
    };
    format!(
        "{:12}  {leads:5}  processes {}/{}  bucket {}{}{commit}{preferred}{}",
        text("region"),
        region["running"],
        region["processes"],
        text("bucket"),
        suspicion(region),
        lacks(region) + &behind(region, host::clock::wall_millis()) + &only_here(region)
    )
}

/// Since when a region leads, and why, if it does.
fn led_since(region: &Value) -> Option<String> {
    let told = region["lead_told"].as_str()?;
    let seconds = region["lead_ms"].as_u64()? / 1_000;
    let name = region["region"].as_str().unwrap_or("?");
    Some(format!("{name} leads for {seconds} s: {told}"))
}

/// A region, as its own control nodes and those of the others see it: what `seaway region list --json` prints of it.
pub(super) async fn describe(endpoints: &Endpoints, region: &str) -> Value {
    let own = |node: &&NodeEndpoints| node.region.as_deref() == Some(region);
    let processes = endpoints.nodes.iter().filter(own);
    let running = processes.clone().filter(|node| node.pid.is_some()).count();
    let (mut leads, mut bucket) = (false, "?".to_owned());
    let (mut commit_latency_ms, mut preferred, mut lead) = (None, false, Value::Null);
    let mut short = Short::default();
    let control = endpoints
        .nodes
        .iter()
        .filter(|node| node.role == "control" && node.pid.is_some());
    for node in control {
        let Ok((StatusCode::OK, page)) = http::get(&node.http, "/status.json").await else {
            continue;
        };
        let page: Value = serde_json::from_str(&page).unwrap_or_default();
        if own(&node) {
            let latency_ms = page["lead"]["commit_latency_ms"].as_f64();
            commit_latency_ms = least(commit_latency_ms, latency_ms);
        }
        if page["journal"]["role"] == "Leader" {
            preferred = page["lead"]["preferred_region"] == region;
            if own(&node) {
                (leads, lead) = (true, page["lead"].clone());
            }
        }
        let buckets = page["buckets"].as_array().cloned().unwrap_or_default();
        if let Some(found) = buckets.iter().find(|bucket| bucket["region"] == region) {
            bucket = found["state"].as_str().unwrap_or("?").to_owned();
            short.take(found, page["journal"]["index"].as_u64());
        }
    }
    let short_files = short.told["short_files"].as_u64();
    let repaired = repaired(endpoints, region).await;
    let seconds_left = short_files.and_then(|files| files.checked_div(repaired));
    json!({
        "region": region,
        "processes": processes.count(),
        "running": running,
        "leads": leads,
        "lead_ms": lead["taken_ms_ago"],
        "lead_taken_from": lead["taken_from"],
        "lead_because": lead["taken_because"],
        "lead_told": lead["taken_told"],
        "preferred": preferred,
        "commit_latency_ms": commit_latency_ms,
        "bucket": bucket,
        "short_files": short_files,
        "short_bytes": short.told["short_bytes"],
        "short_age_ms": short.told["short_age_ms"],
        "short_since_ms": short.told["short_since_ms"],
        "is_suspect": short.told["is_suspect"],
        "repair_files_per_second": repaired,
        "repair_seconds_left": seconds_left,
        "behind_partitions": short.told["behind_partitions"],
        "behind_records": short.told["behind_records"],
        "behind_records_max": short.told["behind_records_max"],
        "behind_is_at_most": short.told["behind_is_at_most"],
        "behind_is_whole": short.told["behind_is_whole"],
        "only_here_files": short.told["only_here_files"],
        "only_here_bytes": short.told["only_here_bytes"],
    })
}

fn least(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    [one, other].into_iter().flatten().min_by(f64::total_cmp)
}

/// What a bucket lacks, as the control node tells it that knows most.
#[derive(Default)]
struct Short {
    index: u64,
    told: Value,
}

impl Short {
    fn take(&mut self, bucket: &Value, index: Option<u64>) {
        let index = index.unwrap_or(0);
        if index >= self.index {
            (self.index, self.told) = (index, bucket.clone());
        }
    }
}

/// How many files a second the agents of a region copy to buckets that lack them.
async fn repaired(endpoints: &Endpoints, region: &str) -> u64 {
    let mut repaired = 0;
    for node in &endpoints.nodes {
        if node.role != "agent" || node.pid.is_none() || node.region.as_deref() != Some(region) {
            continue;
        }
        if let Ok((StatusCode::OK, page)) = http::get(&node.http, "/status.json").await {
            let page: Value = serde_json::from_str(&page).unwrap_or_default();
            let rate = page["agent"]["repair_files_per_second"].as_u64();
            repaired += rate.unwrap_or(0);
        }
    }
    repaired
}

/// That a region's bucket may have lost what it held, as a part of its line.
fn suspicion(region: &Value) -> &'static str {
    match region["is_suspect"] == true {
        true => ", suspect: it is compared with the metadata",
        false => "",
    }
}

/// What a region's bucket lacks, and for how long still, as the end of a line.
fn lacks(region: &Value) -> String {
    match (
        region["short_files"].as_u64(),
        region["repair_seconds_left"].as_u64(),
    ) {
        (None | Some(0), _) => String::new(),
        (Some(files), None) => format!("  lacks {files} files"),
        (Some(files), Some(seconds)) => {
            let rate = &region["repair_files_per_second"];
            format!("  lacks {files} files, {rate} a second are copied, {seconds} s left")
        }
    }
}

/// How far a region is behind, and for how long, by this machine's clock, as the end of a line.
fn behind(region: &Value, now_ms: u64) -> String {
    let partitions = region["behind_partitions"].as_u64().unwrap_or(0);
    if partitions == 0 {
        return String::new();
    }
    let at_most = match region["behind_is_at_most"] == true {
        true => "at most ",
        false => "",
    };
    let more = match region["behind_is_whole"] == false {
        true => " and more",
        false => "",
    };
    let time = match region["short_since_ms"].as_u64() {
        Some(since_ms) => format!(", for {} s", now_ms.saturating_sub(since_ms) / 1_000),
        None => String::new(),
    };
    format!(
        "  behind by {at_most}{} records in {partitions} partitions{more}, {} in one{time}",
        region["behind_records"], region["behind_records_max"]
    )
}

/// What would be missing if a region were lost, as the end of a line.
fn only_here(region: &Value) -> String {
    match region["only_here_files"].as_u64() {
        None | Some(0) => String::new(),
        Some(files) => format!("  {files} files are only here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_with_how_far_the_region_is_behind() {
        let mut region = json!({ "behind_partitions": 0, "short_since_ms": null });
        assert_eq!(behind(&region, 9_500), "");
        region = json!({
            "behind_partitions": 2,
            "behind_records": 160,
            "behind_records_max": 120,
            "behind_is_at_most": false,
            "behind_is_whole": true,
            "short_since_ms": 1_400,
        });
        let exact = "  behind by 160 records in 2 partitions, 120 in one, for 8 s";
        assert_eq!(behind(&region, 9_500), exact);
        region["behind_is_at_most"] = json!(true);
        region["behind_is_whole"] = json!(false);
        region["short_since_ms"] = json!(10_000);
        let rough = "  behind by at most 160 records in 2 partitions and more, 120 in one, for 0 s";
        assert_eq!(behind(&region, 9_500), rough);
    }
}
