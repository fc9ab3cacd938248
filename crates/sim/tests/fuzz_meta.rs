//! Fuzzes what the state machine reads: commands, which must also apply whatever they say, and
//! snapshots.
#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

#[path = "../../meta/tests/it/load.rs"]
#[allow(dead_code, reason = "the load serves other tests too")]
mod load;
#[path = "../../meta/tests/it/support.rs"]
#[allow(dead_code, reason = "the shorthands serve other tests too")]
mod support;

use bytes::Bytes;
use load::Load;
use meta::invariants::check_all;
use meta::{Command, State};
use sim::mutate::fuzz;

/// A state in which much has happened, and the commands that led to it.
fn history(commands: usize) -> (State, Vec<Vec<u8>>) {
    let mut load = Load::new(5);
    let mut state = State::genesis("kHbeVPd4TfyZX0fDXsVpRA".to_owned());
    let mut encoded = Vec::new();
    for _ in 0..commands {
        let (stamp, command) = load.next(&state);
        let reply = state
            .apply(meta::ids::EntryId::default(), stamp, &command)
            .reply;
        load.learn(&command, &reply);
        encoded.push(command.encode(state.level()).expect("level 1 has it"));
    }
    (state, encoded)
}

/// A command that can be read has one way to be written, and applies without contradiction.
#[test]
fn commands() {
    let (state, corpus) = history(400);
    fuzz("commands", &corpus, |input| {
        let Ok(command) = Command::decode(input) else {
            return;
        };
        let mut state = state.clone();
        assert_eq!(command.encode(state.level()).as_deref(), Ok(input));
        let applied = state.apply(meta::ids::EntryId::default(), state.stamp(), &command);
        check_all(&state).expect("whatever a command says, the state stays sound");
        let again = state.apply(meta::ids::EntryId::default(), state.stamp(), &command);
        drop((applied, again));
        check_all(&state).expect("a command may come twice");
    });
}

/// Chunks, one of which is damaged: the input's first byte says which. What is restored all the
/// same is a state like any other; that it is the right one, its digest tells.
#[test]
fn snapshots() {
    let (state, _) = history(400);
    let chunks = state.capture().encode_chunks();
    let corpus: Vec<Vec<u8>> = (0_u8..)
        .zip(&chunks)
        .map(|(at, chunk)| [&[at], chunk.as_ref()].concat())
        .collect();
    fuzz("snapshots", &corpus, |input| {
        let Some((at, chunk)) = input.split_first() else {
            return;
        };
        let mut damaged = chunks.clone();
        let Some(slot) = damaged.get_mut(usize::from(*at)) else {
            return;
        };
        *slot = Bytes::copy_from_slice(chunk);
        let Ok(restored) = State::restore(&damaged) else {
            return;
        };
        let again = State::restore(&restored.capture().encode_chunks());
        let again = again.expect("what was captured can be restored");
        assert_eq!(again.digest(), restored.digest());
    });
}
