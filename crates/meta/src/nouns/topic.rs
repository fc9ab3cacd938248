//! Topics: names, configs and which partitions they have. It must not know what partitions hold.

use std::sync::Arc;

use super::ordered::Ordered;
use crate::terms::command::{ConfigChanges, CreateTopic};
use crate::terms::config::{self, Configs};
use crate::terms::ids::{PartitionId, TopicId};
use crate::terms::level::Level;

pub use crate::terms::refusal::TopicRefusal as Refusal;
pub use crate::terms::view::Topic;

/// All topics, and the cluster's configs, which hold where topics say nothing. A clone shares what is
/// not changed afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topics {
    by_id: Ordered<TopicId, Arc<Topic>>,
    by_name: Ordered<Arc<str>, TopicId>,
    /// By the version in which they changed last.
    by_version: Ordered<u64, TopicId>,
    /// Names with every dot replaced: Kafka keeps names apart that differ only in `.` and `_`.
    collisions: Ordered<Arc<str>, TopicId>,
    pub(crate) cluster_configs: Arc<Configs>,
}

impl Topics {
    /// The topic of an id.
    pub fn get(&self, id: TopicId) -> Option<&Topic> {
        self.by_id.get(&id).map(Arc::as_ref)
    }

    /// The topic of a name.
    pub fn named(&self, name: &str) -> Option<&Topic> {
        self.get(*self.by_name.get(name)?)
    }

    /// All topics, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.shared().map(Arc::as_ref)
    }

    /// All topics, sorted by name, to be kept without being copied.
    pub fn shared(&self) -> impl Iterator<Item = &Arc<Topic>> {
        let ids = self.by_name.iter();
        ids.filter_map(|(_, id)| self.by_id.get(id))
    }

    /// The topics that changed after a version of the view, in the order in which they did.
    pub(crate) fn changed_since(&self, version: u64) -> impl Iterator<Item = &Arc<Topic>> {
        let first = version.saturating_add(1);
        let changed = self.by_version.iter_from(&first);
        changed.filter_map(|(_, id)| self.by_id.get(id))
    }

    /// What is set for the cluster.
    pub fn cluster_configs(&self) -> &Arc<Configs> {
        &self.cluster_configs
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are no topics.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every topic is found by its name, and nothing else is.
    pub(crate) fn is_consistent(&self) -> bool {
        let found = |topic: &Arc<Topic>| {
            self.by_name.get(topic.name.as_str()) == Some(&topic.id)
                && self.collisions.get(normalised(&topic.name).as_str()) == Some(&topic.id)
                && self.by_version.get(&topic.version) == Some(&topic.id)
        };
        self.by_id.iter().all(|(_, topic)| found(topic))
            && self.by_name.len() == self.by_id.len()
            && self.collisions.len() == self.by_id.len()
            && self.by_version.len() == self.by_id.len()
    }

    /// The value in force of one of the cluster's configs, as a number.
    pub(crate) fn cluster_number(&self, level: &Level, name: &str) -> Option<i64> {
        config::number(config::cluster_value(level, &self.cluster_configs, name))
    }

    /// The value in force of one of a topic's configs, as a number.
    pub(crate) fn topic_number(&self, level: &Level, topic: &Topic, name: &str) -> Option<i64> {
        config::number(config::topic_value(
            level,
            &self.cluster_configs,
            &topic.configs,
            name,
        ))
    }

    /// Whether a topic could be created.
    pub(crate) fn check_new(&self, level: &Level, request: &CreateTopic) -> Result<(), Refusal> {
        check_name(level, &request.name)?;
        if self.by_name.get(request.name.as_str()).is_some() {
            return Err(Refusal::Exists {
                name: request.name.clone(),
            });
        }
        let collides = self
            .collisions
            .get(normalised(&request.name).as_str())
            .and_then(|id| self.get(*id));
        if let Some(other) = collides {
            let (name, other) = (&request.name, &other.name);
            let reason = format!("topic '{name}' collides with the existing topic '{other}'");
            return Err(Refusal::InvalidName { reason });
        }
        let most = level.topic_partitions_max;
        if request.partitions == 0 || request.partitions > most {
            let reason = format!("the number of partitions must be between 1 and {most}");
            return Err(Refusal::InvalidPartitions { reason });
        }
        config::check_all(level, level.topic_configs, &request.configs)
            .map_err(|reason| Refusal::InvalidConfig { reason })?;
        let most = level.topics_max;
        if self.len() >= most {
            let reason = format!("a cluster has at most {most} topics");
            return Err(Refusal::Policy { reason });
        }
        if request.id == TopicId(0) || self.by_id.get(&request.id).is_some() {
            let reason = "the topic id is zero or taken".to_owned();
            return Err(Refusal::Policy { reason });
        }
        Ok(())
    }

    /// Whether a topic could be given a number of partitions; how many those are more.
    pub(crate) fn check_growth(
        &self,
        level: &Level,
        id: TopicId,
        total: u32,
    ) -> Result<u32, Refusal> {
        let topic = self.get(id).ok_or(Refusal::Unknown)?;
        let present = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let most = level.topic_partitions_max;
        if total <= present || total > most {
            let reason =
                format!("the topic has {present} partitions: it can be given more, up to {most}");
            return Err(Refusal::InvalidPartitions { reason });
        }
        Ok(total - present)
    }

    /// Adds a topic that [`Topics::check_new`] found no fault with.
    pub(crate) fn insert(&mut self, topic: Topic) {
        self.by_name.insert(topic.name.as_str().into(), topic.id);
        let normalised = normalised(&topic.name).into();
        self.collisions.insert(normalised, topic.id);
        self.by_version.insert(topic.version, topic.id);
        self.by_id.insert(topic.id, Arc::new(topic));
    }

    pub(crate) fn grow(&mut self, id: TopicId, partitions: impl IntoIterator<Item = PartitionId>) {
        if let Some(topic) = self.by_id.get_mut(&id) {
            Arc::make_mut(topic).partitions.extend(partitions);
        }
    }

    /// Notes that a topic changed in a version of the view.
    pub(crate) fn touch(&mut self, id: TopicId, version: u64) {
        if let Some(topic) = self.by_id.get_mut(&id) {
            let topic = Arc::make_mut(topic);
            self.by_version.remove(&topic.version);
            topic.version = version;
            self.by_version.insert(version, id);
        }
    }

    pub(crate) fn remove(&mut self, id: TopicId) -> Option<Arc<Topic>> {
        let topic = self.by_id.remove(&id)?;
        self.by_name.remove(topic.name.as_str());
        self.by_version.remove(&topic.version);
        self.collisions.remove(normalised(&topic.name).as_str());
        Some(topic)
    }

    /// Changes a topic's configs; true if anything is different then.
    pub(crate) fn configure(
        &mut self,
        level: &Level,
        id: TopicId,
        changes: &ConfigChanges,
    ) -> Result<bool, Refusal> {
        let topic = self.by_id.get_mut(&id).ok_or(Refusal::Unknown)?;
        config::change(
            level,
            level.topic_configs,
            &mut Arc::make_mut(topic).configs,
            changes,
        )
        .map_err(|reason| Refusal::InvalidConfig { reason })
    }

    /// Changes the cluster's configs; true if anything is different then.
    pub(crate) fn configure_cluster(
        &mut self,
        level: &Level,
        changes: &ConfigChanges,
    ) -> Result<bool, Refusal> {
        config::change(
            level,
            level.cluster_configs,
            Arc::make_mut(&mut self.cluster_configs),
            changes,
        )
        .map_err(|reason| Refusal::InvalidConfig { reason })
    }
}

