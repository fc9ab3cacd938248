//! The two phases of a new ballot: promises (R3), then the values that they saw under the new ballot (R4). It must not know
//! what is appended afterwards.

use std::sync::Arc;

use super::super::BUCKETS;
use super::super::ballot::Ballot;
use super::super::call::{Call, Owner};
use super::super::cell::Cell;
use super::super::context::{Cx, Outcome, Over};
use super::super::floors::Began;
use super::super::record::Record;
use super::super::rule::Mutation;
use super::{Slot, Stage, Tenure};
use crate::engine::Content;

impl Tenure {
    /// Begins the first phase: promises in all three buckets at once, going on when two are through in each slot.
    pub(crate) fn begin(&mut self, cx: &mut Cx<'_>) {
        let from = self.wanted.from;
        self.seal(cx, from + cx.settings.seal_first);
    }

    /// Asks for promises in the slots up to this one.
    fn seal(&mut self, cx: &mut Cx<'_>, end: u64) {
        for index in self.sealing_to..end {
            self.open(cx, index);
            for bucket in 0..BUCKETS {
                let promise = Arc::new(Record::promise(self.ballot));
                self.add(cx, index, bucket, promise);
            }
        }
        self.sealing_to = self.sealing_to.max(end);
    }

    /// Fixes the claim's slot and the values once every slot is sealed in which a lower ballot may have an accept. What a
    /// promise saw that comes later does not count.
    pub(super) fn promised(&mut self, cx: &mut Cx<'_>) {
        if self.stage != Stage::Sealing {
            return;
        }
        let first = self.first_unseen(cx);
        let end = match cx.rules {
            rules if rules.broken(Mutation::SealOnlyFirst) => first + 1,
            rules if rules.broken(Mutation::EQuorum) => match self.first_empty() {
                Some(empty) => empty + cx.settings.window,
                None => return,
            },
            _ => first + cx.settings.window,
        };
        if end > self.sealing_to {
            self.seal(cx, end);
        }
        let quorum = match cx.rules.broken(Mutation::PromiseQuorum1) {
            true => 1,
            false => 2,
        };
        let from = self.wanted.from;
        let is_sealed = |index: u64| self.slots[&index].promises() >= quorum;
        if !(from..end).all(is_sealed) {
            return;
        }
        self.first = first;
        self.sealed_to = end;
        self.values = (from..first)
            .map(|index| self.slots[&index].value(cx))
            .collect();
        self.stage = Stage::Vouching;
        self.round += 1;
        self.late = false;
        self.vouched = [false; BUCKETS];
        for slot in self.slots.values_mut() {
            slot.counted = slot.cells.each_ref().map(Cell::is_promised);
        }
        let sealed = self.slots.range(from..end);
        let counts = |bucket: usize| sealed.clone().any(|(_, slot)| slot.counted[bucket]);
        let counted: Vec<usize> = (0..BUCKETS).filter(|bucket| counts(*bucket)).collect();
        for bucket in counted {
            // This look begins after the last promise that is counted (R3).
            let look = Call::Look {
                round: self.round,
                again: false,
            };
            cx.send(Owner::Tenure(self.number), bucket, look);
        }
    }

    /// The slot after the last one in which any promise in hand saw a value: `m`.
    fn first_unseen(&self, cx: &Cx<'_>) -> u64 {
        let from = self.wanted.from;
        let seen = |slot: &Slot| slot.seen().next().is_some();
        if cx.rules.broken(Mutation::HoleStop) {
            let hole = (from..).find(|index| !self.slots.get(index).is_some_and(seen));
            return hole.unwrap_or(from);
        }
        let last = self.slots.iter().rev().find(|(_, slot)| seen(slot));
        let unseen = last.map_or(from, |(index, _)| index + 1);
        unseen.max(from).max(self.wanted.through)
    }

