//! What producers were told against what readers found: is every acknowledged record there, once, and in the order of its producer? It
//! must not know how records were written or read.

use std::collections::BTreeMap;

use super::record::{Stream, parse};

/// What a producer knows of its records in one partition. It has one batch at a time on its way there, so that what is acknowledged
/// comes before what is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Records that were handed to the cluster, acknowledged or not.
    pub sent: u32,
    /// How many of them, from the first on, were acknowledged.
    pub acknowledged: u32,
}

/// What all producers were told, stream by stream.
pub type Written = BTreeMap<Stream, Told>;

/// Acknowledged records of all streams together.
pub fn acknowledged(written: &Written) -> u64 {
    let streams = written.values();
    streams.map(|told| u64::from(told.acknowledged)).sum()
}

/// Numbers that were seen, as runs: the first of each, and the one behind its last. While nothing is missing there is one run.
#[derive(Clone, Debug, Default)]
struct Numbers {
    runs: BTreeMap<u64, u64>,
}

impl Numbers {
    fn holds(&self, number: u64) -> bool {
        let before = self.runs.range(..=number).next_back();
        before.is_some_and(|(_, end)| number < *end)
    }

    /// The one behind the greatest.
    fn end(&self) -> u64 {
        self.runs.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// Adds a number that is not held.
    fn add(&mut self, number: u64) {
        let end = self.runs.remove(&(number + 1)).unwrap_or(number + 1);
        match self.runs.range_mut(..number).next_back() {
            Some((_, last)) if *last == number => *last = end,
            _ => drop(self.runs.insert(number, end)),
        }
    }

    /// How many are held below a number.
    fn below(&self, limit: u64) -> u64 {
        let runs = self.runs.range(..limit);
        runs.map(|(start, end)| limit.min(*end) - start).sum()
    }
}

/// What one reader has found, in the order of offsets.
#[derive(Clone, Debug)]
pub struct Found {
    producers: u32,
    streams: BTreeMap<Stream, Numbers>,
    records: u64,
    doubled: u64,
    out_of_order: u64,
    foreign: u64,
}

impl Found {
    /// Nothing yet, of so many producers.
    pub fn new(producers: u32) -> Self {
        Found {
            producers,
            streams: BTreeMap::new(),
            records: 0,
            doubled: 0,
            out_of_order: 0,
            foreign: 0,
        }
    }

    /// Records of any kind.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Takes the next record of a partition.
    pub fn note(&mut self, partition: i32, value: Option<&[u8]>) {
        self.records += 1;
        let own = value.and_then(parse).filter(|(stream, _)| {
            stream.partition == partition && stream.producer < self.producers
        });
        let Some((stream, number)) = own else {
            self.foreign += 1;
            return;
        };
        let (numbers, number) = (self.streams.entry(stream).or_default(), u64::from(number));
        if numbers.holds(number) {
            self.doubled += 1;
            return;
        }
        if number < numbers.end() {
            self.out_of_order += 1;
        }
        numbers.add(number);
    }

    /// Holds what was found against what was written.
    pub fn compare(&self, written: &Written) -> Comparison {
        let (mut missing, mut unsent) = (0, 0);
        for (stream, told) in written {
            let acknowledged = u64::from(told.acknowledged);
            let found = self.streams.get(stream);
            missing += acknowledged - found.map_or(0, |found| found.below(acknowledged));
        }
        for (stream, found) in &self.streams {
            let sent = written.get(stream).map_or(0, |told| u64::from(told.sent));
            unsent += found.below(u64::MAX) - found.below(sent);
        }
        Comparison {
            found: self.records,
            missing,
            doubled: self.doubled,
            out_of_order: self.out_of_order,
            foreign: self.foreign + unsent,
        }
    }
}

/// What one reader found, held against what was acknowledged; in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// All that it read. That may be more than was acknowledged: of a producer that gave up, the last batch may be there or not.
    pub found: u64,
    /// Acknowledged, and not found.
    pub missing: u64,
    /// Found again.
    pub doubled: u64,
    /// Found after a later record of the same stream.
    pub out_of_order: u64,
    /// Never written, or with other bytes or in another partition than they were.
    pub foreign: u64,
}