/// Gives out partition ids.
pub(crate) fn number_partitions(
    level: &Level,
    last: &mut u64,
    present: u64,
    count: u32,
) -> Result<impl Iterator<Item = PartitionId> + Clone + use<>, Refusal> {
    let first = *last + 1;
    let end = *last + u64::from(count);
    if end > level.counter_max {
        let reason = "no more partitions can be numbered".to_owned();
        return Err(Refusal::Policy { reason });
    }
    let most = level.partitions_max;
    if present.saturating_add(u64::from(count)) > most {
        let reason = format!("a cluster has at most {most} partitions");
        return Err(Refusal::Policy { reason });
    }
    *last = end;
    Ok((first..=end).map(PartitionId))
}

/// Checks a name as Kafka does (`Topic.validate`).
pub fn check_name(level: &Level, name: &str) -> Result<(), Refusal> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let most = level.topic_name_length_max;
    let reason = match name {
        "" => "the empty string is not allowed as a topic name".to_owned(),
        "." | ".." => "'.' and '..' are not allowed as topic names".to_owned(),
        _ if name.len() > most => format!("a topic name has at most {most} characters"),
        _ if !name.bytes().all(allowed) => format!(
            "topic name '{name}' holds other characters than ASCII letters, digits, '.', '_', '-'"
        ),
        _ => return Ok(()),
    };
    Err(Refusal::InvalidName { reason })
}

fn normalised(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::level::one::LEVEL as ONE;

    #[test]
    fn names_are_checked_as_kafka_does() {
        let longest = "x".repeat(ONE.topic_name_length_max);
        for name in ["a", "A.b_c-9", "...", "__consumer_offsets", &longest] {
            assert_eq!(check_name(&ONE, name), Ok(()), "{name}");
        }
        let too_long = "x".repeat(ONE.topic_name_length_max + 1);
        for name in ["", ".", "..", "a b", "a/b", "ä", "a\n", &too_long] {
            assert!(check_name(&ONE, name).is_err(), "{name}");
        }
    }

    #[test]
    fn partition_ids_end_before_the_shard_bits() {
        let mut last = ONE.counter_max - 2;
        assert!(number_partitions(&ONE, &mut last, 0, 3).is_err());
        let ids: Vec<_> = number_partitions(&ONE, &mut last, 0, 2)
            .expect("two are left")
            .collect();
        assert_eq!(
            ids,
            [
                PartitionId(ONE.counter_max - 1),
                PartitionId(ONE.counter_max)
            ]
        );
        assert!(number_partitions(&ONE, &mut last, 0, 1).is_err());
    }

    #[test]
    fn a_cluster_has_a_limit_of_topics() {
        let mut topics = Topics::default();
        let request = |n: usize| CreateTopic {
            id: TopicId(n as u128 + 1),
            name: format!("t{n}"),
            partitions: 1,
            configs: Configs::new(),
            replication_factor: 0,
        };
        for n in 0..ONE.topics_max {
            let CreateTopic { id, name, .. } = request(n);
            topics.insert(Topic {
                id,
                name,
                partitions: Vec::new(),
                configs: Configs::new(),
                replication_factor: 0,
                version: n as u64 + 1,
            });
        }
        let one_more = request(ONE.topics_max);
        let refused = topics.check_new(&ONE, &one_more);
        assert!(
            matches!(refused, Err(Refusal::Policy { .. })),
            "{refused:?}"
        );
        topics.remove(TopicId(1));
        assert_eq!(topics.check_new(&ONE, &one_more), Ok(()));
    }

    #[test]
    fn a_cluster_has_a_limit_of_partitions() {
        let mut last = 0;
        assert!(number_partitions(&ONE, &mut last, ONE.partitions_max, 1).is_err());
        assert!(number_partitions(&ONE, &mut last, ONE.partitions_max - 1, 1).is_ok());
    }
}
