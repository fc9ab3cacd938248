//! Commands as bytes: the worked examples of docs/formats/commands.md, and strictness.

use meta::Command;
use meta::command::{
    Bucket, BucketCompared, ConfigChanges, ControlNode, CreateTopic, DropCopies, Placement,
    RegisterAgent,
};
use meta::commit::Batch;
use meta::commit::CommitFile;
use meta::encoding::DecodeError;
use meta::endpoint::Endpoint;
use meta::group;
use meta::ids::{Incarnation, PartitionId, ProducerId, TopicId};
use meta::level::one::LEVEL as ONE;
use meta::level::{Level, TooNew};

use crate::support::{file, file_id, hex, idempotent, named, page, plain, set};

const FORMAT: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/formats/commands.md"
));

/// An example of every command, under its name in the page.
fn examples() -> Vec<(&'static str, Command)> {
    let topic = TopicId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let run = Incarnation(3);
    let batches = [plain(2), idempotent(7, 0, 40, 3)];
    let bucket = |domain| Bucket {
        domain,
        generation: 1,
    };
    let changes = ConfigChanges {
        remove: ["flush.ms".to_owned()].into(),
        ..set("retention.ms", "9")
    };
    let endpoint = |host: &str, port| Endpoint {
        host: host.to_owned(),
        port,
    };
    let agent = RegisterAgent {
        nonce: 0xffee_ddcc_bbaa_9988_7766_5544_3322_1100,
        name: "agent-0".to_owned(),
        listeners: [
            ("EXTERNAL".to_owned(), endpoint("kafka.example", 19_092)),
            ("INTERNAL".to_owned(), endpoint("10.0.0.5", 9_092)),
        ]
        .into(),
        region: "eu-1".to_owned(),
        zone: "a".to_owned(),
        neighbour_address: "10.0.0.5:7072".to_owned(),
        level: 1,
    };
    let create = CreateTopic {
        id: topic,
        name: "orders".to_owned(),
        partitions: 12,
        configs: [("retention.ms".to_owned(), "3600000".to_owned())].into(),
        replication_factor: 3,
    };
    let node = ControlNode {
        nonce: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        name: "c-0".to_owned(),
        claims_as: "c-0 of 7".to_owned(),
        address: "10.0.0.6:9094".to_owned(),
        region: "eu-1".to_owned(),
        zone: "a".to_owned(),
        level: 1,
    };
    let files = [file_id(run, 4), file_id(run, 6), file_id(Incarnation(5), 0)].map(named);
    let commit = file(
        file_id(run, 4),
        &[(PartitionId(1), &batches), (PartitionId(300), &[plain(1)])],
    );
    vec![
        ("RegisterAgent", Command::RegisterAgent(agent)),
        ("FenceAgent", Command::FenceAgent { incarnation: run }),
        ("DrainAgent", Command::DrainAgent { incarnation: run }),
        (
            "SetAgentCutOff",
            Command::SetAgentCutOff {
                incarnation: run,
                cut_off: true,
            },
        ),
        ("CommitFile", Command::CommitFile(commit)),
        (
            "SkipFile",
            Command::SkipFile {
                file: file_id(run, 5),
            },
        ),
        ("CreateTopic", Command::CreateTopic(create)),
        ("DeleteTopic", Command::DeleteTopic { id: topic }),
        (
            "CreatePartitions",
            Command::CreatePartitions {
                id: topic,
                total: 24,
            },
        ),
        (
            "SetTopicConfigs",
            Command::SetTopicConfigs { id: topic, changes },
        ),
        (
            "SetClusterConfigs",
            Command::SetClusterConfigs {
                replaces: 3,
                changes: set("num.partitions", "4"),
            },
        ),
        (
            "AllocateProducer",
            Command::AllocateProducer {
                known: Some((ProducerId(7), 2)),
            },
        ),
        ("Housekeep", Command::Housekeep),
        (
            "FilesDeleted",
            Command::FilesDeleted {
                bucket: 2,
                files: files.into(),
            },
        ),
        (
            "AddCopies",
            Command::AddCopies {
                bucket: 2,
                files: files.into(),
            },
        ),
        (
            "DropCopies",
            Command::DropCopies(DropCopies {
                by: Incarnation(7),
                bucket: 2,
                is_missing: true,
                files: files.into(),
            }),
        ),
        (
            "BucketCompared",
            Command::BucketCompared(BucketCompared {
                by: Incarnation(7),
                bucket: 2,
                since_ticks: 1_000,
            }),
        ),
        (
            "MarkBucket",
            Command::MarkBucket {
                bucket: 2,
                is_away: true,
            },
        ),
        ("RegisterControlNode", Command::RegisterControlNode(node)),
        (
            "RemoveControlNode",
            Command::RemoveControlNode {
                name: "c-0".to_owned(),
                nonce: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
            },
        ),
        ("SetFeatureLevel", Command::SetFeatureLevel { level: 2 }),
        (
            "SetPlacement",
            Command::SetPlacement(Placement {
                number: 1,
                copies: 2,
                buckets: [(0, bucket(0)), (1, bucket(1)), (2, bucket(2))].into(),
            }),
        ),
        (
            "SetTime",
            Command::SetTime {
                wall_millis: 1_700_000_000_000,
            },
        ),
        (
            "Group",
            Command::Group(group::Command {
                group: "g".to_owned(),
                action: group::Action::Delete,
            }),
        ),
    ]
}

#[test]
fn every_command_is_written_as_the_page_says() {
    let page = page(FORMAT);
    let examples = examples();
    for (name, command) in &examples {
        let written = hex(&command.encode(&ONE).expect("level 1 has it"));
        assert_eq!(page.get(*name), Some(&written), "{name}");
        assert_eq!(
            Command::decode(&command.encode(&ONE).expect("level 1 has it")).as_ref(),
            Ok(command),
            "{name}"
        );
    }
    assert_eq!(
        page.len(),
        examples.len(),
        "the page has an example of each and no other"
    );
}

