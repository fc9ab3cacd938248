//! Topics and agents as clients see them.

use std::sync::atomic::Ordering::Relaxed;

use wire::errors::ErrorCode;
use wire::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use wire::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use wire::messages::describe_cluster::DescribeClusterRequest;
use wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use wire::messages::find_coordinator::FindCoordinatorRequest;
use wire::messages::init_producer_id::InitProducerIdRequest;
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use wire::uuid::Uuid;

use crate::stand::{Stand, settings};

fn named(name: &str, allow_auto_topic_creation: bool) -> MetadataRequest {
    MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(name.into()),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation,
        ..MetadataRequest::default()
    }
}

#[tokio::test]
async fn every_version_names_this_agent_as_leader() {
    let stand = Stand::new().await;
    stand.topic("t", 3, &[]).await;
    let mut client = stand.client().await;
    for version in 0..=13 {
        let request = MetadataRequest {
            topics: if version == 0 { Some(Vec::new()) } else { None },
            ..MetadataRequest::default()
        };
        let response = client.call(&request, version).await;
        let [broker] = response.brokers.as_slice() else {
            panic!("one broker")
        };
        assert_eq!(broker.port, i32::from(stand.address().port()));
        assert_eq!(broker.node_id, stand.agent.id().0);
        let [topic] = response.topics.as_slice() else {
            panic!("one topic in {version}")
        };
        assert_eq!(topic.partitions.len(), 3);
        for partition in &topic.partitions {
            assert_eq!(partition.leader_id, broker.node_id);
            assert_eq!(partition.isr_nodes, [broker.node_id]);
            if version >= 7 {
                assert_eq!(partition.leader_epoch, meta::LEADER_EPOCH);
            }
        }
    }
}

#[tokio::test]
async fn a_topic_that_is_named_often_is_described_once() {
    let stand = Stand::new().await;
    stand.topic("t", 3, &[]).await;
    let mut client = stand.client().await;
    let mut request = named("t", false);
    let topics = request.topics.as_mut().expect("one");
    *topics = vec![topics[0].clone(); 20_000];
    assert_eq!(client.call(&request, 9).await.topics.len(), 1);
}

/// Java's client sends an empty name beside an id.
#[tokio::test]
async fn an_id_decides_whatever_name_is_beside_it() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    stand.topic("other", 1, &[]).await;
    let mut client = stand.client().await;
    let id = client.call(&named("t", false), 12).await.topics[0].topic_id;
    let by_id = |topic_id: Uuid, name: Option<&str>| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            topic_id,
            name: name.map(Into::into),
        }]),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    for name in [None, Some(""), Some("other"), Some("absent")] {
        for version in [12, 13] {
            let found = &client.call(&by_id(id, name), version).await.topics[0];
            assert_eq!((found.error_code, found.name.as_deref()), (0, Some("t")));
            let unknown = Uuid::from([7; 16]);
            let found = &client.call(&by_id(unknown, name), version).await.topics[0];
            let code = ErrorCode::UnknownTopicId.code();
            assert_eq!((found.error_code, &found.name), (code, &None));
        }
        for version in [10, 11] {
            let refused = &client
                .call(&by_id(id, name.or(Some(""))), version)
                .await
                .topics[0];
            assert_eq!(refused.error_code, ErrorCode::InvalidRequest.code());
        }
    }
    assert_eq!(
        client.call(&named("absent", false), 12).await.topics[0].error_code,
        3
    );
}

#[tokio::test]
async fn topics_are_created_only_when_that_is_wanted() {
    let stand = Stand::new().await;
    let mut client = stand.client().await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let not = client.call(&named("auto", false), 12).await;
    assert_eq!(not.topics[0].error_code, unknown);
    let created = client.call(&named("auto", true), 12).await;
    assert_eq!(
        (
            created.topics[0].error_code,
            created.topics[0].partitions.len()
        ),
        (0, 2)
    );
    let invalid = client.call(&named("a b", true), 12).await;
    assert_eq!(
        invalid.topics[0].error_code,
        ErrorCode::InvalidTopicException.code()
    );

    let off = agent::Settings {
        auto_create_topics_enable: false,
        ..settings()
    };
    let stand = Stand::with(off).await;
    let refused = stand.client().await.call(&named("auto", true), 12).await;
    assert_eq!(refused.topics[0].error_code, unknown);
}

fn create(name: &str, validate_only: bool) -> CreateTopicsRequest {
    CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.into(),
            num_partitions: -1,
            replication_factor: 3,
            configs: vec![CreatableTopicConfig {
                name: "retention.ms".into(),
                value: Some("1000".into()),
            }],
            ..CreatableTopic::default()
        }],
        validate_only,
        ..CreateTopicsRequest::default()
    }
}

