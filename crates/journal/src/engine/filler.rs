//! What closes a slot for good (docs/formats/journal.md). It must not know which writer
//! closes slots, nor why.

use bytes::{BufMut, Bytes, BytesMut};
use store::checksum::crc32c;

const MAGIC: [u8; 4] = *b"SWJX";
const FORMAT: u8 = 1;
const BYTES: usize = 20;

/// The filler of one slot: the same bytes from every writer.
pub fn encode(shard: u16, index: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(BYTES);
    out.put_slice(&MAGIC);
    out.put_u8(FORMAT);
    out.put_u8(0);
    out.put_u16_le(shard);
    out.put_u64_le(index);
    let checksum = crc32c(&out);
    out.put_u32_le(checksum);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_bytes_are_the_filler_described() {
        let page = include_str!("../../../../docs/formats/journal.md");
        assert_eq!(encode(0, 9), crate::page::dump(page, "filler"));
    }
}
