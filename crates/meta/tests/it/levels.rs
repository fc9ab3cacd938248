//! A stored journal of each feature level, with the digests that it must give and snapshots, and the level's table: what
//! was written means the same to every later build. Until the first release level 1 may change, in one
//! commit with its files (`RECORD_LEVELS=1 cargo test -p meta --test it levels` writes them); from then
//! on no file here ever changes.

use std::fmt::Write as _;

use meta::endpoint::Endpoint;
use meta::ids::{EntryId, FileId, Incarnation, PartitionId, Stamp};
use meta::level::one::LEVEL as ONE;
use meta::level::{Level, Levels};
use meta::reply::Reply;
use meta::setting::Setting;
use meta::{Command, State};
use sha2::{Digest, Sha256};

use crate::load::Load;
use crate::script;
use crate::support::{create, file, file_id, hex, plain, set, topic_id};

const CLUSTER_ID: &str = "kHbeVPd4TfyZX0fDXsVpRA";
const COMMANDS: usize = 400;
const DIGEST_EVERY: usize = 25;
/// After this many commands an earlier entry is left out.
const LEFT_OUT_AT: usize = 210;
const JOURNAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/levels/1.txt");
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/levels/1.table.txt");

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn is_recording() -> bool {
    std::env::var_os("RECORD_LEVELS").is_some()
}

/// Applies commands and writes down what it did.
pub(crate) struct Recorder {
    pub(crate) state: State,
    pub(crate) now: Stamp,
    text: String,
}

impl Recorder {
    pub(crate) fn apply(&mut self, command: &Command) -> Reply {
        let encoded = command.encode(&ONE).expect("level 1 has it");
        self.line("command", &hex(&encoded));
        self.state
            .apply(EntryId::default(), self.now, command)
            .reply
    }

    fn line(&mut self, what: &str, rest: &str) {
        let (wall, ticks) = (self.now.wall_millis, self.now.ticks_millis);
        let line = format!("{what} {wall} {ticks} {rest}");
        writeln!(self.text, "{}", line.trim_end()).unwrap();
    }

    pub(crate) fn digest(&mut self) {
        writeln!(self.text, "digest {}", hex(&self.state.digest())).unwrap();
    }

    fn leave_out(&mut self) {
        self.line("left-out", "");
        self.state.leave_out(self.now);
    }

    /// Commits a file with so many slices that it is written down as their number.
    fn commit_many(&mut self, many: Many) {
        let Many {
            file,
            partition,
            slices,
        } = many;
        let (incarnation, number) = (file.incarnation.0, file.number);
        let words = format!("{incarnation} {number} {} {slices}", partition.0);
        self.line("many", &words);
        self.state
            .apply(EntryId::default(), self.now, &many.command());
    }
}

/// A file with many slices of one partition.
#[derive(Clone, Copy)]
struct Many {
    file: FileId,
    partition: PartitionId,
    slices: usize,
}

impl Many {
    fn command(self) -> Command {
        let batches = [plain(1), plain(2)];
        let slice = |nth: usize| (self.partition, &batches[..1 + nth % 2]);
        let slices: Vec<_> = (0..self.slices).map(slice).collect();
        let mut commit = file(self.file, &slices);
        commit.placement = vec![0, 1];
        Command::CommitFile(commit)
    }
}

fn record() -> String {
    let mut load = Load::new(11);
    let mut recorder = Recorder {
        state: State::genesis(CLUSTER_ID.to_owned()),
        now: Stamp::default(),
        text: String::new(),
    };
    for nth in 1..=COMMANDS {
        let (stamp, command) = load.next(&recorder.state);
        recorder.now = stamp;
        let reply = recorder.apply(&command);
        load.learn(&command, &reply);
        if nth == LEFT_OUT_AT {
            recorder.leave_out();
        }
        if nth % DIGEST_EVERY == 0 {
            recorder.digest();
        }
    }
    script::run(&mut recorder);
    recorder.digest();
    for chunk in recorder.state.capture().encode_chunks() {
        writeln!(recorder.text, "chunk {}", hex(&chunk)).unwrap();
    }
    record_many(&mut recorder);
    recorder.text
}

/// A partition so long that snapshots have runs of its slices; which go again in several steps.
fn record_many(recorder: &mut Recorder) {
    recorder.apply(&create("long", 1));
    let partition = recorder
        .state
        .topic("long")
        .expect("it is there")
        .partitions[0];
    let mut many = crate::support::agent("many", 6);
    let second = Endpoint::alone("many.example", 19_092).into_values();
    many.listeners
        .extend(second.map(|endpoint| ("EXTERNAL".to_owned(), endpoint)));
    let registered = recorder.apply(&Command::RegisterAgent(many));
    let Reply::Registered { incarnation, .. } = registered else {
        panic!("{registered:?}");
    };
    recorder.commit_many(Many {
        file: file_id(incarnation, 0),
        partition,
        slices: 70_000,
    });
    recorder.digest();
    let snapshot = hash(&snapshot(&recorder.state));
    writeln!(recorder.text, "snapshot {snapshot}").unwrap();
    recorder.apply(&Command::SetTopicConfigs {
        id: topic_id("long"),
        changes: set("retention.bytes", "1000000"),
    });
    loop {
        let reply = recorder.apply(&Command::Housekeep);
        recorder.digest();
        if reply == (Reply::Housekept { more: false }) {
            return;
        }
    }
}

