//! Calls that come while nobody leads: they wait for a moment for the node that takes the lead, so that their callers need not ask
//! again and again, each time across regions. It must not know how the lead is taken.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use journal::node::Role;
use rpc::Call;

use crate::answer;
use crate::node::Node;

/// How long a call waits: its caller turns to all nodes after half a second without an answer.
const WAIT_MAX: Duration = Duration::from_millis(300);
/// How often it is looked whether this node leads, or another has claimed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Node {
    /// Waits, if the call is one that only the leader answers, and nobody is known to lead, until somebody does.
    pub(crate) async fn await_leader(&self, call: &Call) {
        if answer::needs_leader(call) && self.is_leaderless() {
            // Who still waits then is told what is known.
            let _in_time = host::clock::timeout(WAIT_MAX, self.led()).await;
        }
    }

    async fn led(&self) {
        while self.is_leaderless() {
            host::clock::sleep(LOOK_EVERY).await;
        }
    }

    /// True while this node tries to lead, or follows one that is said to be gone.
    pub(crate) fn is_leaderless(&self) -> bool {
        let status = self.replica.status();
        match status.role {
            Role::Candidate | Role::BecomingLeader => true,
            Role::Follower => self.gone.load(Relaxed) == status.claim_index,
            Role::Loading | Role::Leader | Role::Stuck | Role::Halted => false,
        }
    }
}
