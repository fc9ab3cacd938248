//! Requests as they reach the coordinator of groups.

use rpc::group::{FetchGroup, GroupRequest, TopicName};
use wire::frame::encode_request;
use wire::message::RequestBody;
use wire::messages::describe_groups::DescribeGroupsRequest;
use wire::messages::join_group::JoinGroupRequest;
use wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use wire::text::Str;

use crate::stand::Stand;

/// The request that the coordinator gets for a client's request.
async fn asked<R: RequestBody>(request: &R, client_id: &Str, version: i16) -> GroupRequest {
    let stand = Stand::new().await;
    let mut client = stand.client().await;
    let frame = encode_request(request, 1, Some(client_id), version).unwrap();
    client.raw(&frame.to_bytes()).await;
    client.frame().await.expect("an answer");
    let asked = stand.control.asked_of_groups.lock().unwrap().pop();
    asked.expect("something is asked")
}

#[tokio::test]
async fn the_id_of_a_member_fits_into_an_answer_however_long_its_clients_is() {
    // Characters of two bytes, so that a cut at 255 bytes would be within one.
    let longest = Str::from("\u{e4}".repeat(16_383));
    let fixed = JoinGroupRequest {
        group_instance_id: Some(longest.clone()),
        ..JoinGroupRequest::default()
    };
    for request in [JoinGroupRequest::default(), fixed] {
        let GroupRequest::Join(asked) = asked(&request, &longest, 9).await else {
            panic!("a join is asked for")
        };
        assert_eq!(asked.join.client_id.len(), longest.len());
        let prefix = "\u{e4}".repeat(127);
        assert!(asked.fresh_member.starts_with(&format!("{prefix}-")));
        assert!(asked.fresh_member.len() < 300);
    }
}

#[tokio::test]
async fn a_group_is_described_once_however_often_it_is_named() {
    let names = ["b", "a", "b", "c", "a"];
    let request = DescribeGroupsRequest {
        groups: names.map(Str::from).to_vec(),
        ..DescribeGroupsRequest::default()
    };
    let asked = asked(&request, &Str::EMPTY, 5).await;
    let once = ["b", "a", "c"].map(str::to_owned);
    assert_eq!(asked, GroupRequest::Describe(once.to_vec()));
}

#[tokio::test]
async fn offsets_are_looked_up_once_however_often_they_are_named() {
    let named = |name: &str| TopicName::Name(name.to_owned());
    let single = [("t", vec![1, 0, 1]), ("u", vec![]), ("t", vec![2, 0])];
    let request = OffsetFetchRequest {
        group_id: "g".into(),
        topics: Some(
            single
                .map(|(name, partition_indexes)| OffsetFetchRequestTopic {
                    name: name.into(),
                    partition_indexes,
                })
                .to_vec(),
        ),
        ..OffsetFetchRequest::default()
    };
    let GroupRequest::Fetch(groups) = asked(&request, &Str::EMPTY, 7).await else {
        panic!("offsets are asked for")
    };
    let expected = FetchGroup {
        group: "g".to_owned(),
        topics: Some(vec![(named("t"), vec![1, 0, 2]), (named("u"), vec![])]),
    };
    assert_eq!(groups, [expected]);

    let group = |id: &str, topics: Option<&[(&str, i32)]>| OffsetFetchRequestGroup {
        group_id: id.into(),
        topics: topics.map(|topics| {
            let topics = topics
                .iter()
                .map(|(name, partition)| OffsetFetchRequestTopics {
                    name: (*name).into(),
                    partition_indexes: vec![*partition],
                    ..OffsetFetchRequestTopics::default()
                });
            topics.collect()
        }),
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest {
        groups: vec![
            group("h", Some(&[("t", 0)])),
            group("g", Some(&[("t", 0)])),
            group("h", Some(&[("u", 0), ("t", 1)])),
            group("g", None),
        ],
        ..OffsetFetchRequest::default()
    };
    let GroupRequest::Fetch(groups) = asked(&request, &Str::EMPTY, 8).await else {
        panic!("offsets are asked for")
    };
    let expected = [
        FetchGroup {
            group: "h".to_owned(),
            topics: Some(vec![(named("t"), vec![0, 1]), (named("u"), vec![0])]),
        },
        FetchGroup {
            group: "g".to_owned(),
            topics: None,
        },
    ];
    assert_eq!(groups, expected);
}
