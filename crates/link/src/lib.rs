//! Carries calls and notices between processes: HTTP/2, a connection for each pair. [`serve`] lets others call a control node;
//! [`Cluster`] is all control nodes together, to whoever calls them: it finds the one that leads. It must not know what calls
//! mean beyond who may answer them.

pub mod attempt;
mod cluster;
mod connection;
pub mod directory;
mod message;
mod runtime;
mod server;
mod stream;
pub mod watch;

pub use cluster::{Cluster, Found};
pub use message::Caller;
pub use server::serve;
