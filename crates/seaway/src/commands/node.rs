//! `seaway node`: single processes of a `dev` cluster of several are listed, killed and started again.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use hyper::StatusCode;

use crate::data_dir::{NodeEndpoints, published};
use crate::output::say;
use crate::{http, runtime};

/// The signal that ends a process at once.
const KILL: &str = "KILL";
/// A process that is killed has ended within this time, looked at so often.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(clap::Subcommand)]
pub enum Verb {
    /// List the processes.
    List(Where),
    /// Kill a process, as `kill -9` does unless another signal is named. Nothing starts it again by itself.
    Kill {
        /// The process, as `seaway node list` names it.
        name: String,
        #[command(flatten)]
        place: Where,
        /// The signal: KILL, TERM, STOP or CONT.
        #[arg(long, value_name = "SIGNAL", default_value = KILL)]
        signal: String,
    },
    /// Start a process again that has ended.
    Start {
        /// The process, as `seaway node list` names it.
        name: String,
        #[command(flatten)]
        place: Where,
    },
}

/// Which `dev` cluster is meant, and how it is shown.
#[derive(clap::Args)]
pub struct Where {
    /// Data directory of the cluster.
    #[arg(long, value_name = "DIR", default_value = super::dev::DATA_DIR)]
    pub(super) data_dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

pub fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::List(place) => list(&place),
        Verb::Kill {
            name,
            place,
            signal,
        } => kill(&place, &name, &signal),
        Verb::Start { name, place } => start(&place, &name),
    }
}

fn nodes(place: &Where) -> Result<(String, Vec<NodeEndpoints>)> {
    let endpoints = published(&place.data_dir)?;
    if endpoints.nodes.is_empty() {
        bail!(
            "the cluster in {} is one process: start it with `seaway dev --agents N --control M` for several",
            place.data_dir.display()
        );
    }
    Ok((endpoints.http, endpoints.nodes))
}

fn find(place: &Where, name: &str) -> Result<(String, NodeEndpoints)> {
    let (http, nodes) = nodes(place)?;
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    match nodes.into_iter().find(|node| node.name == name) {
        Some(node) => Ok((http, node)),
        None => bail!("there is no process {name}; there are {}", names.join(", ")),
    }
}

fn list(place: &Where) -> Result<()> {
    let (_, nodes) = nodes(place)?;
    if place.json {
        say!("{}", serde_json::to_string_pretty(&nodes)?);
        return Ok(());
    }
    for node in nodes {
        let address = node.address();
        let NodeEndpoints {
            name,
            zone,
            version,
            pid,
            http,
            ..
        } = &node;
        let pid = pid.map_or_else(|| "ended".to_owned(), |pid| pid.to_string());
        say!("{name:12}  {zone:10}  {version:10}  {pid:8}  {address:24}  {http}");
    }
    Ok(())
}

fn kill(place: &Where, name: &str, signal: &str) -> Result<()> {
    let (_, node) = find(place, name)?;
    let Some(pid) = node.pid else {
        bail!("{name} does not run; `seaway node start {name}` starts it");
    };
    host::process::signal(pid, signal)?;
    if signal == KILL {
        runtime::small()?.block_on(await_end(place, name, pid))?;
    }
    say!("{signal} was sent to {name}, process {pid}");
    Ok(())
}

/// Waits until the cluster knows that the process has ended, so that it can be started again at once.
async fn await_end(place: &Where, name: &str, pid: u32) -> Result<()> {
    let until = host::clock::now() + ENDS_WITHIN;
    while find(place, name)?.1.pid == Some(pid) {
        if host::clock::now() >= until {
            bail!(
                "process {pid} of {name} was killed, and has not ended within {} s",
                ENDS_WITHIN.as_secs()
            );
        }
        host::clock::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn start(place: &Where, name: &str) -> Result<()> {
    let (http, _) = find(place, name)?;
    let path = format!("/nodes/{name}/start");
    let (status, answer) = runtime::small()?.block_on(http::post(&http, &path))?;
    if status != StatusCode::OK {
        bail!("{}", answer.trim_end());
    }
    say!("{name} is started");
    Ok(())
}
