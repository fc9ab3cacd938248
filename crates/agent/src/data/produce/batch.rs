//! What the produce pipeline is given: checked record batches, and the requests they came in. It
//! must not know Kafka's frames: only what placing and committing a batch takes.

use bytes::Bytes;
use host::clock::Instant;
use meta::ids::PartitionId;

/// A connection, as far as order goes: batches of one lane and partition keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u64);

/// A checked record batch.
#[derive(Clone, Debug)]
pub struct Batch {
    pub partition: PartitionId,
    /// The whole batch as it came.
    pub bytes: Bytes,
    /// CRC-32C of `bytes`, if the check of the batch gave it away.
    pub checksum: Option<u32>,
    /// Records in it: its last offset delta + 1.
    pub records: u32,
    /// Largest timestamp of its records, in milliseconds since 1970.
    pub max_timestamp: i64,
    /// Nobody compared that with the records.
    pub time_claimed: bool,
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
    /// Bytes of memory that the batches keep alive: the frame they are parts of, and those that were
    /// made of it.
    pub pinned_bytes: u64,
    pub at: Instant,
    /// What keeps the memory of its batches from others: dropped when they are settled.
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
