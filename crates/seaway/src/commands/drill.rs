//! `seaway drill`: a disaster is rehearsed on a `dev` cluster under load from clients in every region, and what was lost is told. The
//! exit code says whether the drill is passed.

mod account;
mod client;
mod cluster;
mod consumer;
mod course;
mod pauses;
mod producer;
mod record;
mod report;

use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use self::cluster::Cluster;
use self::course::Plan;
use self::report::Report;
use super::node::Where;
use super::topic;
use crate::client::Client;
use crate::output::say;
use crate::running::Signals;
use crate::runtime;

/// Partitions of a drill's topic.
const PARTITIONS: i32 = 6;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Lose a region and have it back, under load from producers and consumers in all regions; then read everything and tell what
    /// was lost, and for how long clients waited.
    RegionLoss(Arguments),
}

/// Which region is lost, under which load, and how it is told.
#[derive(clap::Args)]
pub struct Arguments {
    /// The region to be lost, as `seaway region list` names it; by default the one that leads.
    #[arg(long)]
    region: Option<String>,
    /// How long clients work before the loss, then while the region is away, and then once it comes back.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Records of 100 bytes that are written in a second, by all producers together.
    #[arg(long, value_name = "N", default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Keep the topic with the records of the drill.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    place: Where,
}

pub fn run(verb: &Verb) -> Result<()> {
    let Verb::RegionLoss(arguments) = verb;
    runtime::small()?.block_on(lose_a_region(arguments))
}

async fn lose_a_region(arguments: &Arguments) -> Result<()> {
    let mut signals = Signals::new()?;
    let cluster = Cluster::new(&arguments.place);
    let plan = tokio::select! {
        plan = prepare(arguments, &cluster) => plan?,
        () = signals.wait() => bail!("the drill was ended before it began: nothing was done"),
    };
    let mut connection = Client::of(cluster.addresses(&plan.leader)?);
    topic::create(&mut connection, &plan.topic, Some(plan.partitions), &[]).await?;
    let outcome = tokio::select! {
        outcome = course::run(&plan, &cluster) => outcome,
        () = signals.wait() => Err(anyhow!("the drill was ended by a signal")),
    };
    let outcome = restored(outcome, &cluster).await;
    // What is wrong with the records can be looked into as long as they are there.
    let is_evidence = outcome.as_ref().is_ok_and(Report::has_wrong_records);
    let deleted = match arguments.keep || is_evidence {
        true => Err(anyhow!("it is kept")),
        false => tokio::select! {
            deleted = topic::delete(&mut connection, &plan.topic) => deleted,
            () = signals.wait() => Err(anyhow!("it is not deleted, because of a signal")),
        },
    };
    if let Err(why) = deleted {
        let topic = &plan.topic;
        eprintln!("the topic {topic} is there, `seaway topic delete {topic}` deletes it: {why:#}");
    }
    let report = outcome?;
    match arguments.place.json {
        true => say!("{}", serde_json::to_string_pretty(&report.json())?),
        false => say!("{}", report.text()),
    }
    match &report.reasons()[..] {
        [] => Ok(()),
        reasons => bail!("the drill is not passed: {}", reasons.join("; ")),
    }
}

/// Finds out what is to be done, and that the cluster is fit for it.
async fn prepare(arguments: &Arguments, cluster: &Cluster<'_>) -> Result<Plan> {
    if let Some(region) = &arguments.region {
        cluster.check_known(region)?;
    }
    cluster.check_well().await?;
    let leader = cluster.leader().await?;
    let region = arguments.region.as_ref().unwrap_or(&leader).clone();
    let seconds = host::clock::wall_millis() / 1_000;
    Ok(Plan {
        topic: format!("drill-region-loss-{seconds}"),
        partitions: PARTITIONS,
        region,
        leader,
        load: Duration::from_secs(u64::from(arguments.seconds)),
        rate: arguments.rate,
    })
}

/// The outcome, once no region is lost any more, whatever it is.
async fn restored(outcome: Result<Report>, cluster: &Cluster<'_>) -> Result<Report> {
    match (outcome, cluster.restore().await) {
        (outcome, Ok(None)) => outcome,
        (Err(error), Ok(Some(region))) => {
            Err(error.context(format!("{region} was lost, and comes back")))
        }
        (Ok(report), Ok(Some(_))) => Ok(report),
        (Ok(_), Err(lost)) => Err(lost),
        (Err(error), Err(lost)) => Err(lost.context(format!("{error:#}"))),
    }
}
