//! Merges what a request names several times, so that it is looked up and answered once: otherwise
//! a short name, repeated, would cost an answer of any size. It must not know the answers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rpc::group::FetchGroup;

use crate::api::once;

/// Each group, topic and partition once, in the order of first mention, with all that is asked of
/// it.
pub(super) fn offsets_once(groups: Vec<FetchGroup>) -> Vec<FetchGroup> {
    let groups = groups.into_iter().map(|group| (group.group, group.topics));
    let groups = merge(groups, |topics, more| match (topics.as_mut(), more) {
        (Some(topics), Some(more)) => topics.extend(more),
        // One of the mentions asks for all topics.
        _ => *topics = None,
    });
    groups
        .into_iter()
        .map(|(group, topics)| FetchGroup {
            group,
            topics: topics.map(|topics| {
                merge(topics, |partitions, more| partitions.extend(more))
                    .into_iter()
                    .map(|(topic, partitions)| (topic, once(partitions, Clone::clone)))
                    .collect()
            }),
        })
        .collect()
}

fn merge<K: Ord + Clone, V>(
    named: impl IntoIterator<Item = (K, V)>,
    add: impl Fn(&mut V, V),
) -> Vec<(K, V)> {
    let mut places = BTreeMap::new();
    let mut merged: Vec<(K, V)> = Vec::new();
    for (name, value) in named {
        match places.entry(name.clone()) {
            Entry::Vacant(place) => {
                place.insert(merged.len());
                merged.push((name, value));
            }
            Entry::Occupied(place) => {
                let place: usize = *place.get();
                add(&mut merged[place].1, value);
            }
        }
    }
    merged
}
