//! Decides what is loaded before a reader asks for it: of one that lags behind, and goes on where it stopped, the next parts of
//! files. Pure. It must not know how they are found and loaded.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use host::clock::Instant;
use meta::ids::PartitionId;
use meta::places::SlicePlace;

use super::plan::{part_bytes, part_of};

/// So many parts are loaded ahead of one reader.
const PARTS: usize = 4;
/// With fewer parts before it the next are looked for.
const PARTS_LEAST: usize = 3;
/// And so many bytes, but for one part, however large.
const BYTES: u64 = 16 << 20;
/// Readers that are remembered.
const READERS_MAX: usize = 4_096;
/// A reader that has not come again for so long is forgotten, with what was loaded for it.
const IDLE: Duration = Duration::from_secs(30);

/// Who reads a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    pub connection: u64,
    pub partition: PartitionId,
}

/// What an answer brought a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The offset that was asked for.
    pub asked: i64,
    /// The offset after the last record of the answer.
    pub next: i64,
    /// The end of the partition.
    pub end: i64,
    /// Whether parts had to be loaded for the answer.
    pub has_loaded: bool,
}

/// All readers who lag behind. Each may have work under way, a `T`, which is dropped once it is of no use.
#[derive(Debug)]
pub struct Ahead<T> {
    readers: BTreeMap<Who, Reader<T>>,
    by_age: BTreeMap<u64, Who>,
    turns: u64,
    /// Bytes of parts that are loaded ahead, or will be.
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug)]
struct Reader<T> {
    next: i64,
    /// Parts up to this offset were looked for.
    looked_to: i64,
    /// The parts before it, each with the offset after its last record for this reader, and its length.
    parts: VecDeque<(i64, u64)>,
    is_looking: bool,
    _work: Option<T>,
    turn: u64,
    at: Instant,
}