#[test]
fn a_cut_or_extended_command_is_refused_or_another_one() {
    for (name, command) in examples() {
        let bytes = command.encode(&ONE).expect("level 1 has it");
        for cut in 0..bytes.len() {
            assert_ne!(
                Command::decode(&bytes[..cut]).ok().as_ref(),
                Some(&command),
                "{name}"
            );
        }
        for more in 0..=255 {
            let extended = [bytes.as_slice(), &[more]].concat();
            assert!(Command::decode(&extended).is_err(), "{name} and {more:02x}");
        }
    }
}

#[test]
fn a_flipped_bit_is_refused_or_another_command() {
    for (name, command) in examples() {
        let bytes = command.encode(&ONE).expect("level 1 has it");
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            if let Ok(other) = Command::decode(&flipped) {
                assert_ne!(other, command, "{name}, bit {at}");
                assert_eq!(
                    other.encode(&ONE).expect("level 1 has it"),
                    flipped,
                    "{name}, bit {at}: there is one way to write it"
                );
            }
        }
    }
}

#[test]
fn what_this_build_would_not_write_is_refused() {
    let not_canonical: [(&str, &[u8]); 9] = [
        ("an unknown kind", &[0xaa, 0x06, 0x00]),
        (
            "an unknown field of a kind",
            &[0x12, 0x04, 0x08, 0x03, 0x10, 0x01],
        ),
        ("a default that is written", &[0x12, 0x02, 0x08, 0x00]),
        (
            "a varint longer than need be",
            &[0x12, 0x03, 0x08, 0x83, 0x00],
        ),
        ("a field twice", &[0x12, 0x04, 0x08, 0x03, 0x08, 0x03]),
        ("two kinds", &[0x12, 0x02, 0x08, 0x03, 0x5a, 0x00]),
        ("fields out of order", &[0x22, 0x04, 0x10, 0x01, 0x08, 0x03]),
        (
            "a number cut to 32 bits",
            &[0x7a, 0x06, 0x08, 0x81, 0x80, 0x80, 0x80, 0x18],
        ),
        (
            "a column in two parts",
            &[0x1a, 0x06, 0x32, 0x01, 0x00, 0x32, 0x01, 0x01],
        ),
    ];
    for (what, bytes) in not_canonical {
        assert_eq!(
            Command::decode(bytes),
            Err(DecodeError::NotCanonical),
            "{what}"
        );
    }
    let values: [(&str, &[u8]); 7] = [
        ("no kind", &[]),
        ("a topic id of one byte", &[0x32, 0x03, 0x0a, 0x01, 0x07]),
        (
            "files that are not sorted",
            &[0x62, 0x06, 0x0a, 0x04, 0x12, 0x02, 0x02, 0x01],
        ),
        (
            "listeners that are not sorted",
            &[
                0x0a, 0x0a, 0x1a, 0x03, 0x0a, 0x01, b'b', 0x1a, 0x03, 0x0a, 0x01, b'a',
            ],
        ),
        (
            "a port of more than 16 bits",
            &[0x0a, 0x06, 0x1a, 0x04, 0x18, 0x80, 0x80, 0x04],
        ),
        (
            "a replication factor of more than 16 bits",
            &[0x2a, 0x04, 0x28, 0x80, 0x80, 0x04],
        ),
        (
            "configs that are not sorted",
            &[
                0x4a, 0x0a, 0x0a, 0x03, 0x0a, 0x01, b'b', 0x0a, 0x03, 0x0a, 0x01, b'a',
            ],
        ),
    ];
    for (what, bytes) in values {
        let refused = Command::decode(bytes);
        assert!(
            matches!(refused, Err(DecodeError::Value { .. })),
            "{what}: {refused:?}"
        );
    }
    assert!(matches!(
        Command::decode(&[0x12, 0x05]),
        Err(DecodeError::Shape(_))
    ));
}

#[test]
fn so_many_batches_fit_into_a_commit_whatever_they_are() {
    for bytes in [64 << 10, 4 << 20] {
        let count = meta::encoding::batches_in_commit(bytes);
        let largest = Batch {
            records: u32::MAX,
            bytes: u32::MAX,
            max_timestamp: i64::MIN,
            producer_id: i64::MIN,
            producer_epoch: i16::MIN,
            base_sequence: i32::MIN,
            time_source: meta::commit::TimeSource::Header,
        };
        let mut commit = CommitFile {
            file: file_id(Incarnation(u64::MAX), u64::MAX),
            nonce: u32::MAX,
            length: u64::MAX,
            checksum: u32::MAX,
            placement: (0..64).collect(),
            ..CommitFile::default()
        };
        for _ in 0..count {
            commit.push_slice(PartitionId(u64::MAX), u64::MAX);
            commit.push_batch(largest);
            *commit.slices.batches.last_mut().unwrap() = u32::MAX;
        }
        let taken = Command::CommitFile(commit)
            .encode(&ONE)
            .expect("level 1 has it")
            .len();
        assert!(taken <= bytes, "{count} batches take {taken} of {bytes}");
    }
    // A request has room even in the smallest entry that may be set.
    assert!(meta::encoding::batches_in_commit(64 << 10) > 900);
}

#[test]
fn what_a_level_does_not_have_cannot_be_written() {
    let nothing = Level { number: 0, ..ONE };
    let too_new = TooNew::ForLevel { since: 1, level: 0 };
    for (name, command) in examples() {
        assert_eq!(command.encode(&nothing), Err(too_new), "{name}");
    }
}
