//! Records: what the Java client wrote is read in every codec, what we write is read back, and what
//! decompresses is bounded.

use std::ops::RangeInclusive;

use bytes::Bytes;
use wire::batch::{Batch, TimestampType};
use wire::builder::BatchBuilder;
use wire::compression::{Compression, DecompressError, Limits, compress, decompress};
use wire::recompress::recompress;
use wire::records::{Header, Record, RecordError, records};
use wire::scan::{RecordPosition, first_record_since, record_of_max_timestamp};

use crate::batches::from_hex;
use crate::golden;
use crate::meter::peak_bytes;

const LIMIT_BYTES: usize = 1 << 20;
/// Zstandard at its default level uses 2 MiB if it does not know the input's size.
const LIMITS: Limits = Limits {
    window_bytes: 2 << 20,
    out_bytes: LIMIT_BYTES,
};

pub fn batch_of(bytes: &Bytes) -> Batch {
    Batch::take(&mut bytes.clone())
        .expect("a valid batch")
        .expect("one batch")
}

/// Any timestamp will do.
pub const ANY_TIME: RangeInclusive<i64> = i64::MIN..=i64::MAX;

fn header(key: &'static str, value: Option<&'static str>) -> Header {
    Header {
        key: Bytes::from_static(key.as_bytes()),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
    }
}

fn golden_records() -> Vec<Record> {
    let text = Some(Bytes::from_static(golden::TEXT.as_bytes()));
    vec![
        Record {
            offset_delta: 0,
            timestamp_ms: 1_700_000_000_000,
            key: Some(Bytes::from_static(b"k1")),
            value: text.clone(),
            headers: vec![
                header("h", Some("1")),
                header("h", Some("2")),
                header("n", None),
            ],
        },
        Record {
            offset_delta: 1,
            timestamp_ms: 1_700_000_000_500,
            key: None,
            value: text,
            headers: vec![],
        },
        Record {
            offset_delta: 2,
            timestamp_ms: 1_699_999_999_000,
            key: Some(Bytes::new()),
            value: None,
            headers: vec![],
        },
    ]
}

/// The same records in a batch that we write.
pub fn build(codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(codec).producer(4711, 3, 42);
    if codec == Compression::Zstd {
        builder = builder.transactional();
    }
    for record in golden_records() {
        let headers: Vec<(&str, Option<&[u8]>)> = record
            .headers
            .iter()
            .map(|header| {
                (
                    std::str::from_utf8(&header.key).expect("text"),
                    header.value.as_deref(),
                )
            })
            .collect();
        builder.append(
            record.timestamp_ms,
            record.key.as_deref(),
            record.value.as_deref(),
            &headers,
        );
    }
    builder.build()
}

#[test]
fn records_of_the_java_client_are_read_in_every_codec() {
    for (codec, digits) in golden::BATCHES {
        let batch = batch_of(&from_hex(digits));
        let read: Result<Vec<Record>, _> = records(&batch, LIMIT_BYTES)
            .expect("it decompresses")
            .collect();
        assert_eq!(
            read.expect("valid records"),
            golden_records(),
            "{}",
            codec.name()
        );
    }
}

#[test]
fn uncompressed_we_write_what_the_java_client_writes() {
    let theirs = from_hex(golden::BATCHES[0].1);
    assert_eq!(build(Compression::None), theirs);
}

#[test]
fn what_we_write_is_read_back_in_every_codec() {
    for codec in Compression::ALL {
        let batch = batch_of(&build(codec));
        assert_eq!(batch.check_crc(), Ok(()));
        let read: Result<Vec<Record>, _> = records(&batch, LIMIT_BYTES)
            .expect("it decompresses")
            .collect();
        assert_eq!(
            read.expect("valid records"),
            golden_records(),
            "{}",
            codec.name()
        );
    }
}

#[test]
fn snappy_is_read_in_chunks_and_raw() {
    let text: Vec<u8> = (0..200_000_u32).map(|index| (index / 100) as u8).collect();
    let chunks = compress(Compression::Snappy, &text);
    assert_eq!(chunks[..8], *b"\x82SNAPPY\0");
    assert_eq!(
        decompress(Compression::Snappy, &chunks, LIMIT_BYTES),
        Ok(Bytes::from(text.clone()))
    );
    let raw = snap::raw::Encoder::new()
        .compress_vec(&text)
        .expect("it fits");
    assert_eq!(
        decompress(Compression::Snappy, &Bytes::from(raw), LIMIT_BYTES),
        Ok(Bytes::from(text))
    );
}

/// As Java's readers behave.
#[test]
fn streams_behind_one_another_are_read_and_padding_is_not() {
    let parts = |codec| [compress(codec, b"one "), compress(codec, b"two")].concat();
    let read = |codec, bytes: Vec<u8>| decompress(codec, &Bytes::from(bytes), LIMIT_BYTES);
    let both = Ok(Bytes::from_static(b"one two"));
    assert_eq!(read(Compression::Snappy, parts(Compression::Snappy)), both);
    assert_eq!(read(Compression::Gzip, parts(Compression::Gzip)), both);
    let padded = [&parts(Compression::Gzip)[..], &[0; 9]].concat();
    assert_eq!(read(Compression::Gzip, padded), both);
    let cut_off = &parts(Compression::Snappy)[..16 + 4];
    assert!(read(Compression::Snappy, cut_off.to_vec()).is_err());
}

