//! Wall clocks of control nodes compared with each other (three regions, rule L4): a leader whose clock is a year ahead would have the
//! journal's time stand still for a year afterwards. Pure; it must not know how others are asked, nor what entries are stamped with.
//!
//! Clocks are told as how far they are ahead of this node's boot clock, so that what was heard stays true when its wall clock is
//! set. With three or more there is a median, which says who is wrong. Two can only say that they differ, and so can two halves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use host::clock::Instant;
use journal::node::WallClock;

/// How far a clock may be from the median.
pub const OFF_MAX_MILLIS: u64 = 60_000;
/// How long what a node has said of its clock counts: a few times that are between two questions.
const HEARD_FOR: Duration = Duration::from_secs(15);

/// What another node's clock said.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// How far it was ahead of this node's boot clock, in milliseconds.
    ahead_millis: i64,
    /// The node itself takes it for wrong.
    is_wrong: bool,
    at: Instant,
}

/// What was heard of the clocks of others, by the names of the nodes.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    heard: BTreeMap<String, Reading>,
}

/// The other control nodes of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) others: BTreeSet<String>,
    /// The one of them that leads, if it is known.
    pub(crate) leader: Option<String>,
}

/// How a node's wall clock compares with those of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There are no others.
    Alone,
    /// There are others, and none of them has said what its clock shows of late.
    Unheard,
    /// It is within a minute of the median, or of the only other one.
    Right,
    /// It and the only other one that is heard differ by more than a minute, or of four and more one half does from the other, and
    /// nobody knows who is wrong.
    Apart,
    /// It is off the median by more than a minute.
    Wrong,
}

/// What comes of comparing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    pub standing: Standing,
    /// How far this node's clock is ahead of the median (of the one of the two in the middle that is farther away), in milliseconds; 0 if
    /// there is nothing to compare with.
    pub ahead_millis: i64,
    /// With how many others it was compared.
    pub others: usize,
    /// The nodes whose clocks are wrong: the lead is not handed over to them.
    pub(crate) wrong: BTreeSet<String>,
    /// What stamps rest on.
    pub(crate) stamps: WallClock,
}

impl Default for Compared {
    fn default() -> Self {
        Compared {
            standing: Standing::Alone,
            ahead_millis: 0,
            others: 0,
            wrong: BTreeSet::new(),
            stamps: WallClock::Alone,
        }
    }
}

/// How far a wall clock is ahead of a boot clock, in milliseconds.
pub(crate) fn ahead(wall_millis: u64, boot: Instant) -> i64 {
    let wall = i64::try_from(wall_millis).unwrap_or(i64::MAX);
    let boot = i64::try_from(boot.as_micros() / 1_000).unwrap_or(i64::MAX);
    wall.saturating_sub(boot)
}

impl Clocks {
    /// A node has said what its clock shows, between these two moments.
    pub(crate) fn hear(
        &mut self,
        name: &str,
        wall_millis: u64,
        is_wrong: bool,
        between: (Instant, Instant),
    ) {
        let (asked_at, answered_at) = between;
        let middle = asked_at + answered_at.since(asked_at) / 2;
        let reading = Reading {
            ahead_millis: ahead(wall_millis, middle),
            is_wrong,
            at: answered_at,
        };
        self.heard.insert(name.to_owned(), reading);
    }

    /// Compares this node's clock, so far ahead now, with those of the others of the cluster; what was heard of nodes that are gone is
    /// forgotten.
    pub(crate) fn compare(&mut self, now: Instant, own: i64, cluster: &Cluster) -> Compared {
        let Cluster { others, leader } = cluster;
        self.heard
            .retain(|name, heard| others.contains(name) && now.since(heard.at) < HEARD_FOR);
        let mut clocks: Vec<i64> = self
            .heard
            .values()
            .map(|heard| heard.ahead_millis)
            .collect();
        clocks.push(own);
        clocks.sort_unstable();
        let (low, high) = (clocks[(clocks.len() - 1) / 2], clocks[clocks.len() / 2]);
        let earliest = clocks[0];
        let off = |clock: i64| clock.saturating_sub(clock.clamp(low, high)).unsigned_abs();
        let standing = match self.heard.len() {
            0 if others.is_empty() => Standing::Alone,
            0 => Standing::Unheard,
            _ if off(own) > OFF_MAX_MILLIS => Standing::Wrong,
            _ if high.abs_diff(low) > OFF_MAX_MILLIS => Standing::Apart,
            _ => Standing::Right,
        };
        // One that takes its own clock for wrong, by what it has heard, would leave the lead to this one.
        let is_other_right = self.heard.iter().any(|(name, heard)| {
            let is_right = off(heard.ahead_millis) <= OFF_MAX_MILLIS && !heard.is_wrong;
            Some(name) != leader.as_ref() && is_right
        });
        let from_middle = [own.saturating_sub(low), own.saturating_sub(high)];
        let farthest = from_middle
            .into_iter()
            .max_by_key(|millis| millis.unsigned_abs());
        let wrong = self.heard.iter();
        let wrong = wrong.filter(|(_, heard)| off(heard.ahead_millis) > OFF_MAX_MILLIS);
        Compared {
            standing,
            ahead_millis: farthest.unwrap_or(0),
            others: self.heard.len(),
            wrong: wrong.map(|(name, _)| name.clone()).collect(),
            stamps: match standing {
                Standing::Alone => WallClock::Alone,
                Standing::Right => WallClock::Right { ahead_millis: own },
                Standing::Unheard | Standing::Apart => WallClock::Unsure {
                    ahead_millis: earliest,
                },
                // Whoever leads is no one to leave the next claim to.
                Standing::Wrong if is_other_right => WallClock::Wrong { ahead_millis: low },
                Standing::Wrong => WallClock::Unsure { ahead_millis: low },
            },
        }
    }
}

#[cfg(test)]
mod tests;
