//! The control node: leads or follows a journal, holds the metadata state machine, answers
//! agents. It must not know Kafka's wire format, nor what is in files.

pub mod answer;
mod aside;
mod asking;
mod attend;
pub mod attendance;
mod away;
mod beats;
pub mod clocks;
mod commits;
mod comparing;
pub mod configs;
pub mod coordinator;
mod doubt;
mod groups;
mod housekeeping;
mod interregnum;
mod losing;
mod machine;
pub mod membership;
mod namesake;
pub mod node;
mod notices;
pub mod permission;
pub mod presence;
pub mod progress;
mod reach;
mod refusing;
mod registration;
mod relay;
mod relaying;
pub mod roll;
mod roster;
mod service;
pub mod setting_time;
pub mod start;
mod storing;
mod succession;
mod told;
mod turns;
mod weighing;
pub mod weight;

pub use node::Node;
pub use start::Settings;