#[test]
fn what_decompresses_is_bounded_exactly() {
    let zeros = vec![0; 100_000];
    for codec in Compression::ALL {
        let packed = compress(codec, &zeros);
        assert_eq!(
            decompress(codec, &packed, 100_000).map(|out| out.len()),
            Ok(100_000)
        );
        let refused = decompress(codec, &packed, 99_999);
        assert_eq!(
            refused,
            Err(DecompressError::TooLarge {
                limit_bytes: 99_999
            }),
            "{codec:?}"
        );
    }
}

#[test]
fn records_are_found_by_time() {
    let batch = batch_of(&build(Compression::Gzip));
    let found = |timestamp_ms| {
        first_record_since(&batch, timestamp_ms, &mut LIMITS.clone()).expect("valid")
    };
    let first = RecordPosition {
        offset_delta: 0,
        timestamp_ms: 1_700_000_000_000,
    };
    let second = RecordPosition {
        offset_delta: 1,
        timestamp_ms: 1_700_000_000_500,
    };
    assert_eq!(found(0), Some(first));
    assert_eq!(found(1_700_000_000_000), Some(first));
    assert_eq!(found(1_700_000_000_001), Some(second));
    assert_eq!(found(1_700_000_000_501), None);
    assert_eq!(
        record_of_max_timestamp(&batch, &mut LIMITS.clone()),
        Ok(Some(second))
    );

    let stamped = batch.with_time(TimestampType::LogAppendTime, 1_800_000_000_000);
    let at_once = RecordPosition {
        offset_delta: 0,
        timestamp_ms: 1_800_000_000_000,
    };
    assert_eq!(
        first_record_since(&stamped, 1_750_000_000_000, &mut LIMITS.clone()),
        Ok(Some(at_once))
    );
    assert_eq!(
        record_of_max_timestamp(&stamped, &mut LIMITS.clone()),
        Ok(Some(at_once))
    );
}

#[test]
fn records_go_from_any_codec_into_any_other() {
    for from in Compression::ALL {
        let batch = batch_of(&build(from));
        for to in Compression::ALL {
            let anew = |limit| recompress(&batch, to, &ANY_TIME, &mut LIMITS.clone(), limit);
            let again = anew(LIMIT_BYTES).expect("it fits");
            assert_eq!(again.check_crc(), Ok(()));
            assert_eq!(again.compression(), Ok(to));
            let read: Result<Vec<Record>, _> = records(&again, LIMIT_BYTES)
                .expect("it decompresses")
                .collect();
            assert_eq!(read, Ok(golden_records()), "{from:?} to {to:?}");
            let header = |batch: &Batch| {
                let producer = (batch.producer_id(), batch.producer_epoch());
                let times = (batch.base_timestamp_ms(), batch.max_timestamp_ms());
                (producer, batch.base_sequence(), times, batch.count())
            };
            assert_eq!(header(&again), header(&batch));
            assert_eq!(again.is_transactional(), batch.is_transactional());
            let limit_bytes = again.length_bytes() - 1;
            assert_eq!(
                anew(limit_bytes),
                Err(RecordError::TooLarge { limit_bytes })
            );
        }
    }
}

#[test]
fn what_is_not_laid_out_as_records_is_not_compressed_anew() {
    let wrong = |at: usize, byte: u8| {
        let mut bytes = build(Compression::None).to_vec();
        bytes[at] = byte;
        let batch = batch_of(&Bytes::from(bytes));
        let mut limits = LIMITS;
        recompress(
            &batch,
            Compression::Gzip,
            &ANY_TIME,
            &mut limits,
            LIMIT_BYTES,
        )
        .expect_err("it is wrong")
    };
    // The first record's length takes two bytes; attributes, timestamp and offset delta follow.
    let index = 0;
    assert_eq!(
        wrong(61 + 4, 2),
        RecordError::OffsetDelta {
            index,
            offset_delta: 1
        }
    );
    assert_eq!(wrong(61 + 5, 0x7e), RecordError::Malformed { index });
    assert_eq!(wrong(57, 0x80), RecordError::CountMismatch);
    assert_eq!(wrong(60, 0), RecordError::CountMismatch);
    assert_eq!(wrong(60, 2), RecordError::CountMismatch);
    assert_eq!(wrong(60, 4), RecordError::CountMismatch);
}

#[test]
fn what_grows_a_thousandfold_is_walked_over_in_little_memory() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(1, None, Some(&vec![0; 60 << 20]), &[]);
    builder.append(2, None, None, &[]);
    let plain = batch_of(&builder.build());
    let second = Some(RecordPosition {
        offset_delta: 1,
        timestamp_ms: 2,
    });
    for codec in [
        Compression::Gzip,
        Compression::Zstd,
        Compression::Lz4,
        Compression::Snappy,
    ] {
        let limits = Limits {
            window_bytes: 8 << 20,
            out_bytes: 61 << 20,
        };
        let (packed, peak) = peak_bytes(|| {
            recompress(&plain, codec, &ANY_TIME, &mut limits.clone(), 8 << 20).expect("it fits")
        });
        assert!(peak < 16 << 20, "compressing {codec:?} took {peak}");
        let (found, peak) = peak_bytes(|| {
            let first = first_record_since(&packed, 2, &mut limits.clone());
            (first, record_of_max_timestamp(&packed, &mut limits.clone()))
        });
        assert_eq!(found, (Ok(second), Ok(second)), "{codec:?}");
        assert!(peak < 12 << 20, "{codec:?} took {peak}");
    }
}
