//! Three buckets and some processes, and what must be true of them at every step. It must not know who chooses the steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::Content;
use crate::three::BUCKETS;
use crate::three::ballot::Ballot;
use crate::three::call::{Call, Request, Said};
use crate::three::context::{Event, Settings};
use crate::three::judge::{Proof, Verdict, judge};
use crate::three::record::Record;
use crate::three::rule::Rules;
use crate::three::view::View;

pub(super) mod process;

use process::Process;

/// A put that was sent and may land at any time while its name is free.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Late {
    slot: u64,
    link: u32,
    record: Arc<Record>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    records: BTreeMap<(u64, u32), Arc<Record>>,
    pub(super) floor: u64,
    /// It has lost records, which a look shows.
    pub(super) is_wrong: bool,
    pub(super) late: Vec<Late>,
}

impl Bucket {
    /// The unbroken run from link 0, which alone counts.
    pub(super) fn chain(&self, slot: u64) -> Vec<Arc<Record>> {
        let links = (0..).map_while(|link| self.records.get(&(slot, link)).cloned());
        links.collect()
    }

    pub(super) fn wipe(&mut self) {
        self.records.clear();
        self.is_wrong = true;
    }

    pub(super) fn put(&mut self, slot: u64, link: u32, record: &Arc<Record>) -> bool {
        let is_free = !self.records.contains_key(&(slot, link));
        if is_free {
            self.records.insert((slot, link), Arc::clone(record));
        }
        is_free
    }
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum How {
    /// It takes effect now, and the answer comes.
    Now,
    /// The answer is lost; a put may land later.
    Lost,
}

/// A snapshot: the first slot after it, and what its manifest carries (R16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Snapshot {
    pub(super) next: u64,
    pub(super) mark: Ballot,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) rules: Rules,
    pub(super) buckets: [Bucket; BUCKETS],
    pub(super) processes: Vec<Process>,
    pub(super) snapshots: BTreeSet<Snapshot>,
    /// What was ever chosen, before a slot was trimmed.
    pub(super) truth: BTreeMap<u64, Content>,
    /// Slots that may have been deleted.
    pub(super) trimmed: BTreeSet<u64>,
    /// Entries made so far, so that each differs.
    pub(super) entries: u32,
    /// Takes begun so far: the nonces of ballots.
    pub(super) takes: u32,
    pub(super) acknowledged: u32,
}

impl World {
    pub(super) fn new(processes: usize, settings: Settings, rules: Rules) -> Self {
        let process = |number| Process::new(number, settings, rules);
        let genesis = Snapshot {
            next: 1,
            mark: Ballot::default(),
        };
        World {
            settings,
            rules,
            buckets: Default::default(),
            processes: (0..processes).map(process).collect(),
            snapshots: BTreeSet::from([genesis]),
            truth: BTreeMap::new(),
            trimmed: BTreeSet::new(),
            entries: 0,
            takes: 0,
            acknowledged: 0,
        }
    }

    /// The floor that stands in two buckets.
    pub(super) fn floor(&self) -> u64 {
        let mut floors = self.buckets.each_ref().map(|bucket| bucket.floor);
        floors.sort_unstable();
        floors[1]
    }

    /// Answers one of a process's requests.
    pub(super) fn answer(&mut self, process: usize, at: usize, how: How) -> Result<(), String> {
        let request = self.processes[process].requests.remove(at);
        let said = self.said(&request, how)?;
        self.processes[process].feed(Event::Answered(request, said));
        self.settle(process)
    }

