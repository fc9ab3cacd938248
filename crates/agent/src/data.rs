//! The data floor: batches become committed files, positions become records, and files that nobody
//! needs are deleted. It must not know connections, nor Kafka's requests.

pub(crate) mod batch_sum;
pub mod cache;
pub(crate) mod collect;
pub mod copies;
pub mod fetch;
pub mod produce;
pub(crate) mod reserve;
