//! What connections ask of the floor that answers requests: Kafka's meaning comes in through this
//! trait alone.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use host::clock::Instant;

use super::connection::{self, Kind};
use super::memory::{Kept, Lease};

/// The client at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub address: SocketAddr,
    /// The connection's number, never used again.
    pub connection: u64,
    /// The number of the listener by which it came.
    pub listener: usize,
}

pub(crate) type Reply = connection::Reply<Kept>;
pub(crate) type Begun = connection::Begun<Job, Kept>;

/// A request under way.
pub(crate) enum Job {
    Outcome(Box<dyn Outcome>),
    Future(BoxFuture<'static, Begun>),
}

/// The answer to a request whose sender may stop waiting.
pub(crate) trait Outcome: Future<Output = Reply> + Send + Unpin {
    /// Makes the answer ready now, with what is known, since its sender has stopped waiting.
    fn give_up(&mut self);
}

pub(crate) trait Service: Send + Sync + 'static {
    /// The kind of a frame that begins with these two bytes, or fewer if it has no more.
    fn kind_of(prefix: &[u8]) -> Kind;

    /// Begins a request that was read at `now`, given as a frame without its length. It must return
    /// within a few milliseconds: other connections wait.
    fn begin(self: &Arc<Self>, peer: &Peer, frame: Bytes, lease: Lease, now: Instant) -> Begun;
}
