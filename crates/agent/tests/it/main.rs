//! The agent as a client sees it: real frames over loopback, the real state machine behind a control
//! plane of one lock, a bucket in memory that can be made to fail.
#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod client;
mod collect;
mod control;
mod copies;
mod drain;
mod fetch;
mod files;
mod groups;
mod hostile;
mod metadata;
mod neighbours;
mod offsets;
mod produce;
mod routes;
mod sessions;
mod stand;
