//! The comparison: the same loads on Seaway and on Apache Kafka, in turn and repeated, with the
//! limits of the same hour; medians, as a table. It must not know how a server is started.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::limits;
use crate::load::{self, Load, Outcome};
use crate::servers::{Peer, Programs, SeawayOptions, free_addresses, untouched_seaway};

/// Partitions of every load.
const PARTITIONS: i32 = 16;
/// How long a server is left alone after its start: a JVM warms up under load, but its first topic
/// takes a while.
const SETTLE: Duration = Duration::from_secs(2);
/// The name of the measurement without load.
const IDLE: &str = "idle";
/// How long an idle server is watched: CPU time is counted in hundredths of a second.
const IDLE_WATCHED: Duration = Duration::from_secs(30);

/// How long and how often to measure.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Runs of each load on each server.
    pub runs: usize,
    /// The measured time of each run.
    pub measured: Duration,
    /// Unmeasured load before that; a JVM needs some 25 s once.
    pub warm_up: Duration,
    /// `NAME=VALUE` settings of Seaway in addition to those of every run.
    pub settings: Vec<String>,
}

impl Effort {
    fn options(&self, put_delay_millis: u64) -> SeawayOptions {
        SeawayOptions {
            put_delay_millis,
            settings: self.settings.clone(),
            has_defaults: false,
        }
    }
}

/// A load and the servers it is for.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    load: Load,
    pub(crate) seaway: SeawayOptions,
    with_kafka: bool,
}

/// The figures of one run on one server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    mib_per_second: f64,
    fetched_mib_per_second: f64,
    pub(crate) cpu_seconds_per_gib: f64,
    bucket_cpu_seconds_per_gib: f64,
    ack_p50_millis: f64,
    ack_p99_millis: f64,
    end_to_end_p50_millis: f64,
    pub(crate) resident_max_mib: f64,
}

/// Runs everything whose name contains `filter` and prints the tables.
pub async fn run(programs: &Programs, effort: &Effort, filter: &str) -> Result<()> {
    print_limits(effort).await?;
    println!(
        "\n| load | server | MiB/s in | MiB/s out, each reader | CPU-s/GiB | bucket's CPU-s/GiB \
         | ack p50 ms | ack p99 ms | end to end p50 ms | peak MiB resident |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for scenario in scenarios(effort) {
        if scenario.name.contains(filter) {
            measure(programs, effort, &scenario).await?;
        }
    }
    if IDLE.contains(filter) {
        print_idle(programs).await?;
    }
    Ok(())
}

async fn print_idle(programs: &Programs) -> Result<()> {
    let seaway = untouched_seaway(programs, IDLE)?;
    tokio::time::sleep(SETTLE).await;
    let before = seaway.usage()?;
    tokio::time::sleep(IDLE_WATCHED).await;
    let after = seaway.usage()?;
    seaway.stop()?;
    let share = (after.cpu_seconds - before.cpu_seconds) / IDLE_WATCHED.as_secs_f64();
    println!("\n| load | server | % of a core | MiB resident |\n|---|---|---|---|");
    println!(
        "| {IDLE} | Seaway | {:.2} | {:.0} |",
        share * 100.0,
        after.resident_bytes as f64 / MIB
    );
    Ok(())
}

async fn print_limits(effort: &Effort) -> Result<()> {
    let (rate, cpu) = limits::loopback(effort.measured.min(Duration::from_secs(3))).await?;
    println!("loopback, one stream: {rate:.0} MiB/s, {cpu:.2} CPU-s/GiB for both ends");
    let [address] = free_addresses()?;
    let skeleton = tokio::spawn(limits::skeleton(address));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let load = Load {
        address,
        ..produce_load(effort, 4, 5, 1 << 20)
    };
    let before = crate::process::usage(std::process::id())?.cpu_seconds;
    let outcome = load::run(&load, || {}).await?;
    let cpu = crate::process::usage(std::process::id())?.cpu_seconds - before;
    skeleton.abort();
    let share = load.measured.as_secs_f64() / (load.measured + load.warm_up).as_secs_f64();
    println!(
        "skeleton (receive, CRC, answer; generator included): {:.0} MiB/s, {:.2} CPU-s/GiB",
        outcome.produced_mib_per_second(),
        cpu * share / (outcome.produced_bytes as f64 / GIB)
    );
    Ok(())
}

const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;

fn produce_load(effort: &Effort, connections: usize, in_flight: usize, batch: usize) -> Load {
    Load {
        address: ([127, 0, 0, 1], 0).into(),
        topic: "load".to_owned(),
        partitions: PARTITIONS,
        connections,
        in_flight,
        batch_bytes: batch,
        readers: 0,
        bytes_per_second: None,
        warm_up: effort.warm_up,
        measured: effort.measured,
    }
}

/// Bytes of a batch that is just within Kafka's default limit.
const LARGE: usize = 1 << 20;
const SMALL: usize = 16 << 10;

