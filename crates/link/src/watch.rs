//! Watches the node that leads, for one that follows: how far the journal goes, and whether the process is gone. It must not
//! know what is done about that.

use std::convert::Infallible;
use std::time::Duration;

use host::backoff::Backoff;
use host::trial::leaves_out;
use meta::level::Levels;
use rpc::encoding;
use rpc::growth::Growth;

use crate::caller::Caller;
use crate::connection::{Connection, Failure};
use crate::stream::Stream;

/// The pauses before another look at a node that is not reached.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));

/// How often it is looked who leads.
const LEADER_CHECK: Duration = Duration::from_millis(200);

/// What a watched node shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It tells how the journal has grown.
    Grew(Growth),
    /// Its machine refuses connections: nobody listens there.
    Gone,
}

/// Tells what the node that leads shows, and at what address it does, for ever. `leader` says where it is, if it is another.
pub async fn keep_watching(
    leader: impl Fn() -> Option<String>,
    caller: &Caller,
    levels: Levels,
    tell: impl Fn(&str, Sign),
) -> Infallible {
    loop {
        let at = leader();
        if let Some(address) = &at {
            let changed = async {
                while leader() == at {
                    host::clock::sleep(LEADER_CHECK).await;
                }
            };
            tokio::select! {
                biased;
                () = watch(address.clone(), caller, levels, |sign| tell(address, sign)) => {}
                () = changed => continue,
            }
        }
        host::clock::sleep(LEADER_CHECK).await;
    }
}

/// Tells what the node at `address` shows, until the future is dropped.
pub async fn watch(address: String, caller: &Caller, levels: Levels, mut tell: impl FnMut(Sign)) {
    let Ok(headers) = caller.headers(levels.newest().number) else {
        return;
    };
    let connection = Connection::new(address, headers, caller.security.clone());
    let mut pauses = AGAIN.start();
    loop {
        match connection.growth().await {
            Ok(body) => {
                let mut stream = Stream::of(body, encoding::decode_growth);
                while let Ok(growth) = stream.next().await {
                    pauses = AGAIN.start();
                    tell(Sign::Grew(growth));
                }
            }
            Err(Failure::NobodyThere(_)) if !leaves_out("refusals-are-looked-into") => {
                tell(Sign::Gone);
            }
            Err(_) => {}
        }
        pauses.pause().await;
    }
}
