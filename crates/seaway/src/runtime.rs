//! The async runtimes: one for a node, a small one for commands.

use std::num::NonZero;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};

/// A runtime on the calling thread, for commands that ask and print.
pub fn small() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// A runtime for a node with so many threads; 0 means half of the cores. Moving work between
/// threads costs a wake-up, and the other cores are busy with the network, compression and writes:
/// with two cores a second thread costs small requests 6 % of CPU time, and readers 19 % (`bench
/// compare`).
pub fn node(threads: usize) -> Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = if threads == 0 { cores / 2 } else { threads };
    Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .enable_all()
        .thread_name("seaway")
        .build()
        .context("cannot start the runtime")
}
