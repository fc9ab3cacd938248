//! What all simulated processes share: time, chance, the network, the bucket, the history, and the list of what went wrong.
//!
//! Must not know what processes do.

use std::collections::BTreeMap;

use host::clock::Instant;
use meta::Command;
use meta::ids::FileId;
use rpc::Call;

use crate::bucket::{self, Answer, Bucket, Plan, Request};
use crate::faults::{Fault, Faults};
use crate::network::{Network, Place};
use crate::scheduler::Scheduler;

use super::message::{Ask, Body, Number};
use super::store::{JournalAnswer, JournalRequest, JournalStore};
use crate::recorder::Recorder;

/// One life of a process: what was meant for an earlier one does not reach the next.
pub(super) type Life = u32;

/// What reaches a process.
#[allow(
    clippy::large_enum_variant,
    reason = "few of them exist at a time, and a box each would cost more"
)]
#[derive(Clone, Debug)]
pub(super) enum Input {
    Start,
    /// It asked to be woken.
    Wake,
    Message(Place, Body),
    /// A request was not answered in time.
    TimedOut(Number),
    Bucket(Number, BucketAnswer),
    /// The journal's engine, or the snapshot store, answered.
    Journal(Number, JournalAnswer),
}

/// An answer of the bucket that a trace shows in short.
#[derive(Clone)]
pub(super) struct BucketAnswer(pub(super) Answer);

impl std::fmt::Debug for BucketAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Answer::Found(bytes) => write!(f, "Found<{}>", bytes.len()),
            other => write!(f, "{other:?}"),
        }
    }
}

/// What happens in the world.
#[allow(
    clippy::large_enum_variant,
    reason = "few of them exist at a time, and a box each would cost more"
)]
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// Something reaches a process, if it is still that life of it; life 0 is any.
    To(Place, Life, Input),
    /// A request takes effect in the bucket.
    BucketEffect(Number),
    /// A request is answered by the bucket.
    BucketAnswer(Number),
    /// A request takes effect in the journal's engine.
    JournalEffect(Number),
    /// A request is answered by it.
    JournalAnswer(Number),
    /// A pause may be over.
    Resume(Place),
    /// A killed process comes back.
    Restart(Place),
    /// Faults that befall processes are drawn.
    Nemesis,
    Heal,
    /// The final readings begin.
    Final,
}

/// A request on its way.
pub(super) struct Flying<R, A> {
    pub(super) place: Place,
    pub(super) life: Life,
    pub(super) request: R,
    pub(super) plan: Plan,
    pub(super) answer: Option<A>,
}

/// The shared part of the world.
pub(super) struct Context {
    pub(super) scheduler: Scheduler<Happening>,
    pub(super) faults: Faults,
    pub(super) network: Network,
    pub(super) bucket: Bucket,
    pub(super) journal: JournalStore,
    pub(super) recorder: Recorder,
    /// The rule that nodes of the journal do without.
    pub(super) removed: Option<journal::rule::Rule>,
    pub(super) violations: Vec<String>,
    pub(super) bucket_flying: BTreeMap<Number, Flying<Request, Answer>>,
    pub(super) journal_flying: BTreeMap<Number, Flying<JournalRequest, JournalAnswer>>,
    /// Topics of the run and their numbers of partitions.
    pub(super) topics: BTreeMap<String, u32>,
    /// Partitions of topics that exist, by the history's keys.
    pub(super) partitions: BTreeMap<String, meta::ids::PartitionId>,
    /// The newest entry that any replica has applied.
    pub(super) newest_applied: u64,
    /// The life of every process now.
    pub(super) lives: BTreeMap<Place, Life>,
    next_value: i64,
    /// Set when a process is to die between two effects of the event it handles.
    pub(super) dying: Option<Place>,
    /// The digest of the state after an entry, as the first replica that came there had it.
    digests: BTreeMap<u64, [u8; 32]>,
    next_number: Number,
}

impl Context {
    /// An empty world.
    pub(super) fn new(
        scheduler: Scheduler<Happening>,
        faults: Faults,
        removed: Option<journal::rule::Rule>,
    ) -> Self {
        Context {
            scheduler,
            faults,
            network: Network::default(),
            bucket: Bucket::default(),
            journal: JournalStore::default(),
            recorder: Recorder::default(),
            removed,
            violations: Vec::new(),
            bucket_flying: BTreeMap::new(),
            journal_flying: BTreeMap::new(),
            topics: BTreeMap::new(),
            partitions: BTreeMap::new(),
            newest_applied: 0,
            lives: BTreeMap::new(),
            next_value: 0,
            dying: None,
            digests: BTreeMap::new(),
            next_number: 0,
        }
    }

    /// Simulated microseconds.
    pub(super) fn now_us(&self) -> u64 {
        self.scheduler.now_us()
    }

    /// The boot clock of every machine.
    pub(super) fn now(&self) -> Instant {
        Instant::from_micros(self.now_us())
    }

    /// A number that nobody had.
    pub(super) fn number(&mut self) -> Number {
        self.next_number += 1;
        self.next_number
    }

    /// A value that nobody sent yet.
    pub(super) fn value(&mut self) -> i64 {
        self.next_value += 1;
        self.next_value
    }

    /// Whether clients can know all topics.
    pub(super) fn topics_known(&self) -> bool {
        let partitions: u32 = self.topics.values().sum();
        self.partitions.len() == partitions as usize
    }

