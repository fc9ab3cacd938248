//! An S3 server in memory, for tests and benchmarks: plain HTTP on loopback, honest
//! create-if-absent, and faults on request that no real store will produce when asked. It stores
//! bodies in the pieces in which they arrive, so that a benchmark measures its client. Signatures
//! are not checked. It must not know who its clients are.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::task::Task;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

mod answer;
mod body;
mod control;
mod dates;
mod faults;
mod list;
mod message;
mod multipart;
mod objects;
mod stats;

pub use faults::{Effect, Kind, Rule};
pub use stats::Stats;

use faults::Faults;
use objects::Objects;
use stats::Counters;

#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The buckets that exist; any bucket exists if there are none here.
    pub buckets: Vec<String>,
    /// The faults from the start.
    pub rules: Vec<Rule>,
    /// The most bytes that it holds, all objects together: a PUT beyond them gets 507. `None` means
    /// no bound.
    pub max_bytes: Option<u64>,
    /// Compares `x-amz-checksum-crc32c`, or `-crc64nvme`, with the body, which costs a pass over
    /// all bytes.
    pub verify_checksums: bool,
    /// The seed from which chances and delays are drawn.
    pub seed: u64,
}

#[derive(Debug)]
struct Shared {
    buckets: Vec<String>,
    verify_checksums: bool,
    objects: Mutex<Objects>,
    faults: Mutex<Faults>,
    counters: Counters,
}

impl Shared {
    // Nothing panics under these locks, so poisoned data are still whole.

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bucket_exists(&self, bucket: &str) -> bool {
        self.buckets.is_empty() || self.buckets.iter().any(|known| known == bucket)
    }
}

/// A server that runs until this value is dropped, and the way to steer it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: Task<()>,
}

impl Server {
    /// Starts a server on `address`; port 0 takes a free one.
    pub async fn start(address: SocketAddr, config: Config) -> io::Result<Server> {
        let listener = host::net::listen(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            buckets: config.buckets,
            verify_checksums: config.verify_checksums,
            objects: Mutex::new(Objects::new(config.max_bytes)),
            faults: Mutex::new(Faults::new(config.rules, config.seed)),
            counters: Counters::default(),
        });
        let accepting = host::task::spawn("s3 accept", accept(listener, Arc::clone(&shared)));
        Ok(Server {
            address,
            shared,
            _accepting: accepting,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a bucket, as the store crate's `open` takes it.
    pub fn bucket_url(&self, bucket: &str) -> String {
        format!(
            "s3://{bucket}?endpoint=http://{}&region=us-east-1&allow_http=true&skip_signature=true",
            self.address
        )
    }

    pub fn add(&self, rule: Rule) {
        self.shared.faults().add(rule);
    }

    pub fn heal(&self) {
        self.shared.faults().replace(Vec::new());
    }

    pub fn stats(&self) -> Stats {
        Stats::gather(&self.shared)
    }

    /// Removes every object of a bucket behind its clients' backs.
    pub fn wipe(&self, bucket: &str) {
        self.shared.objects().wipe(bucket);
    }

    /// Waits for the server's end, which never comes by itself.
    pub async fn run(self) {
        self._accepting.join().await;
    }
}

async fn accept(listener: host::net::TcpListener, shared: Arc<Shared>) {
    // The tasks of connections are owned here, and dropped with this future.
    let mut connections: Vec<Task<()>> = Vec::new();
    loop {
        let Ok((stream, _)) = host::net::accept(&listener).await else {
            // There are no file descriptors left, or the peer is gone already.
            host::clock::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        connections.retain(|connection| !connection.is_finished());
        let shared = Arc::clone(&shared);
        connections.push(host::task::spawn("s3 connection", async move {
            let service = service_fn(|request| answer::answer(Arc::clone(&shared), request));
            // The client went away, or a fault rule wanted a reset.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }));
    }
}
