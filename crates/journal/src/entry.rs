//! One entry of the journal as bytes (docs/formats/journal.md): its writer, its predecessor, its
//! time, and the commands it carries. It must not know whether the entry counts; the chain decides
//! that.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use store::checksum::crc32c;

#[cfg(test)]
mod tests;

/// The first bytes of every entry.
const MAGIC: [u8; 4] = *b"SWJE";
/// The format that this code writes, and the highest that it reads; its claims state the latter.
pub const FORMAT: u8 = 1;
/// Bytes before the body.
const HEADER_BYTES: usize = 104;
/// Bytes of the checksum at the end of the head.
const CHECKSUM_BYTES: usize = 4;
/// Bytes of an item besides its command.
pub const ITEM_BYTES: usize = 12;
/// The longest name of a node, in bytes.
pub const NODE_NAME_BYTES_MAX: usize = 255;

const KIND_CLAIM: u8 = 1;
const KIND_COMMANDS: u8 = 2;
const KIND_COMMANDS_ELSEWHERE: u8 = 3;

/// Which cluster of the journal's tenants a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterNumber(pub u32);

/// A command of one cluster. The journal does not look inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub cluster: ClusterNumber,
    /// The command, as its state machine encodes it.
    pub command: Bytes,
}

/// The time an entry carries. Neither part decreases along the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp {
    /// Wall time of the leader, in milliseconds since 1970.
    pub wall_millis: u64,
    /// Milliseconds that leaders led, by boot clock.
    pub ticks_millis: u64,
}

impl Stamp {
    /// The later of both, part by part.
    pub fn max(self, other: Stamp) -> Stamp {
        Stamp {
            wall_millis: self.wall_millis.max(other.wall_millis),
            ticks_millis: self.ticks_millis.max(other.ticks_millis),
        }
    }
}

/// Identifies one entry: its slot and the nonce drawn for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// The slot, from 1.
    pub index: u64,
    /// 128 fresh random bits.
    pub nonce: u128,
}

impl EntryId {
    /// The predecessor of the first entry: none.
    pub const GENESIS: EntryId = EntryId { index: 0, nonce: 0 };
}

impl std::fmt::Debug for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{:032x}", self.index, self.nonce)
    }
}

/// How far a state has come: every entry up to this slot is applied, or is void. Answers carry it
/// from one node to another, so that a reader can ask for state at least as current.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

/// Everything of an entry but its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The journal's shard; 0 as long as a cluster is one state machine.
    pub shard: u16,
    pub id: EntryId,
    /// Commands: the claim they are written under. A claim: the last valid claim before it.
    pub claim: EntryId,
    /// The last valid entry before it.
    pub predecessor: EntryId,
    pub stamp: Stamp,
}

/// A body that lies in the bucket, because the engine's slots are too small for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// SHA-256 of the object, which is also its name.
    pub sha256: [u8; 32],
    /// Length of the object in bytes.
    pub length: u64,
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The node of this name takes the lead.
    Claim {
        /// The node's name, 1 to 255 bytes.
        node: String,
        /// The highest format of entries that the node reads.
        reads: u8,
    },
    /// Commands, in order; none in a heartbeat.
    Commands(Vec<Item>),
    /// Commands that lie in the bucket.
    Elsewhere(Reference),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub header: Header,
    pub body: Body,
}

/// Why bytes are no entry, or no body of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are cut off, altered, or something else.
    #[error("not a journal entry: {0}")]
    Corrupt(&'static str),
    /// The object is whole, but of a format that this program does not know.
    #[error("format {0} is newer than this program, which reads format {FORMAT}")]
    NewerFormat(u8),
    /// The entry is whole, but of a kind that this program does not know.
    #[error("kind {0} of entries is newer than this program")]
    NewerKind(u8),
    /// The entry is whole, but has a section that must be known and is not.
    #[error("section {0} is newer than this program, and it must be known")]
    NewerSection(u16),
}

