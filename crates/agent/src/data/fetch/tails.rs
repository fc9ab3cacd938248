//! The tails of the partitions that are read at their ends, for all readers of this agent: from them a fetch learns where
//! records are without a call to a control node. Whatever does not join what was told before, and silence, ends them, so that
//! none is behind unnoticed. Pure. It must not know who reads.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use host::clock::Instant;
use host::trial::leaves_out;
use meta::commit::{BatchOutcome, CommitFile};
use meta::ids::PartitionId;
use meta::places::Located;
use rpc::Position;
use rpc::call::Locate;
use rpc::notice::{Notice, Told};

use super::tail::{Tail, partition_of};

/// A control node that tells says something at least each quarter of a second: one that is silent for so long may be gone, and
/// the partitions may have grown.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// A tail at which nobody has read for so long is dropped. One fetch waits for less than that, by all clients' defaults.
const IDLE: Duration = Duration::from_secs(60);
/// How often it is looked for such tails: looking costs as much as there are tails.
const SWEEP: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Tails {
    tails: BTreeMap<PartitionId, Tail>,
    bytes: u64,
    bytes_max: u64,
    /// Up to where everything was told; unknown before the first message, and once something is missing.
    at: Option<Position>,
    heard_at: Instant,
    swept_at: Instant,
}

/// What the tails know of what is wanted.
#[derive(Debug, PartialEq)]
pub(super) struct Looked {
    /// In the order of what is wanted.
    pub(super) found: Vec<Option<Located>>,
    /// An answer about the others that knows entries up to here may begin their tails.
    pub(super) at: Position,
}

impl Tails {
    /// None so far; all together take no more than `bytes_max`.
    pub(crate) fn of_bytes(bytes_max: u64) -> Self {
        Tails {
            tails: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            at: None,
            heard_at: Instant::default(),
            swept_at: Instant::default(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.tails.len()
    }

    /// Takes what entries brought, all of it since the message before.
    pub(super) fn tell(&mut self, told: &Told, now: Instant) {
        self.end_if_silent(now);
        for notice in &told.notices {
            self.note(notice);
        }
        self.at = Some(told.to);
        self.heard_at = now;
        if now.since(self.swept_at) >= SWEEP {
            self.sweep(now);
        }
    }

    fn note(&mut self, notice: &Notice) {
        let Some(partition) = partition_of(notice) else {
            return;
        };
        let Entry::Occupied(mut tail) = self.tails.entry(partition) else {
            return;
        };
        let before = tail.get().bytes();
        let room = self.bytes_max.saturating_sub(self.bytes);
        let joins = tail.get_mut().note(notice, room);
        let after = if joins { tail.get().bytes() } else { 0 };
        if !joins {
            tail.remove();
        }
        self.bytes = self.bytes - before + after;
    }

    /// What is told from here on joins nothing that was told before.
    pub(crate) fn end_all(&mut self) {
        if leaves_out("the-tail-joins") {
            return;
        }
        self.tails.clear();
        self.bytes = 0;
        self.at = None;
    }

    fn end_if_silent(&mut self, now: Instant) {
        if self.at.is_some() && now.since(self.heard_at) >= SILENCE_MAX {
            self.end_all();
        }
    }

    /// Takes what became of a commit of this agent. Whoever hears of it may read at once, before it is told here: until then the
    /// tails of its partitions answer nobody.
    pub(crate) fn committed(&mut self, commit: &CommitFile, outcomes: &[BatchOutcome]) {
        let mut batches = outcomes.iter().zip(&commit.batches.records);
        let slices = commit.slices.partition.iter().zip(&commit.slices.batches);
        for (partition, count) in slices {
            let ends = batches.by_ref().take(*count as usize).map(end_of);
            let Some(end) = ends.max().flatten() else {
                continue;
            };
            if let Some(tail) = self.tails.get_mut(&PartitionId(*partition)) {
                tail.reaches(end);
            }
        }
    }

    /// Ends the tails of these partitions: something about them is in doubt.
    pub(super) fn end(&mut self, partitions: impl Iterator<Item = PartitionId>) {
        for partition in partitions {
            if let Some(tail) = self.tails.remove(&partition) {
                self.bytes -= tail.bytes();
            }
        }
    }

    /// What is known of what a reader wants. Of the rest the tails begin, as far as there is room: the answers are to be told
    /// by [`Tails::begin`].
    pub(super) fn look(&mut self, wanted: &[Locate], now: Instant) -> Looked {
        self.end_if_silent(now);
        let Some(at) = self.at else {
            return Looked {
                found: vec![None; wanted.len()],
                at: Position::default(),
            };
        };
        let mut found = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            found.push(self.look_for(wanted, at, now));
        }
        Looked { found, at }
    }

    fn look_for(&mut self, wanted: &Locate, at: Position, now: Instant) -> Option<Located> {
        if let Some(tail) = self.tails.get_mut(&wanted.partition) {
            let located = tail.locate(wanted);
            if located.is_some() {
                tail.read_at = now;
            }
            return located;
        }
        let tail = Tail::since(at, now);
        if self.bytes + tail.bytes() > self.bytes_max {
            // Those at which others read stay.
            self.sweep(now);
        }
        if self.bytes + tail.bytes() <= self.bytes_max {
            self.bytes += tail.bytes();
            self.tails.insert(wanted.partition, tail);
        }
        None
    }

    /// Takes answers that know all entries up to `at`; those who do not join what was told meanwhile begin nothing.
    pub(super) fn begin<'a>(
        &mut self,
        answers: impl Iterator<Item = (&'a Locate, &'a Located)>,
        at: Position,
    ) {
        for (wanted, located) in answers {
            let Entry::Occupied(mut tail) = self.tails.entry(wanted.partition) else {
                continue;
            };
            let before = tail.get().bytes();
            if !tail.get_mut().begin(wanted, located, at) {
                tail.remove();
                self.bytes -= before;
            }
        }
    }

    /// Drops the tails at which nobody reads any more.
    fn sweep(&mut self, now: Instant) {
        if now.since(self.swept_at) < SWEEP {
            return;
        }
        self.swept_at = now;
        self.tails.retain(|_, tail| now.since(tail.read_at) < IDLE);
        self.bytes = self.tails.values().map(Tail::bytes).sum();
    }
}

/// The offset after a batch that was appended.
fn end_of((outcome, records): (&BatchOutcome, &u32)) -> Option<i64> {
    match outcome {
        BatchOutcome::Accepted { base_offset, .. } => Some(base_offset + i64::from(*records)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
