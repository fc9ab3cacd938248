//! What an engine is: numbered slots, each decided once, in a strongly consistent store. It must
//! not know what entries mean, nor why somebody wants to lead.
//!
//! A reader scans. A writer takes: that settles the slots that others left undecided and gives a
//! [`Tenure`], and only a tenure appends. Every sign of another writer ends a tenure; the writer
//! then takes again. So an engine never meets two different entries of one writer for one slot.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub mod filler;
pub mod settle;
pub mod tenures;
pub mod window;

/// Slots that a tenure may have in flight beyond those that it knows to be decided. So no slot is
/// occupied this far beyond the first free one; if one is, an earlier slot was lost.
pub const WINDOW: u64 = 8;

/// What a decided slot holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    Entry(Bytes),
    /// The slot was closed by somebody who took the journal: it will never hold an entry.
    Filler,
}

/// What a scan found: decided slots in order without a gap, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    pub slots: Vec<(u64, Content)>,
    pub end: End,
}

/// Why a scan gives no more slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The next slot is free, on the store's definite word, given after the scan began.
    Free,
    /// There may be more: scan again from the next slot.
    More,
    /// It is not known just now whether the next slot is free; the text says why. It never means
    /// that it is.
    Undecided(String),
    /// The store answers, and the next slot is neither free nor decided: an append to it is on its way, or its writer is gone. In
    /// that case it stays so until somebody takes.
    Unsettled,
}

/// What came of an append.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Append {
    /// The slot holds these bytes now, durably.
    Appended,
    /// The tenure is over: another writer is at work, or the caller asked for something that a
    /// tenure does not do. The next take tells whether the slot holds these bytes.
    Superseded,
    /// The slot may hold the bytes now, or later, or never. Repeating the same append settles it.
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

/// Why a take gave no tenure. It may have closed slots all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeError {
    /// Another owner is at work: read on, and follow.
    #[error("another owner is at work")]
    Superseded,
    /// Slots below this floor may be gone, the first one asked for among them.
    #[error("the journal is trimmed below {0}")]
    Trimmed(u64),
    /// Taking again may succeed.
    #[error("the journal's engine did not answer: {0}")]
    Unavailable(String),
}

/// What an engine is limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest entry that a slot holds, in bytes; a larger body goes to the bucket.
    pub slot_bytes_max: usize,
    /// A take may give way to another owner ([`TakeError::Superseded`]). Of an engine without this, a take that the store
    /// answers begins a tenure, whoever else takes.
    pub takes_give_way: bool,
    /// A take shuts others out of as many slots as they may have in flight, also of those that it leaves free: nobody need ask
    /// for them to be closed.
    pub takes_seal: bool,
}

/// The result of a take.
pub struct Taken {
    pub tenure: Arc<dyn Tenure>,
    /// Every slot from the one asked for to the one before the tenure's first, decided. They can be
    /// relied upon only if the floor, read afterwards, is not above the first of them.
    pub settled: Vec<(u64, Content)>,
}

/// The slots of one journal, numbered from 1, as one node sees them: each node has an engine of its
/// own. Slots disappear only by [`Tenure::trim`]. Dropping a future leaves its outcome unknown.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Decided slots from `from` on: at most `limit`, perhaps fewer than there are. If something
    /// fails, the slots read before are still returned.
    async fn scan(&self, from: u64, limit: usize) -> Scan;

    /// Some occupied slot above `index`; `None` if a listing, which may lag, shows none.
    async fn above(&self, index: u64) -> Result<Option<u64>, Error>;

    /// The floor: slots below it may have been trimmed, no slot at or above it was before this
    /// call began.
    async fn floor(&self) -> Result<u64, Error>;

    /// Settles the slots from `from` on, all at the same time, and begins a tenure at the first
    /// slot after them; the tenure before, if there was one, is over. Free slots below occupied
    /// ones are closed, and so is every free slot below `through`, so that entries of others on
    /// their way there cannot land any more.
    async fn take(&self, from: u64, through: u64) -> Result<Taken, TakeError>;

    /// The slot, which the caller has read or appended, holds a claim that counts, so it is never deleted: an engine may take a
    /// store in which it is gone for one that has lost data.
    fn claimed(&self, _index: u64) {}

    /// What the engine must know, beside the journal's own state, to go on after the entry in slot
    /// `index`: opaque bytes that a snapshot carries.
    fn mark(&self, index: u64) -> Bytes;

    /// Sets the engine to the mark of a snapshot that was loaded.
    fn adopt(&self, mark: &[u8]) -> Result<(), Error>;

    fn limits(&self) -> Limits;
}

/// The right to append, from one take to the first sign of another writer.
///
/// Its first slot takes the caller's claim, one claim and nothing else; once the caller has made
/// sure that it counts ([`Tenure::confirmed`]), the slots after it are appended in any order
/// within [`WINDOW`] of those that this tenure has itself appended.
#[async_trait]
pub trait Tenure: Send + Sync + 'static {
    /// Puts an entry into slot `index`. `nonce` is the entry's own, also inside `bytes`, for
    /// engines that tell entries apart by it. The same bytes may be sent to a slot repeatedly.
    /// Other bytes for the same slot, a slot outside the window, or an entry before the claim is
    /// confirmed are refused: nothing is sent, and the tenure ends.
    async fn append(&self, index: u64, nonce: u128, bytes: Bytes) -> Append;

    /// The claim counts: slots after it may be appended from now on.
    fn confirmed(&self);

    /// Raises the floor to `floor` unless it is higher, durably and visibly to every later
    /// [`Engine::floor`], and then deletes the slots `indices`, all of which lie below `floor`. A
    /// tenure that is over trims nothing.
    async fn trim(&self, floor: u64, indices: &[u64]) -> Result<(), Error>;
}
