//! A control node that others call: how a call has come, what it is given, and how one node passes a call on to another. It must not
//! know how that travels.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use host::clock::Instant;
use meta::level::Level;

use crate::call::{Answer, Call};
use crate::client::{Control, LATE_AFTER};
use crate::error::Error;
use crate::growth::Growing;
use crate::speaker::Speaker;

/// How a call has come to a control node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who asks.
    pub speaker: Speaker,
    /// The caller cannot reach the node that leads.
    pub is_leader_away: bool,
    /// The caller wants the call passed on to the node that leads, which it does not reach itself.
    pub relays: bool,
    /// Another control node passes the call on: it is not passed on again.
    pub is_relayed: bool,
    /// How long the caller waits, from when the call came; `None` if it does not say.
    pub within: Option<Duration>,
    /// When the client for which this is asked was last found to wait, on the boot clock of this process; `None` if nobody has said.
    pub awaited_at: Option<Instant>,
}

impl Asked {
    /// A call that came straight from `speaker`, who misses nothing.
    pub fn by(speaker: Speaker) -> Self {
        Asked {
            speaker,
            is_leader_away: false,
            relays: false,
            is_relayed: false,
            within: None,
            awaited_at: None,
        }
    }

    /// Refuses what has come too late for its client.
    pub fn refuse_late(&self, now: Instant) -> Result<(), Error> {
        let under_way = self.awaited_at.map(|at| now.since(at));
        match under_way.filter(|under_way| *under_way >= LATE_AFTER) {
            Some(under_way) if !host::trial::leaves_out("late-calls-are-refused") => {
                Err(Error::Unavailable {
                    reason: format!(
                        "the call was under way for {} ms: its client may have given up, and done something else since",
                        under_way.as_millis()
                    ),
                })
            }
            _ => Ok(()),
        }
    }
}

/// What comes of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    pub outcome: Result<Answer, Error>,
    /// The node that has given it, if the call was passed on: the one that leads.
    pub by: Option<LedBy>,
}

/// A node that leads, as the one that passes calls on to it knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedBy {
    /// Its address, host:port.
    pub address: String,
    /// The slot of its claim.
    pub claim: u64,
}

/// A control node that others call.
#[async_trait]
pub trait Served: Control {
    /// The feature level in force, as far as it is known here: what is sent to others is written for it.
    fn level(&self) -> &'static Level;

    /// What this node appends from now on, if it leads; at least each quarter of a second a message.
    fn growth(&self) -> Growing;

    /// Answers a caller elsewhere, if what it asks is the speaker's to ask. Unless that says that it cannot reach the leader, a
    /// call that only the leader can answer is no reason to think that there is none.
    async fn serve(&self, call: Call, asked: Asked) -> Given;

    /// Ends once whoever waits for the answer to this call is to be told that this node may lead no more, though the answer may
    /// still come.
    fn doubted(&self, call: &Call) -> BoxFuture<'static, ()>;
}

/// Passes calls of agents on to another control node.
#[async_trait]
pub trait Relay: Send + Sync + 'static {
    /// Asks the node at `address` in the name of an agent, whose call came as `asked` and which waits for so long.
    async fn pass_on(
        &self,
        address: &str,
        level: &'static Level,
        call: &Call,
        agent: &str,
        asked: &Asked,
        within: Option<Duration>,
    ) -> Result<Answer, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_late_once_it_was_under_way_for_two_seconds() {
        let at = |millis: u64| Instant::from_millis(10_000 + millis);
        let mut asked = Asked::by(Speaker::Believed);
        assert_eq!(asked.refuse_late(at(9_000)), Ok(()));
        asked.awaited_at = Some(at(0));
        assert_eq!(asked.refuse_late(at(1_999)), Ok(()));
        let refused = asked.refuse_late(at(2_000)).unwrap_err();
        assert!(refused.is_definite() && refused.to_string().contains("2000 ms"));
    }
}
