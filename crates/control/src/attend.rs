//! The shell around [`crate::presence`]: agents keep a call open at the leader, and those that are gone are fenced. It decides
//! nothing.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use journal::node::{ProposeError, Refusal};
use meta::command::Command;
use meta::ids::Incarnation;
use rpc::Error;

use crate::node::Node;
use crate::presence::Presence;

/// How long an agent's call is kept open.
const HOLD: Duration = Duration::from_secs(2);
/// How often the leader looks who is gone.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An agent's call while it is open. Dropped before it is answered, it was lost.
struct Open<'a> {
    node: &'a Node,
    incarnation: Incarnation,
    is_answered: bool,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let now = host::clock::now();
        let Some(mut presence) = self.node.presence() else {
            return;
        };
        match self.is_answered {
            true => presence.answered(now, self.incarnation),
            false => presence.lost(now, self.incarnation),
        }
    }
}

impl Node {
    fn presence(&self) -> Option<MutexGuard<'_, Presence>> {
        let presence = self.presence.as_ref()?;
        Some(presence.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps an agent's call open for a while, as long as this node leads.
    pub(crate) async fn attend(&self, incarnation: Incarnation) -> Result<(), Error> {
        if let Some(mut presence) = self.presence() {
            presence.calls(host::clock::now(), incarnation);
        }
        let mut open = Open {
            node: self,
            incarnation,
            is_answered: false,
        };
        let ended = host::clock::timeout(HOLD, self.lead_ends()).await;
        open.is_answered = true;
        match ended {
            Err(_) => Ok(()),
            Ok(_) => {
                let leader = self.replica.status().leader;
                Err(self.failed(ProposeError::Definite(Refusal::NotLeader { leader })))
            }
        }
    }
}

/// Fences agents that are gone, while this node leads, for ever.
pub(crate) async fn fence(node: Arc<Node>) {
    loop {
        host::clock::sleep(LOOK_EVERY).await;
        let leads = node.leads();
        let gone = {
            let alive = match leads {
                true => {
                    node.with_state(|state| state.agents().map(|agent| agent.incarnation).collect())
                }
                false => Vec::new(),
            };
            let Some(mut presence) = node.presence() else {
                return;
            };
            presence.gone(host::clock::now(), leads, alive)
        };
        for incarnation in gone {
            let name = node.with_state(|state| {
                let mut agents = state.agents();
                let found = agents.find(|agent| agent.incarnation == incarnation);
                found.map(|agent| agent.name.clone())
            });
            // Whoever is not fenced now is looked at again in a moment.
            match node.propose(&Command::FenceAgent { incarnation }).await {
                Ok(_) => tracing::warn!(
                    agent = name,
                    "an agent is not heard any more: it is fenced, and clients are sent to others"
                ),
                Err(error) => tracing::debug!(%error, agent = name, "an agent could not be fenced"),
            }
        }
    }
}
