//! The data plane: speaks Kafka, writes and reads files. Stateless: nothing here must survive. It
//! must not know journals or the metadata's own state, which it sees through `rpc` only.
//!
//! Floors, each knowing only those below it (`xtask/src/tidy/arrows.rs` holds them):
//! - `server`: starts and stops an agent, and puts the others together
//! - `api`: what Kafka's requests mean, a file per family; it is the `Service` of the edge
//! - `edge`: frames in, answers out in order, memory for both; it and [`data`] are strangers
//! - [`data`]: from batches to committed files, from positions to records; the cache; the collector

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may fail by panic"))]

mod api;
mod context;
mod counted;
pub mod data;
mod departed;
mod drain;
mod edge;
mod losses;
pub mod metrics;
mod pauses;
mod route;
mod server;
pub mod settings;
mod view;

pub use server::{Agent, Probe, StartError, Zone};
pub use settings::Settings;
