//! What the verbs that run one process of a cluster are told alike. It must not know what a process does.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use host::task::Task;
use link::process::{Process, Role};

use super::rehearsal;
use crate::address::{Address, NodeName};
use crate::config::{Configured, Given, Sources, shares};
use crate::data_dir::NodeEndpoints;
use crate::health::Health;
use crate::links::Links;
use crate::origin::Origin;
use crate::output::say;
use crate::places::Places;
use crate::running::{self, Running, Signals, listen};
use crate::settings::{self, Settings};
use crate::version::VERSION;
use crate::{http, links, pages, runtime};

/// Flags of an agent and of a control node.
#[derive(clap::Args)]
pub struct Common {
    /// The bucket: a directory, s3://BUCKET/PREFIX, gs://..., az://... Of a cluster that spans regions, its three buckets:
    /// 'multi://URL<>URL<>URL'.
    #[arg(long, value_name = "URL", visible_alias = "buckets")]
    pub bucket: String,
    /// The regions of the three buckets, in their order; not needed where each URL has ?region=.
    #[arg(long, value_name = "REGION,...", value_delimiter = ',')]
    pub regions: Vec<String>,
    /// The name of this process, which it keeps from start to start and no other of its role has. An agent's Kafka node id
    /// follows it.
    #[arg(long, value_name = "NAME")]
    pub name: NodeName,
    /// The region it is in.
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// The zone it is in.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// Address to listen on for health, metrics and status; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub http: Address,
    /// Write to this file, once it is ready, where it listens.
    #[arg(long, value_name = "FILE")]
    pub endpoints: Option<PathBuf>,
    #[command(flatten)]
    pub links: links::Arguments,
    /// End when the process that has started this one ends.
    #[arg(long, hide = true)]
    pub with_parent: bool,
    #[command(flatten)]
    pub rehearsal: rehearsal::Arguments,
    #[command(flatten)]
    pub given: Given,
}

impl Common {
    /// Where the cluster's buckets are.
    pub fn places(&self) -> Result<Places> {
        let places = Places::parse(&self.bucket, &self.regions)?;
        let own_region = self.region.as_deref().unwrap_or_default();
        Ok(self.rehearsal.of_buckets(places, own_region))
    }

    /// What the process is configured with, in which `flags` enters the flags that are its own, and the log that this asks
    /// for; and the process tied to its parent, if it is to be.
    pub fn begin(
        &self,
        sources: &Sources,
        process: shares::Process,
        flags: impl FnOnce(&mut Settings) -> Result<()>,
    ) -> Result<Configured> {
        self.rehearsal.begin();
        if self.with_parent {
            host::process::end_with_parent()?;
        }
        let limit = host::memory::limit();
        let mut configured = sources.configure(&self.given, process, limit)?;
        if let Some(zone) = &self.zone {
            configured
                .settings
                .be_in(zone, &Origin::Flag("--zone".to_owned()))?;
        }
        if let Some(region) = &self.region {
            let from = Origin::Flag("--region".to_owned());
            configured.settings.be_in_region(region, &from)?;
        }
        flags(&mut configured.settings)?;
        configured.start_log()?;
        Ok(configured)
    }
}

/// Runs `serve` to its end, on as many threads as the settings want.
pub fn block_on(settings: &Settings, serve: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = runtime::node(settings.size("num.network.threads"))?;
    let result = runtime.block_on(serve);
    runtime.shutdown_timeout(running::CALLS_LIMIT);
    result
}

/// Where a process is found that has started.
pub struct Place {
    /// Its address, if only one is wanted.
    pub address: String,
    /// Who connects to it, and all their addresses, for people.
    pub told: (&'static str, Vec<String>),
    pub cluster_id: String,
}

/// A process that serves its pages, and nothing else yet.
pub struct Starting {
    pub health: Arc<Health>,
    pub links: Links,
    stop: Signals,
    role: Role,
    endpoints: NodeEndpoints,
    file: Option<PathBuf>,
    _http: Task<()>,
    _certificates: Option<Task<()>>,
}

impl Starting {
    pub async fn new(common: &Common, configured: &Configured, role: Role) -> Result<Self> {
        let stop = Signals::new()?;
        let links = common.links.open(Process {
            role,
            name: common.name.0.clone(),
        })?;
        let http = listen(&common.http, "--http").await?;
        let endpoints = NodeEndpoints {
            name: common.name.0.clone(),
            role: role.word().to_owned(),
            region: common.region.clone(),
            zone: configured.settings.text(settings::ZONE).to_owned(),
            version: VERSION.to_owned(),
            pid: Some(std::process::id()),
            kafka: None,
            control: None,
            http: format!("http://{}", http.local_addr()?),
            cluster_id: String::new(),
        };
        let health = Arc::new(Health::default());
        let site = pages::site(&health, &configured.shares);
        let certificates = match &links {
            Links::Plaintext => None,
            Links::Tls(certificates) => {
                health.known_by(certificates);
                let fresh = Arc::clone(certificates).keep_fresh();
                Some(host::task::spawn("certificates", async move {
                    match fresh.await {}
                }))
            }
        };
        Ok(Starting {
            links,
            role,
            _certificates: certificates,
            stop,
            endpoints,
            file: common.endpoints.clone(),
            _http: http::serve(http, site),
            health,
        })
    }

    /// Starts the parts, says where they are, and runs them until somebody stops the process.
    pub async fn run<R: Running>(
        mut self,
        start: impl Future<Output = Result<R>>,
        place: impl FnOnce(&R) -> Place,
    ) -> Result<()> {
        let started = tokio::select! {
            biased;
            started = start => started?,
            () = self.stop.wait() => {
                tracing::info!("stopped before it was ready");
                return Ok(());
            }
        };
        let place = place(&started);
        let endpoints = &mut self.endpoints;
        let its = match self.role {
            Role::Agent => &mut endpoints.kafka,
            Role::Control => &mut endpoints.control,
        };
        *its = Some(place.address.clone());
        endpoints.cluster_id.clone_from(&place.cluster_id);
        let address = &place.address;
        let NodeEndpoints {
            http, cluster_id, ..
        } = &*endpoints;
        tracing::info!(%address, %http, %cluster_id, "ready");
        if let Some(file) = &self.file {
            self.endpoints.publish(file)?;
        }
        // A process goes on even if nobody reads its output.
        drop(announce(&self.endpoints, &place));
        running::run(started, &mut self.stop, &self.health, || Ok(())).await
    }
}

fn announce(endpoints: &NodeEndpoints, place: &Place) -> Result<()> {
    let NodeEndpoints {
        role,
        http,
        cluster_id,
        ..
    } = endpoints;
    let (who, addresses) = &place.told;
    say!("Seaway is ready ({role}).");
    for address in addresses {
        say!("  {who:15} {address}");
    }
    say!("  health, metrics {http}/readyz {http}/metrics");
    say!("  cluster id      {cluster_id}");
    say!("Stop it with Ctrl-C.");
    Ok(())
}
