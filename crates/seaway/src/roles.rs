//! One process of many: a control node, or an agent. Each is a file here. They find each other by the bucket.

pub mod agent;
pub mod control;
mod discovery;
mod others;
mod reception;
mod zones;
