//! One fetch, from the first look to the parts of files that its answer takes: where records are,
//! how long to wait for more of them, which parts to load and how long to wait for those. Pure:
//! `handle(now, event)` yields effects. It must not know bytes, sockets, or Kafka's messages.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use host::clock::Instant;
use meta::ids::PartitionId;
use meta::places::{Located, SlicePlace};
use rpc::call::Locate;

use super::hub::Changes;
use super::item::Slot;
use super::items::Items;
use super::plan::{self, Want};
use crate::data::cache::{LoadError, Part};

/// Parts of files that one fetch loads side by side.
const LOADS_MAX: usize = 8;
/// How long an answer waits for the parts that it takes, even if the client's limit is shorter:
/// most come from a bucket sooner. Parts that come later are kept for the next fetch.
const LOAD_PATIENCE: Duration = Duration::from_millis(450);

/// How long an empty answer waits for memory. Readers that hold it and read too slowly lose their
/// connections sooner than that, and meanwhile there is nothing else to answer.
const MEMORY_PATIENCE: Duration = Duration::from_secs(20);

/// What a client asks of the whole answer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_bytes: u64,
    pub min_bytes: u64,
    /// How long the client waits for `min_bytes`.
    pub deadline: Instant,
}

/// What the shell does next. Each effect is answered by one event; a load by one of its own.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Ask where records are: answered by [`Event::Located`].
    Locate(Vec<Locate>),
    /// Wait until the index is current: answered by [`Event::Current`].
    Confirm,
    /// Wait for changes, or until an instant: answered by [`Event::Changed`], [`Event::Time`] or
    /// [`Event::Hurry`].
    Wait(Instant),
    /// Say which parts are in memory: answered by [`Event::Found`].
    Find(Vec<Wanted>),
    Load(Load),
    /// Wait for the loads until this instant, then send [`Event::Time`].
    LoadUntil(Instant),
    /// The fetch is over: see [`Poll::take`].
    Answer,
}

/// A part of a file, and the places that are wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub part: Part,
    pub places: Vec<(PartitionId, SlicePlace)>,
}

/// A part to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub part: Part,
    pub partition: PartitionId,
    pub place: SlicePlace,
    /// Whether the load may wait for memory; only if the fetch holds none.
    pub may_wait: bool,
    /// How often this load has failed: the shell pauses before it tries again.
    pub failures: u32,
}

#[derive(Debug)]
pub enum Event {
    /// The fetch begins; the changes are those since the session's last fetch.
    Begin(Changes),
    Located(Result<Vec<Located>, rpc::Error>),
    Current(Result<(), rpc::Error>),
    Changed(Changes),
    /// Others wait for memory that this fetch holds: it answers with what it has.
    Hurry,
    Time,
    Found(Vec<Part>),
    Loaded(Part, Result<(), LoadError>),
}

/// A partition in the answer, and the places to read for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub slot: Slot,
    pub partition: PartitionId,
    pub want: Want,
    pub places: Vec<SlicePlace>,
}

/// The result of a fetch: the places of each chosen partition, and the parts that could not be
/// read. A part that was neither read nor failed did not come in time.
#[derive(Debug, Default)]
pub struct Taken {
    pub chosen: Vec<Chosen>,
    pub failed: BTreeMap<Part, LoadError>,
}

#[derive(Debug)]
enum Step {
    Locating {
        slots: Vec<Slot>,
        is_current: bool,
    },
    Confirming,
    Waiting,
    Finding(Loading),
    Loading(Loading),
    /// A file was missing: its place may be outdated.
    LookingAgain {
        loading: Loading,
        slots: Option<Vec<Slot>>,
    },
    Over(Loading),
}

/// The parts that an answer takes.
#[derive(Clone, Debug, Default)]
struct Loading {
    chosen: Vec<Chosen>,
    parts: BTreeMap<Part, State>,
    queue: VecDeque<Part>,
    going: usize,
    until: Instant,
    has_waited: bool,
}

