//! `seaway control`: one of the control nodes of a cluster.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};

use crate::address::{Address, NodeName};
use crate::data_dir::NodeEndpoints;
use crate::health::Health;
use crate::output::say;
use crate::roles::control::{self, Plan};
use crate::running::{self, Signals, listen};
use crate::settings::Settings;
use crate::{http, logging, pages, runtime};

/// How to run the control node.
#[derive(clap::Args)]
pub struct Arguments {
    /// The bucket: a directory, s3://BUCKET/PREFIX, gs://..., az://...
    #[arg(long, value_name = "URL")]
    bucket: String,
    /// Address to listen on for agents and other control nodes; port 0 takes a free one. They are told to connect to it, unless
    /// --advertise says something else.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Address,
    /// Address at which agents and other control nodes reach this one.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<Address>,
    /// This node's name, which it keeps from start to start and no other control node has.
    #[arg(long, value_name = "NAME")]
    name: NodeName,
    /// The zone it is in.
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
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
    logging::start(&settings)?;
    let runtime = runtime::node(settings.size("num.network.threads"))?;
    let result = runtime.block_on(serve(arguments, settings));
    runtime.shutdown_timeout(running::CALLS_LIMIT);
    result
}

async fn serve(arguments: Arguments, settings: Settings) -> Result<()> {
    let mut stop = Signals::new()?;
    let listener = listen(&arguments.listen, "--listen").await?;
    let http = listen(&arguments.http, "--http").await?;
    let http_url = format!("http://{}", http.local_addr()?);
    let health = Arc::new(Health::default());
    let _http = http::serve(http, pages::all(Arc::clone(&health)));
    let port = listener.local_addr()?.port();
    let is_everywhere = arguments.listen.ip().is_some_and(|ip| ip.is_unspecified());
    if is_everywhere && arguments.advertise.is_none() {
        bail!(
            "others cannot connect to {}: say with --advertise HOST:PORT where they reach this control node",
            arguments.listen
        );
    }
    let advertised = arguments.advertise.unwrap_or(Address {
        host: arguments.listen.host,
        port,
    });
    let address = advertised.to_string();
    let mut endpoints = NodeEndpoints {
        name: arguments.name.0.clone(),
        role: "control".to_owned(),
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
        address: address.clone(),
        listener,
    };
    let started = tokio::select! {
        started = control::start(plan, &health) => started?,
        () = stop.wait() => {
            tracing::info!("stopped before it was ready");
            return Ok(());
        }
    };
    tracing::info!(%address, http = %endpoints.http, cluster_id = started.cluster_id(), "ready");
    endpoints.address.clone_from(&address);
    endpoints.cluster_id = started.cluster_id().to_owned();
    if let Some(file) = &arguments.endpoints {
        endpoints.publish(file)?;
    }
    // A node goes on even if nobody reads its output.
    drop(announce(&address, &endpoints.http, started.cluster_id()));
    running::run(started, &mut stop, &health, || Ok(())).await
}

fn announce(address: &str, http: &str, cluster_id: &str) -> Result<()> {
    say!("The control node is ready.");
    say!("  agents, other nodes  {address}");
    say!("  health, metrics      {http}/readyz {http}/metrics");
    say!("  cluster id           {cluster_id}");
    say!("Stop it with Ctrl-C.");
    Ok(())
}
