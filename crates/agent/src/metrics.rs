//! The agent's metrics, as plain atomics, and their text for Prometheus. They must not know who
//! asks or where they are served.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use wire::errors::ErrorCode;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn add(&self, count: i64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0
            .store(i64::try_from(value).unwrap_or(i64::MAX), Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// A histogram; its bounds are powers of two from `first` on.
#[derive(Debug)]
pub struct Histogram {
    first: u64,
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

const BUCKETS: usize = 20;

impl Histogram {
    fn from(first: u64) -> Self {
        Histogram {
            first,
            buckets: Default::default(),
            sum: AtomicU64::new(0),
        }
    }

    pub fn observe(&self, value: u64) {
        let steps = value
            .div_ceil(self.first)
            .max(1)
            .next_power_of_two()
            .trailing_zeros() as usize;
        self.buckets[steps.min(BUCKETS - 1)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    pub fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }
}

/// Requests answered with an error, by code.
#[derive(Debug)]
pub struct Errors(Vec<(ErrorCode, Counter)>);

impl Errors {
    fn none() -> Self {
        let errors = ErrorCode::ALL.iter().filter(|code| code.is_error());
        Errors(errors.map(|code| (*code, Counter::default())).collect())
    }

    /// Counts an error; a code that means no error is not counted.
    pub fn count(&self, code: ErrorCode) {
        if !code.is_error() {
            return;
        }
        if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == code) {
            counter.increment();
        }
    }
}

/// Where records came from that a reader is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The memory of this agent: it wrote them, or had them loaded before.
    Memory,
    /// Another agent of the zone, which had them or read them from the bucket.
    Neighbour,
    Bucket,
}

impl Origin {
    pub const ALL: [Origin; 3] = [Origin::Memory, Origin::Neighbour, Origin::Bucket];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Memory => "memory",
            Origin::Neighbour => "neighbour",
            Origin::Bucket => "bucket",
        }
    }
}

/// Bytes by where they came from.
#[derive(Debug, Default)]
pub struct Origins {
    memory: Counter,
    neighbour: Counter,
    bucket: Counter,
}

impl Origins {
    pub fn of(&self, origin: Origin) -> &Counter {
        match origin {
            Origin::Memory => &self.memory,
            Origin::Neighbour => &self.neighbour,
            Origin::Bucket => &self.bucket,
        }
    }

    fn sum(&self) -> u64 {
        Origin::ALL.map(|origin| self.of(origin).get()).iter().sum()
    }
}

/// Bytes of record batches sent to readers: each is counted once, by where it came from and whom it was for.
#[derive(Debug, Default)]
pub struct Sent {
    /// For clients of the agent's own zone, and those that say of no zone.
    pub own_zone: Origins,
    /// For clients that say that they are in another zone.
    pub other_zone: Origins,
}

impl Sent {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.own_zone.sum() + self.other_zone.sum()
    }

    /// Those for clients of other zones.
    pub fn to_other_zones(&self) -> u64 {
        self.other_zone.sum()
    }

    /// Those that came from one origin.
    pub fn from(&self, origin: Origin) -> u64 {
        self.own_zone.of(origin).get() + self.other_zone.of(origin).get()
    }
}

/// Bytes of parts of files that were loaded, for readers here, ahead of them, or for neighbours.
#[derive(Debug, Default)]
pub struct Loads {
    pub neighbour: Counter,
    pub bucket: Counter,
}