impl<T> Ahead<T> {
    /// Nothing so far; for all readers together at most `bytes_max` are loaded ahead.
    pub fn new(bytes_max: u64) -> Self {
        Ahead {
            readers: BTreeMap::new(),
            by_age: BTreeMap::new(),
            turns: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// True if no reader is known to lag behind: then only answers for which parts were loaded are of interest.
    pub fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// Takes note of an answer; yields the offset from which the next parts are to be looked for, if any. Whoever then looks says so
    /// by [`Ahead::begun`].
    pub fn answered(&mut self, now: Instant, who: Who, step: Step) -> Option<i64> {
        self.expire(now);
        let known = self.readers.get(&who);
        if known.is_some_and(|reader| reader.next != step.asked || step.next >= step.end) {
            // It has jumped, or has come to the end.
            self.forget(who);
        }
        if step.next >= step.end {
            return None;
        }
        self.turns += 1;
        let turn = self.turns;
        let Some(reader) = self.readers.get_mut(&who) else {
            if step.has_loaded {
                self.begin(now, who, step.next);
            }
            return None;
        };
        self.by_age.remove(&reader.turn);
        self.by_age.insert(turn, who);
        (reader.turn, reader.at, reader.next) = (turn, now, step.next);
        while let Some((end, bytes)) = reader.parts.front()
            && *end <= step.next
        {
            self.bytes -= bytes;
            reader.parts.pop_front();
        }
        let from = reader.looked_to.max(step.next);
        let looks = !reader.is_looking && reader.parts.len() < PARTS_LEAST && from < step.end;
        (looks && self.bytes < self.bytes_max).then_some(from)
    }

    /// The next parts are looked for and loaded by `work`.
    pub fn begun(&mut self, who: Who, work: T) {
        if let Some(reader) = self.readers.get_mut(&who) {
            reader.is_looking = true;
            reader._work = Some(work);
        }
    }

    /// Takes the places that were found, in order; yields those whose parts are to be loaded.
    pub fn located(&mut self, who: Who, places: &[SlicePlace]) -> Vec<SlicePlace> {
        let Some(reader) = self.readers.get_mut(&who) else {
            return Vec::new();
        };
        reader.is_looking = false;
        let mut wanted: Vec<SlicePlace> = Vec::new();
        let mut of_reader: u64 = reader.parts.iter().map(|(_, bytes)| bytes).sum();
        for place in places {
            let end = place.last_offset + 1;
            if wanted
                .last()
                .is_some_and(|last| part_of(last) == part_of(place))
            {
                if let Some(last) = reader.parts.back_mut() {
                    last.0 = end;
                }
                reader.looked_to = end;
                continue;
            }
            let bytes = part_bytes(place);
            let is_full = reader.parts.len() >= PARTS || of_reader + bytes > BYTES;
            if !reader.parts.is_empty() && is_full || self.bytes + bytes > self.bytes_max {
                break;
            }
            of_reader += bytes;
            self.bytes += bytes;
            reader.parts.push_back((end, bytes));
            reader.looked_to = end;
            wanted.push(*place);
        }
        wanted
    }

    /// Remembers a reader who may go on.
    fn begin(&mut self, now: Instant, who: Who, next: i64) {
        let reader = Reader {
            next,
            looked_to: next,
            parts: VecDeque::new(),
            is_looking: false,
            _work: None,
            turn: self.turns,
            at: now,
        };
        self.readers.insert(who, reader);
        self.by_age.insert(self.turns, who);
        if self.readers.len() > READERS_MAX
            && let Some((_, oldest)) = self.by_age.first_key_value()
        {
            self.forget(*oldest);
        }
    }

    fn forget(&mut self, who: Who) {
        if let Some(reader) = self.readers.remove(&who) {
            self.by_age.remove(&reader.turn);
            let bytes = reader.parts.iter().map(|(_, bytes)| bytes);
            self.bytes -= bytes.sum::<u64>();
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, oldest)) = self.by_age.first_key_value() {
            let oldest = *oldest;
            let at = self.readers.get(&oldest).map(|reader| reader.at);
            if at.is_some_and(|at| now.since(at) < IDLE) {
                return;
            }
            self.forget(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use meta::ids::{FileId, Incarnation};

    use super::*;

    const MIB: u64 = 1 << 20;
    const NOW: Instant = Instant::from_millis(1_000);
    const END: i64 = 1_000_000;

    fn who(connection: u64) -> Who {
        Who {
            connection,
            partition: PartitionId(1),
        }
    }

    fn step(asked: i64, next: i64, has_loaded: bool) -> Step {
        Step {
            asked,
            next,
            end: END,
            has_loaded,
        }
    }

    /// Ten records in a file of their own.
    fn place(number: i64, mib: u64) -> SlicePlace {
        let file = FileId {
            incarnation: Incarnation(1),
            number: number.unsigned_abs(),
        };
        SlicePlace {
            file,
            nonce: 0,
            file_length: mib * MIB,
            position: 16,
            length: 100,
            base_offset: number * 10,
            last_offset: number * 10 + 9,
            max_timestamp: 0,
        }
    }

    fn places(from: i64, count: i64) -> Vec<SlicePlace> {
        (from / 10..from / 10 + count)
            .map(|at| place(at, 4))
            .collect()
    }

    #[test]
    fn of_a_reader_who_goes_on_the_next_parts_are_loaded_and_more_as_he_comes_to_them() {
        let mut ahead: Ahead<()> = Ahead::new(64 * MIB);
        assert_eq!(
            ahead.answered(NOW, who(1), step(0, 10, true)),
            None,
            "he may jump"
        );
        assert_eq!(ahead.answered(NOW, who(1), step(10, 20, false)), Some(20));
        ahead.begun(who(1), ());
        assert_eq!(
            ahead.answered(NOW, who(1), step(20, 25, false)),
            None,
            "one looks"
        );
        let loads = ahead.located(who(1), &places(20, 9));
        assert_eq!(loads, places(20, 4), "no more than his share");
        assert_eq!(ahead.answered(NOW, who(1), step(25, 30, false)), None);
        assert_eq!(ahead.answered(NOW, who(1), step(30, 40, false)), Some(60));
        ahead.begun(who(1), ());
        assert_eq!(ahead.located(who(1), &places(60, 9)), places(60, 2));
        assert_eq!(ahead.bytes, 16 * MIB);
    }

    #[test]
    fn work_is_dropped_and_memory_free_when_a_reader_jumps_or_comes_to_the_end_or_stays_away() {
        let gone = [
            (NOW, step(500, 510, false)),
            (NOW, step(20, END, false)),
            (NOW + IDLE, step(20, 30, false)),
        ];
        for (now, last) in gone {
            let mut ahead = Ahead::new(64 * MIB);
            let work = Rc::new(());
            ahead.answered(NOW, who(1), step(0, 10, true));
            ahead.answered(NOW, who(1), step(10, 20, true));
            ahead.begun(who(1), Rc::clone(&work));
            ahead.located(who(1), &places(20, 9));
            assert_eq!((Rc::strong_count(&work), ahead.bytes), (2, 16 * MIB));
            assert_eq!(ahead.answered(now, who(1), last), None);
            assert_eq!((Rc::strong_count(&work), ahead.bytes), (1, 0), "{last:?}");
            assert!(ahead.is_empty() && ahead.by_age.is_empty());
            assert_eq!(ahead.located(who(1), &places(20, 9)), [], "nobody wants it");
        }
    }

    #[test]
    fn readers_at_the_tail_and_those_of_what_is_in_memory_are_not_remembered() {
        let mut ahead: Ahead<()> = Ahead::new(64 * MIB);
        for at in 0..100 {
            assert_eq!(ahead.answered(NOW, who(1), step(at, at + 1, false)), None);
            assert_eq!(ahead.answered(NOW, who(2), step(END - 1, END, true)), None);
        }
        assert!(ahead.is_empty() && ahead.by_age.is_empty());
    }

    #[test]
    fn all_readers_together_have_a_bound() {
        let mut ahead: Ahead<()> = Ahead::new(20 * MIB);
        for reader in 0..READERS_MAX as u64 + 10 {
            ahead.answered(NOW, who(reader), step(0, 10, true));
            if ahead
                .answered(NOW, who(reader), step(10, 20, true))
                .is_some()
            {
                ahead.begun(who(reader), ());
                ahead.located(who(reader), &places(20, 9));
            }
            assert!(ahead.bytes <= 20 * MIB);
        }
        assert!(ahead.readers.len() <= READERS_MAX && ahead.by_age.len() <= READERS_MAX);
        let all = ahead.readers.values().flat_map(|reader| &reader.parts);
        assert_eq!(all.map(|(_, bytes)| bytes).sum::<u64>(), ahead.bytes);
    }

    #[test]
    fn slices_of_one_file_are_one_part_and_a_large_part_comes_alone() {
        let mut ahead: Ahead<()> = Ahead::new(64 * MIB);
        ahead.answered(NOW, who(1), step(0, 10, true));
        ahead.answered(NOW, who(1), step(10, 20, true));
        ahead.begun(who(1), ());
        let second = SlicePlace {
            base_offset: 30,
            last_offset: 34,
            ..place(2, 8)
        };
        let found = [place(2, 8), second, place(4, 8), place(5, 8)];
        assert_eq!(ahead.located(who(1), &found), [found[0], found[2]]);
        let reader = &ahead.readers[&who(1)];
        assert_eq!(reader.parts, [(35, 8 * MIB), (50, 8 * MIB)]);
    }
}
