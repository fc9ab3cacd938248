//! What users of the state machine rely on, through its public face only.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agents;
mod behind;
mod commits;
mod copies;
mod encoding;
mod housekeeping;
mod left_out;
mod levels;
mod load;
mod random;
mod script;
mod snapshots;
mod support;
mod topics;
