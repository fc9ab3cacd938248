//! The floor of a journal in a bucket: a chain of objects numbered from 1, each created if absent
//! and never deleted, with ever higher floors, the last of which is in force. So reading it rests
//! on no listing. It must not know of slots.

use bytes::{BufMut, Bytes, BytesMut};
use store::bucket::{Bucket, Key, Payload, Put};
use store::checksum::crc32c;
use store::layout::JOURNAL;

use super::{key, unavailable};
use crate::engine::Error;

const MAGIC: [u8; 4] = *b"SWJF";
const FORMAT: u8 = 1;
const LINK_BYTES: usize = 20;
/// Other nodes may add links at the same time; more than a few in a row is a fault of ours.
const ATTEMPTS: u32 = 16;

/// One link of the chain; the default one stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) floor: u64,
}

/// What the names of the links begin with on one bucket.
pub(super) fn prefix(shard: u16) -> String {
    format!("{JOURNAL}{shard:04x}-floor/")
}

fn link_key(prefix: &str, number: u64) -> Key {
    key(format!("{prefix}{number:020}"))
}

fn encode(floor: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(LINK_BYTES);
    out.put_slice(&MAGIC);
    out.put_u8(FORMAT);
    out.put_bytes(0, 3);
    out.put_u64_le(floor);
    let checksum = crc32c(&out);
    out.put_u32_le(checksum);
    out.freeze()
}

fn decode(object: &Bytes) -> Option<u64> {
    let bytes = object.get(8..16)?.try_into().ok()?;
    let floor = u64::from_le_bytes(bytes);
    // Only the canonical spelling is a link.
    (encode(floor) == *object).then_some(floor)
}

async fn read(bucket: &dyn Bucket, prefix: &str, number: u64) -> Result<Option<Link>, Error> {
    let key = link_key(prefix, number);
    let Some(object) = bucket.get(&key).await.map_err(unavailable)? else {
        return Ok(None);
    };
    match decode(&object) {
        Some(floor) => Ok(Some(Link { number, floor })),
        None => Err(Error::Corrupt(format!(
            "{key} is damaged. Restore that object from a copy of the bucket and start again"
        ))),
    }
}

/// The last link; `known` is one of the chain.
pub(crate) async fn last(bucket: &dyn Bucket, prefix: &str, known: Link) -> Result<Link, Error> {
    // Links have no gaps, so if one exists, all before it do: the search goes in growing steps,
    // then in shrinking ones. If nothing was added it is a single read.
    let mut last = known;
    let mut step = 1;
    while let Some(link) = read(bucket, prefix, last.number + step).await? {
        last = link;
        step *= 2;
    }
    while step > 1 {
        step /= 2;
        if let Some(link) = read(bucket, prefix, last.number + step).await? {
            last = link;
        }
    }
    Ok(last)
}

/// Raises the floor to `floor` at least.
pub(crate) async fn raise(
    bucket: &dyn Bucket,
    prefix: &str,
    known: Link,
    floor: u64,
) -> Result<Link, Error> {
    let mut current = known;
    for _ in 0..ATTEMPTS {
        current = last(bucket, prefix, current).await?;
        if current.floor >= floor {
            return Ok(current);
        }
        if create(bucket, prefix, current.number + 1, floor).await? {
            let number = current.number + 1;
            return Ok(Link { number, floor });
        }
        // The link may be ours or another's: the next look at the chain tells.
    }
    Err(Error::Unavailable("the floor keeps moving".to_owned()))
}

/// Creates a link; false if it may be there already.
pub(crate) async fn create(
    bucket: &dyn Bucket,
    prefix: &str,
    number: u64,
    floor: u64,
) -> Result<bool, Error> {
    let object = Payload::from(encode(floor));
    let put = bucket.put_new(&link_key(prefix, number), object).await;
    Ok(put.map_err(unavailable)? == Put::Created)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/formats/journal.md");

    #[test]
    fn the_documented_bytes_are_the_floor_described() {
        let bytes = crate::page::dump(PAGE, "floor");
        assert_eq!(encode(4_097), bytes);
        assert_eq!(decode(&bytes), Some(4_097));
        assert!(PAGE.contains(&format!("`{}`", link_key(&prefix(0), 1))));
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let object = encode(4_097);
        for at in 0..object.len() {
            let mut changed = object.to_vec();
            changed[at] ^= 1;
            assert_eq!(decode(&changed.into()), None, "byte {at}");
            assert_eq!(decode(&object.slice(..at)), None, "cut at {at}");
        }
    }
}