macro_rules! metrics {
    ($($name:ident: $kind:ident $(($first:expr))? = $text:literal, $help:literal;)*) => {
        #[derive(Debug)]
        pub struct Metrics {
            $(#[doc = $help] pub $name: $kind,)*
            /// Partitions of produce requests answered with an error, by code.
            pub produce_errors: Errors,
            /// Partitions of fetch requests answered with an error, by code.
            pub fetch_errors: Errors,
            /// Bytes of record batches sent to readers.
            pub fetch_bytes: Sent,
            /// Bytes of parts of files that were loaded.
            pub loaded_bytes: Loads,
        }

        impl Metrics {
            pub fn zero() -> Self {
                Metrics {
                    $($name: metrics!(@new $kind $(($first))?),)*
                    produce_errors: Errors::none(),
                    fetch_errors: Errors::none(),
                    fetch_bytes: Sent::default(),
                    loaded_bytes: Loads::default(),
                }
            }

            /// All metrics in Prometheus' text format.
            pub fn render(&self) -> String {
                let mut out = String::new();
                $(self.$name.write(&mut out, concat!("seaway_agent_", $text), $help);)*
                self.produce_errors.write(
                    &mut out,
                    "seaway_agent_produce_errors_total",
                    "Partitions of produce requests answered with an error.",
                );
                self.fetch_errors.write(
                    &mut out,
                    "seaway_agent_fetch_errors_total",
                    "Partitions of fetch requests answered with an error.",
                );
                self.fetch_bytes.write(
                    &mut out,
                    "seaway_agent_fetch_bytes_total",
                    "Bytes of record batches sent, each counted once: by where they came from, and by whether the client says that it is in another zone.",
                );
                self.loaded_bytes.write(
                    &mut out,
                    "seaway_agent_loaded_bytes_total",
                    "Bytes of parts of files loaded, for readers, ahead of them or for other agents of the zone.",
                );
                out
            }
        }
    };
    (@new Histogram ($first:expr)) => { Histogram::from($first) };
    (@new $kind:ident) => { $kind::default() };
}

metrics! {
    connections: Gauge = "connections", "Open connections.";
    connections_refused: Counter = "connections_refused_total", "Connections closed as they came, because there were too many.";
    requests: Counter = "requests_total", "Requests of all kinds.";
    requests_malformed: Counter = "requests_malformed_total", "Requests that were none, were too large, or could not be answered; their connections were closed.";
    requests_stale: Counter = "requests_stale_total", "Requests that would have changed something and that their clients may have given up, since this agent stood still; their connections were closed.";
    requests_slow: Counter = "requests_slow_total", "Frames that came to a halt, or too slowly while others waited for memory; their connections were closed.";
    produce_requests: Counter = "produce_requests_total", "Produce requests.";
    produce_bytes: Counter = "produce_bytes_total", "Bytes of record batches that passed all checks.";
    produce_batches: Counter = "produce_batches_total", "Record batches that passed all checks.";
    produce_ack_micros: Histogram(128) = "produce_ack_microseconds", "Time from a produce request's arrival to its outcome, in microseconds.";
    produce_buffer_free_bytes: Gauge = "produce_buffer_free_bytes", "Bytes left of produce.buffer.bytes.";
    files_cut: Counter = "files_cut_total", "Files cut.";
    file_bytes: Histogram(1024) = "file_bytes", "Sizes of the files written, in bytes.";
    uploads: Gauge = "uploads", "Files on their way to the bucket.";
    file_partitions: Histogram(1) = "file_partitions", "Partitions of which each file written has records.";
    upload_micros: Histogram(128) = "upload_microseconds", "Time that a file took to become durable, in microseconds.";
    copies_late: Counter = "copies_late_total", "Copies of files that were made after enough others for the commit.";
    copies_given_up: Counter = "copies_given_up_total", "Copies of files beyond those that the commit needed which were not made.";
    copies_told: Counter = "copies_told_total", "Copies that the metadata were told of after the commit.";
    copies_told_missing: Counter = "copies_told_missing_total", "Copies that the metadata were told are gone.";
    copies_told_damaged: Counter = "copies_told_damaged_total", "Copies that the metadata were told are damaged.";
    copies_mended: Counter = "copies_mended_total", "Damaged copies that were replaced.";
    buckets_suspect: Gauge = "buckets_suspect", "Buckets that may have lost what they held, and count for nothing until that is compared.";
    repaired_files: Counter = "repaired_files_total", "Files copied to a bucket that lacked them.";
    repaired_bytes: Counter = "repaired_bytes_total", "Bytes of these files.";
    repair_files_per_second: Gauge = "repair_files_per_second", "Files copied to buckets that lack them in a second, over the last seconds.";
    repair_bytes_per_second: Gauge = "repair_bytes_per_second", "Bytes of these files.";
    repair_failed: Counter = "repair_failed_total", "Copies that were not made and are tried again.";
    repair_unmendable: Counter = "repair_unmendable_total", "Attempts at copies that cannot be made: what holds the file is damaged or lacks it, or something else lies in its place.";
    uploads_failed: Counter = "uploads_failed_total", "Files given up because they did not become durable in time.";
    control_calls: Counter = "control_calls_total", "Calls to control nodes of all kinds, each once however often it was repeated.";
    commits: Counter = "commits_total", "Files committed.";
    commit_calls: Counter = "commit_calls_total", "Calls to commit or skip a file, repeats included.";
    commit_micros: Histogram(128) = "commit_microseconds", "Time that a call to commit or skip a file took, in microseconds.";
    fenced: Counter = "fenced_total", "Times that this agent lost its incarnation.";
    fetch_requests: Counter = "fetch_requests_total", "Fetch requests.";
    fetch_waits: Counter = "fetch_waits_total", "Fetch requests that had to wait for records.";
    fetch_sessions: Gauge = "fetch_sessions", "Fetch sessions kept.";
    fetch_tails: Gauge = "fetch_tails", "Partitions whose ends are known without a call to a control node.";
    cache_hits: Counter = "cache_hits_total", "Slices found in the cache.";
    cache_misses: Counter = "cache_misses_total", "Slices not found in the cache.";
    cache_loads: Counter = "cache_loads_total", "Parts of files read from the bucket.";
    cache_loads_ahead: Counter = "cache_loads_ahead_total", "Parts of files loaded before a reader asked for them.";
    cache_bytes: Gauge = "cache_bytes", "Bytes in the cache.";
    neighbour_asked: Counter = "neighbour_asked_total", "Parts of files asked of another agent of the zone.";
    neighbour_late: Counter = "neighbour_late_total", "Those for which the bucket was asked as well, because the other agent took long.";
    neighbour_failed: Counter = "neighbour_failed_total", "Those that the other agent could not be asked for, or gave otherwise than the index says.";
    neighbour_given_bytes: Counter = "neighbour_given_bytes_total", "Bytes of parts of files given to other agents of the zone.";
    corrupt_reads: Counter = "corrupt_reads_total", "Loads of parts of files that were not what the index says, once each, healed by a second look or not.";
    missing_files: Counter = "missing_files_total", "Files that are in the index but not in the bucket.";
    copies_missing: Counter = "copies_missing_total", "Files that only one of several buckets had, found there after others had said that they have none.";
    failed_reads: Counter = "failed_reads_total", "Parts of files that could not be read.";
    files_deleted: Counter = "files_deleted_total", "Files deleted by the collector.";
    orphans_deleted: Counter = "orphans_deleted_total", "Files deleted that were never committed.";
    collect_errors: Counter = "collect_errors_total", "Steps of the collector that failed and are done again later.";
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

impl Counter {
    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, help, "counter");
        let _ = writeln!(out, "{name} {}", self.get());
    }
}

