//! One control node: the journal's replica, the state machine on it, the coordinator of groups
//! and the leader's chores, started and stopped together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use host::task::Task;
use journal::entry::ClusterNumber;
use journal::node::Role;
use journal::object::Object;
use journal::replica::{self, Handle, Parts, Replica};
use meta::state::State;
use rpc::Error;
use rpc::view::Notice;
use store::bucket::Bucket;
use tokio::sync::{broadcast, mpsc};

use crate::coordinator;
use crate::groups;
use crate::housekeeping;
use crate::machine::Machine;

/// The one cluster of this journal.
pub(crate) const CLUSTER: ClusterNumber = ClusterNumber(1);

/// How a control node is to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Kafka's cluster id: 22 characters of base64.
    pub cluster_id: String,
    /// The journal's own settings.
    pub journal: journal::node::Settings,
    /// The coordinator's.
    pub groups: coordinator::Settings,
    /// Time between two runs of the leader's chores.
    pub housekeeping_interval: Duration,
    /// The cluster's configs that differ from their defaults.
    pub cluster_configs: BTreeMap<String, String>,
}

/// A running control node.
pub struct Node {
    pub(crate) replica: Handle<Machine>,
    pub(crate) groups: groups::Client,
    pub(crate) notices: broadcast::Sender<Arc<[Notice]>>,
}

/// What keeps a control node running; it stops when this is stopped or dropped.
pub struct Tasks {
    _journal: Replica,
    _groups: Task<()>,
    _housekeeping: Task<()>,
}

impl Node {
    /// Starts a control node whose journal lies in `bucket`. It follows or claims by itself, and
    /// goes on trying while the bucket is away.
    pub fn start(settings: &Settings, bucket: Arc<dyn Bucket>) -> (Arc<Node>, Tasks) {
        let (group_events, changed) = mpsc::unbounded_channel();
        let state = State::genesis(settings.cluster_id.clone());
        let machine = Machine::new(CLUSTER, state, group_events);
        let notices = machine.notices();
        let parts = Parts {
            engine: Arc::new(Object::new(Arc::clone(&bucket), settings.journal.shard)),
            bucket,
            settings: settings.journal.clone(),
        };
        let (replica, journal) = replica::start(parts, machine);
        let (groups, groups_task) =
            groups::start(settings.groups.clone(), replica.clone(), changed);
        let node = Arc::new(Node {
            replica,
            groups,
            notices,
        });
        let housekeeping = housekeeping::start(Arc::clone(&node), settings.housekeeping_interval);
        let tasks = Tasks {
            _journal: journal,
            _groups: groups_task,
            _housekeeping: housekeeping,
        };
        (node, tasks)
    }

    /// Waits until this node leads, then makes the cluster's configs what it was started with.
    pub async fn lead(&self, settings: &Settings) -> Result<(), Error> {
        match self.reach(&[Role::Leader, Role::Halted]).await {
            Role::Leader => housekeeping::configure(self, &settings.cluster_configs).await,
            _ => Err(Error::Refused {
                reason: self.why_halted(),
            }),
        }
    }

    /// Waits until the journal cannot go on, and says why.
    pub async fn halted(&self) -> String {
        self.reach(&[Role::Halted]).await;
        self.why_halted()
    }

    async fn reach(&self, wanted: &[Role]) -> Role {
        let mut roles = self.replica.roles();
        loop {
            let role = *roles.borrow_and_update();
            if wanted.contains(&role) {
                return role;
            }
            if roles.changed().await.is_err() {
                return Role::Halted;
            }
        }
    }

    fn why_halted(&self) -> String {
        self.replica
            .status()
            .halted
            .unwrap_or_else(|| "its task ended".to_owned())
    }

    /// Where the journal stands.
    pub fn journal_status(&self) -> replica::Status {
        self.replica.status()
    }

    /// Reads the metadata as applied here.
    pub fn with_state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        self.replica.with_state(|machine| read(machine.state()))
    }
}
