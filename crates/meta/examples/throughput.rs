//! How fast commits apply, on one core: `cargo run --release -p meta --example throughput`.
//! Commands of 1,000 slices over 10,000 partitions from idempotent producers, decoding included,
//! with ten million slices resident; then what a snapshot costs.

#![allow(
    clippy::disallowed_methods,
    reason = "it measures time, and replays nothing"
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use meta::command::{CreateTopic, RegisterAgent};
use meta::commit::Batch;
use meta::commit::{BatchOutcome, CommitFile, FileReply};
use meta::ids::Stamp;
use meta::ids::{EntryId, FileId, Incarnation, PartitionId, TopicId};
use meta::level::one::LEVEL as ONE;
use meta::reply::Reply;
use meta::snapshot::Part;
use meta::{Command, State};

const PARTITIONS: u64 = 10_000;
const SLICES_PER_FILE: u64 = 1_000;
const SLICES_RESIDENT: u64 = 10_000_000;
const FILES_MEASURED: u64 = 3_000;
/// Distinct producers of a partition, each of which writes in turn.
const PRODUCERS_PER_PARTITION: u64 = 2;

fn main() {
    let mut state = State::genesis("AAAAAAAAAAAAAAAAAAAAAA".to_owned());
    let mut load = Load::new(&mut state);
    println!("RSS empty: {} MiB", rss_bytes() >> 20);

    let before = rss_bytes();
    let started = Instant::now();
    for _ in 0..SLICES_RESIDENT / SLICES_PER_FILE {
        apply(&mut state, &load.next_file());
    }
    let grown = rss_bytes().saturating_sub(before);
    println!(
        "{SLICES_RESIDENT} slices resident after {:.1} s, {} B of memory a slice",
        started.elapsed().as_secs_f64(),
        grown / SLICES_RESIDENT
    );

    measure(&mut state, &mut load, "resident");

    let started = Instant::now();
    let capture = state.capture();
    println!("capture: {:.2} ms", millis(started.elapsed()));
    measure(&mut state, &mut load, "while a capture is held");
    drop(capture);
    let capture = state.capture();
    let started = cpu_time();
    let digest = capture.digest();
    println!("digest: {:.0} ms of CPU", millis(cpu_time() - started));
    let started = cpu_time();
    let chunks = capture.encode_chunks();
    let bytes: usize = chunks.iter().map(bytes::Bytes::len).sum();
    let largest = chunks.iter().map(bytes::Bytes::len).max().unwrap_or(0);
    println!(
        "encode: {:.0} ms of CPU, {} chunks, {} MiB, largest {} KiB, {:.1} B a slice",
        millis(cpu_time() - started),
        chunks.len(),
        bytes >> 20,
        largest >> 10,
        ratio(bytes)
    );
    let known: BTreeSet<u128> = identities(&capture.encode(&|_| false)).collect();
    drop(capture);
    for _ in 0..10 {
        apply(&mut state, &load.next_file_of(PARTITIONS / 1_000));
    }
    let capture = state.capture();
    let started = cpu_time();
    let parts = capture.encode(&|id| known.contains(&id));
    let same = parts.iter().filter(|part| matches!(part, Part::Same(_)));
    println!(
        "encode after 1 % of the partitions changed: {:.0} ms of CPU, {} of {} chunks are the same",
        millis(cpu_time() - started),
        same.count(),
        parts.len()
    );
    drop(capture);
    let started = cpu_time();
    let restored = State::restore(&chunks).expect("what was captured can be restored");
    println!("restore: {:.0} ms of CPU", millis(cpu_time() - started));
    assert_eq!(
        restored.digest(),
        digest,
        "a restored state is the captured one"
    );
    println!("RSS at the end: {} MiB", rss_bytes() >> 20);
}

