//! The async runtimes: one for a node, a small one for commands.

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};

/// A runtime on the calling thread, for commands that ask and print.
pub fn small() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// A runtime with a thread per core, for a node.
pub fn node() -> Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("seaway")
        .build()
        .context("cannot start the runtime")
}
