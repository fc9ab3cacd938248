//! Feature levels: what a build knows of each. Whatever number, name or default `apply` reads comes from the level that is
//! in force in the state, never from the build, so that every build makes the same of one journal. It must not know what
//! a number is used for.

pub mod one;
#[cfg(feature = "rehearsal")]
mod rehearsal;

use super::refusal::Refusal;
use super::setting::{Limits, Setting};

/// What `apply` reads, and the checks of a restored snapshot, beside the state, the stamp and the command.
///
/// A bound never falls from one level to the next: states that were within the one before stay whole.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    pub number: u32,
    /// The configs of topics (Kafka's `TopicConfig`), sorted by name.
    pub topic_configs: &'static [Setting],
    /// The cluster's configs, sorted by name: Kafka's broker configs where it has them.
    pub cluster_configs: &'static [Setting],
    pub texts: Limits,
    /// Most listeners of one agent: a view has the addresses of all.
    pub listeners_max: usize,
    /// Longest topic name, as Kafka's.
    pub topic_name_length_max: usize,
    /// Most partitions of one topic: as many as one command can make without a noticeable pause.
    pub topic_partitions_max: u32,
    /// Most partitions of one cluster, those of deleted topics that are still being dropped included: what one process
    /// can hold in a few hundred MiB, with clients that ask for all of them.
    pub partitions_max: u64,
    /// Most topics of one cluster: what one process can hold in some 400 MiB, however long their names are and however
    /// much is set on them.
    pub topics_max: usize,
    /// Topics remembered after they were deleted, so that agents can be told of them one by one; an agent that knows
    /// less is given the whole view.
    pub topics_deleted_max: usize,
    /// Where numbers of partitions, incarnations and producers end: the 16 bits above are kept for a shard.
    pub counter_max: u64,
    /// How many numbers of partitions, incarnations and producers, and versions of the view, are passed over once an entry
    /// is left out: more than it and what rested on it can have given out.
    pub left_out_numbers: u64,
    /// As many ids of agents.
    pub left_out_agents: i32,
    /// Outcomes kept per incarnation, so that a repeated commit gets its first outcome. More than an agent has in flight.
    pub outcomes_kept: usize,
    /// Slices in a full block. Small enough that unpacking one is cheap, large enough that a block's own memory does not
    /// show.
    pub block_slices: usize,
    /// Most slices dropped by one step of housekeeping, which bounds its time to some milliseconds.
    pub step_slices: u32,
    /// Most partitions looked at by one step of housekeeping.
    pub step_partitions: u32,
    /// Most topics and offsets of groups looked at by one step of housekeeping, but for the rest of a topic.
    pub step_offsets: usize,
    /// How long an idle producer is remembered while more of the room for producers is taken than
    /// [`Level::pressed_divisor`] allows: five times as long as clients go on repeating a batch (`delivery.timeout.ms`, two minutes).
    pub pressed_idle_millis: u64,
    /// The room for producers divided by this may be taken before idle ones are dropped earlier.
    pub pressed_divisor: u64,
    /// A step of the wall clock this much larger than the step of the ticks is a jump.
    pub jump_millis: u64,
    /// Ticks over which smaller steps are summed: together they are a jump, too.
    pub drift_summed_millis: u64,
    /// Ticks after which a jump counts as confirmed, if the wall clock kept going with them.
    pub jump_confirmed_millis: u64,
    /// Those ticks divided by this are what the wall clock must have gone on meanwhile, to confirm a jump.
    pub jump_confirmed_divisor: u64,
    /// How long a group without members and offsets is kept, so that its generation goes on if members come back: Kafka
    /// forgets such groups in a sweep every ten minutes.
    pub empty_group_kept_millis: u64,
    /// Two agents that miss files in one bucket within so many ticks make it suspect.
    pub suspect_within_millis: u64,
}

