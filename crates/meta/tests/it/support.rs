//! A cluster to apply commands to, with shorthands. It checks all invariants after each command.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meta::command::{Bucket, ConfigChanges, ControlNode, CreateTopic, Placement, RegisterAgent};
use meta::commit::Batch;
use meta::commit::{BatchOutcome, CommitFile, FileReply};
use meta::ids::Stamp;
use meta::ids::{EntryId, FileId, Incarnation, PartitionId, TopicId};
use meta::invariants::check_all;
use meta::level::one::LEVEL as ONE;
use meta::level::{Level, Levels};
use meta::places::{Fate, FileRef};
use meta::reply::{Applied, Event, Reply};
use meta::{Command, State};

/// The wall time at which tests begin, in milliseconds since 1970.
pub(crate) const WALL: u64 = 1_700_000_000_000;

/// Ten minutes: the grace by default.
pub(crate) const GRACE: u64 = 600_000;

/// What a later build will know.
pub(crate) const LATER: Levels = Levels::new(&[ONE, Level { number: 2, ..ONE }]);

pub(crate) struct Cluster {
    pub(crate) state: State,
    pub(crate) now: Stamp,
    pub(crate) events: Vec<Event>,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Cluster::of(Levels::KNOWN)
    }

    /// One of processes that know these levels.
    pub(crate) fn of(levels: Levels) -> Self {
        let mut cluster = Cluster {
            state: State::genesis_of(levels, "kHbeVPd4TfyZX0fDXsVpRA".to_owned()),
            now: Stamp {
                wall_millis: WALL,
                ticks_millis: 0,
            },
            events: Vec::new(),
        };
        cluster.apply(&Command::Housekeep);
        cluster
    }

    /// Applies a command, checks the state, keeps the events, gives the reply.
    pub(crate) fn apply(&mut self, command: &Command) -> Reply {
        let Applied { reply, events } = self.state.apply(EntryId::default(), self.now, command);
        check_all(&self.state).unwrap_or_else(|violation| panic!("{command:?}: {violation}"));
        self.events = events;
        reply
    }

    /// Lets time pass, wall and ticks alike.
    pub(crate) fn pass(&mut self, millis: u64) {
        // In steps: a single one would be a jump of the wall clock to no one's surprise.
        self.now.wall_millis += millis;
        self.now.ticks_millis += millis;
    }

    pub(crate) fn register(&mut self, name: &str, nonce: u128) -> Reply {
        self.apply(&Command::RegisterAgent(agent(name, nonce)))
    }

    /// Registers an agent; its incarnation.
    pub(crate) fn agent(&mut self, name: &str, nonce: u128) -> Incarnation {
        match self.register(name, nonce) {
            Reply::Registered { incarnation, .. } => incarnation,
            other => panic!("{name} is registered: {other:?}"),
        }
    }

    /// Creates a topic; its partitions.
    pub(crate) fn topic(&mut self, name: &str, partitions: u32) -> Vec<PartitionId> {
        let reply = self.apply(&create(name, partitions));
        assert!(matches!(reply, Reply::Topic { .. }), "{reply:?}");
        self.state
            .topic(name)
            .expect("it was created")
            .partitions
            .clone()
    }

    pub(crate) fn configure(&mut self, topic: &str, name: &str, value: &str) -> Reply {
        let id = self.state.topic(topic).expect("it exists").id;
        self.apply(&Command::SetTopicConfigs {
            id,
            changes: set(name, value),
        })
    }

    pub(crate) fn configure_cluster(&mut self, name: &str, value: &str) -> Reply {
        self.apply(&Command::SetClusterConfigs {
            replaces: self.state.configs_version(),
            changes: set(name, value),
        })
    }

    pub(crate) fn commit(&mut self, file: &CommitFile) -> FileReply {
        match self.apply(&Command::CommitFile(file.clone())) {
            Reply::File(reply) => reply,
            other => panic!("a commit is answered as one: {other:?}"),
        }
    }

    /// Commits a file that must be committed; what became of its batches.
    pub(crate) fn outcomes(&mut self, file: &CommitFile) -> Arc<[BatchOutcome]> {
        match self.commit(file) {
            FileReply::Committed { outcomes } => outcomes,
            other => panic!("{} is committed: {other:?}", file.file),
        }
    }

    pub(crate) fn skip(&mut self, file: FileId) -> FileReply {
        match self.apply(&Command::SkipFile { file }) {
            Reply::File(reply) => reply,
            other => panic!("a skip is answered as one: {other:?}"),
        }
    }

    /// Housekeeps until nothing is left to do; all events.
    pub(crate) fn housekeep(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let reply = self.apply(&Command::Housekeep);
            events.append(&mut self.events);
            match reply {
                Reply::Housekept { more: true } => {}
                Reply::Housekept { more: false } => return events,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reports files deleted; those that were not forgotten.
    pub(crate) fn forget(&mut self, files: impl IntoIterator<Item = FileId>) -> BTreeSet<FileId> {
        let files = files.into_iter().map(named).collect();
        match self.apply(&Command::FilesDeleted { bucket: 0, files }) {
            Reply::Forgotten { refused } => refused.iter().map(|(found, _)| found.file).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// The fate of a file as [`file`] makes it.
    pub(crate) fn fate(&self, file: FileId) -> Fate {
        self.state.fate(named(file))
    }

    pub(crate) fn bounds(&self, partition: PartitionId) -> (i64, i64) {
        let partition = self.state.partition(partition).expect("it exists");
        (partition.log_start(), partition.high_watermark())
    }
}

pub(crate) fn agent(name: &str, nonce: u128) -> RegisterAgent {
    RegisterAgent {
        nonce,
        name: name.to_owned(),
        listeners: meta::endpoint::Endpoint::alone("localhost", 9_092),
        region: "r".to_owned(),
        zone: "z".to_owned(),
        neighbour_address: String::new(),
        level: 1,
    }
}

pub(crate) fn control_node(name: &str, level: u32) -> ControlNode {
    ControlNode {
        nonce: 7,
        name: name.to_owned(),
        claims_as: format!("{name} at c:9000"),
        address: "c:9000".to_owned(),
        region: "r".to_owned(),
        zone: "z".to_owned(),
        level,
    }
}

/// Three buckets in domains of their own, two of which hold a file.
pub(crate) fn three_buckets() -> Placement {
    let bucket = |domain| Bucket {
        domain,
        generation: 1,
    };
    Placement {
        number: 1,
        copies: 2,
        buckets: [(0, bucket(0)), (1, bucket(1)), (2, bucket(2))].into(),
    }
}

pub(crate) fn topic_id(name: &str) -> TopicId {
    let bytes = name.bytes().chain(std::iter::repeat(7)).take(16);
    TopicId(bytes.fold(1, |id, byte| id << 8 | u128::from(byte)))
}

pub(crate) fn create(name: &str, partitions: u32) -> Command {
    Command::CreateTopic(CreateTopic {
        id: topic_id(name),
        name: name.to_owned(),
        partitions,
        configs: Default::default(),
        replication_factor: 3,
    })
}

pub(crate) fn set(name: &str, value: &str) -> ConfigChanges {
    ConfigChanges {
        set: [(name.to_owned(), value.to_owned())].into(),
        remove: BTreeSet::new(),
    }
}

pub(crate) fn file_id(incarnation: Incarnation, number: u64) -> FileId {
    FileId {
        incarnation,
        number,
    }
}

/// A file as [`file`] makes it.
pub(crate) fn named(file: FileId) -> FileRef {
    FileRef { file, nonce: 77 }
}

/// A batch without a producer.
pub(crate) fn plain(records: u32) -> Batch {
    Batch {
        records,
        bytes: 100,
        max_timestamp: 1_700_000_000_000,
        time_source: meta::commit::TimeSource::Records,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
    }
}

/// A batch of an idempotent producer.
pub(crate) fn idempotent(id: i64, epoch: i16, base_sequence: i32, records: u32) -> Batch {
    Batch {
        producer_id: id,
        producer_epoch: epoch,
        base_sequence,
        ..plain(records)
    }
}

/// A file in bucket 0 with slices one after another.
pub(crate) fn file(id: FileId, slices: &[(PartitionId, &[Batch])]) -> CommitFile {
    let mut file = CommitFile {
        file: id,
        nonce: 77,
        checksum: 99,
        placement: vec![0],
        ..CommitFile::default()
    };
    let mut position = 16;
    for (partition, batches) in slices {
        file.push_slice(*partition, position);
        for batch in *batches {
            file.push_batch(*batch);
            position += u64::from(batch.bytes);
        }
    }
    file.length = position + 50;
    file
}

pub(crate) fn accepted(base_offset: i64) -> BatchOutcome {
    BatchOutcome::Accepted {
        base_offset,
        log_start: 0,
    }
}

pub(crate) fn duplicate(base_offset: i64) -> BatchOutcome {
    BatchOutcome::Duplicate {
        base_offset,
        log_start: 0,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The examples of a format's page: `name  hex`, continued on lines that begin with two spaces.
pub(crate) fn page(format: &str) -> BTreeMap<String, String> {
    let block = format
        .split("```examples\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let mut found = BTreeMap::new();
    let mut name = String::new();
    for line in block.expect("the page has examples").lines() {
        match line.strip_prefix("  ") {
            Some(more) => {
                found
                    .entry(name.clone())
                    .or_insert_with(String::new)
                    .push_str(more.trim());
            }
            None => name = line.trim().to_owned(),
        }
    }
    found
}
