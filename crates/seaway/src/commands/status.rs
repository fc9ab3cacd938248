//! `seaway status`: what a running node says of itself, for people or as JSON.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::data_dir::Endpoints;
use crate::output::say;
use crate::{data_dir, http, runtime};

/// Which node to ask, and how to print its answer.
#[derive(clap::Args)]
pub struct Arguments {
    /// Data directory of the node.
    #[arg(long, value_name = "DIR", default_value = super::dev::DATA_DIR)]
    data_dir: PathBuf,
    /// Ask the node at this address instead, as http://HOST:PORT.
    #[arg(long, value_name = "URL")]
    http: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The node to ask: of several processes a control node, which knows of all.
fn of_directory(endpoints: &Endpoints) -> String {
    let mut nodes = endpoints.nodes.iter();
    let found = nodes.find(|node| node.role == "control" && node.pid.is_some());
    found.map_or(&endpoints.http, |node| &node.http).clone()
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let base = match &arguments.http {
        Some(base) => base.clone(),
        None => of_directory(&data_dir::published(&arguments.data_dir)?),
    };
    let page = if arguments.json {
        "/status.json"
    } else {
        "/status"
    };
    let (status, body) = runtime::small()?.block_on(http::get(&base, page))?;
    if !status.is_success() {
        bail!("{base}{page} answers {status}: {}", body.trim_end());
    }
    say!("{}", body.trim_end());
    Ok(())
}
