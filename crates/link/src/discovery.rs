//! Finds the control nodes, again and again: those that are named, and those of which somebody tells. It must not know who
//! tells, nor how.

use std::convert::Infallible;
use std::fmt::Display;
use std::time::Duration;

use host::log_limit::LogLimit;

use crate::cluster::Found;

/// How often it is asked where they are while calls are answered: two requests or so.
const EVERY: Duration = Duration::from_secs(60);
/// The least time between two looks when no control node is reached.
const AGAIN: Duration = Duration::from_millis(500);
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Keeps `found` told of the control nodes, for ever; `named` are always among them, and what `told` finds.
pub async fn keep_looking<T, E>(
    told: impl Fn() -> T,
    named: Vec<String>,
    found: Found,
) -> Infallible
where
    T: Future<Output = Result<Vec<String>, E>>,
    E: Display,
{
    let log = LogLimit::every(LOG_EVERY);
    found.list(&named);
    loop {
        match told().await {
            Ok(told) => {
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
