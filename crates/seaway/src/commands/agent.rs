//! `seaway agent`: serves Kafka clients, beside other agents of a cluster.

use anyhow::Result;
use link::process::Role;

use super::role::{Common, Place, Starting, block_on};
use crate::address::Address;
use crate::config::shares::Process;
use crate::config::{Configured, Sources};
use crate::listening::{self, Street, listen_all};
use crate::roles::agent::{self, Plan};

/// How to run the agent.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Address to listen on for Kafka clients, 127.0.0.1:9092 by default; port 0 takes a free one. Clients are told to
    /// connect to it, unless advertised.host and advertised.port say something else. For several: --set listeners=...
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<Address>,
    /// Address to listen on for the other agents of its zone, which ask it for parts of files; by default a free port beside the
    /// first listener for Kafka clients. They are told to connect to it, unless --advertise says something else.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<Address>,
    /// Address at which the other agents of its zone reach this one.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<Address>,
    /// Control nodes, beside those that the bucket tells of.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    control: Vec<Address>,
}

/// Runs until Ctrl-C or SIGTERM.
pub fn run(arguments: Arguments, sources: &Sources) -> Result<()> {
    let common = &arguments.common;
    let configured = common.begin(sources, Process::Agent, |settings| {
        sources.listen_at(arguments.kafka.as_ref(), settings)
    })?;
    block_on(&configured.settings.clone(), serve(arguments, configured))
}

async fn serve(arguments: Arguments, configured: Configured) -> Result<()> {
    let planned = configured.settings.listeners()?;
    let street = Street::listen(arguments.listen, arguments.advertise, &planned).await?;
    let kafka = listen_all(planned).await?;
    let starting = Starting::new(&arguments.common, &configured, Role::Agent).await?;
    let buckets = arguments.common.places()?;
    let plan = Plan {
        configured,
        name: arguments.common.name.0,
        buckets,
        control: arguments.control.iter().map(Address::to_string).collect(),
        files: host::process::raise_file_limit(),
        kafka,
        street,
        links: starting.links.clone(),
    };
    let health = std::sync::Arc::clone(&starting.health);
    let place = |started: &agent::Agent| {
        let told = started.told();
        Place {
            address: listening::first(&told),
            told: ("Kafka clients", listening::shown(&told)),
            cluster_id: started.cluster_id().to_owned(),
        }
    };
    starting.run(agent::start(plan, &health), place).await
}