    /// The first slot that the promises of two buckets found empty.
    fn first_empty(&self) -> Option<u64> {
        let is_empty = |slot: &Slot| {
            let mut cells = slot.cells.iter();
            let empty = cells.by_ref().filter(|cell| {
                cell.is_promised() && cell.evidence().iter().all(|r| r.content().is_none())
            });
            empty.count() >= 2
        };
        let mut slots = self.slots.iter();
        slots.find_map(|(index, slot)| is_empty(slot).then_some(*index))
    }

    /// Once buckets that look right hold two of the counted promises of every slot, the second phase begins. Where they do
    /// not, since a bucket that is late to be looked at holds some, the values are fixed anew once more promises have come:
    /// what these saw must be among the evidence before they count.
    pub(super) fn vouch(&mut self, cx: &mut Cx<'_>) {
        if self.stage != Stage::Vouching {
            return;
        }
        let quorum = match cx.rules.broken(Mutation::PromiseQuorum1) {
            true => 1,
            false => 2,
        };
        let vouched = self.vouched;
        let mut sealed = self.slots.range(self.wanted.from..self.sealed_to);
        if !sealed.all(|(_, slot)| slot.vouched(vouched) >= quorum) {
            if self.late && vouched.into_iter().filter(|right| *right).count() >= 2 {
                self.stage = Stage::Sealing;
                self.promised(cx);
            }
            return;
        }
        self.stage = Stage::Settling;
        let values = std::mem::take(&mut self.values);
        let from = self.wanted.from;
        self.settled = (from..).zip(values).collect();
        for (index, content) in self.settled.clone() {
            self.propose(cx, index, content);
        }
        self.settle(cx);
        if self.stage == Stage::Settling && cx.rules.broken(Mutation::ClaimUnwindowed) {
            self.run(cx);
        }
    }

    /// Ends the second phase once two buckets have accepted every slot under this ballot.
    pub(super) fn settle(&mut self, cx: &mut Cx<'_>) {
        if self.stage == Stage::Settling && self.known >= self.first {
            self.run(cx);
        }
    }

    /// Hands the tenure out. The floor is read while the caller sends its claim, which is sealed (R5, R6).
    fn run(&mut self, cx: &mut Cx<'_>) {
        self.stage = Stage::Running;
        self.begin_window(cx);
        if cx.rules.broken(Mutation::NoTakeoverFloor) {
            self.run_counts = true;
        } else {
            cx.look_at_floor(self.number, Began::Settled);
        }
        let taken = Outcome::Taken {
            tenure: self.number,
            settled: self.settled.clone(),
        };
        if let Some(ask) = self.taking.take() {
            cx.done(ask, taken);
        }
    }

    /// Gives the take up.
    pub(super) fn not_taken(&mut self, cx: &mut Cx<'_>, over: &Over) {
        if let Some(ask) = self.taking.take() {
            cx.done(ask, Outcome::NotTaken(over.clone()));
        }
    }
}

impl Slot {
    /// Promises in hand.
    fn promises(&self) -> usize {
        self.cells.iter().filter(|cell| cell.is_promised()).count()
    }

    /// Counted promises in buckets that look right.
    fn vouched(&self, right: [bool; BUCKETS]) -> usize {
        let both = self.counted.iter().zip(right);
        both.filter(|(counted, right)| **counted && *right).count()
    }

    /// The values that lie below the promises.
    fn seen(&self) -> impl Iterator<Item = (Ballot, &Content)> {
        let below = self.cells.iter().flat_map(|cell| cell.evidence());
        below.filter_map(|record| Some((record.ballot, record.content()?)))
    }

    /// What the second phase proposes here: the value of the highest ballot, or a filler (R4).
    fn value(&self, cx: &Cx<'_>) -> Content {
        let by_ballot = |(ballot, _): &(Ballot, &Content)| *ballot;
        let seen = match cx.rules {
            rules if rules.broken(Mutation::RecoverNothing) => None,
            rules if rules.broken(Mutation::RecoverLowest) => self.seen().min_by_key(by_ballot),
            _ => self.seen().max_by_key(by_ballot),
        };
        seen.map_or(Content::Filler, |(_, content)| content.clone())
    }
}
