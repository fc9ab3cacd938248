//! Manifests as bytes: what comes back, what is refused, and the worked example of the docs.

use super::*;

const PAGE: &str = include_str!("../../../../../docs/formats/journal-snapshot.md");

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
            quarantined: vec![Quarantined {
                slot: 9,
                sha256: [9; 32],
                by: 12,
            }],
        },
        seal: Seal {
            level: 1,
            digest: [0xd1; 32],
        },
        mark: Bytes::new(),
        chunks: vec![
            Stored {
                nonce: 0xaa,
                chunk: Chunk::of(b"state"),
            },
            Stored {
                nonce: 0xbb,
                chunk: Chunk::of(b""),
            },
        ],
    }
}

#[test]
fn the_documented_bytes_are_the_manifest_described() {
    let bytes = crate::page::dump(PAGE, "hex");
    let dump = example().encode();
    let hex: Vec<String> = dump.chunks(16).map(|c| format!("{c:02x?}")).collect();
    assert_eq!(dump, bytes, "the page should say {hex:#?}");
    assert_eq!(Manifest::decode(&bytes), Ok(example()));
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

/// Other bytes with a checksum that holds.
fn altered(alter: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut object = example().encode().to_vec();
    object.truncate(object.len() - 4);
    alter(&mut object);
    let checksum = crc32c(&object);
    object.extend(checksum.to_le_bytes());
    object.into()
}

#[test]
fn a_newer_format_is_named() {
    let object = altered(|object| object[4] = 2);
    let error = Manifest::decode(&object).expect_err("format 2");
    assert_eq!(error, DecodeError::NewerFormat(2));
}

#[test]
fn a_section_that_is_not_known_is_passed_over_unless_it_is_needed() {
    let add = |flags: u8| altered(|object| object.extend([9, 0, flags, 0, 2, 0, 0, 0, 0xaa, 0xbb]));
    assert_eq!(Manifest::decode(&add(0)), Ok(example()));
    let error = Manifest::decode(&add(1)).expect_err("a section that is needed");
    assert_eq!(error, DecodeError::NewerSection(9));
}

#[test]
fn a_hostile_count_reserves_nothing() {
    // The count of spared slots, after two headers of sections, the cut, and one number.
    let at = 8 + 8 + (2 + 48 + 16 + 2) + 8 + 8;
    let object = altered(|object| object[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes()));
    assert!(Manifest::decode(&object).is_err());
}
