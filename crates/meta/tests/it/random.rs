//! Random commands: replicas agree, snapshots lose nothing, invariants hold.

use meta::commit::FileReply;
use meta::ids::EntryId;
use meta::invariants::check_all;
use meta::level::one::LEVEL as ONE;
use meta::reply::Reply;
use meta::{Command, State};

use crate::behind::assert_safe_offsets;
use crate::load::Load;

const COMMANDS: usize = 1_500;

fn genesis() -> State {
    State::genesis("kHbeVPd4TfyZX0fDXsVpRA".to_owned())
}

#[test]
fn replicas_that_apply_the_same_commands_agree_and_snapshots_lose_nothing() {
    let mut behind = 0;
    for seed in 1..=8 {
        let mut load = Load::new(seed);
        let (mut leader, mut follower, mut restored) = (genesis(), genesis(), genesis());
        let mut committed = 0;
        for nth in 0..COMMANDS {
            let (stamp, command) = load.next(&leader);
            let bytes = command.encode(&ONE).expect("level 1 has it");
            let applied = leader.apply(EntryId::default(), stamp, &command);
            load.learn(&command, &applied.reply);
            let is_committed = matches!(applied.reply, Reply::File(FileReply::Committed { .. }));
            committed += u32::from(is_committed);
            let read = Command::decode(&bytes).expect("what was encoded can be decoded");
            assert_eq!(read, command, "seed {seed}");
            assert_eq!(
                follower.apply(EntryId::default(), stamp, &read),
                applied,
                "seed {seed}"
            );
            assert_eq!(
                restored.apply(EntryId::default(), stamp, &read),
                applied,
                "seed {seed}"
            );
            if nth % 37 == 0 {
                check_all(&leader).unwrap_or_else(|violation| {
                    panic!("seed {seed}, after {nth} commands, {command:?}: {violation}")
                });
                behind += assert_safe_offsets(&leader) + assert_safe_offsets(&restored);
            }
            if nth % 211 == 210 {
                assert_eq!(leader.digest(), follower.digest(), "seed {seed}");
                let chunks = restored.capture().encode_chunks();
                restored = State::restore(&chunks).expect("what was captured can be restored");
                assert_eq!(restored.digest(), leader.digest(), "seed {seed}");
                assert_eq!(restored.capture().encode_chunks(), chunks, "seed {seed}");
            }
        }
        assert!(
            committed > 100,
            "seed {seed} commits only {committed} files"
        );
    }
    assert!(behind > 100, "hardly any partition is behind: {behind}");
}

#[test]
fn a_capture_does_not_see_what_is_applied_after_it() {
    let mut load = Load::new(99);
    let mut state = genesis();
    let mut captures = Vec::new();
    for nth in 0..COMMANDS {
        let (stamp, command) = load.next(&state);
        let reply = state.apply(EntryId::default(), stamp, &command).reply;
        load.learn(&command, &reply);
        if nth % 100 == 0 {
            captures.push((state.digest(), state.capture()));
        }
    }
    for (digest, capture) in captures {
        assert_eq!(capture.digest(), digest);
        let restored = State::restore(&capture.encode_chunks()).expect("it can be restored");
        assert_eq!(restored.digest(), digest);
    }
}

#[test]
fn a_change_of_any_kind_changes_the_digest() {
    let mut load = Load::new(7);
    let mut state = genesis();
    for _ in 0..400 {
        let before = state.capture();
        let (stamp, command) = load.next(&state);
        let reply = state.apply(EntryId::default(), stamp, &command).reply;
        load.learn(&command, &reply);
        let same_chunks = before.encode_chunks() == state.capture().encode_chunks();
        assert_eq!(
            before.digest() == state.digest(),
            same_chunks,
            "{command:?}"
        );
    }
}
