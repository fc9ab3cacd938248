//! The agent's own copy of topics and agents, with what produce needs of a topic's configs already
//! parsed. It is a cache: an answer that something does not exist rests on a current view. It must
//! not know Kafka's messages.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use meta::config::Configs;
use meta::ids::{AgentId, PartitionId, TopicId};
use rpc::Control;
use rpc::view::{AgentView, ClusterView, TopicView};
use wire::batch::TimestampType;
use wire::compression::Compression;

use crate::data::fetch::hub::Hub;

/// What a topic demands of the batches it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// `max.message.bytes`
    pub batch_bytes_max: usize,
    /// `message.timestamp.type`
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub after_max_ms: i64,
    /// `compression.type`; `None` keeps the producer's.
    pub compression: Option<Compression>,
}

impl Rules {
    fn of(topic: &TopicView) -> Self {
        let number = |name: &str, default: i64| topic.value(name).parse().unwrap_or(default);
        let timestamp_type = match topic.value("message.timestamp.type") {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        };
        let compression = match topic.value("compression.type") {
            "uncompressed" => Some(Compression::None),
            name => Compression::from_name(name).filter(|codec| *codec != Compression::None),
        };
        Rules {
            batch_bytes_max: usize::try_from(number("max.message.bytes", 1_048_588)).unwrap_or(0),
            timestamp_type,
            before_max_ms: number("message.timestamp.before.max.ms", i64::MAX),
            after_max_ms: number("message.timestamp.after.max.ms", 3_600_000),
            compression,
        }
    }
}

/// A topic, and its rules.
#[derive(Debug)]
pub(crate) struct Topic {
    /// As the control plane sees it.
    pub view: TopicView,
    pub rules: Rules,
}

impl Topic {
    /// The partition of an index as clients give it.
    pub(crate) fn partition(&self, index: i32) -> Option<PartitionId> {
        let index = usize::try_from(index).ok()?;
        self.view.topic.partitions.get(index).copied()
    }
}

/// The cluster as last seen.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub cluster_id: String,
    /// The agents, sorted by id.
    pub agents: Vec<AgentView>,
    /// All topics, sorted by name.
    pub topics: Vec<Arc<Topic>>,
    pub cluster_configs: Arc<Configs>,
    /// `None` before the first was seen.
    version: Option<u64>,
    by_id: HashMap<TopicId, Arc<Topic>>,
}

impl View {
    /// Indexes a view of all topics; rules of topics that did not change are kept.
    fn index(seen: ClusterView, before: &View) -> Self {
        let keep = |view: TopicView| {
            let known = before.by_id.get(&view.topic.id);
            match known.filter(|known| known.view == view) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Topic {
                    rules: Rules::of(&view),
                    view,
                }),
            }
        };
        let topics: Vec<Arc<Topic>> = seen.topics.into_iter().map(keep).collect();
        let by_id = topics
            .iter()
            .map(|topic| (topic.view.topic.id, Arc::clone(topic)))
            .collect();
        View {
            cluster_id: seen.cluster_id,
            agents: seen.agents,
            topics,
            cluster_configs: seen.cluster_configs,
            version: Some(seen.version),
            by_id,
        }
    }

    /// Partitions that are not in a later view.
    fn partitions_gone(&self, later: &View) -> Vec<PartitionId> {
        let gone = self.topics.iter().map(|topic| &topic.view.topic);
        let gone = gone.filter(|topic| !later.by_id.contains_key(&topic.id));
        gone.flat_map(|topic| topic.partitions.iter().copied())
            .collect()
    }

    /// A topic by name.
    pub(crate) fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        let named = |topic: &Arc<Topic>| topic.view.topic.name.as_str().cmp(name);
        let at = self.topics.binary_search_by(named).ok()?;
        self.topics.get(at)
    }

    /// A topic by id.
    pub(crate) fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// An agent by its node id.
    pub(crate) fn agent(&self, id: AgentId) -> Option<&AgentView> {
        self.agents.iter().find(|agent| agent.id == id)
    }
}

/// How a client names a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TopicKey<'a> {
    Name(&'a str),
    Id(TopicId),
}

impl View {
    /// A topic as a client names it.
    pub(crate) fn find(&self, key: TopicKey<'_>) -> Option<&Arc<Topic>> {
        match key {
            TopicKey::Name(name) => self.topic(name),
            TopicKey::Id(id) => self.topic_by_id(id),
        }
    }
}

/// The latest view, shared by all connections.
pub(crate) struct Views {
    control: Arc<dyn Control>,
    /// Who waits for partitions of topics that are gone is told to look.
    hub: Arc<Hub>,
    latest: RwLock<Arc<View>>,
}

impl Views {
    /// The first view, as applied at the control node.
    pub(crate) async fn open(control: Arc<dyn Control>, hub: Arc<Hub>) -> Result<Self, rpc::Error> {
        let latest = RwLock::new(Arc::new(View::default()));
        let views = Views {
            control,
            hub,
            latest,
        };
        views.refresh().await?;
        Ok(views)
    }

    pub(crate) fn latest(&self) -> Arc<View> {
        Arc::clone(&self.latest.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over what the control node has applied.
    pub(crate) async fn refresh(&self) -> Result<Arc<View>, rpc::Error> {
        let before = self.latest();
        Ok(match self.control.view(before.version).await? {
            Some(seen) => self.take(seen),
            None => before,
        })
    }

    /// Takes over what is current: what is not in it does not exist.
    pub(crate) async fn refresh_current(&self) -> Result<Arc<View>, rpc::Error> {
        self.control.barrier().await?;
        self.refresh().await
    }

    /// Takes over what the control node has applied, if that is at least `version`.
    pub(crate) async fn refresh_to(&self, version: u64) -> Result<(), rpc::Error> {
        if self.latest().version < Some(version) {
            self.refresh().await?;
        }
        Ok(())
    }

    fn take(&self, seen: ClusterView) -> Arc<View> {
        let before = self.latest();
        if Some(seen.version) <= before.version {
            return before;
        }
        let view = Arc::new(View::index(seen, &before));
        let mut latest = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        if latest.version <= view.version {
            let before = std::mem::replace(&mut *latest, Arc::clone(&view));
            drop(latest);
            self.hub.tell_to_look(&before.partitions_gone(&view));
        }
        view
    }
}
