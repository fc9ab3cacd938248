//! `seaway dev`: a whole cluster in one process, for a laptop and for tests.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::ArgGroup;

use crate::address::{Address, NodeName};
use crate::config::shares::family::Counts;
use crate::config::shares::{MEMORY, Process};
use crate::config::{Configured, Given, Sources};
use crate::data_dir::{DataDir, Endpoints};
use crate::health::Health;
use crate::listeners::{ADVERTISED_LISTENERS, ADVERTISED_PORT, LISTENERS};
use crate::listening::{self, listen_all};
use crate::origin::Origin;
use crate::output::say;
use crate::places::Places;
use crate::running::{self, Signals, listen};
use crate::settings::{Settings, ZONE};
use crate::{cluster, family, http, pages, runtime};

/// The data directory if none is named.
pub const DATA_DIR: &str = "seaway-data";
/// What has to be said beside the number of agents, and of control nodes: one of each group at least.
const BESIDE_AGENTS: &str = "beside the agents";
const BESIDE_CONTROL: &str = "beside the control nodes";
/// The regions of `--regions 3`.
const REGIONS: [&str; 3] = ["us-east", "us-west", "eu-west"];
/// Settings that say where one agent is, which cannot be the same for several.
const OF_ONE_AGENT: [&str; 3] = [LISTENERS, ADVERTISED_LISTENERS, ADVERTISED_PORT];

/// How to run the cluster.
#[derive(clap::Args)]
#[command(group(ArgGroup::new(BESIDE_AGENTS).args(["control", "regions"]).multiple(true)))]
#[command(group(ArgGroup::new(BESIDE_CONTROL).args(["agents", "regions"]).multiple(true)))]
pub struct Arguments {
    /// Directory for all that is kept on this machine; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// The bucket: a directory, s3://BUCKET/PREFIX, gs://..., az://... By default DIR/bucket.
    #[arg(long, value_name = "URL")]
    bucket: Option<String>,
    /// Address to listen on for Kafka clients, 127.0.0.1:9092 by default; port 0 takes a free one. Clients are told to
    /// connect to it, unless advertised.host and advertised.port say something else. For several: --set listeners=...
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<Address>,
    /// Address to listen on for health, metrics and status; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    http: Address,
    #[command(flatten)]
    given: Given,
    /// Run so many agents, each a process of its own; with --regions, in each of them (1). The first listens at --kafka.
    #[arg(long, value_name = "COUNT", requires = BESIDE_AGENTS, value_parser = clap::value_parser!(u32).range(1..=50))]
    agents: Option<u32>,
    /// Run so many control nodes, each a process of its own; with --regions, in each of them (1).
    #[arg(long, value_name = "COUNT", requires = BESIDE_CONTROL, value_parser = clap::value_parser!(u32).range(1..=9))]
    control: Option<u32>,
    /// Span three regions, each with processes and a bucket directory of its own: 3, or their names.
    #[arg(
        long,
        value_name = "3|REGION,...",
        value_delimiter = ',',
        conflicts_with_all = ["bucket", "zones"]
    )]
    regions: Vec<String>,
    /// Let the processes of different regions, and their buckets, find each other this far away: the round trips in milliseconds
    /// between the first and the second region, the first and the third, the second and the third, such as 12,65,70.
    #[arg(
        long,
        value_name = "AB,AC,BC",
        value_delimiter = ',',
        requires = "regions"
    )]
    wan: Vec<u64>,
    /// Let each bucket take this much longer to make an object.
    #[arg(long, value_name = "MS", requires = "regions", default_value_t = 0)]
    put_ms: u64,
    /// Deal the agents out over these zones, one after another, and the control nodes likewise.
    #[arg(
        long,
        value_name = "ZONE,...",
        requires = "agents",
        value_delimiter = ','
    )]
    zones: Vec<String>,
}

