//! What a node is told at its start. It must not know where the values come from.

use std::time::Duration;

use host::thrift;

use crate::engine::WINDOW;
use crate::quarantine::Order;

/// When a node claims the lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// At once after it has read the journal, since it is the only node. If another node takes the
    /// lead from it all the same, it claims again only after a silence.
    AtOnce,
    /// After a silence, if somebody wants a leader.
    AfterSilence,
}

/// When a leader cuts a snapshot: at the first entry after any of these. The bounds on entries and
/// bytes are lower bounds: after a large snapshot, the next comes only once the journal has grown
/// by a quarter of its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// Entries since the last one.
    pub entries: u64,
    /// Bytes of entries since the last one.
    pub bytes: u64,
    /// Time since the last one.
    pub interval: Duration,
    /// How long a new leader waits with its first snapshot, and with trimming: that snapshot is a
    /// whole one, and should come when nobody waits for the failover any more.
    pub first_after: Duration,
}

/// The settings of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node's name, 1 to 255 bytes.
    pub name: String,
    /// The journal's shard; 0.
    pub shard: u16,
    pub takeover: Takeover,
    /// How long the journal must be silent before this node takes another's lead.
    pub takeover_after: Duration,
    /// For how long of that silence somebody must have wanted a leader: one that is idle is silent too, and appends soon if
    /// somebody wants it to.
    pub wanted_for: Duration,
    /// The same silence once the process that leads is said to be gone.
    pub takeover_when_gone_after: Duration,
    /// The same silence for a node that claims at once, after another has taken its lead: long,
    /// since that node may be alive, and they must not take the lead from each other in turns.
    pub return_after: Duration,
    /// A leader in use appends at least once per interval.
    pub heartbeat_interval: Duration,
    /// A leader that was deposed before, so that another node may be waiting for its silence,
    /// appends at least once per interval even if nobody uses it; well below `return_after`.
    pub contested_heartbeat_interval: Duration,
    /// A leader that appends nothing looks at least once per interval whether another node has
    /// taken the lead.
    pub look_interval: Duration,
    /// For how long after the last proposal or barrier the journal counts as in use.
    pub in_use_for: Duration,
    /// The most bytes of commands packed into one entry; also the largest command.
    pub entry_bytes_max: usize,
    /// The most commands packed into one entry.
    pub entry_items_max: usize,
    /// The most commands that wait for their entry.
    pub queue_items_max: usize,
    /// The most bytes of commands that wait for their entry.
    pub queue_bytes_max: usize,
    /// The largest slot of the engine, in bytes.
    pub slot_bytes_max: usize,
    /// The engine's takes shut others out of the slots that they may have entries on their way to.
    pub takes_seal: bool,
    /// The most entries in flight at one time, at most [`WINDOW`]. More than one help where
    /// an append takes long; each that is in flight when the lead is lost may leave a void entry.
    pub appends_in_flight_max: usize,
    /// The pause between the starts of two appends while one is in flight, so that commands share
    /// entries.
    pub append_spacing: Duration,
    /// How many entries may be appended in a second, and how long commands wait for that at most.
    pub append_thrift: thrift::Limits,
    /// How long a command waits before it is given up.
    pub proposal_deadline: Duration,
    /// The pause between looks for new entries right after one came.
    pub poll_min: Duration,
    /// The same after a long silence.
    pub poll_max: Duration,
    /// The first pause after a failed request.
    pub retry_min: Duration,
    pub retry_max: Duration,
    /// The most slots read at a time.
    pub scan_limit: usize,
    /// When to cut snapshots.
    pub snapshot: SnapshotPolicy,
    /// The operator's word: this entry is left out if it cannot be applied here.
    pub quarantine: Option<Order>,
}

impl Settings {
    /// The only node of a cluster.
    pub fn alone(name: impl Into<String>) -> Self {
        Settings {
            name: name.into(),
            shard: 0,
            takeover: Takeover::AtOnce,
            takeover_after: Duration::from_millis(1_500),
            wanted_for: Duration::from_millis(700),
            takeover_when_gone_after: Duration::from_millis(100),
            return_after: Duration::from_secs(10),
            heartbeat_interval: Duration::from_millis(500),
            contested_heartbeat_interval: Duration::from_millis(2_500),
            look_interval: Duration::from_secs(2),
            in_use_for: Duration::from_secs(5),
            entry_bytes_max: 4 << 20,
            entry_items_max: 4_096,
            queue_items_max: 16_384,
            queue_bytes_max: 64 << 20,
            slot_bytes_max: 8 << 20,
            takes_seal: false,
            appends_in_flight_max: WINDOW as usize,
            append_spacing: Duration::from_millis(10),
            append_thrift: thrift::Limits {
                per_second: 0,
                per_mib: 0,
                wait_max: Duration::from_millis(250),
            },
            proposal_deadline: Duration::from_secs(20),
            poll_min: Duration::from_millis(20),
            poll_max: Duration::from_secs(1),
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_secs(2),
            scan_limit: 1_000,
            snapshot: SnapshotPolicy {
                entries: 10_000,
                bytes: 8 << 20,
                interval: Duration::from_secs(600),
                first_after: Duration::from_secs(30),
            },
            quarantine: None,
        }
    }

    /// One node of several.
    pub fn one_of_several(name: impl Into<String>) -> Self {
        Settings {
            takeover: Takeover::AfterSilence,
            takeover_after: Duration::from_millis(1_350),
            ..Settings::alone(name)
        }
    }
}
