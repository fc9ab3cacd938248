//! What a lasting trickle of records costs: requests to the bucket a second, beside the latency of
//! acknowledgements; and the latency of a record that is rare. It must not know how files are cut.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::http::ask;
use crate::latency::Latencies;
use crate::load::{self, Load};
use crate::s3::Stats;
use crate::servers::{Peer, Programs, SeawayOptions};

const TOPIC: &str = "trickle";
const PARTITIONS: i32 = 16;
/// Bytes of a batch, which holds one record.
const BATCH_BYTES: usize = 1_000;
const CONNECTIONS: usize = 4;
/// Load before the measured time: savings are spent by then.
const WARM_UP: Duration = Duration::from_secs(10);
/// Dollars for a PUT and for a GET: docs/economy.md.
const PUT_DOLLARS: f64 = 0.005 / 1_000.0;
const GET_DOLLARS: f64 = 0.000_4 / 1_000.0;
/// A twelfth of a year.
const MONTH_SECONDS: f64 = 365.0 / 12.0 * 86_400.0;

#[derive(Clone, Debug)]
pub struct Effort {
    pub records_per_second: u64,
    /// Delay of every PUT, in milliseconds.
    pub put_delay_millis: u64,
    /// `NAME=VALUE` settings; all others have their defaults.
    pub settings: Vec<String>,
    pub measured: Duration,
}

/// Servers that run already.
#[derive(Clone, Debug)]
pub struct Running {
    /// The agents, over which the records are spread.
    pub agents: Vec<SocketAddr>,
    /// The S3 server under them.
    pub bucket: SocketAddr,
}

/// Measures a server of its own, or those that run already, and prints a table.
pub async fn run(programs: &Programs, effort: &Effort, running: Option<Running>) -> Result<()> {
    println!("| records/s | PUT/s | GET/s | dollars a month | ack p50 ms | ack p99 ms |");
    println!("|---|---|---|---|---|---|");
    if let Some(running) = running {
        return rows(&running, effort).await;
    }
    let options = SeawayOptions {
        put_delay_millis: effort.put_delay_millis,
        settings: effort.settings.clone(),
        has_defaults: true,
    };
    let peer = Peer::seaway(programs, TOPIC, &options)?;
    let running = Running {
        agents: vec![peer.address()],
        bucket: peer.bucket()?,
    };
    rows(&running, effort).await?;
    peer.stop()
}

async fn rows(running: &Running, effort: &Effort) -> Result<()> {
    load::have_topic(running.agents[0], TOPIC, PARTITIONS).await?;
    for records_per_second in [effort.records_per_second, 1] {
        let row = measure(running, records_per_second, effort.measured).await?;
        println!("{row}");
    }
    Ok(())
}

async fn measure(running: &Running, rate: u64, measured: Duration) -> Result<String> {
    let bytes = rate * BATCH_BYTES as u64 / running.agents.len() as u64;
    let loads = running.agents.iter().map(|address| Load {
        address: *address,
        topic: TOPIC.to_owned(),
        partitions: PARTITIONS,
        connections: CONNECTIONS,
        in_flight: 1_000,
        batch_bytes: BATCH_BYTES,
        readers: 0,
        bytes_per_second: Some(bytes),
        warm_up: WARM_UP,
        measured,
    });
    let mut tasks = Vec::new();
    for load in loads {
        tasks.push(tokio::spawn(async move { load::run(&load, || {}).await }));
    }
    tokio::time::sleep(WARM_UP).await;
    let before = stats(running.bucket).await?;
    tokio::time::sleep(measured).await;
    let after = stats(running.bucket).await?;
    let mut acks = Latencies::default();
    for task in tasks {
        acks.merge(task.await??.acks);
    }
    let per_second = |kind: &str| {
        let count = |stats: &Stats| stats.requests.get(kind).copied().unwrap_or(0);
        count(&after).saturating_sub(count(&before)) as f64 / measured.as_secs_f64()
    };
    let (puts, gets) = (per_second("put"), per_second("get"));
    let month = (puts * PUT_DOLLARS + gets * GET_DOLLARS) * MONTH_SECONDS;
    Ok(format!(
        "| {rate} | {puts:.1} | {gets:.1} | {month:.0} | {:.0} | {:.0} |",
        acks.quantile_millis(0.5),
        acks.quantile_millis(0.99)
    ))
}

async fn stats(bucket: SocketAddr) -> Result<Stats> {
    let (status, body) = ask(bucket, "GET", "/_control/stats", "").await?;
    ensure!(status == 200, "the S3 server answers {status} to stats");
    Ok(serde_json::from_str(&body)?)
}
