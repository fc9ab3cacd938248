//! `bench`: loads and comparisons by hand.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use bench::against;
use bench::compare::{self, Effort};
use bench::load::{self, Load};
use bench::metadata;
use bench::readers;
use bench::servers::Programs;
use bench::tails;
use bench::trickle;
use clap::{Parser, Subcommand};

/// Loads and comparisons.
#[derive(Parser)]
#[command(name = "bench", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The same loads on Seaway and on Apache Kafka, in turn; prints tables.
    Compare {
        /// Runs of each load on each server; the median is printed.
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// Seconds measured in each run.
        #[arg(long, default_value_t = 8)]
        seconds: u64,
        /// Seconds of load before that.
        #[arg(long, default_value_t = 5)]
        warm_up: u64,
        /// Only loads whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
        /// The script that starts Apache Kafka; without it only Seaway is measured.
        #[arg(long)]
        kafka: Option<PathBuf>,
        /// Another `seaway` binary: each run becomes a pair with it, and CPU and memory are compared pair by pair; from
        /// ten pairs on (--runs 10) each row has a verdict, and the exit code says whether any is worse.
        #[arg(long, conflicts_with = "kafka")]
        against: Option<PathBuf>,
        /// A setting of Seaway, in all runs; may be given again.
        #[arg(long, value_name = "NAME=VALUE")]
        set: Vec<String>,
    },
    /// What a lasting trickle of records costs in requests to the bucket, and what a rare record waits; prints a table.
    Trickle(Trickle),
    /// What the tail of a bucket's latency, its errors and its absence do to Seaway; prints a table.
    Tails {
        /// Seconds in which acknowledgements are measured, for each fault.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// Only figures whose name contains this: acks, restart, cold fetch, outage.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Readers at the end of very many partitions, beside producers; what each fetch costs.
    TailReaders {
        #[arg(long, default_value_t = 10_000)]
        partitions: i32,
        /// Readers at one time, in the last runs.
        #[arg(long, default_value_t = 10)]
        readers: usize,
        /// Producer connections, each with one request in flight.
        #[arg(long, default_value_t = 2)]
        producers: usize,
        /// Seconds measured in each run.
        #[arg(long, default_value_t = 8)]
        seconds: u64,
        /// Seconds before that.
        #[arg(long, default_value_t = 3)]
        warm_up: u64,
        /// The server, if it is not the one beside this program.
        #[arg(long)]
        seaway: Option<PathBuf>,
    },
    /// What Metadata of all topics takes, at every agent of a cluster that runs already.
    Metadata(metadata::Effort),
    /// One load on a server that runs already.
    Load {
        /// The server.
        #[arg(long)]
        address: SocketAddr,
        /// The topic; created unless it exists.
        #[arg(long, default_value = "load")]
        topic: String,
        /// Its partitions.
        #[arg(long, default_value_t = 16)]
        partitions: i32,
        /// Producer connections.
        #[arg(long, default_value_t = 4)]
        connections: usize,
        /// Requests in flight on each.
        #[arg(long, default_value_t = 5)]
        in_flight: usize,
        /// Bytes of a batch.
        #[arg(long, default_value_t = 1 << 20)]
        batch_bytes: usize,
        /// Readers that follow all partitions.
        #[arg(long, default_value_t = 0)]
        readers: usize,
        /// MiB per second over all connections; as fast as possible if not given.
        #[arg(long)]
        mib_per_second: Option<u64>,
        /// Seconds.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
}

/// How to measure a trickle.
#[derive(clap::Args)]
struct Trickle {
    #[arg(long, default_value_t = 100)]
    records_per_second: u64,
    /// Milliseconds that every PUT takes.
    #[arg(long, default_value_t = 30)]
    put_delay_ms: u64,
    /// Seconds measured, after ten of load.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// A setting of Seaway; may be given again.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// The server, if it is not the one beside this program.
    #[arg(long)]
    seaway: Option<PathBuf>,
    /// An agent that runs already; given several times, the records are spread over them.
    #[arg(long, value_name = "HOST:PORT", requires = "s3")]
    agent: Vec<SocketAddr>,
    /// The S3 server under those agents.
    #[arg(long, value_name = "HOST:PORT", requires = "agent")]
    s3: Option<SocketAddr>,
}

fn main() -> Result<()> {
    // One thread: on a small machine a generator that hops between cores costs more than it loads.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(Arguments::parse().verb))
}

async fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Compare {
            runs,
            seconds,
            warm_up,
            only,
            kafka,
            against,
            set,
        } => {
            let effort = Effort {
                runs,
                measured: Duration::from_secs(seconds),
                warm_up: Duration::from_secs(warm_up),
                settings: set,
            };
            compared(&programs(kafka)?, &effort, &only, against).await
        }
        Verb::Trickle(arguments) => trickled(arguments).await,
        Verb::Tails { seconds, only } => {
            let (programs, measured) = (programs(None)?, Duration::from_secs(seconds));
            clean(&programs, tails::run(&programs, measured, &only).await)
        }
        Verb::TailReaders {
            partitions,
            readers,
            producers,
            seconds,
            warm_up,
            seaway,
        } => {
            let programs = programs_of(seaway)?;
            let effort = readers::Effort {
                partitions,
                readers,
                producers,
                measured: Duration::from_secs(seconds),
                warm_up: Duration::from_secs(warm_up),
            };
            clean(&programs, readers::run(&programs, effort).await)
        }
        Verb::Metadata(effort) => metadata::run(&effort).await,
        Verb::Load {
            address,
            topic,
            partitions,
            connections,
            in_flight,
            batch_bytes,
            readers,
            mib_per_second,
            seconds,
        } => {
            one_load(&Load {
                address,
                topic,
                partitions,
                connections,
                in_flight,
                batch_bytes,
                readers,
                bytes_per_second: mib_per_second.map(|rate| rate << 20),
                warm_up: Duration::from_secs(1),
                measured: Duration::from_secs(seconds),
            })
            .await
        }
    }
}

