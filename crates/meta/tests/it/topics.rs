//! Topics and configs.

use meta::Command;
use meta::command::{ConfigChanges, CreateTopic};
use meta::commit::BatchOutcome;
use meta::config::{Source, topic_value};
use meta::ids::{PartitionId, TopicId};
use meta::places::Fate;
use meta::reply::{Event, Reply};
use meta::topic::Refusal;

use crate::support::{Cluster, GRACE, create, file, file_id, plain, set, topic_id};

fn refusal(reply: Reply) -> Refusal {
    match reply {
        Reply::TopicRefused(refusal) => refusal,
        other => panic!("it is refused: {other:?}"),
    }
}

fn create_with(name: &str, configs: &[(&str, &str)]) -> Command {
    let Command::CreateTopic(topic) = create(name, 1) else {
        unreachable!("it creates")
    };
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Command::CreateTopic(CreateTopic {
        configs: configs.iter().map(pair).collect(),
        ..topic
    })
}

#[test]
fn a_topic_has_partitions_of_its_own() {
    let mut cluster = Cluster::new();
    assert_eq!(
        cluster.apply(&create("b", 2)),
        Reply::Topic { id: topic_id("b") }
    );
    assert_eq!(
        cluster.events,
        [Event::TopicsChanged {
            ids: vec![topic_id("b")]
        }]
    );
    let version = cluster.state.view_version();
    assert_eq!(
        cluster.apply(&create("b", 2)),
        Reply::Topic { id: topic_id("b") },
        "a repeat"
    );
    assert_eq!(cluster.state.view_version(), version);
    let a = cluster.topic("a", 3);
    assert_eq!(a, [PartitionId(3), PartitionId(4), PartitionId(5)]);
    let names: Vec<_> = cluster
        .state
        .topics()
        .iter()
        .map(|topic| &topic.name)
        .collect();
    assert_eq!(names, ["a", "b"]);
    let partition = cluster.state.partition(PartitionId(4)).expect("it exists");
    assert_eq!((partition.topic(), partition.index()), (topic_id("a"), 1));
    assert_eq!(
        cluster.state.topic_by_id(topic_id("a")),
        cluster.state.topic("a")
    );
}

#[test]
fn creation_is_refused_as_kafka_does() {
    let mut cluster = Cluster::new();
    cluster.topic("a.b", 1);
    let taken = CreateTopic {
        id: topic_id("a.b"),
        name: "other".to_owned(),
        partitions: 1,
        configs: Default::default(),
        replication_factor: 0,
    };
    let zero = CreateTopic {
        id: TopicId(0),
        ..taken.clone()
    };
    let again = CreateTopic {
        id: TopicId(9),
        name: "a.b".to_owned(),
        ..taken.clone()
    };
    let cases = [
        (
            Command::CreateTopic(again),
            Refusal::Exists {
                name: "a.b".to_owned(),
            },
        ),
        (
            create("a_b", 1),
            Refusal::InvalidName {
                reason: String::new(),
            },
        ),
        (
            create("a/b", 1),
            Refusal::InvalidName {
                reason: String::new(),
            },
        ),
        (
            create("c", 0),
            Refusal::InvalidPartitions {
                reason: String::new(),
            },
        ),
        (
            create("c", 100_001),
            Refusal::InvalidPartitions {
                reason: String::new(),
            },
        ),
        (
            create_with("c", &[("no.such", "1")]),
            Refusal::InvalidConfig {
                reason: String::new(),
            },
        ),
        (
            create_with("c", &[("cleanup.policy", "compact")]),
            Refusal::InvalidConfig {
                reason: String::new(),
            },
        ),
        (
            Command::CreateTopic(taken),
            Refusal::Policy {
                reason: String::new(),
            },
        ),
        (
            Command::CreateTopic(zero),
            Refusal::Policy {
                reason: String::new(),
            },
        ),
    ];
    for (command, expected) in cases {
        if let Command::CreateTopic(request) = &command {
            let checked = cluster.state.check_create_topic(request);
            let checked = checked.map_err(|refusal| std::mem::discriminant(&refusal));
            assert_eq!(
                checked,
                Err(std::mem::discriminant(&expected)),
                "validate only"
            );
        }
        let found = refusal(cluster.apply(&command));
        assert_eq!(
            std::mem::discriminant(&found),
            std::mem::discriminant(&expected),
            "{command:?}: {found}"
        );
    }
    assert_eq!(cluster.state.topics().len(), 1);
    let compact = refusal(cluster.apply(&create_with("c", &[("cleanup.policy", "compact")])));
    assert!(compact.to_string().contains("not supported"), "{compact}");
}

