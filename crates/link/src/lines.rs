//! Connections to control nodes that are kept from one call to the next, so that a call across regions takes one round trip. It must not
//! know what is called.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::header::{HeaderMap, InvalidHeaderValue};
use meta::level::{Level, Levels};
use rpc::{Answer, Call, Error, encoding};

use crate::ask::answer;
use crate::caller::Caller;
use crate::connection::{Connection, Manner};
use crate::keys::Security;

/// The most nodes to which connections are kept: there are more in turn only as they get other addresses, and the first of them is left.
const NODES_MAX: usize = 16;

/// Connections by the addresses of nodes.
pub struct Lines {
    headers: HeaderMap,
    security: Security,
    connections: Mutex<BTreeMap<String, Arc<Connection>>>,
}

impl Lines {
    /// `caller` is the process that calls, of a build that knows these levels.
    pub fn new(caller: &Caller, levels: Levels) -> Result<Self, InvalidHeaderValue> {
        Ok(Lines {
            headers: caller.headers(levels.newest().number)?,
            security: caller.security.clone(),
            connections: Mutex::default(),
        })
    }

    /// Asks the node at `address`, once. The call is written for `level`.
    pub async fn ask(
        &self,
        address: &str,
        level: &'static Level,
        call: &Call,
    ) -> Result<Answer, Error> {
        let message = encoding::encode_call(level, call).map_err(|too_new| Error::Refused {
            reason: too_new.to_string(),
        })?;
        let connection = self.to(address);
        answer(&connection, Bytes::from(message), Manner::default()).await
    }

    pub(crate) fn to(&self, address: &str) -> Arc<Connection> {
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
