//! Processes under measurement: starting them, ending them by id, and the resources that the kernel
//! says they used. It must not know what they serve.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a process has used since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time, in seconds.
    pub cpu_seconds: f64,
    /// Memory resident now, in bytes.
    pub resident_bytes: u64,
    /// Most memory ever resident, in bytes.
    pub resident_max_bytes: u64,
}

/// A server under measurement; killed when dropped.
#[derive(Debug)]
pub struct Server {
    /// What it is, for messages.
    pub name: String,
    child: Child,
}

impl Server {
    /// Starts `command` with its output in `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let output = fs::File::create(log).with_context(|| format!("cannot write {log:?}"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Server {
            name: name.to_owned(),
            child,
        })
    }

    /// Waits until `ready` returns true.
    pub fn wait_until(&mut self, limit: Duration, ready: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended while it started: {status}", self.name);
            }
            if Instant::now() > deadline {
                bail!("{} was not ready within {limit:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub fn usage(&self) -> Result<Usage> {
        usage(self.child.id())
    }

    /// Kills the process and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub fn stop(mut self) -> Result<()> {
        self.kill()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already, and there is nobody to tell.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the process `id` has used so far (`proc(5)`).
pub fn usage(id: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The command's name stands in parentheses and may hold spaces, so fields are counted after it.
    let (_, fields) = stat
        .rsplit_once(')')
        .context("/proc/stat has no command name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| -> Result<f64> {
        Ok(fields
            .get(index)
            .context("/proc/stat is short")?
            .parse::<f64>()?)
    };
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let kibibytes = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    Ok(Usage {
        cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        resident_bytes: kibibytes("VmRSS:") * 1024,
        resident_max_bytes: kibibytes("VmHWM:") * 1024,
    })
}

/// `USER_HZ`: 100 on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_usage_can_be_read() {
        let usage = usage(std::process::id()).expect("we are running");
        assert!(usage.resident_bytes > 0 && usage.resident_max_bytes >= usage.resident_bytes);
    }
}
