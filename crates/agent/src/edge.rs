//! The edge: connections, their memory, the order of their answers. It must not know what Kafka's requests mean.

pub(crate) mod admission;
pub(crate) mod answers;
pub(crate) mod memory;
pub(crate) mod session;
