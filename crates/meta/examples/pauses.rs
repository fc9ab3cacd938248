//! How long one command, one question or a capture keeps all others waiting where there is much of
//! everything: `cargo run --release -p meta --example pauses`. It prints the longest of each kind.

#![allow(
    clippy::disallowed_methods,
    reason = "it measures time, and replays nothing"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use meta::command::{ConfigChanges, CreateTopic, RegisterAgent};
use meta::commit::CommitFile;
use meta::group::{Action, Command as GroupCommand, CommitOffsets, OffsetEntry};
use meta::ids::Stamp;
use meta::ids::{EntryId, FileId, Incarnation, PartitionId, TopicId};
use meta::reply::Reply;
use meta::{Command, State};

const TOPICS: u128 = 99_990;
const GROUPS: u128 = 100_000;
const FILES: u64 = 1_000_000;
/// Has offsets in every group, and is deleted.
const POPULAR: TopicId = TopicId(1);

fn main() {
    let mut cluster = Cluster {
        state: State::genesis("AAAAAAAAAAAAAAAAAAAAAA".to_owned()),
        longest: BTreeMap::new(),
    };
    for id in 1..=TOPICS {
        cluster.apply("create", &create(id, 1));
    }
    for group in 0..GROUPS {
        cluster.apply("commit offsets", &commit_offsets(group));
    }
    cluster.apply("register", &register());
    for number in 0..FILES {
        cluster.apply("commit a file of which nothing is kept", &file(number));
    }
    let before = cluster.longest.clone();

    let captured = cluster.timed("capture", |state| state.capture());
    cluster.apply("first create after a capture", &create(TOPICS + 1, 1));
    cluster.apply("first configs after a capture", &configure(POPULAR));
    cluster.apply("first offsets after a capture", &commit_offsets(7));
    cluster.apply("create 100,000 partitions", &create(TOPICS + 2, 100_000));
    cluster.apply("delete a topic of all groups", &delete(POPULAR));
    let large = TopicId(TOPICS + 2);
    cluster.apply("delete 100,000 partitions", &delete(large));
    while let Reply::Housekept { more: true } = cluster.apply("housekeep", &Command::Housekeep) {}
    let files = cluster.timed("collectable", |state| state.collectable(0, 1_000));
    let deleted = Command::FilesDeleted {
        bucket: 0,
        files: files.into_iter().collect(),
    };
    cluster.apply("files deleted", &deleted);
    cluster.timed("totals", |state| state.totals());

    let began = cpu_time();
    let chunks = captured.encode_chunks();
    println!("encode: {:.0} ms of CPU", millis(cpu_time() - began));
    let began = cpu_time();
    State::restore(&chunks).expect("what was captured can be restored");
    println!("restore: {:.0} ms of CPU", millis(cpu_time() - began));
    for (what, longest) in &cluster.longest {
        let since = if before.contains_key(what) { "" } else { " *" };
        println!("{:9.3} ms {what}{since}", millis(*longest));
    }
}

struct Cluster {
    state: State,
    longest: BTreeMap<&'static str, Duration>,
}

impl Cluster {
    fn timed<T>(&mut self, what: &'static str, work: impl FnOnce(&mut State) -> T) -> T {
        let began = cpu_time();
        let value = work(&mut self.state);
        let longest = self.longest.entry(what).or_default();
        *longest = (*longest).max(cpu_time() - began);
        value
    }

    fn apply(&mut self, what: &'static str, command: &Command) -> Reply {
        let refused = |reply: &Reply| matches!(reply, Reply::Refused(_) | Reply::TopicRefused(_));
        let stamp = Stamp {
            wall_millis: 1_700_000_000_000,
            ticks_millis: if self.longest.contains_key("capture") {
                1_000_000
            } else {
                1_000
            },
        };
        let reply = self.timed(what, |state| {
            state.apply(EntryId::default(), stamp, command).reply
        });
        assert!(!refused(&reply), "{what}: {reply:?}");
        reply
    }
}

fn create(id: u128, partitions: u32) -> Command {
    Command::CreateTopic(CreateTopic {
        id: TopicId(id),
        name: format!(
            "topic-{:016x}",
            id.wrapping_mul(0x9e37_79b9_7f4a_7c15) as u64
        ),
        partitions,
        configs: BTreeMap::new(),
        replication_factor: 0,
    })
}

fn configure(id: TopicId) -> Command {
    let mut changes = ConfigChanges::default();
    let pair = ("retention.ms".to_owned(), "86400000".to_owned());
    changes.set.extend([pair]);
    Command::SetTopicConfigs { id, changes }
}

fn delete(id: TopicId) -> Command {
    Command::DeleteTopic { id }
}

/// Offsets of the popular topic and of nine others.
fn commit_offsets(group: u128) -> Command {
    let topics = (0..10).map(|nth| TopicId(1 + nth * (group % 1_000)));
    let offset = |topic| OffsetEntry {
        topic,
        partition: 0,
        offset: 7,
        leader_epoch: -1,
        metadata: String::new(),
    };
    Command::Group(GroupCommand {
        group: format!("console-consumer-{group}"),
        action: Action::Commit(CommitOffsets {
            by: None,
            member: String::new(),
            instance: None,
            generation: -1,
            offsets: topics.map(offset).collect(),
        }),
    })
}

fn register() -> Command {
    Command::RegisterAgent(RegisterAgent {
        nonce: 1,
        name: "agent".to_owned(),
        listeners: meta::endpoint::Endpoint::alone("localhost", 9_092),
        region: "local".to_owned(),
        zone: "local".to_owned(),
        neighbour_address: String::new(),
        level: 1,
    })
}

/// A file whose one batch is for a partition that does not exist: a tombstone at once.
fn file(number: u64) -> Command {
    let mut file = CommitFile {
        file: FileId {
            incarnation: Incarnation(1),
            number,
        },
        length: 200,
        placement: vec![0],
        ..CommitFile::default()
    };
    file.push_slice(PartitionId(u64::MAX), 16);
    file.push_batch(meta::commit::Batch {
        records: 1,
        bytes: 100,
        max_timestamp: 1,
        time_source: meta::commit::TimeSource::Records,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
    });
    Command::CommitFile(file)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Time this thread has run, from Linux's `/proc`: on a busy machine the clock says little.
fn cpu_time() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = schedstat
        .split(' ')
        .next()
        .and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}
