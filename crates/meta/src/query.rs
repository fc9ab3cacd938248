//! What can be asked of the state: views, never changes. All of it is cheap enough to be asked
//! under the lock that keeps commands from being applied.

mod safe;

use std::sync::Arc;

use crate::nouns::clock::Hold;
use crate::nouns::file::File;
use crate::nouns::group::Groups;
use crate::nouns::level;
use crate::nouns::partition::Partition;
use crate::nouns::short::Shortage;
use crate::nouns::slice::Slice;
use crate::nouns::topic::{Topic, Topics};
use crate::rule::Rule;
use crate::state::State;
use crate::terms::command::{Command, ControlNode, CreateTopic, Placement};
use crate::terms::config::{self, Described};
use crate::terms::ids::{FileId, Incarnation, PartitionId, Stamp, TopicId};
use crate::terms::level::{Level, Levels, TooNew};
use crate::terms::places::{
    Bounds, Fate, FileRef, Located, SlicePlace, StoredFile, StoredFiles, TimeQuery, WantedFiles,
};
use crate::terms::refusal::{Refusal, TopicRefusal};
use crate::terms::view::{Agent, ViewChange, Whose};

/// How much there is, for metrics and people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Totals {
    pub topics: u64,
    pub partitions: u64,
    /// Partitions of deleted topics whose slices are still being dropped.
    pub doomed_partitions: u64,
    /// Files that are not forgotten.
    pub files: u64,
    /// Those of them that hold nothing that can be read.
    pub tombstoned_files: u64,
    pub groups: u64,
    /// Idempotent producers remembered, each once for every partition that it has written to.
    pub producers: u64,
    /// How many may be (`producer.ids.max`).
    pub producers_max: u64,
}

/// So many files of an incarnation are looked at to find its last one in a bucket,
const LAST_LOOKED_AT: u64 = 16;
/// and so many incarnations, the last first: agents ask for it every few seconds.
const RUNS_LOOKED_AT: usize = 256;

