//! What the server has done and what it costs its machine. It must not know how requests are
//! answered.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::Shared;

/// Counters since the start; `bytes` and `objects` are what is held now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// CPU time of the whole process in user mode, in seconds.
    pub cpu_user_seconds: f64,
    /// CPU time of the whole process in the kernel, in seconds.
    pub cpu_system_seconds: f64,
    /// Resident memory of the whole process, in bytes.
    pub resident_bytes: u64,
    pub objects: u64,
    pub bytes: u64,
    /// Bytes received in bodies.
    pub bytes_in: u64,
    /// Bytes sent in bodies.
    pub bytes_out: u64,
    /// Requests by kind: put, get, head, delete, list.
    pub requests: BTreeMap<String, u64>,
    /// Faults injected, by effect.
    pub injected: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    named: Mutex<Named>,
}

#[derive(Debug, Default)]
struct Named {
    requests: BTreeMap<&'static str, u64>,
    injected: BTreeMap<&'static str, u64>,
}

impl Counters {
    pub(super) fn request(&self, name: &'static str, injected: Option<&'static str>) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        *named.requests.entry(name).or_default() += 1;
        if let Some(effect) = injected {
            *named.injected.entry(effect).or_default() += 1;
        }
    }

    pub(super) fn bytes_in(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn bytes_out(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Stats {
    pub(super) fn gather(shared: &Shared) -> Self {
        let (objects, bytes) = shared.objects().totals();
        let (cpu_user_seconds, cpu_system_seconds) = cpu_seconds().unwrap_or_default();
        let counters = &shared.counters;
        let named = counters
            .named
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let owned = |map: &BTreeMap<&'static str, u64>| {
            map.iter()
                .map(|(name, n)| ((*name).to_owned(), *n))
                .collect()
        };
        Stats {
            cpu_user_seconds,
            cpu_system_seconds,
            resident_bytes: resident_bytes().unwrap_or_default(),
            objects,
            bytes,
            bytes_in: counters.bytes_in.load(Ordering::Relaxed),
            bytes_out: counters.bytes_out.load(Ordering::Relaxed),
            requests: owned(&named.requests),
            injected: owned(&named.injected),
        }
    }
}

/// User and system time from `/proc/self/stat` (proc(5)), in clock ticks of a hundredth of a second
/// on every Linux of today; `None` elsewhere.
fn cpu_seconds() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the command's name in parentheses, which may hold anything.
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / 100.0);
    Some((seconds()?, seconds()?))
}

/// Reads resident memory from `/proc/self/status`; `None` where there is none.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
