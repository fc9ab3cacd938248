//! Fetch sessions: a consumer names its partitions once, and is told only of those that changed.

use wire::errors::ErrorCode;
use wire::messages::fetch::{FetchRequest, FetchResponse, ForgottenTopic};

use crate::client::{Client, batch, fetch_request, values_of};
use crate::stand::{Stand, settings};

/// A request that begins a session.
fn first(topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    FetchRequest {
        session_epoch: 0,
        ..fetch_request(topic, partitions)
    }
}

/// The next request of a session, with the partitions that changed.
fn next(session_id: i32, session_epoch: i32, topic: &str, moved: &[(i32, i64)]) -> FetchRequest {
    let mut request = fetch_request(topic, moved);
    (request.session_id, request.session_epoch) = (session_id, session_epoch);
    if moved.is_empty() {
        request.topics.clear();
    }
    request
}

async fn fetch(client: &mut Client, request: &FetchRequest) -> FetchResponse {
    client.call(request, 12).await
}

/// Index, error and values of each partition in an answer.
fn told(response: &FetchResponse) -> Vec<(i32, i16, Vec<String>)> {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    let values = partitions.map(|data| {
        let values = values_of(data).into_iter().map(|(_, value)| value);
        (data.partition_index, data.error_code, values.collect())
    });
    values.collect()
}

fn values(partition: i32, values: &[&str]) -> (i32, i16, Vec<String>) {
    let values = values.iter().map(|value| (*value).to_owned());
    (partition, 0, values.collect())
}

#[tokio::test]
async fn a_session_is_told_what_is_different() {
    let stand = Stand::new().await;
    stand.topic("t", 3, &[]).await;
    let mut client = stand.client().await;
    client.produce("t", 1, batch(&["a"])).await;
    let response = fetch(&mut client, &first("t", &[(0, 0), (1, 0), (2, 0)])).await;
    let id = response.session_id;
    assert!(id > 0);
    let all = [values(0, &[]), values(1, &["a"]), values(2, &[])];
    assert_eq!(told(&response), all);
    let response = fetch(&mut client, &next(id, 1, "t", &[(1, 1)])).await;
    assert_eq!((response.session_id, told(&response)), (id, Vec::new()));
    client.produce("t", 2, batch(&["b"])).await;
    let response = fetch(&mut client, &next(id, 2, "t", &[])).await;
    assert_eq!(told(&response), [values(2, &["b"])]);
    // The position has not moved, so the same records come again.
    let response = fetch(&mut client, &next(id, 3, "t", &[])).await;
    assert_eq!(told(&response), [values(2, &["b"])]);
    let response = fetch(&mut client, &next(id, 4, "t", &[(2, 1)])).await;
    assert_eq!(told(&response), []);
}

#[tokio::test]
async fn a_session_that_begins_with_a_topic_named_twice_knows_its_partitions_once() {
    let stand = Stand::new().await;
    stand.topic("t", 2, &[]).await;
    stand.topic("u", 1, &[]).await;
    let mut client = stand.client().await;
    client.produce("t", 0, batch(&["a"])).await;
    let mut request = first("t", &[(1, 0)]);
    request.topics.extend(fetch_request("u", &[(0, 0)]).topics);
    request.topics.extend(fetch_request("t", &[(0, 0)]).topics);
    let response = fetch(&mut client, &request).await;
    let id = response.session_id;
    let mut all = told(&response);
    all.sort();
    assert_eq!(all, [values(0, &[]), values(0, &["a"]), values(1, &[])]);
    let response = fetch(&mut client, &next(id, 1, "t", &[(0, 1)])).await;
    assert_eq!(told(&response), [], "it stays at the new position");
    client.produce("t", 0, batch(&["b"])).await;
    let response = fetch(&mut client, &next(id, 2, "t", &[])).await;
    assert_eq!(told(&response), [values(0, &["b"])]);
}

