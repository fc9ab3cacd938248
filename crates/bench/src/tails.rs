//! How a bucket's latency tail affects the service: acknowledgements while a few requests to the
//! bucket take seconds, fail or are never answered; a start and a cold read under the same faults;
//! and how soon service is back after an outage. Every figure stands beside the one of a clean
//! bucket. It must not know how Seaway copes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::http::ask;
use crate::load::{self, Load, Outcome};
use crate::s3::{Effect, Kind, Rule};
use crate::servers::{Peer, Programs, SeawayOptions};

const PARTITIONS: i32 = 16;
const TOPIC: &str = "tails";
/// Time of every PUT without a fault, in milliseconds.
const PUT_MILLIS: f64 = 20.0;
/// The extra time of a slow request.
const SLOW: Effect = Effect::Delay {
    ms: 3_000.0,
    p99_ms: None,
};
const MIB_PER_SECOND: u64 = 3;
const BATCH_BYTES: usize = 16 << 10;
/// Load before the measured time.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long a bucket is away.
const OUTAGE: Duration = Duration::from_secs(20);
/// Clients that try to write during an outage.
const TRIERS: usize = 4;
/// A limit beyond anything that is measured.
const LIMIT: Duration = Duration::from_secs(120);

/// Files wait for nothing that the bucket's latency does not explain.
fn options() -> SeawayOptions {
    SeawayOptions {
        settings: vec!["flush.requests.per.second=0".to_owned()],
        ..SeawayOptions::default()
    }
}

fn rules(faults: Vec<Rule>) -> Vec<Rule> {
    let put = Effect::Delay {
        ms: PUT_MILLIS,
        p99_ms: None,
    };
    let mut rules = vec![Rule::on(Kind::Put, put)];
    rules.extend(faults);
    rules
}

fn slow_reads() -> Vec<Rule> {
    let kinds = [Kind::Get, Kind::Head, Kind::List];
    kinds.map(|kind| Rule::on(kind, SLOW).share(0.03)).to_vec()
}

/// Measures every case whose name contains `filter`, acknowledgements for the time `measured`, and
/// prints a table of the figures beside their aims.
pub async fn run(programs: &Programs, measured: Duration, filter: &str) -> Result<()> {
    println!("| what | figure | aim |\n|---|---|---|");
    let share = |effect, share| Rule::on(Kind::Put, effect).share(share);
    let acks = [
        ("acks, clean", vec![], "the others are read beside it"),
        (
            "acks, 3 % of PUTs 3 s slower",
            vec![share(SLOW, 0.03)],
            "p50 1.3 x clean, p99 250 ms",
        ),
        (
            "acks, 1 % of PUTs never answered",
            vec![share(Effect::Silence, 0.01)],
            "p50 1.3 x clean, p99 250 ms",
        ),
        (
            "acks, 20 % of PUTs 503",
            vec![share(Effect::SlowDown, 0.2)],
            "p50 200 ms",
        ),
    ];
    for (name, faults, aim) in acks {
        if name.contains(filter) {
            let mut outcome = acknowledged(programs, name, faults, measured).await?;
            let figure = format!(
                "p50 {:.0} ms, p99 {:.0} ms, {:.1} MiB/s",
                outcome.acks.quantile_millis(0.5),
                outcome.acks.quantile_millis(0.99),
                outcome.produced_mib_per_second()
            );
            println!("| {name} | {figure} | {aim} |");
        }
    }
    restarts(programs, filter).await?;
    if "cold fetch".contains(filter) {
        let took = cold_fetch(programs).await?;
        println!(
            "| cold fetch, a partition's GET 4 s | the others' records after {took:.2} s | 1.0 s |"
        );
    }
    for (name, effect) in [
        ("outage, 503", Effect::SlowDown),
        ("outage, connections dropped", Effect::Reset),
        ("outage, no answer", Effect::Silence),
    ] {
        if name.contains(filter) {
            let back = back_after(programs, name, effect).await?;
            println!("| {name} | back after {back:.2} s | 1.5 s |");
        }
    }
    Ok(())
}

async fn restarts(programs: &Programs, filter: &str) -> Result<()> {
    let stalled = vec![Rule::on(Kind::Get, Effect::Stall).share(0.03)];
    let cases = [
        ("restart, clean", vec![], "the others are read beside it"),
        (
            "restart, 3 % of GETs 3 s slower",
            slow_reads(),
            "ready in 5 s, half the clean rate",
        ),
        (
            "restart, 3 % of bodies stalled",
            stalled,
            "ready in 5 s, half the clean rate",
        ),
    ];
    if !cases.iter().any(|(name, ..)| name.contains(filter)) {
        return Ok(());
    }
    let mut peer = Peer::seaway(programs, "restart", &options())?;
    fill(&peer).await?;
    for (name, faults, aim) in cases {
        if !name.contains(filter) {
            continue;
        }
        set(peer.bucket()?, &rules(faults)).await?;
        let ready = restart(programs, &mut peer).await?;
        let rate = load::read_all(peer.address(), TOPIC, PARTITIONS).await?;
        println!("| {name} | ready in {ready:.1} s, cold read {rate:.0} MiB/s | {aim} |");
    }
    peer.stop()
}

