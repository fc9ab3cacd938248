//! Watches the node that leads, for one that follows: how far the journal goes, and whether the process is gone. It must not
//! know what is done about that.

use std::time::Duration;

use host::backoff::Backoff;
use meta::level::Levels;
use rpc::Position;

use crate::caller::Caller;
use crate::connection::{Connection, Failure};
use crate::stream::Stream;

/// The pauses before another look at a node that is not reached.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));

/// What a watched node shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It has applied the journal up to here.
    Applied(Position),
    /// Its machine refuses connections: nobody listens there.
    Gone,
}

/// Tells what the node at `address` shows, until the future is dropped.
pub async fn watch(address: String, caller: &Caller, levels: Levels, mut tell: impl FnMut(Sign)) {
    let Ok(headers) = caller.headers(levels.newest().number) else {
        return;
    };
    let connection = Connection::new(address, headers, caller.security.clone());
    let mut pauses = AGAIN.start();
    loop {
        match connection.notices().await {
            Ok(body) => {
                let mut stream = Stream::of(body);
                while let Ok(told) = stream.next().await {
                    pauses = AGAIN.start();
                    tell(Sign::Applied(told.to));
                }
            }
            Err(Failure::NobodyThere(_)) => tell(Sign::Gone),
            Err(_) => {}
        }
        pauses.pause().await;
    }
}
