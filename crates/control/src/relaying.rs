//! By what calls of agents are passed on to the node that leads, and what is told of that. It must not know which calls are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use host::log_limit::LogLimit;
use rpc::Relay;

/// How often the log says that calls are passed on.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What passes calls on, and what was passed on so far.
pub(crate) struct Relaying {
    pub(crate) relay: Arc<dyn Relay>,
    /// Calls that the node that leads has answered.
    answered: AtomicU64,
    lines: LogLimit,
}

impl Relaying {
    pub(crate) fn by(relay: Arc<dyn Relay>) -> Self {
        Relaying {
            relay,
            answered: AtomicU64::new(0),
            lines: LogLimit::every(LINE_EVERY),
        }
    }

    /// How many calls were passed on and answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    pub(crate) fn has_answered(&self, agent: &str, leader: &str) {
        self.answered.fetch_add(1, Relaxed);
        if self.lines.pass(host::clock::now()).is_some() {
            tracing::warn!(
                agent,
                leader,
                "an agent does not reach the control node that leads, and this one does: its calls are passed on, which takes longer; \
                 look at the network between the two"
            );
        }
    }
}
