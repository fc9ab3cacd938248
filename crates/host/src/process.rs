//! The process itself: its end, as crash tests want it, its limit of open files, and the name of
//! its machine. It must not know why it ends.

use std::io;
use std::time::Duration;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getpid, getppid, getrlimit, kill_process,
    set_parent_process_death_signal, setrlimit,
};

/// Ends the process as `kill -9` does: nothing is flushed, closed or unwound.
pub fn kill_now() -> ! {
    // Killing our own process cannot fail; if it did, an abort is the next best.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

/// Ends the process after `limit` with success, unless it has ended before; calls `tell` first. It
/// needs no runtime, since it exists for runtimes that are busy or stuck.
pub fn exit_after(limit: Duration, tell: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = std::thread::Builder::new().name("exit".to_owned());
    builder.spawn(move || {
        std::thread::sleep(limit);
        tell();
        std::process::exit(0);
    })?;
    Ok(())
}

/// Sends a signal, KILL, TERM, STOP or CONT, to another process.
pub fn signal(pid: u32, name: &str) -> io::Result<()> {
    let signal = match name.trim_start_matches("SIG") {
        "KILL" => Signal::KILL,
        "TERM" => Signal::TERM,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        _ => {
            let why = format!("{name} is none of the signals KILL, TERM, STOP and CONT");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(kill_process(pid, signal)?)
}

/// Has this process end, as by SIGTERM, when the one that started it does.
pub fn end_with_parent() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have ended before.
    if getppid().is_none_or(|parent| parent == Pid::INIT) {
        return Err(io::Error::other(
            "the process that started this one has ended",
        ));
    }
    Ok(())
}

/// The limit to ask for if the process has none: the most that Linux gives by default.
const FILES_MAX: u64 = 1 << 20;

/// Raises the limit of open files as far as the process may, and yields the limit in force. Shells
/// and service managers start processes with 1,024, for the sake of programs that use `select`.
pub fn raise_file_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(FILES_MAX);
    if current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum,
        };
        // A failure leaves the old limit in force, which the caller learns.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    getrlimit(Resource::Nofile).current.unwrap_or(FILES_MAX)
}

/// The machine's host name, for people.
pub fn machine_name() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = told.ok().or_else(|| std::env::var("HOSTNAME").ok());
    let name = name.map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "a machine without a name".to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Tells [`child`] that it runs as the child process.
    const IS_CHILD: &str = "HOST_PROCESS_TEST_CHILD";

    #[test]
    fn child() {
        if std::env::var_os(IS_CHILD).is_some() {
            exit_after(Duration::from_millis(10), || println!("cut off")).expect("a thread");
            loop {
                std::thread::park();
            }
        }
    }

    #[test]
    fn a_process_that_is_stuck_ends() {
        let this = std::env::current_exe().expect("a test is a program");
        let done = Command::new(this)
            .args(["--exact", "process::tests::child", "--nocapture"])
            .env(IS_CHILD, "1")
            .stderr(Stdio::null())
            .output()
            .expect("it ran");
        assert!(done.status.success());
        let told = String::from_utf8_lossy(&done.stdout);
        assert!(told.contains("cut off"), "{told}");
    }
}
