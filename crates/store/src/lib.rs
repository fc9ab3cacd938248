//! Buckets and bytes: objects that are created once and read many times, and the format of the
//! files that hold record batches. This crate knows no topics, no journals and no Kafka: a slice
//! is bytes of a partition that is only a number here.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")
)]

pub mod bucket;
pub mod buckets;
pub mod checksum;
mod cloud;
pub mod conformance;
pub mod directory;
mod extra;
pub mod far;
pub mod faulty;
pub mod file;
pub mod hedge;
pub mod layout;
pub mod marker;
pub mod memory;
pub mod meter;
pub mod nodes;
pub mod open;
pub mod outage;
pub mod probe;
pub mod received;
pub mod retry;
pub mod sent;
pub mod switch;
pub mod watched;
