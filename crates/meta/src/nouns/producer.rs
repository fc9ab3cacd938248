//! Idempotent producers of one partition: which batches were appended before, and which come out
//! of order (KIP-98, and Kafka's `ProducerAppendInfo` and `ProducerStateEntry`). It decides by
//! sequences only and must not know offsets' meaning, slices or files.

use crate::terms::ids::ProducerId;
use crate::terms::level::Level;
use crate::terms::refusal::Refusal;
use crate::terms::reply::Reply;

/// Batches remembered per producer, as in Kafka: as many as a client has in flight at most.
pub(crate) const WINDOW: usize = 5;

/// Sequences run from 0 to `i32::MAX` and start again.
const SEQUENCES: u32 = 1 << 31;

/// Beyond this many sequences, "before" and "after" could not be told apart.
const APPENDED_MAX: u32 = 1 << 30;

/// Gives out producer ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProducerIds {
    /// The next id to give.
    pub(crate) next: u64,
}

impl ProducerIds {
    /// A known producer that has epochs left gets the next one, so that a repeat is harmless; any
    /// other gets a new id.
    pub(crate) fn allocate(&mut self, level: &Level, known: Option<(ProducerId, i16)>) -> Reply {
        if let Some((id, epoch)) = known
            && u64::try_from(id.0).is_ok_and(|id| id < self.next)
            && (0..i16::MAX - 1).contains(&epoch)
        {
            let epoch = epoch + 1;
            return Reply::Producer { id, epoch };
        }
        match i64::try_from(self.next) {
            Ok(id) if self.next <= level.counter_max => {
                self.next += 1;
                Reply::Producer {
                    id: ProducerId(id),
                    epoch: 0,
                }
            }
            _ => Reply::Refused(Refusal::Exhausted { what: "producers" }),
        }
    }
}

impl ProducerIds {
    /// Gives none of the next ids.
    pub(crate) fn pass_over(&mut self, level: &Level) {
        let next = self.next.saturating_add(level.left_out_numbers);
        self.next = next.min(level.counter_max + 1);
    }
}

/// The producer's fields of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: ProducerId,
    pub(crate) epoch: i16,
    pub(crate) base_sequence: i32,
    /// At least 1.
    pub(crate) records: u32,
}

impl Header {
    fn last_sequence(&self) -> i32 {
        wrap(self.base_sequence.cast_unsigned() + (self.records - 1) % SEQUENCES)
    }
}

/// The decision about a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    /// The same batch was appended before, at this offset.
    Duplicate(i64),
    /// All its sequences were appended before, but outside the window: the offset is forgotten.
    DuplicateSequence,
    /// Sequences before it are missing, or it overlaps what was appended.
    OutOfOrder,
    /// The producer has a newer epoch.
    InvalidEpoch,
    /// Nothing is remembered of the producer, and there is no room for another.
    NoRoom,
}

/// How many producers are remembered, over all partitions, and how many may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Producers remembered, each once for every partition that it has written to.
    pub(crate) taken: u64,
    /// Beyond this no others are.
    pub(crate) max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Remembered {
    pub(crate) base_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base_offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) id: ProducerId,
    /// When it last appended, in ticks.
    pub(crate) touched_ticks: u64,
    window: [Remembered; WINDOW],
    /// Sequences appended in this epoch up to the last one, at most [`APPENDED_MAX`].
    pub(crate) appended: u32,
    pub(crate) epoch: i16,
    count: u8,
}

impl Producer {
    /// A producer as a snapshot has it; `None` if it cannot be.
    pub(crate) fn restored(
        (id, epoch): (ProducerId, i16),
        touched_ticks: u64,
        appended: u32,
        batches: &[Remembered],
    ) -> Option<Self> {
        let mut window = [Remembered::default(); WINDOW];
        window.get_mut(..batches.len())?.copy_from_slice(batches);
        let count = u8::try_from(batches.len()).ok()?;
        let producer = Producer {
            id,
            touched_ticks,
            window,
            appended,
            epoch,
            count,
        };
        producer.is_sound().then_some(producer)
    }

    /// The batches remembered, oldest first.
    pub(crate) fn window(&self) -> &[Remembered] {
        self.window.get(..usize::from(self.count)).unwrap_or(&[])
    }

