//! Commits of files: which of their batches become part of their partitions, at which offsets.
//! All that a commit decides is decided here, when it is applied. It must not know buckets or
//! what is in a record.

use std::sync::Arc;

use crate::file::File;
use crate::ids::{FileId, PartitionId, ProducerId, Stamp};
use crate::outcome::Packed;
use crate::partition::Partition;
use crate::producer::{Header, Room, Verdict};
use crate::query::SlicePlace;
use crate::reply::Event;
use crate::rule::{Rule, Rules};
use crate::slices::Slice;
use crate::state::State;

pub use crate::outcome::BatchOutcome;

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
        self.batches.records.push(batch.records);
        self.batches.bytes.push(batch.bytes);
        self.batches.max_timestamp.push(batch.max_timestamp);
        self.batches.producer_id.push(batch.producer_id);
        self.batches
            .producer_epoch
            .push(i32::from(batch.producer_epoch));
        self.batches.base_sequence.push(batch.base_sequence);
    }

    fn batch(&self, at: usize) -> Option<Batch> {
        let batches = &self.batches;
        Some(Batch {
            records: *batches.records.get(at)?,
            bytes: *batches.bytes.get(at)?,
            max_timestamp: *batches.max_timestamp.get(at)?,
            producer_id: *batches.producer_id.get(at)?,
            // The shape was checked before: epochs fit.
            producer_epoch: i16::try_from(*batches.producer_epoch.get(at)?).unwrap_or(-1),
            base_sequence: *batches.base_sequence.get(at)?,
        })
    }

    /// Whether the columns fit together and the slices into the file.
    fn is_well_formed(&self) -> bool {
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
        count > 0
            && columns.iter().all(|column| *column == count)
            && batch_columns.iter().all(|column| *column == rows)
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
    /// The incarnation was never registered.
    UnknownIncarnation,
    /// The buckets named do not cover the failure domains required; the number is still to be
    /// decided.
    PlacementRefused,
    /// The columns contradict one another; the number is still to be decided.
    Malformed,
}

/// What is kept of a decided number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Skipped,
    Committed {
        nonce: u32,
        length: u64,
        checksum: u32,
        outcomes: Packed,
    },
}

/// Commits a file, if its number is the incarnation's next.
pub(crate) fn commit(
    state: &mut State,
    stamp: Stamp,
    command: &CommitFile,
    events: &mut Vec<Event>,
) -> FileReply {
    if let Some(reply) = decided(state, command.file, Some(command)) {
        return reply;
    }
    if !command.is_well_formed() {
        return FileReply::Malformed;
    }
    let Some(placement) = state.placement.covered(&command.placement) else {
        return FileReply::PlacementRefused;
    };
    let room = state.producer_room();
    let mut appender = Appender::new(command, stamp, events, state.rules, room);
    appender.append_all(state);
    state.producers = appender.room.taken;
    let outcomes: Arc<[BatchOutcome]> = appender.outcomes.into();
    let (live_slices, live_bytes) = (appender.live_slices, appender.live_bytes);
    let file = File {
        nonce: command.nonce,
        length: command.length,
        checksum: command.checksum,
        placement,
        committed_wall_millis: stamp.wall_millis,
        live_slices,
        live_bytes,
        tombstoned_ticks: (live_slices == 0 && state.rules.hold(Rule::UselessFilesAreTombstones))
            .then_some(stamp.ticks_millis),
    };
    if file.is_tombstoned() {
        events.push(Event::FilesTombstoned);
    }
    state.files.insert(command.file, file);
    let kept = Kept::Committed {
        nonce: command.nonce,
        length: command.length,
        checksum: command.checksum,
        outcomes: Packed::new(&outcomes),
    };
    if let Some(run) = state.members.run_mut(command.file.incarnation) {
        run.settle(kept);
    }
    FileReply::Committed { outcomes }
}

/// Skips a number, if it is the incarnation's next.
pub(crate) fn skip(state: &mut State, stamp: Stamp, file: FileId) -> FileReply {
    if let Some(reply) = decided(state, file, None) {
        return reply;
    }
    if let Some(run) = state.members.run_mut(file.incarnation) {
        run.skipped.insert(file.number, stamp.ticks_millis);
        run.settle(Kept::Skipped);
    }
    FileReply::Skipped
}

/// The reply to a number that is not to be decided now; `None` if it is.
fn decided(state: &State, file: FileId, command: Option<&CommitFile>) -> Option<FileReply> {
    let Some(run) = state.members.runs.get(&file.incarnation) else {
        let forgotten = (1..=state.members.last_incarnation).contains(&file.incarnation.0);
        return Some(if forgotten {
            FileReply::Decided
        } else {
            FileReply::UnknownIncarnation
        });
    };
    if file.number < run.next_number {
        return Some(match run.kept(file.number) {
            None => FileReply::Decided,
            Some(Kept::Skipped) => FileReply::Skipped,
            Some(Kept::Committed {
                nonce,
                length,
                checksum,
                outcomes,
            }) => {
                let same = |command: &CommitFile| {
                    (command.nonce, command.length, command.checksum)
                        == (*nonce, *length, *checksum)
                        && command.batches.records.len() == outcomes.len()
                };
                if command.is_none_or(same) {
                    FileReply::Committed {
                        outcomes: outcomes.iter().collect(),
                    }
                } else {
                    FileReply::Decided
                }
            }
        });
    }
    if run.fenced_ticks.is_some() {
        return Some(FileReply::Fenced);
    }
    if file.number > run.next_number {
        return Some(FileReply::Gap {
            expected: run.next_number,
        });
    }
    None
}

