//! Readers at the end of very many partitions, with and without fetch sessions, beside producers:
//! what a fetch costs the server, how much of their rate the producers keep, and who used the
//! machine meanwhile: the load itself takes part of it, which servers of a real cluster have to themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wire::batch::batches;
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use wire::text::Str;

use crate::connection::Client;
use crate::load::{self, Load};
use crate::process::usage;
use crate::servers::{Peer, Programs, SeawayOptions};

const FETCH_VERSION: i16 = 12;
const TOPIC: &str = "wide";

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub partitions: i32,
    /// The number of readers in the last runs.
    pub readers: usize,
    /// Producer connections, each with one request in flight.
    pub producers: usize,
    pub warm_up: Duration,
    pub measured: Duration,
}

pub async fn run(programs: &Programs, effort: Effort) -> Result<()> {
    let peer = Peer::seaway(programs, "tail-readers", &SeawayOptions::default())?;
    load::create_topic(peer.address(), TOPIC, effort.partitions).await?;
    println!("{} partitions", effort.partitions);
    let alone = one(&peer, effort, 0, false).await?;
    for readers in [1, effort.readers] {
        for has_session in [false, true] {
            let run = one(&peer, effort, readers, has_session).await?;
            // The producers' own cost is estimated by their share in the run without readers.
            let produced = alone.cpu_seconds / alone.requests * run.requests;
            let millis = (run.cpu_seconds - produced) / run.fetches * 1_000.0;
            println!(
                "{readers} readers {}: {millis:.3} ms CPU per fetch; {:.0} fetches/s; producers {:.0} % of their rate ({:.0} requests/s, ack p50 {:.1} ms); {}",
                if has_session {
                    "with sessions"
                } else {
                    "without"
                },
                run.fetches / run.seconds,
                run.requests / run.seconds * alone.seconds / alone.requests * 100.0,
                run.requests / run.seconds,
                run.ack_millis,
                run.shares(),
            );
        }
    }
    println!(
        "no readers: {:.0} requests/s, ack p50 {:.1} ms; {}",
        alone.requests / alone.seconds,
        alone.ack_millis,
        alone.shares(),
    );
    peer.stop()
}

/// The results of one run.
struct Run {
    seconds: f64,
    /// CPU time of the server, of the bucket under it, and of all clients.
    cpu_seconds: f64,
    bucket_cpu_seconds: f64,
    client_cpu_seconds: f64,
    requests: f64,
    fetches: f64,
    ack_millis: f64,
}

impl Run {
    /// Who used how many cores.
    fn shares(&self) -> String {
        let cores = |cpu_seconds: f64| cpu_seconds / self.seconds;
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        format!(
            "of {all} cores the server used {:.2}, the bucket {:.2}, the clients {:.2}",
            cores(self.cpu_seconds),
            cores(self.bucket_cpu_seconds),
            cores(self.client_cpu_seconds),
        )
    }
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    fetches: AtomicU64,
}

async fn one(peer: &Peer, effort: Effort, readers: usize, has_session: bool) -> Result<Run> {
    let load = Load {
        address: peer.address(),
        topic: TOPIC.to_owned(),
        partitions: effort.partitions,
        connections: effort.producers,
        in_flight: 1,
        batch_bytes: 1 << 10,
        readers: 0,
        // A limit that limits nothing, but makes the load paced, so that batches are made as they
        // are sent.
        bytes_per_second: Some(1 << 30),
        warm_up: effort.warm_up,
        measured: effort.measured,
    };
    let shared = Arc::new(Shared::default());
    let mut following = Vec::new();
    for _ in 0..readers {
        let reader = Reader::dial(&load, has_session).await?;
        following.push(tokio::spawn(reader.follow(Arc::clone(&shared))));
    }
    let mut edges = Vec::new();
    let outcome = load::run(&load, || {
        edges.push((used(peer), shared.fetches.load(Ordering::Relaxed)));
    });
    let outcome = outcome.await?;
    shared.stopping.store(true, Ordering::Relaxed);
    for reader in following {
        reader.await??;
    }
    let [(Ok(before), first), (Ok(after), last)] = &edges[..] else {
        anyhow::bail!("the CPU time used cannot be read");
    };
    let mut acks = outcome.acks;
    Ok(Run {
        seconds: outcome.seconds,
        cpu_seconds: after[0] - before[0],
        bucket_cpu_seconds: after[1] - before[1],
        client_cpu_seconds: after[2] - before[2],
        requests: outcome.requests as f64,
        fetches: (last - first) as f64,
        ack_millis: acks.quantile_millis(0.5),
    })
}

/// CPU seconds of the server, the bucket and this process, which is all the clients.
fn used(peer: &Peer) -> Result<[f64; 3]> {
    let usages = [
        peer.usage()?,
        peer.bucket_usage()?,
        usage(std::process::id())?,
    ];
    Ok(usages.map(|usage| usage.cpu_seconds))
}

/// A reader that follows all partitions from their ends.
struct Reader {
    client: Client,
    positions: Vec<i64>,
    has_session: bool,
    session_id: i32,
    session_epoch: i32,
    /// Partitions whose new position the server was not told yet.
    moved: Vec<i32>,
}

impl Reader {
    async fn dial(load: &Load, has_session: bool) -> Result<Self> {
        let mut client = Client::dial(load.address).await?;
        let positions = load::ends(&mut client, load).await?;
        Ok(Reader {
            client,
            positions,
            has_session,
            session_id: 0,
            session_epoch: if has_session { 0 } else { -1 },
            moved: Vec::new(),
        })
    }

    async fn follow(mut self, shared: Arc<Shared>) -> Result<()> {
        while !shared.stopping.load(Ordering::Relaxed) {
            self.fetch().await?;
            shared.fetches.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn request(&mut self) -> Result<FetchRequest> {
        let all = 0..i32::try_from(self.positions.len())?;
        let named: Vec<i32> = if self.session_id == 0 {
            all.collect()
        } else {
            self.moved.drain(..).collect()
        };
        let mut partitions = Vec::with_capacity(named.len());
        for partition in named {
            partitions.push(FetchPartition {
                partition,
                fetch_offset: self.positions[usize::try_from(partition)?],
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            });
        }
        let topic = FetchTopic {
            topic: Str::from(TOPIC),
            partitions,
            ..FetchTopic::default()
        };
        let is_empty = topic.partitions.is_empty();
        Ok(FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 32 << 20,
            session_id: self.session_id,
            session_epoch: self.session_epoch,
            topics: if is_empty { Vec::new() } else { vec![topic] },
            ..FetchRequest::default()
        })
    }

    async fn fetch(&mut self) -> Result<()> {
        let request = self.request()?;
        let response = self.client.call(&request, FETCH_VERSION).await?;
        ensure!(response.error_code == 0, "error {}", response.error_code);
        self.session_id = response.session_id;
        if self.has_session {
            self.session_epoch = if response.session_id == 0 {
                0
            } else {
                request.session_epoch + 1
            };
        }
        let partitions = response.responses.into_iter();
        for partition in partitions.flat_map(|topic| topic.partitions) {
            let index = partition.partition_index;
            ensure!(
                partition.error_code == 0,
                "{index}: {}",
                partition.error_code
            );
            let rope = partition.records.context("records")?;
            if rope.is_empty() {
                continue;
            }
            for batch in batches(rope.to_bytes()) {
                self.positions[usize::try_from(index)?] = batch?.next_offset()?;
            }
            self.moved.push(index);
        }
        Ok(())
    }
}