#[tokio::test]
async fn who_creates_a_topic_sees_it_though_another_node_does_not_know_it_yet() {
    let stand = Stand::new().await;
    stand.control.lag();
    let mut client = stand.client().await;
    let auto = client.call(&named("auto", true), 12).await;
    assert_eq!(auto.topics[0].error_code, 0);
    client.call(&create("made", false), 7).await;
    let all = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let all = client.call(&all, 12).await;
    let names: Vec<_> = all
        .topics
        .iter()
        .map(|topic| topic.name.as_deref())
        .collect();
    assert_eq!(names, [Some("auto"), Some("made")]);
}

#[tokio::test]
async fn to_ask_for_names_that_are_not_there_costs_the_journal_an_entry_at_most() {
    let stand = Stand::new().await;
    let mut client = stand.client().await;
    let of = |names: Vec<String>| MetadataRequest {
        topics: Some(
            names
                .iter()
                .map(|name| MetadataRequestTopic {
                    name: Some(name.as_str().into()),
                    ..MetadataRequestTopic::default()
                })
                .collect(),
        ),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let before = stand.control.appended();
    let unknown = of((0..1_000).map(|n| format!("unknown-{n}")).collect());
    let response = client.call(&unknown, 9).await;
    let code = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(response.topics.len(), 1_000);
    assert!(response.topics.iter().all(|topic| topic.error_code == code));
    assert_eq!(stand.control.appended(), before + 1);
    // No topic has such a name, whatever the journal says.
    let invalid = of(vec!["not a name".to_owned(), "..".to_owned()]);
    let response = client.call(&invalid, 9).await;
    let code = ErrorCode::InvalidTopicException.code();
    assert!(response.topics.iter().all(|topic| topic.error_code == code));
    assert_eq!(stand.control.appended(), before + 1);
}

#[tokio::test]
async fn a_topic_is_created_described_and_deleted() {
    let stand = Stand::new().await;
    let mut client = stand.client().await;
    let checked = client.call(&create("t", true), 7).await;
    assert_eq!(checked.topics[0].error_code, 0);
    let created = client.call(&create("t", false), 7).await;
    let topic = &created.topics[0];
    assert_eq!((topic.error_code, topic.num_partitions), (0, 2));
    assert!(!topic.topic_id.is_zero());
    let again = client.call(&create("t", false), 7).await;
    assert_eq!(
        again.topics[0].error_code,
        ErrorCode::TopicAlreadyExists.code()
    );

    let describe = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            configuration_keys: Some(vec!["retention.ms".into()]),
        }],
        include_synonyms: true,
        include_documentation: true,
    };
    let described = client.call(&describe, 4).await;
    let [config] = described.results[0].configs.as_slice() else {
        panic!("{described:?}")
    };
    assert_eq!(config.value.as_deref(), Some("1000"));
    assert_eq!((config.config_source, config.config_type), (1, 5));
    assert_eq!(config.synonyms.len(), 2);
    assert!(config.documentation.is_some());

    let delete = DeleteTopicsRequest {
        topic_names: vec!["t".into()],
        ..DeleteTopicsRequest::default()
    };
    assert_eq!(client.call(&delete, 5).await.responses[0].error_code, 0);
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(
        client.call(&delete, 5).await.responses[0].error_code,
        unknown
    );
    assert_eq!(
        client.call(&named("t", false), 12).await.topics[0].error_code,
        unknown
    );
}

#[tokio::test]
async fn the_configs_of_a_topic_are_told_before_it_is_there() {
    let stand = Stand::new().await;
    stand.control.configure("log.retention.bytes", "77");
    let mut client = stand.client().await;
    let checked = client.call(&create("t", true), 7).await;
    assert!(checked.topics[0].topic_id.is_zero());
    let told = checked.topics[0].configs.clone().unwrap();
    let of = |name: &str| {
        let config = told.iter().find(|config| &*config.name == name).unwrap();
        (config.value.as_deref().unwrap(), config.config_source)
    };
    assert_eq!(of("retention.ms"), ("1000", 1));
    assert_eq!(of("retention.bytes"), ("77", 4));
    assert_eq!(of("cleanup.policy").1, 5);
    let created = client.call(&create("t", false), 7).await;
    assert_eq!(created.topics[0].configs.as_ref(), Some(&told));
}

fn by_name(name: &str) -> DeleteTopicState {
    DeleteTopicState {
        name: Some(name.into()),
        ..DeleteTopicState::default()
    }
}

