//! The checks of records that a client sends, and how much of them is read for that.

use std::io::Write;

use bytes::Bytes;
use wire::builder::BatchBuilder;
use wire::compression::{Compression, DecompressError, Limits, compress};
use wire::errors::ErrorCode;
use wire::records::RecordError;
use wire::scan::{Content, check_records, first_record_since};

use crate::records::{ANY_TIME, batch_of, build};

const LIMITS: Limits = Limits {
    window_bytes: 8 << 20,
    out_bytes: 1 << 20,
};

fn check(batch: &[u8]) -> Result<Content, RecordError> {
    let batch = batch_of(&Bytes::copy_from_slice(batch));
    check_records(&batch, &ANY_TIME, &mut LIMITS.clone(), u64::MAX)
}

/// A batch with this count and these raw records.
fn around(codec: Compression, count: i32, records: &[u8]) -> Vec<u8> {
    let mut bytes = build(Compression::None)[..61].to_vec();
    bytes[21..23].copy_from_slice(&(codec as i16).to_be_bytes());
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(&compress(codec, records));
    let length = bytes.len() as i32 - 12;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[test]
fn the_largest_timestamp_is_that_of_the_records_in_every_codec() {
    for codec in Compression::ALL {
        let mut batch = build(codec).to_vec();
        batch[35..43].copy_from_slice(&(-1_i64).to_be_bytes());
        let found = Content {
            max_timestamp_ms: 1_700_000_000_500,
            is_whole: true,
        };
        assert_eq!(check(&batch), Ok(found), "{codec:?}");
    }
}

#[test]
fn fields_that_no_client_can_read_are_refused_in_every_codec() {
    // Length, attributes, timestamp delta, offset delta, key, value, number of headers.
    let cases: [(&str, &[u8]); 9] = [
        ("a negative number of headers", &[12, 0, 0, 0, 1, 1, 1]),
        ("fewer headers than are said", &[12, 0, 0, 0, 1, 1, 2]),
        ("a header with a null key", &[16, 0, 0, 0, 1, 1, 2, 1, 1]),
        (
            "a value longer than the record",
            &[14, 0, 0, 0, 1, 8, b'v', 0],
        ),
        ("a value longer than all", &[14, 0, 0, 0, 1, 126, b'v', 0]),
        ("more than its fields", &[14, 0, 0, 0, 1, 1, 0, 0]),
        ("an endless length", &[0xff; 11]),
        (
            "an offset delta of six bytes",
            &[22, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 1, 1, 0],
        ),
        ("nothing", &[]),
    ];
    let sound = &[12, 0, 0, 0, 1, 1, 0];
    for codec in Compression::ALL {
        assert!(check(&around(codec, 1, sound)).is_ok(), "{codec:?}");
        for (what, record) in cases {
            let error = check(&around(codec, 1, record)).expect_err(what);
            assert_eq!(
                error.code(),
                ErrorCode::InvalidRecord,
                "{what} in {codec:?}"
            );
        }
    }
}

#[test]
fn counts_and_offset_deltas_must_be_those_of_the_records() {
    for codec in Compression::ALL {
        for count in [1_i32, 2, 4] {
            let mut bytes = build(codec).to_vec();
            bytes[57..61].copy_from_slice(&count.to_be_bytes());
            assert_eq!(check(&bytes), Err(RecordError::CountMismatch), "{codec:?}");
        }
        let wrong = RecordError::OffsetDelta {
            index: 0,
            offset_delta: 1,
        };
        let shifted = around(codec, 1, &[12, 0, 0, 2, 1, 1, 0]);
        assert_eq!(check(&shifted), Err(wrong), "{codec:?}");
    }
}

#[test]
fn timestamps_out_of_range_are_named_and_none_is_within_any() {
    let mut builder = BatchBuilder::new(Compression::Lz4);
    for timestamp_ms in [100, -1, 200, 300] {
        builder.append(timestamp_ms, None, None, &[]);
    }
    let batch = batch_of(&builder.build());
    let within = |times| check_records(&batch, &times, &mut LIMITS.clone(), u64::MAX);
    assert!(within(100..=300).is_ok());
    let late = within(100..=199).expect_err("200 is later");
    assert_eq!(late, RecordError::InvalidTimestamp { index: 2 });
    assert_eq!(late.code(), ErrorCode::InvalidTimestamp);
    let early = within(101..=300).expect_err("100 is earlier");
    assert_eq!(early, RecordError::InvalidTimestamp { index: 0 });
}

#[test]
fn what_does_not_decompress_is_refused_with_a_code_that_nobody_repeats() {
    for codec in &Compression::ALL[1..] {
        let mut bytes = around(*codec, 1, &[12, 0, 0, 0, 1, 1, 0]);
        let packed = bytes.len() - 61;
        bytes[61..].fill(0x5a);
        let error = check(&bytes).expect_err("it is garbage");
        assert_eq!(error.code(), ErrorCode::InvalidRecord, "{codec:?}");
        assert!(packed > 4);
    }
}

/// `count` records of a KiB that does not compress well.
fn long(codec: Compression, count: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    let mut value = Vec::new();
    for n in 0..count {
        value.clear();
        let _ =
            (0_i64..128).try_for_each(|at| value.write_all(&(n * n * 7_919 + at).to_be_bytes()));
        builder.append(1_000 + n, None, Some(&value), &[]);
    }
    builder.build().to_vec()
}

#[test]
fn no_more_is_read_than_is_enough() {
    for codec in &Compression::ALL[1..] {
        let batch = batch_of(&Bytes::from(long(*codec, 100)));
        let tried = |enough| check_records(&batch, &ANY_TIME, &mut LIMITS.clone(), enough);
        let some = tried(50_000).expect("they are sound");
        assert!(!some.is_whole, "{codec:?}");
        assert!((1_040..1_060).contains(&some.max_timestamp_ms), "{some:?}");
        let all = Content {
            max_timestamp_ms: 1_099,
            is_whole: true,
        };
        assert_eq!(tried(1 << 20), Ok(all), "{codec:?}");
        // A fault within the part that is read must be found.
        let mut fewer = long(*codec, 100);
        fewer[57..61].copy_from_slice(&20_i32.to_be_bytes());
        let fewer = batch_of(&Bytes::from(fewer));
        let seen = check_records(&fewer, &ANY_TIME, &mut LIMITS.clone(), 50_000);
        assert_eq!(seen, Err(RecordError::CountMismatch), "{codec:?}");
    }
}

#[test]
fn what_comes_out_is_bounded_over_all_that_is_read() {
    for codec in &Compression::ALL[1..] {
        let batch = batch_of(&Bytes::from(long(*codec, 100)));
        let mut limits = Limits {
            out_bytes: 250_000,
            ..LIMITS
        };
        for _ in 0..2 {
            let found = first_record_since(&batch, 1_099, &mut limits);
            assert!(matches!(found, Ok(Some(_))), "{codec:?}: {found:?}");
        }
        let beyond = first_record_since(&batch, 1_099, &mut limits);
        let too_large = matches!(
            beyond,
            Err(RecordError::Decompress(DecompressError::TooLarge { .. }))
        );
        assert!(too_large, "{codec:?}: {beyond:?}");
    }
}
