//! What goes into the core of the engine and comes out of it, and what its parts want of each other. It must not know what any
//! part does.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::BUCKETS;
use super::ahead::Runs;
use super::ballot::Ballot;
use super::call::{Ask, Call, Owner, Request, Said};
use super::floors::{Began, Why};
use super::judge::{Proven, Reading};
use super::record::Record;
use super::rule::{Mutation, Rules};
use super::seen::Seen;
use crate::engine::{Append, Content};

/// What does not change in the life of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Settings {
    /// W: slots that may be in flight. It stands in the configuration.
    pub(crate) window: u64,
    /// Slots in which a take asks for promises at first.
    pub(crate) seal_first: u64,
    /// How many links of a chain are read at once at most.
    pub(crate) links_at_once: u32,
}

/// What happens to the core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// Begin a tenure; `nonce` is fresh entropy (A4).
    Take {
        ask: Ask,
        wanted: Wanted,
        nonce: u128,
    },
    Append {
        ask: Ask,
        tenure: u64,
        index: u64,
        bytes: Bytes,
    },
    /// The caller relies on its claim.
    Confirmed(u64),
    Floor(Ask),
    Scan {
        ask: Ask,
        from: u64,
        slots: u64,
        order: [usize; BUCKETS],
        /// Two buckets are asked for all slots at once, not the nearest alone: more requests, and fewer one after the other.
        is_wide: bool,
    },
    /// A scan takes long: one more bucket is asked; once all were, it ends with what it has if two have answered.
    Hurry(Ask),
    /// A take or an append takes long.
    Late(Ask),
    /// A scan is to end with what it has.
    Enough(Ask),
    Trim {
        ask: Ask,
        tenure: u64,
        floor: u64,
        slots: Arc<[u64]>,
    },
    /// Look which of these slots the bucket does not prove by itself.
    Audit {
        ask: Ask,
        bucket: usize,
        slots: Range<u64>,
    },
    /// Write a slot that was read and is proven to the bucket as learned, unless it lies below the floor, which was read
    /// afterwards.
    Fill {
        bucket: usize,
        proven: Proven,
        floor: u64,
    },
    /// A slot is chosen, by the word of a snapshot's mark or of another process.
    Learned {
        slot: u64,
        ballot: Ballot,
    },
    /// Nobody waits for the answer any more.
    Dropped(Ask),
    Answered(Request, Said),
}

/// What the core wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    Send(Request),
    Done(Ask, Outcome),
    /// The bucket has lost data: it is not used any more.
    Refuse(usize, String),
    /// Something that must not be went wrong: the engine is not used any more.
    Alarm(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Taken {
        tenure: u64,
        settled: Vec<(u64, Content)>,
    },
    NotTaken(Over),
    Append(Append),
    Floor(u64),
    Read(Reading),
    /// Slots that the bucket does not prove by itself.
    Misses(Vec<u64>),
    Trimmed,
    /// The tenure is over: it trims nothing.
    NotTrimmed,
}

/// What a take is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    /// The caller's first slot: what it is given counts only if the floor is not above this one.
    pub(crate) first: u64,
    /// The first slot that the caller has not read; those before were read and proven.
    pub(crate) from: u64,
    /// Free slots below this one are closed, too.
    pub(crate) through: u64,
}

/// Why a tenure is over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Over {
    /// Another ballot is at work, or the caller asked for what a tenure does not do.
    Superseded,
    /// The floor is above the first slot of its take.
    Trimmed(u64),
}

/// What parts of the core do beside changing themselves.
pub(crate) struct Cx<'a> {
    pub(crate) settings: Settings,
    pub(crate) rules: Rules,
    pub(super) seen: Seen,
    pub(super) runs: Runs,
    pub(super) out: &'a mut Vec<Effect>,
    pub(super) wishes: Vec<Wish>,
}

/// What one part of the core wants of another.
pub(super) enum Wish {
    Look(Why, (u64, Began)),
    Proven(u64, Ballot, Content),
    /// Fill the window below the slot in all buckets, above the floor.
    FillTail(u64, u64),
}

impl Cx<'_> {
    pub(crate) fn send(&mut self, owner: Owner, bucket: usize, call: Call) {
        let request = Request {
            owner,
            bucket,
            call,
        };
        self.out.push(Effect::Send(request));
    }

    pub(crate) fn send_all(&mut self, owner: Owner, bucket: usize, calls: Vec<Call>) {
        for call in calls {
            self.send(owner, bucket, call);
        }
    }

    pub(crate) fn done(&mut self, ask: Ask, outcome: Outcome) {
        self.out.push(Effect::Done(ask, outcome));
    }

    pub(crate) fn refuse(&mut self, bucket: usize, why: String) {
        self.out.push(Effect::Refuse(bucket, why));
    }

    pub(crate) fn alarm(&mut self, what: String) {
        self.out.push(Effect::Alarm(what));
    }

    /// Remembers the ballot of a record that was read (R2).
    pub(crate) fn met(&mut self, record: &Record) {
        if record.is_learned() && self.rules.broken(Mutation::LearnedNoBallot) {
            return;
        }
        self.seen.met(record.ballot);
    }

    /// Remembers the ballot of a record that stands against one's own.
    pub(crate) fn refused(&mut self, by: &Record) {
        self.seen.refused(by.ballot);
    }

    pub(crate) fn look(&mut self, why: Why, began: (u64, Began)) {
        self.wishes.push(Wish::Look(why, began));
    }

    pub(crate) fn look_at_floor(&mut self, tenure: u64, began: Began) {
        self.look(Why::Tenure, (tenure, began));
    }

    pub(crate) fn proven(&mut self, slot: u64, ballot: Ballot, content: Content) {
        self.wishes.push(Wish::Proven(slot, ballot, content));
    }

    pub(crate) fn fill_tail(&mut self, below: u64, floor: u64) {
        self.wishes.push(Wish::FillTail(below, floor));
    }
}
