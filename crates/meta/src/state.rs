//! All metadata of one cluster: its nouns together. It must not know what changes them.

use std::sync::Arc;

use crate::nouns::behind::Behind;
use crate::nouns::clock::Clock;
use crate::nouns::doubt::Doubts;
use crate::nouns::file::Files;
use crate::nouns::group::Groups;
use crate::nouns::member::Members;
use crate::nouns::ordered::Ordered;
use crate::nouns::partition::Partition;
use crate::nouns::placement::Policy;
use crate::nouns::producer::{ProducerIds, Room};
use crate::nouns::spread::Spread;
use crate::nouns::table::Table;
use crate::nouns::topic::Topics;
use crate::nouns::view::Versions;
use crate::rule::{Rule, Rules};
use crate::terms::ids::{FileId, PartitionId};
use crate::terms::level::{Level, Levels};

/// The epoch that every partition's leader has, always: there are no leaders to tell apart, and
/// clients want an epoch that is not negative and never goes back.
pub const LEADER_EPOCH: i32 = 1;

/// All metadata of one cluster. A clone shares what is not changed afterwards.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) cluster_id: String,
    /// The level in force: all that `apply` reads beside its input.
    pub(crate) level: &'static Level,
    /// What this build knows; no part of the state.
    pub(crate) levels: Levels,
    pub(crate) clock: Clock,
    pub(crate) members: Members,
    pub(crate) policy: Policy,
    pub(crate) topics: Topics,
    pub(crate) partitions: Table<Partition>,
    /// Partitions of deleted topics that still have slices.
    pub(crate) doomed: Ordered<PartitionId, Arc<Partition>>,
    pub(crate) files: Files,
    /// Of each live file, if files are to be in several buckets; follows from the slices of partitions.
    pub(crate) spreads: Ordered<FileId, Spread>,
    /// What buckets lack of partitions; follows from files and spreads.
    pub(crate) behind: Behind,
    pub(crate) doubts: Doubts,
    pub(crate) groups: Groups,
    /// The last partition id given; 0 at first.
    pub(crate) last_partition: u64,
    pub(crate) producer_ids: ProducerIds,
    /// The partition at which housekeeping goes on.
    pub(crate) cursor: u64,
    pub(crate) versions: Versions,
    /// Producers remembered by all partitions; follows from those.
    pub(crate) producers: u64,
    /// No part of the state: what tests removed of the rules.
    pub(crate) rules: Rules,
}

impl State {
    /// The state before the first command. The cluster id is Kafka's: 22 characters of base64.
    pub fn genesis(cluster_id: String) -> State {
        State::genesis_of(Levels::KNOWN, cluster_id)
    }

    /// [`State::genesis`] in a build that knows these levels.
    pub fn genesis_of(levels: Levels, cluster_id: String) -> State {
        State {
            cluster_id,
            level: levels.first(),
            levels,
            clock: Clock::default(),
            members: Members::default(),
            policy: Policy::default(),
            topics: Topics::default(),
            partitions: Table::default(),
            doomed: Ordered::default(),
            files: Files::default(),
            spreads: Ordered::default(),
            behind: Behind::default(),
            doubts: Doubts::default(),
            groups: Groups::default(),
            last_partition: 0,
            producer_ids: ProducerIds::default(),
            cursor: 0,
            versions: Versions::default(),
            producers: 0,
            rules: Rules::default(),
        }
    }

    /// The value in force of one of the cluster's configs, as a number.
    pub(crate) fn cluster_number(&self, name: &str) -> Option<i64> {
        self.topics.cluster_number(self.level, name)
    }

    /// From here on one of the rules does not hold.
    #[cfg(feature = "mutations")]
    pub fn remove(&mut self, rule: crate::rule::Rule) {
        self.rules = Rules::without([Some(rule), None]);
    }

    /// The buckets that are suspect, as a set of bits: what they hold counts for no commit.
    pub(crate) fn suspects(&self) -> u64 {
        let suspects = self.doubts.of.keys().copied();
        let suspects = suspects.filter(|bucket| self.doubts.suspect_since(*bucket).is_some());
        suspects.fold(0, |bits, bucket| {
            bits | 1_u64.checked_shl(bucket).unwrap_or(0)
        })
    }

    /// Those of the buckets that count, as a set of bits, if a file that they hold is in enough failure domains: what a suspect one holds
    /// does not count, nor is it known to hold it.
    pub(crate) fn covered(&self, placement: &[u32]) -> Option<u64> {
        let suspects = match self.rules.hold(Rule::SuspectBucketsDoNotCount) {
            true => self.suspects(),
            false => 0,
        };
        self.policy.covered(placement, suspects)
    }

    /// How many producers are remembered, and may be.
    pub(crate) fn producer_room(&self) -> Room {
        let max = self.cluster_number("producer.ids.max");
        Room {
            taken: self.producers,
            max: max
                .and_then(|max| u64::try_from(max).ok())
                .unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn present_partitions(&self) -> u64 {
        u64::try_from(self.partitions.len() + self.doomed.len()).unwrap_or(u64::MAX)
    }

    /// Ticks between a file's tombstone and its deletion; also between the end of an incarnation
    /// and that of what is kept of it.
    pub fn grace_ticks(&self) -> u64 {
        let grace = self.cluster_number("file.delete.grace.ms");
        grace
            .and_then(|grace| u64::try_from(grace).ok())
            .unwrap_or(u64::MAX)
    }
}
