//! The agent's own copy of topics and agents, with the topic configs that produce needs already
//! parsed. It is a cache: an answer that something does not exist rests on a current view. It must
//! not know Kafka's messages.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use host::latest::Latest;
use meta::config::{Configs, topic_value};
use meta::ids::{AgentId, PartitionId, TopicId};
use meta::level::{Level, Levels};
use meta::view::{Agent, ViewChange};
use rpc::{Client, Position};
use tokio::sync::Mutex;
use wire::batch::TimestampType;
use wire::compression::Compression;

use crate::data::fetch::hub::Hub;
use crate::departed::Departed;
use crate::route::{Placed, Places, Routes};
use chunks::Chunks;

mod chunks;

/// What a topic's configs demand of batches.
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
    fn of(level: &Level, topic: &meta::topic::Topic, cluster: &Configs) -> Self {
        let value = |name: &str| topic_value(level, cluster, &topic.configs, name);
        let number = |name: &str, default: i64| value(name).parse().unwrap_or(default);
        let timestamp_type = match value("message.timestamp.type") {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        };
        let compression = match value("compression.type") {
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

/// A topic, its rules, and where its partitions are.
#[derive(Debug)]
pub(crate) struct Topic {
    pub topic: Arc<meta::topic::Topic>,
    pub rules: Rules,
    /// How many replicas clients are to be shown of each partition.
    pub replicas: usize,
    /// The replicas of its partitions, as far as they were asked for; valid for as long as the agents
    /// stay the same.
    placed: OnceLock<Placed>,
}

impl Topic {
    pub(crate) fn new(level: &Level, topic: Arc<meta::topic::Topic>, cluster: &Configs) -> Self {
        Topic {
            rules: Rules::of(level, &topic, cluster),
            replicas: replicas(level, cluster, &topic.configs, topic.replication_factor),
            topic,
            placed: OnceLock::new(),
        }
    }

    /// The partition with the index that a client gave.
    pub(crate) fn partition(&self, index: i32) -> Option<PartitionId> {
        let index = usize::try_from(index).ok()?;
        self.topic.partitions.get(index).copied()
    }
}

/// How many replicas clients are shown of a topic's partitions. No agent holds copies; but a topic with fewer than its
/// `min.insync.replicas` counts as broken to every tool, and one with fewer than were asked for as changed.
pub(crate) fn replicas(level: &Level, cluster: &Configs, configs: &Configs, factor: u16) -> usize {
    let in_sync = topic_value(level, cluster, configs, "min.insync.replicas");
    let in_sync = in_sync.parse().unwrap_or(1);
    usize::from(factor).max(in_sync).max(1)
}

/// The cluster as the control plane last told it.
#[derive(Debug)]
pub(crate) struct View {
    pub cluster_id: String,
    /// The agents, sorted by id.
    pub agents: Arc<[Agent]>,
    /// Those that were there a moment ago.
    pub departed: Departed,
    /// What clients are told of those that are there.
    pub routes: Arc<Routes>,
    pub cluster_configs: Arc<Configs>,
    /// The feature level in force: what this agent may write, and the configs that there are.
    pub level: &'static Level,
    version: Option<u64>,
    by_name: Chunks,
    by_id: Chunks,
}

impl View {
    fn nothing(levels: Levels, cluster_id: String) -> Self {
        View {
            cluster_id,
            agents: Arc::default(),
            departed: Departed::default(),
            routes: Arc::default(),
            cluster_configs: Arc::default(),
            level: levels.first(),
            version: None,
            by_name: Chunks::new(|a, b| a.topic.name.cmp(&b.topic.name)),
            by_id: Chunks::new(|a, b| a.topic.id.cmp(&b.topic.id)),
        }
    }

    /// Applies a change to this view. Topics that did not change are kept as they are, unless
    /// something that they derive from has changed for all of them.
    fn follow(&self, level: &'static Level, seen: ViewChange) -> Self {
        let agents: Option<Arc<[Agent]>> = seen.agents.map(Into::into);
        let routes = agents.as_deref().map(Routes::new);
        // Those that are the same stay the same object: what rests on them is kept, too.
        let routes = routes.filter(|routes| *routes != *self.routes);
        let routes = routes.map_or_else(|| Arc::clone(&self.routes), Arc::new);
        let agents = agents.unwrap_or_else(|| Arc::clone(&self.agents));
        let configs = seen.cluster_configs;
        let configs = configs.unwrap_or_else(|| Arc::clone(&self.cluster_configs));
        let make = |topic| Arc::new(Topic::new(level, topic, &configs));
        let (mut by_name, mut by_id) = (self.by_name.clone(), self.by_id.clone());
        if seen.whole {
            let all: Vec<Arc<Topic>> = seen.topics.into_iter().map(make).collect();
            by_name.fill(all.clone());
            by_id.fill(all);
        } else {
            if !Arc::ptr_eq(&routes, &self.routes)
                || configs != self.cluster_configs
                || level.number != self.level.number
            {
                let kept = by_name.iter().map(|kept| make(Arc::clone(&kept.topic)));
                let kept: Vec<Arc<Topic>> = kept.collect();
                by_name.fill(kept.clone());
                by_id.fill(kept);
            }
            for id in seen.deleted {
                if let Some(gone) = by_id.find(|topic| topic.topic.id.cmp(&id)).cloned() {
                    by_id.remove(&gone);
                    by_name.remove(&gone);
                }
            }
            for topic in seen.topics.into_iter().map(make) {
                by_name.put(Arc::clone(&topic));
                by_id.put(topic);
            }
        }
        View {
            cluster_id: self.cluster_id.clone(),
            agents,
            departed: self.departed.clone(),
            routes,
            cluster_configs: configs,
            level,
            version: Some(seen.version),
            by_name,
            by_id,
        }
    }

    /// All topics, sorted by name.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.iter()
    }

    /// Partitions of topics that a later view lacks; if the deleted topics are known, only theirs.
    fn partitions_gone(&self, later: &View, deleted: Option<Vec<TopicId>>) -> Vec<PartitionId> {
        let is_gone = |topic: &&Arc<Topic>| later.topic_by_id(topic.topic.id).is_none();
        let gone: Vec<&Arc<Topic>> = match &deleted {
            Some(ids) => ids.iter().filter_map(|id| self.topic_by_id(*id)).collect(),
            None => self.topics().filter(is_gone).collect(),
        };
        let partitions = gone.iter().flat_map(|topic| &topic.topic.partitions);
        partitions.copied().collect()
    }

    pub(crate) fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name
            .find(|topic| topic.topic.name.as_str().cmp(name))
    }

    pub(crate) fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.find(|topic| topic.topic.id.cmp(&id))
    }

    pub(crate) fn agent(&self, id: AgentId) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.id == id)
    }

    /// Where the partitions of a topic of this view are.
    pub(crate) fn places<'a>(&'a self, topic: &'a Topic) -> Places<'a> {
        let partitions = &topic.topic.partitions;
        let nothing = || Placed::new(partitions.len(), topic.replicas);
        let placed = topic.placed.get_or_init(nothing);
        self.routes.places(partitions, placed)
    }
}

