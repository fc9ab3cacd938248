//! The journal's engine on etcd: a slot is a key that is created once, in one step with a look at the floor, so that nothing is ever
//! appended to a slot that was trimmed. It must not know what entries mean, nor buckets.

mod client;
mod connection;
mod course;
mod engine;
mod founding;
mod grpc;
mod keys;
pub mod location;
mod proto;
mod requests;
mod roster;
mod run;
pub mod security;

pub use engine::Etcd;
pub use founding::Refusal;
