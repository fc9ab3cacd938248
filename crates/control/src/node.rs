//! One control node: the journal's replica, the state machine on it, the coordinator of groups
//! and the leader's chores, started and stopped together.

use std::sync::Arc;
use std::time::Duration;

use host::backoff::Backoff;
use host::task::Task;
use journal::engine::Engine;
use journal::entry::ClusterNumber;
use journal::node::Role;
use journal::replica::{self, Handle, Parts, Replica};
use meta::state::State;
use rpc::Error;
use store::bucket::Bucket;
use tokio::sync::mpsc;

use crate::answer::Answers;
use crate::configs::{self, Difference, Wanted};
use crate::coordinator;
use crate::groups;
use crate::housekeeping;
use crate::machine::Machine;
use crate::notices::Followers;

/// The one cluster of this journal.
pub(crate) const CLUSTER: ClusterNumber = ClusterNumber(1);

/// How a control node is to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Kafka's cluster id: 22 characters of base64.
    pub cluster_id: String,
    /// The journal's own settings.
    pub journal: journal::node::Settings,
    pub groups: coordinator::Settings,
    /// Time between two runs of the leader's chores.
    pub housekeeping_interval: Duration,
    pub cluster_configs: Wanted,
}

/// The pauses before configs that could not be set are tried again.
const CONFIGURE: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));

/// A running control node.
pub struct Node {
    pub(crate) replica: Handle<Machine>,
    pub(crate) groups: groups::Client,
    pub(crate) notices: Followers,
    pub(crate) answers: Answers,
    /// What it was started with.
    wanted: Wanted,
}

/// What keeps a control node running; it stops when this is stopped or dropped.
pub struct Tasks {
    _journal: Replica,
    _groups: Task<()>,
    _housekeeping: Task<()>,
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
        let state = State::genesis(settings.cluster_id.clone());
        let machine = Machine::new(CLUSTER, state, group_events);
        let notices = machine.followers();
        let parts = Parts {
            engine,
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
            answers: Answers::default(),
            wanted: settings.cluster_configs.clone(),
        });
        let housekeeping = housekeeping::start(Arc::clone(&node), settings.housekeeping_interval);
        let tasks = Tasks {
            _journal: journal,
            _groups: groups_task,
            _housekeeping: housekeeping,
        };
        (node, tasks)
    }

    /// Waits until this node leads; if it leads a new cluster, sets its configs. It begins again if
    /// the lead is lost meanwhile, or the journal falters.
    pub async fn lead(&self) -> Result<(), Error> {
        let mut pauses = CONFIGURE.start();
        loop {
            if self.reach(&[Role::Leader, Role::Halted]).await == Role::Halted {
                return Err(Error::Refused {
                    reason: self.why_halted(),
                });
            }
            let configured = configs::configure(self, &self.wanted).await;
            match configured {
                Ok(()) | Err(Error::Refused { .. } | Error::Topic(_)) => return configured,
                Err(error) => {
                    tracing::warn!(%error, "the cluster's configs are not set yet; it is tried again");
                    pauses.pause().await;
                }
            }
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

    /// Where the cluster's configs are not those that this node was started with.
    pub fn config_differences(&self) -> Vec<Difference> {
        self.with_state(|state| configs::differences(state, &self.wanted.configs))
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

#[cfg(test)]
mod tests;
