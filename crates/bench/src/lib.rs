//! Load generators, the in-memory S3 server, comparisons.

pub mod against;
pub mod compare;
pub mod connection;
pub mod http;
pub mod latency;
pub mod limits;
pub mod load;
pub mod metadata;
pub mod process;
pub mod readers;
pub mod s3;
pub mod servers;
pub mod tails;
pub mod trickle;
