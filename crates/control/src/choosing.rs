//! The shell around [`crate::choice`] and [`crate::lead`]: it measures what a commit takes from here, looks who leads and why, and hands
//! the lead over where it is to go. It must not decide where that is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use host::clock::Instant;
use rpc::{Answer, Call, Error};
use store::buckets::Buckets;

use crate::choice::{Candidate, Seen};
use crate::configs::PREFERRED;
use crate::lead::{Because, Claim, Taken};
use crate::node::Node;
use crate::succession::Other;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Node {
    /// Hands the lead over, if this node has it, whenever it is to go to another region, for ever; `ask` calls the control node at an
    /// address.
    pub async fn choose_region<F>(
        &self,
        buckets: &Buckets,
        ask: impl Fn(String, Call) -> F,
    ) -> Infallible
    where
        F: Future<Output = Result<Answer, Error>>,
    {
        loop {
            host::clock::sleep(LOOK_EVERY).await;
            let now = host::clock::now();
            self.measure(now, buckets.commit_latency());
            self.note_claim(now);
            // Until the journal is read nobody knows which region is preferred.
            if self.journal_status().confirmed_at.is_none() {
                continue;
            }
            let others = self.others_with_regions();
            let seen = self.seen(&others);
            let offer = self.leading.choice().look(now, &seen);
            let Some(offer) = offer else { continue };
            tracing::info!(
                region = offer.region,
                reason = ?offer.reason,
                "the lead is to go to another region"
            );
            let to: Vec<Other> = others
                .into_iter()
                .map(|(other, _)| other)
                .filter(|other| offer.to.contains(&other.name))
                .collect();
            self.hand_over_to(&to, offer.reason, &ask).await;
        }
    }

    /// How long a commit would take if this node led, as far as it depends on where it is; `None` if it reaches too few buckets.
    pub fn commit_latency(&self) -> Option<Duration> {
        *self.leading.latency()
    }

    /// The region that is preferred to lead, or `auto`.
    pub fn preferred_region(&self) -> String {
        self.with_state(|state| state.cluster_config(PREFERRED).to_owned())
    }

    /// How this node last came to lead, whether or not it still does. The one that led before is named as it is registered, if it is.
    pub fn lead_taken(&self) -> Option<Taken> {
        self.note_claim(host::clock::now());
        let taken = self.leading.lead().taken().cloned();
        taken.map(|taken| self.named_as_registered(taken))
    }

    /// How often this node took the lead for each reason.
    pub fn leads_taken(&self) -> BTreeMap<Because, u64> {
        self.leading.lead().counts().clone()
    }

    fn measure(&self, now: Instant, latency: Option<Duration>) {
        *self.leading.latency() = latency;
        self.leading.choice().measure(now, latency);
    }

    fn note_claim(&self, now: Instant) {
        let status = self.journal_status();
        let Some(by) = status.leader else { return };
        let own = self.leads() && by == self.registration.claims_as;
        let last = Claim {
            slot: status.claim_index,
            by,
        };
        let gone = self.gone.load(Relaxed);
        let taken = self.leading.lead().look(now, last, own, gone);
        if let Some(taken) = taken {
            let taken = self.named_as_registered(taken);
            tracing::info!(
                from = taken.from.as_deref().unwrap_or("nobody"),
                because = taken.because.word(),
                "this node has taken the lead"
            );
        }
    }

    fn named_as_registered(&self, taken: Taken) -> Taken {
        let from = taken.from.as_deref();
        let from = from.map(|claims_as| self.name_of(claims_as).unwrap_or(claims_as.to_owned()));
        Taken { from, ..taken }
    }

    fn seen(&self, others: &[(Other, String)]) -> Seen {
        let status = self.journal_status();
        let wrong = self.wall_clock().wrong;
        let others = others
            .iter()
            .filter(|(other, _)| !wrong.contains(&other.name));
        Seen {
            leads: self.leads(),
            own_region: self.registration.region.clone(),
            leader: status.leader,
            preferred: self.preferred_region(),
            others: others
                .map(|(other, region)| Candidate {
                    name: other.name.clone(),
                    region: region.clone(),
                })
                .collect(),
        }
    }

    /// The other control nodes, each with its region.
    fn others_with_regions(&self) -> Vec<(Other, String)> {
        let others = self.others();
        self.with_state(|state| {
            let region_of = |name: &str| {
                let mut nodes = state.control_nodes();
                let node = nodes.find(|node| node.name == name);
                node.map_or_else(String::new, |node| node.region.clone())
            };
            let others = others.into_iter().map(|other| {
                let region = region_of(&other.name);
                (other, region)
            });
            others.collect()
        })
    }

    /// The name of the control node that calls itself so in its claims.
    pub(crate) fn name_of(&self, claims_as: &str) -> Option<String> {
        self.with_state(|state| {
            let mut nodes = state.control_nodes();
            let node = nodes.find(|node| node.claims_as == claims_as)?;
            Some(node.name.clone())
        })
    }
}
