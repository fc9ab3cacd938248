//! What a user of the sim crate relies on: its programs, and runs of the simulated world. Must not reach into the crate.

mod check;
mod mutations;
mod world;
