//! A control plane without a journal: commands are applied under a lock as they come, and calls
//! answered as a control node answers them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use control::answer::{Freshness, Step, conclude, step};
use control::membership::proposal;
use futures::StreamExt;
use host::clock::Instant;
use meta::Command;
use meta::State;
use meta::command::{ConfigChanges, ControlNode, CreateTopic};
use meta::ids::{FileId, Stamp, TopicId};
use meta::level::Levels;
use meta::reply::{Event, Reply};
use meta::topic::Topic;
use rpc::group::GroupRequest;
use rpc::notice::{Notice, Notices, Told};
use rpc::{Answer, Call, Client, Control, Error, Position, Return};
use tokio::sync::broadcast;

struct Meanwhile {
    is_next: fn(&Call) -> bool,
    commands: Vec<Command>,
}

pub struct Fake {
    state: Mutex<State>,
    /// What is shown to those who ask for no later position, and how far it had come: calls are
    /// answered as if each time by another node, which lags behind.
    lagging: Mutex<Option<(Position, State)>>,
    /// What somebody else has applied just before the next call of a kind is answered.
    meanwhile: Mutex<Option<Meanwhile>>,
    notices: broadcast::Sender<(Position, Vec<Notice>)>,
    /// Entries that the journal would have: commands and barriers.
    appended: AtomicU64,
    /// Commits are applied, and their answers lost.
    pub lose_commit_answers: AtomicBool,
    /// Who joins waits for others, for ever.
    pub park_joins: AtomicBool,
    /// Nobody leads: nothing is appended, and every call is refused.
    pub leaderless: AtomicBool,
    pub barriers: AtomicU64,
    pub views: AtomicU64,
    pub locates: AtomicU64,
    /// What was asked of the coordinator of groups, which is not here.
    pub asked_of_groups: Mutex<Vec<GroupRequest>>,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Fake::of(Levels::KNOWN)
    }

    /// One of a build that knows these levels.
    pub fn of(levels: Levels) -> Arc<Self> {
        let cluster_id = "AAAAAAAAAAAAAAAAAAAAAA".to_owned();
        Arc::new(Fake {
            state: Mutex::new(State::genesis_of(levels, cluster_id)),
            lagging: Mutex::new(None),
            meanwhile: Mutex::new(None),
            notices: broadcast::channel(1_024).0,
            appended: AtomicU64::new(0),
            lose_commit_answers: AtomicBool::new(false),
            park_joins: AtomicBool::new(false),
            leaderless: AtomicBool::new(false),
            barriers: AtomicU64::new(0),
            views: AtomicU64::new(0),
            locates: AtomicU64::new(0),
            asked_of_groups: Mutex::new(Vec::new()),
        })
    }

    /// The way to it that an agent has.
    pub fn client(self: &Arc<Self>) -> Client {
        let control: Arc<dyn Control> = self.clone();
        Client::new(control)
    }

    /// From now on shows what is applied later to those alone who ask for its position, and tells
    /// nobody of it.
    pub fn lag(&self) {
        let state = self.state();
        *self.lagging.lock().unwrap() = Some((Position(self.appended()), state.clone()));
    }

    /// Has commands applied just before the next call of a kind is answered.
    pub fn meanwhile(&self, is_next: fn(&Call) -> bool, commands: Vec<Command>) {
        *self.meanwhile.lock().unwrap() = Some(Meanwhile { is_next, commands });
    }

    fn apply_meanwhile(&self, call: &Call) {
        let mut meanwhile = self.meanwhile.lock().unwrap();
        let due = meanwhile.take_if(|due| (due.is_next)(call));
        for command in due.iter().flat_map(|due| &due.commands) {
            self.apply(command);
        }
    }

    /// What to do about a call, and the position at which that was found.
    fn step(
        &self,
        lagging: Option<&(Position, State)>,
        is_current: bool,
        call: Call,
    ) -> Result<(Step, Position), Error> {
        if let Some((at, state)) = lagging {
            return Ok((step(state, call, Freshness::Applied(*at))?, *at));
        }
        let (state, at) = (self.state(), Position(self.appended()));
        let freshness = match is_current {
            true => Freshness::Current,
            false => Freshness::Applied(at),
        };
        Ok((step(&state, call, freshness)?, at))
    }

    /// How many entries the journal would have.
    pub fn appended(&self) -> u64 {
        self.appended.load(Relaxed)
    }

    pub async fn create_topic(
        self: &Arc<Self>,
        name: &str,
        partitions: u32,
        configs: BTreeMap<String, String>,
    ) {
        let create = CreateTopic {
            id: TopicId(host::rng::nonce()),
            name: name.to_owned(),
            partitions,
            configs,
            replication_factor: 0,
        };
        let created = self.client().change(Command::CreateTopic(create)).await;
        created.unwrap();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Applies what only a leader proposes.
    pub fn lead(&self, command: &Command) -> Reply {
        self.apply(command)
    }

    /// How many copies of files lack, in all buckets.
    pub fn short(&self) -> u64 {
        let state = self.state();
        state.shortages().map(|(_, short)| short.files).sum()
    }

    /// How many files are not forgotten.
    pub fn files(&self) -> u64 {
        self.state().totals().files
    }

    fn apply(&self, command: &Command) -> Reply {
        let stamp = Stamp {
            wall_millis: host::clock::wall_millis(),
            ticks_millis: host::clock::now().as_millis(),
        };
        let mut state = self.state();
        self.appended.fetch_add(1, Relaxed);
        let applied = state.apply(meta::ids::EntryId::default(), stamp, command);
        let version = state.view_version();
        let notices: Vec<Notice> = applied
            .events
            .into_iter()
            .filter_map(|event| notice(event, version))
            .collect();
        drop(state);
        let lags = self.lagging.lock().unwrap().is_some();
        if !notices.is_empty() && !lags {
            let _ = self.notices.send((Position(self.appended()), notices));
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

    /// Does what a leader sees to beside its work; the level then.
    pub fn see_to_membership(&self) -> u32 {
        let own = ControlNode {
            nonce: 1,
            name: "c".to_owned(),
            claims_as: "c".to_owned(),
            address: "c:1".to_owned(),
            region: "r".to_owned(),
            zone: String::new(),
            level: self.state().levels().newest().number,
        };
        let missing = || proposal(&self.state(), &own, u32::MAX);
        while let Some(command) = missing() {
            assert_eq!(self.apply(&command), Reply::Done);
        }
        self.state().level().number
    }

    /// Expires and tombstones all that is due.
    pub fn housekeep(&self) {
        while let Reply::Housekept { more: true } = self.apply(&Command::Housekeep) {}
    }

    /// True if the file is committed and not forgotten.
    pub fn remembers(&self, file: FileId) -> bool {
        self.state().file(file).is_some()
    }

    /// How many were registered.
    pub fn incarnations(&self) -> u64 {
        let state = self.state();
        let last = state.agents().map(|agent| agent.incarnation.0).max();
        last.unwrap_or(0)
    }

    pub fn fence(&self, incarnation: u64) {
        let incarnation = meta::ids::Incarnation(incarnation);
        self.apply(&Command::FenceAgent { incarnation });
    }
}

fn notice(event: Event, version: u64) -> Option<Notice> {
    Some(match event {
        Event::Advanced {
            partition,
            high_watermark,
            place,
        } => Notice::Advanced {
            partition,
            high_watermark,
            place,
        },
        Event::LogStart {
            partition,
            log_start,
        } => Notice::LogStart {
            partition,
            log_start,
        },
        Event::TopicsChanged { .. } | Event::AgentsChanged => Notice::View { version },
        Event::FilesTombstoned | Event::Group(_) => return None,
    })
}

#[async_trait]
impl Control for Fake {
    async fn call_for(&self, call: Call, _: Option<Instant>) -> Result<Answer, Error> {
        let mut call = call;
        if self.leaderless.load(Relaxed) {
            return Err(Error::NotLeader { leader: None });
        }
        if matches!(call, Call::Locate { .. }) {
            self.locates.fetch_add(1, Relaxed);
        }
        self.apply_meanwhile(&call);
        let mut lagging = self.lagging.lock().unwrap().clone();
        let mut is_current = false;
        loop {
            let (next, at) = self.step(lagging.as_ref(), is_current, call)?;
            match next {
                Step::Now(value) => {
                    if matches!(value, Return::View(Some(_))) {
                        self.views.fetch_add(1, Relaxed);
                    }
                    return Ok(Answer { at, value });
                }
                Step::Reach(position, again) => {
                    assert!(lagging.take().is_some(), "nobody was told of {position:?}");
                    call = again;
                }
                Step::Current(again) => {
                    self.barriers.fetch_add(1, Relaxed);
                    self.appended.fetch_add(1, Relaxed);
                    (lagging, is_current) = (None, true);
                    call = again;
                }
                Step::Propose(command) => {
                    let reply = self.apply(&command);
                    let at = Position(self.appended());
                    let value = conclude(&self.state(), reply)?;
                    let is_commit = matches!(*command, Command::CommitFile(_));
                    if is_commit && self.lose_commit_answers.load(Relaxed) {
                        let reason = "the answer was lost".to_owned();
                        return Err(Error::Unknown { reason });
                    }
                    return Ok(Answer { at, value });
                }
                Step::Hear(_) => return Err(Error::NotLeader { leader: None }),
                Step::Attend(..) => return std::future::pending().await,
                Step::WhoLeads => panic!("an agent leaves that to the link"),
                Step::Peer(request) => panic!("no agent asks {request:?}"),
                Step::Coordinate(request) => {
                    let is_join = matches!(request, GroupRequest::Join(_));
                    if is_join && self.park_joins.load(Relaxed) {
                        return std::future::pending().await;
                    }
                    self.asked_of_groups.lock().unwrap().push(request);
                    return Err(Error::NotLeader { leader: None });
                }
            }
        }
    }

    fn notices(&self) -> Notices {
        let told = self.notices.subscribe();
        let begin = Position(self.appended());
        type Behind = (broadcast::Receiver<(Position, Vec<Notice>)>, Position);
        let next = |(mut told, from): Behind| async move {
            let (to, notices) = match host::clock::timeout(BEAT, told.recv()).await {
                Err(_) => (from, Vec::new()),
                Ok(Ok(told)) => told,
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => (from, vec![Notice::Anything]),
                Ok(Err(broadcast::error::RecvError::Closed)) => return None,
            };
            Some((
                Told {
                    from,
                    to,
                    age_millis: 0,
                    notices,
                },
                (told, to),
            ))
        };
        let from_where = Told {
            from: begin,
            to: begin,
            age_millis: 0,
            notices: Vec::new(),
        };
        let told = futures::stream::unfold((told, begin), next);
        futures::stream::iter([from_where]).chain(told).boxed()
    }
}

/// How often it says that nothing has happened.
const BEAT: Duration = Duration::from_millis(250);

/// Configs of a topic, written briefly.
pub fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
