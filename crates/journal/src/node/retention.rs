//! When to cut a snapshot and what to trim after it: only below the older of two verified
//! snapshots, and never claims or void entries. It must not know how either is done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use host::clock::Instant;

use super::settings::SnapshotPolicy;
use crate::chain::Chain;
use crate::rule::{Rule, Rules};
use crate::snapshot::Position;

/// Slots trimmed by one request.
const TRIM_AT_ONCE: u64 = 256;
/// The pause after a failed snapshot or trim.
const PAUSE: Duration = Duration::from_secs(10);

/// What an accepted slot turned out to be.
pub(super) enum Accepted {
    Commands,
    CommandsElsewhere([u8; 32]),
    ClaimOrVoid,
}

/// The retention of one node.
pub(super) struct Retention {
    rules: Rules,
    /// Every slot below is trimmed or stays for ever.
    trimmed_below: u64,
    /// Claims and void entries at or above `trimmed_below`.
    spared: BTreeSet<u64>,
    bodies: BTreeMap<u64, [u8; 32]>,
    older: Option<u64>,
    newest: Option<u64>,
    entries_since: u64,
    bytes_since: u64,
    cut_at: Instant,
    writing: bool,
    /// The last attempt to write one failed.
    failed: bool,
    trimming_to: Option<u64>,
    paused_until: Instant,
}

/// The next trim.
pub(super) struct Trim {
    pub(super) floor: u64,
    pub(super) indices: Vec<u64>,
    pub(super) bodies: Vec<[u8; 32]>,
}

impl Retention {
    pub(super) fn new(rules: Rules) -> Self {
        Retention {
            rules,
            trimmed_below: 1,
            spared: BTreeSet::new(),
            bodies: BTreeMap::new(),
            older: None,
            newest: None,
            entries_since: 0,
            bytes_since: 0,
            cut_at: Instant::default(),
            writing: false,
            failed: false,
            trimming_to: None,
            paused_until: Instant::default(),
        }
    }

    /// Index of the newest verified snapshot.
    pub(super) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// Goes on from a snapshot that was loaded, hence whole.
    pub(super) fn resume(&mut self, now: Instant, position: Position) {
        self.older = None;
        self.newest = Some(position.last.index);
        self.trimmed_below = position.trimmed_below;
        self.spared = position.spared.into_iter().collect();
        self.bodies = position.bodies.into_iter().collect();
        self.entries_since = 0;
        self.bytes_since = 0;
        self.cut_at = now;
        self.trimming_to = None;
    }

    pub(super) fn accepted(&mut self, index: u64, bytes: usize, accepted: &Accepted) {
        self.entries_since += 1;
        self.bytes_since += bytes as u64;
        match accepted {
            Accepted::Commands => {}
            Accepted::CommandsElsewhere(sha256) => {
                self.bodies.insert(index, *sha256);
            }
            Accepted::ClaimOrVoid => {
                if self.rules.hold(Rule::TrimSparesClaims) {
                    self.spared.insert(index);
                }
            }
        }
    }

    /// The position of a snapshot to cut now, if it is time.
    pub(super) fn cut(
        &mut self,
        now: Instant,
        policy: &SnapshotPolicy,
        chain: &Chain,
        claimant: &str,
    ) -> Option<Position> {
        let due = self.failed
            || self.entries_since >= policy.entries
            || self.bytes_since >= policy.bytes
            || (self.entries_since > 0 && now.since(self.cut_at) >= policy.interval);
        if !due || self.writing || now < self.paused_until {
            return None;
        }
        self.writing = true;
        self.entries_since = 0;
        self.bytes_since = 0;
        self.cut_at = now;
        Some(Position {
            shard: chain.shard(),
            last: chain.last(),
            claim: chain.claim(),
            claimant: claimant.to_owned(),
            stamp: chain.stamp(),
            trimmed_below: self.trimmed_below,
            spared: self.spared.iter().copied().collect(),
            bodies: self.bodies.iter().map(|(k, v)| (*k, *v)).collect(),
        })
    }

    pub(super) fn written(&mut self, now: Instant, index: u64, verified: bool) {
        self.writing = false;
        self.failed = !verified;
        if !verified {
            self.paused_until = now + PAUSE;
            return;
        }
        if self.newest.is_none_or(|newest| newest < index) {
            self.older = self.newest.replace(index);
        }
    }

    /// What to trim next, if anything.
    pub(super) fn next_trim(&mut self, now: Instant) -> Option<Trim> {
        let floor = self.older?;
        if self.trimming_to.is_some() || self.trimmed_below >= floor || now < self.paused_until {
            return None;
        }
        let end = floor.min(self.trimmed_below + TRIM_AT_ONCE);
        self.trimming_to = Some(end);
        let range = self.trimmed_below..end;
        Some(Trim {
            floor,
            indices: range
                .clone()
                .filter(|index| !self.spared.contains(index))
                .collect(),
            bodies: self
                .bodies
                .range(range)
                .map(|(_, sha256)| *sha256)
                .collect(),
        })
    }

    pub(super) fn trimmed(&mut self, now: Instant, done: bool) {
        let Some(end) = self.trimming_to.take() else {
            return;
        };
        if !done {
            self.paused_until = now + PAUSE;
            return;
        }
        self.trimmed_below = end;
        self.spared = self.spared.split_off(&end);
        self.bodies = self.bodies.split_off(&end);
    }
}
