//! The verbs of the command line, a file each.

pub mod consume;
pub mod dev;
pub mod produce;
pub mod settings;
pub mod status;
pub mod topic;
