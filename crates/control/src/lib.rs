//! The control node: leads or follows a journal, holds the metadata state machine, answers
//! agents. It must not know Kafka's wire format, nor what is in files.

mod convert;
pub mod coordinator;
mod groups;
mod housekeeping;
mod machine;
pub mod node;
mod service;

pub use node::{Node, Settings};
