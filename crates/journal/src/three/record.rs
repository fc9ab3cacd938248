//! The records of which a slot's chain in a bucket consists, as values and as bytes (docs/formats/journal-three.md). It
//! must not know what follows from them.

use bytes::{BufMut, Bytes, BytesMut};
use store::checksum::crc32c;

use super::BUCKETS;
use super::ballot::Ballot;
use crate::engine::Content;

const MAGIC: [u8; 4] = *b"SWJ3";
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;
const BALLOT_BYTES: usize = 24;
/// What an accept or a learned record says of its value.
const CONTENT_BYTES: usize = 4;
/// What an accept says beyond that: `known` and `held`.
const COUNT_BYTES: usize = 8 + 8 * BUCKETS;

/// The slot that a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) shard: u16,
    pub(crate) configuration: u32,
    pub(crate) slot: u64,
}

/// One record of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) ballot: Ballot,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The bucket takes no accept of a lower ballot in this slot from here on.
    Promise,
    /// The bucket accepts the value under the ballot.
    Accept {
        content: Content,
        /// The first slot that the ballot's leader had not seen chosen under this ballot.
        known: u64,
        /// For each bucket, the slot through which this leader has seen all its records acknowledged there; 0 for none.
        held: [u64; BUCKETS],
    },
    /// The value is chosen, under the ballot: a copy for a bucket that missed it.
    Learned { content: Content },
}

/// Why an object is no record that this build can use. It may be a higher promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Unreadable {
    /// Of a later format or kind: a newer build wrote it.
    Newer,
    Damaged(&'static str),
}

impl Record {
    pub(crate) fn promise(ballot: Ballot) -> Self {
        let kind = Kind::Promise;
        Record { ballot, kind }
    }

    /// The value that the record holds.
    pub(crate) fn content(&self) -> Option<&Content> {
        match &self.kind {
            Kind::Promise => None,
            Kind::Accept { content, .. } | Kind::Learned { content } => Some(content),
        }
    }

    pub(crate) fn is_promise(&self) -> bool {
        self.kind == Kind::Promise
    }

    pub(crate) fn is_accept(&self) -> bool {
        matches!(self.kind, Kind::Accept { .. })
    }

    pub(crate) fn is_learned(&self) -> bool {
        matches!(self.kind, Kind::Learned { .. })
    }

    /// Bytes of the entry that the record holds.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self.content() {
            Some(Content::Entry(bytes)) => bytes.len(),
            _ => 0,
        }
    }

    /// The record's bytes in two pieces: all that is not the entry, and the entry with its checksum, uncopied.
    pub(crate) fn encode(&self, place: Place) -> Vec<Bytes> {
        let payload = match self.content() {
            Some(Content::Entry(bytes)) => Some(bytes),
            _ => None,
        };
        let mut out = BytesMut::with_capacity(HEADER_BYTES + self.head_bytes());
        out.put_slice(&MAGIC);
        out.put_u8(FORMAT);
        out.put_u8(self.kind_number());
        out.put_u16_le(place.shard);
        out.put_u32_le(place.configuration);
        out.put_u32_le(self.head_bytes() as u32);
        out.put_u64_le(place.slot);
        out.put_u32_le(payload.map_or(0, Bytes::len) as u32);
        let checksum = crc32c(&out);
        out.put_u32_le(checksum);
        out.put_u64_le(self.ballot.number);
        out.put_u128_le(self.ballot.nonce);
        if let Some(content) = self.content() {
            out.put_u8(content_number(content));
            out.put_bytes(0, CONTENT_BYTES - 1);
        }
        if let Kind::Accept { known, held, .. } = &self.kind {
            out.put_u64_le(*known);
            held.iter().for_each(|held| out.put_u64_le(*held));
        }
        let checksum = crc32c(&out);
        out.put_u32_le(checksum);
        let mut pieces = vec![out.freeze()];
        if let Some(payload) = payload {
            pieces.push(payload.clone());
            let checksum = crc32c(payload).to_le_bytes();
            pieces.push(Bytes::copy_from_slice(&checksum));
        }
        pieces
    }

    fn kind_number(&self) -> u8 {
        match self.kind {
            Kind::Promise => 1,
            Kind::Accept { .. } => 2,
            Kind::Learned { .. } => 3,
        }
    }

    fn head_bytes(&self) -> usize {
        let beyond = match self.kind {
            Kind::Promise => 0,
            Kind::Accept { .. } => CONTENT_BYTES + COUNT_BYTES,
            Kind::Learned { .. } => CONTENT_BYTES,
        };
        BALLOT_BYTES + beyond + CHECKSUM_BYTES
    }

    /// Reads what [`Record::encode`] writes for this place, and nothing else.
    pub(crate) fn decode(place: Place, bytes: &Bytes) -> Result<Record, Unreadable> {
        let damaged = Unreadable::Damaged;
        let header = bytes
            .get(..HEADER_BYTES)
            .ok_or(damaged("it is too short"))?;
        if header[..4] != MAGIC {
            return Err(damaged("it does not begin as a record does"));
        }
        if header[4] > FORMAT {
            return Err(Unreadable::Newer);
        }
        let mut fields = Fields(header);
        fields.skip(5);
        let kind_number = fields.u8();
        let (shard, configuration) = (fields.u16(), fields.u32());
        let (head_bytes, slot) = (fields.u32() as usize, fields.u64());
        let payload_bytes = fields.u32() as usize;
        if fields.u32() != crc32c(&header[..HEADER_BYTES - CHECKSUM_BYTES]) {
            return Err(damaged("the checksum of its header does not match"));
        }
        if !(1..=3).contains(&kind_number) {
            return Err(Unreadable::Newer);
        }
        let found = Place {
            shard,
            configuration,
            slot,
        };
        if header[4] != FORMAT || found != place {
            return Err(damaged("it belongs to another slot"));
        }
        let end = HEADER_BYTES + head_bytes;
        let head = bytes.get(HEADER_BYTES..end);
        let head = head.ok_or(damaged("its head is too short"))?;
        let entry = entry(bytes, end, payload_bytes)?;
        let record = read_head(kind_number, head, entry).ok_or(damaged("its head is none"))?;
        let is_canonical = record.encode(place)[0] == bytes[..end];
        is_canonical
            .then_some(record)
            .ok_or(damaged("the checksum of its head does not match"))
    }
}

