//! The data floor: from batches to committed files, from positions to records, and what is deleted when nobody needs
//! it. It must not know connections, nor Kafka's requests.

pub(crate) mod batch_sum;
pub mod cache;
pub(crate) mod collect;
pub mod fetch;
pub mod produce;
pub(crate) mod reserve;
