//! A stored journal of each feature level, with the digests that it must give and a snapshot: what
//! was written means the same to every later build. Until the first release level 1 may change, in one
//! commit with its file (`RECORD_LEVELS=1 cargo test -p meta --test it levels` writes it); from then
//! on no file here ever changes.

use std::fmt::Write as _;

use meta::ids::{EntryId, Stamp};
use meta::level::one::LEVEL as ONE;
use meta::{Command, State};

use crate::load::Load;
use crate::support::hex;

const COMMANDS: usize = 400;
const DIGEST_EVERY: usize = 25;
/// After this many commands an earlier entry is left out.
const LEFT_OUT_AT: usize = 210;

fn genesis() -> State {
    State::genesis("kHbeVPd4TfyZX0fDXsVpRA".to_owned())
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn record() -> String {
    let (mut load, mut state, mut text) = (Load::new(11), genesis(), String::new());
    for nth in 1..=COMMANDS {
        let (stamp, command) = load.next(&state);
        let (wall, ticks) = (stamp.wall_millis, stamp.ticks_millis);
        writeln!(
            text,
            "command {wall} {ticks} {}",
            hex(&command.encode(&ONE).expect("level 1 has it"))
        )
        .unwrap();
        let reply = state.apply(EntryId::default(), stamp, &command).reply;
        load.learn(&command, &reply);
        if nth == LEFT_OUT_AT {
            writeln!(text, "left-out {wall} {ticks}").unwrap();
            state.leave_out(stamp);
        }
        if nth % DIGEST_EVERY == 0 {
            writeln!(text, "digest {}", hex(&state.digest())).unwrap();
        }
    }
    for chunk in state.capture().encode_chunks() {
        writeln!(text, "chunk {}", hex(&chunk)).unwrap();
    }
    text
}

#[test]
fn a_journal_of_level_1_gives_the_digests_and_the_snapshot_that_it_gave() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/levels/1.txt");
    if std::env::var_os("RECORD_LEVELS").is_some() {
        std::fs::write(path, record()).expect("the file can be written");
    }
    let stored = std::fs::read_to_string(path).expect("the file is there");
    let (mut state, mut chunks, mut digest) = (genesis(), Vec::new(), String::new());
    let stamp = |wall: &str, ticks: &str| Stamp {
        wall_millis: wall.parse().expect("a number"),
        ticks_millis: ticks.parse().expect("a number"),
    };
    for (line, text) in (1..).zip(stored.lines()) {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["command", wall, ticks, command] => {
                let command = Command::decode(&bytes(command));
                let command = command.unwrap_or_else(|error| panic!("line {line}: {error}"));
                state.apply(EntryId::default(), stamp(wall, ticks), &command);
            }
            ["left-out", wall, ticks] => state.leave_out(stamp(wall, ticks)),
            ["digest", stored] => {
                digest = hex(&state.digest());
                assert_eq!(digest, stored, "line {line}");
            }
            ["chunk", chunk] => chunks.push(bytes(chunk)),
            _ => panic!("line {line}: {text}"),
        }
    }
    assert_eq!(state.level().number, 1);
    let restored = State::restore(&chunks).expect("it was a snapshot");
    assert_eq!(hex(&restored.digest()), digest);
    let written: Vec<Vec<u8>> = state
        .capture()
        .encode_chunks()
        .iter()
        .map(|c| c.to_vec())
        .collect();
    assert_eq!(written, chunks);
}
