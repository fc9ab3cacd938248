//! What is told of commands that are left out.

use meta::command::{ConfigChanges, CreateTopic, RegisterAgent};
use meta::commit::{Batch, TimeSource};
use meta::group::{Action, CommitOffsets, OffsetEntry};
use meta::ids::{EntryId, FileId, Incarnation, Stamp};

use super::*;

const TOPIC: TopicId = TopicId(7);
const UNKNOWN: TopicId = TopicId(8);

fn create(name: &str) -> Command {
    Command::CreateTopic(CreateTopic {
        id: TOPIC,
        name: name.to_owned(),
        partitions: 2,
        configs: BTreeMap::new(),
        replication_factor: 0,
    })
}

/// A cluster with a topic of two partitions.
fn state() -> State {
    let mut state = State::genesis("AAAAAAAAAAAAAAAAAAAAAA".to_owned());
    state.apply(EntryId::default(), Stamp::default(), &create("orders"));
    assert!(state.topic("orders").is_some());
    state
}

fn batch(records: u32) -> Batch {
    Batch {
        records,
        bytes: 70,
        max_timestamp: 1_000,
        time_source: TimeSource::Records,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
    }
}

#[test]
fn of_a_file_it_is_told_how_many_records_of_which_partition_were_in_it() {
    let state = state();
    let topic = state.topic("orders").expect("it is there");
    let second = topic.partitions[1];
    let mut file = CommitFile {
        file: FileId {
            incarnation: Incarnation(5),
            number: 17,
        },
        ..CommitFile::default()
    };
    file.push_slice(second, 16);
    file.push_batch(batch(3));
    file.push_batch(batch(4));
    file.push_slice(PartitionId(900), 300);
    file.push_batch(batch(1));
    assert_eq!(
        lines(&state, &Command::CommitFile(file.clone())),
        [
            "7 records of partition 1 of topic orders, in file 5-17",
            "1 records of the partition of id 900, which is not known before this entry, in file 5-17"
        ]
    );
    // Columns of other lengths, as no agent writes them.
    file.batches.records.truncate(1);
    file.slices.batches[0] = u32::MAX;
    assert_eq!(lines(&state, &Command::CommitFile(file)).len(), 2);
}

#[test]
fn of_offsets_it_is_told_which_group_had_them_in_which_topic() {
    let offset = |topic, partition| OffsetEntry {
        topic,
        partition,
        offset: 9,
        leader_epoch: -1,
        metadata: String::new(),
    };
    let commit = CommitOffsets {
        by: None,
        member: String::new(),
        instance: None,
        generation: -1,
        offsets: vec![offset(TOPIC, 0), offset(TOPIC, 1), offset(UNKNOWN, 0)],
    };
    let command = |action| {
        Command::Group(group::Command {
            group: "billing".to_owned(),
            action,
        })
    };
    let told = lines(&state(), &command(Action::Commit(commit)));
    assert_eq!(
        told[0],
        "offsets of group billing in 2 partitions of topic orders"
    );
    assert!(
        told[1].contains("in 1 partitions of topic of id"),
        "{told:?}"
    );
    assert_eq!(told.len(), 2);
    let told = lines(&state(), &command(Action::Expire(vec!["m".to_owned()])));
    assert_eq!(told, ["what was noted of members of group billing"]);
}

#[test]
fn of_topics_it_is_told_what_was_to_become_of_them() {
    let state = state();
    let told = |command| lines(&state, &command).join("; ");
    assert_eq!(
        told(create("new")),
        "topic new, of 2 partitions, is not created"
    );
    assert_eq!(
        told(Command::DeleteTopic { id: TOPIC }),
        "topic orders is not deleted"
    );
    let changes = ConfigChanges::default();
    assert_eq!(
        told(Command::SetTopicConfigs { id: TOPIC, changes }),
        "configs of topic orders are not set"
    );
    let agent = RegisterAgent {
        nonce: 1,
        name: "a".to_owned(),
        listeners: BTreeMap::new(),
        region: String::new(),
        zone: String::new(),
        neighbour_address: String::new(),
        level: 1,
    };
    assert_eq!(
        told(Command::RegisterAgent(agent)),
        "agent a is not registered by it"
    );
}
