//! Calls of agents that do not reach the node that leads are passed on to it by those that follow, so that an agent needs any path
//! (three regions, rule L1). Who asks is passed on too, and what was passed on once is not passed on again. It must not know how a
//! call travels.

use std::time::Duration;

use meta::ids::Incarnation;
use rpc::group::GroupRequest;
use rpc::{Asked, Call, Error, Given, LedBy, Speaker};

use crate::answer;
use crate::node::Node;
use crate::relaying::Relaying;

/// How often it is looked, while a call is passed on, whether the node that leads is another by now.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What a call may be longer on its way than its caller waits: the answer is to come before that.
const HOP: Duration = Duration::from_millis(50);

impl Node {
    /// How many calls of agents that do not reach the node that leads were passed on by this one, and answered.
    pub fn relayed_calls(&self) -> u64 {
        let relaying = self.relay.get();
        relaying.map_or(0, Relaying::answered)
    }

    /// Passes an agent's call on to the node that leads; `None` if the call is not one to pass on, or was not received there.
    pub(crate) async fn relay(&self, call: &Call, asked: &Asked) -> Option<Given> {
        let relaying = self.relay.get()?;
        let agent = match &asked.speaker {
            Speaker::Believed => "",
            Speaker::Agent(name) => name,
            Speaker::ControlNode(_) | Speaker::Relayed { .. } => return None,
        };
        let may_relay = asked.relays && !asked.is_relayed && answer::is_of_agent(call);
        if !may_relay || host::trial::leaves_out("calls-are-relayed") {
            return None;
        }
        if self.is_leaderless() {
            return None;
        }
        let address = self.leader_to_watch()?;
        let claim = self.replica.status().claim_index;
        let within = asked.within.map(|within| within.saturating_sub(HOP));
        let level = self.with_state(meta::State::level);
        let passed_on = relaying
            .relay
            .pass_on(&address, level, call, agent, asked, within);
        let outcome = tokio::select! {
            biased;
            outcome = passed_on => match outcome {
                Err(Error::Unavailable { .. } | Error::NotLeader { .. }) => return None,
                outcome => {
                    relaying.has_answered(agent, &address);
                    outcome
                }
            },
            () = self.led_otherwise(claim, call) => {
                let reason = "another control node has taken the lead from the one to which the call was passed on".to_owned();
                Err(Error::Unknown { reason })
            }
        };
        let by = Some(LedBy { address, claim });
        Some(Given { outcome, by })
    }

    /// Waits until the lead is taken from the claim in this slot. A call that makes the journal grow is meanwhile a sign that a
    /// leader is wanted: if the one that has it is of use, the journal grows, and nobody takes it.
    async fn led_otherwise(&self, claim: u64, call: &Call) {
        while self.replica.status().claim_index == claim && !self.replica.is_leader() {
            if appends(call) {
                // A node that follows refuses it at once.
                drop(self.replica.barrier().await);
            }
            host::clock::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether an agent is registered.
    pub(crate) fn knows_agent(&self, incarnation: Incarnation) -> bool {
        self.with_state(|state| {
            let mut agents = state.agents();
            agents.any(|agent| agent.incarnation == incarnation)
        })
    }
}

/// Whether a leader that does this appends to the journal for it.
fn appends(call: &Call) -> bool {
    match call {
        Call::Propose(_) | Call::Barrier => true,
        Call::Group(request) => matches!(request, GroupRequest::Commit(_)),
        _ => false,
    }
}
