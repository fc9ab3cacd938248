//! What keeps the journal: slots, bodies and snapshots, behind requests that fail as a store's do.
//!
//! Must not know what entries mean, beyond where their bodies lie.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use journal::entry::{Body, Entry, EntryId};
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
    Read {
        index: u64,
    },
    Scan {
        from: u64,
        limit: usize,
    },
    Floor,
    Trim {
        floor: u64,
        indices: Vec<u64>,
        bodies: Vec<[u8; 32]>,
    },
    LoadSnapshot {
        above: u64,
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
    Appended,
    Occupied(Bytes),
    Read(Option<Bytes>),
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
            JournalAnswer::Appended => write!(f, "Appended"),
            JournalAnswer::Occupied(bytes) => write!(f, "Occupied<{}>", bytes.len()),
            JournalAnswer::Read(slot) => write!(f, "Read<{:?}>", slot.as_ref().map(Bytes::len)),
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
            JournalRequest::Read { .. }
            | JournalRequest::Scan { .. }
            | JournalRequest::Floor
            | JournalRequest::LoadSnapshot { .. } => Request::Get(String::new()),
            JournalRequest::Trim { .. } | JournalRequest::WriteSnapshot { .. } => {
                Request::Delete(String::new())
            }
        }
    }
}

/// The journal's slots and snapshots.
#[derive(Default)]
pub(super) struct JournalStore {
    slots: BTreeMap<u64, Bytes>,
    bodies: BTreeMap<[u8; 32], Bytes>,
    floor: u64,
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
                match self.slots.get(&id.index) {
                    None => {
                        self.slots.insert(id.index, bytes.clone());
                        JournalAnswer::Appended
                    }
                    Some(held) if held == bytes => JournalAnswer::Appended,
                    Some(held) => JournalAnswer::Occupied(held.clone()),
                }
            }
            JournalRequest::Read { index } => JournalAnswer::Read(self.slots.get(index).cloned()),
            JournalRequest::Scan { from, limit } => {
                JournalAnswer::Scanned(self.scan(*from, *limit))
            }
            JournalRequest::Floor => JournalAnswer::Floor(self.floor),
            JournalRequest::Trim {
                floor,
                indices,
                bodies,
            } => {
                self.floor = self.floor.max(*floor);
                indices
                    .iter()
                    .for_each(|index| drop(self.slots.remove(index)));
                bodies
                    .iter()
                    .for_each(|name| drop(self.bodies.remove(name)));
                JournalAnswer::Trimmed
            }
            JournalRequest::LoadSnapshot { above } => {
                let newest = self.snapshots.range(above + 1..).next_back();
                let found = newest.map(|(_, snapshot)| snapshot.clone());
                JournalAnswer::Snapshot {
                    found,
                    floor: self.floor,
                }
            }
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

    fn scan(&self, from: u64, limit: usize) -> Vec<Slot> {
        let slots = self.slots.range(from..).zip(from..);
        let run = slots
            .take_while(|((index, _), expected)| *index == expected)
            .take(limit);
        run.map(|((&index, bytes), _)| Slot {
            index,
            bytes: bytes.clone(),
            body: self.body(bytes),
        })
        .collect()
    }

    fn body(&self, slot: &Bytes) -> Option<Bytes> {
        match Entry::decode(slot).ok()?.body {
            Body::Elsewhere(reference) => self.bodies.get(&reference.sha256).cloned(),
            _ => None,
        }
    }

    pub(super) fn head(&self) -> u64 {
        self.slots.last_key_value().map_or(0, |(index, _)| *index)
    }
}
