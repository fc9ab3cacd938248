//! The replicated log of commands over an engine: entries and which of them count, the role of a
//! node, snapshots, and the shell that drives a state machine. This crate knows no topics and no
//! Kafka; what commands mean is the state machine's.

pub mod chain;
pub mod conformance;
pub mod engine;
pub mod entry;
pub mod memory;
pub mod node;
pub mod object;
#[cfg(test)]
mod page;
pub mod quarantine;
pub mod replica;
pub mod rule;
pub mod snapshot;
pub mod three;
