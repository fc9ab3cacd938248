//! `seaway status`: what a running node says of itself, for people or as JSON.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use hyper::StatusCode;

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

/// How long each of several control nodes may take to answer before the next one is asked: one that is paused takes connections, and says
/// nothing.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// The nodes to ask, one after the other until one answers: of several processes the control nodes that run, since they know of all.
fn of_directory(endpoints: &Endpoints) -> Vec<String> {
    let nodes = endpoints.nodes.iter();
    let control = nodes.filter(|node| node.role == "control" && node.pid.is_some());
    let mut bases: Vec<String> = control.map(|node| node.http.clone()).collect();
    if bases.is_empty() {
        bases.push(endpoints.http.clone());
    }
    bases
}

/// The first answer of those asked, and whose it is.
async fn first_answer(bases: &[String], page: &str) -> Result<(String, StatusCode, String)> {
    let mut failed = anyhow!("there is no process to ask");
    for base in bases {
        let asked = http::get(base, page);
        let answer = match bases.len() {
            1 => Ok(asked.await),
            _ => host::clock::timeout(ANSWERS_WITHIN, asked).await,
        };
        failed = match answer {
            Ok(Ok((status, body))) => return Ok((base.clone(), status, body)),
            Ok(Err(error)) => error,
            Err(_) => anyhow!(
                "{base} did not answer within {} s",
                ANSWERS_WITHIN.as_secs()
            ),
        };
    }
    Err(failed)
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let bases = match &arguments.http {
        Some(base) => vec![base.clone()],
        None => of_directory(&data_dir::published(&arguments.data_dir)?),
    };
    let page = if arguments.json {
        "/status.json"
    } else {
        "/status"
    };
    let (base, status, body) = runtime::small()?.block_on(first_answer(&bases, page))?;
    if !status.is_success() {
        bail!("{base}{page} answers {status}: {}", body.trim_end());
    }
    say!("{}", body.trim_end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use super::*;
    use crate::http::{Page, Pages};

    #[tokio::test]
    async fn one_that_takes_connections_and_says_nothing_is_passed_over() {
        let mut listeners = Vec::new();
        for _ in 0..2 {
            let address = (Ipv4Addr::LOCALHOST, 0).into();
            listeners.push(host::net::listen(address).await.expect("a free port"));
        }
        let bases: Vec<String> = listeners
            .iter()
            .map(|listener| format!("http://{}", listener.local_addr().expect("an address")))
            .collect();
        let answering = listeners.pop().expect("the second");
        let pages: Pages = Arc::new(|_| Some(Page::text(StatusCode::OK, "ready\n")));
        let _served = http::serve(answering, pages);
        let (base, status, body) = first_answer(&bases, "/status").await.expect("an answer");
        assert_eq!(
            (&base, status, &*body),
            (&bases[1], StatusCode::OK, "ready\n")
        );
        let silent = first_answer(&[bases[0].clone(), bases[0].clone()], "/status").await;
        let why = silent.expect_err("nobody answers").to_string();
        assert!(why.contains("did not answer within 2 s"), "{why}");
    }
}
