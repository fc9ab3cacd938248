//! The names of things, as types that cannot be mixed up. Plain data: it must not know where the
//! numbers come from.

use std::fmt;

/// One partition of one topic, for ever: numbered across the cluster from 1 and never reused, so
/// that what was written for a deleted topic cannot appear under a new one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionId(pub u64);

/// Kafka's topic id: a UUID that changes when a topic is deleted and created again (KIP-516).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub u128);

/// One run of one agent: numbered from 1 by the state machine, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u64);

/// An agent's Kafka node id: it belongs to the agent's name, whatever its incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AgentId(pub i32);

/// Kafka's producer id (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub i64);

/// A write file: the incarnation that cut it, and its number in that incarnation, from 0 without
/// gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileId {
    /// Who cut the file.
    pub incarnation: Incarnation,
    /// The how-manieth file of that incarnation, from 0.
    pub number: u64,
}

/// An entry of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct EntryId {
    /// The slot, from 1.
    pub index: u64,
    /// Drawn at random for the entry.
    pub nonce: u128,
}

/// The time an entry of the journal carries. Neither part ever decreases along the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp {
    /// Wall time of the leader, in milliseconds since 1970: what retention and timestamps mean.
    pub wall_millis: u64,
    /// Milliseconds that leaders led, by boot clock: what grace periods and expiries count, since
    /// it cannot jump.
    pub ticks_millis: u64,
}

impl fmt::Debug for TopicId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TopicId({:032x})", self.0)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.incarnation.0, self.number)
    }
}
