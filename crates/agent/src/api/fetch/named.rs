//! The partitions of a fetch, or of a session, as the client names them: each once, in a slot.
//! Names are looked up in the view of topics, which is made current before the client is told that
//! a topic does not exist.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use meta::ids::AgentId;
use wire::errors::ErrorCode;
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, FetchableTopicResponse};
use wire::text::Str;
use wire::uuid::Uuid;

use crate::api::errors;
use crate::api::origin::Guide;
use crate::data::fetch::item::{Bounds, Slot};
use crate::data::fetch::items::Items;
use crate::data::fetch::plan::Want;
use crate::data::fetch::run::YIELD_AFTER;
use crate::route::Routes;
use crate::view::{Topic, TopicKey, View, Views};

/// Memory that a session takes per partition, in all its tables: item, name, slot, and the entry by
/// which the hub finds who waits for commits.
const PARTITION_BYTES: u64 = 384;
/// Memory that it takes per topic, beside the name.
const TOPIC_BYTES: u64 = 128;
/// Memory that it takes whatever it names: changes that came while it rested.
const SESSION_BYTES: u64 = 16 << 10;

pub(crate) struct Named {
    by_id: bool,
    topics: Vec<Name>,
    /// By slot; `None` if the slot is free.
    entries: Vec<Option<Entry>>,
    taken: usize,
    /// Slots whose names were not looked up yet.
    unresolved: Vec<Slot>,
    /// Slots whose topic or partition does not exist (yet): each fetch looks them up again.
    refused: BTreeSet<Slot>,
    /// The agents among which readers were last sent about.
    routes: Option<Arc<Routes>>,
    /// Finds slots by name; built when a session's second request comes.
    index: Option<Index>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    name: Str,
    id: Uuid,
}

struct Entry {
    topic: usize,
    index: i32,
    /// The error of the leader epoch that the client sent, if it is wrong.
    epoch: ErrorCode,
    why_refused: ErrorCode,
    /// The agent to which the reader was sent for it: the partition is refused here, without an error.
    elsewhere: Option<AgentId>,
    /// The bounds that the client was told last.
    told: Option<Bounds>,
}

#[derive(Default)]
struct Index {
    topics: HashMap<Name, usize>,
    slots: HashMap<(usize, i32), Slot>,
}

impl Name {
    fn of(topic: &FetchTopic) -> Self {
        Name {
            name: topic.topic.clone(),
            id: topic.topic_id,
        }
    }
}

impl Named {
    /// The partitions of a request, each once, however often the request names it: so the answer is
    /// bounded by what exists.
    pub(super) fn new(
        request: &FetchRequest,
        by_id: bool,
        max_bytes: u64,
        items: &mut Items,
    ) -> Self {
        let mut named = Named {
            by_id,
            topics: request.topics.iter().map(Name::of).collect(),
            entries: Vec::new(),
            taken: 0,
            unresolved: Vec::new(),
            refused: BTreeSet::new(),
            routes: None,
            index: None,
        };
        let first_of = first_mentions(request);
        let mut repeated = repeated(request, &first_of).into_iter().peekable();
        // A topic is known by its first mention: a session finds its partitions by that.
        let asked = request
            .topics
            .iter()
            .zip(first_of)
            .flat_map(|(named, topic)| {
                let partitions = named.partitions.iter();
                partitions.map(move |asked| (topic, asked))
            });
        for (turn, (topic, asked)) in asked.enumerate() {
            if repeated.next_if_eq(&turn).is_none() {
                named.add(topic, asked, max_bytes, items);
            }
        }
        named
    }

    fn add(
        &mut self,
        topic: usize,
        asked: &FetchPartition,
        max_bytes: u64,
        items: &mut Items,
    ) -> Slot {
        let slot = items.add_refused(want(asked, max_bytes), true);
        let at = slot as usize;
        if self.entries.len() <= at {
            self.entries.resize_with(at + 1, || None);
        }
        self.entries[at] = Some(Entry {
            topic,
            index: asked.partition,
            epoch: errors::of_leader_epoch(asked.current_leader_epoch),
            why_refused: ErrorCode::NotLeaderOrFollower,
            elsewhere: None,
            told: None,
        });
        self.taken += 1;
        self.unresolved.push(slot);
        slot
    }

