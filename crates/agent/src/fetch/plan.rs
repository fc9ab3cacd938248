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

/// How many of each partition's places an answer of at most `max_bytes` takes, in the order of the
/// request. Whole slices are counted: which of their batches fit is seen when they are read. The
/// first place of the first partition that has one is always taken.
pub fn choose(wants: &[(Want, &[Place])], max_bytes: u64) -> Vec<usize> {
    let mut total = 0;
    let mut counts = Vec::with_capacity(wants.len());
    for (want, places) in wants {
        let allowed = want.max_bytes.min(max_bytes.saturating_sub(total));
        let mut bytes = 0;
        let mut count = 0;
        for place in *places {
            if bytes >= allowed && (total > 0 || bytes > 0) {
                break;
            }
            bytes += u64::from(place.length);
            count += 1;
        }
        total += bytes;
        counts.push(count);
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
        assert_eq!(
            counts(&[(100, &[]), (100, &[10]), (100, &[10])], 1_000),
            [0, 1, 1]
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
