//! Bytes that no client should send: the connection ends, the others go on.

use agent::settings::Budgets;
use std::sync::atomic::Ordering::Relaxed;

use wire::errors::ErrorCode;
use wire::frame::decode_response;
use wire::messages::api_versions::ApiVersionsRequest;
use wire::messages::fetch::FetchRequest;
use wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use wire::messages::metadata::MetadataRequest;
use wire::messages::produce::{PartitionProduceData, ProduceRequest};

use crate::client::{Client, fetch_request, large_batch, partition_of, produce_request, values_of};
use crate::stand::{Stand, settings};

/// The window over which a frame's pace is judged while others wait for memory.
const PACE: std::time::Duration = std::time::Duration::from_secs(1);

/// Settings with memory for sixteen frames of one MiB.
fn tight() -> agent::Settings {
    agent::Settings {
        budgets: Budgets {
            produce_bytes: 16 << 20,
            ..Budgets::SMALL
        },
        ..settings()
    }
}

#[tokio::test]
async fn a_malformed_frame_ends_its_connection_alone() {
    let stand = Stand::new().await;
    let mut good = stand.client().await;
    good.call(&MetadataRequest::default(), 9).await;
    let hostile: [&[u8]; 6] = [
        b"\xff\xff\xff\xff",                                         // a negative length
        b"\x7f\xff\xff\xff",                                         // larger than any request
        b"\x00\x00\x00\x00",                                         // nothing
        b"\x00\x00\x00\x04\x00\x03\x00\x09",                         // a header cut off
        b"\x00\x00\x00\x0a\x7f\x00\x00\x00\x00\x00\x00\x01\xff\xff", // no such API
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for bytes in hostile {
        let mut client = stand.client().await;
        client.raw(bytes).await;
        assert!(client.frame().await.is_none(), "{bytes:?}");
    }
    good.call(&MetadataRequest::default(), 9).await;
}

#[tokio::test]
async fn who_waits_for_other_members_keeps_no_memory_from_others() {
    let stand = Stand::new().await;
    stand.control.park_joins.store(true, Relaxed);
    let join = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: vec![7; 3 << 20].into(),
        }],
        ..JoinGroupRequest::default()
    };
    let mut members = Vec::new();
    for _ in 0..20 {
        let mut member = stand.client().await;
        member.send(&join, 5).await;
        members.push(member);
    }
    let refused = async {
        loop {
            let mut member = stand.client().await;
            member.send(&join, 5).await;
            let answer = host::clock::timeout(PACE, member.receive::<JoinGroupRequest>(5)).await;
            match answer {
                Ok(answer) => return answer.error_code,
                Err(_) => members.push(member),
            }
        }
    };
    let code = host::clock::timeout(10 * PACE, refused).await;
    assert_eq!(code, Ok(ErrorCode::CoordinatorLoadInProgress.code()));
    let mut other = stand.client().await;
    let request = MetadataRequest::default();
    let answered = other.call(&request, 9);
    let answered = host::clock::timeout(10 * PACE, answered).await;
    answered.expect("an answer while sixty MiB of requests wait for other members");
}

#[tokio::test]
async fn a_large_request_ends_nobodys_long_poll() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut reader = stand.client().await;
    let mut fetch = fetch_request("t", &[(0, 0)]);
    fetch.max_wait_ms = 60_000;
    fetch.min_bytes = 1;
    reader.send(&fetch, 12).await;
    let mut member = stand.client().await;
    let join = JoinGroupRequest {
        group_id: "g".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: vec![7; 3 << 20].into(),
        }],
        ..JoinGroupRequest::default()
    };
    for _ in 0..3 {
        member.call(&join, 5).await;
    }
    let answered = host::clock::timeout(2 * PACE, reader.frame()).await;
    assert!(
        answered.is_err(),
        "the long poll ended with nothing to tell"
    );
}

