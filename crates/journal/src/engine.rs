//! What an engine is: numbered slots, each created once, in a strongly consistent store. It must
//! not know what entries mean, nor who leads.

use async_trait::async_trait;
use bytes::Bytes;

/// What came of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Append {
    /// The slot was free and holds these bytes now, durably; or it held exactly these bytes
    /// already, from an earlier attempt.
    Appended,
    /// The slot holds other bytes, which are given.
    Occupied(Bytes),
    /// The slot may hold the bytes now, or later, or never: a timeout, a reset, a refusal that
    /// the engine does not vouch for. Only reading the slot settles it.
    Unknown(String),
}

/// Why a read or a trim gave no answer. It never means that a slot is free.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Repeating the same call may succeed; a trim may have happened in part.
    #[error("the journal's engine did not answer: {0}")]
    Unavailable(String),
    /// What the engine keeps for itself is damaged; repeating will not help.
    #[error("the journal's engine is damaged: {0}")]
    Corrupt(String),
}

/// What an engine can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest entry that a slot holds, in bytes; a larger body goes to the bucket.
    pub slot_bytes_max: usize,
}

/// The slots of one journal, numbered from 1.
///
/// Writers keep the journal dense: a slot is appended only by someone who knows every slot before
/// it, or has sent an append to it. So slots may be free below others that are not, for a while;
/// a reader stops at the first. Slots disappear only by [`Engine::trim`]. Dropping a future leaves its outcome unknown.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Creates slot `index` if it is free. `nonce` is the entry's own, also inside `bytes`, for
    /// engines that tell entries apart by it. Never overwrites. Calling it again with the same
    /// bytes is safe, whatever came of earlier calls.
    async fn append(&self, index: u64, nonce: u128, bytes: Bytes) -> Append;

    /// The slot's bytes; `None` only on the store's definite word that it is free just now.
    async fn read(&self, index: u64) -> Result<Option<Bytes>, Error>;

    /// An unbroken run of occupied slots that begins at `from`: at most `limit`, perhaps fewer
    /// than there are, and none only if slot `from` was read and found free.
    async fn scan(&self, from: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, Error>;

    /// Some occupied slot above `index`; `None` if a listing, which may lag, shows none.
    async fn above(&self, index: u64) -> Result<Option<u64>, Error>;

    /// The floor: slots below it may have been trimmed, no slot at or above it was before this
    /// call began.
    async fn floor(&self) -> Result<u64, Error>;

    /// Raises the floor to `floor` unless it is higher, durably and visibly to every later
    /// [`Engine::floor`], and then deletes the slots `indices`, all of which lie below `floor`.
    async fn trim(&self, floor: u64, indices: &[u64]) -> Result<(), Error>;

    /// What it can take.
    fn limits(&self) -> Limits;
}