/// How a client names a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TopicKey<'a> {
    Name(&'a str),
    Id(TopicId),
}

impl View {
    pub(crate) fn find(&self, key: TopicKey<'_>) -> Option<&Arc<Topic>> {
        match key {
            TopicKey::Name(name) => self.topic(name),
            TopicKey::Id(id) => self.topic_by_id(id),
        }
    }
}

/// The latest view, shared by all connections.
pub(crate) struct Views {
    control: Client,
    /// What this agent knows.
    levels: Levels,
    /// Fetches that wait for partitions of deleted topics are told to look.
    hub: Arc<Hub>,
    latest: RwLock<Arc<View>>,
    /// How often the agents of the view were others than before.
    agents_changed: Latest<u64>,
    /// Held while a change is asked for: each answer is the difference to the view before, so only
    /// one may be under way.
    asking: Mutex<()>,
    current: Mutex<Barriers>,
    begun: AtomicU64,
}

/// The last barrier that was waited for: its number and its result.
type Barriers = Option<(u64, Result<(), rpc::Error>)>;

impl Views {
    pub(crate) async fn open(
        control: Client,
        levels: Levels,
        cluster_id: String,
        hub: Arc<Hub>,
    ) -> Result<Self, rpc::Error> {
        let views = Views {
            control,
            levels,
            hub,
            latest: RwLock::new(Arc::new(View::nothing(levels, cluster_id))),
            agents_changed: Latest::new(0),
            asking: Mutex::default(),
            current: Mutex::default(),
            begun: AtomicU64::new(0),
        };
        views.refresh(Position::default()).await?;
        Ok(views)
    }

