//! `seaway time`: sets the time of the journal right, once it has run ahead by a wrong clock.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hyper::StatusCode;
use serde_json::Value;

use crate::data_dir::{Endpoints, published};
use crate::output::say;
use crate::{http, runtime, timing};

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Set the time of the journal to that of the leader's clock: refused unless that is known to be right, and the journal more than a
    /// minute ahead.
    Set(Arguments),
}

/// Which control node to ask.
#[derive(clap::Args)]
pub struct Arguments {
    /// Data directory of a `dev` cluster: the node that leads is asked.
    #[arg(long, value_name = "DIR", default_value = super::dev::DATA_DIR)]
    data_dir: PathBuf,
    /// Ask the control node at this address instead, as http://HOST:PORT: the one that leads.
    #[arg(long, value_name = "URL")]
    http: Option<String>,
}

pub fn run(verb: &Verb) -> Result<()> {
    let Verb::Set(arguments) = verb;
    runtime::small()?.block_on(set(arguments))
}

async fn set(arguments: &Arguments) -> Result<()> {
    let base = match &arguments.http {
        Some(base) => base.clone(),
        None => leader(&published(&arguments.data_dir)?).await?,
    };
    let (status, answer) = http::post(&base, timing::SET).await?;
    if status != StatusCode::OK {
        bail!("{base}: {}", answer.trim_end());
    }
    say!("{}", answer.trim_end());
    Ok(())
}

/// The process of a cluster that leads.
pub(super) async fn leader(endpoints: &Endpoints) -> Result<String> {
    if endpoints.nodes.is_empty() {
        return Ok(endpoints.http.clone());
    }
    let running = endpoints.nodes.iter().filter(|node| node.pid.is_some());
    for node in running.filter(|node| node.role == "control") {
        let Ok((StatusCode::OK, page)) = http::get(&node.http, "/status.json").await else {
            continue;
        };
        let page: Value = serde_json::from_str(&page).unwrap_or_default();
        if page["journal"]["role"] == "Leader" {
            return Ok(node.http.clone());
        }
    }
    None.context("no control node of the cluster leads now: ask again once one does")
}
