//! One slot in one bucket as a writer sees it: a chain of records, to whose end it adds. A record is created at link n only
//! by somebody who has read links 0..n, so creating it is a compare-and-set on everything before it. It must not know
//! other buckets, nor why something is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ahead::{Link, links_after};
use super::ballot::Ballot;
use super::call::{Call, Said};
use super::record::{Kind, Record};
use super::rule::{Mutation, Rules};

/// What a writer knows of a chain, and the record that it is adding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Cell {
    /// Links below `chain`, which hold nothing but promises, as this process has read before.
    run: u32,
    /// The records behind those, without a gap.
    chain: Vec<Arc<Record>>,
    /// Links that were read beyond a gap.
    ahead: BTreeMap<u32, Link>,
    /// How many links are read at once at most.
    links_at_once: u32,
    writing: Option<Arc<Record>>,
    /// The record is being put at the end of the chain.
    is_putting: bool,
    /// Goes to the end of the chain after the record that is being written.
    queued: Option<Arc<Record>>,
    /// Links left out below the record that is being written; only a mutation leaves any out.
    left_out: u32,
    /// How many records lie below the writer's promise, once that is there.
    below_promise: Option<usize>,
    accepted: bool,
    /// The last record was created by a put of this writer: nothing lies behind it yet.
    created: bool,
    lost: bool,
}

/// What follows from a bucket's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Send(Vec<Call>),
    /// The record is in the chain.
    Written(Arc<Record>),
    /// A record of this ballot stands against it.
    Refused(Arc<Record>),
    /// An accept of a lower ballot lies where none can lie (R1).
    Broken,
    /// The bucket cannot be used for this slot: a link is unreadable, and may be a higher promise.
    Unusable {
        newer: bool,
    },
}

impl Cell {
    /// A chain of which so many links are known to be promises, and of which so many links are read at once at most.
    pub(crate) fn new(run: u32, links_at_once: u32) -> Self {
        Cell {
            run,
            links_at_once,
            ..Cell::default()
        }
    }

    /// Adds the record, after the one that is being written if there is one; yields the requests to make now.
    pub(crate) fn add(&mut self, slot: u64, record: Arc<Record>, rules: Rules) -> Vec<Call> {
        if self.lost {
            return Vec::new();
        }
        if self.writing.is_some() {
            self.queued = Some(record);
            return Vec::new();
        }
        self.writing = Some(Arc::clone(&record));
        self.put(slot, &record, rules)
    }

    /// Goes on with the record that waited.
    pub(crate) fn go_on(&mut self, slot: u64, rules: Rules) -> Vec<Call> {
        match self.queued.take() {
            Some(queued) => self.add(slot, queued, rules),
            None => Vec::new(),
        }
    }

    /// Takes the answer to a request.
    pub(crate) fn answered(
        &mut self,
        call: &Call,
        said: &Said,
        sealed: bool,
        rules: Rules,
    ) -> Option<Step> {
        let record = Arc::clone(self.writing.as_ref()?);
        let end = self.end();
        match (call, said) {
            (Call::Put { slot, .. }, Said::Unclear) if rules.broken(Mutation::AheadUncounted) => {
                self.left_out += 1;
                Some(Step::Send(self.put(*slot, &record, rules)))
            }
            (Call::Put { slot, .. }, Said::Unclear) => {
                self.is_putting = false;
                if !self.ahead.contains_key(&end) {
                    // The read begins after the answer to the put: an older "absent" would say nothing.
                    return Some(Step::Send(self.gets(*slot)));
                }
                self.absorb(*slot, &record, sealed, rules)
            }
            (Call::Put { .. }, Said::Done) => {
                self.created = true;
                Some(self.written(record))
            }
            (Call::Get { slot, link, .. }, Said::Found(_) | Said::Unreadable(_)) => {
                if let Some(found) = Link::of(said) {
                    self.ahead.insert(*link, found);
                }
                match self.is_putting || !self.ahead.contains_key(&end) {
                    true => None,
                    false => self.absorb(*slot, &record, sealed, rules),
                }
            }
            // Of what is read beyond the end, or while the record is put there, only records say anything.
            (Call::Get { link, .. }, _) if self.is_putting || *link != end => None,
            (Call::Get { .. }, Said::Absent) if reads_only(&record, rules) => {
                self.writing = None;
                self.below_promise = Some(self.chain.len());
                Some(Step::Written(record))
            }
            (Call::Get { slot, .. }, Said::Absent) => {
                self.is_putting = true;
                let again = self.put_call(*slot, &record).repeated();
                Some(Step::Send(vec![again]))
            }
            // A bucket that is refused says nothing that counts.
            (Call::Get { .. }, Said::Unclear) => Some(Step::Send(vec![call.repeated()])),
            _ => None,
        }
    }

    /// Takes the links that were read at the end of the chain, one after the other, as far as they stand against nothing.
    fn absorb(
        &mut self,
        slot: u64,
        record: &Arc<Record>,
        sealed: bool,
        rules: Rules,
    ) -> Option<Step> {
        while let Some(link) = self.ahead.remove(&self.end()) {
            let step = match link {
                Link::Holds(found) => self.found(record, found, sealed, rules),
                Link::Unreadable { newer } => {
                    self.stop();
                    Some(Step::Unusable { newer })
                }
            };
            if step.is_some() {
                return step;
            }
        }
        Some(Step::Send(self.put(slot, record, rules)))
    }

