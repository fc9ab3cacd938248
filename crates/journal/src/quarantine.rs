//! The journal's own commands, those of cluster 0 (docs/formats/journal.md). There is one: it leaves an entry out that some
//! build cannot apply, for all nodes alike. It must not know who may append it, nor what commands of clusters mean.

use std::fmt;
use std::str::FromStr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::entry::{ClusterNumber, Item};

#[cfg(test)]
mod tests;

/// The cluster whose commands are the journal's own.
pub const OWN: ClusterNumber = ClusterNumber(0);
const NUMBER: u16 = 1;
/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// An entry that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The slot of the entry that is left out.
    pub slot: u64,
    /// SHA-256 of the bytes that the slot holds.
    pub sha256: [u8; 32],
    /// The slot of the entry that says so.
    pub by: u64,
}

/// The command that quarantines an entry, and says why it could not be applied; a longer reason is cut.
pub(crate) fn command(slot: u64, sha256: &[u8; 32], reason: &str) -> Item {
    let mut out = BytesMut::new();
    out.put_u16_le(NUMBER);
    out.put_u64_le(slot);
    out.put_slice(sha256);
    let end = reason.floor_char_boundary(REASON_BYTES_MAX);
    out.put_slice(&reason.as_bytes()[..end]);
    Item {
        cluster: OWN,
        command: out.freeze(),
    }
}

/// Takes the quarantines out of the commands of the entry in slot `by`. What else is of cluster 0 stays, and no state machine
/// can apply it.
pub(crate) fn take(by: u64, items: &mut Vec<Item>) -> Vec<Quarantined> {
    let read = |item: &mut Item| (item.cluster == OWN).then(|| decode(by, &item.command))?;
    if items.iter().all(|item| item.cluster != OWN) {
        return Vec::new();
    }
    let taken: Vec<Quarantined> = items.iter_mut().filter_map(read).collect();
    items.retain_mut(|item| read(item).is_none());
    taken
}

/// `None`: these bytes are not a quarantine of an earlier entry, as [`command`] writes it.
fn decode(by: u64, command: &Bytes) -> Option<Quarantined> {
    let mut rest = command.clone();
    let number = rest.try_get_u16_le().ok()?;
    let slot = rest.try_get_u64_le().ok()?;
    let mut sha256 = [0; 32];
    rest.try_copy_to_slice(&mut sha256).ok()?;
    let reason = std::str::from_utf8(&rest).ok()?;
    let is_one = number == NUMBER && reason.len() <= REASON_BYTES_MAX && (1..by).contains(&slot);
    is_one.then_some(Quarantined { slot, sha256, by })
}

/// SHA-256 of a slot's bytes.
pub(crate) fn digest(slot: &[u8]) -> [u8; 32] {
    Sha256::digest(slot).into()
}

/// The word by which an operator says which entry is to be left out: its slot, and the first eight bytes of its SHA-256, so
/// that a word that was meant for another journal or another time does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    pub slot: u64,
    pub digest: [u8; 8],
}

impl Word {
    /// The word for the entry with this SHA-256.
    pub(crate) fn of(slot: u64, sha256: &[u8; 32]) -> Word {
        let mut digest = [0; 8];
        digest.copy_from_slice(&sha256[..8]);
        Word { slot, digest }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.slot, u64::from_be_bytes(self.digest))
    }
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (slot, digest) = text.split_once('-')?;
            let word = Word {
                slot: slot.parse().ok()?,
                digest: u64::from_str_radix(digest, 16).ok()?.to_be_bytes(),
            };
            (word.to_string() == text).then_some(word)
        };
        read().ok_or_else(|| {
            format!(
                "{text}: write it as /readyz and the log name it, SLOT-DIGEST, such as 4097-5f3ac0de00112233"
            )
        })
    }
}

/// After a word: that it is forced.
const FORCED: &str = "-forced";

/// What an operator wants left out, and whether that is forced: though a node that is there has applied it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub word: Word,
    pub is_forced: bool,
}

impl From<Word> for Order {
    fn from(word: Word) -> Order {
        Order {
            word,
            is_forced: false,
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forced = if self.is_forced { FORCED } else { "" };
        write!(f, "{}{forced}", self.word)
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let forced = text.strip_suffix(FORCED);
        Ok(Order {
            word: forced.unwrap_or(text).parse()?,
            is_forced: forced.is_some(),
        })
    }
}
