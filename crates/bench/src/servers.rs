//! The servers that are compared: Seaway on the in-memory S3 server, and Apache Kafka. How to start
//! each, and which processes count as its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{Server, Usage, usage};

/// How long a server may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Programs {
    /// The `seaway` binary.
    pub seaway: PathBuf,
    /// The `s3-server` binary.
    pub s3_server: PathBuf,
    /// The script that starts and stops Apache Kafka, if it is measured.
    pub kafka: Option<PathBuf>,
    /// A directory for data and logs, emptied by the caller that made it.
    pub scratch: PathBuf,
}

/// A server under load.
pub enum Peer {
    /// Seaway, and the S3 server under it.
    Seaway {
        seaway: Server,
        /// The S3 server; its CPU time is counted apart.
        s3: Server,
        address: SocketAddr,
        bucket: SocketAddr,
        http: SocketAddr,
        name: String,
        options: SeawayOptions,
    },
    Kafka {
        process: u32,
        address: SocketAddr,
        script: PathBuf,
        directory: PathBuf,
    },
}

#[derive(Clone, Debug, Default)]
pub struct SeawayOptions {
    /// Delay of every PUT, in milliseconds.
    pub put_delay_millis: u64,
    /// `NAME=VALUE` settings in addition to those of every run.
    pub settings: Vec<String>,
    /// True for a server whose other settings have their defaults.
    pub has_defaults: bool,
}

/// Starts Seaway as a new user would: with default settings and a directory as bucket.
pub fn untouched_seaway(programs: &Programs, name: &str) -> Result<Server> {
    let directory = programs.scratch.join(name);
    let mut command = Command::new(&programs.seaway);
    command.arg("dev").arg("--data-dir").arg(&directory);
    for (flag, address) in ["--kafka", "--http"]
        .into_iter()
        .zip(free_addresses::<2>()?)
    {
        command.arg(flag).arg(address.to_string());
    }
    let log = programs.scratch.join(format!("{name}.log"));
    let mut seaway = Server::start("seaway", &mut command, &log)?;
    let endpoints = directory.join("endpoints.json");
    seaway.wait_until(START_LIMIT, || endpoints.exists())?;
    Ok(seaway)
}

/// Ports that were free a moment ago, each another.
pub fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let mut listeners = Vec::new();
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for address in &mut addresses {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        // Kept until all are found.
        listeners.push(listener);
    }
    Ok(addresses)
}

/// A load of a GiB/s must not fill the S3 server's memory, so little is kept and it is deleted
/// soon.
const SEAWAY_SETTINGS: &[&str] = &[
    "log.retention.bytes=268435456",
    "log.retention.check.interval.ms=500",
    "file.delete.grace.ms=1000",
    "collect.interval.ms=500",
    "message.max.bytes=2097152",
    "log.level=warn",
];

const KAFKA_SETTINGS: &[&str] = &[
    "log.retention.bytes=268435456",
    "log.segment.bytes=33554432",
    "log.retention.check.interval.ms=2000",
    "log.segment.delete.delay.ms=1000",
    "message.max.bytes=2097152",
    "replica.fetch.max.bytes=2097152",
];

impl Peer {
    /// Starts Seaway on a bucket of its own.
    pub fn seaway(programs: &Programs, name: &str, options: &SeawayOptions) -> Result<Self> {
        let [bucket, kafka, http] = free_addresses()?;
        let log = |part: &str| programs.scratch.join(format!("{name}-{part}.log"));
        let mut command = Command::new(&programs.s3_server);
        command.arg("--listen").arg(bucket.to_string());
        command
            .arg("--put-delay-ms")
            .arg(options.put_delay_millis.to_string());
        let mut s3 = Server::start("s3-server", &mut command, &log("s3"))?;
        s3.wait_until(START_LIMIT, || answers(bucket))?;
        let seaway = start_seaway(programs, name, options, [bucket, kafka, http])?;
        Ok(Peer::Seaway {
            seaway,
            s3,
            address: kafka,
            bucket,
            http,
            name: name.to_owned(),
            options: options.clone(),
        })
    }

    /// Kills Seaway and starts it again on the same bucket; returns before it is ready.
    pub fn restart_seaway(&mut self, programs: &Programs) -> Result<()> {
        let Peer::Seaway {
            seaway,
            address,
            bucket,
            http,
            name,
            options,
            ..
        } = self
        else {
            bail!("only Seaway is restarted");
        };
        seaway.kill()?;
        *seaway = start_seaway(programs, name, options, [*bucket, *address, *http])?;
        Ok(())
    }

