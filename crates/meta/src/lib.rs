//! The metadata state machine: commands in, replies out. Pure: no clock, no randomness, no I/O,
//! no async, ordered maps only, so that every replica that applies one journal holds one state.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")
)]

pub mod clock;
pub mod command;
pub mod commit;
pub mod config;
mod digest;
pub mod encoding;
mod feature;
pub mod file;
pub mod group;
mod housekeep;
pub mod ids;
pub mod invariants;
pub mod member;
pub mod offset;
mod outcome;
pub mod partition;
mod placement;
mod producer;
#[allow(
    unreachable_pub,
    clippy::all,
    reason = "generated: documented in proto/, and public whether anyone is outside or not"
)]
mod proto;
pub mod query;
pub mod reply;
mod rule;
mod slices;
pub mod snapshot;
pub mod state;
mod table;
pub mod topic;

pub use command::Command;
pub use commit::{BatchOutcome, CommitFile, FileReply};
pub use encoding::DecodeError;
pub use feature::FEATURE_LEVEL;
pub use file::{Fate, FileRef};
pub use ids::Stamp;
pub use query::{Located, SlicePlace};
pub use reply::{Applied, Event, Reply};
pub use snapshot::{Capture, RestoreError};
pub use state::{LEADER_EPOCH, State};
