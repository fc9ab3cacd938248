//! A tombstone: an object in the place of a file, which says that the file is not in this bucket
//! and never will be. It must not know who decides that.

use super::{Error, FORMAT_VERSION, array_at, check_version, u16_at, u32_at, u64_at};
use crate::checksum::crc32c;
use crate::layout::FileId;

/// Bytes of a tombstone; every file is longer.
pub const TOMBSTONE_BYTES: u64 = 64;

const MAGIC: [u8; 8] = *b"SEAWAYTB";

/// Says that no file has this name in this bucket, and none ever will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    pub id: FileId,
    /// The random part of the key.
    pub nonce: u32,
}

impl Tombstone {
    pub fn encode(&self) -> [u8; TOMBSTONE_BYTES as usize] {
        let mut bytes = [0; TOMBSTONE_BYTES as usize];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
        bytes[10..12].copy_from_slice(&self.id.shard.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.nonce.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.id.incarnation.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.id.number.to_be_bytes());
        let checksum = crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Reads a tombstone; only what [`Tombstone::encode`] writes is one.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() as u64 != TOMBSTONE_BYTES || array_at(bytes, 0) != MAGIC {
            return Err(Error::Corrupt("it is neither a file nor a tombstone"));
        }
        if crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(Error::Corrupt("the tombstone's checksum does not match"));
        }
        check_version(u16_at(bytes, 8))?;
        if bytes[32..60] != [0; 28] {
            return Err(Error::Corrupt(
                "the tombstone's reserved bytes are not zero",
            ));
        }
        Ok(Tombstone {
            id: FileId {
                shard: u16_at(bytes, 10),
                incarnation: u64_at(bytes, 16),
                number: u64_at(bytes, 24),
            },
            nonce: u32_at(bytes, 12),
        })
    }
}