#[derive(Clone, Debug)]
struct State {
    load: Load,
    is_here: bool,
    is_going: bool,
    failed: Option<LoadError>,
}

#[derive(Debug)]
pub struct Poll {
    items: Items,
    limits: Limits,
    step: Step,
    /// When loads are no longer waited for; set when the first begins.
    load_until: Option<Instant>,
    has_looked_again: bool,
}

impl Poll {
    pub fn new(items: Items, limits: Limits) -> Self {
        Poll {
            items,
            limits,
            step: Step::Waiting,
            load_until: None,
            has_looked_again: false,
        }
    }

    /// The most partitions that the answer may mention.
    pub fn told_max(&self) -> usize {
        self.items.told_max()
    }

    /// Ends the fetch: the partitions, and what to read of them.
    pub fn take(self) -> (Items, Taken) {
        let (Step::Over(loading) | Step::Loading(loading)) = self.step else {
            return (self.items, Taken::default());
        };
        let failed = loading.parts.into_iter();
        let failed = failed.filter_map(|(part, state)| Some((part, state.failed?)));
        let taken = Taken {
            chosen: loading.chosen,
            failed: failed.collect(),
        };
        (self.items, taken)
    }

    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        let step = std::mem::replace(&mut self.step, Step::Waiting);
        match (step, event) {
            (Step::Waiting, Event::Begin(changes) | Event::Changed(changes)) => {
                self.items.note_all(changes);
                self.look(now)
            }
            (Step::Waiting, Event::Time) => self.decide(now),
            (Step::Waiting, Event::Hurry) => self.choose(now),
            (Step::Locating { slots, is_current }, Event::Located(located)) => {
                match located {
                    Ok(located) => self.items.locate(&slots, located, is_current),
                    Err(error) => self.items.fail(&slots, error),
                }
                self.look(now)
            }
            (Step::Confirming, Event::Current(outcome)) => {
                let slots = self.items.take_to_confirm();
                if let Err(error) = outcome {
                    self.items.fail(&slots, error);
                    return self.look(now);
                }
                self.locate(slots, true)
            }
            (Step::Finding(loading), Event::Found(parts)) => self.found(now, loading, parts),
            (Step::Loading(loading), Event::Loaded(part, outcome)) => {
                self.loaded(now, loading, part, outcome)
            }
            (Step::Loading(loading), Event::Time) if now >= loading.until => self.end(loading),
            (Step::LookingAgain { loading, slots }, event) => {
                self.look_again(now, loading, slots, event)
            }
            (step, _) => {
                // A part came after the fetch had stopped waiting for it.
                self.step = step;
                Vec::new()
            }
        }
    }

    /// Locates the partitions that need it, then decides.
    fn look(&mut self, now: Instant) -> Vec<Effect> {
        let slots = self.items.take_to_locate();
        if !slots.is_empty() {
            return self.locate(slots, false);
        }
        if self.items.has_to_confirm() {
            self.step = Step::Confirming;
            return vec![Effect::Confirm];
        }
        self.decide(now)
    }

    fn locate(&mut self, slots: Vec<Slot>, is_current: bool) -> Vec<Effect> {
        let requests = self.items.requests(&slots);
        self.step = Step::Locating { slots, is_current };
        vec![Effect::Locate(requests)]
    }

    fn decide(&mut self, now: Instant) -> Vec<Effect> {
        let deadline = self.limits.deadline;
        if now >= deadline || self.is_ready() || !self.items.may_change() {
            return self.choose(now);
        }
        self.step = Step::Waiting;
        vec![Effect::Wait(deadline)]
    }

    /// True if the answer need not wait: it has enough bytes, an error, or a partition with more
    /// places than one look names.
    fn is_ready(&self) -> bool {
        let mut bytes = 0;
        for (_, item) in self.items.readable() {
            let end = item.bounds().map_or(0, |bounds| bounds.high_watermark);
            if plan::is_cut(item.want, item.places(), end) {
                return true;
            }
            bytes += plan::offered_bytes(item.want, item.places());
        }
        bytes >= self.limits.min_bytes || self.items.to_tell().next().is_some()
    }

    /// Chooses the places that the answer takes, and finds out which parts are in memory.
    fn choose(&mut self, now: Instant) -> Vec<Effect> {
        let items: Vec<_> = self.items.readable().collect();
        let wants: Vec<(Want, &[SlicePlace])> = items
            .iter()
            .map(|(_, item)| (item.want, item.places()))
            .collect();
        let counts = plan::choose(&wants, self.limits.max_bytes);
        let chosen = items.iter().zip(counts).filter(|(_, count)| *count > 0);
        let chosen = chosen.map(|((slot, item), count)| Chosen {
            slot: *slot,
            partition: item.partition,
            want: item.want,
            places: item.places()[..count].to_vec(),
        });
        let mut loading = Loading::new(chosen.collect());
        let until = self.limits.deadline.max(now + LOAD_PATIENCE);
        loading.until = *self.load_until.get_or_insert(until);
        if loading.queue.is_empty() {
            return self.end(loading);
        }
        let wanted = loading.wanted();
        self.step = Step::Finding(loading);
        vec![Effect::Find(wanted)]
    }

    fn found(&mut self, now: Instant, mut loading: Loading, parts: Vec<Part>) -> Vec<Effect> {
        for part in parts {
            if let Some(state) = loading.parts.get_mut(&part) {
                state.is_here = true;
            }
        }
        let parts = &loading.parts;
        loading.queue.retain(|part| !parts[part].is_here);
        self.load(now, loading)
    }

    fn loaded(
        &mut self,
        now: Instant,
        mut loading: Loading,
        part: Part,
        outcome: Result<(), LoadError>,
    ) -> Vec<Effect> {
        loading.loaded(now, part, outcome);
        self.load(now, loading)
    }

    /// Begins the loads that may begin; ends the fetch if there are none.
    fn load(&mut self, now: Instant, mut loading: Loading) -> Vec<Effect> {
        let mut loads = loading.begin_loads();
        if loading.going == 0 {
            if !self.has_looked_again && loading.is_missing() {
                self.has_looked_again = true;
                let slots = None;
                self.step = Step::LookingAgain { loading, slots };
                return vec![Effect::Confirm];
            }
            match loading.begin_waiting(now) {
                Some(load) => loads.push(Effect::Load(load)),
                None => return self.end(loading),
            }
        }
        loads.push(Effect::LoadUntil(loading.until));
        self.step = Step::Loading(loading);
        loads
    }

    /// Locates the partitions of missing files once more, with a current answer. If their places
    /// have changed, the choice is made anew.
    fn look_again(
        &mut self,
        now: Instant,
        loading: Loading,
        slots: Option<Vec<Slot>>,
        event: Event,
    ) -> Vec<Effect> {
        match (slots, event) {
            (None, Event::Current(Ok(()))) => {
                let slots = loading.missing_slots();
                let requests = self.items.requests(&slots);
                let slots = Some(slots);
                self.step = Step::LookingAgain { loading, slots };
                vec![Effect::Locate(requests)]
            }
            (Some(slots), Event::Located(Ok(located))) => {
                let first = |items: &Items, slot: &Slot| items.places(*slot).first().copied();
                let before: Vec<_> = slots.iter().map(|slot| first(&self.items, slot)).collect();
                self.items.locate(&slots, located, true);
                let after = slots.iter().map(|slot| first(&self.items, slot));
                if after.eq(before) {
                    return self.end(loading);
                }
                self.choose(now)
            }
            (_, Event::Current(Err(_)) | Event::Located(Err(_))) => self.end(loading),
            (slots, _) => {
                self.step = Step::LookingAgain { loading, slots };
                Vec::new()
            }
        }
    }

    fn end(&mut self, loading: Loading) -> Vec<Effect> {
        self.step = Step::Over(loading);
        vec![Effect::Answer]
    }
}

