//! What connections ask of whoever answers requests. Kafka's meaning comes in through this door alone.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use host::clock::Instant;

use super::connection::{self, Kind};
use super::memory::{Kept, Lease};

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub address: SocketAddr,
    /// The connection's number, never used again.
    pub connection: u64,
}

pub(crate) type Reply = connection::Reply<Kept>;
pub(crate) type Begun = connection::Begun<Job, Kept>;

/// A request under way.
pub(crate) enum Job {
    Outcome(Box<dyn Outcome>),
    Future(BoxFuture<'static, Begun>),
}

/// The answer to a request that somebody may stop to wait for.
pub(crate) trait Outcome: Future<Output = Reply> + Send + Unpin {
    /// Nobody waits any longer: it is ready, with whatever is known.
    fn give_up(&mut self);
}

/// Answers requests.
pub(crate) trait Service: Send + Sync + 'static {
    /// The kind of a frame that begins with these two bytes, or fewer if it has no more.
    fn kind_of(prefix: &[u8]) -> Kind;

    /// Begins with a request that was read at `now`, a frame without its length. It must not take more than some
    /// milliseconds: other connections wait.
    fn begin(self: &Arc<Self>, peer: &Peer, frame: Bytes, lease: Lease, now: Instant) -> Begun;
}
