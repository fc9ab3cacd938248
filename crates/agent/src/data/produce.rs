//! Produce: from checked batches to durable, committed files and answers. Pure cores (`batcher`,
//! `sequence`, `file`, `commit`) decide the order of things, and the simulator drives them too;
//! `pipeline` and `upload` are the shell around them. It must not know Kafka's frames.

pub mod batch;
pub mod batcher;
mod commit;
pub mod file;
pub mod pipeline;
pub mod sequence;
pub mod upload;

#[cfg(test)]
mod tests;

pub use batch::{Batch, Lane, Write};
pub use batcher::Limits;
pub use file::{Cut, Stored};
pub use pipeline::Pipeline;
pub use sequence::{Answer, Effect, Event, Failure, Sequence};
