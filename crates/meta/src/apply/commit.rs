//! Commits of files: which of their batches become part of their partitions, at which offsets.
//! All that a commit decides is decided here, when it is applied. It must not know buckets or
//! what is in a record.

use std::sync::Arc;

use crate::nouns::file::{File, Home};
use crate::nouns::kept::{Kept, Packed};
use crate::nouns::partition::Partition;
use crate::nouns::producer::{Header, Room, Verdict};
use crate::nouns::slice::Slice;
use crate::nouns::spread::Rows;
use crate::rule::{Rule, Rules};
use crate::state::State;
use crate::terms::commit::{Batch, BatchOutcome, CommitFile, FileReply, TimeSource};
use crate::terms::ids::{FileId, PartitionId, ProducerId, Stamp};
use crate::terms::level::Level;
use crate::terms::reply::Event;

/// Commits a file, if its number is the incarnation's next.
pub(crate) fn commit(
    state: &mut State,
    stamp: Stamp,
    command: &CommitFile,
    events: &mut Vec<Event>,
) -> FileReply {
    if let Some(reply) = decided(state, command.file, Some(command)) {
        if let Some(bent) = bent(state, command) {
            return commit(state, stamp, &bent, events);
        }
        return reply;
    }
    if !command.is_well_formed() {
        return FileReply::Malformed;
    }
    let Some(placement) = state.covered(&command.placement) else {
        return FileReply::PlacementRefused;
    };
    let room = state.producer_room();
    let mut appender = Appender::new(command, stamp, events, (state.level, state.rules), room);
    appender.append_all(state);
    state.producers = appender.room.taken;
    let outcomes: Arc<[BatchOutcome]> = appender.outcomes.into();
    let (live_slices, live_bytes) = (appender.live_slices, appender.live_bytes);
    let spread = appender.spread;
    let file = File {
        nonce: command.nonce,
        length: command.length,
        checksum: command.checksum,
        home: Home::Buckets(placement),
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
    state.spread(command.file, spread);
    let kept = Kept::Committed {
        nonce: command.nonce,
        length: command.length,
        checksum: command.checksum,
        outcomes: Packed::new(&outcomes),
    };
    if let Some(run) = state.members.run_mut(command.file.incarnation) {
        run.settle(state.level, kept);
    }
    FileReply::Committed { outcomes }
}

/// What becomes of a file whose turn it is not if one of two rules is left out: its number is the next.
fn bent(state: &State, command: &CommitFile) -> Option<CommitFile> {
    let (next, _) = state.incarnation(command.file.incarnation)?;
    let rule = if command.file.number < next {
        Rule::CommitsAreIdempotent
    } else {
        Rule::CommitsInOrder
    };
    if state.rules.hold(rule) || command.file.number == next {
        return None;
    }
    let mut bent = command.clone();
    bent.file.number = next;
    Some(bent)
}

/// Skips a number, if it is the incarnation's next.
pub(crate) fn skip(state: &mut State, stamp: Stamp, file: FileId) -> FileReply {
    if let Some(reply) = decided(state, file, None) {
        return reply;
    }
    if let Some(run) = state.members.run_mut(file.incarnation) {
        run.skipped.insert(file.number, stamp.ticks_millis);
        run.settle(state.level, Kept::Skipped);
    }
    FileReply::Skipped
}

/// The reply to a number that is not the next; `None` if it is.
fn decided(state: &State, file: FileId, command: Option<&CommitFile>) -> Option<FileReply> {
    let Some(run) = state.members.runs.get(&file.incarnation) else {
        return Some(FileReply::UnknownIncarnation);
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
    /// The partitions that were given slices.
    spread: Rows,
    level: &'static Level,
    rules: Rules,
    room: Room,
}

impl<'a> Appender<'a> {
    fn new(
        command: &'a CommitFile,
        stamp: Stamp,
        events: &'a mut Vec<Event>,
        (level, rules): (&'static Level, Rules),
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
            spread: Rows::default(),
            level,
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

    /// Appends the batches of one slice. Accepted batches in a row become one slice of the
    /// partition; a batch that is not accepted splits it.
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
            time_source: batch.time_source,
            length: batch.bytes,
            span: batch.records,
        }
    }

    fn close(&mut self, id: PartitionId, partition: &mut Partition, slice: Slice) {
        partition.slices.push(self.level, slice);
        self.spread.add(id, slice.base_offset);
        self.live_slices = self.live_slices.saturating_add(1);
        self.live_bytes = self.live_bytes.saturating_add(u64::from(slice.length));
        self.events.push(Event::Advanced {
            partition: id,
            high_watermark: slice.end(),
            place: slice.place(self.command.nonce, self.command.length),
        });
    }
}

/// The slice extended by the batch that follows it; `None` if it would span too many offsets, or one of the two tells its age by
/// an agent's clock and the other does not.
fn extended(slice: Slice, batch: &Batch) -> Option<Slice> {
    let is_of_agent = |source| source == TimeSource::Agent;
    if is_of_agent(slice.time_source) != is_of_agent(batch.time_source) {
        return None;
    }
    Some(Slice {
        time_source: slice.time_source.max(batch.time_source),
        span: slice.span.checked_add(batch.records)?,
        length: slice.length.checked_add(batch.bytes)?,
        max_timestamp: slice.max_timestamp.max(batch.max_timestamp),
        ..slice
    })
}

impl Partition {
    /// Decides about a batch; an accepted batch gets its offsets.
    fn admit(&mut self, batch: &Batch, ticks: u64, rules: Rules, room: &mut Room) -> BatchOutcome {
        let (base_offset, log_start) = (self.high_watermark, self.log_start);
        let records = i64::from(batch.records);
        let end = match base_offset.checked_add(records) {
            Some(end) => end,
            None if rules.hold(Rule::CheckedOffsets) => return BatchOutcome::OffsetsExhausted,
            None => base_offset.wrapping_add(records),
        };
        if batch.producer_id >= 0 && rules.hold(Rule::DedupInTheEntry) {
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
