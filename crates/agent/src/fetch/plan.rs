//! Which slices an answer takes. Pure. It must not know where bytes come from.

use rpc::view::Place;

/// A partition as a fetch asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The first offset wanted.
    pub offset: i64,
    /// The most bytes for this partition.
    pub max_bytes: u64,
}

/// How many of each partition's places an answer of at most `max_bytes` takes. Partitions take turns,
/// in the order of the request and a slice each, and a turn is taken by all that have one left or by
/// none: what was written together lies in the same files, so few files serve an answer, and a reader
/// that is behind stays equally far behind in all its partitions. If not even the first turn fits,
/// those take it who come first. Whole slices are counted: which of their batches fit is seen when
/// they are read. The first place of the first partition that has one is always taken.
pub fn choose(wants: &[(Want, &[Place])], max_bytes: u64) -> Vec<usize> {
    let mut counts = vec![0; wants.len()];
    let mut taken = vec![0; wants.len()];
    let mut total = 0;
    let mut open: Vec<usize> = (0..wants.len()).collect();
    // What a partition takes next: no more than its limit leaves.
    let next = |at: usize, count: usize, taken: u64| {
        let (want, places): &(Want, &[Place]) = &wants[at];
        let place = places.get(count)?;
        Some(u64::from(place.length).min(want.max_bytes.saturating_sub(taken)))
    };
    for turn in 0.. {
        // Whoever has none left, or no room, is out; the very first place needs no room.
        open.retain(|&at| {
            let bytes = next(at, counts[at], taken[at]);
            bytes.is_some_and(|bytes| bytes > 0 || turn == 0)
        });
        let turns = open
            .iter()
            .filter_map(|&at| next(at, counts[at], taken[at]));
        if open.is_empty() || (turn > 0 && total + turns.sum::<u64>() > max_bytes) {
            break;
        }
        open.retain(|&at| {
            let bytes = next(at, counts[at], taken[at]).unwrap_or(0);
            let is_first = total == 0;
            if !is_first && (bytes == 0 || total + bytes > max_bytes) {
                return false;
            }
            counts[at] += 1;
            // An answer with anything in it is not empty, whatever was asked for.
            taken[at] += bytes.max(1);
            total += bytes.max(1);
            true
        });
    }
    counts
}

/// Bytes that the places of one partition offer at most.
pub fn offered_bytes(want: Want, places: &[Place]) -> u64 {
    let bytes: u64 = places.iter().map(|place| u64::from(place.length)).sum();
    bytes.min(want.max_bytes)
}

#[cfg(test)]
mod tests {
    use meta::ids::FileId;

    use super::*;

    fn place(length: u32) -> Place {
        Place {
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
        let places: Vec<Vec<Place>> = wants
            .iter()
            .map(|(_, lengths)| lengths.iter().copied().map(place).collect())
            .collect();
        let wants: Vec<(Want, &[Place])> = wants
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
        assert_eq!(
            counts(&[(100, four), (100, four), (100, four)], 60),
            [2, 2, 2]
        );
        assert_eq!(
            counts(&[(100, four), (100, four), (100, four)], 59),
            [1, 1, 1]
        );
        assert_eq!(
            counts(&[(100, four), (100, &[1]), (100, four)], 61),
            [3, 1, 3]
        );
        assert_eq!(counts(&[(20, four), (100, four)], 1_000), [2, 4]);
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
