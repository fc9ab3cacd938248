//! Versions of the view that agents have of the cluster, so that they can be told only what
//! changed. It must not know what changed.

use std::collections::BTreeMap;

use crate::terms::ids::TopicId;
use crate::terms::level::Level;

/// When what changed last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    /// The version of the view: rises with every change of topics, configs, agents or the level.
    pub(crate) last: u64,
    /// The version in which agents changed last.
    pub(crate) agents: u64,
    /// The version in which the cluster's configs changed last.
    pub(crate) configs: u64,
    /// Topics deleted lately, by the version of that.
    pub(crate) deleted: BTreeMap<u64, TopicId>,
    /// Every change after this version can be told, and all deletions after it are in `deleted`.
    pub(crate) complete_since: u64,
}

impl Versions {
    /// The version of a change that is made now.
    pub(crate) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(crate) fn agents_changed(&mut self) {
        self.agents = self.next();
    }

    pub(crate) fn configs_changed(&mut self) {
        self.configs = self.next();
    }

    pub(crate) fn topic_deleted(&mut self, level: &Level, id: TopicId) {
        let version = self.next();
        self.deleted.insert(version, id);
        if self.deleted.len() > level.topics_deleted_max
            && let Some((version, _)) = self.deleted.pop_first()
        {
            self.complete_since = self.complete_since.max(version);
        }
    }

    /// Goes beyond every version that was told so far, and can tell no differences from those.
    pub(crate) fn pass_over(&mut self, level: &Level) {
        self.last = self.last.saturating_add(level.left_out_numbers);
        self.complete_since = self.last;
    }

    /// Whether what changed since a version can be told.
    pub(crate) fn reach_back_to(&self, version: u64) -> bool {
        version >= self.complete_since
    }
}