    /// Takes note of topics that exist now.
    pub(super) fn learn_topics(&mut self, state: &meta::State) {
        if self.topics_known() {
            return;
        }
        for topic in self.topics.keys().filter_map(|name| state.topic(name)) {
            for (index, id) in topic.partitions.iter().enumerate() {
                self.partitions
                    .insert(format!("{}/{index}", topic.name), *id);
            }
        }
    }

    /// Lets go of a request that has had its effect and its answer.
    pub(super) fn bucket_forget(&mut self, number: Number) {
        let over = self.bucket_flying.get(&number).is_some_and(|flying| {
            flying.plan.answer_us == 0
                && (flying.answer.is_some() || flying.plan.effect_us.is_none())
        });
        if over {
            self.bucket_flying.remove(&number);
        }
    }

    /// Something that must never happen did.
    pub(super) fn violation(&mut self, what: String) {
        self.scheduler.note(format_args!("VIOLATION {what}"));
        self.violations
            .push(format!("{} us: {what}", self.now_us()));
    }

    /// Every replica, by whatever way it came to an entry, has the same state there (rule 22).
    pub(super) fn compare_digests(&mut self, index: u64, digest: [u8; 32]) {
        let first = *self.digests.entry(index).or_insert(digest);
        if first != digest {
            self.violation(format!("replicas differ after entry {index}"));
        }
    }

    /// Whether the fault strikes.
    pub(super) fn strike(&mut self, fault: Fault) -> bool {
        self.faults.strike(fault, &mut self.scheduler.rng)
    }

    /// Sends a message. Produce requests keep the order of their connection, as TCP does; calls of agents run side by side.
    pub(super) fn send(&mut self, from: Place, to: Place, body: Body) {
        let now_us = self.now_us();
        let rng = &mut self.scheduler.rng;
        let delays = match &body {
            Body::Ask(_, Ask::Produce { lane, .. }) => {
                let pair = (from, to);
                let delay = self
                    .network
                    .send_in_order(now_us, *lane, pair, &mut self.faults, rng);
                delay.into_iter().collect()
            }
            _ => {
                let repeated = may_repeat(&body);
                self.network
                    .send(now_us, (from, to), repeated, &mut self.faults, rng)
            }
        };
        // What is on a connection is gone when the process at its end dies.
        let connected = matches!(body, Body::Ask(..));
        let life = if connected {
            self.lives.get(&to).copied().unwrap_or(0)
        } else {
            0
        };
        for delay_us in delays {
            let input = Input::Message(from, body.clone());
            self.scheduler
                .after(delay_us, Happening::To(to, life, input));
        }
    }

    /// Lets the process be told that time is over.
    pub(super) fn time_out(&mut self, place: Place, life: Life, delay_us: u64, number: Number) {
        self.scheduler.after(
            delay_us,
            Happening::To(place, life, Input::TimedOut(number)),
        );
    }

    /// Wakes the process at a time.
    pub(super) fn wake_at(&mut self, place: Place, life: Life, at_us: u64) {
        self.scheduler
            .at(at_us, Happening::To(place, life, Input::Wake));
    }

    /// Sends a request to the bucket.
    pub(super) fn ask_bucket(&mut self, place: Place, life: Life, request: Request) -> Number {
        let number = self.number();
        let plan = bucket::plan(&request, &mut self.faults, &mut self.scheduler.rng);
        if let Some(effect_us) = plan.effect_us {
            self.scheduler
                .after(effect_us, Happening::BucketEffect(number));
        }
        self.scheduler
            .after(plan.answer_us, Happening::BucketAnswer(number));
        self.bucket_flying.insert(
            number,
            Flying {
                place,
                life,
                request,
                plan,
                answer: None,
            },
        );
        number
    }

    /// Sends a request to the journal's engine or the snapshot store.
    pub(super) fn ask_journal(
        &mut self,
        place: Place,
        life: Life,
        request: JournalRequest,
    ) -> Number {
        let number = self.number();
        let like = request.like();
        let mut plan = bucket::plan(&like, &mut self.faults, &mut self.scheduler.rng);
        // Engines answer conflicts by reading the slot; damaged entries are another test's.
        plan.corrupt = false;
        if plan.instead == Some(Answer::Conflict) {
            plan.instead = Some(Answer::Unknown);
        }
        if let Some(effect_us) = plan.effect_us {
            self.scheduler
                .after(effect_us, Happening::JournalEffect(number));
        }
        self.scheduler
            .after(plan.answer_us, Happening::JournalAnswer(number));
        self.journal_flying.insert(
            number,
            Flying {
                place,
                life,
                request,
                plan,
                answer: None,
            },
        );
        number
    }
}

/// Calls that an agent's connection may carry twice, because repeating them is harmless by design.
fn may_repeat(body: &Body) -> bool {
    let Body::Call(_, Call::Propose(command)) = body else {
        return false;
    };
    matches!(
        **command,
        Command::RegisterAgent(_) | Command::CommitFile(_) | Command::SkipFile { .. }
    )
}

/// The key of a file in the bucket.
pub(super) fn file_key(file: FileId, nonce: u32) -> String {
    let id = agent::data::cache::stored_id(file);
    store::layout::file_key(id, nonce).as_str().to_owned()
}
