//! Carries calls and notices between processes: HTTP/2, a connection for each pair. [`serve`] lets others call a control node;
//! [`Cluster`] is all control nodes together, to whoever calls them: it finds the one that leads. [`serve_parts`] and [`Neighbours`] are the same for agents of
//! one zone, which ask each other for parts of files. It must not know what calls mean beyond who may answer them. By [`keys`] each end knows that the other is of the cluster.

mod ask;
pub mod attempt;
mod beginnings;
mod caller;
mod cluster;
mod connection;
pub mod directory;
pub mod discovery;
mod front;
mod handshake;
pub mod keys;
mod lines;
mod message;
mod neighbours;
mod offers;
pub mod process;
pub mod reception;
mod reckoning;
mod relay;
mod runtime;
mod server;
mod stream;
mod verify;
pub mod watch;

pub use ask::{ask, ask_at_any_level};
pub use caller::Caller;
pub use cluster::{Cluster, Found};
pub use lines::Lines;
pub use neighbours::Neighbours;
pub use offers::serve_parts;
pub use relay::Relay;
pub use server::serve;