#[tokio::test]
async fn a_session_waits_and_is_woken_without_being_located_again() {
    let stand = Stand::new().await;
    stand.topic("t", 2, &[]).await;
    let mut reader = stand.client().await;
    let id = fetch(&mut reader, &first("t", &[(0, 0), (1, 0)]))
        .await
        .session_id;
    let mut producer = stand.client().await;
    let located = || {
        stand
            .control
            .locates
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    let before = located();
    for offset in 0..3 {
        let moved: &[(i32, i64)] = if offset == 0 { &[] } else { &[(1, offset)] };
        let epoch = i32::try_from(offset).unwrap() + 1;
        let mut request = next(id, epoch, "t", moved);
        request.max_wait_ms = 30_000;
        reader.send(&request, 12).await;
        producer.produce("t", 1, batch(&["a"])).await;
        let response = reader.receive::<FetchRequest>(12).await;
        assert_eq!(told(&response), [values(1, &["a"])]);
    }
    assert_eq!(located(), before, "the notice says where the records are");
}

#[tokio::test]
async fn partitions_come_and_go() {
    let stand = Stand::new().await;
    stand.topic("t", 3, &[]).await;
    let mut client = stand.client().await;
    for partition in 0..3 {
        client.produce("t", partition, batch(&["a"])).await;
    }
    let id = fetch(&mut client, &first("t", &[(0, 1), (1, 1)]))
        .await
        .session_id;
    let mut request = next(id, 1, "t", &[(2, 0)]);
    request.forgotten_topics_data = vec![ForgottenTopic {
        topic: "t".into(),
        partitions: vec![0],
        ..ForgottenTopic::default()
    }];
    let response = fetch(&mut client, &request).await;
    assert_eq!(told(&response), [values(2, &["a"])]);
    for partition in 0..2 {
        client.produce("t", partition, batch(&["b"])).await;
    }
    let response = fetch(&mut client, &next(id, 2, "t", &[(2, 1)])).await;
    assert_eq!(told(&response), [values(1, &["b"])]);
    let mut request = next(id, 3, "t", &[]);
    request.forgotten_topics_data = vec![ForgottenTopic {
        topic: "t".into(),
        partitions: vec![1, 2],
        ..ForgottenTopic::default()
    }];
    let response = fetch(&mut client, &request).await;
    assert_eq!((response.session_id, told(&response)), (0, Vec::new()));
    let gone = fetch(&mut client, &next(id, 4, "t", &[])).await;
    assert_eq!(gone.error_code, ErrorCode::FetchSessionIdNotFound.code());
}

#[tokio::test]
async fn what_is_not_this_session_is_an_error() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let id = fetch(&mut client, &first("t", &[(0, 0)])).await.session_id;
    let other_id = if id == 7 { 8 } else { 7 };
    for (request, version, code) in [
        (next(0, 1, "t", &[]), 12, ErrorCode::FetchSessionIdNotFound),
        (
            next(other_id, 1, "t", &[]),
            12,
            ErrorCode::FetchSessionIdNotFound,
        ),
        (
            next(id, 2, "t", &[]),
            12,
            ErrorCode::InvalidFetchSessionEpoch,
        ),
        (
            next(id, 1, "t", &[]),
            13,
            ErrorCode::FetchSessionTopicIdError,
        ),
    ] {
        let response = client.call(&request, version).await;
        assert_eq!(response.error_code, code.code());
        assert_eq!((response.session_id, response.responses.len()), (0, 0));
    }
    let response = fetch(&mut client, &next(id, 1, "t", &[])).await;
    assert_eq!((response.error_code, response.session_id), (0, id));
    // A full request with the old session's id ends that session.
    let mut again = first("t", &[(0, 0)]);
    again.session_id = id;
    let new_id = fetch(&mut client, &again).await.session_id;
    assert_ne!(new_id, id);
    let old = fetch(&mut client, &next(id, 2, "t", &[])).await;
    assert_eq!(old.error_code, ErrorCode::FetchSessionIdNotFound.code());
    // Epoch -1 ends the session; the answer is that of a request without one.
    let response = fetch(&mut client, &next(new_id, -1, "t", &[(0, 0)])).await;
    assert_eq!((response.session_id, told(&response).len()), (0, 1));
    let old = fetch(&mut client, &next(new_id, 1, "t", &[])).await;
    assert_eq!(old.error_code, ErrorCode::FetchSessionIdNotFound.code());
}

#[tokio::test]
async fn there_are_so_many_sessions_and_no_more() {
    let few = agent::Settings {
        fetch_sessions_max: 2,
        ..settings()
    };
    let stand = Stand::with(few).await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(fetch(&mut client, &first("t", &[(0, 0)])).await.session_id);
    }
    assert!(ids[0] > 0 && ids[1] > 0 && ids[2] == 0, "{ids:?}");
    fetch(&mut client, &next(ids[0], -1, "t", &[])).await;
    assert!(fetch(&mut client, &first("t", &[(0, 0)])).await.session_id > 0);
}

#[tokio::test]
async fn a_session_has_one_request_at_a_time_and_can_be_begun_anew_meanwhile() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut waiting = stand.client().await;
    let id = fetch(&mut waiting, &first("t", &[(0, 0)])).await.session_id;
    let mut request = next(id, 1, "t", &[]);
    request.max_wait_ms = 60_000;
    waiting.send(&request, 12).await;
    let metrics = || stand.agent.probe().metrics();
    while !metrics().contains("seaway_agent_fetch_requests_total 2\n") {
        tokio::task::yield_now().await;
    }
    let mut other = stand.client().await;
    let code = async |other: &mut Client, epoch| {
        let response = fetch(other, &next(id, epoch, "t", &[])).await;
        ErrorCode::from_code(response.error_code).unwrap()
    };
    for epoch in [1, 2] {
        let busy = code(&mut other, epoch).await;
        assert_eq!(busy, ErrorCode::InvalidFetchSessionEpoch);
    }
    let mut again = first("t", &[(0, 0)]);
    again.session_id = id;
    assert!(fetch(&mut other, &again).await.session_id > 0);
    let gone = code(&mut other, 2).await;
    assert_eq!(gone, ErrorCode::FetchSessionIdNotFound);
    other.produce("t", 0, batch(&["a"])).await;
    let response = waiting.receive::<FetchRequest>(12).await;
    assert_eq!(told(&response), [values(0, &["a"])]);
    assert_eq!(response.session_id, 0, "it was given up meanwhile");
}

#[tokio::test]
async fn a_topic_that_is_made_again_is_found_by_name() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    client.produce("t", 0, batch(&["a"])).await;
    let id = fetch(&mut client, &first("t", &[(0, 1)])).await.session_id;
    stand.delete("t").await;
    let unknown = [(0, ErrorCode::UnknownTopicOrPartition.code(), Vec::new())];
    for epoch in 1..3 {
        let response = fetch(&mut client, &next(id, epoch, "t", &[])).await;
        assert_eq!(told(&response), unknown);
    }
    stand.topic("t", 1, &[]).await;
    client.produce("t", 0, batch(&["b"])).await;
    let response = fetch(&mut client, &next(id, 3, "t", &[(0, 0)])).await;
    assert_eq!(told(&response), [values(0, &["b"])]);
}
