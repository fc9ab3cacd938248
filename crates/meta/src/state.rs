//! The state, and `apply`: one match over all commands, each arm one call into its noun's module.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Clock;
use crate::command::{Command, ConfigChanges, CreateTopic};
use crate::file::Files;
use crate::group::{Groups, OffsetRules};
use crate::ids::{COUNTER_MAX, FileId, PartitionId, ProducerId, Stamp, TopicId};
use crate::member::Members;
use crate::partition::Partition;
use crate::placement::Policy;
use crate::producer::Room;
use crate::reply::{Applied, Event, Refusal, Reply};
use crate::rule::Rules;
use crate::table::Table;
use crate::topic::{self, Topic, Topics};
use crate::{commit, feature, housekeep};

/// The epoch that every partition's leader has, always: there are no leaders to tell apart, and
/// clients want an epoch that is not negative and never goes back.
pub const LEADER_EPOCH: i32 = 1;

/// All metadata of one cluster. A clone shares what is not changed afterwards.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) cluster_id: String,
    pub(crate) feature_level: u32,
    pub(crate) clock: Clock,
    pub(crate) members: Members,
    pub(crate) placement: Policy,
    pub(crate) topics: Arc<Topics>,
    pub(crate) partitions: Table<Partition>,
    /// Partitions of deleted topics that still have slices.
    pub(crate) doomed: BTreeMap<PartitionId, Arc<Partition>>,
    pub(crate) files: Files,
    pub(crate) groups: Groups,
    /// The last partition id given; 0 at first.
    pub(crate) last_partition: u64,
    /// The next producer id to give.
    pub(crate) next_producer: u64,
    /// The partition at which housekeeping goes on.
    pub(crate) cursor: u64,
    /// Rises with every change of topics, configs or agents.
    pub(crate) view_version: u64,
    /// Producers remembered by all partitions; follows from those.
    pub(crate) producers: u64,
    /// No part of the state: what tests removed of the rules.
    pub(crate) rules: Rules,
}

impl State {
    /// The state before the first command. The cluster id is Kafka's: 22 characters of base64.
    pub fn genesis(cluster_id: String) -> State {
        State {
            cluster_id,
            feature_level: feature::FEATURE_LEVEL,
            clock: Clock::default(),
            members: Members::default(),
            placement: Policy::default(),
            topics: Arc::default(),
            partitions: Table::default(),
            doomed: BTreeMap::new(),
            files: Files::default(),
            groups: Groups::default(),
            last_partition: 0,
            next_producer: 0,
            cursor: 0,
            view_version: 0,
            producers: 0,
            rules: Rules::default(),
        }
    }

    /// Applies a command. Total: whatever a command says, the answer is a reply, and what is
    /// refused changes nothing but the time.
    pub fn apply(&mut self, stamp: Stamp, command: &Command) -> Applied {
        let stamp = self.clock.advance(stamp);
        let mut events = Vec::new();
        let reply = self.dispatch(stamp, command, &mut events);
        if cfg!(debug_assertions)
            && self.rules.hold(crate::rule::Rule::AssertedInvariants)
            && let Err(violation) = crate::invariants::check_touched(self, command)
        {
            // A state that contradicts itself must not be built upon.
            panic!("{command:?} broke an invariant: {violation}");
        }
        Applied { reply, events }
    }

