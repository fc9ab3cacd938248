//! The format's promises: what was built reads back, and no other byte string does.

use super::*;
use crate::bucket::Payload;
use bytes::Bytes;

const ID: FileId = FileId {
    shard: 0,
    incarnation: 0x1122_3344_5566_7788,
    number: 5,
};

fn counts(batches: u32, records: u32, max_timestamp_ms: i64) -> Counts {
    Counts {
        batches,
        records,
        max_timestamp_ms,
    }
}

fn small() -> Built {
    let mut builder = FileBuilder::new(ID);
    let first = [Bytes::from_static(b"first "), Bytes::from_static(b"second")];
    builder
        .push(3, first, counts(2, 7, 1_700_000_000_000))
        .unwrap();
    builder
        .push(9, [Bytes::from_static(b"third")], counts(1, 1, -1))
        .unwrap();
    builder.finish().unwrap()
}

#[test]
fn what_was_built_reads_back() {
    let built = small();
    let bytes = built.payload.to_bytes();
    assert_eq!(bytes.len() as u64, built.length);
    assert_eq!(crc32c(&bytes), built.checksum);
    let summed_anew = Payload::new(built.payload.pieces().to_vec()).checksum();
    assert_eq!(built.payload.checksum(), summed_anew);
    assert_eq!(FileIndex::decode_whole(&bytes), Ok(built.index.clone()));
    let tail = &bytes[bytes.len() - (FOOTER_BYTES + 2 * ENTRY_BYTES) as usize..];
    assert_eq!(
        FileIndex::decode(tail, built.length),
        Ok(built.index.clone())
    );
    assert_eq!(built.index.find(9).map(|slice| slice.records), Some(1));
    assert_eq!(built.index.find(4), None);
}

/// The bytes of the hex dump that follows `fence` on a page of docs.
fn dumped(page: &str, fence: &str) -> Vec<u8> {
    let (_, dump) = page.split_once(fence).expect("the example");
    let (dump, _) = dump.split_once("```").expect("its end");
    let bytes = dump.lines().flat_map(|line| line[6..53].split_whitespace());
    bytes
        .map(|byte| u8::from_str_radix(byte, 16).expect("a hex byte"))
        .collect()
}

