//! The words: plain values that commands, replies, events and views consist of, and that others may
//! hold. They must not know the state.

pub mod command;
pub mod commit;
pub mod config;
pub mod endpoint;
pub mod group;
pub mod ids;
pub mod level;
pub(crate) mod outcome;
pub mod places;
pub mod refusal;
pub mod reply;
pub mod setting;
pub mod view;
