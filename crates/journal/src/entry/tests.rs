//! Entries as bytes: round trips, refusals, and the worked example of the docs.

use bytes::Bytes;
use host::rng::Rng;
use store::checksum::crc32c;

use super::*;
use crate::page;

const PAGE: &str = include_str!("../../../../docs/formats/journal.md");

fn id(index: u64, nonce: u128) -> EntryId {
    EntryId { index, nonce }
}

fn command(cluster: u32, text: &'static str) -> Item {
    Item {
        cluster: ClusterNumber(cluster),
        command: Bytes::from_static(text.as_bytes()),
    }
}

/// The entry that docs/formats/journal.md spells out.
fn documented() -> Entry {
    Entry {
        header: Header {
            shard: 0,
            id: id(2, 0xb2),
            claim: id(1, 0xa1),
            predecessor: id(1, 0xa1),
            stamp: Stamp {
                wall_millis: 1_764_000_000_000,
                ticks_millis: 1_500,
            },
        },
        body: Body::Commands(vec![command(1, "put"), command(1, "")]),
    }
}

fn examples() -> Vec<Entry> {
    let claim = Body::Claim {
        node: "c1".to_owned(),
        reads: FORMAT,
    };
    let (reference, _) = put_elsewhere(0xb2, &[command(1, "large")]);
    [
        claim,
        Body::Commands(Vec::new()),
        documented().body,
        Body::Elsewhere(reference),
    ]
    .into_iter()
    .map(|body| Entry {
        header: documented().header,
        body,
    })
    .collect()
}

#[test]
fn the_documented_bytes_are_the_entry_described() {
    let bytes = page::dump(PAGE, "hex");
    let dump = documented().encode();
    let hex: Vec<String> = dump.chunks(16).map(|c| format!("{c:02x?}")).collect();
    assert_eq!(dump, bytes, "the page should say {hex:#?}");
    assert_eq!(Entry::decode(&bytes), Ok(documented()));
}

#[test]
fn every_kind_comes_back() {
    for entry in examples() {
        assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
    }
}

#[test]
fn any_changed_or_missing_byte_is_noticed() {
    for entry in examples() {
        let bytes = entry.encode();
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 0x10;
            assert!(
                Entry::decode(&changed.into()).is_err(),
                "byte {at} of {entry:?}"
            );
            assert!(Entry::decode(&bytes.slice(..at)).is_err(), "cut at {at}");
        }
    }
}

/// The bytes with a right checksum, so that the rest of the decoder is reached.
fn summed(mut bytes: Vec<u8>) -> Bytes {
    bytes.truncate(bytes.len().saturating_sub(4));
    let head = bytes.len() as u32 + 4;
    bytes[8..12].copy_from_slice(&head.to_le_bytes());
    let checksum = crc32c(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes.into()
}

#[test]
fn a_head_is_read_without_what_follows_it() {
    for entry in examples() {
        let mut bytes = entry.encode().to_vec();
        bytes.extend(b"the parts of a payload");
        let bytes = Bytes::from(bytes);
        assert_eq!(Entry::decode_head(&bytes), Ok(entry));
        assert!(Entry::decode(&bytes).is_err());
    }
}

#[test]
fn what_is_newer_is_told_from_damage() {
    for (at, value, error) in [
        (4, 2, DecodeError::NewerFormat(2)),
        (5, 4, DecodeError::NewerKind(4)),
    ] {
        let mut bytes = documented().encode().to_vec();
        bytes[at] = value;
        assert_eq!(Entry::decode(&summed(bytes)), Err(error));
    }
}

#[test]
fn what_would_not_be_written_is_refused() {
    for (at, value) in [
        (12, 1),
        (104, 3),
        (104, 1),
        (107, 0xff),
        (112, 0xff),
        (116, 1),
    ] {
        let mut bytes = documented().encode().to_vec();
        bytes[at] = value;
        let error = Entry::decode(&summed(bytes)).expect_err("an invalid field");
        assert!(matches!(error, DecodeError::Corrupt(_)), "{at}={value}");
    }
    let mut longer = documented().encode().to_vec();
    longer.push(0);
    assert!(Entry::decode(&summed(longer)).is_err());
}

#[test]
fn a_body_elsewhere_belongs_to_one_entry() {
    let items = vec![command(1, "one"), command(2, "two")];
    let (reference, object) = put_elsewhere(7, &items);
    assert_eq!(
        take_from_elsewhere(7, &reference, &object),
        Ok(items.clone())
    );
    assert!(take_from_elsewhere(8, &reference, &object).is_err());
    assert!(take_from_elsewhere(7, &reference, &object.slice(1..)).is_err());
    let (other, _) = put_elsewhere(8, &items);
    assert_ne!(
        reference.sha256, other.sha256,
        "two entries never share an object"
    );
}

#[test]
fn random_bytes_with_a_good_checksum_decode_to_what_they_encode() {
    let mut rng = Rng::seeded(1);
    let mut decoded = 0;
    for _ in 0..20_000 {
        let mut bytes = documented().encode()[..104].to_vec();
        bytes[5] = rng.below(5) as u8;
        // Small numbers make lengths and counts that are right now and then.
        let largest = 1 << rng.below(9);
        bytes.extend((0..rng.below(64)).map(|_| rng.below(largest) as u8));
        bytes.extend([0; 4]);
        let bytes = summed(bytes);
        if let Ok(entry) = Entry::decode(&bytes) {
            decoded += 1;
            assert_eq!(entry.encode(), bytes);
        }
    }
    assert!(decoded > 0, "no input was valid");
}
