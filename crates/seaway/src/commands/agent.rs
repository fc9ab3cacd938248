//! `seaway agent`: serves Kafka clients, beside other agents of a cluster.

use anyhow::Result;
use link::process::Role;

use super::role::{Common, Starting, block_on};
use crate::address::Address;
use crate::roles::agent::{self, Plan};
use crate::running::listen;
use crate::settings::Settings;

/// How to run the agent.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Address to listen on for Kafka clients; port 0 takes a free one. Clients are told to connect to it, unless
    /// advertised.host and advertised.port say something else.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Address,
    /// Control nodes, beside those that the bucket tells of.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    control: Vec<Address>,
}

/// Runs until Ctrl-C or SIGTERM.
pub fn run(arguments: Arguments) -> Result<()> {
    let settings = arguments.common.begin(|settings| {
        if arguments.kafka.ip().is_none() {
            // As in Kafka, clients are told the name, since its address may change.
            settings.assume("advertised.host", &arguments.kafka.host);
        }
    })?;
    block_on(&settings.clone(), serve(arguments, settings))
}

async fn serve(arguments: Arguments, settings: Settings) -> Result<()> {
    let kafka = listen(&arguments.kafka, "--kafka").await?;
    let starting = Starting::new(&arguments.common, &settings, Role::Agent).await?;
    let plan = Plan {
        settings,
        name: arguments.common.name.0,
        bucket: arguments.common.bucket,
        control: arguments.control.iter().map(Address::to_string).collect(),
        files: host::process::raise_file_limit(),
        kafka,
        links: starting.links.clone(),
    };
    let health = std::sync::Arc::clone(&starting.health);
    let place = |started: &agent::Agent| (started.kafka_address(), started.cluster_id().to_owned());
    starting
        .run(agent::start(plan, &health), "Kafka clients", place)
        .await
}
