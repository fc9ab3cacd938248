//! Parts of files, which the agents of one zone keep for each other: what is asked, and what is given. It must not know how
//! either travels, nor what a file holds.

use std::any::Any;

use async_trait::async_trait;
use bytes::Bytes;
use meta::ids::PartitionId;
use meta::places::SlicePlace;

/// The part of a file that holds a place is asked for: the file, or the slice alone if the file is large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub partition: PartitionId,
    pub place: SlicePlace,
}

/// The bytes of a part as they are in the bucket, in pieces.
pub struct Part {
    pub pieces: Vec<Bytes>,
    /// Keeps their memory counted; dropped once they are sent.
    pub kept: Box<dyn Any + Send + Sync>,
}

/// Why a part is not given. The bucket has it, so nothing follows from that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGiven {
    #[error("the agent has too much to do")]
    Busy,
    /// The agent did not get it from the bucket.
    #[error("the agent does not have it")]
    Missing,
    /// The agent was not reached, or does not understand the request.
    #[error("{0}")]
    Failed(String),
}

/// An agent that others of its zone ask.
#[async_trait]
pub trait Offers: Send + Sync + 'static {
    /// `caller` is the agent that asks; each has its own share of what may be on its way.
    async fn part(&self, caller: &str, wanted: Wanted) -> Result<Part, NotGiven>;
}

/// The other agents of a zone.
#[async_trait]
pub trait Neighbours: Send + Sync + 'static {
    /// Asks the agent at an address for a part of so many bytes. They are whatever it gave, not verified.
    async fn ask(&self, address: &str, wanted: &Wanted, bytes: u64) -> Result<Bytes, NotGiven>;
}