    pub(crate) fn latest(&self) -> Arc<View> {
        Arc::clone(&self.latest.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often the agents have changed, and with them what clients are told of them.
    pub(crate) fn agents_changes(&self) -> u64 {
        self.agents_changed.get()
    }

    /// Waits until the agents have changed since there were so many changes.
    pub(crate) async fn agents_change_after(&self, changes: u64) {
        self.agents_changed
            .wait_for(|count| *count != changes)
            .await;
    }

    /// Takes the view that the control node has applied, at `at` or later.
    pub(crate) async fn refresh(&self, at: Position) -> Result<Arc<View>, rpc::Error> {
        let _turn = self.asking.lock().await;
        let before = self.latest();
        let Some(seen) = self.control.view(before.version, at).await? else {
            return Ok(before);
        };
        // This answer may come from another node than the one before, which is further behind.
        if Some(seen.version) <= before.version {
            return Ok(before);
        }
        let level = self
            .levels
            .find(seen.level)
            .map_err(|refusal| rpc::Error::Unavailable {
                reason: refusal.to_string(),
            })?;
        let deleted = (!seen.whole).then(|| seen.deleted.clone());
        let mut view = before.follow(level, *seen);
        let now = host::clock::now();
        view.departed = before.departed.after(now, &before.agents, &view.agents);
        let view = Arc::new(view);
        *self.latest.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&view);
        if !Arc::ptr_eq(&before.routes, &view.routes) {
            // One change is made at a time.
            self.agents_changed.set(self.agents_changed.get() + 1);
        }
        self.hub
            .tell_to_look(&before.partitions_gone(&view, deleted));
        Ok(view)
    }

    /// Takes a current view: a topic that is not in it does not exist. Callers that wait at one
    /// time share a barrier, except one that began before they came.
    pub(crate) async fn refresh_current(&self) -> Result<Arc<View>, rpc::Error> {
        let before = self.begun.load(Relaxed);
        let mut last = self.current.lock().await;
        if let Some((number, outcome)) = &*last
            && *number > before
        {
            return outcome.clone().map(|()| self.latest());
        }
        let number = self.begun.fetch_add(1, Relaxed) + 1;
        let outcome = match self.control.barrier().await {
            Ok(at) => self.refresh(at).await.map(drop),
            Err(error) => Err(error),
        };
        *last = Some((number, outcome.clone()));
        outcome.map(|()| self.latest())
    }

    /// Takes a view of `version` or later, unless one was seen already. The node asked may be behind
    /// the one that told of the version; after a barrier it is not, so nobody asks a third time.
    pub(crate) async fn refresh_to(&self, version: u64) -> Result<(), rpc::Error> {
        let is_behind = |view: &View| view.version < Some(version);
        if !is_behind(&self.latest())
            || !is_behind(&*self.refresh(Position::default()).await?)
            || !is_behind(&*self.refresh_current().await?)
        {
            return Ok(());
        }
        Err(rpc::Error::Unavailable {
            reason: format!("the control node has not applied version {version} of the view yet"),
        })
    }
}

#[cfg(test)]
mod tests;
