//! The verbs of the command line, a file each.

pub mod agent;
pub mod certs;
pub mod config;
pub mod consume;
pub mod control;
pub mod dev;
pub mod drill;
pub mod node;
mod offsets;
pub mod produce;
pub mod region;
mod rehearsal;
pub mod role;
pub mod settings;
pub mod status;
pub mod time;
pub mod topic;
