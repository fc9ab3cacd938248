//! A level 2 that is in no release: builds with the feature `rehearsal` know it, so that the way from one level to the next is
//! tried with two real builds (`tests/upgrade.py`). It differs from level 1 in a config and a number that `apply` reads.

use super::Level;
use super::one::LEVEL as ONE;
use crate::terms::setting::{Kind, Setting};

/// Where the added config stands in the sorted table.
const AT: usize = {
    let mut at = 0;
    while at < ONE.cluster_configs.len() && is_before(ONE.cluster_configs[at].name, ADDED.name) {
        at += 1;
    }
    at
};

const ADDED: Setting = Setting::of_cluster(
    "rehearsal.of.levels",
    Kind::Boolean,
    "false",
    "",
    "Has no effect: shows that a config of a later level cannot be set before that level is in force.",
);

const CLUSTER_CONFIGS: [Setting; ONE.cluster_configs.len() + 1] = {
    let mut all = [ADDED; ONE.cluster_configs.len() + 1];
    let mut at = 0;
    while at < ONE.cluster_configs.len() {
        all[at + (at >= AT) as usize] = ONE.cluster_configs[at];
        at += 1;
    }
    all
};

pub const LEVEL: Level = Level {
    number: 2,
    cluster_configs: &CLUSTER_CONFIGS,
    outcomes_kept: 2 * ONE.outcomes_kept,
    ..ONE
};

const fn is_before(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() && at < b.len() {
        if a[at] != b[at] {
            return a[at] < b[at];
        }
        at += 1;
    }
    a.len() < b.len()
}
