//! Frames: splitting, headers, the special case of `ApiVersions`, and responses as ropes.

use bytes::{Bytes, BytesMut};
use wire::codec::EncodeError;
use wire::errors::ErrorCode;
use wire::frame::{
    FrameError, RequestError, Split, decode_request, decode_response, encode_request, split_frame,
};
use wire::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use wire::messages::fetch::FetchRequest;
use wire::messages::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use wire::messages::{ApiKey, Request, Response, SERVED};
use wire::rope::Rope;
use wire::text::Str;
use wire::versions::{api_versions, unsupported_api_versions};

use crate::sample::{self, Random};

fn without_length(rope: &Rope) -> Bytes {
    let bytes = rope.to_bytes();
    let length = i32::from_be_bytes(bytes[..4].try_into().expect("four bytes"));
    assert_eq!(length as usize, bytes.len() - 4, "the length prefix");
    bytes.slice(4..)
}

#[test]
fn a_stream_is_split_into_its_frames_however_it_arrives() {
    let stream = [
        &[0, 0, 0, 3][..],
        b"abc",
        &[0, 0, 0, 0],
        &[0, 0, 0, 1],
        b"d",
    ]
    .concat();
    for chunk_bytes in 1..=stream.len() {
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for chunk in stream.chunks(chunk_bytes) {
            buffer.extend_from_slice(chunk);
            while let Split::Frame(frame) = split_frame(&mut buffer, 10).expect("valid") {
                frames.push(frame);
            }
        }
        assert_eq!(frames, [&b"abc"[..], b"", b"d"]);
        assert!(buffer.is_empty());
    }
}

#[test]
fn negative_and_oversized_lengths_are_refused_before_the_body_arrives() {
    for length in [-1, i32::MIN, 101, i32::MAX] {
        let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
        let refused = split_frame(&mut buffer, 100);
        assert_eq!(
            refused,
            Err(FrameError {
                length,
                max_bytes: 100
            })
        );
    }
}

#[test]
fn a_claimed_length_reserves_no_more_than_what_was_sent() {
    let mut buffer = BytesMut::from(&(90_i32 << 20).to_be_bytes()[..]);
    let Ok(Split::More { reserve_bytes }) = split_frame(&mut buffer, 100 << 20) else {
        panic!("more is needed");
    };
    assert_eq!(reserve_bytes, 1 << 20);
    buffer.resize(8 << 20, 0);
    let Ok(Split::More { reserve_bytes }) = split_frame(&mut buffer, 100 << 20) else {
        panic!("more is needed");
    };
    assert_eq!(reserve_bytes, 8 << 20);
}

#[test]
fn every_served_request_and_response_passes_through_a_frame() {
    let mut random = Random(8);
    for api in sample::apis() {
        let key = ApiKey::from_code(api.key).expect("it has messages");
        for version in api.versions.min..=api.versions.max {
            let frame = Bytes::from(sample::request(&api, version, &mut random));
            let read = decode_request(&frame);
            if key.served().is_none() {
                let refused = RequestError::Unsupported {
                    key: api.key,
                    version,
                };
                assert_eq!(read, Err(refused));
                continue;
            }
            let (header, request) = read.expect("a valid request");
            assert_eq!(
                (header.key, header.version, request.key()),
                (key, version, key)
            );
            assert_eq!(header.correlation_id, 7);
            assert_eq!(header.client_id, Some(Str::from_static("cli")));
            let frame = Bytes::from(sample::response(&api, version, &mut random));
            crate::for_api!(api.name.as_str(), Ours, _TheirRequest, _TheirResponse => {
                let (correlation_id, response) =
                    decode_response::<Ours>(&frame, version).expect("a valid response");
                assert_eq!(correlation_id, 7);
                let again = wire::frame::encode_response::<Ours>(&response, 7, version);
                assert_eq!(without_length(&again.expect("it came from a frame")), frame);
            });
        }
    }
}

#[test]
fn what_a_client_writes_the_server_reads() {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some("a".into()),
            ..Default::default()
        }]),
        ..Default::default()
    };
    for version in 0..=13 {
        let client_id = Str::from_static("me");
        let frame = encode_request(&request, 3, Some(&client_id), version).expect("it fits");
        let (header, read) = decode_request(&without_length(&frame)).expect("a valid request");
        assert_eq!((header.version, header.correlation_id), (version, 3));
        assert_eq!(header.client_id, Some(client_id));
        assert_eq!(read, Request::Metadata(request.clone()));
    }
    let refused = encode_request(&request, 3, None, 14);
    assert_eq!(refused, Err(EncodeError::UnsupportedVersion(14)));
}

