//! Every bucket against the conformance suite and the probe.

mod local;
