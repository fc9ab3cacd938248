//! Client histories as values: what clients asked and what they were told.
//!
//! The format is `docs/formats/history.md`; [`read`] and [`write`] are its two directions. This file must not know how a
//! history is judged.

pub mod read;
pub mod write;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The first line of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Format version, 1.
    pub history: u32,
    /// Which clients took part; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<String>,
    /// The run promised to inject faults.
    #[serde(default)]
    pub faults: bool,
    /// How long after healing a consumer may still lag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_bound_us: Option<u64>,
    /// How long after healing a transaction may stay open; absent: not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn_timeout_us: Option<u64>,
    /// Input keys of a consume-transform-produce run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copy_inputs: Vec<String>,
}

/// What a line says about its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Invoke,
    Ok,
    Fail,
    /// Unknown, or an event.
    Info,
}

/// A value that the workload sent: unique per key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Value {
    Int(i64),
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(number) => write!(f, "{number}"),
            Value::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// One send inside an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// `topic/partition`.
    pub key: String,
    pub value: Value,
    /// Where the server says it lies.
    pub offset: Option<u64>,
    /// Hash of the payload.
    pub hash: Option<String>,
    /// The input (key, value) that this record was made from.
    pub copy_of: Option<(String, Value)>,
}

/// One record that a poll returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: u64,
    pub value: Value,
    /// What the batch header and the payload say, where the client shows it.
    pub detail: Detail,
}

/// What some clients show of a record beside offset and value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Detail {
    /// Hash of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Sequence of the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
}

/// A micro-operation of `send`, `poll` or `txn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Micro {
    Send(Send),
    /// One poll: per key the records in the order received; nothing on the invoke.
    Poll(BTreeMap<String, Vec<Record>>),
}

/// Which operation carries micro-operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Send,
    Poll,
    /// Both, in a transaction.
    Txn,
}

/// What is known of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<Producer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<Consumer>,
}

/// What is known of a producer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Producer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Whether it numbers its batches; absent means yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transactional: Option<String>,
}

/// What is known of a consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
}

/// Isolation of a consumer; where nothing is said, [`Isolation::ReadCommitted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Sees open and aborted transactions.
    ReadUncommitted,
    /// Sees committed ones only.
    ReadCommitted,
}

/// What is assigned from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Assign {
    pub keys: Vec<String>,
    /// Those whose position goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
    /// Where the others start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<From>,
}

/// Where newly assigned keys start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// At their log start.
    Beginning,
}

/// Offsets of a group; `None` where none is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GroupOffsets {
    pub group: String,
    /// Offset per key.
    pub offsets: BTreeMap<String, Option<u64>>,
}

/// The bounds of a key as ListOffsets told them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Log start offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_start: Option<u64>,
    /// Last stable offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lso: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hw: Option<u64>,
}

/// What a line does: the operation and its arguments or its result, as [`Line::kind`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// The client is known by this.
    Open(Client),
    /// Sends, polls or a transaction; empty where a completion repeats nothing.
    Micro(Shape, Vec<Micro>),
    /// Assignment; on completions nothing.
    Assign(Option<Assign>),
    /// Subscription by topics; what they are does not matter to the checker.
    Subscribe,
    /// Group offsets committed; on completions nothing.
    Commit(Option<GroupOffsets>),
    /// Group offsets fetched; only the acknowledged completion has them.
    Committed(Option<GroupOffsets>),
    /// Bounds listed; only the acknowledged completion has them.
    Debug(BTreeMap<String, Bounds>),
    /// A final reading of these keys begins.
    FinalBegin(Vec<String>),
    /// It ended without these keys; `None`: without any.
    FinalEnd {
        /// Keys given up; `None` means all.
        unreached: Option<Vec<String>>,
    },
    /// A fault was injected.
    Fault(String),
    /// All faults are over.
    Heal,
    /// This client was dropped.
    Crash,
}

/// One line after the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub index: u64,
    /// Microseconds of the history's clock.
    pub time_us: u64,
    pub process: String,
    /// Invoke or how it ended.
    pub kind: Kind,
    /// Joins invoke and completion; `None` on events.
    pub op: Option<u64>,
    pub act: Act,
    /// Keys revoked or assigned meanwhile.
    pub rebalanced: Vec<String>,
}