fn snapshot(state: &State) -> Vec<Vec<u8>> {
    let chunks = state.capture().encode_chunks();
    chunks.iter().map(|chunk| chunk.to_vec()).collect()
}

fn hash(chunks: &[Vec<u8>]) -> String {
    let mut hash = Sha256::new();
    for chunk in chunks {
        hash.update(chunk.len().to_le_bytes());
        hash.update(chunk);
    }
    hex(&hash.finalize())
}

/// Whether a snapshot of a state restores to that state.
fn is_restored(levels: Levels, state: &State, chunks: &[Vec<u8>]) -> bool {
    let restored = State::restore_of(levels, chunks);
    restored.is_ok_and(|restored| restored.digest() == state.digest())
}

/// Applies the stored journal in a build that knows these levels; the first line where something else comes of it than did.
fn replay(levels: Levels) -> Result<(), String> {
    let stored = std::fs::read_to_string(JOURNAL).expect("the file is there");
    let mut state = State::genesis_of(levels, CLUSTER_ID.to_owned());
    let mut chunks = Vec::new();
    let number = |text: &str| text.parse::<u64>().expect("a number");
    for text in stored.lines() {
        let words: Vec<&str> = text.split(' ').collect();
        let stamp = |wall: &str, ticks: &str| Stamp {
            wall_millis: number(wall),
            ticks_millis: number(ticks),
        };
        if !chunks.is_empty() && words[0] != "chunk" {
            let stored = std::mem::take(&mut chunks);
            let same = snapshot(&state) == stored && is_restored(levels, &state, &stored);
            differs_unless(same, "chunks")?;
        }
        match words[..] {
            ["command", wall, ticks, command] => {
                let command = Command::decode(&bytes(command)).expect("a command");
                state.apply(EntryId::default(), stamp(wall, ticks), &command);
            }
            ["many", wall, ticks, incarnation, file, partition, slices] => {
                let many = Many {
                    file: file_id(Incarnation(number(incarnation)), number(file)),
                    partition: PartitionId(number(partition)),
                    slices: slices.parse().expect("a number"),
                };
                state.apply(EntryId::default(), stamp(wall, ticks), &many.command());
            }
            ["left-out", wall, ticks] => state.leave_out(stamp(wall, ticks)),
            ["digest", stored] => differs_unless(hex(&state.digest()) == stored, text)?,
            ["chunk", chunk] => chunks.push(bytes(chunk)),
            ["snapshot", stored] => {
                let written = snapshot(&state);
                let same = hash(&written) == stored && is_restored(levels, &state, &written);
                differs_unless(same, text)?;
            }
            _ => panic!("{text}"),
        }
    }
    assert_eq!(state.level().number, 1);
    Ok(())
}

fn differs_unless(same: bool, line: &str) -> Result<(), String> {
    same.then_some(()).ok_or_else(|| line.to_owned())
}

#[test]
fn a_journal_of_level_1_gives_the_digests_and_the_snapshots_that_it_gave() {
    if is_recording() {
        std::fs::write(JOURNAL, record()).expect("the file can be written");
    }
    assert_eq!(replay(Levels::KNOWN), Ok(()));
}

#[test]
fn the_stored_journal_of_level_1_notices_when_a_number_is_another() {
    macro_rules! one_more {
        ($($name:ident)*) => {
            [$((
                stringify!($name),
                Levels::new(const { &[Level { $name: ONE.$name + 1, ..ONE }] }),
            )),*]
        };
    }
    let changed = one_more! {
        block_slices outcomes_kept step_slices step_partitions pressed_idle_millis pressed_divisor
        jump_millis drift_summed_millis jump_confirmed_millis jump_confirmed_divisor empty_group_kept_millis
        suspect_within_millis
        left_out_numbers left_out_agents
    };
    for (name, levels) in changed {
        assert!(replay(levels).is_err(), "{name}");
    }
}

/// A level's table without the sentences about settings, which nothing depends on.
fn table(level: &Level) -> String {
    let numbers = Level {
        topic_configs: &[],
        cluster_configs: &[],
        ..*level
    };
    let mut text = format!("{numbers:#?}\n");
    for setting in level.topic_configs.iter().chain(level.cluster_configs) {
        let meaning = "";
        writeln!(
            text,
            "{:?}",
            Setting {
                meaning,
                ..*setting
            }
        )
        .unwrap();
    }
    text
}

#[test]
fn the_table_of_level_1_is_the_stored_one() {
    if is_recording() {
        std::fs::write(TABLE, table(&ONE)).expect("the file can be written");
    }
    let stored = std::fs::read_to_string(TABLE).expect("the file is there");
    assert_eq!(table(&ONE), stored);
}