    /// Applies the changes that a session's next request brings. True if partitions were removed.
    pub(super) fn update(
        &mut self,
        request: &FetchRequest,
        max_bytes: u64,
        items: &mut Items,
    ) -> bool {
        self.unresolved.extend(&self.refused);
        if request.topics.is_empty() && request.forgotten_topics_data.is_empty() {
            return false;
        }
        let mut has_removed = false;
        let mut index = self.index.take().unwrap_or_else(|| Index::of(self));
        for named in &request.topics {
            let topic = index.topic(Name::of(named), &mut self.topics);
            for asked in &named.partitions {
                let key = (topic, asked.partition);
                if let Some(slot) = index.slots.get(&key) {
                    items.want(*slot, want(asked, max_bytes));
                    self.note_epoch(*slot, asked.current_leader_epoch);
                } else {
                    let slot = self.add(topic, asked, max_bytes, items);
                    index.slots.insert(key, slot);
                }
            }
        }
        for forgotten in &request.forgotten_topics_data {
            let name = Name {
                name: forgotten.topic.clone(),
                id: forgotten.topic_id,
            };
            let Some(topic) = index.topics.get(&name) else {
                continue;
            };
            for partition in &forgotten.partitions {
                if let Some(slot) = index.slots.remove(&(*topic, *partition)) {
                    items.remove(slot);
                    self.entries[slot as usize] = None;
                    self.refused.remove(&slot);
                    self.taken -= 1;
                    has_removed = true;
                }
            }
        }
        self.index = Some(index);
        has_removed
    }

    /// Notes the leader epoch that the client sent.
    fn note_epoch(&mut self, slot: Slot, epoch: i32) {
        let epoch = errors::of_leader_epoch(epoch);
        if let Some(Some(entry)) = self.entries.get_mut(slot as usize)
            && std::mem::replace(&mut entry.epoch, epoch) != epoch
        {
            self.unresolved.push(slot);
        }
    }

    /// Looks up the names that were not looked up or not found yet. True if any was found.
    pub(super) async fn resolve(
        &mut self,
        views: &Views,
        guide: Guide<'_>,
        items: &mut Items,
    ) -> bool {
        self.note_routes(&views.latest().routes, guide);
        let slots = std::mem::take(&mut self.unresolved);
        let asked = slots.len();
        let mut missing = Vec::new();
        for slots in slots.chunks(YIELD_AFTER) {
            let view = views.latest();
            missing.extend(self.resolve_in(&view, guide, slots, items));
            if slots.len() == YIELD_AFTER {
                tokio::task::yield_now().await;
            }
        }
        if missing.is_empty() {
            return asked > 0;
        }
        let unknown = match views.refresh_current().await {
            Ok(view) => {
                missing = self.resolve_in(&view, guide, &missing, items);
                None
            }
            Err(error) => Some(errors::of_read(&error)),
        };
        let is_found = missing.len() < asked;
        for slot in missing {
            let code = unknown.unwrap_or_else(|| self.unknown(slot, views));
            self.refuse(slot, code, unknown.is_some(), items);
        }
        is_found
    }

    /// Looks names up in a view; yields those that are not in it.
    fn resolve_in(
        &mut self,
        view: &View,
        guide: Guide<'_>,
        slots: &[Slot],
        items: &mut Items,
    ) -> Vec<Slot> {
        let zone = guide.zone(&view.routes);
        let mut missing = Vec::new();
        let mut last: Option<(usize, Option<&Arc<Topic>>)> = None;
        for slot in slots {
            let Some(Some(entry)) = self.entries.get(*slot as usize) else {
                continue;
            };
            let found = match last {
                Some((topic, found)) if topic == entry.topic => found,
                _ => view.find(self.key(entry.topic)),
            };
            last = Some((entry.topic, found));
            let (index, epoch) = (entry.index, entry.epoch);
            let found = found.and_then(|topic| Some((topic, topic.partition(index)?)));
            let Some((topic, partition)) = found else {
                missing.push(*slot);
                continue;
            };
            let elsewhere = zone.and_then(|zone| guide.elsewhere(view, topic, index, zone));
            if let Some(Some(entry)) = self.entries.get_mut(*slot as usize) {
                entry.elsewhere = elsewhere.filter(|_| !epoch.is_error());
            }
            if epoch.is_error() || elsewhere.is_some() {
                self.refuse(*slot, epoch, true, items);
            } else {
                self.refused.remove(slot);
                if !items.holds(*slot, partition) {
                    items.replace(*slot, partition);
                }
            }
        }
        missing
    }

