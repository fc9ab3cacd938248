//! The in-memory S3 server as a process: reads flags, starts it, runs until it is stopped. What
//! it can do is in `bench::s3`.

use std::net::SocketAddr;

use bench::s3::{Config, Effect, Kind, Rule, Server};
use clap::Parser;

/// An S3 server in memory with faults on request, for tests and benchmarks. It checks no
/// signatures and loses everything when it ends. Steer it by JSON at /_control (GET, PUT, POST,
/// DELETE) and read its cost at /_control/stats.
#[derive(Parser)]
#[command(name = "s3-server")]
struct Flags {
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// The buckets that exist; any, if none is given.
    #[arg(long = "bucket")]
    buckets: Vec<String>,
    /// Delay of every PUT, in milliseconds.
    #[arg(long, default_value_t = 0.0)]
    put_delay_ms: f64,
    /// The 99th percentile of that delay: it is log-normal then.
    #[arg(long)]
    put_delay_p99_ms: Option<f64>,
    /// Delay of every GET, in milliseconds.
    #[arg(long, default_value_t = 0.0)]
    get_delay_ms: f64,
    /// The 99th percentile of that delay: it is log-normal then.
    #[arg(long)]
    get_delay_p99_ms: Option<f64>,
    /// Bytes it holds at most; 507 beyond them.
    #[arg(long)]
    max_bytes: Option<u64>,
    /// Compare bodies with their x-amz-checksum-crc32c or -crc64nvme.
    #[arg(long)]
    verify_checksums: bool,
    /// From which chances and delays are drawn.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads that serve; one costs least.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

impl Flags {
    fn config(&self) -> Config {
        let delays = [
            (Kind::Put, self.put_delay_ms, self.put_delay_p99_ms),
            (Kind::Get, self.get_delay_ms, self.get_delay_p99_ms),
        ];
        let slow = delays.into_iter().filter(|(_, ms, _)| *ms > 0.0);
        Config {
            buckets: self.buckets.clone(),
            rules: slow
                .map(|(kind, ms, p99_ms)| Rule::on(kind, Effect::Delay { ms, p99_ms }))
                .collect(),
            max_bytes: self.max_bytes,
            verify_checksums: self.verify_checksums,
            seed: self.seed,
        }
    }
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let mut builder = if flags.threads > 1 {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder
        .worker_threads(flags.threads.max(1))
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let server = Server::start(flags.listen, flags.config()).await?;
        println!("http://{}", server.address());
        server.run().await;
        Ok(())
    })
}
