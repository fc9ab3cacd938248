//! Entries that the node that leads says count, until the chain has come to them. They save a follower from reading the slots:
//! whatever is missing, or is more than a command in its place, is read from the journal. It must not know who told them.

use std::collections::BTreeMap;

use bytes::Bytes;
use host::clock::Instant;

use super::Slot;
use crate::engine::Content;

/// The most bytes that are kept; more are read from the journal.
const BYTES_MAX: usize = 16 << 20;
/// The most entries that are kept.
const ENTRIES_MAX: usize = 1_024;

/// Entries that were heard of and are not accepted yet, by slot.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    entries: BTreeMap<u64, Bytes>,
    bytes: usize,
    /// When entries last came that carried the chain on.
    pub(super) helped_at: Option<Instant>,
}

impl Hearsay {
    /// Keeps entries from slot `next` on, as far as there is room.
    pub(super) fn add(&mut self, next: u64, entries: Vec<(u64, Bytes)>) {
        for (index, entry) in entries {
            let is_new = index >= next && !self.entries.contains_key(&index);
            let has_room =
                self.entries.len() < ENTRIES_MAX && self.bytes + entry.len() <= BYTES_MAX;
            if is_new && has_room {
                self.bytes += entry.len();
                self.entries.insert(index, entry);
            }
        }
    }

    /// Takes the unbroken run that begins with slot `next`, and drops what lies before it.
    pub(super) fn run_from(&mut self, next: u64) -> Vec<Slot> {
        let mut run = Vec::new();
        while let Some(first) = self.entries.first_entry() {
            let expected = next + run.len() as u64;
            if *first.key() > expected {
                break;
            }
            let (index, entry) = first.remove_entry();
            self.bytes -= entry.len();
            if index == expected {
                run.push(Slot {
                    index,
                    content: Content::Entry(entry),
                    body: None,
                });
            }
        }
        run
    }

    /// Slot `next` was found free: what was told of slots beyond it is of no use before they are read.
    pub(super) fn found_free(&mut self, next: u64) {
        if self
            .entries
            .keys()
            .next()
            .is_some_and(|first| *first > next)
        {
            *self = Hearsay::default();
        }
    }

    /// True if entries are known beyond slots that are not.
    pub(super) fn has_gap(&self) -> bool {
        !self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(slots: &[Slot]) -> Vec<u64> {
        slots.iter().map(|slot| slot.index).collect()
    }

    fn entry(bytes: usize) -> Bytes {
        Bytes::from(vec![7; bytes])
    }

    #[test]
    fn an_unbroken_run_is_taken_and_what_lies_beyond_waits() {
        let mut hearsay = Hearsay::default();
        hearsay.add(
            5,
            vec![(4, entry(1)), (7, entry(1)), (5, entry(1)), (5, entry(2))],
        );
        assert_eq!(indices(&hearsay.run_from(5)), [5]);
        assert!(hearsay.has_gap());
        hearsay.add(6, vec![(6, entry(1))]);
        assert_eq!(indices(&hearsay.run_from(6)), [6, 7]);
        assert!(!hearsay.has_gap());
        assert_eq!(hearsay.bytes, 0);
    }

    #[test]
    fn what_was_read_meanwhile_is_dropped() {
        let mut hearsay = Hearsay::default();
        hearsay.add(1, (1..=9).map(|index| (index, entry(10))).collect());
        assert_eq!(indices(&hearsay.run_from(8)), [8, 9]);
        assert_eq!(hearsay.bytes, 0);
    }

    #[test]
    fn it_keeps_a_bounded_part() {
        let mut hearsay = Hearsay::default();
        let large = BYTES_MAX / 4;
        hearsay.add(1, (1..=9).map(|index| (index, entry(large))).collect());
        assert_eq!(hearsay.bytes, BYTES_MAX);
        let mut hearsay = Hearsay::default();
        hearsay.add(1, (1..=5_000).map(|index| (index, entry(0))).collect());
        assert_eq!(hearsay.run_from(1).len(), ENTRIES_MAX);
    }
}
