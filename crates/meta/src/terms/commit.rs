//! A durable file and what it holds, as an agent says it, and the answer. It must not know buckets
//! or what is in a record.

use std::sync::Arc;

use super::ids::{FileId, PartitionId};

pub use super::outcome::BatchOutcome;

/// A durable write file, and what it holds, in columns.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CommitFile {
    /// The file; applies only if its number is its incarnation's next.
    pub file: FileId,
    /// The random part of its key.
    pub nonce: u32,
    /// Bytes of the whole file.
    pub length: u64,
    /// CRC-32C of the whole file.
    pub checksum: u32,
    /// Numbers of the buckets that hold it, increasing, below 64.
    pub placement: Vec<u32>,
    /// One value per slice, in file order.
    pub slices: SliceColumns,
    /// One value per batch, in file order.
    pub batches: BatchColumns,
}

/// Slices, in columns of equal length.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SliceColumns {
    /// The partitions ([`PartitionId`]).
    pub partition: Vec<u64>,
    /// First byte in the file.
    pub position: Vec<u64>,
    /// Bytes: the sum of the slice's batches.
    pub length: Vec<u32>,
    /// How many batches the slice has, at least 1; they follow one another in the batch columns.
    pub batches: Vec<u32>,
}

/// Batches, in columns of equal length.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct BatchColumns {
    /// Last offset delta + 1, from 1 to `i32::MAX`.
    pub records: Vec<u32>,
    /// Bytes of the whole batch.
    pub bytes: Vec<u32>,
    /// Largest timestamp, in milliseconds since 1970; negative if there is none.
    pub max_timestamp: Vec<i64>,
    /// Producer id; -1 if the batch is not idempotent.
    pub producer_id: Vec<i64>,
    /// Producer epoch; -1 if the batch is not idempotent.
    pub producer_epoch: Vec<i32>,
    /// Sequence of the first record; -1 if the batch is not idempotent.
    pub base_sequence: Vec<i32>,
    /// Where the largest timestamp comes from, as [`TimeSource::number`] tells it; empty if that is the records everywhere.
    pub time_source: Vec<u32>,
}

/// What a batch's header says that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Last offset delta + 1.
    pub records: u32,
    /// Bytes of the whole batch.
    pub bytes: u32,
    /// Largest timestamp, in milliseconds since 1970.
    pub max_timestamp: i64,
    /// Producer id or -1.
    pub producer_id: i64,
    /// Producer epoch or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record or -1.
    pub base_sequence: i32,
    /// Where the largest timestamp comes from.
    pub time_source: TimeSource,
}

/// Where a batch's largest timestamp comes from, which decides how far its age is told by it. In the order in which less is
/// believed of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimeSource {
    /// It is the largest of the records'.
    #[default]
    Records,
    /// The producer says so in the header, and nobody compared it with the records.
    Header,
    /// An agent's clock: the topic's timestamps are those of the append. The age counts from the commit instead, since an agent's
    /// clock may be wrong.
    Agent,
}

impl TimeSource {
    const ALL: [TimeSource; 3] = [TimeSource::Records, TimeSource::Header, TimeSource::Agent];

    /// The number that stands for it in commands and snapshots.
    pub(crate) fn number(self) -> u32 {
        self as u32
    }

    pub(crate) fn of_number(number: u64) -> Option<TimeSource> {
        let at = usize::try_from(number).ok()?;
        TimeSource::ALL.get(at).copied()
    }
}

impl CommitFile {
    /// Begins a slice; batches pushed next belong to it.
    pub fn push_slice(&mut self, partition: PartitionId, position: u64) {
        self.slices.partition.push(partition.0);
        self.slices.position.push(position);
        self.slices.length.push(0);
        self.slices.batches.push(0);
    }

    /// Adds a batch to the last slice; without one it is dropped.
    pub fn push_batch(&mut self, batch: Batch) {
        let (Some(length), Some(batches)) = (
            self.slices.length.last_mut(),
            self.slices.batches.last_mut(),
        ) else {
            return;
        };
        *length = length.saturating_add(batch.bytes);
        *batches = batches.saturating_add(1);
        let rows = self.batches.records.len();
        let source = batch.time_source.number();
        if source != 0 {
            self.batches.time_source.resize(rows, 0);
        }
        if source != 0 || !self.batches.time_source.is_empty() {
            self.batches.time_source.push(source);
        }
        self.batches.records.push(batch.records);
        self.batches.bytes.push(batch.bytes);
        self.batches.max_timestamp.push(batch.max_timestamp);
        self.batches.producer_id.push(batch.producer_id);
        self.batches
            .producer_epoch
            .push(i32::from(batch.producer_epoch));
        self.batches.base_sequence.push(batch.base_sequence);
    }

