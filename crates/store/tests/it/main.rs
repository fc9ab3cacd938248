//! Every bucket against the conformance suite and the probe, and what each answer of a store on
//! the network means.

mod answers;
mod local;
mod s3;
mod second_opinion;
