//! Offsets that a group has committed. They belong to a topic id, so that a topic that is deleted
//! and created again does not inherit them. Must not know who may commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::group::{OffsetEntry, PartitionCount, Refusal};
use crate::ids::TopicId;

/// Longest metadata that a client may attach to an offset, in bytes: Kafka's default of
/// `offset.metadata.max.bytes`.
pub const METADATA_BYTES_MAX: usize = 4096;

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

/// The offsets of one group. A clone shares the topics that do not change afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    topics: BTreeMap<TopicId, Arc<BTreeMap<u32, CommittedOffset>>>,
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

    /// True if nothing is committed.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Commits offsets, each on its own; outcomes in the order given.
    pub(crate) fn commit(
        &mut self,
        ticks_millis: u64,
        partitions: PartitionCount<'_>,
        entries: &[OffsetEntry],
    ) -> Vec<Result<(), Refusal>> {
        let commit = |entry: &OffsetEntry| {
            if partitions(entry.topic).is_none_or(|count| entry.partition >= count) {
                return Err(Refusal::UnknownTopicOrPartition);
            }
            if entry.metadata.len() > METADATA_BYTES_MAX {
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

    /// Sets one offset.
    pub(crate) fn insert(&mut self, topic: TopicId, partition: u32, offset: CommittedOffset) {
        Arc::make_mut(self.topics.entry(topic).or_default()).insert(partition, offset);
    }

    /// True if a partition of the topic has an offset.
    pub(crate) fn has_topic(&self, topic: TopicId) -> bool {
        self.topics.contains_key(&topic)
    }

    /// Drops a topic's offsets.
    pub(crate) fn forget_topic(&mut self, topic: TopicId) {
        self.topics.remove(&topic);
    }

    /// True if something was committed at `horizon` or before.
    pub(crate) fn has_committed_until(&self, horizon_ticks_millis: u64) -> bool {
        self.topics
            .values()
            .flat_map(|partitions| partitions.values())
            .any(|offset| offset.committed_ticks_millis <= horizon_ticks_millis)
    }

    /// Drops what was committed at `horizon` or before.
    pub(crate) fn drop_committed_until(&mut self, horizon_ticks_millis: u64) {
        for partitions in self.topics.values_mut() {
            Arc::make_mut(partitions)
                .retain(|_, offset| offset.committed_ticks_millis > horizon_ticks_millis);
        }
        self.topics.retain(|_, partitions| !partitions.is_empty());
    }
}