fn identities(parts: &[Part]) -> impl Iterator<Item = u128> {
    parts.iter().filter_map(|part| match part {
        Part::Same(id) => Some(*id),
        Part::Encoded(id, _) => *id,
    })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn ratio(bytes: usize) -> f64 {
    bytes as f64 / SLICES_RESIDENT as f64
}

/// Applies encoded commands, and prints how many slices a second that were.
fn measure(state: &mut State, load: &mut Load, when: &str) {
    let commands: Vec<Vec<u8>> = (0..FILES_MEASURED).map(|_| load.next_file()).collect();
    let bytes: usize = commands.iter().map(Vec::len).sum();
    let started = cpu_time();
    let mut slowest = Duration::ZERO;
    for command in &commands {
        let began = Instant::now();
        apply(state, command);
        slowest = slowest.max(began.elapsed());
    }
    let seconds = (cpu_time() - started).as_secs_f64();
    let slices = FILES_MEASURED * SLICES_PER_FILE;
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let rate = slices as f64 / seconds;
    println!(
        "{when}: {:.2} M slices per second of CPU; {} B of command a slice; slowest command {:.2} ms",
        rate / 1e6,
        u64::try_from(bytes).unwrap_or(0) / slices,
        millis(slowest)
    );
}

fn apply(state: &mut State, command: &[u8]) {
    let command = Command::decode(command).expect("the load encodes commands");
    let applied = state.apply(EntryId::default(), STAMP, &command);
    let Reply::File(FileReply::Committed { outcomes }) = applied.reply else {
        panic!("the load commits in order");
    };
    let accepted = |outcome: &BatchOutcome| matches!(outcome, BatchOutcome::Accepted { .. });
    assert!(outcomes.iter().all(accepted), "the load has no duplicates");
}

const STAMP: Stamp = Stamp {
    wall_millis: 1_700_000_000_000,
    ticks_millis: 1_000,
};

/// Makes commands: 100 agents in turn, partitions scattered, producers in sequence.
struct Load {
    incarnations: Vec<Incarnation>,
    numbers: Vec<u64>,
    sequences: Vec<i32>,
    files: u64,
    random: u64,
}

impl Load {
    fn new(state: &mut State) -> Self {
        let create = CreateTopic {
            id: TopicId(1),
            name: "load".to_owned(),
            partitions: u32::try_from(PARTITIONS).expect("few"),
            configs: Default::default(),
            replication_factor: 0,
        };
        state.apply(EntryId::default(), STAMP, &Command::CreateTopic(create));
        let incarnations = (0..100).map(|agent| register(state, agent)).collect();
        let producers = usize::try_from(PARTITIONS * PRODUCERS_PER_PARTITION).expect("few");
        Load {
            incarnations,
            numbers: vec![0; 100],
            sequences: vec![0; producers],
            files: 0,
            random: 1,
        }
    }

    fn next_file(&mut self) -> Vec<u8> {
        self.next_file_of(SLICES_PER_FILE)
    }

    fn next_file_of(&mut self, slices: u64) -> Vec<u8> {
        let agent = usize::try_from(self.files % 100).expect("few");
        self.files += 1;
        let mut file = CommitFile {
            file: FileId {
                incarnation: self.incarnations[agent],
                number: self.numbers[agent],
            },
            nonce: 0x1234_5678,
            checksum: 0x9abc_def0,
            placement: vec![0],
            ..CommitFile::default()
        };
        self.numbers[agent] += 1;
        let mut position = 64;
        // A stride of partitions from a scattered start, as a file of one agent has them.
        let stride = PARTITIONS / slices;
        let start = self.next_random() % stride;
        for nth in 0..slices {
            let partition = nth * stride + start;
            let bytes = 4_000 + u32::try_from(self.next_random() % 400).expect("few");
            file.push_slice(PartitionId(partition + 1), position);
            file.push_batch(self.next_batch(partition, bytes));
            position += u64::from(bytes);
        }
        file.length = position + 40_000;
        Command::CommitFile(file)
            .encode(&ONE)
            .expect("level 1 has it")
    }

    fn next_batch(&mut self, partition: u64, bytes: u32) -> Batch {
        let producer = partition * PRODUCERS_PER_PARTITION + self.files % PRODUCERS_PER_PARTITION;
        let sequence = &mut self.sequences[usize::try_from(producer).expect("few")];
        let base_sequence = *sequence;
        *sequence += 20;
        Batch {
            records: 20,
            bytes,
            max_timestamp: 1_700_000_000_000 + i64::try_from(self.files).expect("few"),
            time_source: meta::commit::TimeSource::Records,
            producer_id: i64::try_from(producer).expect("few"),
            producer_epoch: 0,
            base_sequence,
        }
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

fn register(state: &mut State, agent: u128) -> Incarnation {
    let request = RegisterAgent {
        nonce: agent,
        name: format!("agent-{agent}"),
        listeners: meta::endpoint::Endpoint::alone("localhost", 9_092),
        region: "local".to_owned(),
        zone: "local".to_owned(),
        neighbour_address: String::new(),
        level: 1,
    };
    match state
        .apply(EntryId::default(), STAMP, &Command::RegisterAgent(request))
        .reply
    {
        Reply::Registered { incarnation, .. } => incarnation,
        other => panic!("an agent is registered: {other:?}"),
    }
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

/// Resident memory of this process, from Linux's `/proc`.
fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4_096
}
