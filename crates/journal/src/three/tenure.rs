//! One tenure of the journal over three buckets: one ballot, from its first promise to the first sign of another owner
//! (R1, R6 to R9). It must not know what entries mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::BUCKETS;
use super::ballot::Ballot;
use super::call::{Ask, Call, Owner, Said};
use super::cell::{Cell, Step};
use super::context::{Cx, Outcome, Over, Wanted};
use super::floors::{Began, Why};
use super::record::{Kind, Record};
use super::rule::Mutation;
use crate::engine::window::Window;
use crate::engine::{Append, Content};

mod take;

/// How many slots behind the first unknown one a bucket may be before it counts as away. What is sent to it beyond that is
/// left to filling (R17).
const BEHIND_SLOTS_MAX: u64 = 64;
/// The same in bytes of entries that wait for one bucket.
const BEHIND_BYTES_MAX: usize = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// First phase.
    Sealing,
    /// The buckets that promised are looked at (A3).
    Vouching,
    /// Second phase.
    Settling,
    Running,
    Over,
}

/// A slot of the tenure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(super) cells: [Cell; BUCKETS],
    /// The promises that the first phase counts: those in hand when it fixed the values.
    pub(super) counted: [bool; BUCKETS],
    /// The record that is proposed here, made once.
    proposal: Option<Arc<Record>>,
    refusals: [bool; BUCKETS],
    chosen: bool,
    asks: Vec<Ask>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tenure {
    pub(super) number: u64,
    pub(super) ballot: Ballot,
    pub(super) wanted: Wanted,
    pub(super) stage: Stage,
    /// The caller that waits for the take.
    pub(super) taking: Option<Ask>,
    pub(super) slots: BTreeMap<u64, Slot>,
    /// Promises were asked for in every slot below this one.
    pub(super) sealing_to: u64,
    /// Slots below this one are sealed by a quorum of promises (R7); set when the first phase ends.
    pub(super) sealed_to: u64,
    /// The slot of the claim, once the first phase has ended.
    pub(super) first: u64,
    /// What the second phase proposes, between the phases.
    pub(super) values: Vec<Content>,
    /// How often the values were fixed.
    pub(super) round: u32,
    /// A promise has come since.
    pub(super) late: bool,
    /// Buckets that looked right at a look of this round.
    pub(super) vouched: [bool; BUCKETS],
    pub(super) settled: Vec<(u64, Content)>,
    /// The first slot that is not chosen under this ballot, by this tenure's own count.
    pub(super) known: u64,
    window: Option<Window>,
    /// R5 has passed.
    pub(super) run_counts: bool,
    claim_chosen: bool,
    /// R6 has passed.
    claim_counts: bool,
    /// Entries that wait for it.
    waiting: Vec<(Ask, u64, Bytes)>,
    /// See [`Kind::Accept`].
    held: [u64; BUCKETS],
    /// The first slot, if any, that a bucket was not sent or that was given up there.
    pub(super) behind: [Option<u64>; BUCKETS],
    /// The first slot, if any, that was given up in a bucket, whether or not it was filled since.
    given_up: [Option<u64>; BUCKETS],
}