#[test]
fn partitions_are_added_never_taken_away() {
    let mut cluster = Cluster::new();
    cluster.topic("t", 2);
    cluster.topic("u", 1);
    let grow = |total| Command::CreatePartitions {
        id: topic_id("t"),
        total,
    };
    assert_eq!(cluster.apply(&grow(4)), Reply::Topic { id: topic_id("t") });
    let partitions = &cluster.state.topic("t").expect("it exists").partitions;
    assert_eq!(*partitions, [1, 2, 4, 5].map(PartitionId));
    for total in [0, 1, 4, 100_001] {
        let refused = refusal(cluster.apply(&grow(total)));
        assert!(
            matches!(refused, Refusal::InvalidPartitions { .. }),
            "{total}"
        );
        assert!(
            cluster
                .state
                .check_create_partitions(topic_id("t"), total)
                .is_err()
        );
    }
    let nowhere = Command::CreatePartitions {
        id: TopicId(5),
        total: 2,
    };
    assert_eq!(refusal(cluster.apply(&nowhere)), Refusal::Unknown);
}

#[test]
fn what_was_written_for_a_deleted_topic_never_appears_under_a_new_one() {
    let mut cluster = Cluster::new();
    let old = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    let first = file(file_id(run, 0), &[(old, &[plain(5)])]);
    cluster.commit(&first);
    let delete = Command::DeleteTopic { id: topic_id("t") };
    assert_eq!(cluster.apply(&delete), Reply::Topic { id: topic_id("t") });
    assert_eq!(refusal(cluster.apply(&delete)), Refusal::Unknown);
    assert!(cluster.state.partition(old).is_none());
    let late = refusal(cluster.apply(&create("t", 1)));
    assert!(
        matches!(late, Refusal::Policy { .. }),
        "a repeat that comes after the deletion: {late:?}"
    );
    let again = CreateTopic {
        id: TopicId(77),
        name: "t".to_owned(),
        partitions: 1,
        configs: Default::default(),
        replication_factor: 0,
    };
    cluster.apply(&Command::CreateTopic(again));
    let new = cluster
        .state
        .topic("t")
        .expect("it exists again")
        .partitions[0];
    assert_ne!(new, old);
    assert_eq!(cluster.bounds(new), (0, 0));
    let late = file(file_id(run, 1), &[(old, &[plain(1)])]);
    assert_eq!(*cluster.outcomes(&late), [BatchOutcome::UnknownPartition]);

    assert_eq!(
        cluster.fate(first.file),
        Fate::Live,
        "until housekeeping comes to it"
    );
    cluster.housekeep();
    assert_eq!(cluster.fate(first.file), Fate::Tombstoned);
    assert_eq!(cluster.state.collectable(0, 9), []);
    cluster.pass(GRACE);
    cluster.housekeep();
    let files: Vec<_> = cluster
        .state
        .collectable(0, 9)
        .iter()
        .map(|found| found.file)
        .collect();
    assert_eq!(files, [first.file, late.file]);
    assert_eq!(cluster.forget(files).len(), 0);
    assert_eq!(cluster.fate(first.file), Fate::Dead);
}

#[test]
fn configs_are_set_described_and_taken_back() {
    let mut cluster = Cluster::new();
    cluster.topic("t", 1);
    let id = topic_id("t");
    let in_force = |cluster: &Cluster| {
        let topic = cluster.state.topic("t").expect("it exists");
        let of_cluster = cluster.state.topics().cluster_configs();
        topic_value(
            &meta::level::one::LEVEL,
            of_cluster,
            &topic.configs,
            "retention.ms",
        )
        .to_owned()
    };
    assert_eq!(in_force(&cluster), "604800000");
    assert!(matches!(
        cluster.configure_cluster("log.retention.ms", "5"),
        Reply::Topic { .. }
    ));
    assert_eq!(cluster.events, [Event::TopicsChanged { ids: vec![] }]);
    assert_eq!(in_force(&cluster), "5");
    assert_eq!(
        cluster.configure("t", "retention.ms", "7"),
        Reply::Topic { id }
    );
    assert_eq!(in_force(&cluster), "7");
    let topic = cluster.state.topic("t").expect("it exists");
    let described = cluster.state.describe_topic(topic);
    let retention = described
        .iter()
        .find(|config| config.setting.name == "retention.ms");
    assert_eq!(retention.expect("it is listed").source, Source::Topic);
    assert_eq!(
        cluster.configure("t", "retention.ms", "7"),
        Reply::Topic { id }
    );
    assert_eq!(cluster.events, [], "nothing is different");

    let wrong = cluster.configure("t", "retention.ms", "-7");
    assert!(matches!(refusal(wrong), Refusal::InvalidConfig { .. }));
    let unknown = ConfigChanges {
        remove: ["nothing".to_owned()].into(),
        ..set("flush.ms", "1")
    };
    let reply = cluster.apply(&Command::SetTopicConfigs {
        id,
        changes: unknown,
    });
    assert!(matches!(refusal(reply), Refusal::InvalidConfig { .. }));
    assert_eq!(in_force(&cluster), "7");
    let remove = ConfigChanges {
        remove: ["retention.ms".to_owned()].into(),
        ..Default::default()
    };
    cluster.apply(&Command::SetTopicConfigs {
        id,
        changes: remove,
    });
    assert_eq!(in_force(&cluster), "5");
    let cluster_configs = cluster.state.describe_cluster();
    assert!(
        cluster_configs
            .iter()
            .any(|config| config.setting.name == "log.retention.ms")
    );
    assert_eq!(cluster.state.cluster_config("log.retention.ms"), "5");
}
