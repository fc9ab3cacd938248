//! Fuzzes what is read out of buckets: files, markers, names of files.
#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

use bytes::Bytes;
use sim::mutate::fuzz;
use store::bucket::Key;
use store::checksum::crc32c;
use store::file::{Counts, FOOTER_BYTES, FileBuilder, FileIndex, Slice};
use store::layout::{FileId, file_key, parse_file_key};
use store::marker::Marker;

const ENTRY: usize = 40;
const FOOTER: usize = FOOTER_BYTES as usize;

fn file(slices: u64) -> Vec<u8> {
    let mut builder = FileBuilder::new(FileId {
        shard: 0,
        incarnation: 7,
        number: slices,
    });
    for partition in 0..slices {
        let batch = Bytes::from(vec![partition as u8; 1 + partition as usize * 7]);
        let counts = Counts {
            batches: 1,
            records: partition as u32,
            max_timestamp_ms: 1_790_000_000_000,
        };
        builder.push(partition * 3, [batch], counts).unwrap();
    }
    builder.finish().unwrap().payload.to_bytes().to_vec()
}

/// Makes the checksums right again where there is room for them, so that the checks behind them
/// are reached: damage alone never passes the first.
fn with_right_checksums(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let Some(footer) = bytes.len().checked_sub(FOOTER) else {
        return bytes;
    };
    let mut count = [0; 4];
    count.copy_from_slice(&bytes[footer + 8..footer + 12]);
    let index = (u32::from_be_bytes(count) as usize)
        .checked_mul(ENTRY)
        .and_then(|len| footer.checked_sub(len))
        .unwrap_or(footer);
    for start in (index..footer).step_by(ENTRY) {
        fix_slice(&mut bytes, start);
    }
    let sums = [crc32c(&bytes[index..footer]), crc32c(&bytes[..footer])];
    bytes[footer + 12..footer + 16].copy_from_slice(&sums[0].to_be_bytes());
    bytes[footer + 16..footer + 20].copy_from_slice(&sums[1].to_be_bytes());
    let sum = crc32c(&bytes[footer..footer + 52]);
    bytes[footer + 52..footer + 56].copy_from_slice(&sum.to_be_bytes());
    bytes[footer + 56..].copy_from_slice(b"SEAWAYFE");
    bytes
}

fn fix_slice(bytes: &mut [u8], entry: usize) {
    let (mut position, mut length) = ([0; 8], [0; 4]);
    position.copy_from_slice(&bytes[entry + 8..entry + 16]);
    length.copy_from_slice(&bytes[entry + 16..entry + 20]);
    let start = u64::from_be_bytes(position) as usize;
    let end = start.saturating_add(u32::from_be_bytes(length) as usize);
    if let Some(slice) = bytes.get(start..end) {
        let sum = crc32c(slice);
        bytes[entry + 20..entry + 24].copy_from_slice(&sum.to_be_bytes());
    }
}

/// What is accepted must be whole: slices in order, one behind the other, inside the file.
fn check(bytes: &[u8]) {
    let Ok(index) = FileIndex::decode_whole(bytes) else {
        return;
    };
    let mut end = 16;
    let mut last: Option<&Slice> = None;
    for slice in &index.slices {
        assert_eq!(slice.position, end);
        assert!(last.is_none_or(|last| last.partition < slice.partition));
        end = slice.end();
        assert!(end <= bytes.len() as u64);
        last = Some(slice);
    }
    assert_eq!(
        end + index.slices.len() as u64 * 40 + FOOTER_BYTES,
        bytes.len() as u64
    );
}

#[test]
fn files() {
    let corpus: Vec<Vec<u8>> = [1, 2, 3, 10].map(file).into();
    fuzz("files", &corpus, |input| {
        check(input);
        check(&with_right_checksums(input));
        // The tail alone, of a file of any length.
        let mut length = [0; 8];
        let known = input.len().min(8);
        length[..known].copy_from_slice(&input[..known]);
        let tail = with_right_checksums(input);
        let _ = FileIndex::decode(&tail, u64::from_be_bytes(length));
        let _ = FileIndex::decode(&tail, tail.len() as u64);
    });
}

#[test]
fn the_corpus_passes_with_its_checksums_made_right() {
    for slices in [1, 2, 3, 10] {
        let bytes = file(slices);
        assert_eq!(with_right_checksums(&bytes), bytes);
        assert!(FileIndex::decode_whole(&bytes).is_ok());
    }
}

#[test]
fn markers() {
    let marker = Marker {
        cluster: "4L6g3nShT-eMCtK--X86sw".to_owned(),
        created_ms: 1_790_000_000_000,
        bucket: 0,
        generation: 7,
        siblings: Vec::new(),
        journal: None,
    };
    fuzz("markers", &[marker.encode()], |input| {
        if let Ok(marker) = Marker::decode(input) {
            assert_eq!(marker.encode(), input);
        }
    });
}

#[test]
fn names_of_files() {
    let id = FileId {
        shard: 0,
        incarnation: 1,
        number: 2,
    };
    let corpus = [file_key(id, 3).to_string().into_bytes()];
    fuzz("names of files", &corpus, |input| {
        let text = String::from_utf8_lossy(input);
        let Ok(key) = Key::new(text) else {
            return;
        };
        if let Some((id, nonce)) = parse_file_key(&key) {
            assert_eq!(file_key(id, nonce), key);
        }
    });
}