    /// The address of the S3 server under Seaway.
    pub fn bucket(&self) -> Result<SocketAddr> {
        match self {
            Peer::Seaway { bucket, .. } => Ok(*bucket),
            Peer::Kafka { .. } => bail!("Kafka has no bucket"),
        }
    }

    /// The address of Seaway's HTTP pages.
    pub fn http(&self) -> Result<SocketAddr> {
        match self {
            Peer::Seaway { http, .. } => Ok(*http),
            Peer::Kafka { .. } => bail!("Kafka has no pages"),
        }
    }

    pub fn kafka(programs: &Programs, name: &str) -> Result<Self> {
        let script = programs
            .kafka
            .clone()
            .context("no script to start Kafka was given")?;
        let [address] = free_addresses()?;
        let directory = programs.scratch.join(name);
        let mut command = Command::new("python3");
        command
            .arg(&script)
            .arg("start")
            .arg("--dir")
            .arg(&directory);
        command.arg("--port").arg(address.port().to_string());
        for setting in KAFKA_SETTINGS {
            command.arg("--set").arg(setting);
        }
        let output = command
            .output()
            .context("cannot run the script that starts Kafka")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "Kafka did not start: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let process = said
            .trim()
            .parse()
            .context("the script did not print a process id")?;
        Ok(Peer::Kafka {
            process,
            address,
            script,
            directory,
        })
    }

    pub fn address(&self) -> SocketAddr {
        match self {
            Peer::Seaway { address, .. } | Peer::Kafka { address, .. } => *address,
        }
    }

    pub fn usage(&self) -> Result<Usage> {
        match self {
            Peer::Seaway { seaway, .. } => seaway.usage(),
            Peer::Kafka { process, .. } => usage(*process),
        }
    }

    /// The resources that the bucket's process has used, if it has one.
    pub fn bucket_usage(&self) -> Result<Usage> {
        match self {
            Peer::Seaway { s3, .. } => s3.usage(),
            Peer::Kafka { .. } => Ok(Usage::default()),
        }
    }

    /// Ends the server and removes its data.
    pub fn stop(self) -> Result<()> {
        match self {
            Peer::Seaway { seaway, s3, .. } => {
                seaway.stop()?;
                s3.stop()
            }
            Peer::Kafka {
                script, directory, ..
            } => {
                stop_kafka(&script, &directory)?;
                std::fs::remove_dir_all(&directory).context("cannot remove Kafka's data")
            }
        }
    }
}

fn start_seaway(
    programs: &Programs,
    name: &str,
    options: &SeawayOptions,
    [bucket, kafka, http]: [SocketAddr; 3],
) -> Result<Server> {
    let directory = programs.scratch.join(name);
    let endpoints = directory.join("endpoints.json");
    // A killed process leaves this file behind.
    drop(std::fs::remove_file(&endpoints));
    let mut command = Command::new(&programs.seaway);
    command.arg("dev").arg("--data-dir").arg(&directory);
    command.arg("--kafka").arg(kafka.to_string());
    command.arg("--http").arg(http.to_string());
    command.arg("--bucket").arg(format!(
        "s3://bench/{name}?endpoint=http://{bucket}&region=local&allow_http=true"
    ));
    let own = options.settings.iter().map(|setting| &**setting);
    let of_every_run = match options.has_defaults {
        true => &[],
        false => SEAWAY_SETTINGS,
    };
    for setting in of_every_run.iter().copied().chain(own) {
        command.arg("--set").arg(setting);
    }
    command
        .env("AWS_ACCESS_KEY_ID", "bench")
        .env("AWS_SECRET_ACCESS_KEY", "bench-secret");
    let log = programs.scratch.join(format!("{name}-seaway.log"));
    let mut seaway = Server::start("seaway", &mut command, &log)?;
    seaway.wait_until(START_LIMIT, || endpoints.exists())?;
    Ok(seaway)
}

fn stop_kafka(script: &Path, directory: &Path) -> Result<()> {
    let mut command = Command::new("python3");
    command.arg(script).arg("stop").arg("--dir").arg(directory);
    ensure!(command.status()?.success(), "Kafka did not stop");
    Ok(())
}

fn answers(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}