impl State {
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The level in force.
    pub fn level(&self) -> &'static Level {
        self.level
    }

    /// What this build knows.
    pub fn levels(&self) -> Levels {
        self.levels
    }

    /// Whether a command can be applied: by the level in force, and by this build. If not, the
    /// replica must stop, its state as it is.
    pub fn check_known(&self, command: &Command) -> Result<(), TooNew> {
        self.level.check_has(command.since())?;
        match *command {
            Command::SetFeatureLevel { level }
                if self.levels.find(level).is_err() && self.check_feature_level(level).is_ok() =>
            {
                Err(TooNew::ForBuild { level })
            }
            _ => Ok(()),
        }
    }

    /// The version of the view in which the cluster's configs changed last: what a change of them
    /// says that it replaces. 0 if nothing was ever set.
    pub fn configs_version(&self) -> u64 {
        self.versions.configs
    }

    /// Whether the feature level may be raised to another one now.
    pub fn check_feature_level(&self, level: u32) -> Result<(), Refusal> {
        level::check(self.level.number, &self.members, level)
    }

    /// The last stamp applied.
    pub fn stamp(&self) -> Stamp {
        self.clock.last
    }

    /// Set while retention by time is held after a jump of the wall clock.
    pub fn retention_hold(&self) -> Option<Hold> {
        self.clock.hold
    }

    /// How far the wall clock went ahead of the ticks in the hour of ticks that is under way, in milliseconds; below zero, how far it
    /// stayed behind: by all of it while stamps stand still.
    pub fn clock_drift_millis(&self) -> i64 {
        self.clock.drift_millis()
    }

    /// Rises with every change of topics, configs or agents.
    pub fn view_version(&self) -> u64 {
        self.versions.last
    }

    /// Whether nobody has used the cluster yet: there never was a topic or an agent, and no config was set. Its control
    /// nodes may have registered, and raised the level.
    pub fn is_new(&self) -> bool {
        (
            self.last_partition,
            self.members.last_incarnation,
            self.configs_version(),
        ) == (0, 0, 0)
    }

    /// What changed since a version of the view; all there is for who knows none, or one from
    /// before what is remembered. `None` if nothing changed.
    pub fn view_since(&self, known: Option<u64>) -> Option<ViewChange> {
        let versions = &self.versions;
        if known.is_some_and(|known| known >= versions.last) {
            return None;
        }
        let since = known.filter(|known| versions.reach_back_to(*known));
        let changed = |version: u64| since.is_none_or(|since| version > since);
        let deleted = since.map(|since| versions.deleted.range(since + 1..));
        Some(ViewChange {
            version: versions.last,
            level: self.level.number,
            whole: since.is_none(),
            topics: self
                .topics
                .changed_since(since.unwrap_or(0))
                .cloned()
                .collect(),
            deleted: deleted.into_iter().flatten().map(|(_, id)| *id).collect(),
            agents: changed(versions.agents).then(|| self.agents().cloned().collect()),
            cluster_configs: changed(versions.configs)
                .then(|| Arc::clone(self.topics.cluster_configs())),
        })
    }

    /// How much there is.
    pub fn totals(&self) -> Totals {
        let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        Totals {
            topics: count(self.topics.len()),
            partitions: count(self.partitions.len()),
            doomed_partitions: count(self.doomed.len()),
            files: self.files.len(),
            tombstoned_files: self.files.tombstoned(),
            producers: self.producers,
            producers_max: self.producer_room().max,
            groups: count(self.groups.len()),
        }
    }

    /// How many slices so many partitions have, from the one with a number on; and the number to go on from, unless these were the
    /// last.
    pub fn slices_from(&self, number: u64, partitions: usize) -> (u64, Option<u64>) {
        let mut all = self.partitions.iter_from(number);
        let some = all.by_ref().take(partitions);
        let slices = some.map(|(_, partition)| partition.slices()).sum();
        (slices, all.next().map(|(number, _)| number))
    }

    /// All topics, sorted by name, and the cluster's configs.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// The topic of a name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.named(name)
    }

    /// The topic of an id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(id)
    }

    /// Whether a topic could be created now; what a later command finds may differ.
    pub fn check_create_topic(&self, request: &CreateTopic) -> Result<(), TopicRefusal> {
        self.topics.check_new(self.level, request)
    }

    /// Whether a topic could be given this many partitions now.
    pub fn check_create_partitions(&self, id: TopicId, total: u32) -> Result<(), TopicRefusal> {
        self.topics.check_growth(self.level, id, total).map(|_| ())
    }

    /// The value in force of one of the cluster's configs; empty if there is no such config.
    pub fn cluster_config(&self, name: &str) -> &str {
        config::cluster_value(self.level, &self.topics.cluster_configs, name)
    }

    /// Every config of a topic, with sources and synonyms, sorted by name.
    pub fn describe_topic(&self, topic: &Topic) -> Vec<Described> {
        config::describe_topic(self.level, &self.topics.cluster_configs, &topic.configs)
    }

    /// Every config of the cluster, with sources and synonyms, sorted by name.
    pub fn describe_cluster(&self) -> Vec<Described> {
        config::describe_cluster(self.level, &self.topics.cluster_configs)
    }

    /// A partition of a topic that exists.
    pub fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.partitions.get(id.0)
    }

    /// The slices from an offset on: at most `max_slices`, and none after those that make up
    /// `max_bytes`; but always the first.
    pub fn locate(
        &self,
        id: PartitionId,
        offset: i64,
        max_bytes: u64,
        max_slices: usize,
    ) -> Located {
        let Some(partition) = self.partition(id) else {
            return Located::UnknownPartition;
        };
        let (log_start, high_watermark) = (partition.log_start, partition.high_watermark);
        if offset < log_start || offset > high_watermark {
            return Located::OutOfRange {
                log_start,
                high_watermark,
            };
        }
        let mut bytes = 0_u64;
        let within = |slice: &Slice| {
            let wanted = bytes < max_bytes.max(1);
            bytes = bytes.saturating_add(u64::from(slice.length));
            wanted
        };
        let slices = partition
            .slices
            .iter_from(offset)
            .take_while(within)
            .take(max_slices.max(1));
        let places = slices.map(|slice| self.place(&slice)).collect();
        Located::Found {
            log_start,
            high_watermark,
            places,
        }
    }

    /// The offsets between which a partition can be read.
    pub fn bounds(&self, id: PartitionId) -> Option<Bounds> {
        let partition = self.partition(id)?;
        Some(Bounds {
            log_start: partition.log_start,
            high_watermark: partition.high_watermark,
        })
    }

    /// The slice in which to look for a time.
    pub fn find_time(&self, id: PartitionId, query: TimeQuery) -> Option<SlicePlace> {
        match query {
            TimeQuery::AtOrAfter(timestamp) => self.slice_at_or_after_timestamp(id, timestamp),
            TimeQuery::Largest => self.max_timestamp_slice(id),
        }
    }

    /// The first slice that has a timestamp at or after a time (milliseconds since 1970).
    pub fn slice_at_or_after_timestamp(
        &self,
        id: PartitionId,
        timestamp: i64,
    ) -> Option<SlicePlace> {
        let slices = &self.partition(id)?.slices;
        Some(self.place(&slices.at_or_after_timestamp(timestamp)?))
    }

    /// The first slice that has the largest timestamp.
    pub fn max_timestamp_slice(&self, id: PartitionId) -> Option<SlicePlace> {
        Some(self.place(&self.partition(id)?.slices.max_timestamp()?))
    }

    /// # Panics
    /// If the slice's file is not known. A plan without the slice would be a plausible answer to
    /// a question that cannot be answered (rule 20).
    fn place(&self, slice: &Slice) -> SlicePlace {
        match self.files.get(slice.file) {
            Some(file) => slice.place(file.nonce, file.length),
            None => panic!("a slice lies in file {}, which is not known", slice.file),
        }
    }

    /// A committed file that is not forgotten.
    pub fn file(&self, id: FileId) -> Option<&File> {
        self.files.get(id)
    }

    /// What may become of a file found in a bucket. `Dead` is final.
    pub fn fate(&self, found: FileRef) -> Fate {
        let id = found.file;
        if let Some(file) = self.files.get(id) {
            return match file.is_tombstoned() {
                _ if file.nonce != found.nonce => Fate::Dead,
                true => Fate::Tombstoned,
                false => Fate::Live,
            };
        }
        let past = |ticks: u64| {
            self.clock
                .last
                .ticks_millis
                .checked_sub(ticks)
                .is_some_and(|t| t >= self.grace_ticks())
        };
        let Some(run) = self.members.runs.get(&id.incarnation) else {
            let forgotten = id.incarnation.0 <= self.members.last_incarnation;
            return if forgotten {
                Fate::Dead
            } else {
                Fate::Undecided
            };
        };
        if id.number >= run.next_number {
            let dead = run.fenced_ticks.is_some_and(past);
            return if dead { Fate::Dead } else { Fate::Undecided };
        }
        match run.skipped.get(&id.number) {
            Some(ticks) if !past(*ticks) => Fate::Undecided,
            _ => Fate::Dead,
        }
    }

    /// Tombstoned files past the grace that a bucket is still to delete, the oldest tombstones first, at most `max`; to be reported
    /// by `FilesDeleted` then.
    pub fn collectable(&self, bucket: u32, max: usize) -> Vec<FileRef> {
        let grace = match self.rules.hold(Rule::GraceBeforeDeletion) {
            true => self.grace_ticks(),
            false => 0,
        };
        match self.clock.last.ticks_millis.checked_sub(grace) {
            Some(until) => self.files.to_delete(bucket, until, max),
            None => Vec::new(),
        }
    }

    /// How many files each bucket lacks in which every file is to be.
    pub fn shortages(&self) -> impl Iterator<Item = (u32, Shortage)> {
        self.files.shortages()
    }

    /// Live files that a bucket lacks, at most `max`, in the order of their commits: those after one of them.
    pub fn short_of(
        &self,
        bucket: u32,
        after: Option<(u64, FileId)>,
        max: usize,
    ) -> Vec<StoredFile> {
        let lacking = self.files.lacking(bucket, after);
        let short = lacking.take(max);
        short.map(|(id, file)| self.stored_file(id, file)).collect()
    }

    /// Live files, and how copies of them are known; of those in a bucket at most `max` are looked at.
    pub fn stored(&self, wanted: WantedFiles, max: usize) -> StoredFiles {
        let (files, more_after) = match wanted {
            WantedFiles::File(wanted) => {
                let file = self.files.get(wanted.file);
                let file = file.filter(|file| file.nonce == wanted.nonce && !file.is_tombstoned());
                let named = file.map(|file| (wanted.file, *file));
                (named.into_iter().collect(), None)
            }
            WantedFiles::LastIn { bucket } => (self.last_in(bucket).into_iter().collect(), None),
            WantedFiles::In { bucket, after } => self.files.held_in(bucket, after, max),
        };
        let named = files.iter().map(|(id, file)| self.stored_file(*id, file));
        StoredFiles {
            files: named.collect(),
            more_after,
            suspects: self.suspect_buckets().collect(),
        }
    }

    /// One of the files in a bucket that were committed last: of each of the last incarnations the last few are looked at.
    fn last_in(&self, bucket: u32) -> Option<(FileId, File)> {
        let runs = self.members.runs.iter().rev().take(RUNS_LOOKED_AT);
        let last = runs.filter_map(|(incarnation, run)| {
            let last_few = run.next_number.saturating_sub(LAST_LOOKED_AT)..run.next_number;
            let (id, file) = self.files.last_in(bucket, *incarnation, last_few)?;
            Some((id, *file))
        });
        last.max_by_key(|(_, file)| file.committed_wall_millis)
    }

    fn stored_file(&self, id: FileId, file: &File) -> StoredFile {
        let held: Vec<u32> = file.placement().collect();
        StoredFile {
            committed_wall_millis: file.committed_wall_millis,
            file: FileRef {
                file: id,
                nonce: file.nonce,
            },
            length: file.length,
            checksum: file.checksum,
            is_held_enough: self.covered(&held).is_some(),
            held,
        }
    }

    /// Buckets that are suspect, and since when, in ticks: what they hold counts for no commit until it has been compared.
    pub fn suspect_buckets(&self) -> impl Iterator<Item = (u32, u64)> {
        let buckets = self.doubts.of.keys();
        buckets.filter_map(|bucket| Some((*bucket, self.doubts.suspect_since(*bucket)?)))
    }

    /// Whether nothing waits for a bucket, since it is away for long.
    pub fn is_away(&self, bucket: u32) -> bool {
        let bit = 1_u64.checked_shl(bucket).unwrap_or(0);
        self.files.away() & bit != 0
    }

    /// Where files must be.
    pub fn placement(&self) -> &Placement {
        &self.policy.placement
    }

    /// The time of the last entry, in milliseconds in which somebody led.
    pub fn ticks_millis(&self) -> u64 {
        self.clock.last.ticks_millis
    }

    /// Agents whose last incarnation is not fenced, by node id.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.members
            .agents
            .values()
            .filter(|agent| self.members.is_alive(agent))
    }

    /// Agents whose last incarnation is fenced, with the ticks when it was: they have ended or were gone, and have not registered since.
    /// They are forgotten some time later.
    pub fn former_agents(&self) -> impl Iterator<Item = (&Agent, u64)> {
        self.members.agents.values().filter_map(|agent| {
            let run = self.members.runs.get(&agent.incarnation)?;
            Some((agent, run.fenced_ticks?))
        })
    }

    /// The nonce with which an incarnation was registered; `None` if it is not known.
    pub fn nonce_of(&self, incarnation: Incarnation) -> Option<u128> {
        let run = self.members.runs.get(&incarnation)?;
        Some(run.nonce)
    }

    /// Whether files that lie in these buckets, bit b for number b, may be committed.
    pub fn are_enough(&self, buckets: u64) -> bool {
        let numbers: Vec<u32> = (0..u64::BITS)
            .filter(|bucket| buckets & (1 << bucket) != 0)
            .collect();
        self.covered(&numbers).is_some()
    }

    /// The number an incarnation may decide next, and whether it is fenced; `None` if it is not
    /// known.
    pub fn incarnation(&self, incarnation: Incarnation) -> Option<(u64, bool)> {
        let run = self.members.runs.get(&incarnation)?;
        Some((run.next_number, run.fenced_ticks.is_some()))
    }

    /// Whose an incarnation is.
    pub fn whose(&self, incarnation: Incarnation) -> Whose<'_> {
        if incarnation.0 > self.members.last_incarnation {
            return Whose::NotGivenYet;
        }
        let mut agents = self.agents();
        let found = agents.find(|agent| agent.incarnation == incarnation);
        found.map_or(Whose::Nobodys, Whose::Of)
    }

    /// Control nodes, by name.
    pub fn control_nodes(&self) -> impl Iterator<Item = &ControlNode> {
        self.members.control_nodes.values()
    }

    pub fn groups(&self) -> &Groups {
        &self.groups
    }
}
