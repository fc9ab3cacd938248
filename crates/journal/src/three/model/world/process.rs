//! A process of the model: a core, and above it what the journal's node does: it reads on, takes, claims, reads the floor and
//! appends. It must not know which step comes next.

use std::collections::BTreeSet;

use super::{Entry, Snapshot, World};
use crate::engine::{Append, Content};
use crate::three::BUCKETS;
use crate::three::call::{Ask, Request};
use crate::three::context::{Effect, Event, Outcome, Over, Settings, Wanted};
use crate::three::core::Core;
use crate::three::held::acknowledged;
use crate::three::judge::{Proof, Proven, Reading};
use crate::three::rule::{Mutation, Rules};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::three::model) enum Role {
    Idle,
    /// A scan is under way.
    Reading,
    /// What a scan gave waits for the floor.
    Doubting(Vec<Proven>),
    Taking,
    /// The claim is on its way, to the slot after these.
    Claiming(Claim),
    /// The claim is chosen, and the floor is being read.
    Confirming(Claim),
    Leading {
        claim: Claim,
        /// The slot of the next command.
        next: u64,
        /// Commands that are appended but not the slots before them.
        appended: BTreeSet<u64>,
        /// Every slot of the tenure below this one is acknowledged.
        acknowledged: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::three::model) struct Claim {
    pub(in crate::three::model) tenure: u64,
    /// The claim's number in the model.
    id: u32,
    slot: u64,
    settled: Vec<(u64, Content)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::three::model) struct Process {
    number: usize,
    pub(in crate::three::model) core: Core,
    pub(in crate::three::model) role: Role,
    /// The first slot that it does not know.
    pub(in crate::three::model) next: u64,
    /// Requests that are not answered yet.
    pub(in crate::three::model) requests: Vec<Request>,
    pub(in crate::three::model) told: Vec<(Ask, Outcome)>,
    pub(in crate::three::model) alarm: Option<String>,
    /// Buckets that it has taken for such as have lost data.
    pub(in crate::three::model) refused: Vec<(usize, String)>,
    asks: u64,
    /// The answer that it waits for.
    waits: Option<Ask>,
}

impl Process {
    pub(in crate::three::model) fn new(number: usize, settings: Settings, rules: Rules) -> Self {
        let core = Core::with_rules(settings, rules);
        Process {
            number,
            core,
            role: Role::Idle,
            next: 1,
            requests: Vec::new(),
            told: Vec::new(),
            alarm: None,
            refused: Vec::new(),
            asks: 0,
            waits: None,
        }
    }

    pub(in crate::three::model) fn feed(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.core.handle(event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send(request) => self.requests.push(request),
                Effect::Done(ask, outcome) => self.told.push((ask, outcome)),
                Effect::Refuse(bucket, why) => self.refused.push((bucket, why)),
                Effect::Alarm(why) => self.alarm = Some(why),
            }
        }
    }

    fn ask(&mut self) -> Ask {
        self.asks += 1;
        self.waits = Some(self.asks);
        self.asks
    }

    /// Its memory is gone; a snapshot is not (R2, R16).
    fn restart(&mut self, settings: Settings, rules: Rules, from: Snapshot) {
        *self = Process::new(self.number, settings, rules);
        self.load(from);
    }

    fn load(&mut self, from: Snapshot) {
        self.next = self.next.max(from.next);
        self.role = Role::Idle;
        let Snapshot { next, mark } = from;
        self.feed(Event::Learned {
            slot: next - 1,
            ballot: mark,
        });
    }
}

impl World {
    /// Begins to read the next slots.
    pub(in crate::three::model) fn scan(
        &mut self,
        process: usize,
        slots: u64,
        order: [usize; BUCKETS],
    ) {
        let one = &mut self.processes[process];
        let (ask, from) = (one.ask(), one.next);
        one.role = Role::Reading;
        one.feed(Event::Scan {
            ask,
            from,
            slots,
            order,
            is_wide: slots > 2,
        });
    }

    /// Begins to take from the next slot on.
    pub(in crate::three::model) fn take(&mut self, process: usize) -> Result<(), String> {
        self.takes += 1;
        let nonce = u128::from(self.takes);
        let one = &mut self.processes[process];
        let from = one.next;
        let ask = one.ask();
        let wanted = Wanted {
            first: from,
            from,
            through: from,
        };
        one.role = Role::Taking;
        one.feed(Event::Take { ask, wanted, nonce });
        self.settle(process)
    }

    /// The process finds that what it waits for is late.
    pub(in crate::three::model) fn late(&mut self, process: usize) -> Result<(), String> {
        let one = &mut self.processes[process];
        if let Some(ask) = one.waits {
            one.feed(Event::Late(ask));
        }
        self.settle(process)
    }

