//! An operator's word that sets the time of the journal right, once stamps have run ahead by a wrong clock (three regions, rule L4).
//! It names no time: that of a leader whose clock is known to be right is the only one that is taken.

use meta::command::Command;
use meta::reply::Reply;

use crate::clocks::{OFF_MAX_MILLIS, Standing};
use crate::node::Node;

/// Why the time of the journal was not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSet {
    /// Another node has to be asked.
    #[error("this control node does not lead: ask the one that does{}", named(.leader.as_deref()))]
    NotLeader {
        /// What it calls itself in its claims, if it is known.
        leader: Option<String>,
    },
    /// Nobody knows that this node's clock is right.
    #[error(
        "the clock of the leader's machine is not known to be right: {why}; `seaway status` shows how it compares with others"
    )]
    Doubtful { why: &'static str },
    /// The time of the journal is right, or behind.
    #[error(
        "the time of the journal is not ahead by more than a minute: there is nothing to set right"
    )]
    NotAhead,
    /// It was refused when it was applied, or may have been set.
    #[error("{0}")]
    Failed(#[from] rpc::Error),
}

fn named(leader: Option<&str>) -> String {
    leader.map_or_else(String::new, |name| format!(", {name}"))
}

impl Node {
    /// How far the time of the journal is ahead of this machine's wall clock, in milliseconds; below zero, how far it is behind.
    pub fn journal_ahead_millis(&self) -> i64 {
        let stamped = self.with_state(|state| state.stamp().wall_millis);
        let now = host::clock::wall_millis();
        stamped.cast_signed().saturating_sub(now.cast_signed())
    }

    /// Sets the time of the journal to that of this node's wall clock, if it leads, its clock is known to be right, and the time of the
    /// journal is ahead by more than a minute. Yields how far it was ahead, in milliseconds.
    pub async fn set_time(&self) -> Result<i64, NotSet> {
        if !self.leads() {
            let leader = self.journal_status().leader;
            return Err(NotSet::NotLeader { leader });
        }
        let why = match self.wall_clock().standing {
            Standing::Alone | Standing::Right => None,
            Standing::Unheard => Some("no other control node has said what its clock shows"),
            Standing::Apart => {
                Some("the clocks of control nodes differ, and nobody knows which is right")
            }
            Standing::Wrong => Some("most other control nodes show another time"),
        };
        if let Some(why) = why {
            return Err(NotSet::Doubtful { why });
        }
        let ahead_millis = self.journal_ahead_millis();
        if ahead_millis <= OFF_MAX_MILLIS.cast_signed() {
            return Err(NotSet::NotAhead);
        }
        let wall_millis = host::clock::wall_millis();
        match self.propose(&Command::SetTime { wall_millis }).await?.1 {
            Reply::Refused(refusal) => Err(NotSet::Failed(rpc::Error::Refused {
                reason: refusal.to_string(),
            })),
            _ => {
                tracing::warn!(
                    ahead_millis,
                    "the time of the journal was ahead and is set right, by an operator's word"
                );
                Ok(ahead_millis)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use host::clock;
    use journal::node::WallClock;
    use journal::object::Object;
    use store::bucket::Bucket;
    use store::faulty::Faulty;

    use super::*;
    use crate::clocks::ahead;
    use crate::start::tests::{bucket, settings};

    const YEAR_MILLIS: i64 = 365 * 86_400_000;

    #[tokio::test]
    async fn a_time_that_ran_ahead_is_set_right_once() {
        let bucket: Arc<dyn Bucket> = Arc::<Faulty>::clone(&bucket());
        let engine = Box::new(Object::new(Arc::clone(&bucket), 0));
        let (node, _tasks) = Node::start(&settings(&[], None), engine, bucket);
        let ahead_millis = ahead(clock::wall_millis(), clock::now()) + YEAR_MILLIS;
        // The first stamp of all is by a clock that is a year ahead.
        node.replica
            .has_compared(WallClock::Unsure { ahead_millis });
        assert_eq!(node.lead().await, Ok(()));
        node.replica.has_compared(WallClock::Alone);
        let is_about = |found: i64, expected: i64| found.abs_diff(expected) < 30_000;
        assert!(is_about(node.journal_ahead_millis(), YEAR_MILLIS));
        let was_ahead = node.set_time().await.expect("it is ahead");
        assert!(is_about(was_ahead, YEAR_MILLIS), "{was_ahead}");
        assert!(is_about(node.journal_ahead_millis(), 0));
        assert_eq!(node.set_time().await, Err(NotSet::NotAhead));
        // Stamps stand still; the time goes on.
        let before = node.journal_ahead_millis();
        clock::sleep(std::time::Duration::from_millis(50)).await;
        assert!(node.propose(&Command::Housekeep).await.is_ok());
        assert!(is_about(node.journal_ahead_millis(), before));
    }
}