    fn dispatch(&mut self, stamp: Stamp, command: &Command, events: &mut Vec<Event>) -> Reply {
        let ticks = stamp.ticks_millis;
        match command {
            Command::RegisterAgent(request) => {
                let (reply, changed) = self.members.register(self.feature_level, ticks, request);
                self.agents_changed(changed, events);
                reply
            }
            Command::FenceAgent { incarnation } => {
                if !self.members.runs.contains_key(incarnation) {
                    return Reply::Refused(Refusal::UnknownIncarnation);
                }
                let changed = self.members.fence(*incarnation, ticks);
                self.agents_changed(changed, events);
                Reply::Done
            }
            Command::CommitFile(command) => {
                Reply::File(commit::commit(self, stamp, command, events))
            }
            Command::SkipFile { file } => Reply::File(commit::skip(self, stamp, *file)),
            Command::CreateTopic(request) => self.create_topic(request, events),
            Command::DeleteTopic { id } => self.delete_topic(*id, events),
            Command::CreatePartitions { id, total } => self.create_partitions(*id, *total, events),
            Command::SetTopicConfigs { id, changes } => self.configure(*id, changes, events),
            Command::SetClusterConfigs { changes } => self.configure_cluster(changes, events),
            Command::AllocateProducer { known } => self.allocate_producer(*known),
            Command::Housekeep => Reply::Housekept {
                more: housekeep::step(self, stamp, events),
            },
            Command::FilesDeleted { files } => self.forget_files(ticks, files),
            Command::RegisterControlNode(node) => {
                self.members.register_control_node(self.feature_level, node)
            }
            Command::RemoveControlNode { name } => self.members.remove_control_node(name),
            Command::SetFeatureLevel { level } => {
                feature::raise(&mut self.feature_level, &self.members, *level)
            }
            Command::SetPlacement(placement) => self.placement.replace(placement),
            Command::Group(command) => self.apply_group(stamp, command, events),
        }
    }

    fn agents_changed(&mut self, changed: bool, events: &mut Vec<Event>) {
        if changed {
            self.view_version += 1;
            events.push(Event::AgentsChanged);
        }
    }

    fn topics_changed(&mut self, ids: Vec<TopicId>, events: &mut Vec<Event>) {
        self.view_version += 1;
        events.push(Event::TopicsChanged { ids });
    }

    fn create_topic(&mut self, request: &CreateTopic, events: &mut Vec<Event>) -> Reply {
        let id = request.id;
        let repeated = |topic: &Topic| topic.name == request.name;
        if self.topics.get(id).is_some_and(repeated) {
            return Reply::Topic { id };
        }
        let present = self.present_partitions();
        let numbered = self.topics.check_new(request).and_then(|()| {
            topic::number_partitions(&mut self.last_partition, present, request.partitions)
        });
        let ids = match numbered {
            Ok(ids) => ids,
            Err(refusal) => return Reply::TopicRefused(refusal),
        };
        for (index, partition) in (0..request.partitions).zip(ids.clone()) {
            self.partitions
                .insert(partition.0, Partition::new(id, index));
        }
        Arc::make_mut(&mut self.topics).insert(Topic {
            id,
            name: request.name.clone(),
            partitions: ids.collect(),
            configs: request.configs.clone(),
        });
        self.topics_changed(vec![id], events);
        Reply::Topic { id }
    }

    fn delete_topic(&mut self, id: TopicId, events: &mut Vec<Event>) -> Reply {
        if self.topics.get(id).is_none() {
            return Reply::TopicRefused(topic::Refusal::Unknown);
        }
        let removed = Arc::make_mut(&mut self.topics).remove(id);
        for partition in removed.iter().flat_map(|topic| &topic.partitions) {
            let Some(removed) = self.partitions.remove(partition.0) else {
                continue;
            };
            if removed.slices.len() > 0 {
                self.doomed.insert(*partition, removed);
            } else {
                self.producers -= removed.producers.len();
            }
        }
        self.groups.forget_topic(id);
        self.topics_changed(vec![id], events);
        Reply::Topic { id }
    }

    fn create_partitions(&mut self, id: TopicId, total: u32, events: &mut Vec<Event>) -> Reply {
        let present = self.present_partitions();
        let numbered = self.topics.check_growth(id, total).and_then(|count| {
            let ids = topic::number_partitions(&mut self.last_partition, present, count)?;
            Ok((total - count..total, ids))
        });
        let (indices, ids) = match numbered {
            Ok(numbered) => numbered,
            Err(refusal) => return Reply::TopicRefused(refusal),
        };
        for (index, partition) in indices.zip(ids.clone()) {
            self.partitions
                .insert(partition.0, Partition::new(id, index));
        }
        Arc::make_mut(&mut self.topics).grow(id, ids);
        self.topics_changed(vec![id], events);
        Reply::Topic { id }
    }