    /// Appends the next command, if the process leads.
    pub(in crate::three::model) fn command(&mut self, process: usize) -> Result<(), String> {
        let one = &mut self.processes[process];
        let Role::Leading { claim, next, .. } = &mut one.role else {
            return Ok(());
        };
        let index = *next;
        *next += 1;
        let bytes = Entry::Command(claim.id, (index - claim.slot - 1) as u32).bytes();
        let tenure = claim.tenure;
        one.asks += 1;
        // The number of an append's ask tells its slot.
        let ask = COMMANDS + index;
        one.feed(Event::Append {
            ask,
            tenure,
            index,
            bytes,
        });
        self.settle(process)
    }

    /// Whether the process leads and may send one more.
    pub(in crate::three::model) fn may_command(&self, process: usize) -> bool {
        // These rules bound a caller that itself knows no bound.
        let mut bounds = [Mutation::NoWindow, Mutation::CountOutOfOrder].into_iter();
        let unbounded = bounds.any(|mutation| self.rules.broken(mutation));
        match &self.processes[process].role {
            Role::Leading {
                next, acknowledged, ..
            } => unbounded || *next < acknowledged + self.settings.window,
            _ => false,
        }
    }

    pub(in crate::three::model) fn crash(&mut self, process: usize, from: Snapshot) {
        let (settings, rules) = (self.settings, self.rules);
        let asks = self.processes[process].asks;
        // What it has sent is on its way all the same: some of it never lands.
        for request in std::mem::take(&mut self.processes[process].requests) {
            self.leave_behind(&request);
        }
        self.processes[process].restart(settings, rules, from);
        self.processes[process].asks = asks;
    }

    /// Writes a slot to a bucket as learned, if the process has proven it; the floor is read now.
    pub(in crate::three::model) fn fill(
        &mut self,
        process: usize,
        bucket: usize,
        slot: u64,
    ) -> Result<(), String> {
        let floor = self.floor();
        if let Some(mut proven) = self.processes[process].core.proven_at(slot) {
            let mut records = Vec::new();
            for bucket in &self.buckets {
                let last = slot + 2 * self.settings.window;
                records.extend((slot..=last).flat_map(|slot| bucket.chain(slot)));
            }
            proven.acknowledged = acknowledged(slot, proven.ballot, records.iter());
            self.processes[process].feed(Event::Fill {
                bucket,
                proven,
                floor,
            });
        }
        self.settle(process)
    }

    /// Cuts a snapshot of what the process knows.
    pub(in crate::three::model) fn snapshot(&mut self, process: usize) {
        let one = &self.processes[process];
        let snapshot = Snapshot {
            next: one.next,
            mark: one.core.mark(),
        };
        self.snapshots.insert(snapshot);
    }

    /// The leader trims below a snapshot. Older ones are not in use any more.
    pub(in crate::three::model) fn trim(
        &mut self,
        process: usize,
        floor: u64,
    ) -> Result<(), String> {
        let Role::Leading { claim, .. } = &self.processes[process].role else {
            return Ok(());
        };
        let tenure = claim.tenure;
        let slots = self.valid_commands(floor).into();
        self.snapshots.retain(|snapshot| snapshot.next >= floor);
        let one = &mut self.processes[process];
        one.asks += 1;
        let ask = one.asks;
        one.feed(Event::Trim {
            ask,
            tenure,
            floor,
            slots,
        });
        self.settle(process)
    }

    /// The process acts on an answer.
    pub(in crate::three::model) fn hear(
        &mut self,
        process: usize,
        ask: Ask,
        outcome: Outcome,
    ) -> Result<(), String> {
        if ask >= COMMANDS {
            return match outcome {
                Outcome::Append(Append::Appended) => self.appended(process, ask - COMMANDS),
                _ => {
                    self.processes[process].role = Role::Idle;
                    Ok(())
                }
            };
        }
        if self.processes[process].waits != Some(ask) {
            return Ok(());
        }
        match outcome {
            Outcome::Taken { tenure, settled } => self.claim(process, tenure, settled),
            Outcome::NotTaken(Over::Trimmed(_)) => self.reload(process),
            Outcome::NotTaken(Over::Superseded) => self.processes[process].role = Role::Idle,
            Outcome::Append(outcome) => self.claimed(process, &outcome),
            Outcome::Floor(floor) => return self.floored(process, floor),
            Outcome::Read(reading) => return self.read(process, reading),
            Outcome::Trimmed | Outcome::NotTrimmed | Outcome::Misses(_) => {}
        }
        Ok(())
    }