async fn trickled(arguments: Trickle) -> Result<()> {
    let programs = programs_of(arguments.seaway)?;
    let effort = trickle::Effort {
        records_per_second: arguments.records_per_second,
        put_delay_millis: arguments.put_delay_ms,
        settings: arguments.set,
        measured: Duration::from_secs(arguments.seconds),
    };
    let running = arguments.s3.map(|bucket| trickle::Running {
        agents: arguments.agent,
        bucket,
    });
    let result = trickle::run(&programs, &effort, running).await;
    clean(&programs, result)
}

async fn compared(
    programs: &Programs,
    effort: &Effort,
    only: &str,
    against: Option<PathBuf>,
) -> Result<()> {
    let result = match &against {
        Some(other) => against::run(programs, other, effort, only).await,
        None => compare::run(programs, effort, only).await,
    };
    clean(programs, result)
}

/// The programs beside this one, but for the server if another is given.
fn programs_of(seaway: Option<PathBuf>) -> Result<Programs> {
    let mut programs = programs(None)?;
    programs.seaway = seaway.unwrap_or(programs.seaway);
    Ok(programs)
}

/// Finds the programs beside this one, and makes a directory for their output.
fn programs(kafka: Option<PathBuf>) -> Result<Programs> {
    let scratch = std::env::temp_dir().join(format!("seaway-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let here = std::env::current_exe()?;
    let beside = here.parent().context("this program has no directory")?;
    Ok(Programs {
        seaway: beside.join("seaway"),
        s3_server: beside.join("s3-server"),
        kafka,
        scratch,
    })
}

/// Removes the programs' output, unless something went wrong.
fn clean(programs: &Programs, result: Result<()>) -> Result<()> {
    let scratch = &programs.scratch;
    if result.is_ok() {
        std::fs::remove_dir_all(scratch)?;
    }
    result.with_context(|| format!("logs are in {}", scratch.display()))
}

async fn one_load(load: &Load) -> Result<()> {
    if let Err(error) = load::create_topic(load.address, &load.topic, load.partitions).await {
        eprintln!("{error:#}; going on with the topic as it is");
    }
    let mut outcome = load::run(load, || {}).await?;
    println!(
        "{:.0} MiB/s acknowledged",
        outcome.produced_mib_per_second()
    );
    println!(
        "{:.0} requests/s",
        outcome.requests as f64 / outcome.seconds
    );
    println!(
        "ack p50 {:.2} ms, p99 {:.2} ms",
        outcome.acks.quantile_millis(0.5),
        outcome.acks.quantile_millis(0.99)
    );
    if load.readers > 0 {
        println!(
            "{:.0} MiB/s to each reader",
            outcome.fetched_mib_per_second(load.readers)
        );
        println!(
            "end to end p50 {:.1} ms",
            outcome.end_to_end.quantile_millis(0.5)
        );
    }
    Ok(())
}
