//! What a user of the sim crate relies on: its programs, and runs of the simulated world and town. Must not reach into the crate.

mod check;
mod mutations;
mod town;
mod world;
