//! A control plane without a journal: commands are applied under a lock as they come.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use host::budget::Held;
use meta::command::{Command, ConfigChanges, CreateTopic, RegisterAgent};
use meta::commit::{CommitFile, FileReply};
use meta::ids::{FileId, PartitionId, Stamp, TopicId};
use meta::query::SlicePlace;
use meta::reply::{Event, Reply};
use meta::state::State;
use meta::topic::{Refusal, Topic};
use meta::{Fate, FileRef};
use rpc::control::{Producer, TopicRefusal, TopicSpec};
use rpc::group::{GroupReply, GroupRequest};
use rpc::view::{
    AgentView, Bounds, ClusterView, FileFate, Locate, Located, Notice, Place, Registered,
    Registration, TimeQuery, TopicView,
};
use rpc::{Control, Error};
use tokio::sync::broadcast;

pub struct Fake {
    state: Mutex<State>,
    notices: broadcast::Sender<Arc<[Notice]>>,
    topics: AtomicU64,
    /// Commits are applied, and their answers lost.
    pub lose_commit_answers: AtomicBool,
    /// Who joins waits for others, for ever.
    pub park_joins: AtomicBool,
    pub barriers: AtomicU64,
    pub views: AtomicU64,
    pub locates: AtomicU64,
    /// What was asked of the coordinator of groups, which is not here.
    pub asked_of_groups: Mutex<Vec<GroupRequest>>,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Fake {
            state: Mutex::new(State::genesis("AAAAAAAAAAAAAAAAAAAAAA".to_owned())),
            notices: broadcast::channel(1_024).0,
            topics: AtomicU64::new(0),
            lose_commit_answers: AtomicBool::new(false),
            park_joins: AtomicBool::new(false),
            barriers: AtomicU64::new(0),
            views: AtomicU64::new(0),
            locates: AtomicU64::new(0),
            asked_of_groups: Mutex::new(Vec::new()),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn apply(&self, command: &Command) -> Reply {
        let stamp = Stamp {
            wall_millis: host::clock::wall_millis(),
            ticks_millis: host::clock::now().as_millis(),
        };
        let mut state = self.state();
        let applied = state.apply(meta::ids::EntryId::default(), stamp, command);
        let version = state.view_version();
        let notices: Vec<Notice> = applied
            .events
            .iter()
            .filter_map(|event| notice(event, version))
            .collect();
        drop(state);
        if !notices.is_empty() {
            let _ = self.notices.send(notices.into());
        }
        applied.reply
    }

    /// A topic by name.
    pub fn find(&self, name: &str) -> Topic {
        self.state().topic(name).unwrap().clone()
    }

    /// Sets a config of the cluster.
    pub fn configure(&self, name: &str, value: &str) {
        let changes = ConfigChanges {
            set: configs(&[(name, value)]),
            ..ConfigChanges::default()
        };
        let replaces = self.state().configs_version();
        self.apply(&Command::SetClusterConfigs { replaces, changes });
    }

    /// Expires and tombstones all that is due.
    pub fn housekeep(&self) {
        while let Reply::Housekept { more: true } = self.apply(&Command::Housekeep) {}
    }

    /// True if the file is committed and not forgotten.
    pub fn remembers(&self, file: FileId) -> bool {
        self.state().file(file).is_some()
    }

    pub fn fence(&self, incarnation: u64) {
        let incarnation = meta::ids::Incarnation(incarnation);
        self.apply(&Command::FenceAgent { incarnation });
    }
}

fn notice(event: &Event, version: u64) -> Option<Notice> {
    Some(match event {
        Event::Advanced {
            partition,
            high_watermark,
            place: at,
        } => Notice::Advanced {
            partition: *partition,
            high_watermark: *high_watermark,
            place: place(at),
        },
        Event::LogStart {
            partition,
            log_start,
        } => Notice::LogStart {
            partition: *partition,
            log_start: *log_start,
        },
        Event::TopicsChanged { .. } | Event::AgentsChanged => Notice::View { version },
        Event::FilesTombstoned | Event::Group(_) => return None,
    })
}

fn place(place: &SlicePlace) -> Place {
    Place {
        file: place.file,
        nonce: place.nonce,
        file_length: place.file_length,
        position: place.position,
        length: place.length,
        base_offset: place.base_offset,
        last_offset: place.last_offset,
        max_timestamp: place.max_timestamp,
    }
}

fn refusal(refusal: &Refusal) -> TopicRefusal {
    let reason = refusal.to_string();
    match refusal {
        Refusal::Exists { .. } => TopicRefusal::Exists(reason),
        Refusal::Unknown => TopicRefusal::Unknown(reason),
        Refusal::InvalidName { .. } => TopicRefusal::InvalidName(reason),
        Refusal::InvalidPartitions { .. } => TopicRefusal::InvalidPartitions(reason),
        Refusal::InvalidConfig { .. } => TopicRefusal::InvalidConfig(reason),
        Refusal::Policy { .. } => TopicRefusal::Policy(reason),
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::Refused {
        reason: format!("{reply:?}"),
    }
}

#[async_trait]
impl Control for Fake {
    async fn register(&self, registration: Registration) -> Result<Registered, Error> {
        let reply = self.apply(&Command::RegisterAgent(RegisterAgent {
            nonce: registration.nonce,
            name: registration.name,
            host: registration.host,
            port: registration.port,
            region: registration.region,
            zone: registration.zone,
            level: meta::FEATURE_LEVEL,
        }));
        match reply {
            Reply::Registered { agent, incarnation } => {
                let cluster_id = self.state().cluster_id().to_owned();
                Ok(Registered {
                    agent,
                    incarnation,
                    cluster_id,
                })
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn commit(&self, file: CommitFile) -> Result<FileReply, Error> {
        match self.apply(&Command::CommitFile(file)) {
            Reply::File(_) if self.lose_commit_answers.load(Ordering::Relaxed) => {
                Err(Error::Unknown {
                    reason: "the answer was lost".to_owned(),
                })
            }
            Reply::File(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    async fn skip(&self, file: FileId) -> Result<FileReply, Error> {
        match self.apply(&Command::SkipFile { file }) {
            Reply::File(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    async fn view(&self, known: Option<u64>) -> Result<Option<ClusterView>, Error> {
        let state = self.state();
        let version = state.view_version();
        if known == Some(version) {
            return Ok(None);
        }
        self.views.fetch_add(1, Ordering::Relaxed);
        let agents = state.agents().map(|agent| AgentView {
            id: agent.id,
            host: agent.host.clone(),
            port: agent.port,
            region: agent.region.clone(),
            zone: agent.zone.clone(),
            incarnation: agent.incarnation,
        });
        let topics = state.topics().shared().map(|topic| TopicView {
            topic: Arc::clone(topic),
            cluster_configs: Arc::clone(state.topics().cluster_configs()),
        });
        Ok(Some(ClusterView {
            cluster_id: state.cluster_id().to_owned(),
            agents: agents.collect(),
            topics: topics.collect(),
            cluster_configs: Arc::clone(state.topics().cluster_configs()),
            version,
        }))
    }

    async fn locate(&self, requests: &[Locate]) -> Result<Vec<Located>, Error> {
        self.locates.fetch_add(1, Ordering::Relaxed);
        let state = self.state();
        let located = requests.iter().map(|request| {
            match state.locate(request.partition, request.offset, request.max_bytes, 64) {
                meta::query::Located::Found {
                    log_start,
                    high_watermark,
                    places,
                } => {
                    let places = places.iter().map(place).collect();
                    Located::Found {
                        log_start,
                        high_watermark,
                        places,
                    }
                }
                meta::query::Located::OutOfRange {
                    log_start,
                    high_watermark,
                } => Located::OutOfRange {
                    log_start,
                    high_watermark,
                },
                meta::query::Located::UnknownPartition => Located::Unknown,
            }
        });
        Ok(located.collect())
    }

    async fn barrier(&self) -> Result<(), Error> {
        self.barriers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn bounds(&self, partitions: &[PartitionId]) -> Result<Vec<Option<Bounds>>, Error> {
        let state = self.state();
        let bounds = |partition: &PartitionId| match state.locate(*partition, 0, 1, 1) {
            meta::query::Located::Found {
                log_start,
                high_watermark,
                ..
            }
            | meta::query::Located::OutOfRange {
                log_start,
                high_watermark,
            } => Some(Bounds {
                log_start,
                high_watermark,
            }),
            meta::query::Located::UnknownPartition => None,
        };
        Ok(partitions.iter().map(bounds).collect())
    }

    async fn find_time(
        &self,
        partition: PartitionId,
        query: TimeQuery,
    ) -> Result<Option<Place>, Error> {
        let state = self.state();
        let found = match query {
            TimeQuery::AtOrAfter(timestamp) => {
                state.slice_at_or_after_timestamp(partition, timestamp)
            }
            TimeQuery::Largest => state.max_timestamp_slice(partition),
        };
        Ok(found.as_ref().map(place))
    }

    async fn create_topic(
        &self,
        topic: TopicSpec,
        validate_only: bool,
    ) -> Result<Result<TopicId, TopicRefusal>, Error> {
        let id = TopicId(u128::from(self.topics.fetch_add(1, Ordering::Relaxed) + 1) << 64);
        let TopicSpec {
            name,
            partitions,
            configs,
        } = topic;
        let create = CreateTopic {
            id,
            name,
            partitions,
            configs,
        };
        if validate_only {
            let checked = self.state().check_create_topic(&create);
            return Ok(checked.map(|()| id).map_err(|why| refusal(&why)));
        }
        match self.apply(&Command::CreateTopic(create)) {
            Reply::Topic { id } => Ok(Ok(id)),
            Reply::TopicRefused(why) => Ok(Err(refusal(&why))),
            other => Err(unexpected(&other)),
        }
    }

    async fn delete_topic(&self, topic: TopicId) -> Result<Result<(), TopicRefusal>, Error> {
        match self.apply(&Command::DeleteTopic { id: topic }) {
            Reply::TopicRefused(why) => Ok(Err(refusal(&why))),
            _ => Ok(Ok(())),
        }
    }

    async fn create_partitions(
        &self,
        topic: &str,
        total: u32,
        validate_only: bool,
    ) -> Result<Result<(), TopicRefusal>, Error> {
        let Some(id) = self.state().topic(topic).map(|topic| topic.id) else {
            return Ok(Err(refusal(&Refusal::Unknown)));
        };
        if validate_only {
            let checked = self.state().check_create_partitions(id, total);
            return Ok(checked.map_err(|why| refusal(&why)));
        }
        match self.apply(&Command::CreatePartitions { id, total }) {
            Reply::TopicRefused(why) => Ok(Err(refusal(&why))),
            _ => Ok(Ok(())),
        }
    }

    async fn init_producer(&self, known: Option<Producer>) -> Result<Producer, Error> {
        let known = known.map(|producer| (producer.id, producer.epoch));
        match self.apply(&Command::AllocateProducer { known }) {
            Reply::Producer { id, epoch } => Ok(Producer { id, epoch }),
            other => Err(unexpected(&other)),
        }
    }

    async fn group(&self, request: GroupRequest, memory: Vec<Held>) -> Result<GroupReply, Error> {
        let is_join = matches!(request, GroupRequest::Join(_));
        if is_join && self.park_joins.load(Ordering::Relaxed) {
            drop((request, memory));
            return std::future::pending().await;
        }
        self.asked_of_groups.lock().unwrap().push(request);
        Err(Error::NotLeader {
            reason: "there is no coordinator here".to_owned(),
        })
    }

    fn notices(&self) -> broadcast::Receiver<Arc<[Notice]>> {
        self.notices.subscribe()
    }

    async fn collectable(&self, limit: usize) -> Result<Vec<FileRef>, Error> {
        Ok(self.state().collectable(limit))
    }

    async fn forget_files(&self, files: Vec<FileRef>) -> Result<(), Error> {
        self.apply(&Command::FilesDeleted {
            files: files.into_iter().collect(),
        });
        Ok(())
    }

    async fn fates(&self, files: &[FileRef]) -> Result<Vec<FileFate>, Error> {
        let state = self.state();
        let fate = |file: &FileRef| match state.fate(*file) {
            Fate::Live => FileFate::Live,
            Fate::Tombstoned => FileFate::Tombstoned,
            Fate::Undecided => FileFate::Undecided,
            Fate::Dead => FileFate::Dead,
        };
        Ok(files.iter().map(fate).collect())
    }
}

/// Configs of a topic, written briefly.
pub fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
