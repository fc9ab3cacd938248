//! Every message in every version: what the schema's own encoder writes is read and written again
//! byte for byte, so each direction of the generated code agrees with it.

use bytes::Bytes;
use wire::codec::{DecodeError, Decoder, Encoder};
use wire::message::{Body, RequestBody};

use crate::for_api;
use crate::sample::{self, Random, Side};

const SAMPLES: usize = 12;

/// Reads a body as `M` and returns what `M` writes.
pub(crate) fn rewrite<M: Body>(
    body: &Bytes,
    flexible: bool,
    version: i16,
) -> Result<Bytes, DecodeError> {
    let mut decoder = Decoder::new(body, flexible);
    let message = M::decode_body(&mut decoder, version)?;
    decoder.finish()?;
    let mut encoder = Encoder::new(flexible);
    message.encode_body(&mut encoder, version);
    let frame = encoder.finish().expect("it came from a frame").to_bytes();
    Ok(frame.slice(4..))
}

pub(crate) fn rewrite_side<R: RequestBody>(
    side: Side,
    body: &Bytes,
    flexible: bool,
    version: i16,
) -> Result<Bytes, DecodeError> {
    match side {
        Side::Request => rewrite::<R>(body, flexible, version),
        Side::Response => rewrite::<R::Response>(body, flexible, version),
    }
}

#[test]
fn every_message_in_every_version_is_read_and_written_alike() {
    let mut random = Random(1);
    for api in sample::apis() {
        for version in api.versions.min..=api.versions.max {
            let flexible = sample::is_flexible(&api, version);
            for side in [Side::Request, Side::Response] {
                for _ in 0..SAMPLES {
                    let body = Bytes::from(sample::body(&api, side, version, &mut random));
                    let again = for_api!(api.name.as_str(), Ours, _TheirRequest, _TheirResponse =>
                        rewrite_side::<Ours>(side, &body, flexible, version));
                    assert_eq!(again.as_ref(), Ok(&body), "{} {side:?} {version}", api.name);
                }
            }
        }
    }
}

#[test]
fn fields_that_a_version_lacks_read_as_their_defaults() {
    let request = wire::messages::fetch::FetchRequest {
        rack_id: "a".into(),
        max_wait_ms: 5,
        ..Default::default()
    };
    let frame = wire::frame::encode_request(&request, 1, None, 4).expect("version 4 exists");
    let (header, read) = wire::frame::decode_request(&frame.to_bytes().slice(4..)).expect("valid");
    assert_eq!((header.version, header.client_id), (4, None));
    let expected = wire::messages::fetch::FetchRequest {
        rack_id: Default::default(),
        ..request
    };
    assert_eq!(read, wire::messages::Request::Fetch(expected));
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    // Heartbeat 4: group "g", generation 1, member "m", no instance; then tags 5 and 9.
    let mut body = vec![2, b'g', 0, 0, 0, 1, 2, b'm', 0];
    let plain = [body.as_slice(), &[0]].concat();
    body.extend_from_slice(&[2, 5, 3, 1, 2, 3, 9, 0]);
    let read = rewrite::<wire::messages::heartbeat::HeartbeatRequest>(&Bytes::from(body), true, 4);
    assert_eq!(read, Ok(Bytes::from(plain)));
}
