//! How a control node is received by those that are there: it takes part only if one of them believes it, or none of them answers. One that they
//! turn away could read the journal, and lead, since the bucket lets it; yet nobody could make use of it. It must not know how they are asked.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use async_trait::async_trait;
use host::backoff::Backoff;
use host::clock::Instant;
use host::log_limit::LogLimit;
use link::reception::{Reception, introduce};
use link::{Caller, Cluster};
use meta::command::Command;
use meta::level::Levels;
use rpc::notice::Notices;
use rpc::{Answer, Call, Control, Error};
use store::buckets::Buckets;
use store::nodes;

/// For how long a process that is turned away tries again: so long those may take that are being ended, or given other certificates.
const TURNED_AWAY_FOR: Duration = Duration::from_secs(5);
const AGAIN: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));
/// Who has no answer from the leader for so long looks whether it is turned away, before the silence of the journal becomes a reason to
/// take the lead.
const LOOK_AFTER: Duration = Duration::from_millis(300);
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Refuses to start a control node that all are against who answer, by what the bucket tells of them.
pub(super) async fn be_received(buckets: &Buckets, caller: &Caller, own: &str) -> Result<()> {
    let begun = host::clock::now();
    let mut pauses = AGAIN.start();
    loop {
        // A bucket that does not answer is waited for elsewhere.
        let announced = nodes::addresses(buckets, nodes::CONTROL).await;
        let announced = announced.unwrap_or_default().into_iter();
        let others = announced.filter(|address| address != own).collect();
        let Reception::Rejected(why) = introduce(others, caller, Levels::KNOWN).await else {
            return Ok(());
        };
        if host::clock::now().since(begun) >= TURNED_AWAY_FOR {
            bail!(
                "the control nodes of this cluster that answer do not let this one in: {why}. It does not start, since it could lead and nobody \
                 would reach it. If what answers there is no process of this cluster any more, delete its objects in {} of the bucket",
                store::layout::NODES
            );
        }
        pauses.pause().await;
    }
}

/// The control nodes, for one that looks whether they believe it before it wants a leader by itself.
pub(super) struct Received {
    cluster: Cluster,
    caller: Caller,
    /// Knows the others by the journal.
    node: Arc<control::Node>,
    log: LogLimit,
}

impl Received {
    pub(super) fn new(cluster: Cluster, caller: Caller, node: Arc<control::Node>) -> Self {
        Received {
            cluster,
            caller,
            node,
            log: LogLimit::every(LOG_EVERY),
        }
    }

    /// Why no call is made.
    async fn rejection(&self) -> Option<Error> {
        let others = self.node.addresses_of_others();
        let Reception::Rejected(why) = introduce(others, &self.caller, Levels::KNOWN).await else {
            return None;
        };
        if let Some(left_out) = self.log.pass(host::clock::now()) {
            tracing::warn!(
                why,
                left_out,
                "the other control nodes that answer do not let this one in: it takes no part until they do"
            );
        }
        Some(Error::Unavailable { reason: why })
    }
}

#[async_trait]
impl Control for Received {
    async fn call_for(&self, call: Call, awaited_at: Option<Instant>) -> Result<Answer, Error> {
        let registers = match &call {
            Call::Propose(command) => matches!(**command, Command::RegisterControlNode(_)),
            _ => false,
        };
        if registers && let Some(rejection) = self.rejection().await {
            return Err(rejection);
        }
        let mut calling = pin!(self.cluster.call_for(call, awaited_at));
        if let Ok(answer) = host::clock::timeout(LOOK_AFTER, &mut calling).await {
            return answer;
        }
        match self.rejection().await {
            // It may have been appended all the same, which does no harm: it is a node's own registration, or nothing at all.
            Some(rejection) => Err(rejection),
            None => calling.await,
        }
    }

    fn notices(&self) -> Notices {
        self.cluster.notices()
    }
}
