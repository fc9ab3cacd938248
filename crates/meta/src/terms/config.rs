//! The configs of topics and of the cluster, by the table of a level: whether they may be set, and what holds where
//! nothing is. It must not know what a config does.

use std::collections::BTreeMap;

use super::command::ConfigChanges;
use super::level::{Level, find};
use super::setting::Setting;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Set on the topic.
    Topic,
    /// Set for the cluster; Kafka's dynamic default broker config.
    Cluster,
    Default,
}

/// A config with its value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub setting: &'static Setting,
    /// The value in force.
    pub value: String,
    /// Where that comes from.
    pub source: Source,
    /// All values that are set, the one in force first, under the names they are set by.
    pub synonyms: Vec<Synonym>,
}

/// A place where a config's value is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: &'static str,
    pub value: String,
    pub source: Source,
}

/// Names and values as they are set.
pub type Configs = BTreeMap<String, String>;

/// Whether configs may be set together with what is there already; if not, why not.
pub(crate) fn check_all<'a>(
    level: &Level,
    table: &[Setting],
    configs: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<(), String> {
    for (name, value) in configs {
        let spec = find(table, name).ok_or_else(|| format!("there is no config {name}"))?;
        spec.check(&level.texts, value)?;
    }
    Ok(())
}

/// Checks changes, then makes them; true if anything is different then.
pub(crate) fn change(
    level: &Level,
    table: &[Setting],
    configs: &mut Configs,
    changes: &ConfigChanges,
) -> Result<bool, String> {
    check_all(level, table, &changes.set)?;
    if let Some(name) = changes
        .remove
        .iter()
        .find(|name| find(table, name).is_none())
    {
        return Err(format!("there is no config {name}"));
    }
    let before = configs.clone();
    configs.retain(|name, _| !changes.remove.contains(name));
    configs.extend(
        changes
            .set
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    Ok(*configs != before)
}

/// The value in force of the cluster's config; empty if there is no such config.
pub(crate) fn cluster_value<'a>(level: &Level, cluster: &'a Configs, name: &str) -> &'a str {
    match cluster.get(name) {
        Some(value) => value,
        None => level.cluster_config(name).map_or("", |spec| spec.default),
    }
}

/// The value in force of a topic's config; empty if there is no such config.
pub fn topic_value<'a>(
    level: &Level,
    cluster: &'a Configs,
    topic: &'a Configs,
    name: &str,
) -> &'a str {
    if let Some(value) = topic.get(name) {
        return value;
    }
    let Some(spec) = level.topic_config(name) else {
        return "";
    };
    let set = spec.cluster.and_then(|name| cluster.get(name));
    set.map_or(spec.default, String::as_str)
}

/// A number in force; what no longer parses counts as not set.
pub(crate) fn number(value: &str) -> Option<i64> {
    value.trim_ascii().parse().ok()
}

/// Every config of a topic.
pub fn describe_topic(level: &Level, cluster: &Configs, topic: &Configs) -> Vec<Described> {
    let describe = |spec: &'static Setting| {
        let here = topic
            .get(spec.name)
            .map(|value| (spec.name, value.clone(), Source::Topic));
        let there = spec.cluster.and_then(|name| {
            cluster
                .get(name)
                .map(|value| (name, value.clone(), Source::Cluster))
        });
        let name = spec.cluster.unwrap_or(spec.name);
        let default = (name, spec.default.to_owned(), Source::Default);
        described(spec, [here, there, Some(default)].into_iter().flatten())
    };
    level.topic_configs.iter().map(describe).collect()
}

/// Every config of the cluster.
pub(crate) fn describe_cluster(level: &Level, cluster: &Configs) -> Vec<Described> {
    let describe = |spec: &'static Setting| {
        let set = cluster
            .get(spec.name)
            .map(|value| (spec.name, value.clone(), Source::Cluster));
        let default = (spec.name, spec.default.to_owned(), Source::Default);
        described(spec, [set, Some(default)].into_iter().flatten())
    };
    level.cluster_configs.iter().map(describe).collect()
}