fn by_id(topic_id: Uuid) -> DeleteTopicState {
    DeleteTopicState {
        topic_id,
        ..DeleteTopicState::default()
    }
}

#[tokio::test]
async fn a_topic_is_deleted_only_if_it_is_named_once() {
    let stand = Stand::new().await;
    let mut client = stand.client().await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let created = client.call(&create(name, false), 7).await;
        ids.push(created.topics[0].topic_id);
    }
    let topics = vec![
        by_id(Uuid::ZERO),
        by_name("a"),
        by_name("a"),
        by_id(ids[1]),
        by_id(ids[1]),
        by_name("c"),
        by_id(ids[2]),
        by_id(ids[3]),
        by_name("no"),
    ];
    let delete = DeleteTopicsRequest {
        topics,
        ..DeleteTopicsRequest::default()
    };
    let response = client.call(&delete, 6).await;
    let codes: Vec<i16> = response
        .responses
        .iter()
        .map(|one| one.error_code)
        .collect();
    let refused = vec![ErrorCode::InvalidRequest.code(); 7];
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(codes, [refused, vec![0, unknown]].concat());
    let left = client.call(&MetadataRequest::default(), 12).await.topics;
    let left: Vec<&str> = left.iter().filter_map(|one| one.name.as_deref()).collect();
    assert_eq!(left, ["a", "b", "c"]);
}

#[tokio::test]
async fn partitions_are_added_as_they_are_assigned_and_once() {
    let stand = Stand::new().await;
    let mut client = stand.client().await;
    for name in ["a", "b", "c", "d"] {
        stand.topic(name, 2, &[]).await;
    }
    let raise = |name: &str, count, assigned: Option<usize>| CreatePartitionsTopic {
        name: name.into(),
        count,
        assignments: assigned.map(|number| vec![CreatePartitionsAssignment::default(); number]),
    };
    let request = CreatePartitionsRequest {
        topics: vec![
            raise("a", 4, Some(1)),
            raise("b", 4, Some(2)),
            raise("c", 4, None),
            raise("c", 5, None),
            raise("d", 4, None),
            raise("no", 4, Some(2)),
            raise("d2", 0, Some(0)),
        ],
        ..CreatePartitionsRequest::default()
    };
    let response = client.call(&request, 3).await;
    let codes: Vec<i16> = response.results.iter().map(|one| one.error_code).collect();
    let expected = [
        ErrorCode::InvalidReplicaAssignment,
        ErrorCode::None,
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidRequest,
        ErrorCode::None,
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::InvalidPartitions,
    ];
    assert_eq!(codes, expected.map(ErrorCode::code));
    let counts = ["a", "b", "c", "d"].map(|name| stand.control.find(name).partitions.len());
    assert_eq!(counts, [2, 4, 2, 4]);
    let before = stand.control.barriers.load(Relaxed);
    let request = CreatePartitionsRequest {
        topics: vec![raise("a", 3, None), raise("b", 6, Some(2))],
        ..CreatePartitionsRequest::default()
    };
    let results = client.call(&request, 3).await.results;
    assert!(results.iter().all(|one| one.error_code == 0));
    let after = stand.control.barriers.load(Relaxed);
    assert_eq!(after, before, "known topics need no current look");
}

/// Each current look costs an entry of the journal, and each view a walk over all topics.
#[tokio::test]
async fn however_many_unknown_topics_are_described_one_look_is_enough() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let names = (0..500).map(|n| format!("unknown-{n}"));
    let describe = DescribeConfigsRequest {
        resources: names
            .chain(["t".to_owned()])
            .map(|name| DescribeConfigsResource {
                resource_type: 2,
                resource_name: name.as_str().into(),
                configuration_keys: None,
            })
            .collect(),
        ..DescribeConfigsRequest::default()
    };
    let counts = || {
        let control = &stand.control;
        (control.barriers.load(Relaxed), control.views.load(Relaxed))
    };
    client.call(&describe, 4).await;
    let (barriers, views) = counts();
    let results = client.call(&describe, 4).await.results;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let codes: Vec<i16> = results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [vec![unknown; 500], vec![0]].concat());
    assert_eq!(counts(), (barriers + 1, views), "nothing has changed");
}

fn describe(names: &[&str], keys: Option<&[&str]>) -> DescribeConfigsRequest {
    let keys = keys.map(|keys| keys.iter().map(|key| (*key).into()).collect::<Vec<_>>());
    DescribeConfigsRequest {
        resources: names
            .iter()
            .map(|name| DescribeConfigsResource {
                resource_type: 2,
                resource_name: (*name).into(),
                configuration_keys: keys.clone(),
            })
            .collect(),
        ..DescribeConfigsRequest::default()
    }
}

