//! Topics come, grow, change and go, with their partitions. It must not know what is in a partition.

use std::sync::Arc;

use crate::nouns::partition::Partition;
use crate::nouns::topic::{Topic, number_partitions};
use crate::state::State;
use crate::terms::command::{ConfigChanges, CreateTopic};
use crate::terms::ids::TopicId;
use crate::terms::refusal::TopicRefusal;
use crate::terms::reply::{Event, Reply};

impl State {
    fn topics_changed(&mut self, ids: Vec<TopicId>, events: &mut Vec<Event>) {
        self.view_version += 1;
        events.push(Event::TopicsChanged { ids });
    }

    pub(super) fn create_topic(&mut self, request: &CreateTopic, events: &mut Vec<Event>) -> Reply {
        let id = request.id;
        let repeated = |topic: &Topic| topic.name == request.name;
        if self.topics.get(id).is_some_and(repeated) {
            return Reply::Topic { id };
        }
        let present = self.present_partitions();
        let numbered = self.topics.check_new(request).and_then(|()| {
            number_partitions(&mut self.last_partition, present, request.partitions)
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

    pub(super) fn delete_topic(&mut self, id: TopicId, events: &mut Vec<Event>) -> Reply {
        if self.topics.get(id).is_none() {
            return Reply::TopicRefused(TopicRefusal::Unknown);
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

    pub(super) fn create_partitions(
        &mut self,
        id: TopicId,
        total: u32,
        events: &mut Vec<Event>,
    ) -> Reply {
        let present = self.present_partitions();
        let numbered = self.topics.check_growth(id, total).and_then(|count| {
            let ids = number_partitions(&mut self.last_partition, present, count)?;
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

    pub(super) fn configure(
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

    pub(super) fn configure_cluster(
        &mut self,
        changes: &ConfigChanges,
        events: &mut Vec<Event>,
    ) -> Reply {
        match Arc::make_mut(&mut self.topics).configure_cluster(changes) {
            Ok(true) => self.topics_changed(Vec::new(), events),
            Ok(false) => {}
            Err(refusal) => return Reply::TopicRefused(refusal),
        }
        Reply::Topic {
            id: TopicId::default(),
        }
    }
}