impl Entry {
    /// The entry as a slot holds it.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES + self.body.len() + CHECKSUM_BYTES);
        out.put_slice(&MAGIC);
        out.put_u8(FORMAT);
        out.put_u8(self.body.kind());
        out.put_u16_le(self.header.shard);
        let head = HEADER_BYTES + self.body.len() + CHECKSUM_BYTES;
        out.put_u32_le(narrow(head));
        out.put_u32_le(0);
        for id in [self.header.id, self.header.claim, self.header.predecessor] {
            out.put_u64_le(id.index);
            out.put_u128_le(id.nonce);
        }
        out.put_u64_le(self.header.stamp.wall_millis);
        out.put_u64_le(self.header.stamp.ticks_millis);
        self.body.encode(&mut out);
        let checksum = crc32c(&out);
        out.put_u32_le(checksum);
        out.freeze()
    }

    /// The entry in `slot`. Strict: bytes that [`Entry::encode`] would not have written are an
    /// error. Commands are views into `slot`.
    pub fn decode(slot: &Bytes) -> Result<Entry, DecodeError> {
        let entry = Entry::decode_head(slot)?;
        // No item has a payload in this format, so nothing follows the head.
        let head = HEADER_BYTES + entry.body.len() + CHECKSUM_BYTES;
        if slot.len() != head {
            return Err(DecodeError::Corrupt("something follows its head"));
        }
        Ok(entry)
    }

    /// The entry whose head `slot` begins with; payloads may be missing.
    pub fn decode_head(slot: &Bytes) -> Result<Entry, DecodeError> {
        if slot.len() < HEADER_BYTES + CHECKSUM_BYTES {
            return Err(DecodeError::Corrupt("it is too short"));
        }
        if slot[..4] != MAGIC {
            return Err(DecodeError::Corrupt("it does not begin with SWJE"));
        }
        let head = (&slot[8..12]).get_u32_le() as usize;
        if head < HEADER_BYTES + CHECKSUM_BYTES || head > slot.len() {
            return Err(DecodeError::Corrupt("its head has a wrong length"));
        }
        let (covered, mut checksum) = slot[..head].split_at(head - CHECKSUM_BYTES);
        if crc32c(covered) != checksum.get_u32_le() {
            return Err(DecodeError::Corrupt("its checksum does not match"));
        }
        if covered[4] != FORMAT {
            return Err(DecodeError::NewerFormat(covered[4]));
        }
        let kind = covered[5];
        let mut rest = slot.slice(6..covered.len());
        let shard = rest.get_u16_le();
        rest.advance(4);
        if rest.get_u32_le() != 0 {
            return Err(DecodeError::Corrupt("reserved bytes are not zero"));
        }
        let mut next_id = || EntryId {
            index: rest.get_u64_le(),
            nonce: rest.get_u128_le(),
        };
        let (id, claim, predecessor) = (next_id(), next_id(), next_id());
        let stamp = Stamp {
            wall_millis: rest.get_u64_le(),
            ticks_millis: rest.get_u64_le(),
        };
        let header = Header {
            shard,
            id,
            claim,
            predecessor,
            stamp,
        };
        let body = Body::decode(kind, rest)?;
        Ok(Entry { header, body })
    }
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Body::Claim { .. } => KIND_CLAIM,
            Body::Commands(_) => KIND_COMMANDS,
            Body::Elsewhere(_) => KIND_COMMANDS_ELSEWHERE,
        }
    }

    fn len(&self) -> usize {
        match self {
            Body::Claim { node, .. } => 2 + node.len(),
            Body::Commands(items) => items_len(items),
            Body::Elsewhere(_) => 40,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Body::Claim { node, reads } => {
                assert!(
                    (1..=NODE_NAME_BYTES_MAX).contains(&node.len()),
                    "a node's name has 1 to 255 bytes"
                );
                out.put_u8(*reads);
                out.put_u8(node.len() as u8);
                out.put_slice(node.as_bytes());
            }
            Body::Commands(items) => encode_items(items, out),
            Body::Elsewhere(reference) => {
                out.put_slice(&reference.sha256);
                out.put_u64_le(reference.length);
            }
        }
    }

    fn decode(kind: u8, mut rest: Bytes) -> Result<Body, DecodeError> {
        match kind {
            KIND_CLAIM => {
                let reads = rest.try_get_u8().unwrap_or(0);
                let length = rest.try_get_u8().unwrap_or(0);
                if reads == 0 {
                    return Err(DecodeError::Corrupt("the claimant reads no format"));
                }
                if length == 0 || rest.len() != usize::from(length) {
                    return Err(DecodeError::Corrupt(
                        "the claimant's name has a wrong length",
                    ));
                }
                let node = std::str::from_utf8(&rest)
                    .map_err(|_| DecodeError::Corrupt("the claimant's name is not UTF-8"))?;
                Ok(Body::Claim {
                    node: node.to_owned(),
                    reads,
                })
            }
            KIND_COMMANDS => decode_items(rest).map(Body::Commands),
            KIND_COMMANDS_ELSEWHERE => {
                if rest.len() != 40 {
                    return Err(DecodeError::Corrupt("a reference has a wrong length"));
                }
                let mut sha256 = [0; 32];
                rest.copy_to_slice(&mut sha256);
                let length = rest.get_u64_le();
                Ok(Body::Elsewhere(Reference { sha256, length }))
            }
            kind => Err(DecodeError::NewerKind(kind)),
        }
    }
}