#[tokio::test]
async fn no_keys_and_none_at_all_both_ask_for_all_configs() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    let mut client = stand.client().await;
    let mut count = async |keys| {
        let response = client.call(&describe(&["t"], keys), 4).await;
        response.results[0].configs.len()
    };
    let all = count(None).await;
    assert!(all > 10);
    assert_eq!(count(Some(&[])).await, all);
    assert_eq!(count(Some(&["retention.ms", "no.such"])).await, 1);
}

/// A request of eight bytes would be answered with thousands.
#[tokio::test]
async fn what_is_named_again_is_described_once() {
    let stand = Stand::new().await;
    stand.topic("t", 1, &[]).await;
    stand.topic("u", 1, &[]).await;
    let mut client = stand.client().await;
    let names = ["t", "u", "t", "no", "t", "no"];
    let response = client.call(&describe(&names, None), 4).await;
    let results = response.results.iter();
    let told: Vec<&str> = results.map(|result| &*result.resource_name).collect();
    assert_eq!(told, ["t", "u", "no"]);

    // A broker has one name, too.
    let id = stand.agent.id().0;
    let names = [format!("{id}"), format!("0{id}"), format!("+{id}")];
    let mut request = describe(&names.each_ref().map(String::as_str), None);
    for resource in &mut request.resources {
        resource.resource_type = 4;
    }
    let response = client.call(&request, 4).await;
    let codes: Vec<i16> = response.results.iter().map(|one| one.error_code).collect();
    let refused = ErrorCode::InvalidRequest.code();
    assert_eq!(codes, [0, refused, refused]);
}

#[tokio::test]
async fn any_replication_factor_is_taken_that_a_cluster_of_kafka_could_have() {
    let stand = Stand::new().await;
    let mut client = stand.client().await;
    let refused = ErrorCode::InvalidReplicationFactor.code();
    let none = ErrorCode::None.code();
    let cases = [
        (-1, none),
        (1, none),
        (3, none),
        (5, none),
        (i16::MAX, none),
        (0, refused),
        (-2, refused),
        (i16::MIN, refused),
    ];
    for (at, (factor, expected)) in cases.into_iter().enumerate() {
        for validate_only in [true, false] {
            let mut request = create(&format!("t{at}"), validate_only);
            request.topics[0].replication_factor = factor;
            let response = client.call(&request, 7).await;
            let topic = &response.topics[0];
            assert_eq!(topic.error_code, expected, "factor {factor}");
            if expected == refused {
                assert!(
                    topic
                        .error_message
                        .as_deref()
                        .unwrap()
                        .contains("at least 1")
                );
            } else {
                // The factor in the answer is that of the topic's metadata: as many as were asked for, within reason.
                let shown = factor.clamp(1, 16);
                assert_eq!(topic.replication_factor, shown, "factor {factor}");
            }
        }
    }
    for (name, shown) in [("t0", 1), ("t2", 3), ("t4", 16)] {
        let told = client.call(&named(name, false), 12).await;
        let partition = &told.topics[0].partitions[0];
        assert_eq!(partition.replica_nodes, vec![stand.agent.id().0; shown]);
        assert_eq!(partition.isr_nodes, partition.replica_nodes);
    }
}

#[tokio::test]
async fn the_cluster_and_its_coordinators_are_this_agent() {
    let stand = Stand::new().await;
    let mut client = stand.client().await;
    let cluster = client
        .call(
            &DescribeClusterRequest {
                endpoint_type: 1,
                ..Default::default()
            },
            1,
        )
        .await;
    assert_eq!(cluster.cluster_id, stand.agent.cluster_id());
    assert_eq!(cluster.brokers.len(), 1);
    let find = FindCoordinatorRequest {
        coordinator_keys: vec!["a".into(), "b".into()],
        ..FindCoordinatorRequest::default()
    };
    let found = client.call(&find, 4).await;
    let port = i32::from(stand.address().port());
    assert!(
        found
            .coordinators
            .iter()
            .all(|one| (one.error_code, one.port) == (0, port))
    );
    let transactional = FindCoordinatorRequest {
        key_type: 1,
        ..find
    };
    let refused = client.call(&transactional, 4).await;
    let fatal = ErrorCode::TransactionalIdAuthorizationFailed.code();
    assert!(
        refused
            .coordinators
            .iter()
            .all(|one| one.error_code == fatal)
    );
    let init = InitProducerIdRequest {
        transactional_id: Some("x".into()),
        ..InitProducerIdRequest::default()
    };
    assert_eq!(client.call(&init, 4).await.error_code, fatal);
}
