//! The data plane: speaks Kafka, writes and reads files. Stateless: nothing here must survive. It
//! must not know journals or the metadata's own state, which it sees through `rpc` only.
//!
//! - `server`, `session`: connections; frames in, answers out in order
//! - `api`: a file per family of Kafka's APIs
//! - [`produce`]: from batches to committed files; [`fetch`]: from positions to records
//! - [`cache`]: parts of files, shared by all readers
//! - [`jobs`]: work in the background

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may fail by panic"))]

mod answers;
mod api;
mod batch_sum;
pub mod cache;
mod context;
pub mod fetch;
pub mod jobs;
mod log_limit;
mod memory;
pub mod metrics;
pub mod produce;
pub mod route;
mod server;
mod session;
pub mod settings;
mod view;

pub use server::{Agent, Probe, StartError};
pub use settings::Settings;
