//! Which of a cluster's buckets are away for long: the leader says so in the journal, so that nothing waits for them, and says so again once they
//! are back. Who is mistaken harms nobody: what a bucket holds of files that are forgotten is found there by a listing, and deleted.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use host::clock::Instant;
use meta::command::Command;
use store::buckets::Buckets;

use crate::node::Node;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A bucket is back once it could be used for so long.
const BACK_AFTER: Duration = Duration::from_secs(10);

/// Since when buckets are otherwise than the journal says. Pure.
#[derive(Debug, Default)]
struct Sight {
    otherwise_since: BTreeMap<u32, Instant>,
}

/// A bucket, as the leader finds it and as the journal has it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    bucket: u32,
    is_usable: bool,
    is_marked_away: bool,
}

impl Sight {
    /// What is to be said in the journal now; `away_after` is how long a bucket may not be usable before it is away.
    fn look(&mut self, now: Instant, seen: &[Seen], away_after: Duration) -> Vec<Command> {
        let mut marks = Vec::new();
        for seen in seen {
            if seen.is_usable != seen.is_marked_away {
                self.otherwise_since.remove(&seen.bucket);
                continue;
            }
            let since = *self.otherwise_since.entry(seen.bucket).or_insert(now);
            let patience = if seen.is_usable {
                BACK_AFTER
            } else {
                away_after
            };
            if now.since(since) >= patience {
                marks.push(Command::MarkBucket {
                    bucket: seen.bucket,
                    is_away: !seen.is_usable,
                });
            }
        }
        marks
    }
}

impl Node {
    /// While this node leads, says of each bucket that cannot be used for so long that it is away, and of one that can be again that it
    /// is not.
    pub async fn keep_marking(
        self: Arc<Self>,
        buckets: Arc<Buckets>,
        away_after: Duration,
    ) -> Infallible {
        let mut sight = Sight::default();
        loop {
            host::clock::sleep(LOOK_EVERY).await;
            if !self.leads() {
                sight = Sight::default();
                continue;
            }
            let numbers = buckets.numbers().into_iter();
            let seen: Vec<Seen> = self.with_state(|state| {
                let seen = |bucket| Seen {
                    bucket,
                    is_usable: buckets.is_usable(bucket),
                    is_marked_away: state.is_away(bucket),
                };
                numbers.map(seen).collect()
            });
            for mark in sight.look(host::clock::now(), &seen, away_after) {
                match self.propose(&mark).await {
                    Ok(_) => tracing::warn!(
                        ?mark,
                        "a bucket is away for long, or back: files are forgotten without one that is away, and it is rid of them once it is back"
                    ),
                    Err(error) => tracing::debug!(%error, "a bucket is marked later"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(600);

    #[test]
    fn a_bucket_is_away_after_a_while_and_back_soon() {
        let mut sight = Sight::default();
        let mut marks = |seconds: u64, is_usable, is_marked_away| {
            let seen = Seen {
                bucket: 2,
                is_usable,
                is_marked_away,
            };
            sight.look(Instant::from_millis(seconds * 1_000), &[seen], AFTER)
        };
        let mark = |is_away| [Command::MarkBucket { bucket: 2, is_away }];
        assert_eq!(marks(0, true, false), []);
        assert_eq!(marks(5, false, false), []);
        assert_eq!(marks(604, false, false), []);
        // It was there for a moment: the time begins anew.
        assert_eq!(marks(605, true, false), []);
        assert_eq!(marks(610, false, false), []);
        assert_eq!(marks(1_209, false, false), []);
        assert_eq!(marks(1_210, false, false), mark(true));
        assert_eq!(marks(1_215, false, true), []);
        assert_eq!(marks(1_220, true, true), []);
        assert_eq!(marks(1_230, true, true), mark(false));
        assert_eq!(marks(1_235, true, false), []);
    }
}
