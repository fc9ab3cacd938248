//! What agents and control nodes say to each other. An agent holds a [`Control`] and does not
//! know whether the control node is in its own process or a region away. Nothing here may know
//! Kafka's wire format, buckets or journals.

pub mod control;
pub mod error;
pub mod group;
pub mod view;

pub use control::Control;
pub use error::Error;
