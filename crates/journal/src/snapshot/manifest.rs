//! A snapshot's manifest as bytes (docs/formats/journal-snapshot.md). It must not know where
//! manifests and chunks lie.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use store::checksum::crc32c;

use super::Cut;
use crate::entry::{DecodeError, EntryId, NODE_NAME_BYTES_MAX, Stamp};

const MAGIC: [u8; 4] = *b"SWJS";
/// The format that this code writes, and the only one that it reads.
const FORMAT: u8 = 1;

/// A piece of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// Its length in bytes.
    pub length: u64,
}

/// What a snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Where it was cut.
    pub cut: Cut,
    /// Its pieces, in order.
    pub chunks: Vec<Chunk>,
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
    /// SHA-256 over the hashes and lengths of all chunks: equal digests mean equal contents.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for chunk in &self.chunks {
            hasher.update(chunk.sha256);
            hasher.update(chunk.length.to_le_bytes());
        }
        hasher.finalize().into()
    }

    /// The manifest as an object.
    pub fn encode(&self) -> Bytes {
        let cut = &self.cut;
        let mut out = BytesMut::new();
        out.put_slice(&MAGIC);
        out.put_u8(FORMAT);
        out.put_u8(0);
        out.put_u16_le(cut.shard);
        for id in [cut.last, cut.claim] {
            out.put_u64_le(id.index);
            out.put_u128_le(id.nonce);
        }
        out.put_u64_le(cut.stamp.wall_millis);
        out.put_u64_le(cut.stamp.ticks_millis);
        out.put_u64_le(cut.trimmed_below);
        assert!(
            cut.claimant.len() <= NODE_NAME_BYTES_MAX,
            "a node's name is short"
        );
        out.put_u8(cut.claimant.len() as u8);
        out.put_slice(cut.claimant.as_bytes());
        put_count(&mut out, cut.spared.len());
        for index in &cut.spared {
            out.put_u64_le(*index);
        }
        put_count(&mut out, cut.bodies.len());
        for (index, sha256) in &cut.bodies {
            out.put_u64_le(*index);
            out.put_slice(sha256);
        }
        out.put_slice(&self.digest());
        put_count(&mut out, self.chunks.len());
        for chunk in &self.chunks {
            out.put_slice(&chunk.sha256);
            out.put_u64_le(chunk.length);
        }
        let checksum = crc32c(&out);
        out.put_u32_le(checksum);
        out.freeze()
    }

    /// The manifest in `object`. Strict: whatever [`Manifest::encode`] would not have written is
    /// an error.
    pub fn decode(object: &Bytes) -> Result<Manifest, DecodeError> {
        if object.len() < 12 || object[..4] != MAGIC {
            return Err(DecodeError::Corrupt("it does not begin with SWJS"));
        }
        let (covered, mut checksum) = object.split_at(object.len() - 4);
        if crc32c(covered) != checksum.get_u32_le() {
            return Err(DecodeError::Corrupt("its checksum does not match"));
        }
        if covered[4] != FORMAT {
            return Err(DecodeError::NewerFormat(covered[4]));
        }
        let mut rest = object.slice(6..covered.len());
        let manifest = read(&mut rest, covered[5])
            .map_err(|_| DecodeError::Corrupt("it is cut off"))?
            .ok_or(DecodeError::Corrupt("its fields contradict each other"))?;
        // One spelling only: this also refuses what follows the last chunk and a wrong digest.
        if manifest.encode() != *object {
            return Err(DecodeError::Corrupt("it would be written in another way"));
        }
        Ok(manifest)
    }
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32_le(u32::try_from(count).expect("a manifest has fewer than 2^32 parts"));
}

/// A count of parts of `size` bytes each, which must all be there.
fn take_count(rest: &mut Bytes, size: usize) -> Result<usize, bytes::TryGetError> {
    let count = rest.try_get_u32_le()? as usize;
    if count > rest.len() / size {
        return Err(bytes::TryGetError {
            requested: count.saturating_mul(size),
            available: rest.len(),
        });
    }
    Ok(count)
}

fn take_hash(rest: &mut Bytes) -> Result<[u8; 32], bytes::TryGetError> {
    let mut hash = [0; 32];
    rest.try_copy_to_slice(&mut hash)?;
    Ok(hash)
}

