//! The Kafka protocol's bytes: frames, messages, record batches.
//!
//! Pure: no async, no I/O, no clock. Input is hostile until decoded; nothing allocates by a length
//! that the input merely claims, and nothing panics on it. It must not know topics, groups or
//! storage: what a message means is the caller's.
//!
//! - [`frame`]: splits a stream, reads requests, writes responses, and the reverse for clients
//! - [`messages`]: the generated messages; [`versions`]: what is served
//! - [`batch`]: record batches as they lie in requests and files; [`records`]: what is inside them;
//!   [`scan`]: the same, without holding it; [`recompress`]: in another codec
//! - [`errors`]: Kafka's error codes
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may fail by panic"))]

pub mod batch;
pub mod builder;
pub mod codec;
pub mod compression;
pub mod errors;
pub mod frame;
pub mod message;
pub mod messages;
pub mod recompress;
pub mod records;
pub mod rope;
pub mod scan;
pub mod text;
pub mod uuid;
mod varint;
pub mod versions;
