//! `seaway control`: one of the control nodes of a cluster.

use anyhow::{Result, bail};
use link::process::Role;

use super::role::{Common, Place, Starting, block_on};
use crate::address::Address;
use crate::config::shares::Process;
use crate::config::{Configured, Sources};
use crate::journals;
use crate::roles::control::{self, Plan};
use crate::running::listen;

/// How to run the control node.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    journal: journals::Arguments,
    /// Address to listen on for agents and other control nodes; port 0 takes a free one. They are told to connect to it, unless
    /// --advertise says something else.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Address,
    /// Address at which agents and other control nodes reach this one.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<Address>,
}

/// Runs until Ctrl-C or SIGTERM.
pub fn run(arguments: Arguments, sources: &Sources) -> Result<()> {
    let common = &arguments.common;
    let configured = common.begin(sources, Process::Control, |_| Ok(()))?;
    block_on(&configured.settings.clone(), serve(arguments, configured))
}

async fn serve(arguments: Arguments, configured: Configured) -> Result<()> {
    let is_everywhere = arguments.listen.ip().is_some_and(|ip| ip.is_unspecified());
    if is_everywhere && arguments.advertise.is_none() {
        bail!(
            "others cannot connect to {}: say with --advertise HOST:PORT where they reach this control node",
            arguments.listen
        );
    }
    let listener = listen(&arguments.listen, "--listen").await?;
    let port = listener.local_addr()?.port();
    let advertised = arguments.advertise.unwrap_or(Address {
        host: arguments.listen.host,
        port,
    });
    let address = advertised.to_string();
    let starting = Starting::new(&arguments.common, &configured, Role::Control).await?;
    let buckets = arguments.common.places()?;
    let plan = Plan {
        configured,
        name: arguments.common.name.0,
        buckets,
        journal: arguments.journal.open()?,
        address: address.clone(),
        listener,
        links: starting.links.clone(),
    };
    let health = std::sync::Arc::clone(&starting.health);
    let place = |started: &control::Control| Place {
        told: ("agents, others", vec![address.clone()]),
        address,
        cluster_id: started.cluster_id().to_owned(),
    };
    starting.run(control::start(plan, &health), place).await
}
