//! The only crate that touches OS time, entropy, sockets and task spawning.
//!
//! Everything with a protocol in it takes time and randomness as arguments; its shell gets them
//! here, so that the simulator can stand in for the whole machine. This crate knows nothing of
//! Kafka, buckets or journals.

pub mod allowance;
pub mod backoff;
pub mod budget;
pub mod clock;
pub mod far;
pub mod latest;
pub mod log_limit;
pub mod memory;
pub mod net;
pub mod process;
pub mod resolver;
pub mod rng;
#[cfg(feature = "simulated")]
pub mod seeded;
pub mod task;
pub mod thrift;
pub mod trial;
