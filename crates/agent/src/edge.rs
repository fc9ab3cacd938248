//! The edge: connections, their memory, the order of their answers. It must not know what requests mean: `service` is
//! its door to that.

pub(crate) mod admission;
pub(crate) mod connection;
pub(crate) mod memory;
pub(crate) mod service;
pub(crate) mod session;