    /// True if the batches follow one another.
    pub(crate) fn is_sound(&self) -> bool {
        let window = self.window();
        let in_range = |batch: &Remembered| {
            batch.base_sequence >= 0 && batch.last_sequence >= 0 && batch.base_offset >= 0
        };
        let follows = |pair: &[Remembered]| match pair {
            [before, after] => {
                after.base_sequence == next(before.last_sequence)
                    && after.base_offset > before.base_offset
            }
            _ => true,
        };
        let batches = u32::from(self.count);
        self.id.0 >= 0
            && self.epoch >= 0
            && !window.is_empty()
            && (batches..=APPENDED_MAX).contains(&self.appended)
            && window.iter().all(in_range)
            && window.windows(2).all(follows)
    }

    fn new(header: &Header) -> Self {
        Producer {
            id: header.id,
            touched_ticks: 0,
            window: [Remembered::default(); WINDOW],
            appended: 0,
            epoch: header.epoch,
            count: 0,
        }
    }

    fn judge(&self, header: &Header) -> Verdict {
        if header.epoch < self.epoch {
            return Verdict::InvalidEpoch;
        }
        if header.epoch > self.epoch {
            let starts = header.base_sequence == 0;
            return if starts {
                Verdict::Append
            } else {
                Verdict::OutOfOrder
            };
        }
        let Some(last) = self.window().last() else {
            return Verdict::Append;
        };
        if header.base_sequence == next(last.last_sequence) {
            return Verdict::Append;
        }
        let (base, end) = (header.base_sequence, header.last_sequence());
        let same = |batch: &&Remembered| batch.base_sequence == base && batch.last_sequence == end;
        if let Some(batch) = self.window().iter().find(same) {
            return Verdict::Duplicate(batch.base_offset);
        }
        // Only a batch that certainly was appended counts as a duplicate: after an expiry the first
        // sequence seen need not be the first there was, and those before it may still come.
        let back_to_end = distance(end, last.last_sequence);
        let back_to_base = distance(base, last.last_sequence);
        if back_to_end <= back_to_base && back_to_base < self.appended {
            return Verdict::DuplicateSequence;
        }
        Verdict::OutOfOrder
    }

    fn append(&mut self, header: &Header, base_offset: i64, ticks: u64) {
        if header.epoch > self.epoch {
            *self = Producer::new(header);
        }
        let batch = Remembered {
            base_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset,
        };
        if usize::from(self.count) == WINDOW {
            self.window.copy_within(1.., 0);
        } else {
            self.count += 1;
        }
        if let Some(slot) = self.window.get_mut(usize::from(self.count) - 1) {
            *slot = batch;
        }
        self.appended = self
            .appended
            .saturating_add(header.records)
            .min(APPENDED_MAX);
        self.touched_ticks = ticks;
    }
}

/// The idempotent producers of one partition, sorted by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers(Vec<Producer>);

impl Producers {
    /// Producers as a snapshot has them; `None` unless they are sorted.
    pub(crate) fn restored(producers: Vec<Producer>) -> Option<Self> {
        producers
            .is_sorted_by(|a, b| a.id < b.id)
            .then_some(Producers(producers))
    }

    pub(crate) fn as_slice(&self) -> &[Producer] {
        &self.0
    }

    /// Decides about a batch, and remembers it at `base_offset` if it is to be appended.
    pub(crate) fn admit(
        &mut self,
        header: &Header,
        base_offset: i64,
        ticks: u64,
        room: &mut Room,
    ) -> Verdict {
        if header.epoch < 0 {
            return Verdict::InvalidEpoch;
        }
        if header.base_sequence < 0 || header.records == 0 {
            return Verdict::OutOfOrder;
        }
        let at = match self.find(header.id) {
            Ok(at) => at,
            Err(_) if room.taken >= room.max => return Verdict::NoRoom,
            Err(at) => {
                room.taken += 1;
                // Most partitions have one or two producers: capacity for four would be wasted.
                if self.0.len() == self.0.capacity() {
                    self.0.reserve_exact((self.0.len() / 2).max(1));
                }
                self.0.insert(at, Producer::new(header));
                at
            }
        };
        let Some(producer) = self.0.get_mut(at) else {
            return Verdict::OutOfOrder;
        };
        let verdict = producer.judge(header);
        if verdict == Verdict::Append {
            producer.append(header, base_offset, ticks);
        }
        verdict
    }

