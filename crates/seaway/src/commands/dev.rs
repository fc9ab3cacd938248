//! `seaway dev`: a whole cluster in one process, for a laptop and for tests.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::data_dir::{DataDir, Endpoints};
use crate::health::Health;
use crate::output::say;
use crate::settings::Settings;
use crate::{cluster, http, logging, pages, runtime};

/// The data directory if none is named.
pub const DATA_DIR: &str = "seaway-data";
/// Time that work in flight has to end after the signal to stop.
const STOP_LIMIT: Duration = Duration::from_secs(4);

/// How to run the cluster.
#[derive(clap::Args)]
pub struct Arguments {
    /// Directory for all that is kept on this machine; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// The bucket: a directory, s3://BUCKET/PREFIX, gs://..., az://... By default DIR/bucket.
    #[arg(long, value_name = "URL")]
    bucket: Option<String>,
    /// Address for Kafka clients; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    kafka: SocketAddr,
    /// Address for health, metrics and status; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Change a setting; may be given again. `seaway settings` lists them.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

/// Runs until Ctrl-C or SIGTERM.
pub fn run(arguments: Arguments) -> Result<()> {
    let settings = Settings::parse(&arguments.set)?;
    logging::start(&settings)?;
    let runtime = runtime::node(settings.size("num.network.threads"))?;
    let result = runtime.block_on(serve(arguments, settings));
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

async fn serve(arguments: Arguments, settings: Settings) -> Result<()> {
    let mut stop = Signals::new()?;
    let mut directory = DataDir::open(&arguments.data_dir)?;
    directory.withdraw()?;
    let kafka = listen(arguments.kafka, "--kafka").await?;
    let http = listen(arguments.http, "--http").await?;
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
        kafka,
    };
    let cluster = tokio::select! {
        started = cluster::start(plan, &mut directory, &health) => started?,
        () = stop.wait() => return Ok(()),
    };
    let endpoints = Endpoints {
        kafka: cluster.kafka_address(),
        http: http_url,
        cluster_id: cluster.cluster_id().to_owned(),
        pid: std::process::id(),
    };
    directory.publish(&endpoints)?;
    // A node goes on though nobody reads what it prints.
    drop(announce(&endpoints));
    let ended = tokio::select! {
        () = stop.wait() => Ok(()),
        why = cluster.broken() => Err(why),
    };
    directory.withdraw()?;
    health.stopping();
    if host::clock::timeout(STOP_LIMIT, cluster.stop())
        .await
        .is_err()
    {
        tracing::warn!("work in flight did not end in time; it is cut off");
    }
    ended
}

fn announce(endpoints: &Endpoints) -> Result<()> {
    say!("Seaway is ready.");
    say!("  Kafka clients   {}", endpoints.kafka);
    say!("  health, metrics {}/readyz {0}/metrics", endpoints.http);
    say!("  cluster id      {}", endpoints.cluster_id);
    say!("Stop it with Ctrl-C.");
    Ok(())
}

async fn listen(address: SocketAddr, flag: &str) -> Result<host::net::TcpListener> {
    match host::net::listen(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
            "{address} is in use; stop what listens there, or choose another address with {flag}"
        ),
        Err(error) => Err(error).with_context(|| format!("cannot listen on {address} ({flag})")),
    }
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
