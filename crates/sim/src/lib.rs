//! Deterministic simulation of the cores, and the anomaly checker.
//!
//! The simulator runs the same cores as production, and nothing here may be used by them.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test may stop at what it did not expect"
    )
)]

pub mod bucket;
pub mod checker;
pub mod faults;
pub mod history;
pub mod log;
pub mod mutate;
pub mod mutation;
pub mod network;
mod payload;
mod recorder;
pub mod scheduler;
mod thrift;
pub mod town;
pub mod world;