async fn start(programs: &Programs, name: &str) -> Result<Peer> {
    let name: String = name
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '-'
            }
        })
        .collect();
    let peer = Peer::seaway(programs, &name, &options())?;
    load::create_topic(peer.address(), TOPIC, PARTITIONS).await?;
    Ok(peer)
}

fn paced(address: SocketAddr, measured: Duration) -> Load {
    Load {
        address,
        topic: TOPIC.to_owned(),
        partitions: PARTITIONS,
        connections: 4,
        in_flight: 16,
        batch_bytes: BATCH_BYTES,
        readers: 0,
        bytes_per_second: Some(MIB_PER_SECOND << 20),
        warm_up: WARM_UP,
        measured,
    }
}

async fn acknowledged(
    programs: &Programs,
    name: &str,
    faults: Vec<Rule>,
    measured: Duration,
) -> Result<Outcome> {
    let peer = start(programs, name).await?;
    set(peer.bucket()?, &rules(faults)).await?;
    let outcome = load::run(&paced(peer.address(), measured), || {}).await;
    let outcome = outcome.with_context(|| name.to_owned())?;
    peer.stop()?;
    Ok(outcome)
}

/// Writes some hundred MiB in small files, and so a journal of as many entries.
async fn fill(peer: &Peer) -> Result<()> {
    load::create_topic(peer.address(), TOPIC, PARTITIONS).await?;
    set(peer.bucket()?, &rules(Vec::new())).await?;
    let load = Load {
        bytes_per_second: Some(8 << 20),
        ..paced(peer.address(), Duration::from_secs(15))
    };
    load::run(&load, || {}).await?;
    Ok(())
}

/// Yields the seconds that a fetch of two partitions takes which waits half a second at most, while
/// every read of the file of one of them takes four.
async fn cold_fetch(programs: &Programs) -> Result<f64> {
    let mut peer = start(programs, "cold fetch").await?;
    for partition in 0..2 {
        load::write_once(peer.address(), TOPIC, partition, BATCH_BYTES).await?;
    }
    restart(programs, &mut peer).await?;
    let first = load::fetch_once(peer.address(), TOPIC, 1).await?;
    ensure!(
        first[0] > 0,
        "the records of the first partition did not come"
    );
    let slow = Effect::Delay {
        ms: 4_000.0,
        p99_ms: None,
    };
    set(peer.bucket()?, &[Rule::on(Kind::Get, slow)]).await?;
    let begin = Instant::now();
    let both = load::fetch_once(peer.address(), TOPIC, 2).await?;
    let took = begin.elapsed().as_secs_f64();
    ensure!(
        both[0] > 0 && both[1] == 0,
        "{both:?} bytes came, not those of the first partition alone"
    );
    peer.stop()?;
    Ok(took)
}

/// Kills the server and starts it again; yields the seconds until it is ready.
async fn restart(programs: &Programs, peer: &mut Peer) -> Result<f64> {
    let begin = Instant::now();
    peer.restart_seaway(programs)?;
    let http = peer.http()?;
    while !is_ready(http).await {
        ensure!(begin.elapsed() < LIMIT, "it is not ready after {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(begin.elapsed().as_secs_f64())
}

async fn is_ready(http: SocketAddr) -> bool {
    matches!(ask(http, "GET", "/readyz", "").await, Ok((200, _)))
}

/// Yields the seconds from the end of an outage to the first acknowledgement.
async fn back_after(programs: &Programs, name: &str, effect: Effect) -> Result<f64> {
    let peer = start(programs, name).await?;
    set(peer.bucket()?, &rules(Vec::new())).await?;
    let (told, mut acks) = tokio::sync::watch::channel(Instant::now());
    let mut triers = Vec::new();
    for trier in 0..TRIERS {
        let task = try_on(peer.address(), i32::try_from(trier)?, told.clone());
        triers.push(tokio::spawn(task));
    }
    tokio::time::sleep(WARM_UP).await;
    set(peer.bucket()?, &rules(vec![Rule::new(effect)])).await?;
    tokio::time::sleep(OUTAGE).await;
    ensure!(
        acks.borrow().elapsed() > OUTAGE / 2,
        "{name}: records are acknowledged without a bucket"
    );
    set(peer.bucket()?, &rules(Vec::new())).await?;
    let end = Instant::now();
    let served = acks.wait_for(|acknowledged| *acknowledged > end);
    let back = tokio::time::timeout(LIMIT, served).await;
    let back = back
        .context("service did not come back")??
        .duration_since(end);
    triers.iter().for_each(tokio::task::JoinHandle::abort);
    peer.stop()?;
    Ok(back.as_secs_f64())
}

/// Writes batch after batch, whatever happens, and tells when one is acknowledged.
async fn try_on(address: SocketAddr, partition: i32, told: tokio::sync::watch::Sender<Instant>) {
    loop {
        let written = load::write_once(address, TOPIC, partition, BATCH_BYTES).await;
        if written.is_ok() {
            told.send_replace(Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Replaces the fault rules of the S3 server.
async fn set(bucket: SocketAddr, rules: &[Rule]) -> Result<()> {
    let rules = serde_json::to_string(rules)?;
    let (status, _) = ask(bucket, "PUT", "/_control", &rules).await?;
    ensure!(status == 204, "the S3 server answers {status} to rules");
    Ok(())
}
