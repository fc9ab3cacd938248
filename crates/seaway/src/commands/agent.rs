//! `seaway agent`: serves Kafka clients, beside other agents of a cluster.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use crate::address::{Address, NodeName};
use crate::data_dir::NodeEndpoints;
use crate::health::Health;
use crate::output::say;
use crate::roles::agent::{self, Plan};
use crate::running::{self, Signals, listen};
use crate::settings::Settings;
use crate::{http, logging, pages, runtime};

/// How to run the agent.
#[derive(clap::Args)]
pub struct Arguments {
    /// The bucket: a directory, s3://BUCKET/PREFIX, gs://..., az://...
    #[arg(long, value_name = "URL")]
    bucket: String,
    /// Address to listen on for Kafka clients; port 0 takes a free one. Clients are told to connect to it, unless
    /// advertised.host and advertised.port say something else.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Address,
    /// This agent's name, which it keeps from start to start and no other agent has; its Kafka node id follows it.
    #[arg(long, value_name = "NAME")]
    name: NodeName,
    /// The zone it is in.
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Control nodes, beside those that the bucket tells of.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    control: Vec<Address>,
    /// Address to listen on for health, metrics and status; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    http: Address,
    /// Write to this file, once it is ready, where it listens.
    #[arg(long, value_name = "FILE")]
    endpoints: Option<PathBuf>,
    /// End when the process that has started this one ends.
    #[arg(long, hide = true)]
    with_parent: bool,
    /// Change a setting; may be given again. `seaway settings` lists them.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

/// Runs until Ctrl-C or SIGTERM.
pub fn run(arguments: Arguments) -> Result<()> {
    if arguments.with_parent {
        host::process::end_with_parent()?;
    }
    let mut settings = Settings::parse(&arguments.set)?;
    if let Some(zone) = &arguments.zone {
        settings.assume("broker.rack", zone);
    }
    if arguments.kafka.ip().is_none() {
        // As in Kafka, clients are told the name, since its address may change.
        settings.assume("advertised.host", &arguments.kafka.host);
    }
    logging::start(&settings)?;
    let runtime = runtime::node(settings.size("num.network.threads"))?;
    let result = runtime.block_on(serve(arguments, settings));
    runtime.shutdown_timeout(running::CALLS_LIMIT);
    result
}

async fn serve(arguments: Arguments, settings: Settings) -> Result<()> {
    let mut stop = Signals::new()?;
    let kafka = listen(&arguments.kafka, "--kafka").await?;
    let http = listen(&arguments.http, "--http").await?;
    let http_url = format!("http://{}", http.local_addr()?);
    let health = Arc::new(Health::default());
    let _http = http::serve(http, pages::all(Arc::clone(&health)));
    let control = arguments.control.iter().map(Address::to_string);
    let mut endpoints = NodeEndpoints {
        name: arguments.name.0.clone(),
        role: "agent".to_owned(),
        zone: settings.text("broker.rack").to_owned(),
        pid: Some(std::process::id()),
        address: String::new(),
        http: http_url,
        cluster_id: String::new(),
    };
    let plan = Plan {
        settings,
        name: arguments.name.0,
        bucket: arguments.bucket,
        control: control.collect(),
        files: host::process::raise_file_limit(),
        kafka,
    };
    let started = tokio::select! {
        started = agent::start(plan, &health) => started?,
        () = stop.wait() => {
            tracing::info!("stopped before it was ready");
            return Ok(());
        }
    };
    let kafka = started.kafka_address();
    tracing::info!(%kafka, http = %endpoints.http, cluster_id = started.cluster_id(), "ready");
    endpoints.address.clone_from(&kafka);
    endpoints.cluster_id = started.cluster_id().to_owned();
    if let Some(file) = &arguments.endpoints {
        endpoints.publish(file)?;
    }
    // A node goes on even if nobody reads its output.
    drop(announce(&kafka, &endpoints.http, started.cluster_id()));
    running::run(started, &mut stop, &health, || Ok(())).await
}

fn announce(kafka: &str, http: &str, cluster_id: &str) -> Result<()> {
    say!("The agent is ready.");
    say!("  Kafka clients   {kafka}");
    say!("  health, metrics {http}/readyz {http}/metrics");
    say!("  cluster id      {cluster_id}");
    say!("Stop it with Ctrl-C.");
    Ok(())
}
