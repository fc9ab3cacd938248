//! Offsets that a group has committed. They belong to a topic id, so that a topic that is deleted
//! and created again does not inherit them. Must not know which clients may commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::terms::group::{OffsetEntry, Refusal};
use crate::terms::ids::TopicId;

/// Memory of an offset beside its metadata: its fields, and its entries in two maps.
const OFFSET_BYTES: u64 = 128;

/// Memory of an offset with so many bytes of metadata.
const fn offset_bytes(metadata_bytes: usize) -> u64 {
    OFFSET_BYTES + metadata_bytes as u64
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record read, -1 if not known.
    pub leader_epoch: i32,
    /// What the client attached.
    pub metadata: String,
    /// When it was committed, in ticks.
    pub committed_ticks_millis: u64,
}

impl CommittedOffset {
    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> u64 {
        offset_bytes(self.metadata.len())
    }
}

/// The rules for offsets to commit, which the state around the groups supplies.
#[derive(Clone, Copy)]
pub struct OffsetRules<'a> {
    /// The number of partitions of a topic that exists.
    pub partitions: &'a dyn Fn(TopicId) -> Option<u32>,
    /// `offset.metadata.max.bytes`: longest metadata that a client may attach, in units of UTF-16,
    /// as Kafka counts whatever the name says.
    pub metadata_units_max: usize,
}

/// True if a text has more units of UTF-16 than that; it never has more than bytes.
fn is_longer(text: &str, units_max: usize) -> bool {
    text.len() > units_max && text.encode_utf16().nth(units_max).is_some()
}

/// The offsets of one group. A clone shares the topics that do not change afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    topics: BTreeMap<TopicId, Arc<BTreeMap<u32, CommittedOffset>>>,
    bytes: u64,
}

impl Offsets {
    /// The offset committed for a partition.
    pub fn get(&self, topic: TopicId, partition: u32) -> Option<&CommittedOffset> {
        self.topics.get(&topic)?.get(&partition)
    }

    /// Everything committed, by topic id and partition.
    pub fn topics(
        &self,
    ) -> impl Iterator<Item = (TopicId, impl Iterator<Item = (u32, &CommittedOffset)>)> {
        self.topics.iter().map(|(topic, partitions)| {
            (
                *topic,
                partitions
                    .iter()
                    .map(|(partition, offset)| (*partition, offset)),
            )
        })
    }

    /// Bytes of memory that they take.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True if nothing is committed.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Commits offsets, each on its own; outcomes in the order given.
    pub(crate) fn commit(
        &mut self,
        ticks_millis: u64,
        rules: OffsetRules<'_>,
        entries: &[OffsetEntry],
    ) -> Vec<Result<(), Refusal>> {
        let commit = |entry: &OffsetEntry| {
            if (rules.partitions)(entry.topic).is_none_or(|count| entry.partition >= count) {
                return Err(Refusal::UnknownTopicOrPartition);
            }
            if is_longer(&entry.metadata, rules.metadata_units_max) {
                return Err(Refusal::OffsetMetadataTooLarge);
            }
            let committed = CommittedOffset {
                offset: entry.offset,
                leader_epoch: entry.leader_epoch,
                metadata: entry.metadata.clone(),
                committed_ticks_millis: ticks_millis,
            };
            self.insert(entry.topic, entry.partition, committed);
            Ok(())
        };
        entries.iter().map(commit).collect()
    }

    /// Bytes of memory that the offsets take more with these.
    pub(crate) fn growth_of(&self, entries: &[OffsetEntry]) -> u64 {
        let growth = entries.iter().map(|entry| {
            let before = self.get(entry.topic, entry.partition);
            let before = before.map_or(0, CommittedOffset::bytes);
            offset_bytes(entry.metadata.len()).saturating_sub(before)
        });
        growth.sum()
    }

    /// Sets one offset.
    pub(crate) fn insert(&mut self, topic: TopicId, partition: u32, offset: CommittedOffset) {
        self.bytes += offset.bytes();
        let partitions = Arc::make_mut(self.topics.entry(topic).or_default());
        if let Some(replaced) = partitions.insert(partition, offset) {
            self.bytes -= replaced.bytes();
        }
    }

    /// Topics, from one on, of which something was committed at or before the ticks that `until`
    /// gives, with these ticks; and the first that was not looked at because nothing was left of
    /// the budget, which each topic takes from, and each offset that is looked at.
    pub(crate) fn stale(
        &self,
        from: TopicId,
        until: impl Fn(TopicId) -> Option<u64>,
        left: &mut usize,
    ) -> (Vec<(TopicId, u64)>, Option<TopicId>) {
        let mut stale = Vec::new();
        for (topic, partitions) in self.topics.range(from..) {
            if *left == 0 {
                return (stale, Some(*topic));
            }
            *left -= 1;
            let Some(until) = until(*topic) else {
                continue;
            };
            *left = left.saturating_sub(partitions.len());
            let is_stale = |offset: &CommittedOffset| offset.committed_ticks_millis <= until;
            if partitions.values().any(is_stale) {
                stale.push((*topic, until));
            }
        }
        (stale, None)
    }

    /// Drops what was committed for a topic at or before some ticks.
    pub(crate) fn drop_committed_until(&mut self, topic: TopicId, until_ticks_millis: u64) {
        let Some(partitions) = self.topics.remove(&topic) else {
            return;
        };
        let mut kept = BTreeMap::new();
        for (partition, offset) in &*partitions {
            if offset.committed_ticks_millis > until_ticks_millis {
                kept.insert(*partition, offset.clone());
            } else {
                self.bytes -= offset.bytes();
            }
        }
        if !kept.is_empty() {
            self.topics.insert(topic, Arc::new(kept));
        }
    }

    /// Checks that the bytes are counted right.
    pub(crate) fn assert_counted(&self, group: &str) {
        let offsets = self.topics.values().flat_map(|topic| topic.values());
        let bytes: u64 = offsets.map(CommittedOffset::bytes).sum();
        assert_eq!(self.bytes, bytes, "group {group}: bytes of offsets");
    }
}
