//! The end of a lead on purpose: the node that leads looks for one that is there and has read as far, resigns, and tells that one
//! to claim. Safety rests on none of it: whoever claims settles the journal first, and if nobody is told, the others notice
//! that the leader is gone.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rpc::peer::PeerRequest;
use rpc::{Answer, Call, Error};

use crate::node::Node;

/// How long another node may take to show that it is there and has read as far as this one.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// How long entries in flight may take to be settled.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// How long this node waits to see that the other leads, so that it can tell who asks.
const CLAIM_LIMIT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Node {
    /// Hands the lead over to another control node, if this one leads and another answers; `ask` calls the one at an address.
    pub async fn hand_over<F>(&self, ask: impl Fn(String, Call) -> F)
    where
        F: Future<Output = Result<Answer, Error>>,
    {
        if !self.leads() {
            return;
        }
        // To have applied this is to have read as far.
        let at = self.position();
        let wanted = Vec::new();
        let is_there = Call::Locate { wanted, at };
        let others = self.others();
        let asked = others.iter().map(|(name, address)| {
            let answer = host::clock::timeout(ANSWER_LIMIT, ask(address.clone(), is_there.clone()));
            async move { matches!(answer.await, Ok(Ok(_))).then_some((name, address)) }
        });
        let mut there: FuturesUnordered<_> = asked.collect();
        let mut resigned = None;
        while let Some(answered) = there.next().await {
            let Some((name, address)) = answered else {
                continue;
            };
            // One that is asked after another must not take the lead from that one.
            let claim = match resigned {
                Some(claim) => claim,
                None if self.leads() && !self.resign().await => return,
                None => *resigned.insert(self.journal_status().claim_index),
            };
            let succeed = Call::Peer(PeerRequest::Succeed { claim });
            let told = host::clock::timeout(ANSWER_LIMIT, ask(address.clone(), succeed)).await;
            if matches!(told, Ok(Ok(_))) {
                tracing::info!(
                    successor = name,
                    "this node leads no more: another takes over"
                );
                return self.see_another_lead().await;
            }
        }
        tracing::info!("no other control node answers, so that the lead is handed over to none");
    }

    /// Settles what this node has taken, and leads no more; true if it does not lead.
    async fn resign(&self) -> bool {
        match host::clock::timeout(SETTLE_LIMIT, self.replica.resign()).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::info!(%error, "the lead was lost before it could be handed over");
                false
            }
            Err(_) => {
                tracing::warn!(
                    "what is in flight is not settled in time: the lead is not handed over"
                );
                false
            }
        }
    }

    async fn see_another_lead(&self) {
        let seen = async {
            while self.journal_status().leader.is_none() {
                host::clock::sleep(LOOK_EVERY).await;
            }
        };
        // If there is none by then, there will be.
        let _seen = host::clock::timeout(CLAIM_LIMIT, seen).await;
    }

    /// Names and addresses of the other control nodes.
    fn others(&self) -> Vec<(String, String)> {
        // One that had another name before may be registered by that one still, at the same address.
        let own = &self.registration;
        self.with_state(|state| {
            let nodes = state.control_nodes();
            let nodes = nodes.filter(|node| node.name != own.name && node.address != own.address);
            let others = nodes.map(|node| (node.name.clone(), node.address.clone()));
            others.collect()
        })
    }
}

#[cfg(test)]
mod tests;