impl Loading {
    fn new(chosen: Vec<Chosen>) -> Self {
        let mut loading = Loading::default();
        for partition in &chosen {
            for place in &partition.places {
                let part = plan::part_of(place);
                loading.parts.entry(part).or_insert_with(|| {
                    loading.queue.push_back(part);
                    State {
                        load: Load {
                            part,
                            partition: partition.partition,
                            place: *place,
                            may_wait: false,
                            failures: 0,
                        },
                        is_here: false,
                        is_going: false,
                        failed: None,
                    }
                });
            }
        }
        loading.chosen = chosen;
        loading
    }

    /// Every part, with all places that are wanted of it.
    fn wanted(&self) -> Vec<Wanted> {
        let mut wanted: BTreeMap<Part, Vec<(PartitionId, SlicePlace)>> = BTreeMap::new();
        for chosen in &self.chosen {
            for place in &chosen.places {
                let places = wanted.entry(plan::part_of(place)).or_default();
                places.push((chosen.partition, *place));
            }
        }
        let wanted = wanted.into_iter();
        wanted
            .map(|(part, places)| Wanted { part, places })
            .collect()
    }

    fn begin_loads(&mut self) -> Vec<Effect> {
        let mut loads = Vec::new();
        while self.going < LOADS_MAX
            && let Some(part) = self.queue.pop_front()
        {
            if let Some(state) = self.parts.get_mut(&part) {
                self.going += 1;
                state.is_going = true;
                loads.push(Effect::Load(state.load));
            }
        }
        loads
    }

