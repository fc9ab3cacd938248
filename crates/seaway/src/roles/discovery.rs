//! Finds the control nodes: those that an operator names, and those that have told of themselves in the bucket.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use host::log_limit::LogLimit;
use link::Found;
use store::bucket::Bucket;
use store::nodes;

/// How often the bucket is asked while calls are answered: two requests or so.
const EVERY: Duration = Duration::from_secs(60);
/// The least time between two looks when no control node is reached.
const AGAIN: Duration = Duration::from_millis(500);
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The role by which control nodes tell of themselves.
pub(super) const CONTROL: &str = "control";

/// Keeps `found` told of the control nodes, for ever; `named` are always among them.
pub(super) async fn keep_looking(
    bucket: Arc<dyn Bucket>,
    named: Vec<String>,
    found: Found,
) -> Infallible {
    let log = LogLimit::every(LOG_EVERY);
    found.list(&named);
    loop {
        match nodes::find(&*bucket, CONTROL).await {
            Ok(nodes) => {
                let told = nodes.into_iter().map(|node| node.address);
                let mut all: Vec<String> = named.iter().cloned().chain(told).collect();
                all.dedup();
                found.list(&all);
            }
            Err(error) => {
                if let Some(left_out) = log.pass(host::clock::now()) {
                    tracing::warn!(%error, left_out, "the bucket does not tell where control nodes are");
                }
            }
        }
        host::clock::sleep(AGAIN).await;
        // Whether somebody missed them or the time is over: another look.
        let _ = host::clock::timeout(EVERY, found.missed()).await;
    }
}