#[tokio::test]
async fn a_frame_of_many_tiny_names_ends_its_connection() {
    let stand = Stand::new().await;
    let mut client = stand.client().await;
    // Metadata 1 with two million empty names, which would decode to a hundred MiB.
    let count = 2_000_000_u32;
    let mut frame = Vec::from((14 + 2 * count).to_be_bytes());
    frame.extend([0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff]);
    frame.extend(count.to_be_bytes());
    frame.resize(frame.len() + 2 * count as usize, 0);
    client.raw(&frame).await;
    assert!(client.frame().await.is_none());
    let mut good = stand.client().await;
    good.call(&MetadataRequest::default(), 9).await;
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let stand = Stand::new().await;
    let mut client = stand.client().await;
    client
        .raw(b"\x00\x00\x00\x0b\x00\x12\x03\xe7\x00\x00\x00\x05\xff\xff\x00")
        .await;
    let frame = client.frame().await.unwrap();
    let (id, response) = decode_response::<ApiVersionsRequest>(&frame, 0).unwrap();
    assert_eq!(
        (id, response.error_code),
        (5, ErrorCode::UnsupportedVersion.code())
    );
    let supported = ApiVersionsRequest {
        client_software_name: "a-client".into(),
        client_software_version: "1.0".into(),
    };
    let versions = client.call(&supported, 3).await;
    assert_eq!(versions.error_code, 0);
    let produce = versions
        .api_keys
        .iter()
        .find(|api| api.api_key == 0)
        .unwrap();
    assert_eq!(produce.min_version, 0);
    let nameless = ApiVersionsRequest {
        client_software_name: "-".into(),
        ..supported
    };
    let refused = client.call(&nameless, 3).await;
    assert_eq!(refused.error_code, ErrorCode::InvalidRequest.code());
}

#[tokio::test]
async fn frames_come_whole_however_they_are_cut() {
    let stand = Stand::new().await;
    let mut client = stand.client().await;
    let request = MetadataRequest::default();
    let frames: Vec<u8> = (0..20)
        .flat_map(|id| {
            wire::frame::encode_request(&request, id, None, 9)
                .unwrap()
                .to_bytes()
                .to_vec()
        })
        .collect();
    for piece in frames.chunks(7) {
        client.raw(piece).await;
        tokio::task::yield_now().await;
    }
    for expected in 0..20 {
        let frame = client.frame().await.unwrap();
        let (id, _) = decode_response::<MetadataRequest>(&frame, 9).unwrap();
        assert_eq!(id, expected);
    }
}

#[tokio::test]
async fn whoever_closes_his_sending_side_gets_the_answers_of_what_came_whole() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    client
        .send(&produce_request("t", 0, large_batch(10)), 9)
        .await;
    let mut fetch = fetch_request("t", &[(0, 1)]);
    fetch.max_wait_ms = 300;
    client.send(&fetch, 12).await;
    client.send(&MetadataRequest::default(), 9).await;
    client.raw(b"\0\0\0\x09half").await;
    client.end().await;
    let produced = partition_of(client.receive::<ProduceRequest>(9).await);
    assert_eq!((produced.error_code, produced.base_offset), (0, 0));
    client.receive::<FetchRequest>(12).await;
    client.receive::<MetadataRequest>(9).await;
    assert!(client.frame().await.is_none());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let stand = Stand::with(agent::Settings {
        max_connections: 1,
        ..settings()
    })
    .await;
    let mut first = stand.client().await;
    first.call(&MetadataRequest::default(), 9).await;
    assert!(stand.client().await.frame().await.is_none());
    first.call(&MetadataRequest::default(), 9).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_of_their_address_are_closed() {
    let stand = Stand::with(agent::Settings {
        max_connections_per_ip: 1,
        ..settings()
    })
    .await;
    let mut first = stand.client().await;
    first.call(&MetadataRequest::default(), 9).await;
    assert!(stand.client().await.frame().await.is_none());
    drop(first);
    let again = async {
        loop {
            let mut client = stand.client().await;
            client.send(&MetadataRequest::default(), 9).await;
            if client.frame().await.is_some() {
                return;
            }
        }
    };
    let again = host::clock::timeout(10 * PACE, again).await;
    again.expect("a place for another");
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let idle = std::time::Duration::from_millis(50);
    let stand = Stand::with(agent::Settings {
        connections_max_idle: idle,
        ..settings()
    })
    .await;
    let mut client = stand.client().await;
    client.call(&MetadataRequest::default(), 9).await;
    assert!(client.frame().await.is_none());
}

#[tokio::test]
async fn half_a_request_does_not_keep_its_memory_for_ever() {
    let idle = std::time::Duration::from_millis(50);
    let limits = agent::Settings {
        connections_max_idle: idle,
        ..settings()
    };
    let stand = Stand::with(limits).await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    // The long poll alone would not end the connection.
    let mut request = crate::client::fetch_request("t", &[(0, 0)]);
    request.max_wait_ms = 30_000;
    client.send(&request, 12).await;
    client.raw(b"\x00\x70\x00\x00\x00\x00\x00\x09").await;
    assert!(client.frame().await.is_none());
}

/// The first bytes of a Produce frame of so many bytes.
fn announce(bytes: u32) -> Vec<u8> {
    [&bytes.to_be_bytes()[..], b"\0\0"].concat()
}

