//! Hostile input: whatever the bytes, an error or a message, no panic and bounded memory.

use bytes::Bytes;
use wire::batch::{Batch, batches};
use wire::codec::{DECODED_BYTES_MAX, DecodeError};
use wire::frame::{RequestError, decode_request, decode_response};
use wire::records::records;

use crate::for_api;
use crate::meter::peak_bytes;
use crate::roundtrip::rewrite_side;
use crate::sample::{self, Api, Random, Side};

/// How much decoding a small frame may allocate: 16 times the frame for structures, and 64 KiB for
/// buffers that grow when the message is written again.
fn allowed_bytes(frame_bytes: usize) -> usize {
    20 * frame_bytes + (72 << 10)
}

fn decode_any(api: &Api, side: Side, version: i16, body: &Bytes) -> Result<Bytes, DecodeError> {
    let flexible = sample::is_flexible(api, version);
    for_api!(api.name.as_str(), Ours, _TheirRequest, _TheirResponse =>
        rewrite_side::<Ours>(side, body, flexible, version))
}

fn each_version(mut visit: impl FnMut(&Api, Side, i16)) {
    for api in sample::apis() {
        for version in api.versions.min..=api.versions.max {
            visit(&api, Side::Request, version);
            visit(&api, Side::Response, version);
        }
    }
}

#[test]
fn every_prefix_of_a_message_is_refused() {
    let mut random = Random(3);
    each_version(|api, side, version| {
        let body = Bytes::from(sample::body(api, side, version, &mut random));
        let step = body.len() / 300 + 1;
        for end in (0..body.len()).step_by(step) {
            let read = decode_any(api, side, version, &body.slice(..end));
            assert!(
                read.is_err(),
                "{} {side:?} {version} cut at {end}",
                api.name
            );
        }
    });
}

#[test]
fn bytes_after_a_message_are_refused() {
    let mut random = Random(4);
    each_version(|api, side, version| {
        let mut body = sample::body(api, side, version, &mut random);
        body.push(0);
        let read = decode_any(api, side, version, &Bytes::from(body));
        assert_eq!(
            read,
            Err(DecodeError::TrailingBytes(1)),
            "{} {side:?} {version}",
            api.name
        );
    });
}

#[test]
fn random_bytes_and_wild_lengths_take_little_memory() {
    let mut random = Random(5);
    each_version(|api, side, version| {
        for round in 0..40 {
            let mut body = sample::body(api, side, version, &mut random);
            if round % 4 == 0 {
                body = (0..random.below(200))
                    .map(|_| random.next() as u8)
                    .collect();
            }
            // Overwrites four bytes anywhere with a huge number: some will be a length, count or
            // size.
            let at = random.below(body.len() as u64 + 1) as usize;
            let wild: [u8; 5] = match random.below(3) {
                0 => [0x7f, 0xff, 0xff, 0xff, 0xff],
                1 => [0xff, 0xff, 0xff, 0xff, 0x07],
                _ => (random.next() as u32)
                    .to_be_bytes()
                    .map(|b| b | 0x80)
                    .iter()
                    .copied()
                    .chain([1])
                    .collect::<Vec<u8>>()
                    .try_into()
                    .expect("five bytes"),
            };
            for (slot, byte) in body[at..].iter_mut().zip(wild) {
                *slot = byte;
            }
            let body = Bytes::from(body);
            let (_, peak) = peak_bytes(|| decode_any(api, side, version, &body).is_ok());
            assert!(
                peak <= allowed_bytes(body.len()),
                "{} {side:?} {version}: {peak}",
                api.name
            );
        }
    });
}

#[test]
fn a_large_frame_of_tiny_elements_is_refused_within_the_bound() {
    // Metadata 9 with as many empty topic names as fit, three bytes each.
    let count = 8 << 20;
    let mut frame = vec![0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0];
    let mut length: usize = count + 1;
    while length > 0x7f {
        frame.push(length as u8 | 0x80);
        length >>= 7;
    }
    frame.push(length as u8);
    frame.extend(std::iter::repeat_n([1, 0], count).flatten());
    frame.extend_from_slice(&[1, 0, 0, 0]);
    let frame = Bytes::from(frame);
    let (read, peak) = peak_bytes(|| decode_request(&frame).map(|_| ()));
    assert_eq!(read, Err(RequestError::Malformed(DecodeError::TooLarge)));
    assert!(peak <= DECODED_BYTES_MAX + (1 << 20), "{peak}");
}

#[test]
fn random_frames_never_panic() {
    let mut random = Random(6);
    let apis = sample::apis();
    for _ in 0..20_000 {
        let api = &apis[random.below(apis.len() as u64) as usize];
        let mut frame: Vec<u8> = (0..random.below(80)).map(|_| random.next() as u8).collect();
        if frame.len() > 4 {
            frame[..2].copy_from_slice(&api.key.to_be_bytes());
            frame[2..4].copy_from_slice(&(random.below(15) as i16).to_be_bytes());
        }
        let frame = Bytes::from(frame);
        let (_, peak) = peak_bytes(|| decode_request(&frame).is_ok());
        assert!(peak <= allowed_bytes(frame.len()));
        let version = random.below(15) as i16;
        for_api!(api.name.as_str(), Ours, _TheirRequest, _TheirResponse => {
            let _ = decode_response::<Ours>(&frame, version);
        });
    }
}

#[test]
fn a_damaged_batch_never_panics_and_stays_within_its_bound() {
    let mut random = Random(7);
    let limit = 64 << 10;
    for codec in wire::compression::Compression::ALL {
        let mut builder = wire::builder::BatchBuilder::new(codec);
        for index in 0..20_u8 {
            builder.append(5, Some(&[index]), Some(&[index; 50]), &[("h", Some(b"v"))]);
        }
        let good = builder.build();
        for _ in 0..4_000 {
            let mut bytes = good.to_vec();
            for _ in 0..=random.below(4) {
                let at = 8 + random.below(bytes.len() as u64 - 8) as usize;
                bytes[at] = random.next() as u8;
            }
            bytes.truncate(bytes.len() - random.below(3) as usize);
            for batch in batches(Bytes::from(bytes)).flatten() {
                let read = |batch: &Batch| records(batch, limit).map(|all| all.flatten().count());
                let (count, peak) = peak_bytes(|| read(&batch));
                assert!(count.is_ok_and(|count| count <= limit) || count.is_err());
                // Window and block buffers of the decompressors come on top.
                assert!(peak <= 10 * limit + (16 << 20), "{codec:?}: {peak}");
            }
        }
    }
}

/// What librdkafka 2.16 sends for the metadata of all topics: three bytes too many. Kafka does not
/// mind, and neither may we.
#[test]
fn bytes_after_a_request_are_let_be() {
    let frame = [
        &[0, 3, 0, 13, 0, 0, 0, 3, 0, 7][..],
        b"rdkafka",
        &[0, 0, 0, 0, 0, 1, 0, 0],
    ];
    let (header, request) = wire::frame::decode_request(&Bytes::from(frame.concat()))
        .expect("a request with bytes after it");
    assert_eq!((header.version, header.correlation_id), (13, 3));
    let wire::messages::Request::Metadata(request) = request else {
        panic!("another request was read: {request:?}");
    };
    assert_eq!(request.topics, None);
}
