//! The engine and the snapshots of a simulated world, the history that the journal's rules give,
//! and the stray writer. It must not know the nodes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use host::rng::Rng;

use super::*;
use crate::chain::{Chain, Verdict};
use crate::quarantine;

/// The name under which the stray writer claims.
const STRAY: &str = "stray";
/// The value that the stray writer proposes.
const STRAY_VALUE: u64 = u64::MAX;

pub(super) struct Stores {
    pub(super) slots: Slots,
    /// The chain of a reader that never sleeps.
    truth: Chain,
    /// Every valid command so far, without those of entries that are left out.
    pub(super) history: Vec<u64>,
    /// The claim and the values of each valid entry.
    entries: BTreeMap<u64, (EntryId, Vec<u64>)>,
    pub(super) quarantined: Vec<Quarantined>,
    /// How many values were in entries that are left out.
    pub(super) given_up: usize,
    /// Every entry that was ever written, valid or not, and whether it is a claim.
    seen: Vec<(EntryId, bool)>,
    pub(super) valid: BTreeSet<EntryId>,
    snapshots: BTreeMap<u64, (Cut, Vec<u64>)>,
    bodies: BTreeMap<[u8; 32], Bytes>,
    /// Every body that was ever written.
    all_bodies: BTreeMap<[u8; 32], Bytes>,
}

impl Default for Stores {
    fn default() -> Self {
        Stores {
            slots: Slots::new(),
            truth: Chain::genesis(0),
            history: Vec::new(),
            entries: BTreeMap::new(),
            quarantined: Vec::new(),
            given_up: 0,
            seen: Vec::new(),
            valid: BTreeSet::from([EntryId::GENESIS]),
            snapshots: BTreeMap::new(),
            bodies: BTreeMap::new(),
            all_bodies: BTreeMap::new(),
        }
    }
}

impl Stores {
    /// True if the slot holds these bytes afterwards.
    pub(super) fn append(&mut self, index: u64, bytes: Bytes) -> Result<bool, String> {
        let holds = self.slots.put(index, bytes);
        self.read_on()?;
        Ok(holds)
    }

    pub(super) fn fill(&mut self, index: u64) -> Result<Content, String> {
        let content = self.slots.fill(index);
        self.read_on()?;
        Ok(content)
    }

    fn read_on(&mut self) -> Result<(), String> {
        while let Some(content) = self.slots.read(self.truth.next()) {
            let Content::Entry(bytes) = content else {
                self.truth.skip();
                continue;
            };
            let verdict = self.truth.feed(&bytes).map_err(|error| error.to_string())?;
            let entry = Entry::decode(&bytes).map_err(|error| error.to_string())?;
            let is_claim = matches!(entry.body, Body::Claim { .. });
            self.seen.push((entry.header.id, is_claim));
            let Verdict::Valid { entry, .. } = verdict else {
                continue;
            };
            self.valid.insert(entry.header.id);
            let items = match entry.body {
                Body::Claim { .. } => continue,
                Body::Commands(items) => items,
                Body::Elsewhere(reference) => {
                    let object = &self.all_bodies[&reference.sha256];
                    let nonce = entry.header.id.nonce;
                    crate::entry::take_from_elsewhere(nonce, &reference, object)
                        .map_err(|error| error.to_string())?
                }
            };
            let id = entry.header.id;
            let mut items = items;
            let quarantined = quarantine::take(id.index, &mut items);
            let marks = (!quarantined.is_empty()).then(|| mark(id.index));
            let values: Vec<u64> = marks
                .into_iter()
                .chain(items.iter().map(value_of))
                .collect();
            self.history.extend(&values);
            self.entries.insert(id.index, (entry.header.claim, values));
            for one in quarantined {
                if self.quarantined.iter().all(|other| other.slot != one.slot) {
                    self.quarantined.push(one);
                    self.given_up += self.entries[&one.slot].1.len();
                    self.history = self.history_at(id.index);
                }
            }
        }
        Ok(())
    }

    /// The history up to the entry at `index`, as whoever has read everything up to there must have it.
    pub(super) fn history_at(&self, index: u64) -> Vec<u64> {
        let is_left_out = |slot: u64| {
            let mut known = self.quarantined.iter().filter(|one| one.by <= index);
            known.any(|one| one.slot == slot)
        };
        let kept = self
            .entries
            .range(..=index)
            .filter(|(slot, _)| !is_left_out(**slot));
        kept.flat_map(|(_, (_, values))| values).copied().collect()
    }

    /// True if `applied` is the history up to the entry at `index`.
    pub(super) fn has_at(&self, index: u64, applied: &[u64]) -> bool {
        let all_known = self.quarantined.iter().all(|one| one.by <= index);
        match all_known {
            true => self.history.starts_with(applied),
            false => self.history_at(index) == applied,
        }
    }

