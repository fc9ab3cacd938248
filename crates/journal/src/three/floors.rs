//! A look at the floor: in two buckets, of which the higher is taken, which is never too low (R14). It must not know what
//! the floor is compared with.

use super::BUCKETS;
use super::call::Ask;
use super::rule::{Mutation, Rules};

/// What had been reached when a look began: a look says nothing of what came later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Began {
    Before,
    /// The tenure's first run was settled.
    Settled,
    /// The tenure's claim was chosen.
    Claimed,
}

/// Why somebody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Why {
    Asked(Ask),
    Tenure,
    /// An accept of a lower ballot lay in this slot, where none can lie (R1).
    Broken(u64),
    /// The bucket lacks what it had acknowledged in this slot: it was trimmed, or the bucket has lost it.
    Lost(u64, usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Floors {
    pub(crate) why: Why,
    /// The tenure at the time, and how far it was.
    pub(crate) began: (u64, Began),
    answers: [Option<u64>; BUCKETS],
}

impl Floors {
    pub(crate) fn new(why: Why, began: (u64, Began)) -> Self {
        Floors {
            why,
            began,
            answers: [None; BUCKETS],
        }
    }

    /// Takes a bucket's answer; the floor, once enough have answered.
    pub(crate) fn answered(&mut self, bucket: usize, floor: u64, rules: Rules) -> Option<u64> {
        self.answers[bucket] = Some(floor);
        let wanted = match rules.broken(Mutation::FloorReadOne) {
            true => 1,
            false => 2,
        };
        let known = self.answers.iter().flatten();
        match known.clone().count() >= wanted {
            true => known.max().copied(),
            false => None,
        }
    }
}
