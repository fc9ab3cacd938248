//! Topics come, grow, change and go, with their partitions. It must not know what is in a partition.

use crate::nouns::partition::Partition;
use crate::nouns::topic::{Topic, number_partitions};
use crate::state::State;
use crate::terms::command::{ConfigChanges, CreateTopic};
use crate::terms::ids::{PartitionId, TopicId};
use crate::terms::refusal::{Refusal, TopicRefusal};
use crate::terms::reply::{Event, Reply};

pub(super) fn create(state: &mut State, request: &CreateTopic, events: &mut Vec<Event>) -> Reply {
    let id = request.id;
    let repeated = |topic: &Topic| topic.name == request.name;
    if state.topics.get(id).is_some_and(repeated) {
        return Reply::Topic { id };
    }
    let present = state.present_partitions();
    // Until housekeeping has come by, groups have offsets of a deleted topic by its id.
    if state
        .versions
        .deleted
        .values()
        .any(|deleted| *deleted == id)
    {
        let reason = "a topic of this id was deleted".to_owned();
        return Reply::TopicRefused(TopicRefusal::Policy { reason });
    }
    let numbered = state.topics.check_new(state.level, request).and_then(|()| {
        let last = &mut state.last_partition;
        number_partitions(state.level, last, present, request.partitions)
    });
    let ids = match numbered {
        Ok(ids) => ids,
        Err(refusal) => return Reply::TopicRefused(refusal),
    };
    add_partitions(state, id, (0..request.partitions).zip(ids.clone()));
    state.topics.insert(Topic {
        id,
        name: request.name.clone(),
        partitions: ids.collect(),
        configs: request.configs.clone(),
        replication_factor: request.replication_factor,
        version: state.versions.next(),
    });
    accepted(id, events)
}

pub(super) fn delete(state: &mut State, id: TopicId, events: &mut Vec<Event>) -> Reply {
    if state.topics.get(id).is_none() {
        return Reply::TopicRefused(TopicRefusal::Unknown);
    }
    let removed = state.topics.remove(id);
    for partition in removed.iter().flat_map(|topic| &topic.partitions) {
        let Some(removed) = state.partitions.remove(partition.0) else {
            continue;
        };
        state.behind.forget(*partition);
        if removed.slices.len() > 0 {
            state.doomed.insert(*partition, removed);
        } else {
            state.producers -= removed.producers.len();
        }
    }
    state.versions.topic_deleted(state.level, id);
    accepted(id, events)
}

/// Raises the number of partitions of a topic.
pub(super) fn grow(state: &mut State, id: TopicId, total: u32, events: &mut Vec<Event>) -> Reply {
    let present = state.present_partitions();
    let numbered = state.topics.check_growth(state.level, id, total);
    let numbered = numbered.and_then(|count| {
        let ids = number_partitions(state.level, &mut state.last_partition, present, count)?;
        Ok((total - count..total, ids))
    });
    let (indices, ids) = match numbered {
        Ok(numbered) => numbered,
        Err(refusal) => return Reply::TopicRefused(refusal),
    };
    add_partitions(state, id, indices.zip(ids.clone()));
    let topics = &mut state.topics;
    topics.grow(id, ids);
    topics.touch(id, state.versions.next());
    accepted(id, events)
}

pub(super) fn configure(
    state: &mut State,
    id: TopicId,
    changes: &ConfigChanges,
    events: &mut Vec<Event>,
) -> Reply {
    let topics = &mut state.topics;
    match topics.configure(state.level, id, changes) {
        Ok(true) => topics.touch(id, state.versions.next()),
        Ok(false) => return Reply::Topic { id },
        Err(refusal) => return Reply::TopicRefused(refusal),
    }
    accepted(id, events)
}

pub(super) fn configure_cluster(
    state: &mut State,
    replaces: u64,
    changes: &ConfigChanges,
    events: &mut Vec<Event>,
) -> Reply {
    let version = state.versions.configs;
    if replaces != version {
        let what = "the cluster's configs";
        return Reply::Refused(Refusal::Outdated { what, version });
    }
    match state.topics.configure_cluster(state.level, changes) {
        Ok(true) => {
            state.versions.configs_changed();
            events.push(Event::TopicsChanged { ids: Vec::new() });
        }
        Ok(false) => {}
        Err(refusal) => return Reply::TopicRefused(refusal),
    }
    Reply::Topic {
        id: TopicId::default(),
    }
}

fn accepted(id: TopicId, events: &mut Vec<Event>) -> Reply {
    events.push(Event::TopicsChanged { ids: vec![id] });
    Reply::Topic { id }
}

fn add_partitions(
    state: &mut State,
    topic: TopicId,
    numbered: impl Iterator<Item = (u32, PartitionId)>,
) {
    for (index, id) in numbered {
        state.partitions.insert(id.0, Partition::new(topic, index));
    }
}
