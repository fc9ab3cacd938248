//! The metadata state machine: commands in, replies out. Pure: no clock, no randomness, no I/O,
//! no async, ordered maps only, so that every replica that applies one journal holds one state.

pub mod ids;
