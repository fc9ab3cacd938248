//! Every message and version that the `kafka-protocol` crate knows too: it reads our bytes and writes
//! the same, and the other way round.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, Message};

use crate::for_api;
use crate::roundtrip::rewrite_side;
use crate::sample::{self, Random, Side};

const SAMPLES: usize = 12;

/// The bytes that the other crate writes after reading `body`; None if it does not know the
/// version.
fn rewrite<M: Decodable + Encodable + Message>(body: &Bytes, version: i16) -> Option<Bytes> {
    if !(M::VERSIONS.min..=M::VERSIONS.max).contains(&version) {
        return None;
    }
    let mut rest = body.clone();
    let message = M::decode(&mut rest, version).expect("the other crate reads it");
    assert!(
        rest.is_empty(),
        "the other crate leaves {} bytes",
        rest.len()
    );
    let mut out = BytesMut::new();
    message
        .encode(&mut out, version)
        .expect("the other crate writes it");
    Some(out.freeze())
}

#[test]
fn another_implementation_agrees_on_every_message_and_version() {
    let mut random = Random(2);
    let mut unknown = Vec::new();
    for api in sample::apis() {
        for version in api.versions.min..=api.versions.max {
            let flexible = sample::is_flexible(&api, version);
            for side in [Side::Request, Side::Response] {
                for _ in 0..SAMPLES {
                    let name = format!("{} {side:?} {version}", api.name);
                    let body = Bytes::from(sample::body(&api, side, version, &mut random));
                    let (ours, theirs) = for_api!(api.name.as_str(), Ours, TheirRequest, TheirResponse => {
                        let theirs = match side {
                            Side::Request => rewrite::<TheirRequest>(&body, version),
                            Side::Response => rewrite::<TheirResponse>(&body, version),
                        };
                        (rewrite_side::<Ours>(side, &body, flexible, version), theirs)
                    });
                    match theirs {
                        Some(theirs) => assert_eq!(ours, Ok(theirs), "{name}"),
                        None if unknown.last() != Some(&name) => unknown.push(name),
                        None => {}
                    }
                }
            }
        }
    }
    // The crate is at Kafka 4.1; these versions came later.
    let later = [
        "ListOffsets Request 11",
        "ListOffsets Response 11",
        "OffsetCommit Request 10",
        "OffsetFetch Request 10",
    ];
    assert_eq!(unknown, later);
}
