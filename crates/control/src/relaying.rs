//! By what calls of agents are passed on to the node that leads, and what is told of that. It must not know which calls are.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::clock::Instant;
use host::log_limit::LogLimit;
use rpc::Relay;

/// How often the log says that calls are passed on.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// An agent that does not reach the leader calls every second.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Calls are passed on for so long before the log says so: when the lead changes they are for a moment, with nothing wrong.
const TOLD_AFTER: Duration = Duration::from_secs(3);

/// What passes calls on, and what was passed on so far.
pub(crate) struct Relaying {
    pub(crate) relay: Arc<dyn Relay>,
    /// Calls that the node that leads has answered.
    answered: AtomicU64,
    spell: Mutex<Spell>,
    lines: LogLimit,
}

/// Since when calls are passed on without a pause.
#[derive(Debug, Default)]
struct Spell {
    began_at: Instant,
    last_at: Instant,
}

impl Spell {
    /// A call was passed on: for how long that goes on by now.
    fn goes_on(&mut self, now: Instant) -> Duration {
        if now.since(self.last_at) > PAUSE_MAX {
            self.began_at = now;
        }
        self.last_at = now;
        now.since(self.began_at)
    }
}

impl Relaying {
    pub(crate) fn by(relay: Arc<dyn Relay>) -> Self {
        Relaying {
            relay,
            answered: AtomicU64::new(0),
            spell: Mutex::default(),
            lines: LogLimit::every(LINE_EVERY),
        }
    }

    /// How many calls were passed on and answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    pub(crate) fn has_answered(&self, agent: &str, leader: &str) {
        self.answered.fetch_add(1, Relaxed);
        let now = host::clock::now();
        // It is whole at any time.
        let mut spell = self.spell.lock().unwrap_or_else(PoisonError::into_inner);
        if spell.goes_on(now) >= TOLD_AFTER && self.lines.pass(now).is_some() {
            tracing::warn!(
                agent,
                leader,
                "an agent does not reach the control node that leads, and this one does: its calls are passed on, which takes longer; \
                 look at the network between the two"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spell_goes_on_over_short_pauses_and_begins_anew_after_a_long_one() {
        let mut spell = Spell::default();
        let at = |millis: u64| Instant::from_millis(100_000 + millis);
        let passed = |spell: &mut Spell, millis: u64| spell.goes_on(at(millis)).as_millis();
        assert_eq!(passed(&mut spell, 0), 0);
        assert_eq!(passed(&mut spell, 1_000), 1_000);
        assert_eq!(passed(&mut spell, 4_000), 4_000);
        assert_eq!(passed(&mut spell, 7_001), 0);
        assert_eq!(passed(&mut spell, 8_000), 999);
    }
}
