//! The end of a lead on purpose: a node that ends looks for one that is there and has read as far, resigns, and tells that one
//! to claim; one that no agent reaches resigns, too, and one that stores no snapshots hands the lead over. Safety rests on none of it: whoever claims settles the journal first, and if nobody is told, the others notice
//! that the leader is gone.

use std::convert::Infallible;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rpc::peer::{PeerRequest, Reason};
use rpc::{Answer, Call, Error, Return};

use crate::aside::{Aside, Others, Surroundings};
use crate::attendance::Attendance;
use crate::node::Node;
use crate::storing::Storing;

/// How long another node may take to show that it is there and has read as far as this one, which goes on leading meanwhile.
const THERE_LIMIT: Duration = Duration::from_secs(2);
/// How long one may take to answer anything else.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// How long entries in flight may take to be settled.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// How long this node waits to see that the other leads, so that it can tell who asks.
const CLAIM_LIMIT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often a leader looks whether agents reach it.
const UNREACHED_CHECK: Duration = Duration::from_millis(100);

/// Another control node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    pub(crate) name: String,
    pub(crate) address: String,
}

impl Node {
    /// Hands the lead over to another control node, since this one ends, if it leads and another answers; `ask` calls the one at an
    /// address.
    pub async fn hand_over<F>(&self, ask: impl Fn(String, Call) -> F)
    where
        F: Future<Output = Result<Answer, Error>>,
    {
        let successors = self.successors();
        self.hand_over_to(&successors, Reason::Ended, &ask).await;
    }

    /// Hands the lead over to one of these, if this node leads and one of them answers.
    pub(crate) async fn hand_over_to<F>(
        &self,
        others: &[Other],
        reason: Reason,
        ask: &impl Fn(String, Call) -> F,
    ) where
        F: Future<Output = Result<Answer, Error>>,
    {
        if !self.leads() {
            return;
        }
        // To have applied this is to have read as far.
        let at = self.position();
        let wanted = Vec::new();
        let is_there = Call::Locate { wanted, at };
        let asked = others.iter().map(|other| {
            let answer = ask(other.address.clone(), is_there.clone());
            let answer = host::clock::timeout(THERE_LIMIT, answer);
            async move { matches!(answer.await, Ok(Ok(_))).then_some(other) }
        });
        let mut there: FuturesUnordered<_> = asked.collect();
        let mut resigned = None;
        while let Some(answered) = there.next().await {
            let Some(other) = answered else {
                continue;
            };
            // One that is asked after another must not take the lead from that one.
            let claim = match resigned {
                Some(claim) => claim,
                None => match self.resign().await {
                    Some(claim) => *resigned.insert(claim),
                    None => return,
                },
            };
            let given_up = self.leads_given_up();
            let succeed = Call::Peer(PeerRequest::Succeed {
                claim,
                reason,
                given_up,
            });
            if limited(ask(other.address.clone(), succeed)).await.is_ok() {
                tracing::info!(
                    successor = other.name,
                    ?reason,
                    "this node leads no more: another takes over"
                );
                return self.see_another_lead().await;
            }
        }
        tracing::info!("no other control node answers, so that the lead is handed over to none");
    }

    /// Gives up the lead whenever no agent reaches this node, as [`crate::aside`] has it, or it stores no snapshots, as
    /// [`crate::storing`] has it, for ever; `ask` calls the control node at an address.
    pub async fn stand_aside<F>(&self, ask: impl Fn(String, Call) -> F) -> Infallible
    where
        F: Future<Output = Result<Answer, Error>>,
    {
        let Some(attendance) = &self.attendance else {
            return std::future::pending().await;
        };
        loop {
            host::clock::sleep(UNREACHED_CHECK).await;
            let others = self.others();
            let are_agents = self.with_state(|state| state.agents().next().is_some());
            let seen = Surroundings {
                are_agents,
                are_others: !others.is_empty(),
                called_at: attendance.reached_at(),
            };
            let now = host::clock::now();
            if attendance.aside().look(now, self.leads(), seen) {
                self.give_up_unreached(attendance, &others, &ask).await;
            }
            let journal = self.journal_status();
            let (is_overdue, newest) = (journal.is_snapshot_overdue, journal.snapshot_index);
            if self.storing().look(now, is_overdue, newest) {
                self.hand_over_to_one_that_can_store(&ask).await;
            }
        }
    }

