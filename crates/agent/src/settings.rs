//! The settings of an agent. Plain data without defaults: names, limits and times come from the
//! operator, under Kafka's names where Kafka has them. It must not read any file or environment.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use meta::level::Levels;
use meta::setting::Setting;

/// The settings of one agent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The agent's own name, kept across starts; its node id follows it.
    pub name: String,
    /// The feature levels that this agent knows: all of its build's, outside tests.
    pub levels: Levels,
    pub region: String,
    /// Its zone; Kafka's `broker.rack`.
    pub zone: String,
    /// `auto.create.topics.enable`
    pub auto_create_topics_enable: bool,
    /// `num.partitions`: partitions of topics that are created without saying how many.
    pub num_partitions: u32,
    /// `socket.request.max.bytes`: a connection that announces a larger request is closed.
    pub socket_request_max_bytes: u32,
    /// `max.connections`, lowered so that the process has file descriptors for other things:
    /// further connections are closed as they come.
    pub max_connections: usize,
    /// `max.connections.per.ip`: the same limit for the connections from one address.
    pub max_connections_per_ip: usize,
    /// `connections.max.idle.ms`
    pub connections_max_idle: Duration,
    pub budgets: Budgets,
    /// `fetch.max.bytes`: the most that one answer to a fetch holds.
    pub fetch_max_bytes: u64,
    /// `max.incremental.fetch.session.cache.slots`: fetch sessions kept for consumers.
    pub fetch_sessions_max: usize,
    /// `flush.bytes`: a file with so many bytes is cut.
    pub flush_bytes: u64,
    /// A file with so many batches is cut, and a request with more is refused: a file's commit must
    /// fit into an entry of the journal.
    pub file_batches_max: usize,
    /// `flush.interval.ms`: the longest that a request waits for its file to be cut, if the file can
    /// be paid for.
    pub flush_interval: Duration,
    /// `flush.interval.max.ms`: the longest that it waits in any case.
    pub flush_interval_max: Duration,
    /// `flush.requests.per.second`: what files and the entries of their commits may cost; one more
    /// for each MiB; 0: no matter what.
    pub flush_requests_per_second: u64,
    /// `upload.concurrency`: files on their way to the bucket at one time.
    pub upload_concurrency: usize,
    /// `upload.timeout.ms`: a file that is not durable after this long is given up.
    pub upload_timeout: Duration,
    /// `bucket.reserve.bytes`: no records are taken while less is free on the file system of a bucket
    /// that is a directory; 0 derives it from the file system's size.
    pub bucket_reserve_bytes: u64,
    /// `collect.interval.ms`: time between two runs of the collector.
    pub collect_interval: Duration,
    /// `collect.list.interval.ms`: least time between two listings of the bucket by the collector.
    pub collect_list_interval: Duration,
    /// `repair.bytes.per.second`: the most that this agent copies to buckets that lack files.
    pub repair_bytes_per_second: u64,
    /// `repair.files.per.second`: the most files, likewise.
    pub repair_files_per_second: u64,
    /// `file.delete.grace.ms`: how long a file that was never committed must have been seen dead
    /// before it is deleted.
    pub file_delete_grace: Duration,
    /// The version of its build, which the leader is told.
    pub version: String,
    /// True if the leader is elsewhere and is to know that this agent is there.
    pub tells_presence: bool,
    /// What DescribeConfigs shows of this broker, sorted by name.
    pub broker_configs: Vec<BrokerConfig>,
    /// Where tests kill the process.
    pub fail_points: FailPoints,
}

/// A place where an agent listens for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Kafka's name for it, `INTERNAL` for instance: clients are told of the agents that have a listener of the name of
    /// that by which they came.
    pub name: String,
    /// The zone that clients who come by it are in, unless their client id names another.
    pub zone: Option<String>,
    /// Host that clients are told to connect to; `None`: the address that is listened on.
    pub advertised_host: Option<String>,
    /// Port that clients are told to connect to; `None`: the one that is listened on.
    pub advertised_port: Option<u16>,
}

/// The memory of an agent: what all its connections together may take for each purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// `produce.buffer.bytes`: produce requests in flight.
    pub produce_bytes: u64,
    /// Beginnings of requests that are still arriving.
    pub beginnings_bytes: u64,
    /// Requests without records in flight; at least two of the largest, [`OTHER_BYTES_MAX`].
    pub other_bytes: u64,
    /// What is decoded from these, beside their frames; at least two of the largest, [`DECODED_BYTES_MAX`].
    pub decoded_bytes: u64,
    /// Metadata and assignments of members that wait for other members.
    pub members_bytes: u64,
    /// Answers to produce requests, until they are sent.
    pub produce_answers_bytes: u64,
    /// Other answers without their records, until they are sent.
    pub answers_bytes: u64,
    /// Codecs at work, and what they compress anew, until it is written; at least what a first attempt takes.
    pub unpacking_bytes: u64,
    /// `fetch.cache.bytes`: parts of files kept for readers.
    pub cache_bytes: u64,
    /// `fetch.buffer.bytes`: parts of files on their way to readers beyond those kept.
    pub fetch_bytes: u64,
    /// Fetch sessions.
    pub sessions_bytes: u64,
    /// Tails of partitions: their ends, and where their last records are.
    pub tails_bytes: u64,
}

/// The largest request without records.
pub const OTHER_BYTES_MAX: usize = 8 << 20;
/// The largest decoded request: it can hold 170,000 names.
pub const DECODED_BYTES_MAX: usize = 8 << 20;

impl Budgets {
    /// Those of an agent with little to do, as tests and the simulator run it.
    pub const SMALL: Budgets = Budgets {
        produce_bytes: 64 << 20,
        beginnings_bytes: 28 << 20,
        other_bytes: 16 << 20,
        decoded_bytes: 16 << 20,
        members_bytes: 64 << 20,
        produce_answers_bytes: 16 << 20,
        answers_bytes: 32 << 20,
        unpacking_bytes: 128 << 20,
        cache_bytes: 32 << 20,
        fetch_bytes: 32 << 20,
        sessions_bytes: 64 << 20,
        tails_bytes: 4 << 20,
    };
}

/// A setting with its value in this process, as DescribeConfigs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    pub setting: &'static Setting,
    pub value: String,
    /// Whether the value is the process's own choice, made from other settings or from the machine it runs on.
    pub is_derived: bool,
}

/// A place in the path of a record where a test may stop the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailPoint {
    /// The file is durable, its commit not yet sent.
    AfterPut,
    /// The commit is known, no producer answered yet.
    AfterCommit,
}

impl FailPoint {
    /// The name by which a test asks for it.
    pub fn name(self) -> &'static str {
        match self {
            FailPoint::AfterPut => "after-put",
            FailPoint::AfterCommit => "after-commit",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [FailPoint::AfterPut, FailPoint::AfterCommit]
            .into_iter()
            .find(|point| point.name() == name)
    }
}

/// What to call at fail points; nothing in production.
#[derive(Clone, Default)]
pub struct FailPoints(Option<Arc<dyn Fn(FailPoint) + Send + Sync>>);

impl FailPoints {
    pub const NONE: FailPoints = FailPoints(None);

    /// Calls `hook` at every point.
    pub fn calling(hook: impl Fn(FailPoint) + Send + Sync + 'static) -> Self {
        FailPoints(Some(Arc::new(hook)))
    }

    pub(crate) fn reach(&self, point: FailPoint) {
        if let Some(hook) = &self.0 {
            hook(point);
        }
    }
}

impl fmt::Debug for FailPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "FailPoints(set)"
        } else {
            "FailPoints(none)"
        })
    }
}
