//! Fetch: where slices lie, the bytes of one, and who is woken by a commit. It must not know Kafka's frames.

pub mod hub;
mod indexes;
pub mod plan;
pub mod read;