    /// The index of a producer, or where it would be inserted. The last ones are tried first: ids
    /// are given in rising order, so the newest appends most often, and a search among thousands
    /// waits for memory at every step.
    fn find(&self, id: ProducerId) -> Result<usize, usize> {
        match self.0.last() {
            Some(last) if last.id < id => Err(self.0.len()),
            Some(last) if last.id == id => Ok(self.0.len() - 1),
            _ => self.0.binary_search_by_key(&id, |producer| producer.id),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Forgets producers that have not appended since a time in ticks; how many.
    pub(crate) fn expire(&mut self, before_ticks: u64) -> u64 {
        let before = self.len();
        self.0
            .retain(|producer| producer.touched_ticks >= before_ticks);
        let expired = before - self.len();
        if expired > 0 {
            self.0.shrink_to_fit();
        }
        expired
    }

    /// Whether [`Producers::expire`] would forget any.
    pub(crate) fn any_expired(&self, before_ticks: u64) -> bool {
        self.0
            .iter()
            .any(|producer| producer.touched_ticks < before_ticks)
    }
}

/// The sequence after one.
fn next(sequence: i32) -> i32 {
    wrap(sequence.cast_unsigned() + 1)
}

fn wrap(sequence: u32) -> i32 {
    (sequence % SEQUENCES).cast_signed()
}

/// How far `from` lies behind `to`, going round.
fn distance(from: i32, to: i32) -> u32 {
    (SEQUENCES + to.cast_unsigned() - from.cast_unsigned()) % SEQUENCES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(epoch: i16, base_sequence: i32, records: u32) -> Header {
        Header {
            id: ProducerId(7),
            epoch,
            base_sequence,
            records,
        }
    }

    fn ample() -> Room {
        Room {
            taken: 0,
            max: u64::MAX,
        }
    }

    /// Admits (epoch, base sequence, records) at offsets 100, 200, ... and gives the verdicts.
    fn verdicts(batches: &[(i16, i32, u32)]) -> Vec<Verdict> {
        let mut producers = Producers::default();
        let mut offset = 0;
        let mut admit = |&(epoch, base_sequence, records): &(i16, i32, u32)| {
            offset += 100;
            producers.admit(
                &header(epoch, base_sequence, records),
                offset,
                0,
                &mut ample(),
            )
        };
        batches.iter().map(&mut admit).collect()
    }

    #[test]
    fn producers_are_found_in_whatever_order_they_come() {
        let mut producers = Producers::default();
        let mut admit = |id: i64, base_sequence: i32| {
            let header = Header {
                id: ProducerId(id),
                ..header(0, base_sequence, 1)
            };
            producers.admit(&header, i64::from(base_sequence), 0, &mut ample())
        };
        for id in [5, 9, 2, 7, 9, 2, 12, 5] {
            let known = admit(id, 0) != Append;
            assert_eq!(admit(id, 1) != Append, known, "{id}");
        }
        let ids: Vec<i64> = producers.as_slice().iter().map(|p| p.id.0).collect();
        assert_eq!(ids, [2, 5, 7, 9, 12]);
    }

    use Verdict::{Append, Duplicate, DuplicateSequence, InvalidEpoch, OutOfOrder};

    #[test]
    fn a_window_of_five_gives_the_first_offset_and_older_ones_are_known_as_appended() {
        let appended: Vec<_> = (0..7).map(|n| (0, n * 10, 10)).collect();
        let again = |n: i32| {
            let mut batches = appended.clone();
            batches.push((0, n * 10, 10));
            verdicts(&batches).pop().expect("a verdict per batch")
        };
        assert_eq!(again(6), Duplicate(700));
        assert_eq!(again(2), Duplicate(300));
        assert_eq!(again(1), DuplicateSequence);
        assert_eq!(again(0), DuplicateSequence);
        assert_eq!(again(7), Append);
        assert_eq!(again(8), OutOfOrder);
    }

    #[test]
    fn a_batch_that_overlaps_is_never_appended() {
        assert_eq!(verdicts(&[(0, 0, 10), (0, 5, 10)]), [Append, OutOfOrder]);
        assert_eq!(verdicts(&[(0, 0, 10), (0, 0, 11)]), [Append, OutOfOrder]);
        assert_eq!(
            verdicts(&[(0, 0, 10), (0, 3, 4)]),
            [Append, DuplicateSequence]
        );
    }

    #[test]
    fn without_state_any_sequence_is_accepted_but_what_came_before_is_not_taken_for_appended() {
        assert_eq!(verdicts(&[(3, 500, 5), (3, 505, 1)]), [Append, Append]);
        assert_eq!(verdicts(&[(3, 500, 5), (3, 495, 5)]), [Append, OutOfOrder]);
        assert_eq!(verdicts(&[(3, 500, 5), (3, 498, 4)]), [Append, OutOfOrder]);
    }

    #[test]
    fn sequences_wrap_from_the_largest_to_zero() {
        let max = i32::MAX;
        assert_eq!(verdicts(&[(0, max - 4, 5), (0, 0, 3)]), [Append, Append]);
        assert_eq!(verdicts(&[(0, max - 1, 5), (0, 3, 1)]), [Append, Append]);
        assert_eq!(
            verdicts(&[(0, max - 1, 5), (0, max - 1, 5)]),
            [Append, Duplicate(100)]
        );
        let mut batches = vec![(0, max - 1, 5)];
        batches.extend((0..6).map(|n| (0, 3 + n, 1)));
        batches.push((0, max - 1, 5));
        assert_eq!(verdicts(&batches).last(), Some(&DuplicateSequence));
    }

    #[test]
    fn epochs_only_rise_and_start_at_zero() {
        assert_eq!(verdicts(&[(1, 9, 1), (0, 10, 1)]), [Append, InvalidEpoch]);
        assert_eq!(verdicts(&[(1, 9, 1), (2, 10, 1)]), [Append, OutOfOrder]);
        assert_eq!(
            verdicts(&[(1, 9, 1), (2, 0, 1), (1, 10, 1)]),
            [Append, Append, InvalidEpoch]
        );
        assert_eq!(verdicts(&[(1, 0, 1), (2, 0, 1)]), [Append, Append]);
        assert_eq!(
            verdicts(&[(1, 0, 2), (2, 0, 1), (2, 1, 1)]),
            [Append, Append, Append]
        );
    }

    #[test]
    fn nonsense_is_refused_and_leaves_no_trace() {
        let mut producers = Producers::default();
        let mut admit = |header| producers.admit(&header, 0, 0, &mut ample());
        assert_eq!(admit(header(-1, 0, 1)), InvalidEpoch);
        assert_eq!(admit(header(0, -1, 1)), OutOfOrder);
        assert_eq!(admit(header(0, 0, 0)), OutOfOrder);
        assert_eq!(producers, Producers::default());
    }

    #[test]
    fn without_room_only_who_is_remembered_goes_on() {
        let mut producers = Producers::default();
        let mut room = Room { taken: 3, max: 4 };
        let mut admit = |id, base_sequence| {
            let header = Header {
                id: ProducerId(id),
                ..header(0, base_sequence, 1)
            };
            producers.admit(&header, i64::from(base_sequence), 0, &mut room)
        };
        assert_eq!(admit(7, 0), Append);
        assert_eq!(admit(8, 0), Verdict::NoRoom);
        assert_eq!(admit(7, 1), Append);
        assert_eq!(admit(7, 0), Duplicate(0));
        assert_eq!((room.taken, producers.len()), (4, 1));
    }

    #[test]
    fn idle_producers_expire() {
        let mut producers = Producers::default();
        let mut admit = |id, ticks| {
            let header = Header {
                id: ProducerId(id),
                epoch: 0,
                base_sequence: 0,
                records: 1,
            };
            producers.admit(&header, 0, ticks, &mut ample())
        };
        for (id, ticks) in [(1, 10), (2, 30), (0, 20)] {
            assert_eq!(admit(id, ticks), Append);
        }
        assert!(!producers.any_expired(10));
        assert!(producers.any_expired(11));
        assert_eq!(producers.expire(20), 1);
        let left: Vec<_> = producers
            .as_slice()
            .iter()
            .map(|producer| producer.id.0)
            .collect();
        assert_eq!(left, [0, 2]);
    }
}