    /// No agent reaches this node: it resigns, unless others answer and agents ask none of them for a leader; and tells those that
    /// agents ask.
    async fn give_up_unreached<F>(
        &self,
        attendance: &Attendance,
        others: &[Other],
        ask: &impl Fn(String, Call) -> F,
    ) where
        F: Future<Output = Result<Answer, Error>>,
    {
        let asked = others.iter().map(|other| async move {
            let asked = Call::Peer(PeerRequest::Asked);
            let answer = limited(ask(other.address.clone(), asked)).await;
            (other, answer.map(|answer| answer.value))
        });
        let said = futures::future::join_all(asked).await;
        let is_asked = |(_, said): &&(&Other, _)| *said == Ok(Return::Asked(true));
        let successors: Vec<&Other> = said
            .iter()
            .filter(is_asked)
            .map(|(other, _)| *other)
            .collect();
        let others_say = match said.iter().any(|(_, said)| said.is_ok()) {
            false => Others::Silent,
            true if successors.is_empty() => Others::Unasked,
            true => Others::Asked,
        };
        if !Aside::gives_up(others_say) {
            return;
        }
        // First of all it answers no more.
        let Some(claim) = self.resign().await else {
            return;
        };
        let given_up = attendance.aside().has_given_up(host::clock::now());
        tracing::warn!(
            successors = successors.len(),
            "no agent reaches this control node, which led: it leads no more, for others to take over; look at the network \
             between it and the agents"
        );
        for successor in successors {
            let succeed = Call::Peer(PeerRequest::Succeed {
                claim,
                reason: Reason::Unreached,
                given_up,
            });
            if limited(ask(successor.address.clone(), succeed))
                .await
                .is_ok()
            {
                return self.see_another_lead().await;
            }
        }
    }

    /// Hands the lead over to a node that takes itself for able to store snapshots, if there is one.
    async fn hand_over_to_one_that_can_store<F>(&self, ask: &impl Fn(String, Call) -> F)
    where
        F: Future<Output = Result<Answer, Error>>,
    {
        let asked = self.successors().into_iter().map(|other| async move {
            let call = Call::Peer(PeerRequest::CanStore);
            let answer = limited(ask(other.address.clone(), call)).await.ok()?;
            (answer.value == Return::CanStore(true)).then_some(other)
        });
        let answered = futures::future::join_all(asked).await;
        let able: Vec<Other> = answered.into_iter().flatten().collect();
        if able.is_empty() {
            tracing::warn!(
                "this control node leads and stores no snapshots, and no other is there that has not been unable to within the last \
                 hour: it keeps the lead, and the journal grows; look at what the bucket refuses"
            );
            return;
        }
        tracing::warn!(
            able = able.len(),
            "this control node leads and stores no snapshots: it hands the lead over; look at what the bucket refuses it"
        );
        self.hand_over_to(&able, Reason::StoresNothing, ask).await;
    }

    /// What this node knows of the snapshots that it was to store.
    pub(crate) fn storing(&self) -> MutexGuard<'_, Storing> {
        // It is whole at any time.
        self.storing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles what this node has taken, and leads no more; yields the claim by which it led. `None` if it did not lead, or if that
    /// is not known.
    async fn resign(&self) -> Option<u64> {
        let settled = async {
            self.groups.hand_over().await;
            self.replica.resign().await
        };
        match host::clock::timeout(SETTLE_LIMIT, settled).await {
            Ok(Ok(claim)) => Some(claim.0),
            Ok(Err(error)) => {
                tracing::info!(%error, "the lead was lost before it could be handed over");
                None
            }
            Err(_) => {
                tracing::warn!(
                    "what is in flight is not settled in time: the lead is not handed over"
                );
                None
            }
        }
    }

    /// Waits for a moment until another leads, so that this node can tell who asks.
    async fn see_another_lead(&self) {
        let own = Some(&self.registration.claims_as);
        let seen = async {
            // What is told of the journal may be older than the answer that this node has resigned.
            while self
                .journal_status()
                .leader
                .as_ref()
                .is_none_or(|leader| Some(leader) == own)
            {
                host::clock::sleep(LOOK_EVERY).await;
            }
        };
        // If there is none by then, there will be.
        let _seen = host::clock::timeout(CLAIM_LIMIT, seen).await;
    }

    /// The other control nodes, without those whose clocks are wrong, unless all are.
    pub(crate) fn successors(&self) -> Vec<Other> {
        let (right, wrong) = self.others_by_clock();
        if right.is_empty() { wrong } else { right }
    }

    /// The other control nodes: those whose clocks are not known to be wrong, and those whose are.
    pub(crate) fn others_by_clock(&self) -> (Vec<Other>, Vec<Other>) {
        let wrong = self.wall_clock().wrong;
        let others = self.others().into_iter();
        others.partition(|other| !wrong.contains(&other.name))
    }

    /// Where the other control nodes are, as far as the journal tells.
    pub fn addresses_of_others(&self) -> Vec<String> {
        let others = self.others().into_iter();
        others.map(|other| other.address).collect()
    }

    /// The other control nodes.
    pub(crate) fn others(&self) -> Vec<Other> {
        // One that had another name before may be registered by that one still, at the same address.
        let own = &self.registration;
        self.with_state(|state| {
            let nodes = state.control_nodes();
            let nodes = nodes.filter(|node| node.name != own.name && node.address != own.address);
            let others = nodes.map(|node| Other {
                name: node.name.clone(),
                address: node.address.clone(),
            });
            others.collect()
        })
    }
}

/// What another node answers within a moment.
pub(crate) async fn limited(
    answer: impl Future<Output = Result<Answer, Error>>,
) -> Result<Answer, Error> {
    let answer = host::clock::timeout(ANSWER_LIMIT, answer).await;
    answer.unwrap_or_else(|_| {
        let reason = "it does not answer".to_owned();
        Err(Error::Unknown { reason })
    })
}

#[cfg(test)]
mod tests;