impl Tenure {
    pub(super) fn new(number: u64, ballot: Ballot, wanted: Wanted, taking: Ask) -> Self {
        Tenure {
            number,
            ballot,
            wanted,
            stage: Stage::Sealing,
            taking: Some(taking),
            slots: BTreeMap::new(),
            sealing_to: wanted.from,
            sealed_to: wanted.from,
            first: wanted.from,
            values: Vec::new(),
            round: 0,
            late: false,
            vouched: [false; BUCKETS],
            settled: Vec::new(),
            known: wanted.from,
            window: None,
            run_counts: false,
            claim_chosen: false,
            claim_counts: false,
            waiting: Vec::new(),
            held: [0; BUCKETS],
            behind: [None; BUCKETS],
            given_up: [None; BUCKETS],
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    pub(super) fn counts(&self) -> bool {
        self.claim_counts
    }

    /// The slot, of whose chains it is known what they begin with if it was met before.
    pub(super) fn open(&mut self, cx: &Cx<'_>, index: u64) -> &mut Slot {
        let ballot = self.ballot;
        self.slots.entry(index).or_insert_with(|| {
            let run = |bucket| match cx.rules.broken(Mutation::PassOverHigher) {
                true => cx.runs.of(index, bucket),
                false => cx.runs.below(index, bucket, ballot),
            };
            let at_once = cx.settings.links_at_once;
            Slot {
                cells: std::array::from_fn(|bucket| Cell::new(run(bucket), at_once)),
                ..Slot::default()
            }
        })
    }

    /// Adds a record to a slot's chain in a bucket.
    pub(super) fn add(&mut self, cx: &mut Cx<'_>, index: u64, bucket: usize, record: Arc<Record>) {
        let Some(slot) = self.slots.get_mut(&index) else {
            return;
        };
        let cell = &mut slot.cells[bucket];
        if record.is_accept() && index >= self.sealed_to && cell.holds_value() {
            return self.broken(cx, index);
        }
        let calls = cell.add(index, record, cx.rules);
        cx.send_all(Owner::Tenure(self.number), bucket, calls);
    }

    pub(super) fn begin_window(&mut self, cx: &Cx<'_>) {
        let width = match cx.rules.broken(Mutation::NoWindow) {
            true => u64::MAX,
            false => cx.settings.window,
        };
        let mut window = Window::of_width(width, self.first);
        if cx.rules.broken(Mutation::CmdBeforeConfirm) {
            window.confirm();
        }
        self.window = Some(window);
    }

    /// Proposes a value in a slot, in all three buckets: above one's own promises where the slot is sealed, else at link
    /// 0, the fast path (R7).
    pub(super) fn propose(&mut self, cx: &mut Cx<'_>, index: u64, content: Content) {
        let kind = Kind::Accept {
            content,
            known: self.known_for_record(index, cx),
            held: self.held,
        };
        let ballot = self.ballot;
        let record = Arc::new(Record { ballot, kind });
        let slot = self.open(cx, index);
        slot.proposal = Some(Arc::clone(&record));
        for bucket in 0..BUCKETS {
            self.add(cx, index, bucket, Arc::clone(&record));
        }
    }

    /// `known` is at most the first slot of the take until R5 has passed, at most the claim's until R6 has (R9).
    fn known_for_record(&self, index: u64, cx: &Cx<'_>) -> u64 {
        let known = match cx.rules.broken(Mutation::KnownIsSent) {
            true => index,
            false => self.known,
        };
        if cx.rules.broken(Mutation::KnownUnsettled) {
            return known;
        }
        match (self.run_counts, self.claim_counts) {
            (_, true) => known,
            (true, false) => known.min(self.first),
            (false, false) => known.min(self.wanted.from),
        }
    }

    /// Takes a bucket's answer.
    pub(super) fn answered(&mut self, cx: &mut Cx<'_>, bucket: usize, call: &Call, said: &Said) {
        if self.is_over() {
            return;
        }
        let (Call::Put { slot: index, .. } | Call::Get { slot: index, .. }) = call else {
            match (call, said) {
                (Call::Look { round, .. }, Said::Done) if *round == self.round => {
                    self.vouched[bucket] = true;
                    self.vouch(cx);
                }
                (Call::Look { .. }, Said::Unclear) => {
                    cx.send(Owner::Tenure(self.number), bucket, call.repeated());
                }
                _ => {}
            }
            return;
        };
        // While it is being sealed, a slot holds only promises of this tenure.
        let sealed = self.stage == Stage::Sealing || *index < self.sealed_to;
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if let Said::Found(found) = said {
            cx.met(found);
        }
        let cell = &mut slot.cells[bucket];
        let step = cell.answered(call, said, sealed, cx.rules);
        let (from, chain) = cell.read();
        cx.runs.note(*index, bucket, from, chain);
        match step {
            None => {}
            Some(Step::Send(calls)) => cx.send_all(Owner::Tenure(self.number), bucket, calls),
            Some(Step::Written(record)) => self.written(cx, *index, bucket, &record),
            Some(Step::Refused(by)) => self.refused(cx, *index, bucket, &by),
            Some(Step::Broken) => self.broken(cx, *index),
            Some(Step::Unusable { newer }) => {
                if newer {
                    cx.alarm(format!("slot {index} holds a record of a newer version"));
                }
                self.refused_by(cx, *index, bucket);
            }
        }
    }

    /// An accept of a lower ballot lies in a slot that is not sealed, where none can lie: either the slot was trimmed, which
    /// the floor tells, or the argument by which the fast path is safe is broken (R1).
    fn broken(&mut self, cx: &mut Cx<'_>, index: u64) {
        cx.look(Why::Broken(index), (self.number, Began::Before));
        self.end(cx, Over::Superseded);
    }

    fn written(&mut self, cx: &mut Cx<'_>, index: u64, bucket: usize, record: &Record) {
        if let Some(slot) = self.slots.get_mut(&index) {
            let calls = slot.cells[bucket].go_on(index, cx.rules);
            cx.send_all(Owner::Tenure(self.number), bucket, calls);
        }
        match record.kind {
            Kind::Promise if self.stage == Stage::Vouching => {
                self.late = true;
                self.vouch(cx);
            }
            Kind::Promise => self.promised(cx),
            Kind::Accept { .. } => self.accepted(cx, index, bucket),
            Kind::Learned { .. } => {}
        }
    }

    fn accepted(&mut self, cx: &mut Cx<'_>, index: u64, bucket: usize) {
        while self.is_held(self.next_held(bucket), bucket) {
            self.held[bucket] = self.next_held(bucket);
        }
        let quorum = match cx.rules.broken(Mutation::AckQuorum1) {
            true => 1,
            false => 2,
        };
        let Some(slot) = self.slots.get_mut(&index) else {
            return;
        };
        let accepts = slot.cells.iter().filter(|cell| cell.is_accepted()).count();
        if accepts >= quorum && !slot.chosen {
            slot.chosen = true;
            let asks = std::mem::take(&mut slot.asks);
            self.chosen(cx, index, asks);
        }
        self.forget();
    }

    fn next_held(&self, bucket: usize) -> u64 {
        (self.held[bucket] + 1).max(self.wanted.from)
    }

    fn is_held(&self, index: u64, bucket: usize) -> bool {
        match self.slots.get(&index) {
            Some(slot) => slot.cells[bucket].is_accepted(),
            // Slots that were dropped are held, up to the first that was given up there.
            None => index < self.known && self.given_up[bucket].is_none_or(|first| index < first),
        }
    }

    /// A slot is chosen under this ballot: two buckets have accepted it.
    fn chosen(&mut self, cx: &mut Cx<'_>, index: u64, asks: Vec<Ask>) {
        let is_chosen = |index: &u64| self.slots.get(index).is_some_and(|slot| slot.chosen);
        let before = self.known;
        while is_chosen(&self.known) {
            self.known += 1;
        }
        if cx.rules.broken(Mutation::CountOutOfOrder) {
            self.known = self.known.max(index + 1);
        }
        for index in before..self.known {
            self.note(cx, index);
        }
        if let Some(window) = &mut self.window {
            window.appended(index);
            if cx.rules.broken(Mutation::CountOutOfOrder) {
                window.move_to(index + 1);
            }
        }
        for ask in asks {
            cx.done(ask, Outcome::Append(Append::Appended));
        }
        self.settle(cx);
        if index == self.first && self.window.is_some() && !self.claim_chosen {
            self.claim_chosen = true;
            if cx.rules.broken(Mutation::NoClaimFloor) {
                self.claim_counted(cx, 0);
            } else {
                cx.look_at_floor(self.number, Began::Claimed);
            }
        }
    }

    /// Notes a slot that this tenure has counted.
    fn note(&self, cx: &mut Cx<'_>, index: u64) {
        let proposal = self
            .slots
            .get(&index)
            .and_then(|slot| slot.proposal.as_ref());
        if let Some(content) = proposal.and_then(|record| record.content()) {
            cx.proven(index, self.ballot, content.clone());
        }
    }

    /// Drops slots that are wholly written, and those that a bucket is too far behind with.
    fn forget(&mut self) {
        let mut waiting = [0; BUCKETS];
        let mut dropped = Vec::new();
        for (index, slot) in self.slots.iter().rev() {
            for (cell, bytes) in slot.cells.iter().zip(&mut waiting) {
                *bytes += cell.pending_bytes();
            }
            let is_near = index + BEHIND_SLOTS_MAX >= self.known
                && waiting.iter().all(|bytes| *bytes <= BEHIND_BYTES_MAX);
            let is_done = slot.cells.iter().all(Cell::is_accepted);
            if *index < self.known && (is_done || !is_near) {
                dropped.push(*index);
            }
        }
        for index in dropped {
            let slot = self.slots.remove(&index).unwrap_or_default();
            let lists = self.behind.iter_mut().zip(&mut self.given_up);
            for (cell, (behind, given_up)) in slot.cells.iter().zip(lists) {
                if !cell.is_accepted() {
                    *given_up = Some(given_up.map_or(index, |first| first.min(index)));
                    *behind = Some(behind.map_or(index, |first| first.min(index)));
                }
            }
        }
    }

    /// A bucket has refused a record. In the first phase a single one is reason enough to give up; later it takes two
    /// buckets for one record: who is cut off with one bucket must not depose a leader (R1, R3).
    fn refused(&mut self, cx: &mut Cx<'_>, index: u64, bucket: usize, by: &Record) {
        cx.refused(by);
        let is_decided = by.is_learned() && by.ballot > self.ballot;
        if self.stage == Stage::Sealing || is_decided {
            return self.end(cx, Over::Superseded);
        }
        self.refused_by(cx, index, bucket);
    }

    fn refused_by(&mut self, cx: &mut Cx<'_>, index: u64, bucket: usize) {
        let Some(slot) = self.slots.get_mut(&index) else {
            return;
        };
        slot.refusals[bucket] = true;
        let refusals = slot.refusals.iter().filter(|refused| **refused).count();
        if refusals >= 2 {
            self.end(cx, Over::Superseded);
        }
    }

    /// A caller of this tenure waits for long. If one bucket has refused a record, the others may never choose it while one of them
    /// is away: the tenure is over, and the next take settles the slot. Where the two others answer, they have chosen it by now.
    pub(super) fn late(&mut self, cx: &mut Cx<'_>, ask: Ask) {
        let mut slots = self.slots.values();
        let is_mine = self.taking == Some(ask) || slots.any(|slot| slot.asks.contains(&ask));
        let is_refused = |slot: &Slot| !slot.chosen && slot.refusals.contains(&true);
        if is_mine && self.slots.values().any(is_refused) {
            self.end(cx, Over::Superseded);
        }
    }

    /// Ends the tenure: nothing more is sent, and all that wait are told.
    pub(super) fn end(&mut self, cx: &mut Cx<'_>, over: Over) {
        self.stage = Stage::Over;
        self.not_taken(cx, &over);
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let slots = std::mem::take(&mut self.slots).into_values();
        let asks = slots.flat_map(|slot| slot.asks);
        for ask in asks.chain(waiting.map(|(ask, ..)| ask)) {
            cx.done(ask, Outcome::Append(Append::Superseded));
        }
        if let Some(window) = &mut self.window {
            window.end();
        }
        self.settled = Vec::new();
    }

    /// Puts an entry into a slot.
    pub(super) fn append(&mut self, cx: &mut Cx<'_>, ask: Ask, index: u64, bytes: Bytes) {
        let superseded = Outcome::Append(Append::Superseded);
        let Some(window) = self
            .window
            .as_mut()
            .filter(|_| self.stage == Stage::Running)
        else {
            return cx.done(ask, superseded);
        };
        if let Err(why) = window.admit(index, &bytes) {
            tracing::debug!(index, why, "an append was refused, which ends the tenure");
            cx.done(ask, superseded);
            return self.end(cx, Over::Superseded);
        }
        if window.is_appended(index) {
            return cx.done(ask, Outcome::Append(Append::Appended));
        }
        // Until R5 and R6 have passed, nothing but the claim is sent.
        let early = cx.rules.broken(Mutation::CmdBeforeConfirm);
        if index > self.first && !self.claim_counts && !early {
            return self.waiting.push((ask, index, bytes));
        }
        self.send(cx, ask, index, bytes);
    }

    fn send(&mut self, cx: &mut Cx<'_>, ask: Ask, index: u64, bytes: Bytes) {
        let slot = self.open(cx, index);
        slot.asks.push(ask);
        if slot.proposal.is_none() {
            self.propose(cx, index, Content::Entry(bytes));
        }
    }

    /// The caller relies on the claim.
    pub(super) fn confirmed(&mut self) {
        if let Some(window) = &mut self.window {
            window.confirm();
        }
    }

    /// The floor as a look found it that began at this point of the tenure.
    pub(super) fn floored(&mut self, cx: &mut Cx<'_>, began: Began, floor: u64) {
        if self.stage != Stage::Running || began == Began::Before {
            return;
        }
        if floor > self.wanted.first && !cx.rules.broken(Mutation::NoTakeoverFloor) {
            // What was settled may be a past that was trimmed, what was sent has an unknown outcome (R5, R6).
            return self.end(cx, Over::Trimmed(floor));
        }
        self.run_counts = true;
        if cx.rules.broken(Mutation::FillBeforeR5) && began == Began::Settled {
            cx.fill_tail(self.wanted.from, 0);
        }
        if began == Began::Claimed {
            match floor > self.first {
                true => self.end(cx, Over::Trimmed(floor)),
                false => self.claim_counted(cx, floor),
            }
        }
    }

    /// R6 has passed: the window is open, and what only a quorum proves of the past is written as learned (R17).
    fn claim_counted(&mut self, cx: &mut Cx<'_>, floor: u64) {
        if self.claim_counts {
            return;
        }
        self.claim_counts = true;
        if !cx.rules.broken(Mutation::NoLearnedTail) {
            cx.fill_tail(self.wanted.from, floor);
        }
        for (ask, index, bytes) in std::mem::take(&mut self.waiting) {
            self.send(cx, ask, index, bytes);
        }
    }

    /// A reader has shown that a slot is chosen. It moves nothing (R7), unless a mutation lets it.
    pub(super) fn read(&mut self, index: u64, rules: super::rule::Rules) {
        if let Some(window) = &mut self.window
            && rules.broken(Mutation::WindowByChain)
        {
            window.move_to(index + 1);
        }
    }

    /// How far a look at the floor that begins now can vouch.
    pub(super) fn began(&self) -> (u64, Began) {
        let reached = match self.stage {
            Stage::Running if self.claim_chosen => Began::Claimed,
            Stage::Running => Began::Settled,
            _ => Began::Before,
        };
        (self.number, reached)
    }
}