    /// Begins to wait for memory, for one part only, if the answer would be empty. A fetch that
    /// holds no memory keeps nobody from giving his back.
    fn begin_waiting(&mut self, now: Instant) -> Option<Load> {
        let is_short = |state: &State| matches!(state.failed, Some(LoadError::NoRoom));
        let holds_nothing = !self.parts.values().any(|state| state.is_here);
        if self.has_waited || !holds_nothing || now >= self.until {
            return None;
        }
        let state = self.parts.values_mut().find(|state| is_short(state))?;
        self.has_waited = true;
        self.until = self.until.max(now + MEMORY_PATIENCE);
        self.going += 1;
        state.is_going = true;
        state.load.may_wait = true;
        Some(state.load)
    }

    fn loaded(&mut self, now: Instant, part: Part, outcome: Result<(), LoadError>) {
        let until = self.until;
        let Some(state) = self.parts.get_mut(&part) else {
            return;
        };
        if !std::mem::take(&mut state.is_going) {
            return;
        }
        self.going -= 1;
        match outcome {
            Ok(()) => {
                state.is_here = true;
                state.failed = None;
            }
            Err(error) => {
                // The bucket may yet answer in the time that is left.
                if matches!(error, LoadError::Unavailable(_)) && now < until {
                    state.load.failures += 1;
                    self.queue.push_back(part);
                }
                state.failed = Some(error);
            }
        }
    }

    fn is_missing(&self) -> bool {
        let mut states = self.parts.values();
        states.any(|state| matches!(state.failed, Some(LoadError::Missing)))
    }

    fn missing_slots(&self) -> Vec<Slot> {
        let is_missing = |place: &SlicePlace| {
            let state = self.parts.get(&plan::part_of(place));
            state.is_some_and(|state| matches!(state.failed, Some(LoadError::Missing)))
        };
        let missing = self.chosen.iter();
        let missing = missing.filter(|chosen| chosen.places.iter().any(is_missing));
        missing.map(|chosen| chosen.slot).collect()
    }
}

#[cfg(test)]
mod tests;
