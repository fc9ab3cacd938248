//! One running control node: what answers, commands and chores share. It must not know how it was started.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use host::latest::Latest;
use host::log_limit::LogLimits;
use journal::node::Role;
use journal::replica::{self, Handle};
use meta::State;
use meta::command::ControlNode;
use rpc::growth::Growth;
use rpc::{Relay, Speaker};

use crate::asking::Asking;
use crate::attendance::Attendance;
use crate::clocks::Compared;
use crate::commits::Commits;
use crate::configs::{self, Difference, Wanted};
use crate::groups::{self, GroupsMemory};
use crate::leading::Leading;
use crate::machine::Machine;
use crate::notices::Followers;
use crate::relaying::Relaying;
use crate::storing::Storing;
use crate::told::Told;
use crate::weight::{self, Weight};

/// A running control node.
pub struct Node {
    pub(crate) replica: Handle<Machine>,
    pub(crate) groups: groups::Client,
    pub(crate) notices: Followers,
    /// Calls that settle files.
    pub(crate) commits: Commits,
    /// The agents that are there; `None` if none is ever fenced for being away.
    pub(crate) attendance: Option<Attendance>,
    /// What it was started with.
    pub(crate) wanted: Wanted,
    /// What it registers as.
    pub(crate) registration: ControlNode,
    pub(crate) level_max: u32,
    pub(crate) weight: Weight,
    /// Whether this node leads and may lead no more.
    pub(crate) doubt: Arc<Latest<bool>>,
    /// How its wall clock compares with those of the others.
    pub(crate) clock: Mutex<Compared>,
    /// Who leads, and who is to.
    pub(crate) leading: Leading,
    /// The claim, by its slot, whose process was last said to be gone.
    pub(crate) gone: AtomicU64,
    /// Whether it has stored the snapshots that were due while it led.
    pub(crate) storing: Mutex<Storing>,
    /// Passes calls on to other control nodes; empty if there are none.
    pub(crate) relay: OnceLock<Relaying>,
    /// Bounds the log lines about callers who ask what is not theirs to ask.
    pub(crate) refusals: LogLimits<(Speaker, String)>,
    /// The address of another process that has this node's name and goes on: this one is to end.
    pub(crate) namesake: Latest<Option<String>>,
    /// What the node that leads tells of the others.
    pub(crate) told: Told,
    /// Asks the others before an entry of the journal is left out.
    pub(crate) asking: Arc<Asking>,
}

impl Node {
    /// From now on calls of agents that do not reach the node that leads are passed on to it by `relay`.
    pub fn relay_by(&self, relay: Arc<dyn Relay>) {
        // The first one stays.
        let _there = self.relay.set(Relaying::by(relay));
    }

    /// Waits until the journal cannot go on, and says why.
    pub async fn halted(&self) -> String {
        self.reach(&[Role::Halted]).await;
        self.why_halted()
    }

    /// Waits until an entry of the journal cannot be applied here, and says which and why.
    pub async fn stuck(&self) -> String {
        self.reach(&[Role::Stuck]).await;
        let rebuilds = || "the state is given up for an entry of the journal".to_owned();
        self.replica.status().stuck.unwrap_or_else(rebuilds)
    }

    pub(crate) async fn reach(&self, wanted: &[Role]) -> Role {
        self.reach_role(|role| wanted.contains(&role)).await
    }

    /// Waits while this node leads; yields what it does then.
    pub(crate) async fn lead_ends(&self) -> Role {
        self.reach_role(|role| role != Role::Leader).await
    }

    async fn reach_role(&self, is_wanted: impl Fn(Role) -> bool) -> Role {
        let mut roles = self.replica.roles();
        loop {
            let role = *roles.borrow_and_update();
            if is_wanted(role) {
                return role;
            }
            if roles.changed().await.is_err() {
                return Role::Halted;
            }
        }
    }

    pub(crate) fn why_halted(&self) -> String {
        self.replica
            .status()
            .halted
            .unwrap_or_else(|| "its task ended".to_owned())
    }

    /// Where the cluster's configs are not those that this node was started with.
    pub fn config_differences(&self) -> Vec<Difference> {
        self.with_state(|state| configs::differences(state, &self.wanted.configs))
    }

    /// The address of the node that leads, if it is another, as far as this node knows. One that led from this node's own
    /// address has ended, since this one listens there.
    pub fn leader_to_watch(&self) -> Option<String> {
        let (claim, address) = self.leader_elsewhere()?;
        if address == self.registration.address {
            self.is_gone(claim);
            return None;
        }
        Some(address)
    }

    /// The slot of the last claim, if it is another node's, and the address of that.
    fn leader_elsewhere(&self) -> Option<(u64, String)> {
        let status = self.replica.status();
        let own = &self.registration;
        let leader = status.leader.filter(|leader| *leader != own.claims_as)?;
        let address = self.with_state(|state| {
            let mut nodes = state.control_nodes();
            let node = nodes.find(|node| node.claims_as == leader)?;
            Some(node.address.clone())
        })?;
        Some((status.claim_index, address))
    }

    /// How often in a row, within ten minutes each, a lead was given up because no agent reached the node that had it, as far as
    /// this node knows.
    pub fn leads_given_up(&self) -> u32 {
        let attendance = self.attendance.as_ref();
        attendance.map_or(0, |here| here.aside().times(host::clock::now()))
    }

    /// The node that leads tells how the journal has grown.
    pub fn hear(&self, growth: Growth) {
        self.gone.store(0, Relaxed);
        self.told.goes_to(host::clock::now(), growth.to.0);
        if !growth.entries.is_empty() {
            let entries = growth.entries.into_iter();
            let entries = entries.map(|entry| (entry.at.0, entry.bytes));
            self.replica.tell(entries.collect());
        }
        self.replica.look_for(growth.to.0);
    }

    /// Nobody listens at this address: if it is that of the node that leads, its process is gone.
    pub fn leader_is_gone(&self, address: &str) {
        if let Some((claim, leads_at)) = self.leader_elsewhere()
            && leads_at == address
        {
            self.is_gone(claim);
        }
    }

    fn is_gone(&self, claim: u64) {
        self.gone.store(claim, Relaxed);
        self.replica.leader_is_gone(claim);
    }

    /// Waits until everything that was appended before the call is applied here, whoever leads.
    pub async fn caught_up(&self) -> bool {
        self.replica.confirm().await.is_ok()
    }

    /// Where the journal stands.
    pub fn journal_status(&self) -> replica::Status {
        self.replica.status()
    }

    /// Reads the metadata as applied here.
    pub fn with_state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        self.replica.with_state(|machine| read(machine.state()))
    }

    /// Memory that the metadata takes here.
    pub fn metadata_memory(&self) -> weight::Memory {
        self.weight.memory()
    }

    /// Memory that groups take, and may take.
    pub fn groups_memory(&self) -> GroupsMemory {
        GroupsMemory {
            bytes: self.with_state(|state| state.groups().bytes()),
            bytes_max: self.groups.bytes_max,
            awaited_bytes: self.groups.awaited_bytes.load(Relaxed),
        }
    }
}