pub(crate) fn scenarios(effort: &Effort) -> Vec<Scenario> {
    let produce =
        |connections, in_flight, batch| produce_load(effort, connections, in_flight, batch);
    let plain = |name, load| Scenario {
        name,
        load,
        seaway: effort.options(0),
        with_kafka: true,
    };
    let slow = |name, load, put_delay_millis| Scenario {
        name,
        load,
        seaway: effort.options(put_delay_millis),
        with_kafka: false,
    };
    let paced = |load: Load, mib: u64| Load {
        bytes_per_second: Some(mib << 20),
        ..load
    };
    let followed = |load: Load| Load { readers: 3, ..load };
    vec![
        plain("1 MiB batches", produce(4, 5, LARGE)),
        plain(
            "1 MiB batches, 3 readers, 400 MiB/s",
            followed(paced(produce(4, 5, LARGE), 400)),
        ),
        plain("16 KiB batches", produce(4, 5, SMALL)),
        plain(
            "16 KiB batches, 5 MiB/s, a reader",
            Load {
                readers: 1,
                ..paced(produce(4, 5, SMALL), 5)
            },
        ),
        slow("16 connections, PUT 0 ms", produce(16, 5, LARGE), 0),
        slow("16 connections, PUT 80 ms", produce(16, 5, LARGE), 80),
        slow(
            "1 connection, 1 in flight, PUT 80 ms",
            produce(1, 1, LARGE),
            80,
        ),
        slow(
            "1 connection, 5 in flight, PUT 80 ms",
            produce(1, 5, LARGE),
            80,
        ),
        // So little load that requests hardly ever wait for others of their connection.
        slow(
            "16 KiB batches, 1 MiB/s, a reader, PUT 20 ms",
            Load {
                readers: 1,
                ..paced(produce(4, 5, SMALL), 1)
            },
            20,
        ),
        // 320 requests a second at 62 ms each are the 20 that may be in flight.
        slow(
            "16 KiB batches, 5 MiB/s, a reader, PUT 20 ms",
            Load {
                readers: 1,
                ..paced(produce(4, 5, SMALL), 5)
            },
            20,
        ),
    ]
}

async fn measure(programs: &Programs, effort: &Effort, scenario: &Scenario) -> Result<()> {
    let mut seaway = Vec::new();
    let mut kafka = Vec::new();
    for run in 0..effort.runs {
        let name = format!("seaway-{run}-{}", slug(scenario.name));
        seaway.push(once(Peer::seaway(programs, &name, &scenario.seaway)?, scenario).await?);
        if scenario.with_kafka && programs.kafka.is_some() {
            let name = format!("kafka-{run}-{}", slug(scenario.name));
            kafka.push(once(Peer::kafka(programs, &name)?, scenario).await?);
        }
    }
    print_row(scenario.name, "Seaway", &seaway);
    if !kafka.is_empty() {
        print_row(scenario.name, "Kafka", &kafka);
    }
    Ok(())
}

pub(crate) fn slug(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect()
}

pub(crate) async fn once(peer: Peer, scenario: &Scenario) -> Result<Figures> {
    let load = Load {
        address: peer.address(),
        ..scenario.load.clone()
    };
    load::create_topic(load.address, &load.topic, load.partitions).await?;
    tokio::time::sleep(SETTLE).await;
    let mut edges = Vec::new();
    let outcome = load::run(&load, || edges.push((peer.usage(), peer.bucket_usage()))).await;
    let mut outcome = outcome.with_context(|| format!("the load '{}'", scenario.name))?;
    let mut readings = Vec::new();
    for (server, bucket) in edges {
        readings.push((server?, bucket?));
    }
    let [(server_before, bucket_before), (server, bucket)] = readings[..] else {
        anyhow::bail!("the load did not mark the beginning and the end of its measured time");
    };
    let gib = outcome.produced_bytes as f64 / GIB;
    let figures = Figures {
        mib_per_second: outcome.produced_mib_per_second(),
        fetched_mib_per_second: outcome.fetched_mib_per_second(load.readers),
        cpu_seconds_per_gib: (server.cpu_seconds - server_before.cpu_seconds) / gib,
        bucket_cpu_seconds_per_gib: (bucket.cpu_seconds - bucket_before.cpu_seconds) / gib,
        ack_p50_millis: outcome.acks.quantile_millis(0.5),
        ack_p99_millis: outcome.acks.quantile_millis(0.99),
        end_to_end_p50_millis: end_to_end(&mut outcome),
        resident_max_mib: server.resident_max_bytes as f64 / MIB,
    };
    peer.stop()?;
    Ok(figures)
}

fn end_to_end(outcome: &mut Outcome) -> f64 {
    outcome.end_to_end.quantile_millis(0.5)
}

fn print_row(load: &str, server: &str, runs: &[Figures]) {
    let median = |of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "| {load} | {server} | {:.1} | {:.1} | {:.2} | {:.2} | {:.2} | {:.1} | {:.1} | {:.0} |",
        median(|run| run.mib_per_second),
        median(|run| run.fetched_mib_per_second),
        median(|run| run.cpu_seconds_per_gib),
        median(|run| run.bucket_cpu_seconds_per_gib),
        median(|run| run.ack_p50_millis),
        median(|run| run.ack_p99_millis),
        median(|run| run.end_to_end_p50_millis),
        median(|run| run.resident_max_mib),
    );
}
