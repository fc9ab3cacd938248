//! The core of the engine over three buckets: what callers want and what buckets say goes in, requests to buckets and
//! answers to callers come out. It does nothing itself: no I/O, no clock, no randomness. It must not know what entries mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::BUCKETS;
use super::ahead::Runs;
use super::audit::Audit;
use super::ballot::Ballot;
use super::call::{Ask, Call, Owner, Request, Said};
use super::cell::{Cell, Step};
use super::context::{Cx, Effect, Event, Outcome, Over, Settings, Wanted, Wish};
use super::floors::{Began, Floors, Why};
use super::judge::{Proof, Proven, Reading};
use super::read::Read;
use super::record::{Kind, Record};
use super::rule::{Mutation, Rules};
use super::seen::Seen;
use super::tenure::Tenure;
use super::trim::Trim;
use crate::engine::{Append, Content};

/// Slots that are kept in memory as proven, for filling the tail below a tenure.
const PROVEN_MAX: usize = 128;
/// Trims that some bucket is not through with; older ones are left to it.
const TRIMS_MAX: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Core {
    settings: Settings,
    rules: Rules,
    seen: Seen,
    runs: Runs,
    tenure: Option<Tenure>,
    /// Numbers given to tenures, looks and fills so far.
    numbers: u64,
    reads: BTreeMap<Ask, Read>,
    audits: BTreeMap<Ask, Audit>,
    floors: BTreeMap<u64, Floors>,
    trims: BTreeMap<Ask, Trim>,
    fills: BTreeMap<u64, Fill>,
    /// Slots that were proven last (R17).
    proven: BTreeMap<u64, (Ballot, Content)>,
}

/// A learned record on its way to a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Fill {
    slot: u64,
    bucket: usize,
    cell: Cell,
    /// The bucket had acknowledged the slot's accept of the same ballot.
    acknowledged: bool,
}

impl Core {
    pub(crate) fn new(settings: Settings) -> Self {
        Core::with_rules(settings, Rules::all())
    }

    pub(crate) fn with_rules(settings: Settings, rules: Rules) -> Self {
        Core {
            settings,
            rules,
            seen: Seen::default(),
            runs: Runs::default(),
            tenure: None,
            numbers: 0,
            reads: BTreeMap::new(),
            audits: BTreeMap::new(),
            floors: BTreeMap::new(),
            trims: BTreeMap::new(),
            fills: BTreeMap::new(),
            proven: BTreeMap::new(),
        }
    }

    /// The ballot that a snapshot must carry (R16).
    pub(crate) fn mark(&self) -> Ballot {
        self.seen.mark(self.rules)
    }

    /// The highest ballot that was met, and whether it is this process's own.
    pub(crate) fn highest(&self) -> (Ballot, bool) {
        self.seen.highest()
    }

    /// What is kept of a slot that was proven.
    pub(crate) fn proven_at(&self, slot: u64) -> Option<Proven> {
        let (ballot, content) = self.proven.get(&slot)?.clone();
        Some(Proven {
            slot,
            ballot,
            content,
            proof: Proof::Quorum,
            acknowledged: [false; BUCKETS],
        })
    }

    /// True if the tenure may still append.
    pub(crate) fn is_at_work(&self, tenure: u64) -> bool {
        let at_work = self.tenure.as_ref();
        at_work.is_some_and(|one| one.number == tenure && !one.is_over())
    }

    /// The slot after those that a tenure has sealed whose claim does not count yet: it has read them itself, and those beyond its
    /// claim hold nothing.
    pub(crate) fn sealed_to(&self) -> u64 {
        let begins = |one: &&Tenure| !one.is_over() && !one.counts();
        self.tenure
            .as_ref()
            .filter(begins)
            .map_or(0, |one| one.sealing_to)
    }

    /// The slot of the tenure's claim, if that counts.
    pub(crate) fn leads(&self, tenure: u64) -> Option<u64> {
        let tenure = self.tenure.as_ref().filter(|one| one.number == tenure)?;
        (tenure.counts() && !tenure.is_over()).then_some(tenure.first)
    }

    /// The slots that the bucket is known to miss, from the first one to before the second; they are taken for filled from
    /// now on.
    pub(crate) fn begin_mending(&mut self, tenure: u64, bucket: usize) -> Option<(u64, u64)> {
        let tenure = self.tenure_of(tenure)?;
        let end = tenure.known;
        Some((tenure.behind[bucket].take()?, end))
    }

    /// The bucket still misses slots from this one on.
    pub(crate) fn mending_failed(&mut self, tenure: u64, bucket: usize, first: u64) {
        if let Some(tenure) = self.tenure_of(tenure) {
            let behind = &mut tenure.behind[bucket];
            *behind = Some(behind.map_or(first, |known| known.min(first)));
        }
    }

    /// True while records are being written to the bucket as learned.
    pub(crate) fn is_filling(&self, bucket: usize) -> bool {
        self.fills.values().any(|fill| fill.bucket == bucket)
    }

    fn tenure_of(&mut self, number: u64) -> Option<&mut Tenure> {
        self.tenure.as_mut().filter(|one| one.number == number)
    }

