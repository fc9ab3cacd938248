//! The metadata state machine: commands in, replies out. Pure: no clock, no randomness, no I/O,
//! no async, ordered maps only, so that every replica that applies one journal holds one state.
//!
//! Floors, each of which knows those above it in this list only: `terms` (values), `nouns` (what a
//! state is made of), `state`, `apply` and `query` (what changes it and what reads it), `bytes`.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")
)]

mod apply;
mod bytes;
pub mod invariants;
mod nouns;
pub mod query;
pub mod rule;
mod state;
mod terms;

pub use state::{LEADER_EPOCH, State};
pub use terms::command::Command;

// The words.
pub use terms::{
    command, commit, config, endpoint, ids, level, places, refusal, reply, setting, view,
};

// What a state is made of, to whoever reads it.
pub use nouns::{behind, clock, file, group, member, offset, partition, short, topic};

// Both as bytes.
pub use bytes::{encoding, snapshot};
