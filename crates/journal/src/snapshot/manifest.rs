//! A snapshot's manifest as bytes (docs/formats/journal-snapshot.md). It must not know where
//! manifests and chunks lie.

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use sha2::{Digest, Sha256};
use store::checksum::crc32c;

use super::Cut;
use crate::entry::{DecodeError, EntryId, NODE_NAME_BYTES_MAX, Stamp};
use crate::quarantine::Quarantined;

#[cfg(test)]
mod tests;

const MAGIC: [u8; 4] = *b"SWJS";
/// The format that this code writes, and the only one that it reads.
const FORMAT: u8 = 1;
/// Bytes before the sections.
const HEADER_BYTES: usize = 8;
/// The flag of a section without which the rest must not be used.
const NEEDED: u16 = 1;

const SECTION_CUT: u16 = 1;
const SECTION_RETENTION: u16 = 2;
const SECTION_STATE: u16 = 3;
const SECTION_ENGINE: u16 = 4;
const SECTION_CHUNKS: u16 = 5;
const SECTION_QUARANTINES: u16 = 6;

/// The bytes of a piece of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chunk {
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// Its length in bytes.
    pub length: u64,
}

/// A chunk as an object of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub chunk: Chunk,
    /// Part of the object's name. No name is ever used again for a chunk that is written later,
    /// so that a late deletion of an old one cannot hit it.
    pub nonce: u128,
}

/// What the state machine says of the state that a snapshot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// The level at which the state is.
    pub level: u32,
    /// The digest of the state at that level: whoever restores the snapshot gets the same.
    pub digest: [u8; 32],
}

/// What a snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Where it was cut.
    pub cut: Cut,
    pub seal: Seal,
    /// What the engine must know to go on from there; its own to read.
    pub mark: Bytes,
    /// Its pieces, in order.
    pub chunks: Vec<Stored>,
}

impl Chunk {
    /// The description of `bytes`.
    pub fn of(bytes: &[u8]) -> Chunk {
        Chunk {
            sha256: Sha256::digest(bytes).into(),
            length: bytes.len() as u64,
        }
    }

    /// Whether `bytes` are what it describes.
    pub fn describes(&self, bytes: &[u8]) -> bool {
        Chunk::of(bytes) == *self
    }
}

impl Manifest {
    /// The manifest as an object.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(&MAGIC);
        out.put_u8(FORMAT);
        out.put_bytes(0, 3);
        section(&mut out, SECTION_CUT, |out| self.put_cut(out));
        section(&mut out, SECTION_RETENTION, |out| self.put_retention(out));
        section(&mut out, SECTION_STATE, |out| {
            out.put_u32_le(self.seal.level);
            out.put_slice(&self.seal.digest);
        });
        section(&mut out, SECTION_ENGINE, |out| out.put_slice(&self.mark));
        section(&mut out, SECTION_CHUNKS, |out| {
            for stored in &self.chunks {
                out.put_u128_le(stored.nonce);
                out.put_slice(&stored.chunk.sha256);
                out.put_u64_le(stored.chunk.length);
            }
        });
        section(&mut out, SECTION_QUARANTINES, |out| {
            for one in &self.cut.quarantined {
                out.put_u64_le(one.slot);
                out.put_slice(&one.sha256);
                out.put_u64_le(one.by);
            }
        });
        let checksum = crc32c(&out);
        out.put_u32_le(checksum);
        out.freeze()
    }

    fn put_cut(&self, out: &mut BytesMut) {
        let cut = &self.cut;
        out.put_u16_le(cut.shard);
        for id in [cut.last, cut.claim] {
            out.put_u64_le(id.index);
            out.put_u128_le(id.nonce);
        }
        out.put_u64_le(cut.stamp.wall_millis);
        out.put_u64_le(cut.stamp.ticks_millis);
        assert!(
            cut.claimant.len() <= NODE_NAME_BYTES_MAX,
            "a node's name is short"
        );
        out.put_slice(cut.claimant.as_bytes());
    }

    fn put_retention(&self, out: &mut BytesMut) {
        let cut = &self.cut;
        out.put_u64_le(cut.trimmed_below);
        put_count(out, cut.spared.len());
        for index in &cut.spared {
            out.put_u64_le(*index);
        }
        put_count(out, cut.bodies.len());
        for (index, sha256) in &cut.bodies {
            out.put_u64_le(*index);
            out.put_slice(sha256);
        }
    }

    /// The manifest in `object`. Strict: sections that this program knows hold what
    /// [`Manifest::encode`] would have written; others are passed over, unless they are needed.
    pub fn decode(object: &Bytes) -> Result<Manifest, DecodeError> {
        if object.len() < HEADER_BYTES + 4 || object[..4] != MAGIC {
            return Err(DecodeError::Corrupt("it does not begin with SWJS"));
        }
        let (covered, mut checksum) = object.split_at(object.len() - 4);
        if crc32c(covered) != checksum.get_u32_le() {
            return Err(DecodeError::Corrupt("its checksum does not match"));
        }
        if covered[4] != FORMAT {
            return Err(DecodeError::NewerFormat(covered[4]));
        }
        let (known, others) = sections(object.slice(HEADER_BYTES..covered.len()))?;
        let manifest = read(known)
            .map_err(|_| DecodeError::Corrupt("a section is cut off"))?
            .ok_or(DecodeError::Corrupt("its fields contradict each other"))?;
        // One spelling only: this also refuses what follows the last chunk.
        if !others && manifest.encode() != *object {
            return Err(DecodeError::Corrupt("it would be written in another way"));
        }
        Ok(manifest)
    }
}