    fn found(
        &mut self,
        record: &Arc<Record>,
        found: Arc<Record>,
        sealed: bool,
        rules: Rules,
    ) -> Option<Step> {
        if *found == **record {
            // An earlier attempt landed.
            return Some(self.written(Arc::clone(record)));
        }
        match judge(record, &found, sealed, rules) {
            Judgement::Pass => {
                self.chain.push(found);
                None
            }
            Judgement::Refuse => {
                self.stop();
                Some(Step::Refused(found))
            }
            Judgement::Superfluous => {
                self.writing = None;
                Some(Step::Written(Arc::clone(record)))
            }
            Judgement::Broken => {
                self.stop();
                Some(Step::Broken)
            }
        }
    }

    /// Writes nothing more here.
    fn stop(&mut self) {
        self.lost = true;
        self.writing = None;
        self.ahead.clear();
    }

    fn written(&mut self, record: Arc<Record>) -> Step {
        match record.kind {
            Kind::Promise => self.below_promise = Some(self.chain.len()),
            Kind::Accept { .. } => self.accepted = true,
            Kind::Learned { .. } => {}
        }
        self.chain.push(Arc::clone(&record));
        self.writing = None;
        self.is_putting = false;
        Step::Written(record)
    }

    /// The first link that was not read.
    fn end(&self) -> u32 {
        self.run + self.chain.len() as u32 + self.left_out
    }

    /// Puts the record at the end of the chain as far as it was read. For a promise, links are read at the same time: it goes
    /// behind whatever lies there.
    fn put(&mut self, slot: u64, record: &Arc<Record>, rules: Rules) -> Vec<Call> {
        if reads_only(record, rules) {
            return vec![self.get(slot, self.end())];
        }
        self.is_putting = true;
        let mut calls = vec![self.put_call(slot, record)];
        let reads_ahead = record.kind == Kind::Promise && self.links_at_once > 1;
        if reads_ahead && !rules.broken(Mutation::AheadUncounted) {
            calls.extend(self.gets(slot));
        }
        calls
    }

    fn put_call(&self, slot: u64, record: &Arc<Record>) -> Call {
        Call::Put {
            slot,
            link: self.end(),
            record: Arc::clone(record),
            again: false,
        }
    }

    /// Reads the links from the end of the chain on.
    fn gets(&self, slot: u64) -> Vec<Call> {
        let links = links_after(self.chain.len() as u32, self.links_at_once);
        let end = self.end();
        (end..end + links)
            .filter(|link| !self.ahead.contains_key(link))
            .map(|link| self.get(slot, link))
            .collect()
    }

    fn get(&self, slot: u64, link: u32) -> Call {
        Call::Get {
            slot,
            link,
            again: false,
        }
    }

    /// The records that were read or written, and the link of the first of them.
    pub(crate) fn read(&self) -> (u32, &[Arc<Record>]) {
        (self.run, &self.chain)
    }

    pub(crate) fn is_promised(&self) -> bool {
        self.below_promise.is_some()
    }

    /// True if the chain, to whose end this writer has put its record, holds no accept of this ballot.
    pub(crate) fn lacks_accept_of(&self, ballot: Ballot) -> bool {
        let is_there = |record: &Arc<Record>| record.is_accept() && record.ballot == ballot;
        self.created && !self.chain.iter().any(is_there)
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.accepted
    }

    /// True if a value lies in the chain that this writer has not put there as an accept.
    pub(crate) fn holds_value(&self) -> bool {
        let mut records = self.chain.iter();
        !self.accepted && records.any(|record| record.content().is_some())
    }

    /// What the writer's promise saw: only what lies below it, in an unbroken chain, is evidence (R3).
    pub(crate) fn evidence(&self) -> &[Arc<Record>] {
        let below = self.below_promise.unwrap_or(0);
        &self.chain[..below]
    }

    /// Bytes that are being written, or wait.
    pub(crate) fn pending_bytes(&self) -> usize {
        let pending = self.writing.iter().chain(&self.queued);
        pending.map(|record| record.payload_bytes()).sum()
    }
}

/// True if a mutation has the record read for, and not written.
fn reads_only(record: &Record, rules: Rules) -> bool {
    record.kind == Kind::Promise && rules.broken(Mutation::ReadOnlyPrepare)
}

enum Judgement {
    Pass,
    Refuse,
    Superfluous,
    Broken,
}

/// Whether a record may be put above another (R1, and for promises R3).
fn judge(record: &Record, found: &Record, sealed: bool, rules: Rules) -> Judgement {
    let is_higher = found.ballot > record.ballot;
    match (&record.kind, &found.kind) {
        // Nothing supersedes a learned record; the same one makes another unnecessary.
        (Kind::Learned { content }, Kind::Learned { content: there }) => match content == there {
            true => Judgement::Superfluous,
            false => Judgement::Broken,
        },
        (Kind::Learned { .. }, _) => Judgement::Pass,
        (Kind::Accept { content, .. }, Kind::Learned { content: there }) => {
            match content == there {
                true => Judgement::Pass,
                false => Judgement::Refuse,
            }
        }
        (Kind::Promise, Kind::Learned { .. })
            if is_higher && rules.broken(Mutation::LearnedBelowIsNoReason) =>
        {
            Judgement::Pass
        }
        (Kind::Accept { .. }, _) if is_higher && rules.broken(Mutation::AcceptOverHigher) => {
            Judgement::Pass
        }
        _ if is_higher => Judgement::Refuse,
        (Kind::Accept { .. }, Kind::Accept { .. }) if !sealed => Judgement::Broken,
        // A ballot has one value in a slot.
        (Kind::Accept { .. }, Kind::Accept { .. }) if found.ballot == record.ballot => {
            Judgement::Broken
        }
        _ => Judgement::Pass,
    }
}
