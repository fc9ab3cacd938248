//! Everything that the crate promises from outside: messages, frames, batches, hostile input.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod apis;
mod batches;
mod checks;
mod differential;
mod frames;
mod golden;
mod hostile;
mod meter;
mod names;
mod records;
mod roundtrip;
mod sample;