    /// True if the entry at `index` was left out, or was sent by the leader of one that was left out while that may have been in
    /// flight: whether the leader could apply it nobody else can tell.
    pub(super) fn may_be_given_up(&self, index: u64) -> bool {
        let claim = |slot: &u64| self.entries.get(slot).map(|(claim, _)| *claim);
        self.quarantined.iter().any(|one| {
            let in_flight = one.slot..one.slot + IN_FLIGHT;
            in_flight.contains(&index) && claim(&index) == claim(&one.slot)
        })
    }

    /// Removes the snapshots below this one.
    pub(super) fn sweep(&mut self, older: Option<u64>) {
        self.snapshots
            .retain(|index, _| older.is_none_or(|older| *index >= older));
    }

    pub(super) fn snapshot_from(&self, from: u64) -> Option<u64> {
        self.snapshots.range(from..).next().map(|(index, _)| *index)
    }

    pub(super) fn put_body(&mut self, sha256: [u8; 32], object: Bytes) {
        self.bodies.insert(sha256, object.clone());
        self.all_bodies.insert(sha256, object);
    }

    pub(super) fn delete_bodies(&mut self, bodies: &[(u64, [u8; 32])]) {
        for (_, sha256) in bodies {
            self.bodies.remove(sha256);
        }
    }

    /// Slots with the bodies that are there now.
    pub(super) fn complete(&self, slots: Vec<(u64, Content)>) -> Vec<Slot> {
        let complete = |(index, content): (u64, Content)| {
            let entry = match &content {
                Content::Entry(bytes) => Entry::decode(bytes).ok(),
                Content::Filler => None,
            };
            let body = match entry.map(|entry| entry.body) {
                Some(Body::Elsewhere(reference)) => self.bodies.get(&reference.sha256).cloned(),
                _ => None,
            };
            Slot {
                index,
                content,
                body,
            }
        };
        slots.into_iter().map(complete).collect()
    }

    /// The first free slot below `index` to which the writer has `sent` nothing.
    pub(super) fn hole_below(&self, index: u64, sent: &BTreeSet<u64>) -> Option<u64> {
        (self.truth.next()..index)
            .find(|slot| self.slots.read(*slot).is_none() && !sent.contains(slot))
    }

    pub(super) fn name(&mut self, cut: Cut, applied: Vec<u64>) {
        self.snapshots.insert(cut.last.index, (cut, applied));
    }

    pub(super) fn newest_above(
        &self,
        above: u64,
        leaves_out: &[Quarantined],
    ) -> Option<(Cut, Vec<u64>)> {
        let mut newest = self.snapshots.range(above + 1..).rev();
        let found = newest.find(|(_, (cut, _))| cut.holds(leaves_out).is_none());
        found.map(|(_, snapshot)| snapshot.clone())
    }
}

/// An entry that must be void, since it names an older claim or an older entry: at the head, or a
/// little after it, as from a writer that lost the lead with several entries in flight.
pub(super) fn stray(stores: &Stores, rng: &mut Rng) -> (u64, Bytes) {
    let ahead = if rng.once_in(2) { rng.below(4) } else { 0 };
    let index = stores.truth.next() + ahead;
    let older = |rng: &mut Rng, not: EntryId, claims: bool| {
        let fit = |(id, is_claim): &&(EntryId, bool)| *id != not && (*is_claim || !claims);
        let seen: Vec<&(EntryId, bool)> = stores.seen.iter().filter(fit).collect();
        match seen.len() as u64 {
            0 => EntryId { index: 0, nonce: 7 },
            // Mostly one of the last entries, as a sleeper would name.
            count => seen[(count - 1 - rng.below(count.min(3))) as usize].0,
        }
    };
    let (mut claim, mut predecessor) = (stores.truth.claim(), stores.truth.last());
    if rng.once_in(2) {
        claim = older(rng, claim, true);
    } else {
        predecessor = older(rng, predecessor, false);
    }
    let body = if rng.once_in(2) {
        Body::Claim {
            node: STRAY.to_owned(),
            reads: 1,
        }
    } else {
        Body::Commands(vec![Item {
            cluster: ClusterNumber(1),
            command: Bytes::copy_from_slice(&STRAY_VALUE.to_le_bytes()),
        }])
    };
    let header = Header {
        shard: 0,
        id: EntryId {
            index,
            nonce: u128::from(rng.next_u64()),
        },
        claim,
        predecessor,
        stamp: stores.truth.stamp(),
    };
    (index, Entry { header, body }.encode())
}
