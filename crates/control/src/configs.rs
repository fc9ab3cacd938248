//! The cluster's configs, and what this node was started with: the first node of a cluster makes
//! them so. Later they are changed by an operator's word alone, which names what it replaces: the
//! flags of whoever leads next must not delete anybody's records. Pure.

use std::collections::BTreeMap;

use meta::State;
use meta::command::{ConfigChanges, Placement};
use meta::config::Source;

/// The config of the cluster that says which region is preferred. It is set by a command of its own: no node is started with one, and
/// what nodes are started with never takes it back.
pub(crate) const PREFERRED: &str = "region.preferred";

/// What a node was started with, of the cluster's configs.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Those that differ from their defaults.
    pub configs: BTreeMap<String, String>,
    /// The operator's word: they are to replace the configs of this version.
    pub replaces: Option<u64>,
    /// The buckets of a new cluster that has several.
    pub placement: Option<Placement>,
}

/// A config of the cluster that this node was started with another value of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub name: String,
    /// The value in force.
    pub in_force: String,
    /// What this node was started with.
    pub wanted: String,
}

/// What makes the cluster's configs be those wanted, and the defaults where nothing is wanted. A
/// config that the level in force does not have yet cannot be set.
pub(crate) fn changes(state: &State, wanted: &BTreeMap<String, String>) -> ConfigChanges {
    let mut changes = differing(state, wanted);
    changes
        .set
        .retain(|name, _| state.level().cluster_config(name).is_some());
    changes
}

fn differing(state: &State, wanted: &BTreeMap<String, String>) -> ConfigChanges {
    let set_now = state
        .describe_cluster()
        .into_iter()
        .filter(|config| config.source == Source::Cluster);
    let differs = |(name, value): &(&String, &String)| state.cluster_config(name) != value.as_str();
    let set = wanted.iter().filter(differs);
    ConfigChanges {
        set: set
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        remove: set_now
            .map(|config| config.setting.name.to_owned())
            .filter(|name| !wanted.contains_key(name) && name != PREFERRED)
            .collect(),
    }
}

/// Where the cluster's configs are not those wanted.
pub(crate) fn differences(state: &State, wanted: &BTreeMap<String, String>) -> Vec<Difference> {
    let ConfigChanges { set, remove } = differing(state, wanted);
    let default = |name: &str| {
        let found = state.level().cluster_config(name);
        found.map_or_else(String::new, |spec| spec.default.to_owned())
    };
    let removed = remove.into_iter().map(|name| {
        let wanted = default(&name);
        (name, wanted)
    });
    set.into_iter()
        .chain(removed)
        .map(|(name, wanted)| Difference {
            in_force: state.cluster_config(&name).to_owned(),
            name,
            wanted,
        })
        .filter(|difference| difference.in_force != difference.wanted)
        .collect()
}

#[cfg(test)]
mod tests {
    use meta::command::Command;
    use meta::ids::{EntryId, Stamp};

    use super::*;

    fn wanted(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_config_of_a_later_level_is_not_set_but_told() {
        let state = State::genesis("AAAAAAAAAAAAAAAAAAAAAA".to_owned());
        let later = wanted(&[("of.a.later.level", "1"), ("num.partitions", "3")]);
        let set = changes(&state, &later).set;
        assert_eq!(set.keys().collect::<Vec<_>>(), ["num.partitions"]);
        let told = differences(&state, &later);
        let names: Vec<&str> = told.iter().map(|difference| &*difference.name).collect();
        assert_eq!(names, ["num.partitions", "of.a.later.level"]);
    }

    #[test]
    fn what_differs_is_told_with_both_values() {
        let mut state = State::genesis("AAAAAAAAAAAAAAAAAAAAAA".to_owned());
        assert_eq!(differences(&state, &wanted(&[])), []);
        let default = state.cluster_config("num.partitions").to_owned();
        let at_default = wanted(&[("num.partitions", &default)]);
        assert_eq!(differences(&state, &at_default), []);
        let changes = changes(&state, &wanted(&[("num.partitions", "3")]));
        let command = Command::SetClusterConfigs {
            replaces: 0,
            changes,
        };
        state.apply(EntryId::default(), Stamp::default(), &command);
        assert_eq!(differences(&state, &wanted(&[("num.partitions", "3")])), []);
        let difference = |wanted: &str| Difference {
            name: "num.partitions".to_owned(),
            in_force: "3".to_owned(),
            wanted: wanted.to_owned(),
        };
        let other = differences(&state, &wanted(&[("num.partitions", "4")]));
        assert_eq!(other, [difference("4")]);
        assert_eq!(differences(&state, &wanted(&[])), [difference(&default)]);
    }

    #[test]
    fn the_region_that_an_operator_prefers_is_neither_told_nor_taken_back_by_a_node_that_starts() {
        let mut state = State::genesis("AAAAAAAAAAAAAAAAAAAAAA".to_owned());
        let command = Command::SetClusterConfigs {
            replaces: 0,
            changes: changes(&state, &wanted(&[(PREFERRED, "us-west")])),
        };
        state.apply(EntryId::default(), Stamp::default(), &command);
        assert_eq!(state.cluster_config(PREFERRED), "us-west");
        assert_eq!(differences(&state, &wanted(&[])), []);
        assert_eq!(changes(&state, &wanted(&[])), ConfigChanges::default());
    }
}