impl Comparison {
    /// True if every acknowledged record was found as it was written, once, in order, and nothing else.
    pub fn is_clean(&self) -> bool {
        self.missing + self.doubled + self.out_of_order + self.foreign == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::value;
    use super::*;

    const ONE: Stream = Stream {
        producer: 0,
        partition: 0,
    };
    const OTHER: Stream = Stream {
        producer: 1,
        partition: 0,
    };

    fn written(one: Told, other: Told) -> Written {
        BTreeMap::from([(ONE, one), (OTHER, other)])
    }

    fn told(sent: u32, acknowledged: u32) -> Told {
        Told { sent, acknowledged }
    }

    fn found(records: &[(Stream, u32)]) -> Found {
        let mut found = Found::new(2);
        for (stream, number) in records {
            found.note(0, Some(&value(*stream, *number)));
        }
        found
    }

    fn clean(records: u64) -> Comparison {
        Comparison {
            found: records,
            ..Comparison::default()
        }
    }

    #[test]
    fn what_is_there_once_and_in_order_is_clean() {
        let written = written(told(3, 3), told(2, 1));
        assert_eq!(acknowledged(&written), 4);
        let all = [(ONE, 0), (OTHER, 0), (ONE, 1), (ONE, 2)];
        let compared = found(&all).compare(&written);
        assert_eq!(compared, clean(4));
        assert!(compared.is_clean());
    }

    #[test]
    fn what_was_in_doubt_may_be_there_or_not() {
        let written = written(told(2, 1), told(0, 0));
        assert!(found(&[(ONE, 0)]).compare(&written).is_clean());
        assert!(found(&[(ONE, 0), (ONE, 1)]).compare(&written).is_clean());
    }

    #[test]
    fn a_missing_record_is_seen_wherever_it_was() {
        let written = written(told(3, 3), told(1, 1));
        for left_out in [(ONE, 0), (ONE, 1), (ONE, 2), (OTHER, 0)] {
            let mut records = vec![(ONE, 0), (ONE, 1), (OTHER, 0), (ONE, 2)];
            records.retain(|record| *record != left_out);
            let compared = found(&records).compare(&written);
            let expected = Comparison {
                missing: 1,
                ..clean(3)
            };
            assert_eq!(compared, expected, "{left_out:?}");
            assert!(!compared.is_clean());
        }
        assert_eq!(Found::new(2).compare(&written).missing, 4);
    }

    #[test]
    fn a_record_that_is_there_twice_is_not_taken_for_another() {
        let written = written(told(3, 3), told(0, 0));
        let compared = found(&[(ONE, 0), (ONE, 1), (ONE, 1)]).compare(&written);
        let expected = Comparison {
            missing: 1,
            doubled: 1,
            ..clean(3)
        };
        assert_eq!(compared, expected);
        // In another place, too.
        let compared = found(&[(ONE, 0), (ONE, 1), (ONE, 2), (ONE, 0)]).compare(&written);
        let expected = Comparison {
            doubled: 1,
            ..clean(4)
        };
        assert_eq!(compared, expected);
    }

    #[test]
    fn a_late_record_is_out_of_order_and_not_missing() {
        let written = written(told(4, 4), told(0, 0));
        let compared = found(&[(ONE, 0), (ONE, 3), (ONE, 1), (ONE, 2)]).compare(&written);
        let expected = Comparison {
            out_of_order: 2,
            ..clean(4)
        };
        assert_eq!(compared, expected);
        assert!(!compared.is_clean());
    }

    #[test]
    fn the_order_of_different_producers_is_of_no_account() {
        let written = written(told(2, 2), told(2, 2));
        let compared = found(&[(OTHER, 0), (ONE, 0), (ONE, 1), (OTHER, 1)]).compare(&written);
        assert!(compared.is_clean());
    }

    #[test]
    fn what_nobody_wrote_is_foreign() {
        let written = written(told(1, 1), told(0, 0));
        let mut found = found(&[(ONE, 0)]);
        found.note(0, Some(b"hello, sea"));
        found.note(0, None);
        // Of a producer that there is not; in another partition; later than what was sent; of a stream that sent nothing.
        let unknown = Stream {
            producer: 2,
            partition: 0,
        };
        found.note(0, Some(&value(unknown, 0)));
        found.note(1, Some(&value(ONE, 0)));
        found.note(0, Some(&value(ONE, 1)));
        found.note(0, Some(&value(OTHER, 0)));
        let expected = Comparison {
            foreign: 6,
            ..clean(7)
        };
        assert_eq!(found.compare(&written), expected);
    }

    #[test]
    fn numbers_are_kept_as_runs() {
        let mut numbers = Numbers::default();
        for number in [5, 0, 1, 4, 2, 7] {
            assert!(!numbers.holds(number));
            numbers.add(number);
            assert!(numbers.holds(number));
        }
        assert_eq!(numbers.runs, BTreeMap::from([(0, 3), (4, 6), (7, 8)]));
        assert_eq!((numbers.end(), numbers.below(5)), (8, 4));
        numbers.add(3);
        assert_eq!(numbers.runs, BTreeMap::from([(0, 6), (7, 8)]));
        assert_eq!((numbers.below(0), numbers.below(100)), (0, 7));
    }
}
