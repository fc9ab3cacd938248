//! What the core asks of buckets, and what it is answered. It must not know why something is asked.

use std::sync::Arc;

use super::record::{Record, Unreadable};

/// Identifies something that a caller waits for.
pub(crate) type Ask = u64;

/// Who in the core asked; answers come back to it. Numbers are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Owner {
    Tenure(u64),
    Floor(u64),
    Read(Ask),
    Audit(Ask),
    Fill(u64),
    Trim(Ask),
}

/// One request to one bucket. It is answered exactly once; `again` says that the same was asked before, so a pause is
/// due.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    /// Create the record at the link if there is none.
    Put {
        slot: u64,
        link: u32,
        record: Arc<Record>,
        again: bool,
    },
    Get {
        slot: u64,
        link: u32,
        again: bool,
    },
    /// Read the floor.
    Floor {
        again: bool,
    },
    /// Look at the marker and the newest claim, beginning now (A3), for this round of promises that are to count.
    Look {
        round: u32,
        again: bool,
    },
    /// Raise the floor to this slot at least.
    Raise {
        floor: u64,
        again: bool,
    },
    /// Delete the chains of these slots.
    Sweep {
        slots: Arc<[u64]>,
        again: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) owner: Owner,
    pub(crate) bucket: usize,
    pub(crate) call: Call,
}

/// What a bucket said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Said {
    /// The record was created, or the floor raised, or the chains deleted, or the bucket looks right.
    Done,
    /// No clear answer: the request may have had an effect, or may yet. A conflict is one of these: it says nothing (A1).
    Unclear,
    Found(Arc<Record>),
    /// On the bucket's definite word there is no such object.
    Absent,
    Unreadable(Unreadable),
    Floor(u64),
    /// The bucket is not the one that it was, or carries no floor.
    Wrong,
}

impl Call {
    /// The same request once more.
    pub(crate) fn repeated(&self) -> Call {
        let mut call = self.clone();
        match &mut call {
            Call::Put { again, .. }
            | Call::Get { again, .. }
            | Call::Floor { again }
            | Call::Look { again, .. }
            | Call::Raise { again, .. }
            | Call::Sweep { again, .. } => *again = true,
        }
        call
    }
}
