//! How the journal grows, as the control node that leads tells those that follow. It must not know what entries hold.

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::position::Position;

/// What the control node that leads tells those that follow, as it happens.
pub type Growing = BoxStream<'static, Growth>;

/// How far the journal goes, and entries that came last: a follower need not read those. A fact, since only what counts is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Everything up to here is in the journal.
    pub to: Position,
    pub entries: Vec<JournalEntry>,
}

/// An entry of the journal, as it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    pub at: Position,
    pub bytes: Bytes,
}
