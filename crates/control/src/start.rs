//! Starts a control node: its replica of the journal, the state machine on it, the coordinator of groups and the leader's
//! chores, which end together; and leads a new cluster to its configs. It must not know what any of them does.

use std::convert::Infallible;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use host::backoff::Backoff;
use host::budget::Budget;
use host::latest::Latest;
use host::log_limit::{LogLimit, LogLimits};
use host::task::Task;
use journal::engine::Engine;
use journal::node::Role;
use journal::replica::{self, Alone, Others, Parts, Replica};
use meta::State;
use meta::command::{Command, ConfigChanges, ControlNode};
use meta::level::Levels;
use meta::reply::Reply;
use rpc::Error;
use store::bucket::Bucket;
use tokio::sync::mpsc;

use crate::asking::Asking;
use crate::attend;
use crate::attendance::{self, Attendance};
use crate::commits::Commits;
use crate::configs::{self, Wanted};
use crate::coordinator;
use crate::doubt;
use crate::groups;
use crate::housekeeping;
use crate::leading::Leading;
use crate::machine::{CLUSTER, Machine};
use crate::membership::Identity;
use crate::node::Node;
use crate::told::Told;
use crate::weighing;
use crate::weight::Weight;

/// How a control node is to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Kafka's cluster id: 22 characters of base64.
    pub cluster_id: String,
    /// The feature levels that this node knows: all of its build's, outside tests.
    pub levels: Levels,
    /// A leader raises the feature level no further than this.
    pub level_max: u32,
    pub identity: Identity,
    /// The version of its build, as others show it.
    pub version: String,
    /// The journal's own settings.
    pub journal: journal::node::Settings,
    pub groups: coordinator::Settings,
    /// Memory for requests to groups that wait for the coordinator or for the journal.
    pub group_requests_bytes: u64,
    /// Memory for notices that followers have not taken yet.
    pub notices_bytes: usize,
    /// What this node's copy of the metadata may take, in bytes, before an operator is told.
    pub metadata_bytes_max: u64,
    /// Time between two runs of the leader's chores.
    pub housekeeping_interval: Duration,
    pub cluster_configs: Wanted,
    /// Which agents are fenced for being away, and which control nodes forgotten; `None`: none, since there is one of each, in
    /// this process.
    pub presence: Option<attendance::Settings>,
}

impl Settings {
    /// What a run of this control node registers as.
    pub fn registration(&self, nonce: u128) -> ControlNode {
        let Identity {
            name,
            address,
            region,
            zone,
        } = self.identity.clone();
        ControlNode {
            nonce,
            name,
            claims_as: self.journal.name.clone(),
            address,
            region,
            zone,
            level: self.levels.newest().number,
        }
    }
}

/// The pauses before configs that could not be set are tried again.
const CONFIGURE: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
/// How often it is logged that they could not be set.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What keeps a control node running; it stops when this is stopped or dropped.
pub struct Tasks {
    _journal: Replica,
    _groups: Task<()>,
    _housekeeping: Task<()>,
    _fencing: Option<Task<()>>,
    _weighing: Task<()>,
    _doubting: Task<()>,
}

impl Node {
    /// Starts a control node on an engine of its own, with snapshots in `bucket`. It follows or
    /// claims by itself, and goes on trying while either is away.
    pub fn start(
        settings: &Settings,
        engine: Box<dyn Engine>,
        bucket: Arc<dyn Bucket>,
    ) -> (Arc<Node>, Tasks) {
        let (group_events, changed) = mpsc::unbounded_channel();
        let state = State::genesis_of(settings.levels, settings.cluster_id.clone());
        let machine = Machine::new(CLUSTER, state, group_events, settings.notices_bytes);
        let notices = machine.followers();
        let asking = Arc::<Asking>::default();
        let others: Arc<dyn Others> = match settings.presence {
            Some(_) => Arc::<Asking>::clone(&asking),
            None => Arc::new(Alone),
        };
        let parts = Parts {
            engine,
            bucket,
            others,
            settings: settings.journal.clone(),
        };
        let (replica, journal) = replica::start(parts, machine);
        let requests = Budget::of_bytes(settings.group_requests_bytes);
        let (groups, groups_task) =
            groups::start(settings.groups.clone(), requests, replica.clone(), changed);
        let node = Arc::new(Node {
            replica,
            groups,
            notices,
            commits: Commits::new(),
            attendance: settings.presence.map(Attendance::new),
            wanted: settings.cluster_configs.clone(),
            registration: settings.registration(host::rng::nonce()),
            level_max: settings.level_max,
            weight: Weight::new(settings.metadata_bytes_max),
            doubt: Arc::default(),
            clock: Mutex::default(),
            leading: Leading::default(),
            gone: AtomicU64::new(0),
            storing: Mutex::default(),
            relay: OnceLock::new(),
            refusals: LogLimits::every(LOG_EVERY),
            namesake: Latest::default(),
            told: Told::new(settings.version.clone()),
            asking,
        });
        let housekeeping = housekeeping::start(Arc::clone(&node), settings.housekeeping_interval);
        let fencing = settings
            .presence
            .map(|_| host::task::spawn("fencing", attend::fence(Arc::clone(&node))));
        let weighing = weighing::keep_weighing(Arc::clone(&node));
        let weighing = host::task::spawn("weighing", async move { match weighing.await {} });
        let doubting = doubt::keep_telling(Arc::clone(&node));
        let doubting = host::task::spawn("doubt", async move { match doubting.await {} });
        let tasks = Tasks {
            _weighing: weighing,
            _doubting: doubting,
            _fencing: fencing,
            _journal: journal,
            _groups: groups_task,
            _housekeeping: housekeeping,
        };
        (node, tasks)
    }

