//! The end of the process, as tests of crashes want it. It must not know why.

use rustix::process::{Signal, getpid, kill_process};

/// Ends the process as `kill -9` does: nothing is flushed, closed or unwound.
pub fn kill_now() -> ! {
    // It cannot fail for a process of our own; if it did, an abort is the next best.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}