#[test]
fn an_unknown_version_of_api_versions_is_told_apart() {
    // The body of an unknown version is not read.
    let frame = Bytes::from_static(&[0, 18, 0, 9, 0, 0, 0, 5, 0xde, 0xad]);
    let error = decode_request(&frame).expect_err("version 9 is unknown");
    assert_eq!(
        error,
        RequestError::UnsupportedApiVersions {
            version: 9,
            correlation_id: 5
        }
    );
    let answer = Response::from(unsupported_api_versions())
        .encode(5, 0)
        .expect("it fits");
    let frame = without_length(&answer);
    // Error 35, one API: key 18, versions 0 to 4.
    assert_eq!(
        frame[..],
        [0, 0, 0, 5, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]
    );
}

#[test]
fn other_unknown_apis_and_versions_close_the_connection() {
    for (key, version) in [
        (3_i16, 14_i16),
        (3, -1),
        (0, 2),
        (1, 3),
        (4, 0),
        (999, 0),
        (-1, 0),
    ] {
        let frame = [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0; 6]].concat();
        let refused = decode_request(&Bytes::from(frame));
        assert_eq!(refused, Err(RequestError::Unsupported { key, version }));
    }
}

#[test]
fn api_versions_lists_what_is_served_with_a_header_that_any_client_reads() {
    let list = api_versions();
    assert_eq!(list.api_keys.len(), SERVED.len());
    let produce = list
        .api_keys
        .iter()
        .find(|api| api.api_key == 0)
        .expect("Produce is served");
    assert_eq!((produce.min_version, produce.max_version), (0, 13));
    let frame = Response::from(list.clone()).encode(1, 3).expect("it fits");
    // The response has no tagged fields after the correlation id, though version 3 is flexible.
    assert_eq!(
        without_length(&frame)[4..6],
        ErrorCode::None.code().to_be_bytes()
    );
    let (_, read) =
        decode_response::<ApiVersionsRequest>(&without_length(&frame), 3).expect("valid");
    assert_eq!(
        read,
        ApiVersionsResponse {
            zk_migration_ready: false,
            ..list
        }
    );
}

fn fetch_response(records: Rope) -> FetchResponse {
    let partition = PartitionData {
        records: Some(records),
        ..Default::default()
    };
    let topic = FetchableTopicResponse {
        topic: "t".into(),
        partitions: vec![partition.clone(), partition],
        ..Default::default()
    };
    FetchResponse {
        responses: vec![topic],
        ..Default::default()
    }
}

#[test]
fn large_records_are_sent_without_being_copied() {
    let small = Bytes::from(vec![1; 100]);
    let large = Bytes::from(vec![2; 50_000]);
    let records: Rope = [small.clone(), large.clone(), small, large.clone()]
        .into_iter()
        .collect();
    let response = fetch_response(records);
    for version in 4..=12 {
        let frame = Response::from(response.clone())
            .encode(9, version)
            .expect("it fits");
        let shared = frame
            .pieces()
            .iter()
            .filter(|piece| piece.as_ptr() == large.as_ptr());
        assert_eq!(shared.count(), 4, "each large piece is the caller's memory");
        assert!(
            frame.pieces().len() <= 9,
            "small pieces lie in what surrounds them"
        );
        let (_, read) =
            decode_response::<FetchRequest>(&without_length(&frame), version).expect("valid");
        let sent = &response.responses[0].partitions[1].records;
        assert_eq!(&read.responses[0].partitions[1].records, sent);
    }
}

#[test]
fn records_of_a_produce_are_slices_of_the_frame() {
    use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
    let records = Bytes::from(vec![7; 10_000]);
    let partition = PartitionProduceData {
        index: 0,
        records: Some(records),
    };
    let topic = TopicProduceData {
        name: "t".into(),
        partition_data: vec![partition],
        ..Default::default()
    };
    let request = ProduceRequest {
        acks: -1,
        topic_data: vec![topic],
        ..Default::default()
    };
    let frame = without_length(&encode_request(&request, 1, None, 9).expect("it fits"));
    let (_, Request::Produce(read)) = decode_request(&frame).expect("valid") else {
        panic!("a Produce");
    };
    let records = read.topic_data[0].partition_data[0]
        .records
        .as_ref()
        .expect("records");
    assert!(frame.as_ptr_range().contains(&records.as_ptr()));
}

#[test]
fn a_string_longer_than_the_protocol_allows_is_an_error_of_the_writer() {
    let topic = FetchableTopicResponse {
        topic: "x".repeat(40_000).into(),
        ..Default::default()
    };
    let response = FetchResponse {
        responses: vec![topic],
        ..Default::default()
    };
    for version in [4, 12] {
        let refused = Response::from(response.clone()).encode(1, version);
        assert_eq!(refused, Err(EncodeError::TooLong));
    }
}