/// Writes one section, which every reader must know.
fn section(out: &mut BytesMut, number: u16, write: impl FnOnce(&mut BytesMut)) {
    out.put_u16_le(number);
    out.put_u16_le(NEEDED);
    let at = out.len();
    out.put_u32_le(0);
    write(out);
    let length = u32::try_from(out.len() - at - 4).expect("a section is smaller than 4 GiB");
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// The sections that this program knows, by number from 1, and whether there are others.
fn sections(mut rest: Bytes) -> Result<([Bytes; 6], bool), DecodeError> {
    const SHORT: DecodeError = DecodeError::Corrupt("its sections are cut off");
    let (mut known, mut others, mut last) = (<[Bytes; 6]>::default(), false, 0);
    while rest.has_remaining() {
        let number = rest.try_get_u16_le().map_err(|_| SHORT)?;
        let flags = rest.try_get_u16_le().map_err(|_| SHORT)?;
        let length = rest.try_get_u32_le().map_err(|_| SHORT)? as usize;
        if length > rest.len() || number <= last {
            return Err(SHORT);
        }
        last = number;
        let content = rest.split_to(length);
        match known.get_mut(usize::from(number) - 1) {
            Some(section) => *section = content,
            None if flags & NEEDED != 0 => return Err(DecodeError::NewerSection(number)),
            None => others = true,
        }
    }
    Ok((known, others))
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32_le(u32::try_from(count).expect("a manifest has fewer than 2^32 parts"));
}

/// A count of parts of `size` bytes each, which must all be there.
fn take_count(rest: &mut Bytes, size: usize) -> Result<usize, TryGetError> {
    let count = rest.try_get_u32_le()? as usize;
    if count > rest.len() / size {
        return Err(TryGetError {
            requested: count.saturating_mul(size),
            available: rest.len(),
        });
    }
    Ok(count)
}

fn take_hash(rest: &mut Bytes) -> Result<[u8; 32], TryGetError> {
    let mut hash = [0; 32];
    rest.try_copy_to_slice(&mut hash)?;
    Ok(hash)
}

fn take_id(rest: &mut Bytes) -> Result<EntryId, TryGetError> {
    Ok(EntryId {
        index: rest.try_get_u64_le()?,
        nonce: rest.try_get_u128_le()?,
    })
}

fn take_chunks(rest: &mut Bytes) -> Result<Vec<Stored>, TryGetError> {
    let mut chunks = Vec::new();
    while rest.has_remaining() {
        chunks.push(Stored {
            nonce: rest.try_get_u128_le()?,
            chunk: Chunk {
                sha256: take_hash(rest)?,
                length: rest.try_get_u64_le()?,
            },
        });
    }
    Ok(chunks)
}

fn take_quarantined(rest: &mut Bytes) -> Result<Vec<Quarantined>, TryGetError> {
    let mut quarantined = Vec::new();
    while rest.has_remaining() {
        quarantined.push(Quarantined {
            slot: rest.try_get_u64_le()?,
            sha256: take_hash(rest)?,
            by: rest.try_get_u64_le()?,
        });
    }
    Ok(quarantined)
}

/// `None`: whole, but it makes no sense.
fn read(sections: [Bytes; 6]) -> Result<Option<Manifest>, TryGetError> {
    let [
        mut place,
        mut retention,
        mut state,
        mark,
        mut pieces,
        mut left_out,
    ] = sections;
    let shard = place.try_get_u16_le()?;
    let (last, claim) = (take_id(&mut place)?, take_id(&mut place)?);
    let stamp = Stamp {
        wall_millis: place.try_get_u64_le()?,
        ticks_millis: place.try_get_u64_le()?,
    };
    let Ok(claimant) = String::from_utf8(place.to_vec()) else {
        return Ok(None);
    };
    let trimmed_below = retention.try_get_u64_le()?;
    let mut spared = Vec::new();
    for _ in 0..take_count(&mut retention, 8)? {
        spared.push(retention.try_get_u64_le()?);
    }
    let mut bodies = Vec::new();
    for _ in 0..take_count(&mut retention, 40)? {
        bodies.push((retention.try_get_u64_le()?, take_hash(&mut retention)?));
    }
    let seal = Seal {
        level: state.try_get_u32_le()?,
        digest: take_hash(&mut state)?,
    };
    let chunks = take_chunks(&mut pieces)?;
    let quarantined = take_quarantined(&mut left_out)?;
    let sensible = claim.index <= last.index
        && last.index < u64::MAX
        && trimmed_below <= last.index
        && claimant.len() <= NODE_NAME_BYTES_MAX
        && !retention.has_remaining()
        && !state.has_remaining()
        && spared.is_sorted_by(|a, b| a < b)
        && bodies.is_sorted_by(|a, b| a.0 < b.0)
        && quarantined.is_sorted_by(|a, b| a.slot < b.slot)
        && quarantined
            .iter()
            .all(|one| one.slot < one.by && one.by <= last.index);
    Ok(sensible.then_some(Manifest {
        cut: Cut {
            shard,
            last,
            claim,
            claimant,
            stamp,
            trimmed_below,
            spared,
            bodies,
            quarantined,
        },
        seal,
        mark,
        chunks,
    }))
}
