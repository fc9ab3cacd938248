//! Journal entries, their bodies and snapshot manifests under damage. What decodes is what would be
//! written: anything else must be an error, and nothing may panic.

use bytes::Bytes;
use journal::chain::Chain;
use journal::entry::{
    Body, ClusterNumber, Entry, EntryId, Header, Item, Stamp, put_elsewhere, take_from_elsewhere,
};
use journal::quarantine::Quarantined;
use journal::snapshot::Cut;
use journal::snapshot::manifest::{Chunk, Manifest, Seal, Stored};
use sim::mutate::fuzz;
use store::checksum::crc32c;

fn items() -> Vec<Item> {
    (0..5_u8)
        .map(|number| Item {
            cluster: ClusterNumber(u32::from(number % 2) + 1),
            command: Bytes::from(vec![number; usize::from(number) * 7]),
        })
        .collect()
}

fn entries() -> Vec<Entry> {
    let (reference, _) = put_elsewhere(3, &items());
    let claim = Body::Claim {
        node: "control-1".to_owned(),
        reads: 1,
    };
    let genesis = EntryId::GENESIS;
    let first = EntryId { index: 1, nonce: 9 };
    [
        (first, genesis, claim),
        (
            EntryId { index: 2, nonce: 3 },
            first,
            Body::Commands(items()),
        ),
        (
            EntryId { index: 2, nonce: 3 },
            first,
            Body::Commands(Vec::new()),
        ),
        (
            EntryId { index: 2, nonce: 3 },
            first,
            Body::Elsewhere(reference),
        ),
    ]
    .into_iter()
    .map(|(id, before, body)| Entry {
        header: Header {
            shard: 0,
            id,
            claim: before,
            predecessor: before,
            stamp: Stamp {
                wall_millis: 1_764_000_000_000,
                ticks_millis: 17,
            },
        },
        body,
    })
    .collect()
}

/// The input as it is, and with a checksum that holds, so that the decoder behind it is reached.
fn both(input: &[u8]) -> [Bytes; 2] {
    let mut summed = input[..input.len().saturating_sub(4)].to_vec();
    let checksum = crc32c(&summed);
    summed.extend(checksum.to_le_bytes());
    [Bytes::copy_from_slice(input), summed.into()]
}

#[test]
fn entries_decode_to_what_they_encode() {
    let corpus: Vec<Vec<u8>> = entries()
        .iter()
        .map(|entry| entry.encode().to_vec())
        .collect();
    fuzz("entries", &corpus, |input| {
        for bytes in both(input) {
            if let Ok(entry) = Entry::decode(&bytes) {
                assert_eq!(entry.encode(), bytes);
            }
            let mut chain = Chain::genesis(0);
            if chain.feed(&bytes).is_err() {
                assert_eq!(chain.next(), 1, "what cannot be decoded is not passed");
            }
        }
    });
}

#[test]
fn bodies_belong_to_their_references() {
    let (reference, object) = put_elsewhere(3, &items());
    fuzz("bodies", &[object.to_vec()], |input| {
        let input = Bytes::copy_from_slice(input);
        match take_from_elsewhere(3, &reference, &input) {
            Ok(found) => assert_eq!((found, &input), (items(), &object)),
            Err(_) => assert_ne!(input, object),
        }
        // A body under its own hash reaches the decoder.
        let chunk = Chunk::of(&input);
        let own = journal::entry::Reference {
            sha256: chunk.sha256,
            length: chunk.length,
        };
        if let Ok(found) = take_from_elsewhere(3, &own, &input) {
            assert_eq!(put_elsewhere(3, &found).1, input);
        }
    });
}

#[test]
fn manifests_decode_to_what_they_encode() {
    let manifest = Manifest {
        cut: Cut {
            shard: 0,
            last: EntryId {
                index: 90,
                nonce: 1,
            },
            claim: EntryId { index: 3, nonce: 2 },
            claimant: "control-1".to_owned(),
            stamp: Stamp::default(),
            trimmed_below: 2,
            spared: vec![3, 40],
            bodies: vec![(50, [5; 32])],
            quarantined: vec![Quarantined {
                slot: 60,
                sha256: [6; 32],
                by: 70,
            }],
        },
        seal: Seal {
            level: 1,
            digest: [7; 32],
        },
        mark: Bytes::from_static(b"mark"),
        chunks: [(1, b"a"), (u128::MAX, b"b")]
            .map(|(nonce, bytes)| Stored {
                nonce,
                chunk: Chunk::of(bytes),
            })
            .to_vec(),
    };
    fuzz("manifests", &[manifest.encode().to_vec()], |input| {
        for bytes in both(input) {
            if let Ok(found) = Manifest::decode(&bytes) {
                // Sections that are not known are passed over.
                assert_eq!(Manifest::decode(&found.encode()), Ok(found));
            }
        }
    });
}