    fn configure(
        &mut self,
        id: TopicId,
        changes: &ConfigChanges,
        events: &mut Vec<Event>,
    ) -> Reply {
        match Arc::make_mut(&mut self.topics).configure(id, changes) {
            Ok(true) => self.topics_changed(vec![id], events),
            Ok(false) => {}
            Err(refusal) => return Reply::TopicRefused(refusal),
        }
        Reply::Topic { id }
    }

    fn configure_cluster(&mut self, changes: &ConfigChanges, events: &mut Vec<Event>) -> Reply {
        match Arc::make_mut(&mut self.topics).configure_cluster(changes) {
            Ok(true) => self.topics_changed(Vec::new(), events),
            Ok(false) => {}
            Err(refusal) => return Reply::TopicRefused(refusal),
        }
        Reply::Topic {
            id: TopicId::default(),
        }
    }

    /// A known producer that has epochs left is given the next one, so that a repeat is harmless;
    /// anyone else is given an id that nobody had.
    fn allocate_producer(&mut self, known: Option<(ProducerId, i16)>) -> Reply {
        if let Some((id, epoch)) = known
            && u64::try_from(id.0).is_ok_and(|id| id < self.next_producer)
            && (0..i16::MAX - 1).contains(&epoch)
        {
            return Reply::Producer {
                id,
                epoch: epoch + 1,
            };
        }
        match i64::try_from(self.next_producer) {
            Ok(id) if self.next_producer <= COUNTER_MAX => {
                self.next_producer += 1;
                Reply::Producer {
                    id: ProducerId(id),
                    epoch: 0,
                }
            }
            _ => Reply::Refused(Refusal::Exhausted { what: "producers" }),
        }
    }

    fn forget_files<'a>(
        &mut self,
        ticks: u64,
        files: impl IntoIterator<Item = &'a FileId>,
    ) -> Reply {
        let until = ticks.checked_sub(self.grace_ticks());
        let mut refused = Vec::new();
        for file in files {
            if !until.is_some_and(|until| self.files.forget(*file, until)) {
                refused.push((*file, self.fate(*file)));
            }
        }
        Reply::Forgotten { refused }
    }

    fn apply_group(
        &mut self,
        stamp: Stamp,
        command: &crate::group::Command,
        events: &mut Vec<Event>,
    ) -> Reply {
        let topics = &self.topics;
        let partitions = |id: TopicId| {
            topics
                .get(id)
                .and_then(|topic| u32::try_from(topic.partitions.len()).ok())
        };
        let longest = topics.cluster_number("offset.metadata.max.bytes");
        let rules = OffsetRules {
            partitions: &partitions,
            metadata_bytes_max: usize::try_from(longest.unwrap_or(0)).unwrap_or(usize::MAX),
        };
        let (reply, event) = self.groups.apply(stamp, rules, command);
        events.extend(event.map(Event::Group));
        Reply::Group(reply)
    }

    /// How many producers are remembered, and may be.
    pub(crate) fn producer_room(&self) -> Room {
        let max = self.topics.cluster_number("producer.ids.max");
        Room {
            taken: self.producers,
            max: max
                .and_then(|max| u64::try_from(max).ok())
                .unwrap_or(u64::MAX),
        }
    }

    fn present_partitions(&self) -> u64 {
        u64::try_from(self.partitions.len() + self.doomed.len()).unwrap_or(u64::MAX)
    }

    /// Ticks between a file's tombstone and its deletion; also between the end of an incarnation
    /// and that of what is kept of it.
    pub(crate) fn grace_ticks(&self) -> u64 {
        let grace = self.topics.cluster_number("file.delete.grace.ms");
        grace
            .and_then(|grace| u64::try_from(grace).ok())
            .unwrap_or(u64::MAX)
    }
}
