//! What processes of the simulated world say to each other: clients to agents, agents to control nodes, and back.
//!
//! Must not decide anything.

use std::fmt;

use bytes::Bytes;
use meta::commit::BatchOutcome;
use meta::ids::{PartitionId, ProducerId};
use meta::places::Bounds;
use rpc::group::{GroupReply, GroupRequest};
use rpc::{Answer, Call};

/// Numbers requests of all kinds, once in a run.
pub(super) type Number = u64;

/// Bytes that a trace shows by length only.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Blob(pub(super) Bytes);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0.len())
    }
}

/// What a client asks an agent.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Produce {
        lane: u64,
        partition: PartitionId,
        batch: Blob,
    },
    InitProducer,
    /// Records from these offsets on.
    Fetch(Vec<(PartitionId, i64)>),
    /// Log start and end.
    ListOffsets(Vec<PartitionId>),
    /// Whatever a group's members ask.
    Group(GroupRequest),
}

/// What came of a batch, as the Kafka error would tell the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Produced {
    /// In the log from this offset on.
    At(i64),
    /// In the log, the offset is forgotten.
    Somewhere,
    /// Sequences before it are missing.
    OutOfOrder,
    /// The producer has a newer epoch.
    Fenced,
    /// Certainly not written; worth repeating.
    NotWritten,
    /// Perhaps written; worth repeating.
    Unknown,
}

/// What came of reading one partition.
#[derive(Clone, Debug)]
pub(super) enum Read {
    /// Batches with their base offsets, none at the end.
    Batches(Vec<(i64, Blob)>),
    /// The offset lies outside.
    OutOfRange,
    Failed,
}

/// What an agent answers a client.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// To [`Ask::Produce`].
    Produced(Produced),
    /// To [`Ask::InitProducer`]; `None`: ask again.
    Producer(Option<(ProducerId, i16)>),
    /// To [`Ask::Fetch`], in its order.
    Fetched(Vec<(PartitionId, Read)>),
    /// To [`Ask::ListOffsets`]; `None`: ask again.
    Offsets(Option<Vec<Option<Bounds>>>),
    /// To [`Ask::Group`]; `None`: ask again.
    Group(Option<GroupReply>),
}

/// A message on the network.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Ask(Number, Ask),
    Told(Number, Told),
    Call(Number, Call),
    Return(Number, Result<Answer, rpc::Error>),
}

/// What a Kafka client is told about a batch whose file is committed.
pub(super) fn produced(outcome: BatchOutcome) -> Produced {
    match outcome {
        BatchOutcome::Accepted { base_offset, .. }
        | BatchOutcome::Duplicate { base_offset, .. } => Produced::At(base_offset),
        BatchOutcome::DuplicateSequence => Produced::Somewhere,
        BatchOutcome::OutOfOrder => Produced::OutOfOrder,
        BatchOutcome::InvalidProducerEpoch => Produced::Fenced,
        BatchOutcome::UnknownPartition
        | BatchOutcome::OffsetsExhausted
        | BatchOutcome::TooManyProducers => Produced::NotWritten,
    }
}
