//! `seaway dev`: a whole cluster in one process, for a laptop and for tests.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use crate::address::Address;
use crate::data_dir::{DataDir, Endpoints};
use crate::health::Health;
use crate::output::say;
use crate::running::{self, Signals, listen};
use crate::settings::Settings;
use crate::{cluster, family, http, logging, pages, runtime};

/// The data directory if none is named.
pub const DATA_DIR: &str = "seaway-data";
/// The setting that says where clients connect.
const ADVERTISED_HOST: &str = "advertised.host";

/// How to run the cluster.
#[derive(clap::Args)]
pub struct Arguments {
    /// Directory for all that is kept on this machine; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// The bucket: a directory, s3://BUCKET/PREFIX, gs://..., az://... By default DIR/bucket.
    #[arg(long, value_name = "URL")]
    bucket: Option<String>,
    /// Address to listen on for Kafka clients; port 0 takes a free one. Clients are told to connect to it, unless
    /// advertised.host and advertised.port say something else.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    kafka: Address,
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
}

/// Runs until Ctrl-C or SIGTERM.
pub fn run(arguments: Arguments) -> Result<()> {
    let mut settings = Settings::parse(&arguments.set)?;
    if arguments.kafka.ip().is_none() {
        // As in Kafka, clients are told the name, since its address may change.
        settings.assume(ADVERTISED_HOST, &arguments.kafka.host);
    }
    logging::start(&settings)?;
    let runtime = runtime::node(settings.size("num.network.threads"))?;
    let counts = arguments.control.zip(arguments.agents);
    let result = match counts {
        None => runtime.block_on(serve(arguments, settings)),
        Some((control, agents)) => runtime.block_on(serve_family(arguments, control, agents)),
    };
    runtime.shutdown_timeout(running::CALLS_LIMIT);
    result
}

async fn serve(arguments: Arguments, settings: Settings) -> Result<()> {
    let mut stop = Signals::new()?;
    let mut directory = DataDir::open(&arguments.data_dir)?;
    directory.withdraw()?;
    let kafka = listen(&arguments.kafka, "--kafka").await?;
    let http = listen(&arguments.http, "--http").await?;
    let http_url = format!("http://{}", http.local_addr()?);
    let health = Arc::new(Health::default());
    let pages = pages::all(Arc::clone(&health));
    let _http = http::serve(http, pages);
    let bucket = match &arguments.bucket {
        Some(url) => url.clone(),
        None => directory.bucket().to_string_lossy().into_owned(),
    };
    let advertises_guess = advertises_guess(&arguments.kafka, &settings);
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
    let endpoints = Endpoints {
        kafka: cluster.kafka_address(),
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
    if advertises_guess {
        tracing::warn!(
            "clients are told to connect to {kafka}, which only this machine can: for others, set the host that they know \
             this one by with --set {ADVERTISED_HOST}=HOST"
        );
    }
    // A node goes on even if nobody reads its output.
    drop(announce(&endpoints));
    running::run(cluster, &mut stop, &health, || directory.withdraw()).await
}

/// Runs each part as a process of its own.
async fn serve_family(arguments: Arguments, control: u32, agents: u32) -> Result<()> {
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
    let plan = family::Plan {
        bucket,
        kafka: arguments.kafka,
        set: arguments.set,
        control,
        agents,
        http: http_url,
    };
    family::run(plan, directory, requests, &health, &mut stop).await
}

/// True if clients would be told an address that nobody chose: they cannot connect to "every
/// address".
fn advertises_guess(kafka: &Address, settings: &Settings) -> bool {
    settings.text(ADVERTISED_HOST).is_empty() && kafka.ip().is_some_and(|ip| ip.is_unspecified())
}

fn announce(endpoints: &Endpoints) -> Result<()> {
    say!("Seaway is ready.");
    say!("  Kafka clients   {}", endpoints.kafka);
    say!("  health, metrics {}/readyz {0}/metrics", endpoints.http);
    say!("  cluster id      {}", endpoints.cluster_id);
    say!("Stop it with Ctrl-C.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_every_address_without_an_advertised_host_is_a_guess() {
        let guess = |kafka: &str, set: &[&str]| {
            let settings = Settings::parse(set).expect("valid settings");
            advertises_guess(&kafka.parse().expect("an address"), &settings)
        };
        assert!(guess("0.0.0.0:9092", &[]));
        assert!(guess("[::]:9092", &[]));
        assert!(!guess("0.0.0.0:9092", &["advertised.host=kafka.example"]));
        assert!(!guess("127.0.0.1:9092", &[]));
        assert!(!guess("localhost:9092", &[]));
    }
}