    /// Looks up again who is read where, if agents have come or gone.
    fn note_routes(&mut self, latest: &Arc<Routes>, guide: Guide<'_>) {
        let last = self.routes.replace(Arc::clone(latest));
        let last = last.filter(|last| !Arc::ptr_eq(last, latest));
        let zones = last.map(|last| (guide.zone(&last), guide.zone(latest)));
        if zones.is_some_and(|zones| zones != (None, None)) {
            let taken = (0..).zip(&self.entries);
            let taken = taken.filter(|(_, entry)| entry.is_some());
            self.unresolved = taken.map(|(slot, _)| slot).collect();
        }
    }

    fn refuse(&mut self, slot: Slot, code: ErrorCode, ends_wait: bool, items: &mut Items) {
        if let Some(Some(entry)) = self.entries.get_mut(slot as usize) {
            entry.why_refused = code;
            self.refused.insert(slot);
            items.refuse(slot, ends_wait);
        }
    }

    fn key(&self, topic: usize) -> TopicKey<'_> {
        let Name { name, id } = &self.topics[topic];
        if self.by_id {
            TopicKey::Id(crate::api::topic_id(*id))
        } else {
            TopicKey::Name(name)
        }
    }

    /// The code for a topic or partition that is not in a current view.
    fn unknown(&self, slot: Slot, views: &Views) -> ErrorCode {
        let topic = self.topic_of(slot);
        let view = views.latest();
        if self.by_id && view.find(self.key(topic)).is_none() {
            ErrorCode::UnknownTopicId
        } else {
            ErrorCode::UnknownTopicOrPartition
        }
    }

    /// Notes that the partition of a slot was deleted with its topic: the next fetch looks its name
    /// up again. Yields the code that the client is told.
    pub(super) fn note_gone(&mut self, slot: Slot) -> ErrorCode {
        self.refused.insert(slot);
        if self.by_id {
            ErrorCode::UnknownTopicId
        } else {
            ErrorCode::UnknownTopicOrPartition
        }
    }

    pub(super) fn why_refused(&self, slot: Slot) -> ErrorCode {
        self.entry(slot)
            .map_or(ErrorCode::None, |entry| entry.why_refused)
    }

    /// The agent to which the reader of a slot is sent.
    pub(super) fn elsewhere(&self, slot: Slot) -> Option<AgentId> {
        self.entry(slot)?.elsewhere
    }

    pub(super) fn refused(&self) -> impl Iterator<Item = Slot> {
        self.refused.iter().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    pub(super) fn has(&self, slot: Slot) -> bool {
        self.entry(slot).is_some()
    }

    pub(super) fn index_of(&self, slot: Slot) -> i32 {
        self.entry(slot).map_or(0, |entry| entry.index)
    }

    /// The index in [`Named::topics`] of a slot's topic.
    pub(super) fn topic_of(&self, slot: Slot) -> usize {
        self.entry(slot).map_or(0, |entry| entry.topic)
    }

    /// The bounds of a partition that the client was told last.
    pub(super) fn told(&self, slot: Slot) -> Option<Bounds> {
        self.entry(slot)?.told
    }

    /// Notes the bounds that the client is being told.
    pub(super) fn tell(&mut self, slot: Slot, bounds: Option<Bounds>) {
        if let Some(Some(entry)) = self.entries.get_mut(slot as usize) {
            entry.told = bounds;
        }
    }

    pub(super) fn topics(&self) -> Vec<FetchableTopicResponse> {
        (0..self.topics.len())
            .map(|topic| self.topic(topic))
            .collect()
    }

    pub(super) fn topic(&self, topic: usize) -> FetchableTopicResponse {
        let Name { name, id } = &self.topics[topic];
        FetchableTopicResponse {
            topic: name.clone(),
            topic_id: *id,
            partitions: Vec::new(),
        }
    }

    /// Memory that these partitions take as part of a session.
    pub(super) fn bytes(&self) -> u64 {
        bytes_of(
            self.entries.len(),
            self.topics.iter().map(|topic| topic.name.len()),
        )
    }

    /// Copies the names out of the request's frame, so that a session does not keep the frame
    /// alive.
    pub(super) fn own_names(&mut self) {
        if self.index.is_none() {
            for topic in &mut self.topics {
                topic.name = Str::from(&*topic.name);
            }
        }
    }

    fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot as usize)?.as_ref()
    }
}