fn described(
    spec: &'static Setting,
    values: impl Iterator<Item = (&'static str, String, Source)>,
) -> Described {
    let synonyms: Vec<Synonym> = values
        .map(|(name, value, source)| Synonym {
            name,
            value,
            source,
        })
        .collect();
    let (value, source) = match synonyms.first() {
        Some(first) => (first.value.clone(), first.source),
        None => (spec.default.to_owned(), Source::Default),
    };
    Described {
        setting: spec,
        value,
        source,
        synonyms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::level::Levels;

    #[test]
    fn what_has_no_effect_is_documented_and_says_so() {
        let page = include_str!("../../../../docs/protocol.md");
        let (_, list) = page.split_once("```accepted\n").expect("the list is there");
        let (list, _) = list.split_once("```").expect("it ends");
        let without = Levels::KNOWN
            .newest()
            .topic_configs
            .iter()
            .filter(|spec| !spec.has_effect);
        let names: Vec<&str> = without
            .inspect(|spec| {
                assert!(
                    spec.meaning.starts_with("Accepted for tools"),
                    "{}",
                    spec.name
                )
            })
            .map(|spec| spec.name)
            .collect();
        assert_eq!(names, list.lines().collect::<Vec<_>>());
    }

    #[test]
    fn refuses_values_that_do_not_fit() {
        let refused = [
            ("cleanup.policy", "compact"),
            ("cleanup.policy", "compact,delete"),
            ("retention.ms", "-2"),
            ("retention.ms", "soon"),
            ("retention.ms", "000000000000000000000000000000001"),
            ("max.message.bytes", "4294967296"),
            ("message.timestamp.type", "createtime"),
            ("compression.type", "brotli"),
            ("preallocate", "yes"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("segment.bytes", "1"),
        ];
        let level = Levels::KNOWN.first();
        for (name, value) in refused {
            let spec = level.topic_config(name).expect("it is in the table");
            assert!(spec.check(&level.texts, value).is_err(), "{name}={value}");
        }
        let allowed = [
            ("retention.ms", "-1"),
            ("min.cleanable.dirty.ratio", "0.25"),
            ("min.cleanable.dirty.ratio", "1.00"),
            ("compression.type", "zstd"),
        ];
        for (name, value) in allowed {
            let spec = level.topic_config(name).expect("it is in the table");
            assert_eq!(spec.check(&level.texts, value), Ok(()), "{name}={value}");
        }
    }

    #[test]
    fn the_topic_holds_before_the_cluster_and_the_cluster_before_the_default() {
        let set = |pairs: &[(&str, &str)]| -> Configs {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let level = Levels::KNOWN.first();
        let nothing = Configs::new();
        let cluster = set(&[("log.retention.ms", "5")]);
        let topic = set(&[("retention.ms", "7")]);
        assert_eq!(topic_value(level, &cluster, &topic, "retention.ms"), "7");
        assert_eq!(topic_value(level, &cluster, &nothing, "retention.ms"), "5");
        assert_eq!(
            topic_value(level, &nothing, &nothing, "retention.ms"),
            "604800000"
        );
        assert_eq!(cluster_value(level, &cluster, "log.retention.ms"), "5");
        let all = describe_topic(level, &cluster, &topic);
        let retention = all
            .iter()
            .find(|config| config.setting.name == "retention.ms")
            .expect("listed");
        let names: Vec<_> = retention
            .synonyms
            .iter()
            .map(|s| (s.name, s.source))
            .collect();
        let expected = [
            ("retention.ms", Source::Topic),
            ("log.retention.ms", Source::Cluster),
            ("log.retention.ms", Source::Default),
        ];
        assert_eq!(
            (retention.value.as_str(), retention.source),
            ("7", Source::Topic)
        );
        assert_eq!(names, expected);
    }
}