    fn said(&mut self, request: &Request, how: How) -> Result<Said, String> {
        let bucket = &mut self.buckets[request.bucket];
        Ok(match &request.call {
            Call::Put {
                slot, link, record, ..
            } => {
                let (slot, link) = (*slot, *link);
                match how {
                    How::Now if bucket.put(slot, link, record) => {
                        self.changed(slot)?;
                        Said::Done
                    }
                    How::Now => Said::Unclear,
                    How::Lost => {
                        let record = Arc::clone(record);
                        bucket.late.push(Late { slot, link, record });
                        Said::Unclear
                    }
                }
            }
            _ if how == How::Lost => Said::Unclear,
            Call::Get { slot, link, .. } => match bucket.records.get(&(*slot, *link)) {
                Some(record) => Said::Found(Arc::clone(record)),
                None => Said::Absent,
            },
            Call::Floor { .. } => Said::Floor(bucket.floor),
            Call::Look { .. } if bucket.is_wrong => Said::Wrong,
            Call::Look { .. } => Said::Done,
            Call::Raise { floor, .. } => {
                bucket.floor = bucket.floor.max(*floor);
                Said::Done
            }
            Call::Sweep { slots, .. } => {
                bucket.records.retain(|(slot, _), _| !slots.contains(slot));
                self.trimmed.extend(slots.iter());
                Said::Done
            }
        })
    }

    /// A request whose sender has stopped may take effect later.
    pub(super) fn leave_behind(&mut self, request: &Request) {
        if let Call::Put {
            slot, link, record, ..
        } = &request.call
        {
            self.buckets[request.bucket].late.push(Late {
                slot: *slot,
                link: *link,
                record: Arc::clone(record),
            });
        }
    }

    /// A put lands that was thought lost.
    pub(super) fn land(&mut self, bucket: usize, at: usize) -> Result<(), String> {
        let Late { slot, link, record } = self.buckets[bucket].late.remove(at);
        if self.buckets[bucket].put(slot, link, &record) {
            self.changed(slot)?;
        }
        Ok(())
    }

    /// Lets a process act on what its core has told it, and checks that.
    pub(super) fn settle(&mut self, process: usize) -> Result<(), String> {
        loop {
            let told = std::mem::take(&mut self.processes[process].told);
            if told.is_empty() {
                break;
            }
            for (ask, outcome) in told {
                self.hear(process, ask, outcome)?;
            }
        }
        for (bucket, why) in std::mem::take(&mut self.processes[process].refused) {
            if !self.buckets[bucket].is_wrong {
                return Err(format!("process {process} refuses bucket {bucket}: {why}"));
            }
        }
        match self.processes[process].alarm.take() {
            Some(why) => Err(format!("process {process} raises an alarm: {why}")),
            None => Ok(()),
        }
    }

    /// Checks a slot whose chains have changed.
    fn changed(&mut self, slot: u64) -> Result<(), String> {
        let chains = self.buckets.each_ref().map(|bucket| bucket.chain(slot));
        for chosen in chosen(&chains) {
            let is_past = self.trimmed.contains(&slot);
            match self.truth.get(&slot) {
                None => drop(self.truth.insert(slot, chosen)),
                Some(truth) if *truth == chosen || is_past => {}
                Some(truth) => {
                    return Err(format!(
                        "slot {slot}: {truth:?} and {chosen:?} are both chosen"
                    ));
                }
            }
        }
        for slot in slot.saturating_sub(2 * self.settings.window)..=slot {
            self.check_readers(slot)?;
        }
        Ok(())
    }

    /// What readers may conclude from any one or two buckets must be true.
    fn check_readers(&self, slot: u64) -> Result<(), String> {
        for asked in [
            [true, false, false],
            [false, true, false],
            [false, false, true],
        ] {
            self.check_reader(slot, asked)?;
            self.check_reader(slot, asked.map(|asked| !asked))?;
        }
        Ok(())
    }

