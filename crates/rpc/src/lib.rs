//! What agents and control nodes say to each other, as plain values: a [`Call`] and what comes of
//! it, and notices of what was applied; and what agents of one zone ask each other for, a `part` of a file. An agent does not know whether the control node is in its
//! own process or a region away. Nothing here may know Kafka's wire format, buckets or journals.

pub mod call;
pub mod client;
pub mod encoding;
mod error;
pub mod group;
pub mod growth;
pub mod notice;
pub mod part;
pub mod peer;
mod position;
mod served;
mod speaker;

pub use call::{Answer, Call, Return};
pub use client::{Client, Control, LATE_AFTER};
pub use error::{Error, Leader};
pub use position::Position;
pub use served::{Asked, Given, LedBy, Relay, Served};
pub use speaker::Speaker;
