//! Decides which slices an answer takes, and which parts of files they are read from. Pure. It must
//! not know where the bytes come from.

use meta::places::SlicePlace;

use crate::data::cache::Part;

/// Files up to this size are loaded whole: one request brings all partitions in them, with the
/// index and checksums to verify them. Of larger files the index is read once for all slices, and
/// each slice by itself.
const WHOLE_FILE_BYTES: u64 = 8 << 20;

/// The part of a file that is loaded to read a place.
pub fn part_of(place: &SlicePlace) -> Part {
    let slice = (place.file_length > WHOLE_FILE_BYTES).then_some(place.position);
    Part {
        file: place.file,
        nonce: place.nonce,
        slice,
    }
}

/// The length of the part that holds a place.
pub fn part_bytes(place: &SlicePlace) -> u64 {
    match part_of(place).slice {
        None => place.file_length,
        Some(_) => u64::from(place.length),
    }
}

/// What a fetch asks of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    pub offset: i64,
    /// The most bytes for this partition.
    pub max_bytes: u64,
}

/// Decides how many of each partition's places an answer of at most `max_bytes` takes. Partitions
/// take turns in the order of the request, one slice a turn: what was written together lies in the
/// same files, so few files serve an answer, and a reader that is behind stays equally far behind
/// in all its partitions. A turn for all of which there is no room goes by age of file instead, lest
/// the first partitions get ahead of the others answer by answer; but not the first turn, since
/// clients change the order of their requests to be fair. Whole slices are counted: which of their
/// batches fit is seen when they are read. The first place of the first partition that has one is
/// always taken.
pub fn choose(wants: &[(Want, &[SlicePlace])], max_bytes: u64) -> Vec<usize> {
    let mut choice = Choice {
        wants,
        counts: vec![0; wants.len()],
        taken: vec![0; wants.len()],
        total: 0,
    };
    let with_places = wants.iter().enumerate();
    let with_places = with_places.filter(|(_, (_, places))| !places.is_empty());
    let mut open: Vec<usize> = with_places.map(|(at, _)| at).collect();
    open.retain(|at| choice.take(*at, max_bytes));
    loop {
        open.retain(|at| choice.next(*at) > 0);
        if open.is_empty() {
            return choice.counts;
        }
        let turn: u64 = open.iter().map(|at| choice.next(*at)).sum();
        if choice.total + turn > max_bytes {
            open.sort_by_key(|at| wants[*at].1[choice.counts[*at]].file);
        }
        open.retain(|at| choice.take(*at, max_bytes));
    }
}

struct Choice<'a> {
    wants: &'a [(Want, &'a [SlicePlace])],
    counts: Vec<usize>,
    taken: Vec<u64>,
    total: u64,
}

impl Choice<'_> {
    /// Bytes that a partition's next place adds: no more than its limit leaves.
    fn next(&self, at: usize) -> u64 {
        let (want, places) = &self.wants[at];
        let room = want.max_bytes.saturating_sub(self.taken[at]);
        let place = places.get(self.counts[at]);
        place.map_or(0, |place| u64::from(place.length).min(room))
    }

    /// Takes a partition's next place if it fits, or is the very first one.
    fn take(&mut self, at: usize, max_bytes: u64) -> bool {
        let bytes = self.next(at);
        if self.total > 0 && (bytes == 0 || self.total + bytes > max_bytes) {
            return false;
        }
        // An answer that took anything must not count as empty, even if nothing was asked for.
        let bytes = bytes.max(1);
        self.counts[at] += 1;
        self.taken[at] += bytes;
        self.total += bytes;
        true
    }
}

/// Bytes that the places of one partition offer at most.
pub fn offered_bytes(want: Want, places: &[SlicePlace]) -> u64 {
    let bytes: u64 = places.iter().map(|place| u64::from(place.length)).sum();
    bytes.min(want.max_bytes)
}

/// True if more of a partition is wanted than these places hold and exists after them: waiting
/// longer would bring no further places into this answer.
pub fn is_cut(want: Want, places: &[SlicePlace], high_watermark: i64) -> bool {
    let more = |last: &SlicePlace| last.last_offset + 1 < high_watermark;
    places.last().is_some_and(more) && offered_bytes(want, places) < want.max_bytes
}

#[cfg(test)]
mod tests {
    use meta::ids::FileId;

    use super::*;

    fn place(length: u32) -> SlicePlace {
        SlicePlace {
            file: FileId::default(),
            nonce: 0,
            file_length: 1_000,
            position: 16,
            length,
            base_offset: 0,
            last_offset: 0,
            max_timestamp: 0,
        }
    }

    fn counts(wants: &[(u64, &[u32])], max_bytes: u64) -> Vec<usize> {
        let places: Vec<Vec<SlicePlace>> = wants
            .iter()
            .map(|(_, lengths)| lengths.iter().copied().map(place).collect())
            .collect();
        let wants: Vec<(Want, &[SlicePlace])> = wants
            .iter()
            .zip(&places)
            .map(|((max_bytes, _), places)| {
                (
                    Want {
                        offset: 0,
                        max_bytes: *max_bytes,
                    },
                    places.as_slice(),
                )
            })
            .collect();
        choose(&wants, max_bytes)
    }

    #[test]
    fn the_limits_of_partition_and_answer_hold() {
        assert_eq!(counts(&[(100, &[60, 60, 60]), (100, &[60])], 1_000), [2, 1]);
        assert_eq!(counts(&[(100, &[60, 60]), (100, &[60])], 100), [2, 0]);
        assert_eq!(counts(&[(100, &[60]), (100, &[60])], 100), [1, 0]);
        assert_eq!(
            counts(&[(100, &[]), (100, &[10]), (100, &[10])], 1_000),
            [0, 1, 1]
        );
    }

    #[test]
    fn partitions_take_turns() {
        let four: &[u32] = &[10; 4];
        let thrice = [(100, four), (100, four), (100, four)];
        assert_eq!(counts(&thrice, 60), [2, 2, 2]);
        assert_eq!(counts(&thrice, 50), [2, 2, 1]);
        let short = [(100, four), (100, [1].as_slice()), (100, four)];
        assert_eq!(counts(&short, 61), [3, 1, 3]);
        assert_eq!(counts(&[(20, four), (100, four)], 1_000), [2, 4]);
    }

    #[test]
    fn the_turn_that_does_not_fit_is_for_the_oldest_files() {
        let in_files = |numbers: [u64; 3]| {
            numbers.map(|number| {
                let mut place = place(10);
                place.file.number = number;
                place
            })
        };
        let want = Want {
            offset: 0,
            max_bytes: 100,
        };
        let (ahead, behind) = (in_files([5, 6, 7]), in_files([1, 2, 3]));
        let wants: [(Want, &[SlicePlace]); 3] = [(want, &ahead), (want, &ahead), (want, &behind)];
        assert_eq!(choose(&wants, 40), [1, 1, 2]);
        assert_eq!(
            choose(&wants, 20),
            [1, 1, 0],
            "the first turn is the client's"
        );
    }

    #[test]
    fn the_first_partition_with_records_always_moves() {
        assert_eq!(
            counts(&[(0, &[]), (0, &[500, 500]), (0, &[5])], 1),
            [0, 1, 0]
        );
        assert_eq!(counts(&[(10, &[500]), (10, &[500])], 0), [1, 0]);
    }
}