/// Runs until Ctrl-C or SIGTERM.
pub fn run(arguments: Arguments, sources: &Sources) -> Result<()> {
    let limit = host::memory::limit();
    let regions = regions(&arguments.regions)?;
    let counts = counts(arguments.agents, arguments.control, &regions);
    let process = counts.map_or(Process::Dev, Process::Family);
    let mut configured = sources.configure(&arguments.given, process, limit)?;
    if counts.is_some() {
        let from = sources.origin_of_flag("zones");
        check_of_several(&configured.settings, &arguments.zones, &from)?;
    }
    sources.listen_at(arguments.kafka.as_ref(), &mut configured.settings)?;
    configured.start_log()?;
    let runtime = runtime::node(configured.settings.size("num.network.threads"))?;
    let result = match counts {
        None => runtime.block_on(serve(arguments, configured)),
        Some(counts) => {
            let hidden = sources.variables().to_vec();
            let family = serve_family(arguments, configured, (counts, regions), hidden);
            runtime.block_on(family)
        }
    };
    runtime.shutdown_timeout(running::CALLS_LIMIT);
    result
}

/// The names of the regions that `--regions` says.
fn regions(given: &[String]) -> Result<Vec<String>> {
    match given {
        [] => Ok(Vec::new()),
        [three] if three == "3" => Ok(REGIONS.map(str::to_owned).to_vec()),
        [_, _, _] => {
            for (at, name) in given.iter().enumerate() {
                if let Err(why) = name.parse::<NodeName>() {
                    bail!("--regions {name}: {why}");
                }
                if given[..at].contains(name) {
                    bail!("--regions names {name} twice");
                }
            }
            Ok(given.to_vec())
        }
        _ => bail!("--regions is 3, or three names: a cluster spans three regions"),
    }
}

/// How many processes there are of each role, in all regions together; `None` if all is one process.
fn counts(agents: Option<u32>, control: Option<u32>, regions: &[String]) -> Option<Counts> {
    if !regions.is_empty() {
        let in_all = |each: Option<u32>| each.unwrap_or(1) * REGIONS.len() as u32;
        let (agents, control) = (in_all(agents), in_all(control));
        return Some(Counts { agents, control });
    }
    let both = agents.zip(control);
    both.map(|(agents, control)| Counts { agents, control })
}

/// Refuses settings that processes of their own cannot have in common, before any is started; `from` is where the zones are
/// said.
pub fn check_of_several(settings: &Settings, zones: &[String], from: &Origin) -> Result<()> {
    if let Some(name) = OF_ONE_AGENT.iter().find(|name| settings.is_changed(name)) {
        bail!(
            "{name} says where one agent is; several listen at --kafka and at free ports beside it"
        );
    }
    for zone in zones {
        let mut its = settings.clone();
        its.be_in(zone, from)?;
        if its.text(ZONE) != zone {
            let (now, zones) = (its.text(ZONE), zones.join(","));
            bail!("{ZONE}={now} and --zones {zones}: give one of them");
        }
    }
    Ok(())
}

async fn serve(arguments: Arguments, configured: Configured) -> Result<()> {
    let mut stop = Signals::new()?;
    let mut directory = DataDir::open(&arguments.data_dir)?;
    directory.withdraw()?;
    let kafka = listen_all(configured.settings.listeners()?).await?;
    let http = listen(&arguments.http, "--http").await?;
    let http_url = format!("http://{}", http.local_addr()?);
    let health = Arc::new(Health::default());
    let _http = http::serve(http, pages::site(&health, &configured.shares));
    let bucket = match &arguments.bucket {
        Some(url) => url.clone(),
        None => directory.bucket().to_string_lossy().into_owned(),
    };
    let plan = cluster::Plan {
        configured,
        buckets: Places::One(bucket),
        files: host::process::raise_file_limit(),
        kafka,
    };
    let cluster = tokio::select! {
        started = cluster::start(plan, &mut directory, &health) => started?,
        () = stop.wait() => {
            tracing::info!("stopped before it was ready");
            return Ok(());
        }
    };
    let told = cluster.told();
    let endpoints = Endpoints {
        kafka: listening::first(&told),
        http: http_url,
        cluster_id: cluster.cluster_id().to_owned(),
        pid: std::process::id(),
        nodes: Vec::new(),
    };
    directory.publish(&endpoints)?;
    let Endpoints {
        kafka,
        http,
        cluster_id,
        ..
    } = &endpoints;
    tracing::info!(%kafka, %http, %cluster_id, "ready");
    // A node goes on even if nobody reads its output.
    drop(announce(&endpoints, &listening::shown(&told)));
    running::run(cluster, &mut stop, &health, || directory.withdraw()).await
}