/// The entry behind the head, `None` if there is none.
fn entry(object: &Bytes, at: usize, length: usize) -> Result<Option<Bytes>, Unreadable> {
    if object.len() == at && length == 0 {
        return Ok(None);
    }
    let end = at + length;
    if object.len() != end + CHECKSUM_BYTES {
        return Err(Unreadable::Damaged("its length is wrong"));
    }
    let payload = object.slice(at..end);
    match Fields(&object[end..]).u32() == crc32c(&payload) {
        true => Ok(Some(payload)),
        false => Err(Unreadable::Damaged(
            "the checksum of its entry does not match",
        )),
    }
}

fn read_head(kind_number: u8, head: &[u8], entry: Option<Bytes>) -> Option<Record> {
    let expected = match kind_number {
        1 => BALLOT_BYTES,
        2 => BALLOT_BYTES + CONTENT_BYTES + COUNT_BYTES,
        _ => BALLOT_BYTES + CONTENT_BYTES,
    };
    if head.len() != expected + CHECKSUM_BYTES {
        return None;
    }
    let mut fields = Fields(head);
    let number = fields.u64();
    let nonce = u128::from(fields.u64()) | u128::from(fields.u64()) << 64;
    let ballot = Ballot { number, nonce };
    if kind_number == 1 {
        return entry.is_none().then(|| Record::promise(ballot));
    }
    let content = match (fields.u8(), entry) {
        (1, Some(bytes)) => Content::Entry(bytes),
        (2, None) => Content::Filler,
        _ => return None,
    };
    fields.skip(CONTENT_BYTES - 1);
    let kind = match kind_number {
        2 => Kind::Accept {
            content,
            known: fields.u64(),
            held: std::array::from_fn(|_| fields.u64()),
        },
        _ => Kind::Learned { content },
    };
    Some(Record { ballot, kind })
}

fn content_number(content: &Content) -> u8 {
    match content {
        Content::Entry(_) => 1,
        Content::Filler => 2,
    }
}

/// Little-endian numbers from the front of a slice that is known to be long enough.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[..N]);
        self.0 = &self.0[N..];
        bytes
    }

    fn skip(&mut self, bytes: usize) {
        self.0 = &self.0[bytes..];
    }

    fn u8(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/formats/journal-three.md");

    const PLACE: Place = Place {
        shard: 0,
        configuration: 1,
        slot: 9,
    };

    fn ballot() -> Ballot {
        Ballot {
            number: 7,
            nonce: 0xb2,
        }
    }

    fn records() -> [(&'static str, Record); 3] {
        let ballot = ballot();
        let accept = Kind::Accept {
            content: Content::Entry(Bytes::from_static(b"entry")),
            known: 8,
            held: [7, 7, 3],
        };
        let learned = Kind::Learned {
            content: Content::Filler,
        };
        [
            ("promise", Record::promise(ballot)),
            (
                "accept",
                Record {
                    ballot,
                    kind: accept,
                },
            ),
            (
                "learned",
                Record {
                    ballot,
                    kind: learned,
                },
            ),
        ]
    }

    #[test]
    fn the_documented_bytes_are_the_records_described() {
        for (name, record) in records() {
            let bytes = Bytes::from(record.encode(PLACE).concat());
            assert_eq!(bytes, crate::page::dump(PAGE, name), "{name}");
            assert_eq!(Record::decode(PLACE, &bytes), Ok(record), "{name}");
        }
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        for (name, record) in records() {
            let bytes = record.encode(PLACE).concat();
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                let read = Record::decode(PLACE, &changed.into());
                assert!(read.is_err(), "{name}, byte {at}");
                let cut = Bytes::copy_from_slice(&bytes[..at]);
                assert!(Record::decode(PLACE, &cut).is_err(), "{name}, cut at {at}");
            }
        }
    }

    #[test]
    fn a_record_of_another_slot_or_of_a_newer_build_is_not_used() {
        let (_, record) = &records()[1];
        let bytes = Bytes::from(record.encode(PLACE).concat());
        let elsewhere = Place { slot: 10, ..PLACE };
        assert!(matches!(
            Record::decode(elsewhere, &bytes),
            Err(Unreadable::Damaged(_))
        ));
        let mut newer = bytes.to_vec();
        newer[4] += 1;
        let read = Record::decode(PLACE, &newer.into());
        assert_eq!(read, Err(Unreadable::Newer));
    }
}
