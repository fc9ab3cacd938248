//! Asks other agents for parts of files, over the network: a connection to each that was asked. It must not know which agent has
//! what, nor what is done about one that fails.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::header::{HeaderMap, InvalidHeaderValue};
use meta::level::{Level, Levels};
use rpc::encoding;
use rpc::part::{NotGiven, Wanted};

use crate::caller::Caller;
use crate::connection::Connection;
use crate::keys::Security;
use crate::process::Role;

/// How long a request may take in any case; whoever asks has gone to the bucket long before.
const LIMIT: Duration = Duration::from_secs(10);
/// Agents to which connections are kept: a zone has fewer. An agent that starts again is another.
const CONNECTIONS_MAX: usize = 256;

/// The other agents.
pub struct Neighbours {
    headers: HeaderMap,
    security: Security,
    /// For which level requests are written.
    level: &'static Level,
    connections: Mutex<BTreeMap<String, Arc<Connection>>>,
}

impl Neighbours {
    pub fn new(caller: &Caller, levels: Levels) -> Result<Self, InvalidHeaderValue> {
        Ok(Neighbours {
            headers: caller.headers(levels.newest().number)?,
            security: caller.security.clone(),
            level: levels.first(),
            connections: Mutex::default(),
        })
    }

    fn connection(&self, address: &str) -> Arc<Connection> {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = connections.get(address) {
            return Arc::clone(connection);
        }
        if connections.len() >= CONNECTIONS_MAX {
            connections.pop_first();
        }
        let (headers, security) = (self.headers.clone(), self.security.clone());
        let connection = Connection::to(Role::Agent, address.to_owned(), headers, security);
        let connection = Arc::new(connection);
        connections.insert(address.to_owned(), Arc::clone(&connection));
        connection
    }
}

#[async_trait]
impl rpc::part::Neighbours for Neighbours {
    async fn ask(&self, address: &str, wanted: &Wanted, bytes: u64) -> Result<Bytes, NotGiven> {
        let message = encoding::encode_wanted(self.level, wanted);
        let message = message.map_err(|error| NotGiven::Failed(error.to_string()))?;
        let connection = self.connection(address);
        let asked = connection.part(Bytes::from(message), bytes);
        match host::clock::timeout(LIMIT, asked).await {
            Ok(Ok(Some(part))) => Ok(part),
            Ok(Ok(None)) => Err(NotGiven::Busy),
            Ok(Err(failure)) => Err(NotGiven::Failed(failure.why())),
            Err(_) => Err(NotGiven::Failed("it does not answer".to_owned())),
        }
    }
}