/// The bytes that `items` take in an entry.
pub fn items_len(items: &[Item]) -> usize {
    4 + items.iter().map(item_len).sum::<usize>()
}

/// The bytes that one item takes in an entry.
pub fn item_len(item: &Item) -> usize {
    ITEM_BYTES + item.command.len()
}

/// The bytes that an entry with these items takes in a slot.
pub fn slot_len(items: &[Item]) -> usize {
    HEADER_BYTES + items_len(items) + CHECKSUM_BYTES
}

/// The object that holds `items` for the entry `nonce`, and the reference to it. The nonce comes
/// first, so that no two entries ever share an object and one can be deleted with its entry.
pub fn put_elsewhere(nonce: u128, items: &[Item]) -> (Reference, Bytes) {
    let mut out = BytesMut::with_capacity(16 + items_len(items));
    out.put_u128_le(nonce);
    encode_items(items, &mut out);
    let object = out.freeze();
    let reference = Reference {
        sha256: Sha256::digest(&object).into(),
        length: object.len() as u64,
    };
    (reference, object)
}

/// The commands in the object that the entry `nonce` refers to.
pub fn take_from_elsewhere(
    nonce: u128,
    reference: &Reference,
    object: &Bytes,
) -> Result<Vec<Item>, DecodeError> {
    let sha256: [u8; 32] = Sha256::digest(object).into();
    if object.len() as u64 != reference.length || sha256 != reference.sha256 {
        return Err(DecodeError::Corrupt("the body is not the one referred to"));
    }
    let mut rest = object.clone();
    match rest.try_get_u128_le() {
        Ok(found) if found == nonce => decode_items(rest),
        _ => Err(DecodeError::Corrupt("the body belongs to another entry")),
    }
}

fn encode_items(items: &[Item], out: &mut BytesMut) {
    out.put_u32_le(narrow(items.len()));
    for item in items {
        out.put_u32_le(item.cluster.0);
        out.put_u32_le(narrow(item.command.len()));
        out.put_u32_le(0);
        out.put_slice(&item.command);
    }
}

fn decode_items(mut rest: Bytes) -> Result<Vec<Item>, DecodeError> {
    const SHORT: DecodeError = DecodeError::Corrupt("the list of commands is cut off");
    let count = rest.try_get_u32_le().map_err(|_| SHORT)? as usize;
    if count > rest.len() / ITEM_BYTES {
        return Err(SHORT);
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        let cluster = ClusterNumber(rest.try_get_u32_le().map_err(|_| SHORT)?);
        let length = rest.try_get_u32_le().map_err(|_| SHORT)? as usize;
        if rest.try_get_u32_le().map_err(|_| SHORT)? != 0 {
            return Err(DecodeError::Corrupt("an item has a payload"));
        }
        if length > rest.len() {
            return Err(SHORT);
        }
        let command = rest.split_to(length);
        items.push(Item { cluster, command });
    }
    if rest.has_remaining() {
        return Err(DecodeError::Corrupt("something follows the last command"));
    }
    Ok(items)
}

/// Entries are bounded far below 4 GiB before they are encoded, so the cast is exact.
fn narrow(length: usize) -> u32 {
    u32::try_from(length).expect("an entry is smaller than 4 GiB")
}