impl Level {
    pub fn topic_config(&self, name: &str) -> Option<&'static Setting> {
        find(self.topic_configs, name)
    }

    pub fn cluster_config(&self, name: &str) -> Option<&'static Setting> {
        find(self.cluster_configs, name)
    }

    /// Whether this level has what was introduced at level `since`.
    pub fn check_has(&self, since: u32) -> Result<(), TooNew> {
        let level = self.number;
        if since > level {
            return Err(TooNew::ForLevel { since, level });
        }
        Ok(())
    }

    /// Refuses a process that supports levels up to `supported` only.
    pub(crate) fn check_supported(&self, supported: u32) -> Result<(), Refusal> {
        let level = self.number;
        if supported < level {
            return Err(Refusal::LevelUnsupported { level });
        }
        Ok(())
    }
}

/// What is too new for the level in force, or for this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooNew {
    /// The level in force does not have it: other builds may not know it yet.
    #[error("it belongs to feature level {since}, and level {level} is in force")]
    ForLevel { since: u32, level: u32 },
    /// A level comes into force that this build does not know: it must stop, its state as it is.
    #[error(
        "it raises the feature level to {level}, which this release does not support: run a newer one"
    )]
    ForBuild { level: u32 },
}

/// The row of a name in a table.
pub(super) fn find<'a>(table: &'a [Setting], name: &str) -> Option<&'a Setting> {
    let at = table.binary_search_by_key(&name, |spec| spec.name).ok()?;
    table.get(at)
}

/// The levels that a build knows, from 1 on without a gap. A value and no constant, so that tests can be a later build.
#[derive(Clone, Copy, Debug)]
pub struct Levels(&'static [Level]);

impl Levels {
    /// What this build knows.
    pub const KNOWN: Levels = Levels::new(&[
        one::LEVEL,
        #[cfg(feature = "rehearsal")]
        rehearsal::LEVEL,
    ]);

    /// # Panics
    /// If there are none, or they are not 1, 2, 3 and so on.
    pub const fn new(levels: &'static [Level]) -> Self {
        assert!(!levels.is_empty(), "every journal begins at level 1");
        let mut at = 0;
        while at < levels.len() {
            assert!(levels[at].number as usize == at + 1, "levels have no gap");
            at += 1;
        }
        Levels(levels)
    }

    /// The level at which every journal begins, for ever: what a journal says before its first `SetFeatureLevel` means
    /// the same to every build.
    pub const fn first(self) -> &'static Level {
        &self.0[0]
    }

    pub const fn newest(self) -> &'static Level {
        &self.0[self.0.len() - 1]
    }

    /// The level of a number, unless this build does not know it.
    pub fn find(self, level: u32) -> Result<&'static Level, Refusal> {
        let found = self.0.iter().find(|known| known.number == level);
        found.ok_or(Refusal::LevelUnsupported { level })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_their_defaults_are_allowed() {
        for level in Levels::KNOWN.0 {
            for table in [level.topic_configs, level.cluster_configs] {
                assert!(table.is_sorted_by(|a, b| a.name < b.name));
                for spec in table {
                    assert_eq!(
                        spec.check(&level.texts, spec.default),
                        Ok(()),
                        "{}",
                        spec.name
                    );
                }
            }
            for spec in level.topic_configs {
                let Some(name) = spec.cluster else { continue };
                let cluster = level.cluster_config(name).expect("the cluster has it too");
                assert_eq!(cluster.default, spec.default, "{name}");
            }
        }
    }

    #[test]
    fn a_bound_never_falls_from_one_level_to_the_next() {
        let bounds = |level: &Level| {
            [
                level.texts.name_bytes_max as u64,
                level.texts.value_bytes_max as u64,
                level.texts.number_bytes_max as u64,
                level.topic_name_length_max as u64,
                u64::from(level.topic_partitions_max),
                level.partitions_max,
                level.topics_max as u64,
                level.topics_deleted_max as u64,
                level.counter_max,
                level.outcomes_kept as u64,
                level.block_slices as u64,
            ]
        };
        for pair in Levels::KNOWN.0.windows(2) {
            let (before, after) = (bounds(&pair[0]), bounds(&pair[1]));
            assert!(
                before
                    .iter()
                    .zip(after)
                    .all(|(before, after)| *before <= after)
            );
        }
    }
}