    fn check_reader(&self, slot: u64, asked: [bool; BUCKETS]) -> Result<(), String> {
        // What a bucket says that has lost records counts for nobody who looks at it.
        let mut both = self.buckets.iter().zip(asked);
        if both.any(|(bucket, asked)| asked && bucket.is_wrong) {
            return Ok(());
        }
        let views: [View; BUCKETS] = std::array::from_fn(|bucket| View {
            chain: match asked[bucket] {
                true => self.buckets[bucket].chain(slot),
                false => Vec::new(),
            },
            is_whole: asked[bucket],
            ..View::default()
        });
        let last = slot + 2 * self.settings.window;
        let later = std::array::from_fn(|bucket| {
            let slots = (slot + 1..=last).filter(|_| asked[bucket]);
            slots
                .flat_map(|slot| self.buckets[bucket].chain(slot))
                .collect()
        });
        let truth = self.truth.get(&slot);
        match judge(slot, &views, &later, self.rules) {
            // Of a trimmed slot, two buckets prove nothing without the floor, which a reader reads afterwards.
            Verdict::Chosen(_, _, Proof::Quorum) | Verdict::Free
                if self.trimmed.contains(&slot) =>
            {
                Ok(())
            }
            Verdict::Chosen(_, content, _) if truth != Some(&content) => Err(format!(
                "a reader of {asked:?} takes {content:?} for what slot {slot} holds, which is {truth:?}"
            )),
            Verdict::Free if truth.is_some() => Err(format!(
                "a reader of {asked:?} takes slot {slot} for free, which holds {truth:?}"
            )),
            _ => Ok(()),
        }
    }

    /// Checks that a process which relies on a slot's content is right.
    pub(super) fn check_known(
        &self,
        who: usize,
        slot: u64,
        content: &Content,
    ) -> Result<(), String> {
        match self.truth.get(&slot) {
            Some(truth) if truth == content => Ok(()),
            truth => Err(format!(
                "process {who} takes {content:?} for what slot {slot} holds, which is {truth:?}"
            )),
        }
    }

    /// The valid commands below this slot: only those may be deleted (R15).
    pub(super) fn valid_commands(&self, below: u64) -> Vec<u64> {
        let (mut claim, mut number, mut valid) = (None, 0, Vec::new());
        for (slot, content) in self.truth.range(..below) {
            let Content::Entry(bytes) = content else {
                continue;
            };
            match Entry::read(bytes) {
                Entry::Claim(id) => (claim, number) = (Some(id), 0),
                Entry::Command(of, n) if claim == Some(of) && n == number => {
                    number += 1;
                    valid.push(*slot);
                }
                Entry::Command(..) => {}
            }
        }
        valid
    }
}

/// The values that two buckets have accepted under one ballot.
fn chosen(chains: &[Vec<Arc<Record>>; BUCKETS]) -> Vec<Content> {
    let mut accepts: BTreeMap<Ballot, Vec<&Content>> = BTreeMap::new();
    for chain in chains {
        for record in chain.iter().filter(|record| record.is_accept()) {
            accepts
                .entry(record.ballot)
                .or_default()
                .extend(record.content());
        }
    }
    let pairs = accepts.into_values().filter(|contents| contents.len() >= 2);
    let pairs = pairs.filter_map(|contents| {
        let first = contents[0];
        let is_same = contents[1..].contains(&first);
        is_same
            .then(|| first.clone())
            .or_else(|| Some(contents[1].clone()))
    });
    pairs.collect()
}

/// What the entries of the model mean, as far as trimming must know.
pub(super) enum Entry {
    Claim(u32),
    /// Of this claim, the command of this number, from 0.
    Command(u32, u32),
}

impl Entry {
    pub(super) fn bytes(&self) -> bytes::Bytes {
        let (kind, one, two) = match self {
            Entry::Claim(id) => (0, *id, 0),
            Entry::Command(of, number) => (1, *of, *number),
        };
        let numbers = [kind, one, two].map(u32::to_le_bytes);
        numbers.concat().into()
    }

    fn read(bytes: &[u8]) -> Entry {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        match number(0) {
            0 => Entry::Claim(number(4)),
            _ => Entry::Command(number(4), number(8)),
        }
    }
}