/// Appends the slices of one file.
struct Appender<'a> {
    command: &'a CommitFile,
    stamp: Stamp,
    events: &'a mut Vec<Event>,
    outcomes: Vec<BatchOutcome>,
    live_slices: u32,
    live_bytes: u64,
    rules: Rules,
    room: Room,
}

impl<'a> Appender<'a> {
    fn new(
        command: &'a CommitFile,
        stamp: Stamp,
        events: &'a mut Vec<Event>,
        rules: Rules,
        room: Room,
    ) -> Self {
        events.reserve(command.slices.partition.len());
        let outcomes = Vec::with_capacity(command.batches.records.len());
        Appender {
            command,
            stamp,
            events,
            outcomes,
            live_slices: 0,
            live_bytes: 0,
            rules,
            room,
        }
    }

    fn append_all(&mut self, state: &mut State) {
        let slices = &self.command.slices;
        let rows = slices
            .partition
            .iter()
            .zip(&slices.position)
            .zip(&slices.batches);
        let mut row = 0_usize;
        for ((partition, position), batches) in rows {
            let id = PartitionId(*partition);
            let end = row.saturating_add(usize::try_from(*batches).unwrap_or(usize::MAX));
            match state.partitions.get_mut(id.0) {
                Some(partition) => self.append_slice(id, partition, *position, row..end),
                None => {
                    let unknown = (row..end).map(|_| BatchOutcome::UnknownPartition);
                    self.outcomes.extend(unknown);
                }
            }
            row = end;
        }
    }

    /// Appends the batches of one slice; those that follow one another become one slice of the
    /// partition, and whatever is not accepted parts it.
    fn append_slice(
        &mut self,
        id: PartitionId,
        partition: &mut Partition,
        position: u64,
        rows: std::ops::Range<usize>,
    ) {
        let mut position = position;
        let mut open: Option<Slice> = None;
        for batch in rows.filter_map(|row| self.command.batch(row)) {
            let outcome =
                partition.admit(&batch, self.stamp.ticks_millis, self.rules, &mut self.room);
            self.outcomes.push(outcome);
            if let BatchOutcome::Accepted { base_offset, .. } = outcome {
                open = match open {
                    Some(slice) => match extended(slice, &batch) {
                        Some(longer) => Some(longer),
                        None => {
                            self.close(id, partition, slice);
                            Some(self.begin(position, base_offset, &batch))
                        }
                    },
                    None => Some(self.begin(position, base_offset, &batch)),
                };
            } else if let Some(slice) = open.take() {
                self.close(id, partition, slice);
            }
            position = position.saturating_add(u64::from(batch.bytes));
        }
        if let Some(slice) = open {
            self.close(id, partition, slice);
        }
    }

    fn begin(&self, position: u64, base_offset: i64, batch: &Batch) -> Slice {
        Slice {
            file: self.command.file,
            position,
            base_offset,
            max_timestamp: batch.max_timestamp,
            length: batch.bytes,
            span: batch.records,
        }
    }

    fn close(&mut self, id: PartitionId, partition: &mut Partition, slice: Slice) {
        partition.slices.push(slice);
        self.live_slices = self.live_slices.saturating_add(1);
        self.live_bytes = self.live_bytes.saturating_add(u64::from(slice.length));
        self.events.push(Event::Advanced {
            partition: id,
            high_watermark: slice.end(),
            place: SlicePlace::new(&slice, self.command.nonce, self.command.length),
        });
    }
}

/// A slice made longer by the batch that follows it; `None` if it would span too many offsets.
fn extended(slice: Slice, batch: &Batch) -> Option<Slice> {
    Some(Slice {
        span: slice.span.checked_add(batch.records)?,
        length: slice.length.checked_add(batch.bytes)?,
        max_timestamp: slice.max_timestamp.max(batch.max_timestamp),
        ..slice
    })
}

impl Partition {
    /// Decides about a batch; if it is accepted, it takes its offsets.
    fn admit(&mut self, batch: &Batch, ticks: u64, rules: Rules, room: &mut Room) -> BatchOutcome {
        let (base_offset, log_start) = (self.high_watermark, self.log_start);
        let records = i64::from(batch.records);
        let end = match base_offset.checked_add(records) {
            Some(end) => end,
            None if rules.hold(Rule::CheckedOffsets) => return BatchOutcome::OffsetsExhausted,
            None => base_offset.wrapping_add(records),
        };
        if batch.producer_id >= 0 {
            let header = Header {
                id: ProducerId(batch.producer_id),
                epoch: batch.producer_epoch,
                base_sequence: batch.base_sequence,
                records: batch.records,
            };
            match self.producers.admit(&header, base_offset, ticks, room) {
                Verdict::Append => {}
                Verdict::Duplicate(base_offset) => {
                    return BatchOutcome::Duplicate {
                        base_offset,
                        log_start,
                    };
                }
                Verdict::DuplicateSequence => return BatchOutcome::DuplicateSequence,
                Verdict::OutOfOrder => return BatchOutcome::OutOfOrder,
                Verdict::InvalidEpoch => return BatchOutcome::InvalidProducerEpoch,
                Verdict::NoRoom => return BatchOutcome::TooManyProducers,
            }
        }
        self.high_watermark = end;
        BatchOutcome::Accepted {
            base_offset,
            log_start,
        }
    }
}
