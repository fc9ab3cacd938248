//! Passes calls of agents on to the control node that leads, for one that follows. It must not know which calls are passed on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use host::budget::Budget;
use hyper::header::{HeaderMap, InvalidHeaderValue};
use meta::level::{Level, Levels};
use rpc::{Answer, Call, Error, encoding};

use crate::ask::answer;
use crate::caller::Caller;
use crate::connection::{Connection, Manner};
use crate::keys::Security;

/// Memory for calls that are passed on and not answered. One for which there is no room is refused.
const CALLS_BYTES: u64 = 16 << 20;
/// What a call takes beside its bytes.
const CALL_BYTES: u64 = 1 << 10;
/// The most nodes to which connections are kept: more lead in turn only as they get other addresses, and the first of them is left.
const NODES_MAX: usize = 16;

/// Passes calls on, over a connection for each node.
pub struct Relay {
    headers: HeaderMap,
    security: Security,
    connections: Mutex<BTreeMap<String, Arc<Connection>>>,
    budget: Budget,
}

impl Relay {
    /// `caller` is the control node that passes calls on, of a build that knows these levels.
    pub fn new(caller: &Caller, levels: Levels) -> Result<Self, InvalidHeaderValue> {
        Ok(Relay {
            headers: caller.headers(levels.newest().number)?,
            security: caller.security.clone(),
            connections: Mutex::default(),
            budget: Budget::of_bytes(CALLS_BYTES),
        })
    }

    fn connection(&self, address: &str) -> Arc<Connection> {
        let connections = self.connections.lock();
        // Nothing panics while it is held.
        let mut connections = connections.unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = connections.get(address) {
            return Arc::clone(known);
        }
        if connections.len() >= NODES_MAX {
            connections.pop_first();
        }
        let (headers, security) = (self.headers.clone(), self.security.clone());
        let made = Arc::new(Connection::new(address.to_owned(), headers, security));
        connections.insert(address.to_owned(), Arc::clone(&made));
        made
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
            ..Manner::default()
        };
        let connection = self.connection(address);
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