    fn claim(&mut self, process: usize, tenure: u64, settled: Vec<(u64, Content)>) {
        self.entries += 1;
        let id = self.entries;
        let one = &mut self.processes[process];
        let index = settled.last().map_or(one.next, |(index, _)| index + 1);
        let ask = one.ask();
        one.role = Role::Claiming(Claim {
            tenure,
            id,
            slot: index,
            settled,
        });
        one.feed(Event::Append {
            ask,
            tenure,
            index,
            bytes: Entry::Claim(id).bytes(),
        });
    }

    fn claimed(&mut self, process: usize, outcome: &Append) {
        // The mutation is of a rule that both the core and the node keep.
        let mut floors = [
            Mutation::NoClaimFloor,
            Mutation::NoTakeoverFloor,
            Mutation::CmdBeforeConfirm,
        ]
        .into_iter();
        let skips_floor = floors.any(|mutation| self.rules.broken(mutation));
        let one = &mut self.processes[process];
        let Role::Claiming(claim) = one.role.clone() else {
            return;
        };
        if *outcome != Append::Appended {
            one.role = Role::Idle;
            return;
        }
        one.role = Role::Confirming(claim);
        let ask = one.ask();
        if skips_floor {
            one.told.push((ask, Outcome::Floor(0)));
        } else {
            one.feed(Event::Floor(ask));
        }
    }

    fn floored(&mut self, process: usize, floor: u64) -> Result<(), String> {
        let one = &mut self.processes[process];
        match one.role.clone() {
            Role::Confirming(_) | Role::Doubting(_) if floor > one.next => self.reload(process),
            Role::Confirming(claim) => {
                for (slot, content) in &claim.settled {
                    self.check_known(process, *slot, content)?;
                }
                let one = &mut self.processes[process];
                one.feed(Event::Confirmed(claim.tenure));
                one.next = claim.slot + 1;
                one.role = Role::Leading {
                    next: claim.slot + 1,
                    appended: BTreeSet::new(),
                    acknowledged: claim.slot + 1,
                    claim,
                };
            }
            Role::Doubting(slots) => {
                one.role = Role::Idle;
                for proven in slots {
                    self.know(process, &proven)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn read(&mut self, process: usize, reading: Reading) -> Result<(), String> {
        let floor = self.floor();
        let one = &mut self.processes[process];
        one.role = Role::Idle;
        if reading.slots.is_empty() {
            // A scan that ends where it ended before reads the floor (R13).
            if reading.answered >= 2 && floor > one.next {
                self.reload(process);
            }
            return Ok(());
        }
        let is_doubtful = reading.slots.iter().any(|slot| slot.proof == Proof::Quorum);
        if is_doubtful {
            one.role = Role::Doubting(reading.slots);
            let ask = one.ask();
            one.feed(Event::Floor(ask));
            return Ok(());
        }
        for proven in reading.slots {
            self.know(process, &proven)?;
        }
        Ok(())
    }

    fn know(&mut self, process: usize, proven: &Proven) -> Result<(), String> {
        self.check_known(process, proven.slot, &proven.content)?;
        let one = &mut self.processes[process];
        if proven.slot == one.next {
            one.next += 1;
        }
        Ok(())
    }

    /// Starts again from the newest snapshot.
    fn reload(&mut self, process: usize) {
        if let Some(newest) = self.snapshots.last().copied() {
            self.processes[process].load(newest);
        }
    }

    /// Counts an append: it is acknowledged once every slot before it is (R8).
    fn appended(&mut self, process: usize, slot: u64) -> Result<(), String> {
        let one = &mut self.processes[process];
        let Role::Leading {
            claim,
            appended,
            acknowledged,
            ..
        } = &mut one.role
        else {
            return Ok(());
        };
        appended.insert(slot);
        let (claim, before) = (claim.clone(), *acknowledged);
        while appended.remove(acknowledged) {
            *acknowledged += 1;
        }
        let through = *acknowledged;
        one.next = one.next.max(through);
        for slot in before..through {
            let number = (slot - claim.slot - 1) as u32;
            let content = Content::Entry(Entry::Command(claim.id, number).bytes());
            self.check_known(process, slot, &content)?;
            self.acknowledged += 1;
        }
        // Nothing between a claim and what is acknowledged under it makes that void.
        if through > before {
            let content = Content::Entry(Entry::Claim(claim.id).bytes());
            self.check_known(process, claim.slot, &content)?;
        }
        Ok(())
    }
}

/// Asks of commands begin here; their slot is added.
const COMMANDS: Ask = 1 << 32;
