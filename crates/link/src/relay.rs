//! Passes calls of agents on to the control node that leads, for one that follows. It must not know which calls are passed on.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use host::budget::Budget;
use hyper::header::InvalidHeaderValue;
use meta::level::{Level, Levels};
use rpc::{Answer, Asked, Call, Error, encoding};

use crate::ask::answer;
use crate::caller::Caller;
use crate::connection::Manner;
use crate::lines::Lines;

/// Memory for calls that are passed on and not answered. One for which there is no room is refused.
const CALLS_BYTES: u64 = 16 << 20;
/// What a call takes beside its bytes.
const CALL_BYTES: u64 = 1 << 10;
/// Passes calls on, over a connection for each node.
pub struct Relay {
    lines: Lines,
    budget: Budget,
}

impl Relay {
    /// `caller` is the control node that passes calls on, of a build that knows these levels.
    pub fn new(caller: &Caller, levels: Levels) -> Result<Self, InvalidHeaderValue> {
        Ok(Relay {
            lines: Lines::new(caller, levels)?,
            budget: Budget::of_bytes(CALLS_BYTES),
        })
    }
}

#[async_trait]
impl rpc::Relay for Relay {
    async fn pass_on(
        &self,
        address: &str,
        level: &'static Level,
        call: &Call,
        agent: &str,
        asked: &Asked,
        within: Option<Duration>,
    ) -> Result<Answer, Error> {
        let message = encoding::encode_call(level, call).map_err(|too_new| Error::Refused {
            reason: too_new.to_string(),
        })?;
        let bytes = message.len() as u64 + CALL_BYTES;
        let _held = self.budget.try_hold(bytes).ok_or(Error::Busy)?;
        let manner = Manner {
            relayed_for: Some(agent),
            within,
            awaited_at: asked.awaited_at,
            ..Manner::default()
        };
        let connection = self.lines.to(address);
        let answered = answer(&connection, Bytes::from(message), manner);
        match within {
            None => answered.await,
            Some(within) => {
                let answered = host::clock::timeout(within, answered).await;
                answered.unwrap_or_else(|_| {
                    let reason = "the node that leads has not answered in time".to_owned();
                    Err(Error::Unknown { reason })
                })
            }
        }
    }
}