impl Index {
    fn of(named: &Named) -> Self {
        let mut index = Index::default();
        for (topic, name) in named.topics.iter().enumerate() {
            index.topics.entry(name.clone()).or_insert(topic);
        }
        for (slot, entry) in (0..).zip(&named.entries) {
            if let Some(entry) = entry {
                index.slots.insert((entry.topic, entry.index), slot);
            }
        }
        index
    }

    /// The index of a topic in the list, to which it is added if it is new.
    fn topic(&mut self, name: Name, topics: &mut Vec<Name>) -> usize {
        if let Some(topic) = self.topics.get(&name) {
            return *topic;
        }
        let name = Name {
            name: Str::from(&*name.name),
            id: name.id,
        };
        topics.push(name.clone());
        self.topics.insert(name, topics.len() - 1);
        topics.len() - 1
    }
}

/// Memory that a session of this request's partitions would take.
pub(super) fn bytes_of_request(request: &FetchRequest) -> u64 {
    let partitions = request.topics.iter().map(|topic| topic.partitions.len());
    let names = request.topics.iter().map(|topic| topic.topic.len());
    bytes_of(partitions.sum(), names)
}

fn bytes_of(partitions: usize, names: impl Iterator<Item = usize>) -> u64 {
    let topics: u64 = names.map(|name| name as u64 + TOPIC_BYTES).sum();
    partitions as u64 * PARTITION_BYTES + topics + SESSION_BYTES
}

fn want(asked: &FetchPartition, max_bytes: u64) -> Want {
    let of_partition = u64::try_from(asked.partition_max_bytes).unwrap_or(0);
    Want {
        offset: asked.fetch_offset,
        max_bytes: of_partition.min(max_bytes),
    }
}

/// For each topic of a request the index of its first mention: clients may name a topic again after another.
fn first_mentions(request: &FetchRequest) -> Vec<usize> {
    let mut by_name: Vec<usize> = (0..request.topics.len()).collect();
    let name = |topic: usize| (&request.topics[topic].topic, request.topics[topic].topic_id);
    by_name.sort_by(|a, b| name(*a).cmp(&name(*b)));
    let mut first_of: Vec<usize> = (0..request.topics.len()).collect();
    for pair in by_name.windows(2) {
        if name(pair[0]) == name(pair[1]) {
            first_of[pair[1]] = first_of[pair[0]];
        }
    }
    first_of
}

/// Positions, in ascending order, of the partitions that the request has named before, counted over
/// all that it names. Most requests name each topic once and its partitions in order, and for these
/// nothing is sorted.
fn repeated(request: &FetchRequest, first_of: &[usize]) -> Vec<usize> {
    let mut named: Vec<(usize, i32, usize)> = Vec::new();
    for (topic, first) in request.topics.iter().zip(first_of) {
        for asked in &topic.partitions {
            named.push((*first, asked.partition, named.len()));
        }
    }
    let is_after = |a: &(usize, i32, usize), b: &(usize, i32, usize)| (a.0, a.1) < (b.0, b.1);
    if named.is_sorted_by(is_after) {
        return Vec::new();
    }
    named.sort_unstable();
    let is_again = |pair: &&[(usize, i32, usize)]| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1);
    let again = named.windows(2).filter(is_again).map(|pair| pair[1].2);
    let mut again: Vec<usize> = again.collect();
    again.sort_unstable();
    again
}
