//! The engine over three buckets: every slot is decided by Paxos, each bucket is an acceptor, and only creating an object if
//! absent and reading one are needed (docs/three-buckets.md). It must not know what entries mean.

mod ahead;
mod audit;
mod ballot;
mod call;
mod cell;
mod configuration;
mod context;
mod core;
mod engine;
mod floors;
pub mod founding;
mod held;
mod judge;
mod lane;
#[cfg(test)]
mod model;
mod name;
mod pace;
#[cfg(test)]
mod races;
mod read;
mod record;
mod rule;
mod seen;
mod tenure;
#[cfg(test)]
pub(crate) mod tests;
mod trim;
mod view;

pub use configuration::Configuration;
pub use engine::{Health, Three, prepare};
pub use lane::BucketHealth;

/// The buckets of a configuration.
pub(crate) const BUCKETS: usize = 3;
