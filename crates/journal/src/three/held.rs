//! Noticing a bucket that lost records: what a leader had seen acknowledged there, by its own records in any bucket, has to be
//! there until it is trimmed. It must not know how a bucket came to lose anything, nor what becomes of it.

use std::sync::Arc;

use super::BUCKETS;
use super::ballot::Ballot;
use super::record::{Kind, Record};

/// Which buckets had acknowledged what this ballot's leader sent to the slot, by its records.
pub(crate) fn acknowledged<'a>(
    slot: u64,
    ballot: Ballot,
    records: impl Iterator<Item = &'a Arc<Record>>,
) -> [bool; BUCKETS] {
    let mut found = [false; BUCKETS];
    for record in records.filter(|record| record.ballot == ballot) {
        if let Kind::Accept { held, .. } = record.kind {
            for (found, through) in found.iter_mut().zip(held) {
                *found |= through >= slot;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Content;

    fn ballot(number: u64) -> Ballot {
        Ballot { number, nonce: 1 }
    }

    fn accept(number: u64, held: [u64; BUCKETS]) -> Arc<Record> {
        let content = Content::Filler;
        let kind = Kind::Accept {
            content,
            known: 0,
            held,
        };
        Arc::new(Record {
            ballot: ballot(number),
            kind,
        })
    }

    #[test]
    fn only_records_of_the_ballot_tell_what_its_leader_saw_acknowledged() {
        let records = [accept(1, [9, 9, 9]), accept(2, [5, 4, 0])];
        let of = |slot| acknowledged(slot, ballot(2), records.iter());
        assert_eq!(of(5), [true, false, false]);
        assert_eq!(of(4), [true, true, false]);
        assert_eq!(of(6), [false; BUCKETS]);
    }
}
