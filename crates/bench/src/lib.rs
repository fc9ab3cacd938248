//! Load generators, the in-memory S3 server, comparisons.

pub mod s3;
