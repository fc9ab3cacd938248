//! The edge: connections, their memory, the order of their answers. It must not know what requests
//! mean; it asks through `service`.

pub(crate) mod admission;
pub(crate) mod connection;
pub(crate) mod memory;
pub(crate) mod service;
pub(crate) mod session;
