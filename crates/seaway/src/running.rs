//! A process that runs until somebody stops it, or until it cannot go on. It must not know what it does.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::address::Address;
use crate::health::Health;

/// How long the parts may take to end after the signal to stop; the agent gives up a little sooner.
const STOP_LIMIT: Duration = Duration::from_millis(3_300);
/// How long calls to the file system may take after that.
pub const CALLS_LIMIT: Duration = Duration::from_millis(300);
/// When the process ends whatever still runs. Five seconds are promised, and on a busy machine the
/// runtime that measures the other limits may itself be late.
const EXIT_LIMIT: Duration = Duration::from_secs(4);

/// Why a process cannot go on.
pub enum Broken {
    /// The journal stopped; what is in flight may still be answered.
    Journal(anyhow::Error),
    /// The bucket is not the cluster's any more: nothing may be written to it.
    Bucket(anyhow::Error),
}

/// The parts of a process.
pub trait Running {
    /// Waits until they cannot go on; yields the reason.
    async fn broken(&self) -> Broken;

    /// Leaves what it does to other processes, if there are any; it goes on doing it meanwhile. It has a time limit of its own.
    async fn drain(&self) {}

    async fn stop(self);
}

/// Waits for the end, by an operator's signal or because it is broken; lets the parts leave what they do to others, and ends them;
/// `ending` comes between. A second signal ends the process at once.
pub async fn run(
    running: impl Running,
    stop: &mut Signals,
    health: &Health,
    ending: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut broken = tokio::select! {
        () = stop.wait() => None,
        why = running.broken() => Some(why),
    };
    if broken.is_none() {
        health.draining();
        broken = tokio::select! {
            () = running.drain() => None,
            why = running.broken() => Some(why),
            () = stop.wait() => {
                ending()?;
                return at_once();
            }
        };
    }
    if broken.is_none() {
        host::process::exit_after(EXIT_LIMIT, || {
            tracing::warn!("the process does not end in time; it is cut off");
        })?;
    }
    ending()?;
    health.stopping();
    let ended = match broken {
        // Records in flight must not end up in somebody else's bucket.
        Some(Broken::Bucket(why)) => return Err(why),
        Some(Broken::Journal(why)) => Err(why),
        None => Ok(()),
    };
    let stopped = tokio::select! {
        stopped = host::clock::timeout(STOP_LIMIT, running.stop()) => stopped,
        () = stop.wait() => return at_once(),
    };
    if stopped.is_err() {
        tracing::warn!("work in flight did not end in time; it is cut off");
    }
    tracing::info!("stopped");
    ended
}

/// Says that the process ends with work in flight.
fn at_once() -> Result<()> {
    tracing::warn!("a second signal: the process ends at once, and what is in flight is cut off");
    Ok(())
}

/// Listens at the address of a flag.
pub async fn listen(address: &Address, flag: &str) -> Result<host::net::TcpListener> {
    let resolved = address.resolve().await;
    let resolved = resolved.with_context(|| format!("{address} has no address ({flag})"))?;
    // A name with several addresses is listened on at the first, as Kafka does.
    match host::net::listen(resolved[0]).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
            "{address} is in use; stop what listens there, or choose another address with {flag}"
        ),
        Err(error) => Err(error).with_context(|| format!("cannot listen on {address} ({flag})")),
    }
}

/// The signals that ask for the end.
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    pub fn new() -> Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_listened_on() {
        let address: Address = "localhost:0".parse().expect("an address");
        let listener = listen(&address, "--kafka").await.expect("a free port");
        assert!(
            listener
                .local_addr()
                .expect("its address")
                .ip()
                .is_loopback()
        );
        let nobody: Address = "no.such.host.invalid:0".parse().expect("an address");
        let error = listen(&nobody, "--kafka").await.expect_err("no such host");
        assert!(format!("{error:#}").contains("--kafka"), "{error:#}");
    }
}
