//! `seaway region`: the regions of a cluster that spans several are listed; one of a `dev` cluster is lost and comes back.

use anyhow::{Result, bail};
use hyper::StatusCode;
use serde_json::{Value, json};

use super::node::Where;
use crate::data_dir::{Endpoints, NodeEndpoints, published};
use crate::output::say;
use crate::{http, runtime};

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
}

pub fn run(verb: &Verb) -> Result<()> {
    match verb {
        Verb::List(place) => list(place),
        Verb::Kill { region, place } => ask(place, region, "kill", "is lost"),
        Verb::Restore { region, place } => ask(place, region, "restore", "comes back"),
    }
}

/// The regions of a cluster, in the order in which they were named.
fn regions(endpoints: &Endpoints, place: &Where) -> Result<Vec<String>> {
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
    let regions = regions(&endpoints, place)?;
    if !regions.iter().any(|known| known == region) {
        bail!(
            "there is no region {region}; there are {}",
            regions.join(", ")
        );
    }
    let (base, path) = (&endpoints.http, format!("/regions/{region}/{verb}"));
    let (status, answer) = runtime::small()?.block_on(http::post(base, &path))?;
    if status != StatusCode::OK {
        bail!("{}", answer.trim_end());
    }
    say!("{region} {told}");
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
    for region in told {
        let text = |name: &str| region[name].as_str().unwrap_or("?").to_owned();
        let leads = if region["leads"] == true { "leads" } else { "" };
        say!(
            "{:12}  {:5}  processes {}/{}  bucket {}{}",
            text("region"),
            leads,
            region["running"],
            region["processes"],
            text("bucket"),
            lacks(&region)
        );
    }
    Ok(())
}

/// A region, as its own control nodes and those of the others see it.
async fn describe(endpoints: &Endpoints, region: &str) -> Value {
    let own = |node: &&NodeEndpoints| node.region.as_deref() == Some(region);
    let processes = endpoints.nodes.iter().filter(own);
    let running = processes.clone().filter(|node| node.pid.is_some()).count();
    let (mut leads, mut bucket) = (false, "?".to_owned());
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
        if own(&node) && page["journal"]["role"] == "Leader" {
            leads = true;
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
        "bucket": bucket,
        "short_files": short_files,
        "short_bytes": short.told["short_bytes"],
        "short_age_ms": short.told["short_age_ms"],
        "repair_files_per_second": repaired,
        "repair_seconds_left": seconds_left,
    })
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