    /// Sees to the same each time that this node takes the lead; the error says why it never will again.
    pub async fn keep_leading(&self) -> Result<Infallible, Error> {
        loop {
            self.lead().await?;
            if self.lead_ends().await == Role::Halted {
                return Err(Error::Refused {
                    reason: self.why_halted(),
                });
            }
        }
    }

    /// Waits until this node leads; sees to it that it is registered and the level as high as can be; then, if it leads a
    /// new cluster, sets its configs, of which the level decides which there are. It begins again if the lead is lost
    /// meanwhile, or the journal falters.
    pub async fn lead(&self) -> Result<(), Error> {
        let mut pauses = CONFIGURE.start();
        let log = LogLimit::every(LOG_EVERY);
        loop {
            if self.reach(&[Role::Leader, Role::Halted]).await == Role::Halted {
                return Err(Error::Refused {
                    reason: self.why_halted(),
                });
            }
            let begun = match self.see_to_membership().await {
                Ok(()) => place(self, &self.wanted).await,
                Err(error) => Err(error),
            };
            let begun = match begun {
                Ok(()) => configure(self, &self.wanted).await,
                Err(error) => Err(error),
            };
            match begun {
                Ok(()) | Err(Error::Refused { .. } | Error::Topic(_)) => return begun,
                Err(error) => {
                    if let Some(left_out) = log.pass(host::clock::now()) {
                        tracing::warn!(%error, left_out, "the lead is not begun yet; it is tried again");
                    }
                    pauses.pause().await;
                }
            }
        }
    }
}

/// Says of a new cluster that has several buckets which these are, and in how many a file must be. Later only an operator's word
/// changes it (three regions, rule L6).
async fn place(node: &Node, wanted: &Wanted) -> Result<(), Error> {
    let Some(placement) = &wanted.placement else {
        return Ok(());
    };
    let is_placed = node.with_state(|state| state.placement().number != 0);
    if !is_placed {
        // Another refusal says that somebody was quicker.
        node.propose(&Command::SetPlacement(placement.clone()))
            .await?;
    }
    let in_force = node.with_state(|state| state.placement().clone());
    if in_force.buckets != placement.buckets {
        tracing::warn!(
            ?in_force,
            started_with = ?placement,
            "this node was started with other buckets than the cluster has, which stay as they are"
        );
    }
    Ok(())
}

/// Sets the configs of a new cluster, or those that an operator wants replaced, and says what differs
/// then.
async fn configure(node: &Node, wanted: &Wanted) -> Result<(), Error> {
    let (is_new, version, changes) = node.with_state(|state| {
        let changes = configs::changes(state, &wanted.configs);
        (state.is_new(), state.configs_version(), changes)
    });
    let is_told = is_new || wanted.replaces == Some(version);
    if is_told && changes != ConfigChanges::default() {
        let replaces = version;
        let command = Command::SetClusterConfigs { replaces, changes };
        // Another refusal says that somebody was quicker: what he has set stays.
        if let Reply::TopicRefused(refusal) = node.propose(&command).await?.1 {
            return Err(Error::Topic(refusal));
        }
    }
    let (version, differences) = node.with_state(|state| {
        let differences = configs::differences(state, &wanted.configs);
        (state.configs_version(), differences)
    });
    for differs in differences {
        tracing::warn!(
            config = differs.name,
            in_force = differs.in_force,
            started_with = differs.wanted,
            cluster.configs.version = version,
            "this node was started with another value than the cluster has, which stays as it is: to \
             make the cluster's configs those of this node, start it once with \
             --set cluster.configs.replace={version}"
        );
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