impl Gauge {
    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, help, "gauge");
        let _ = writeln!(out, "{name} {}", self.get());
    }
}

impl Histogram {
    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, help, "histogram");
        let mut total = 0;
        for (step, bucket) in self.buckets.iter().enumerate() {
            total += bucket.load(Relaxed);
            if step + 1 < BUCKETS {
                let _ = writeln!(
                    out,
                    "{name}_bucket{{le=\"{}\"}} {total}",
                    self.first << step
                );
            }
        }
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {total}");
        let _ = writeln!(
            out,
            "{name}_sum {}\n{name}_count {total}",
            self.sum.load(Relaxed)
        );
    }
}

impl Errors {
    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, help, "counter");
        for (code, counter) in self.0.iter().filter(|(_, counter)| counter.get() > 0) {
            let _ = writeln!(out, "{name}{{code=\"{}\"}} {}", code.name(), counter.get());
        }
    }
}

impl Sent {
    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, help, "counter");
        for (zone, sent) in [("own", &self.own_zone), ("other", &self.other_zone)] {
            for origin in Origin::ALL {
                let (source, bytes) = (origin.name(), sent.of(origin).get());
                let _ = writeln!(out, "{name}{{source=\"{source}\",zone=\"{zone}\"}} {bytes}");
            }
        }
    }
}

impl Loads {
    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, help, "counter");
        for (origin, counter) in [
            (Origin::Neighbour, &self.neighbour),
            (Origin::Bucket, &self.bucket),
        ] {
            let _ = writeln!(
                out,
                "{name}{{source=\"{}\"}} {}",
                origin.name(),
                counter.get()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let metrics = Metrics::zero();
        metrics.produce_requests.add(3);
        metrics.loaded_bytes.bucket.add(7);
        metrics.fetch_bytes.own_zone.of(Origin::Memory).add(5);
        metrics.fetch_bytes.other_zone.of(Origin::Bucket).add(6);
        let sent = &metrics.fetch_bytes;
        assert_eq!(
            (sent.sum(), sent.to_other_zones(), sent.from(Origin::Bucket)),
            (11, 6, 6)
        );
        metrics.produce_errors.count(ErrorCode::CorruptMessage);
        for micros in [0, 128, 129, 1 << 40] {
            metrics.produce_ack_micros.observe(micros);
        }
        let text = metrics.render();
        for line in [
            "seaway_agent_produce_requests_total 3",
            "seaway_agent_loaded_bytes_total{source=\"bucket\"} 7",
            "seaway_agent_fetch_bytes_total{source=\"memory\",zone=\"own\"} 5",
            "seaway_agent_fetch_bytes_total{source=\"neighbour\",zone=\"own\"} 0",
            "seaway_agent_fetch_bytes_total{source=\"bucket\",zone=\"other\"} 6",
            "seaway_agent_produce_errors_total{code=\"CORRUPT_MESSAGE\"} 1",
            "seaway_agent_produce_ack_microseconds_bucket{le=\"128\"} 2",
            "seaway_agent_produce_ack_microseconds_bucket{le=\"256\"} 3",
            "seaway_agent_produce_ack_microseconds_bucket{le=\"+Inf\"} 4",
            "seaway_agent_produce_ack_microseconds_count 4",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in {text}"
            );
        }
    }
}
