//! `seaway dev`: a whole cluster in one process, for a laptop and for tests.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::address::Address;
use crate::data_dir::{DataDir, Endpoints};
use crate::health::Health;
use crate::listeners::{ADVERTISED_LISTENERS, ADVERTISED_PORT, LISTENERS};
use crate::listening::{self, listen_all};
use crate::output::say;
use crate::running::{self, Signals, listen};
use crate::settings::Settings;
use crate::{cluster, family, http, logging, pages, runtime};

/// The data directory if none is named.
pub const DATA_DIR: &str = "seaway-data";
/// Settings that say where one agent is, which cannot be the same for several.
const OF_ONE_AGENT: [&str; 3] = [LISTENERS, ADVERTISED_LISTENERS, ADVERTISED_PORT];

/// How to run the cluster.
#[derive(clap::Args)]
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
    /// Change a setting; may be given again. `seaway settings` lists them.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Run so many agents, each a process of its own. The first listens at --kafka.
    #[arg(long, value_name = "COUNT", requires = "control", value_parser = clap::value_parser!(u32).range(1..=50))]
    agents: Option<u32>,
    /// Run so many control nodes, each a process of its own.
    #[arg(long, value_name = "COUNT", requires = "agents", value_parser = clap::value_parser!(u32).range(1..=9))]
    control: Option<u32>,
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
pub fn run(arguments: Arguments) -> Result<()> {
    let mut settings = Settings::parse(&arguments.set)?;
    let counts = arguments.control.zip(arguments.agents);
    if counts.is_some() {
        check_of_several(&settings, &arguments.zones)?;
    }
    if let Some(kafka) = &arguments.kafka {
        settings.listen_at(kafka)?;
    }
    logging::start(&settings)?;
    let runtime = runtime::node(settings.size("num.network.threads"))?;
    let result = match counts {
        None => runtime.block_on(serve(arguments, settings)),
        Some((control, agents)) => {
            runtime.block_on(serve_family(arguments, &settings, control, agents))
        }
    };
    runtime.shutdown_timeout(running::CALLS_LIMIT);
    result
}

/// Refuses settings that processes of their own cannot have in common, before any is started.
fn check_of_several(settings: &Settings, zones: &[String]) -> Result<()> {
    if let Some(name) = OF_ONE_AGENT.iter().find(|name| settings.is_changed(name)) {
        bail!(
            "{name} says where one agent is; several listen at --kafka and at free ports beside it"
        );
    }
    for zone in zones {
        settings.clone().be_in(zone)?;
    }
    Ok(())
}

async fn serve(arguments: Arguments, settings: Settings) -> Result<()> {
    let mut stop = Signals::new()?;
    let mut directory = DataDir::open(&arguments.data_dir)?;
    directory.withdraw()?;
    let kafka = listen_all(settings.listeners()?).await?;
    let http = listen(&arguments.http, "--http").await?;
    let http_url = format!("http://{}", http.local_addr()?);
    let health = Arc::new(Health::default());
    let pages = pages::all(Arc::clone(&health));
    let _http = http::serve(http, pages);
    let bucket = match &arguments.bucket {
        Some(url) => url.clone(),
        None => directory.bucket().to_string_lossy().into_owned(),
    };
    let plan = cluster::Plan {
        settings,
        bucket,
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
    settings: &Settings,
    control: u32,
    agents: u32,
) -> Result<()> {
    let mut stop = Signals::new()?;
    let directory = DataDir::open(&arguments.data_dir)?;
    directory.withdraw()?;
    let http = listen(&arguments.http, "--http").await?;
    let http_url = format!("http://{}", http.local_addr()?);
    let health = Arc::new(Health::default());
    let (actions, requests) = family::actions();
    let pages = pages::all(Arc::clone(&health));
    let _http = http::serve(http, http::Site { pages, actions });
    let bucket = match &arguments.bucket {
        Some(url) => url.clone(),
        None => directory.bucket().to_string_lossy().into_owned(),
    };
    let first = settings.listeners()?.into_iter().next();
    let first = first.context("there is no listener")?;
    let plan = family::Plan {
        bucket,
        kafka: first.bind,
        set: arguments.set,
        zones: arguments.zones,
        control,
        agents,
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
            let refused = check_of_several(&settings, &zones);
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
        check_of_several(&shared.expect("valid"), &[]).expect("each has it");
    }
}
