//! Reading a chain several links at a time: how many, and what was found beyond a gap; and which chains are known to begin with
//! promises, so that who takes again does not read them again. It must not know who reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::BUCKETS;
use super::ballot::Ballot;
use super::call::Said;
use super::record::{Record, Unreadable};

/// Slots of which it is remembered how many promises their chains begin with.
const SLOTS_MAX: usize = 64;

/// A link that was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Link {
    Holds(Arc<Record>),
    /// It cannot be read, and may be a higher promise.
    Unreadable {
        newer: bool,
    },
}

impl Link {
    /// What the answer says of a link, if it says that one is there.
    pub(crate) fn of(said: &Said) -> Option<Link> {
        match said {
            Said::Found(record) => Some(Link::Holds(Arc::clone(record))),
            Said::Unreadable(why) => Some(Link::Unreadable {
                newer: *why == Unreadable::Newer,
            }),
            _ => None,
        }
    }
}

/// How many links are read at once behind so many that were read: as many and two more, so that a long chain takes few rounds and
/// a short one few requests.
pub(crate) fn links_after(read: u32, at_once: u32) -> u32 {
    (read + 2).min(at_once).max(1)
}

/// The promises that a chain begins with, as far as this process has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Run {
    links: u32,
    /// The highest ballot among them.
    ballot: Ballot,
}

/// How many links of chains, from the first on, hold promises only, so that a later attempt of this process need not read them
/// again: what precedes a record never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Runs {
    slots: BTreeMap<u64, [Run; BUCKETS]>,
}

impl Runs {
    /// The links that a reader may pass over.
    pub(crate) fn of(&self, slot: u64, bucket: usize) -> u32 {
        self.slots.get(&slot).map_or(0, |runs| runs[bucket].links)
    }

    /// The links that a writer under this ballot may pass over: none if a higher ballot stands among them (R1).
    pub(crate) fn below(&self, slot: u64, bucket: usize, ballot: Ballot) -> u32 {
        let run = self.slots.get(&slot).map(|runs| runs[bucket]);
        run.filter(|run| run.ballot < ballot)
            .map_or(0, |run| run.links)
    }

    /// Notes the records of a chain from this link on; those before are known.
    pub(crate) fn note<'a>(
        &mut self,
        slot: u64,
        bucket: usize,
        from: u32,
        records: impl IntoIterator<Item = &'a Arc<Record>>,
    ) {
        let promises = records.into_iter().take_while(|record| record.is_promise());
        for (link, record) in (from..).zip(promises) {
            let run = &mut self.slots.entry(slot).or_default()[bucket];
            if run.links == link {
                run.links += 1;
                run.ballot = run.ballot.max(record.ballot);
            }
        }
        if self.slots.len() > SLOTS_MAX {
            self.slots.pop_first();
        }
    }
}
