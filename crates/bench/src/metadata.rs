//! How long Metadata of all topics takes, at every agent of a cluster that runs already. It must not know what a client does with it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use wire::frame::{decode_response, encode_request};
use wire::messages::metadata::{MetadataRequest, MetadataResponse};
use wire::text::Str;

use crate::connection;
use crate::latency::Latencies;
use crate::load::create_topic;

const VERSION: i16 = 12;
/// How long an agent may take to hear of all topics.
const KNOWN_LIMIT: Duration = Duration::from_secs(30);
/// The pause before an agent that has not heard of them is asked again.
const AGAIN: Duration = Duration::from_millis(20);

/// What to measure.
#[derive(clap::Args)]
pub struct Effort {
    /// One of the agents.
    #[arg(long)]
    address: SocketAddr,
    /// Topics; created unless they exist.
    #[arg(long, default_value_t = 10)]
    topics: i32,
    /// Partitions of each.
    #[arg(long, default_value_t = 1_000)]
    partitions: i32,
    /// Requests to each agent.
    #[arg(long, default_value_t = 200)]
    requests: usize,
    /// What the client calls itself; zone=a for one of zone a.
    #[arg(long, default_value = "bench")]
    client_id: String,
}

pub async fn run(effort: &Effort) -> Result<()> {
    let began = Instant::now();
    for topic in 0..effort.topics {
        let name = format!("metadata-{topic:05}");
        if let Err(error) = create_topic(effort.address, &name, effort.partitions).await {
            eprintln!("{error:#}; going on with the topic as it is");
        }
    }
    println!("topics made in {:.2} s", began.elapsed().as_secs_f64());
    let told = Asker::dial(effort.address, effort).await?.known().await?;
    for broker in &told.brokers {
        let host = (&*broker.host, u16::try_from(broker.port)?);
        let mut addresses = tokio::net::lookup_host(host).await?;
        let address = addresses.next().context("an agent has no address")?;
        let mut asker = Asker::dial(address, effort).await?;
        asker.known().await?;
        let mut taken = Latencies::default();
        let mut bytes = 0;
        for _ in 0..effort.requests {
            let (frame, took) = asker.ask().await?;
            bytes = frame.len();
            taken.add(took);
        }
        println!(
            "agent {} in zone {}: Metadata of {} partitions, {bytes} bytes, p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            broker.node_id,
            broker.rack.as_deref().unwrap_or("-"),
            partitions(&told),
            taken.quantile_millis(0.5),
            taken.quantile_millis(0.99),
            taken.quantile_millis(1.0),
        );
    }
    Ok(())
}

/// A connection that asks one agent for all topics.
struct Asker {
    reader: connection::Reader,
    writer: connection::Writer,
    client_id: Str,
    wanted: usize,
}

impl Asker {
    async fn dial(address: SocketAddr, effort: &Effort) -> Result<Self> {
        let (reader, writer) = connection::dial(address).await?;
        let wanted = i64::from(effort.topics) * i64::from(effort.partitions);
        Ok(Asker {
            reader,
            writer,
            client_id: Str::from(&effort.client_id),
            wanted: usize::try_from(wanted)?,
        })
    }

    /// The answer once it has all partitions that were made, each with an agent.
    async fn known(&mut self) -> Result<MetadataResponse> {
        let began = Instant::now();
        loop {
            let (frame, _) = self.ask().await?;
            let (_, told) = decode_response::<MetadataRequest>(&frame, VERSION)?;
            let all = told.topics.iter().flat_map(|topic| &topic.partitions);
            let have_agents = all.clone().all(|partition| partition.error_code == 0);
            if all.count() >= self.wanted && have_agents {
                return Ok(told);
            }
            ensure!(
                began.elapsed() < KNOWN_LIMIT,
                "an agent does not know all topics"
            );
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// An answer as it came, and how long it took; to decode it would take longer than to make it.
    async fn ask(&mut self) -> Result<(Bytes, Duration)> {
        let all = MetadataRequest {
            topics: None,
            ..MetadataRequest::default()
        };
        let rope = encode_request(&all, 1, Some(&self.client_id), VERSION)?;
        let began = Instant::now();
        self.writer.send(rope.into_pieces()).await?;
        let frame = self.reader.frame().await?;
        Ok((frame, began.elapsed()))
    }
}

fn partitions(told: &MetadataResponse) -> usize {
    let topics = told.topics.iter();
    topics.map(|topic| topic.partitions.len()).sum()
}
