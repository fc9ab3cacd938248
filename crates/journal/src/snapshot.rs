//! Snapshots: the state machine at one entry, in chunks below `chunks/`, each named by the claim under which it was written and a
//! nonce, with a manifest below `snapshots/` (docs/formats/journal-snapshot.md). This module must not know what
//! the chunks hold, nor when a snapshot is due.

use crate::entry::{EntryId, Stamp};
use crate::quarantine::Quarantined;

pub mod archive;
pub mod manifest;

/// Where in the journal a snapshot is cut, and what a node must know to go on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub shard: u16,
    /// The last valid entry, which the snapshot includes.
    pub last: EntryId,
    /// The last valid claim.
    pub claim: EntryId,
    /// The node whose claim it is.
    pub claimant: String,
    /// Time of the last valid entry.
    pub stamp: Stamp,
    /// Every slot below is trimmed, or stays for ever.
    pub trimmed_below: u64,
    /// Claims and void entries from there to the last valid entry, ascending.
    pub spared: Vec<u64>,
    /// Bodies in the bucket that entries from there on refer to: slot and SHA-256, ascending.
    pub bodies: Vec<(u64, [u8; 32])>,
    /// Entries that the state leaves out, ascending.
    pub quarantined: Vec<Quarantined>,
}

/// Why a snapshot cannot be used; the text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("{0}")]
    Damaged(String),
    /// A newer version wrote it.
    #[error("{0}")]
    Newer(String),
}

impl Cut {
    /// The first of these entries that the state should leave out and does not.
    pub fn holds(&self, quarantined: &[Quarantined]) -> Option<u64> {
        let held = |one: &&Quarantined| {
            one.slot <= self.last.index
                && !self.quarantined.iter().any(|ours| ours.slot == one.slot)
        };
        quarantined.iter().find(held).map(|one| one.slot)
    }
}
