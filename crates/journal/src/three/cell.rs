//! One slot in one bucket as a writer sees it: a chain of records, to whose end it adds. A record is created at link n only
//! by somebody who has read links 0..n, so creating it is a compare-and-set on everything before it. It must not know
//! other buckets, nor why something is written.

use std::sync::Arc;

use super::call::{Call, Said};
use super::record::{Kind, Record};
use super::rule::{Mutation, Rules};

/// What a writer knows of a chain, and the record that it is adding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Cell {
    /// The records from link 0 on, without a gap.
    chain: Vec<Arc<Record>>,
    writing: Option<Arc<Record>>,
    /// Goes to the end of the chain after the record that is being written.
    queued: Option<Arc<Record>>,
    /// Links left out below the record that is being written; only a mutation leaves any out.
    left_out: u32,
    /// How many records lie below the writer's promise, once that is there.
    below_promise: Option<usize>,
    accepted: bool,
    lost: bool,
}

/// What follows from a bucket's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Send(Call),
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
    /// Adds the record, after the one that is being written if there is one; yields the request to make now.
    pub(crate) fn add(&mut self, slot: u64, record: Arc<Record>, rules: Rules) -> Option<Call> {
        if self.lost {
            return None;
        }
        if self.writing.is_some() {
            self.queued = Some(record);
            return None;
        }
        let call = match reads_only(&record, rules) {
            true => self.get(slot),
            false => self.put(slot, &record),
        };
        self.writing = Some(record);
        Some(call)
    }

    /// Goes on with the record that waited.
    pub(crate) fn go_on(&mut self, slot: u64, rules: Rules) -> Option<Call> {
        let queued = self.queued.take()?;
        self.add(slot, queued, rules)
    }

    /// Takes the answer to the request under way.
    pub(crate) fn answered(
        &mut self,
        call: &Call,
        said: &Said,
        sealed: bool,
        rules: Rules,
    ) -> Option<Step> {
        let record = Arc::clone(self.writing.as_ref()?);
        let step = match (call, said) {
            (Call::Put { slot, .. }, Said::Unclear) if rules.broken(Mutation::AheadUncounted) => {
                self.left_out += 1;
                Step::Send(self.put(*slot, &record))
            }
            // The read begins after the answer to the put: an older "absent" would say nothing.
            (Call::Put { slot, .. }, Said::Unclear) => Step::Send(self.get(*slot)),
            (Call::Put { .. }, Said::Done) => self.written(record),
            (Call::Get { slot, .. }, Said::Found(found)) => {
                self.found(*slot, &record, Arc::clone(found), sealed, rules)
            }
            (Call::Get { .. }, Said::Absent) if reads_only(&record, rules) => {
                self.writing = None;
                self.below_promise = Some(self.chain.len());
                Step::Written(record)
            }
            (Call::Get { slot, .. }, Said::Absent) => {
                Step::Send(self.put(*slot, &record).repeated())
            }
            (Call::Get { .. }, Said::Unreadable(why)) => {
                self.lost = true;
                self.writing = None;
                let newer = *why == super::record::Unreadable::Newer;
                Step::Unusable { newer }
            }
            // A bucket that is refused says nothing that counts.
            (Call::Get { .. }, Said::Unclear) => Step::Send(call.repeated()),
            _ => return None,
        };
        Some(step)
    }

    fn found(
        &mut self,
        slot: u64,
        record: &Arc<Record>,
        found: Arc<Record>,
        sealed: bool,
        rules: Rules,
    ) -> Step {
        if *found == **record {
            // An earlier attempt landed.
            return self.written(Arc::clone(record));
        }
        match judge(record, &found, sealed, rules) {
            Judgement::Pass => {}
            Judgement::Refuse => {
                self.lost = true;
                self.writing = None;
                return Step::Refused(found);
            }
            Judgement::Superfluous => {
                self.writing = None;
                return Step::Written(Arc::clone(record));
            }
            Judgement::Broken => {
                self.lost = true;
                self.writing = None;
                return Step::Broken;
            }
        }
        self.chain.push(found);
        match reads_only(record, rules) {
            true => Step::Send(self.get(slot)),
            false => Step::Send(self.put(slot, record)),
        }
    }

    fn written(&mut self, record: Arc<Record>) -> Step {
        match record.kind {
            Kind::Promise => self.below_promise = Some(self.chain.len()),
            Kind::Accept { .. } => self.accepted = true,
            Kind::Learned { .. } => {}
        }
        self.chain.push(Arc::clone(&record));
        self.writing = None;
        Step::Written(record)
    }

    fn put(&self, slot: u64, record: &Arc<Record>) -> Call {
        Call::Put {
            slot,
            link: self.chain.len() as u32 + self.left_out,
            record: Arc::clone(record),
            again: false,
        }
    }

    fn get(&self, slot: u64) -> Call {
        Call::Get {
            slot,
            link: self.chain.len() as u32,
            again: false,
        }
    }

    pub(crate) fn is_promised(&self) -> bool {
        self.below_promise.is_some()
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