#[test]
fn a_tombstone_is_what_its_page_says_and_nothing_else_is_one() {
    let page = include_str!("../../../../docs/formats/file.md");
    let tombstone = Tombstone {
        id: ID,
        nonce: 0xdead_beef,
    };
    let bytes = tombstone.encode();
    assert_eq!(bytes.to_vec(), dumped(page, "```hex tombstone\n"));
    assert_eq!(Tombstone::decode(&bytes), Ok(tombstone));
    for at in 0..bytes.len() {
        let mut damaged = bytes;
        damaged[at] ^= 1;
        assert!(Tombstone::decode(&damaged).is_err(), "byte {at}");
        assert!(Tombstone::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
    assert!(FileIndex::decode_whole(&bytes).is_err(), "it is no file");
    assert!(small().length > TOMBSTONE_BYTES);
}

/// The example was put together by hand, with another CRC routine.
#[test]
fn the_worked_example_is_what_the_code_writes() {
    let page = include_str!("../../../../docs/formats/file.md");
    let bytes = dumped(page, "```hex\n");
    let built = small();
    assert_eq!(built.payload.to_bytes(), bytes);
    assert!(page.contains(&format!(
        "{} bytes, file checksum `{:08x}`",
        built.length, built.checksum
    )));
}

#[test]
fn every_single_byte_is_covered() {
    let bytes = small().payload.to_bytes().to_vec();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(FileIndex::decode_whole(&damaged).is_err(), "byte {at}");
        assert!(
            FileIndex::decode_whole(&bytes[..at]).is_err(),
            "cut at {at}"
        );
        assert!(FileIndex::decode_whole(&bytes[at + 1..]).is_err());
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(FileIndex::decode_whole(&longer).is_err());
}

#[test]
fn large_pieces_are_not_copied_and_known_checksums_are_used() {
    let large = Bytes::from(vec![7; 1 << 20]);
    let piece = Piece {
        bytes: large.clone(),
        checksum: Some(crc32c(&large)),
    };
    let little: Vec<Piece> = (0..100_u8)
        .map(|byte| Piece::from(Bytes::from(vec![byte; 10_000])))
        .collect();
    let mut builder = FileBuilder::new(ID);
    builder
        .push(1, little.clone(), counts(100, 100, 0))
        .unwrap();
    builder.push(2, [piece], counts(1, 1, 0)).unwrap();
    builder.push(3, little, counts(100, 100, 0)).unwrap();
    let expected = builder.length();
    let built = builder.finish().unwrap();
    assert_eq!(built.length, expected);
    let pieces = built.payload.pieces();
    assert!(pieces.iter().any(|p| p.as_ptr() == large.as_ptr()));
    assert!(pieces.len() < 20, "small pieces are gathered");
    let bytes = built.payload.to_bytes();
    assert_eq!(crc32c(&bytes), built.checksum);
    assert_eq!(FileIndex::decode_whole(&bytes), Ok(built.index));
}

#[test]
fn what_cannot_be_read_back_is_not_written() {
    let mut builder = FileBuilder::new(ID);
    let one = || [Bytes::from_static(b"x")];
    assert!(builder.push(5, one(), counts(0, 0, 0)).is_err());
    assert!(builder.push(5, one(), counts(2, 0, 0)).is_err());
    assert!(
        builder
            .push(5, Vec::<Bytes>::new(), counts(1, 0, 0))
            .is_err()
    );
    assert!(builder.push(5, one(), counts(1, 0, 0)).is_ok());
    assert!(
        builder.push(5, one(), counts(1, 0, 0)).is_err(),
        "same partition"
    );
    assert!(
        builder.push(4, one(), counts(1, 0, 0)).is_err(),
        "lower partition"
    );
    assert!(FileBuilder::new(ID).finish().is_err(), "no slice");
}

/// An end of file with any entries and right checksums, as an attacker or a bug could make it.
fn forged(entries: &[Slice], index_position: u64) -> Result<FileIndex, Error> {
    let mut tail = Vec::new();
    entries
        .iter()
        .for_each(|slice| encode_entry(slice, &mut tail));
    let footer = Footer {
        id: ID,
        index_position,
        slices: entries.len() as u32,
        index_checksum: crc32c(&tail),
        content_checksum: 0,
    };
    tail.extend_from_slice(&footer.encode());
    FileIndex::decode(&tail, footer.file_length().unwrap_or(0))
}

#[test]
fn an_index_with_right_checksums_and_wrong_bounds_is_refused() {
    let slice = Slice {
        partition: 1,
        position: HEADER_BYTES,
        length: 10,
        checksum: 0,
        batches: 1,
        records: 1,
        max_timestamp_ms: 0,
    };
    assert!(forged(&[slice], 26).is_ok());
    assert!(forged(&[], 16).is_err(), "no slices");
    assert!(forged(&[slice], 27).is_err(), "gap before the index");
    assert!(forged(&[slice], u64::MAX - 10).is_err(), "overflow");
    let behind = Slice {
        partition: 2,
        position: 26,
        ..slice
    };
    assert!(forged(&[slice, behind], 36).is_ok());
    assert!(forged(&[behind, slice], 36).is_err(), "order");
    let same = Slice {
        partition: 1,
        ..behind
    };
    assert!(forged(&[slice, same], 36).is_err(), "partition twice");
    let overlapping = Slice {
        position: 20,
        ..behind
    };
    assert!(forged(&[slice, overlapping], 30).is_err(), "overlap");
    let empty = Slice { length: 0, ..slice };
    assert!(forged(&[empty], 16).is_err(), "empty slice");
}
