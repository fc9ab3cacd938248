//! Batches: for what a Produce is refused, what a header says, which fields a sender may change.

use bytes::{Bytes, BytesMut};
use wire::batch::{
    Batch, BatchError, HEADER_BYTES, ProduceLimits, TimestampType, batches, check_produce,
};
use wire::builder::BatchBuilder;
use wire::compression::Compression;
use wire::errors::ErrorCode;
use wire::rope::Rope;

use crate::golden;

const LIMITS: ProduceLimits = ProduceLimits {
    produce_version: 9,
    batch_bytes_max: 1 << 20,
    timestamp_type: TimestampType::CreateTime,
};

pub(crate) fn from_hex(digits: &str) -> Bytes {
    let digits: Vec<u8> = digits
        .bytes()
        .map(|digit| match digit {
            b'a'..=b'f' => digit - b'a' + 10,
            digit => digit - b'0',
        })
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn one_record() -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(1_000, Some(b"k"), Some(b"v"), &[]);
    builder.build()
}

/// The batch with some bytes changed and a right checksum.
fn altered(at: usize, bytes: &[u8]) -> Bytes {
    let mut batch = BytesMut::from(&one_record()[..]);
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc_fast::crc32_iscsi(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

fn refusal(records: &Bytes) -> BatchError {
    check_produce(records, LIMITS).expect_err("it is refused")
}

#[test]
fn batches_of_the_java_client_pass_and_say_what_they_hold() {
    for (codec, digits) in golden::BATCHES {
        let records = from_hex(digits);
        let checked = check_produce(&records, LIMITS).expect("a valid batch");
        let header = checked.summary;
        assert_eq!(header.length_bytes, records.len());
        assert_eq!(header.compression, codec);
        assert_eq!(
            (
                header.producer_id,
                header.producer_epoch,
                header.base_sequence
            ),
            (4711, 3, 42)
        );
        assert_eq!((header.count, header.last_offset_delta), (3, 2));
        assert_eq!(header.base_timestamp_ms, 1_700_000_000_000);
        assert_eq!(header.max_timestamp_ms, 1_700_000_000_500);
        assert_eq!(header.is_transactional, codec == Compression::Zstd);
        assert!(!header.is_control);
    }
}

#[test]
fn any_flipped_bit_under_the_checksum_is_corruption() {
    let batch = one_record();
    for at in 17..batch.len() {
        for bit in 0..8 {
            let mut damaged = batch.to_vec();
            damaged[at] ^= 1 << bit;
            let error = refusal(&Bytes::from(damaged));
            let of_codec = at == 22 && bit < 3;
            let expected = if of_codec {
                [
                    ErrorCode::CorruptMessage,
                    ErrorCode::UnsupportedCompressionType,
                ]
            } else {
                [ErrorCode::CorruptMessage; 2]
            };
            assert!(
                expected.contains(&error.code()),
                "byte {at} bit {bit}: {error}"
            );
        }
    }
}

#[test]
fn a_partition_gets_exactly_one_whole_batch() {
    let batch = one_record();
    assert_eq!(refusal(&Bytes::new()), BatchError::NotOneBatch);
    let twice = [&batch[..], &batch[..]].concat();
    assert_eq!(refusal(&Bytes::from(twice)), BatchError::NotOneBatch);
    let and_more = [&batch[..], &[0]].concat();
    assert_eq!(refusal(&Bytes::from(and_more)), BatchError::NotOneBatch);
    assert_eq!(BatchError::NotOneBatch.code(), ErrorCode::InvalidRecord);
    for end in 1..batch.len() {
        let error = refusal(&batch.slice(..end));
        assert_eq!(
            (error, error.code()),
            (BatchError::Truncated, ErrorCode::CorruptMessage)
        );
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    for length in [i32::MIN, -1, 0, 48] {
        let error = refusal(&altered(8, &length.to_be_bytes()));
        assert_eq!(
            (error, error.code()),
            (BatchError::InvalidLength(length), ErrorCode::CorruptMessage)
        );
    }
    assert_eq!(
        refusal(&altered(8, &i32::MAX.to_be_bytes())),
        BatchError::Truncated
    );
}

#[test]
fn headers_that_make_no_sense_are_refused_with_kafkas_codes() {
    let cases: [(usize, &[u8], ErrorCode); 12] = [
        (0, &5_i64.to_be_bytes(), ErrorCode::InvalidRecord),
        (16, &[1], ErrorCode::InvalidRecord),
        (16, &[3], ErrorCode::InvalidRecord),
        (21, &[0, 5], ErrorCode::UnsupportedCompressionType),
        (21, &[0, 1 << 3], ErrorCode::InvalidTimestamp),
        (21, &[0, 1 << 4], ErrorCode::InvalidRecord),
        (21, &[0, 1 << 5], ErrorCode::InvalidRecord),
        (23, &1_i32.to_be_bytes(), ErrorCode::InvalidRecord),
        (23, &i32::MAX.to_be_bytes(), ErrorCode::InvalidRecord),
        (57, &0_i32.to_be_bytes(), ErrorCode::InvalidRecord),
        (57, &i32::MIN.to_be_bytes(), ErrorCode::InvalidRecord),
        (43, &9_i64.to_be_bytes(), ErrorCode::InvalidRecord),
    ];
    for (at, bytes, code) in cases {
        let error = refusal(&altered(at, bytes));
        assert_eq!(error.code(), code, "byte {at}: {error}");
    }
}

#[test]
fn limits_are_those_of_topic_and_request() {
    let batch = one_record();
    let exact = ProduceLimits {
        batch_bytes_max: batch.len(),
        ..LIMITS
    };
    assert!(check_produce(&batch, exact).is_ok());
    let tight = ProduceLimits {
        batch_bytes_max: batch.len() - 1,
        ..LIMITS
    };
    let error = check_produce(&batch, tight).expect_err("too large");
    assert_eq!(error.code(), ErrorCode::MessageTooLarge);

    let zstd = from_hex(golden::BATCHES[4].1);
    let old = ProduceLimits {
        produce_version: 6,
        ..LIMITS
    };
    let error = check_produce(&zstd, old).expect_err("zstd came with version 7");
    assert_eq!(error.code(), ErrorCode::UnsupportedCompressionType);
}

#[test]
fn a_batch_is_sent_from_its_place_without_touching_its_bytes() {
    let original = one_record();
    let batch = Batch::take(&mut original.clone())
        .expect("valid")
        .expect("one");
    let mut sent = Rope::new();
    batch.append_patched(1 << 40, 17, &mut sent);
    assert_eq!(sent.pieces()[1].as_ptr(), original[16..].as_ptr());
    let read = Batch::take(&mut sent.to_bytes())
        .expect("valid")
        .expect("one");
    assert_eq!((read.base_offset(), read.leader_epoch()), (1 << 40, 17));
    assert_eq!(read.next_offset(), Ok((1 << 40) + 1));
    assert_eq!(read.check_crc(), Ok(()));
    assert_eq!(read.bytes()[16..], original[16..]);
}

#[test]
fn offsets_that_overflow_are_errors() {
    let batch = one_record();
    let batch = Batch::take(&mut batch.clone())
        .expect("valid")
        .expect("one");
    let mut sent = Rope::new();
    batch.append_patched(i64::MAX, 0, &mut sent);
    let read = Batch::take(&mut sent.to_bytes())
        .expect("valid")
        .expect("one");
    assert_eq!(read.next_offset(), Err(BatchError::OffsetOverflow));
}

#[test]
fn the_servers_time_replaces_the_producers() {
    let batch = Batch::take(&mut one_record()).expect("valid").expect("one");
    let stamped = batch.with_time(TimestampType::LogAppendTime, 9_999);
    assert_eq!(stamped.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(stamped.max_timestamp_ms(), 9_999);
    assert_eq!(stamped.base_timestamp_ms(), 1_000);
    assert_eq!(stamped.check_crc(), Ok(()));
    assert_eq!(stamped.payload(), batch.payload());
    let again = stamped.with_time(TimestampType::CreateTime, batch.max_timestamp_ms());
    assert_eq!(again, batch);
    // A client that claims the server's time for itself is accepted only where the server sets it.
    let limits = ProduceLimits {
        timestamp_type: TimestampType::LogAppendTime,
        ..LIMITS
    };
    assert!(check_produce(stamped.bytes(), limits).is_ok());
}

#[test]
fn a_slice_of_many_batches_is_walked_in_order_and_stops_at_damage() {
    let slice: Vec<u8> = golden::BATCHES
        .iter()
        .flat_map(|(_, digits)| from_hex(digits))
        .collect();
    let codecs: Vec<Compression> = batches(Bytes::from(slice.clone()))
        .map(|batch| batch.expect("whole").compression().expect("known"))
        .collect();
    assert_eq!(codecs, Compression::ALL);
    let cut = Bytes::from(slice).slice(..HEADER_BYTES + 200);
    let walked: Vec<_> = batches(cut).collect();
    assert_eq!(walked.len(), 2);
    assert_eq!(walked[1], Err(BatchError::Truncated));
}
