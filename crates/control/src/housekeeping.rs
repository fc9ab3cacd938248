//! What the leader proposes without being asked: that it is registered, a higher level, retention and
//! expiry step by step. It must not know what a step does.

use std::sync::Arc;
use std::time::Duration;

use host::backoff::Backoff;
use host::log_limit::LogLimit;
use host::task::Task;
use meta::command::Command;
use meta::reply::Reply;
use rpc::Error;

use crate::groups::GroupsMemory;
use crate::membership::proposal;
use crate::node::Node;

/// How often it is logged that steps fail.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// The pauses after steps that failed: the journal is away, or somebody else leads.
const RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));

/// Starts the leader's chores.
pub(crate) fn start(node: Arc<Node>, interval: Duration) -> Task<()> {
    host::task::spawn("housekeeping", async move {
        let log = LogLimit::every(LOG_EVERY);
        loop {
            host::clock::sleep(interval).await;
            if node.leads() {
                warn_of_producers(&node);
                warn_of_groups(&node);
            }
            let mut pauses = RETRY.start();
            while node.leads() {
                let step = match node.see_to_membership().await {
                    Ok(()) => node.propose(&Command::Housekeep).await,
                    Err(error) => Err(error),
                };
                match step {
                    Ok((_, Reply::Housekept { more: true })) => {}
                    Ok(_) => break,
                    Err(error) => {
                        if let Some(left_out) = log.pass(host::clock::now()) {
                            tracing::warn!(%error, left_out, "housekeeping is put off");
                        }
                        pauses.pause().await;
                    }
                }
            }
        }
    })
}

/// Says that producers will have to wait, or have to already.
fn warn_of_producers(node: &Node) {
    let totals = node.with_state(meta::State::totals);
    let (producers, max) = (totals.producers, totals.producers_max);
    if producers > max / 2 {
        tracing::warn!(
            producers,
            max,
            "many idempotent producers are remembered: those idle for ten minutes are dropped, and \
             new ones wait beyond producer.ids.max; raise it, or look for clients that start a \
             producer for every few records"
        );
    }
}

/// Says that groups will be refused memory, or are already.
fn warn_of_groups(node: &Node) {
    let GroupsMemory {
        bytes, bytes_max, ..
    } = node.groups_memory();
    if bytes > bytes_max / 2 {
        tracing::warn!(
            bytes,
            groups.max.bytes = bytes_max,
            "groups take much memory: new members, and offsets that groups have not committed \
             before, have to wait once it is full; raise groups.max.bytes, or look for clients that \
             use a new group each time, or attach much to their offsets"
        );
    }
}

impl Node {
    /// Proposes what [`membership::proposal`] finds missing: at most that this node is registered, and
    /// then a higher level.
    pub(crate) async fn see_to_membership(&self) -> Result<(), Error> {
        for _ in 0..2 {
            let missing =
                self.with_state(|state| proposal(state, &self.registration, self.level_max));
            let Some(command) = missing else { break };
            match (self.propose(&command).await?.1, command) {
                (Reply::Refused(refusal), Command::RegisterControlNode(_)) => {
                    let reason = refusal.to_string();
                    return Err(Error::Refused { reason });
                }
                // Somebody came meanwhile who does not support the level.
                (Reply::Refused(_), _) => break,
                (_, Command::SetFeatureLevel { level }) => {
                    tracing::info!(
                        level,
                        "the feature level is raised: older releases cannot come back"
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// True while this node leads the journal.
    pub fn leads(&self) -> bool {
        self.replica.is_leader()
    }
}