fn take_id(rest: &mut Bytes) -> Result<EntryId, bytes::TryGetError> {
    Ok(EntryId {
        index: rest.try_get_u64_le()?,
        nonce: rest.try_get_u128_le()?,
    })
}

/// `None`: whole, but it makes no sense.
fn read(rest: &mut Bytes, reserved: u8) -> Result<Option<Manifest>, bytes::TryGetError> {
    let shard = rest.try_get_u16_le()?;
    let (last, claim) = (take_id(rest)?, take_id(rest)?);
    let stamp = Stamp {
        wall_millis: rest.try_get_u64_le()?,
        ticks_millis: rest.try_get_u64_le()?,
    };
    let trimmed_below = rest.try_get_u64_le()?;
    let mut name = vec![0; usize::from(rest.try_get_u8()?)];
    rest.try_copy_to_slice(&mut name)?;
    let mut spared = Vec::new();
    for _ in 0..take_count(rest, 8)? {
        spared.push(rest.try_get_u64_le()?);
    }
    let mut bodies = Vec::new();
    for _ in 0..take_count(rest, 40)? {
        bodies.push((rest.try_get_u64_le()?, take_hash(rest)?));
    }
    let _digest = take_hash(rest)?;
    let mut chunks = Vec::new();
    for _ in 0..take_count(rest, 40)? {
        chunks.push(Chunk {
            sha256: take_hash(rest)?,
            length: rest.try_get_u64_le()?,
        });
    }
    let Ok(claimant) = String::from_utf8(name) else {
        return Ok(None);
    };
    let sensible = reserved == 0
        && claim.index <= last.index
        && last.index < u64::MAX
        && trimmed_below <= last.index
        && spared.is_sorted_by(|a, b| a < b)
        && bodies.is_sorted_by(|a, b| a.0 < b.0);
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
        },
        chunks,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/formats/journal-snapshot.md");

    /// The manifest that docs/formats/journal-snapshot.md spells out.
    fn example() -> Manifest {
        let id = |index, nonce| EntryId { index, nonce };
        Manifest {
            cut: Cut {
                shard: 0,
                last: id(4_097, 0x22),
                claim: id(3, 0x11),
                claimant: "c1".to_owned(),
                stamp: Stamp {
                    wall_millis: 1_764_000_000_000,
                    ticks_millis: 9_000,
                },
                trimmed_below: 1,
                spared: vec![1, 3],
                bodies: vec![(7, [7; 32])],
            },
            chunks: vec![Chunk::of(b"state"), Chunk::of(b"")],
        }
    }

    #[test]
    fn the_documented_bytes_are_the_manifest_described() {
        let bytes = crate::page::dump(PAGE, "hex");
        assert_eq!(example().encode(), bytes);
        assert_eq!(Manifest::decode(&bytes), Ok(example()));
    }

    #[test]
    fn a_manifest_comes_back_whole() {
        let object = example().encode();
        assert_eq!(Manifest::decode(&object), Ok(example()));
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let object = example().encode();
        for at in 0..object.len() {
            let mut changed = object.to_vec();
            changed[at] ^= 1;
            assert!(Manifest::decode(&changed.into()).is_err(), "byte {at}");
            assert!(
                Manifest::decode(&object.slice(..at)).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut object = example().encode().to_vec();
        object[4] = 2;
        let covered = object.len() - 4;
        let checksum = crc32c(&object[..covered]);
        object[covered..].copy_from_slice(&checksum.to_le_bytes());
        let error = Manifest::decode(&object.into()).expect_err("format 2");
        assert_eq!(error, DecodeError::NewerFormat(2));
    }

    #[test]
    fn a_hostile_count_reserves_nothing() {
        let mut object = example().encode().to_vec();
        // The count of spared slots, after header, ids, stamp, floor and name.
        let at = 8 + 48 + 16 + 8 + 3;
        object[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let covered = object.len() - 4;
        let checksum = crc32c(&object[..covered]);
        object[covered..].copy_from_slice(&checksum.to_le_bytes());
        assert!(Manifest::decode(&object.into()).is_err());
    }
}