    /// Takes an event.
    pub(crate) fn handle(&mut self, event: Event, out: &mut Vec<Effect>) {
        let mut cx = Cx {
            settings: self.settings,
            rules: self.rules,
            seen: std::mem::take(&mut self.seen),
            runs: std::mem::take(&mut self.runs),
            out,
            wishes: Vec::new(),
        };
        self.decide(&mut cx, event);
        while !cx.wishes.is_empty() {
            for wish in std::mem::take(&mut cx.wishes) {
                self.grant(&mut cx, wish);
            }
        }
        self.seen = cx.seen;
        self.runs = cx.runs;
    }

    fn decide(&mut self, cx: &mut Cx<'_>, event: Event) {
        match event {
            Event::Take { ask, wanted, nonce } => self.take(cx, ask, wanted, nonce),
            Event::Append {
                ask,
                tenure,
                index,
                bytes,
            } => match self.tenure_of(tenure) {
                Some(tenure) => tenure.append(cx, ask, index, bytes),
                None => cx.done(ask, Outcome::Append(Append::Superseded)),
            },
            Event::Confirmed(number) => {
                if let Some(tenure) = self.tenure_of(number) {
                    tenure.confirmed();
                }
            }
            Event::Floor(ask) => {
                let began = self.tenure.as_ref().map(Tenure::began);
                cx.look(Why::Asked(ask), began.unwrap_or((0, Began::Before)));
            }
            Event::Scan {
                ask,
                from,
                slots,
                order,
                is_wide,
            } => {
                let mut read = Read::new(from, slots, order, is_wide);
                read.begin(cx, ask);
                self.reads.insert(ask, read);
            }
            Event::Hurry(ask) => self.hurry(cx, ask),
            Event::Enough(ask) => self.end_read(cx, ask),
            Event::Late(ask) => {
                if let Some(tenure) = &mut self.tenure {
                    tenure.late(cx, ask);
                }
            }
            Event::Trim {
                ask,
                tenure,
                floor,
                slots,
            } => self.trim(cx, ask, tenure, Trim::new(floor, slots)),
            Event::Audit { ask, bucket, slots } => {
                let audit = Audit::begin(cx, ask, bucket, slots);
                self.audits.insert(ask, audit);
            }
            Event::Fill {
                bucket,
                proven,
                floor,
            } => {
                if proven.slot >= floor {
                    self.fill(cx, bucket, proven);
                }
            }
            Event::Learned { slot, ballot } => cx.seen.learned(slot, ballot),
            Event::Dropped(ask) => {
                self.reads.remove(&ask);
                self.audits.remove(&ask);
                self.floors.retain(|_, look| look.why != Why::Asked(ask));
            }
            Event::Answered(request, said) => self.answered(cx, &request, &said),
        }
    }

    fn hurry(&mut self, cx: &mut Cx<'_>, ask: Ask) {
        if let Some(read) = self.reads.get_mut(&ask)
            && !read.ask_next(cx, ask)
            && read.is_answered()
        {
            self.end_read(cx, ask);
        }
    }

    /// A scan ends with what it has.
    fn end_read(&mut self, cx: &mut Cx<'_>, ask: Ask) {
        if let Some(read) = self.reads.remove(&ask) {
            let reading = read.reading(cx, false);
            self.finish(cx, ask, reading);
        }
    }

    fn take(&mut self, cx: &mut Cx<'_>, ask: Ask, wanted: Wanted, nonce: u128) {
        if let Some(before) = &mut self.tenure {
            before.end(cx, Over::Superseded);
        }
        // What is being filled belongs to the tenure before; the next one fills its own tail.
        self.fills.clear();
        self.numbers += 1;
        let ballot = cx.seen.fresh(nonce, cx.rules);
        let mut tenure = Tenure::new(self.numbers, ballot, wanted, ask);
        tenure.begin(cx);
        self.tenure = Some(tenure);
    }

    fn trim(&mut self, cx: &mut Cx<'_>, ask: Ask, tenure: u64, mut trim: Trim) {
        if !self.is_at_work(tenure) {
            return cx.done(ask, Outcome::NotTrimmed);
        }
        trim.begin(cx, ask);
        self.trims.insert(ask, trim);
        if self.trims.len() > TRIMS_MAX {
            self.trims.pop_first();
        }
    }

    fn answered(&mut self, cx: &mut Cx<'_>, request: &Request, said: &Said) {
        let Request {
            owner,
            bucket,
            call,
        } = request;
        let bucket = *bucket;
        match *owner {
            Owner::Tenure(number) => {
                if let Some(tenure) = self.tenure_of(number) {
                    tenure.answered(cx, bucket, call, said);
                }
            }
            Owner::Floor(number) => self.floored(cx, number, bucket, (call, said)),
            Owner::Read(ask) => {
                if let Some(read) = self.reads.get_mut(&ask)
                    && let Some(reading) = read.answered(cx, ask, bucket, call, said)
                {
                    self.reads.remove(&ask);
                    self.finish(cx, ask, reading);
                }
            }
            Owner::Audit(ask) => {
                if let Some(audit) = self.audits.get_mut(&ask)
                    && let Some(misses) = audit.answered(cx, ask, call, said)
                {
                    self.audits.remove(&ask);
                    cx.done(ask, Outcome::Misses(misses));
                }
            }
            Owner::Trim(ask) => {
                if let Some(trim) = self.trims.get_mut(&ask)
                    && trim.answered(cx, ask, bucket, call, said)
                {
                    self.trims.remove(&ask);
                }
            }
            Owner::Fill(number) => self.filled(cx, number, call, said),
        }
    }