/// Runs each part as a process of its own.
async fn serve_family(
    arguments: Arguments,
    configured: Configured,
    (counts, regions): (Counts, Vec<String>),
    hidden: Vec<String>,
) -> Result<()> {
    let wan_ms = match <[u64; 3]>::try_from(arguments.wan.clone()) {
        Ok(wan_ms) => Some(wan_ms),
        Err(given) if given.is_empty() => None,
        Err(_) => {
            bail!("--wan is three round trips: first to second, first to third, second to third")
        }
    };
    let mut stop = Signals::new()?;
    let directory = DataDir::open(&arguments.data_dir)?;
    directory.withdraw()?;
    let http = listen(&arguments.http, "--http").await?;
    let http_url = format!("http://{}", http.local_addr()?);
    let health = Arc::new(Health::default());
    let (actions, requests) = family::actions();
    let (agent_bytes, control_bytes) = counts.bytes_of_each(&configured.shares);
    // Of these, flags tell each what is in force.
    let by_flags: &[&str] = match arguments.zones.is_empty() {
        true => &[MEMORY, LISTENERS],
        false => &[MEMORY, LISTENERS, ZONE],
    };
    let kind = |count, bytes: u64| {
        let mut set = configured.settings.given_but(by_flags);
        set.push(format!("{MEMORY}={bytes}"));
        let count = count / (regions.len() as u32).max(1);
        family::Kind { count, set }
    };
    let (agents, control) = (
        kind(counts.agents, agent_bytes),
        kind(counts.control, control_bytes),
    );
    let first = configured.settings.listeners()?.into_iter().next();
    let first = first.context("there is no listener")?;
    let pages = pages::all(Arc::clone(&health), configured.shares);
    let _http = http::serve(http, http::Site { pages, actions });
    let bucket = match &arguments.bucket {
        Some(url) => url.clone(),
        None if regions.is_empty() => directory.bucket().to_string_lossy().into_owned(),
        None => {
            let buckets = regions.iter().map(|region| {
                let bucket = directory.bucket_of(region);
                bucket.to_string_lossy().into_owned()
            });
            format!("multi://{}", buckets.collect::<Vec<_>>().join("<>"))
        }
    };
    let plan = family::Plan {
        bucket,
        regions,
        wan_ms,
        put_ms: arguments.put_ms,
        kafka: first.bind,
        zones: arguments.zones,
        agents,
        control,
        hidden,
        http: http_url,
    };
    family::run(plan, directory, requests, &health, &mut stop).await
}

fn announce(endpoints: &Endpoints, addresses: &[String]) -> Result<()> {
    say!("Seaway is ready.");
    for address in addresses {
        say!("  Kafka clients   {address}");
    }
    say!("  health, metrics {}/readyz {0}/metrics", endpoints.http);
    say!("  cluster id      {}", endpoints.cluster_id);
    say!("Stop it with Ctrl-C.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processes_of_their_own_cannot_have_in_common_is_refused_before_any_is_started() {
        let refused = |set: &[&str]| {
            let settings = Settings::parse(set).expect("valid settings");
            let zones = ["a".to_owned(), "b".to_owned()];
            let from = Origin::Flag("--zones".to_owned());
            let refused = check_of_several(&settings, &zones, &from);
            refused.expect_err("must be refused").to_string()
        };
        for set in [
            "listeners=A://:1",
            "advertised.listeners=PLAINTEXT://a:1",
            "advertised.port=1",
        ] {
            let why = refused(&[set]);
            assert!(why.contains("where one agent is"), "{set}: {why}");
        }
        assert!(refused(&["zone=a"]).contains("--zone b"));
        let shared = Settings::parse(&["advertised.host=a", "listener.zones=PLAINTEXT:a"]);
        check_of_several(&shared.expect("valid"), &[], &Origin::Default).expect("each has it");
    }
}