    pub(crate) fn batch(&self, at: usize) -> Option<Batch> {
        let batches = &self.batches;
        Some(Batch {
            records: *batches.records.get(at)?,
            bytes: *batches.bytes.get(at)?,
            max_timestamp: *batches.max_timestamp.get(at)?,
            producer_id: *batches.producer_id.get(at)?,
            // The shape was checked before: epochs fit.
            producer_epoch: i16::try_from(*batches.producer_epoch.get(at)?).unwrap_or(-1),
            base_sequence: *batches.base_sequence.get(at)?,
            time_source: match batches.time_source.get(at) {
                // The shape was checked before: numbers are known.
                Some(number) => TimeSource::of_number((*number).into())?,
                None => TimeSource::Records,
            },
        })
    }

    /// Whether the columns fit together and the slices into the file.
    pub(crate) fn is_well_formed(&self) -> bool {
        let (slices, batches) = (&self.slices, &self.batches);
        let count = slices.partition.len();
        let columns = [
            slices.position.len(),
            slices.length.len(),
            slices.batches.len(),
        ];
        let rows = batches.records.len();
        let batch_columns = [
            batches.bytes.len(),
            batches.max_timestamp.len(),
            batches.producer_id.len(),
            batches.producer_epoch.len(),
            batches.base_sequence.len(),
        ];
        let in_range = |records: &u32| (1..=i32::MAX.cast_unsigned()).contains(records);
        let is_source = |number: &u32| TimeSource::of_number((*number).into()).is_some();
        count > 0
            && columns.iter().all(|column| *column == count)
            && batch_columns.iter().all(|column| *column == rows)
            && (batches.time_source.is_empty() || batches.time_source.len() == rows)
            && batches.time_source.iter().all(is_source)
            && batches.records.iter().all(in_range)
            && batches
                .producer_epoch
                .iter()
                .all(|epoch| i16::try_from(*epoch).is_ok())
            && self.slices_fit(rows)
    }

    /// Whether slices lie one after another inside the file and are as long as their batches.
    fn slices_fit(&self, rows: usize) -> bool {
        let mut row = 0_usize;
        let mut end = 0_u64;
        let slices = &self.slices;
        for ((position, length), batches) in slices
            .position
            .iter()
            .zip(&slices.length)
            .zip(&slices.batches)
        {
            let Some(next_row) = usize::try_from(*batches)
                .ok()
                .and_then(|n| row.checked_add(n))
            else {
                return false;
            };
            let Some(bytes) = self.batches.bytes.get(row..next_row) else {
                return false;
            };
            let sum: u64 = bytes.iter().map(|bytes| u64::from(*bytes)).sum();
            let Some(slice_end) = position.checked_add(u64::from(*length)) else {
                return false;
            };
            let sound = !bytes.is_empty()
                && bytes.iter().all(|bytes| *bytes > 0)
                && sum == u64::from(*length)
                && *position >= end
                && slice_end <= self.length;
            if !sound {
                return false;
            }
            (row, end) = (next_row, slice_end);
        }
        row == rows
    }
}

/// The answer to `CommitFile` and `SkipFile`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileReply {
    /// The file is committed, now or before: what became of each batch, in column order.
    Committed {
        /// One per batch.
        outcomes: Arc<[BatchOutcome]>,
    },
    /// The number is skipped, now or before: nothing of it is or will be committed.
    Skipped,
    /// The number was decided before, and how is no longer known; or it was committed with other
    /// content than this.
    Decided,
    /// The number is not the next; repeat when those before it are decided.
    Gap { expected: u64 },
    /// The incarnation is fenced: this number is not and never will be committed.
    Fenced,
    /// The incarnation is forgotten, or was never registered: this number will never be committed.
    UnknownIncarnation,
    /// The buckets named do not cover the failure domains required; the number is still to be
    /// decided.
    PlacementRefused,
    /// The columns contradict one another; the number is still to be decided.
    Malformed,
}
