//! The end of the process, as tests of crashes want it, and the name of its machine. It must not know
//! why.

use rustix::process::{Signal, getpid, kill_process};

/// Ends the process as `kill -9` does: nothing is flushed, closed or unwound.
pub fn kill_now() -> ! {
    // It cannot fail for a process of our own; if it did, an abort is the next best.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

/// What the machine calls itself, for people.
pub fn machine_name() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = told.ok().or_else(|| std::env::var("HOSTNAME").ok());
    let name = name.map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "a machine without a name".to_owned())
}