#[tokio::test]
async fn frames_that_never_come_keep_no_memory_from_others() {
    let stand = Stand::with(tight()).await;
    stand.topic("t", 1, &[]).await;
    let mut attackers = Vec::new();
    for sent in 0..90 {
        let mut client = stand.client().await;
        client.raw(&announce(8 << 20)).await;
        client.raw(&vec![0; sent * 40]).await;
        attackers.push(client);
    }
    let mut good = stand.client().await;
    for _ in 0..3 {
        let produced = good.produce("t", 0, large_batch(1_000_000)).await;
        assert_eq!(produced.error_code, 0);
    }
    // No connection was closed, so none waited for that.
    let metrics = stand.agent.probe().metrics();
    assert!(
        metrics.contains("seaway_agent_requests_slow_total 0\n"),
        "{metrics}"
    );
    let mut held = attackers.pop().unwrap();
    assert!(host::clock::timeout(PACE / 10, held.frame()).await.is_err());
}

/// Clients that announced a frame of so many bytes, sent 100,000 of them, and stay.
async fn halted(stand: &Stand, count: usize, bytes: u32) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = stand.client().await;
        client.raw(&announce(bytes)).await;
        client.raw(&vec![0; 100_000]).await;
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn frames_that_halt_give_their_memory_to_those_who_wait() {
    let stand = Stand::with(tight()).await;
    stand.topic("t", 1, &[]).await;
    let mut attackers = halted(&stand, 40, 1 << 20).await;
    let mut good = stand.client().await;
    for _ in 0..3 {
        let produced = good.produce("t", 0, large_batch(1_000_000)).await;
        assert_eq!(produced.error_code, 0);
    }
    // The clients that held the memory were closed.
    assert!(attackers[0].frame().await.is_none());
}

#[tokio::test]
async fn large_frames_that_halt_keep_others_from_nothing() {
    let stand = Stand::with(tight()).await;
    stand.topic("t", 1, &[]).await;
    let _attackers = halted(&stand, 10, 8 << 20).await;
    let mut good = stand.client().await;
    let produced = good.produce("t", 0, large_batch(1_000_000)).await;
    assert_eq!(produced.error_code, 0);
}

#[tokio::test]
async fn many_producers_with_little_memory_are_all_served() {
    let stand = Stand::with(tight()).await;
    stand.topic("t", 1, &[]).await;
    let producers = (0..60).map(|number| {
        let stand = &stand;
        async move {
            let mut client = stand.client().await;
            for _ in 0..3 {
                // Every sixth is a large frame.
                let bytes = if number % 6 == 0 { 3_000_000 } else { 900_000 };
                let request = produce_request("t", 0, large_batch(bytes));
                let answer = partition_of(client.call(&request, 9).await);
                assert!(matches!(answer.error_code, 0 | 10), "{}", answer.error_code);
            }
        }
    });
    futures::future::join_all(producers).await;
}

#[tokio::test]
async fn partitions_without_records_are_answered_up_to_a_number() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let mut request = produce_request("t", 0, large_batch(10));
    let nothing = PartitionProduceData {
        index: 0,
        records: None,
    };
    let partitions = &mut request.topic_data[0].partition_data;
    partitions.extend(vec![nothing.clone(); 50]);
    let answer = client.call(&request, 9).await;
    let codes = answer.responses[0].partition_responses.iter();
    assert_eq!(codes.filter(|one| one.error_code == 0).count(), 1);
    let partitions = &mut request.topic_data[0].partition_data;
    partitions.extend(vec![nothing; 10_000]);
    client.send(&request, 9).await;
    assert!(client.frame().await.is_none());
}

#[tokio::test]
async fn only_produce_may_be_large() {
    let stand = Stand::with(tight()).await;
    let mut client = stand.client().await;
    client.raw(b"\x00\x80\x00\x01\x00\x03\x00\x09").await;
    assert!(client.frame().await.is_none());
}

#[tokio::test]
async fn answers_that_nobody_reads_keep_no_memory_from_others() {
    let stand = Stand::with(agent::Settings {
        budgets: Budgets {
            fetch_bytes: 3 << 20,
            cache_bytes: 1 << 20,
            ..Budgets::SMALL
        },
        ..settings()
    })
    .await;
    let mut good = stand.client().await;
    let topics: Vec<String> = (0..12).map(|number| format!("t{number}")).collect();
    for topic in &topics {
        stand.topic(topic, 1, &[]).await;
        let produced = good.produce(topic, 0, large_batch(1_000_000)).await;
        assert_eq!(produced.error_code, 0);
    }
    let mut silent = Vec::new();
    for topic in topics.iter().cycle().take(60) {
        let mut client = stand.client().await;
        for _ in 0..4 {
            client.send(&fetch_request(topic, &[(0, 0)]), 12).await;
        }
        silent.push(client);
    }
    for topic in &topics {
        let fetched = good.fetch(topic, 0, 0).await;
        assert_eq!(values_of(&fetched).len(), 1);
    }
}