    /// Does what one part wants of another.
    fn grant(&mut self, cx: &mut Cx<'_>, wish: Wish) {
        match wish {
            Wish::Look(why, began) => {
                self.numbers += 1;
                self.floors.insert(self.numbers, Floors::new(why, began));
                for bucket in 0..BUCKETS {
                    let call = Call::Floor { again: false };
                    cx.send(Owner::Floor(self.numbers), bucket, call);
                }
            }
            Wish::Proven(slot, ballot, content) => {
                if !cx.rules.broken(Mutation::LearnedNoBallot) {
                    cx.seen.learned(slot, ballot);
                }
                self.proven.insert(slot, (ballot, content));
                if self.proven.len() > PROVEN_MAX {
                    self.proven.pop_first();
                }
            }
            Wish::FillTail(below, floor) => {
                let first = below.saturating_sub(self.settings.window).max(floor);
                for slot in first..below {
                    for bucket in 0..BUCKETS {
                        if let Some(proven) = self.proven_at(slot) {
                            self.fill(cx, bucket, proven);
                        }
                    }
                }
            }
        }
    }

    /// Hands a reading to its caller and remembers what it proves.
    fn finish(&mut self, cx: &mut Cx<'_>, ask: Ask, reading: Reading) {
        for proven in &reading.slots {
            if let Some(tenure) = &mut self.tenure {
                tenure.read(proven.slot, cx.rules);
            }
            cx.proven(proven.slot, proven.ballot, proven.content.clone());
        }
        cx.done(ask, Outcome::Read(reading));
    }

    /// Writes a slot that is proven to a bucket as learned (R17).
    fn fill(&mut self, cx: &mut Cx<'_>, bucket: usize, proven: Proven) {
        let Proven {
            slot,
            ballot,
            content,
            acknowledged,
            ..
        } = proven;
        let kind = Kind::Learned { content };
        let mut cell = Cell::new(cx.runs.of(slot, bucket), cx.settings.links_at_once);
        self.numbers += 1;
        let record = Arc::new(Record { ballot, kind });
        let calls = cell.add(slot, record, cx.rules);
        cx.send_all(Owner::Fill(self.numbers), bucket, calls);
        let fill = Fill {
            slot,
            bucket,
            cell,
            acknowledged: acknowledged[bucket],
        };
        self.fills.insert(self.numbers, fill);
    }

    fn filled(&mut self, cx: &mut Cx<'_>, number: u64, call: &Call, said: &Said) {
        let Some(fill) = self.fills.get_mut(&number) else {
            return;
        };
        match fill.cell.answered(call, said, true, cx.rules) {
            None => {}
            Some(Step::Send(calls)) => cx.send_all(Owner::Fill(number), fill.bucket, calls),
            Some(Step::Broken) => {
                cx.alarm(format!("slot {} is learned with two values", fill.slot));
                self.fills.remove(&number);
            }
            Some(Step::Written(record)) => {
                if fill.acknowledged && fill.cell.lacks_accept_of(record.ballot) {
                    cx.look(Why::Lost(fill.slot, fill.bucket), (0, Began::Before));
                }
                self.fills.remove(&number);
            }
            Some(Step::Refused(_) | Step::Unusable { .. }) => {
                self.fills.remove(&number);
            }
        }
    }

    /// Takes a bucket's answer to a look at the floor.
    fn floored(
        &mut self,
        cx: &mut Cx<'_>,
        number: u64,
        bucket: usize,
        (call, said): (&Call, &Said),
    ) {
        let Some(look) = self.floors.get_mut(&number) else {
            return;
        };
        let floor = match said {
            Said::Floor(floor) => *floor,
            // A bucket without a floor gives none (A3).
            Said::Wrong => return,
            _ => return cx.send(Owner::Floor(number), bucket, call.repeated()),
        };
        let Some(floor) = look.answered(bucket, floor, cx.rules) else {
            return;
        };
        let (why, (of, began)) = (look.why, look.began);
        self.floors.remove(&number);
        if let Some(tenure) = self.tenure_of(of) {
            tenure.floored(cx, began, floor);
        }
        match why {
            Why::Asked(ask) => cx.done(ask, Outcome::Floor(floor)),
            Why::Broken(slot) if floor <= slot => cx.alarm(format!(
                "slot {slot} holds an accept that nobody can have sent"
            )),
            Why::Lost(slot, bucket) if floor <= slot || cx.rules.broken(Mutation::LostNoFloor) => {
                cx.refuse(bucket, format!("it has lost what it held in slot {slot}"));
            }
            Why::Broken(_) | Why::Lost(..) | Why::Tenure => {}
        }
    }
}
