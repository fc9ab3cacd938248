//! The input of the produce pipeline: checked record batches, and the requests they came in. It
//! must not know Kafka's frames: a batch has only what placing and committing it takes.

use bytes::Bytes;
use host::clock::Instant;
use meta::commit::TimeSource;
use meta::ids::{FileId, PartitionId};

/// A connection as far as order is concerned: batches of one lane and partition keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u64);

/// A checked record batch.
#[derive(Clone, Debug)]
pub struct Batch {
    pub partition: PartitionId,
    /// The whole batch; its first bytes are rewritten when it is read.
    pub bytes: Bytes,
    /// CRC-32C of `bytes`, if the check of the batch computed it.
    pub checksum: Option<u32>,
    /// Records in it: its last offset delta + 1.
    pub records: u32,
    /// Largest timestamp of its records, in milliseconds since 1970.
    pub max_timestamp: i64,
    /// Where `max_timestamp` comes from.
    pub time_source: TimeSource,
    /// The producer's id; -1 if it is not idempotent.
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// The sequence of the first record.
    pub base_sequence: i32,
}

/// A produce request: all its batches go into one file, so that one outcome answers it.
#[derive(Debug)]
pub struct Write<T, M = ()> {
    /// What its answer is addressed to.
    pub ticket: T,
    /// The connection it came on.
    pub lane: Lane,
    /// Its batches, in the order of the request. Never empty.
    pub batches: Vec<Batch>,
    /// Memory that the batches keep alive: the frame they are parts of, and buffers made from it.
    pub pinned_bytes: u64,
    pub at: Instant,
    /// Counts the memory of its batches; dropped when they are settled.
    pub memory: M,
}

impl<T, M> Write<T, M> {
    /// Bytes of all its batches.
    pub fn batch_bytes(&self) -> u64 {
        self.batches
            .iter()
            .map(|batch| batch.bytes.len() as u64)
            .sum()
    }
}

/// A file as it is cut: what the shell uploads.
#[derive(Debug)]
pub struct Cut {
    pub file: FileId,
    /// The random part of its key: it is named from the moment it is cut.
    pub nonce: u32,
    /// Its batches, sorted by partition; those of one partition in the order they came.
    pub batches: Vec<Batch>,
    /// Bytes of memory that the batches keep alive.
    pub pinned_bytes: u64,
}

impl Cut {
    /// The number of partitions of which it has records.
    pub fn partitions(&self) -> u64 {
        let same = |one: &Batch, other: &Batch| one.partition == other.partition;
        self.batches.chunk_by(same).count() as u64
    }
}

/// A file as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its length in bytes.
    pub length: u64,
    /// CRC-32C of all its bytes.
    pub checksum: u32,
    /// The numbers of the buckets that hold it.
    pub placement: Vec<u32>,
}
