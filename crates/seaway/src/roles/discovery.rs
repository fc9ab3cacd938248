//! Finds the control nodes: those that an operator names, and those that have told of themselves in the bucket.

use std::convert::Infallible;
use std::sync::Arc;

use link::{Found, discovery};
use store::bucket::Bucket;
use store::nodes;

/// Keeps `found` told of the control nodes, for ever; `named` are always among them.
pub(super) async fn keep_looking(
    bucket: Arc<dyn Bucket>,
    named: Vec<String>,
    found: Found,
) -> Infallible {
    let told = || nodes::addresses(&*bucket, nodes::CONTROL);
    discovery::keep_looking(told, named, found).await
}
