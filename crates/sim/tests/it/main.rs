//! What a user of the sim crate's programs relies on. Must not reach into the crate.

mod check;
