//! The coordinator with the real state machine of groups behind it, driven without I/O.

mod failures;
mod many;
mod members;
mod offsets;
mod random;
mod rig;
mod room;
