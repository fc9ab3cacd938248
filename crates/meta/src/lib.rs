//! The metadata state machine: commands in, replies out.
