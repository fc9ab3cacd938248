//! What keeps the journal: slots, bodies and snapshots, behind requests that fail as a store's do.
//!
//! Must not know what entries mean, beyond where their bodies lie.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use journal::engine::{Content, TakeError};
use journal::entry::{Body, Entry, EntryId};
use journal::memory::{Books, Slots};
use journal::node::Slot;
use journal::snapshot::Cut;

use crate::bucket::Request;

#[derive(Clone)]
pub(super) enum JournalRequest {
    Append {
        id: EntryId,
        bytes: Bytes,
        body: Option<([u8; 32], Bytes)>,
    },
    /// An append in a tenure that is over: nothing is sent.
    Over,
    Take {
        from: u64,
        through: u64,
    },
    Scan {
        from: u64,
        limit: usize,
    },
    Floor,
    Trim {
        floor: u64,
        indices: Vec<u64>,
        bodies: Vec<(u64, [u8; 32])>,
    },
    LoadSnapshot {
        above: u64,
    },
    /// The snapshot at this index.
    ReadSnapshot {
        index: u64,
    },
    WriteSnapshot {
        cut: Box<Cut>,
        chunks: Vec<Bytes>,
        older: Option<u64>,
    },
}

/// What the effect came to.
#[derive(Clone)]
pub(super) enum JournalAnswer {
    /// Whether the slot of an append holds its entry then.
    Holds(bool),
    Taken(Result<(Vec<Slot>, Books), TakeError>),
    Scanned(Vec<Slot>),
    Floor(u64),
    Trimmed,
    Snapshot {
        found: Option<(Box<Cut>, Vec<Bytes>)>,
        floor: u64,
    },
    SnapshotWritten,
    /// It failed, or nobody knows.
    Failed,
}

impl fmt::Debug for JournalAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalAnswer::Holds(holds) => write!(f, "Holds({holds})"),
            JournalAnswer::Taken(Ok((slots, _))) => write!(f, "Taken<{}>", slots.len()),
            JournalAnswer::Taken(Err(error)) => write!(f, "Taken({error})"),
            JournalAnswer::Scanned(slots) => write!(f, "Scanned<{}>", slots.len()),
            JournalAnswer::Floor(floor) => write!(f, "Floor({floor})"),
            JournalAnswer::Trimmed => write!(f, "Trimmed"),
            JournalAnswer::Snapshot { found, .. } => {
                write!(f, "Snapshot<{:?}>", found.as_ref().map(|(cut, _)| cut.last))
            }
            JournalAnswer::SnapshotWritten => write!(f, "SnapshotWritten"),
            JournalAnswer::Failed => write!(f, "Failed"),
        }
    }
}

impl JournalRequest {
    /// The bucket request whose faults it shares.
    pub(super) fn like(&self) -> Request {
        match self {
            JournalRequest::Append { .. } => Request::Put(String::new(), Bytes::new()),
            _ => Request::Get(String::new()),
        }
    }
}

/// The journal's slots and snapshots.
#[derive(Default)]
pub(super) struct JournalStore {
    slots: Slots,
    bodies: BTreeMap<[u8; 32], Bytes>,
    snapshots: BTreeMap<u64, (Box<Cut>, Vec<Bytes>)>,
}

impl JournalStore {
    /// Lets the request take effect.
    pub(super) fn perform(&mut self, request: &JournalRequest) -> JournalAnswer {
        match request {
            JournalRequest::Append { id, bytes, body } => {
                if let Some((name, object)) = body {
                    self.bodies.entry(*name).or_insert_with(|| object.clone());
                }
                JournalAnswer::Holds(self.slots.put(id.index, bytes.clone()))
            }
            JournalRequest::Over => JournalAnswer::Holds(false),
            JournalRequest::Take { from, through } => {
                let taken = self.slots.take(*from, *through);
                let taken = taken.map(|(settled, books)| (self.complete(settled), books));
                JournalAnswer::Taken(taken)
            }
            JournalRequest::Scan { from, limit } => {
                JournalAnswer::Scanned(self.complete(self.slots.run(*from, *limit)))
            }
            JournalRequest::Floor => JournalAnswer::Floor(self.slots.floor()),
            JournalRequest::Trim {
                floor,
                indices,
                bodies,
            } => {
                self.slots.trim(*floor, indices);
                bodies
                    .iter()
                    .for_each(|(_, name)| drop(self.bodies.remove(name)));
                JournalAnswer::Trimmed
            }
            JournalRequest::LoadSnapshot { above } => {
                let newest = self.snapshots.range(above + 1..).next_back();
                let found = newest.map(|(_, snapshot)| snapshot.clone());
                JournalAnswer::Snapshot {
                    found,
                    floor: self.slots.floor(),
                }
            }
            JournalRequest::ReadSnapshot { index } => JournalAnswer::Snapshot {
                found: self.snapshots.get(index).cloned(),
                floor: self.slots.floor(),
            },
            JournalRequest::WriteSnapshot { cut, chunks, older } => {
                if let Some(older) = older {
                    self.snapshots = self.snapshots.split_off(older);
                }
                self.snapshots
                    .insert(cut.last.index, (cut.clone(), chunks.clone()));
                JournalAnswer::SnapshotWritten
            }
        }
    }

    fn complete(&self, slots: Vec<(u64, Content)>) -> Vec<Slot> {
        let complete = |(index, content)| {
            let body = self.body(&content);
            Slot {
                index,
                content,
                body,
            }
        };
        slots.into_iter().map(complete).collect()
    }

    fn body(&self, slot: &Content) -> Option<Bytes> {
        let Content::Entry(bytes) = slot else {
            return None;
        };
        match Entry::decode(bytes).ok()?.body {
            Body::Elsewhere(reference) => self.bodies.get(&reference.sha256).cloned(),
            _ => None,
        }
    }

    pub(super) fn head(&self) -> u64 {
        self.slots.head().unwrap_or(0)
    }
}
