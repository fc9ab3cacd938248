//! Produce: from checked batches to durable, committed files and answers. Pure cores (`batcher`,
//! `sequence`, `file`, `commit`) decide the order of things, and the simulator drives them too;
//! `pipeline` and `upload` are the shell around them. It must not know Kafka's frames.

pub mod batch;
pub mod batcher;
mod commit;
pub mod event;
pub mod file;
pub mod pipeline;
pub mod sequence;
pub mod upload;

#[cfg(test)]
mod tests;

pub use batch::{Batch, Cut, Lane, Stored, Write};
pub use batcher::Limits;
pub use event::{Answer, Effect, Event, Failure};
pub use pipeline::Pipeline;
pub use sequence::Sequence;
