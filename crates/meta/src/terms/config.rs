//! The settings of topics and of the cluster: which there are, what values they take, what holds where nothing is set.
//! It must not know what a setting does.

use std::collections::BTreeMap;

use super::command::ConfigChanges;
use super::setting::{Kind, Scope, Setting};

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

const DAY_MILLIS: &str = "86400000";
const MAX: i64 = i64::MAX;
const INT_MAX: i64 = i32::MAX as i64;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
const LONG_MAX: &str = "9223372036854775807";
const HARMLESS: &str = "Accepted for tools that set it; without disks it changes nothing.";

const fn between(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

const fn topic(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    unit: &'static str,
    cluster: Option<&'static str>,
    meaning: &'static str,
) -> Setting {
    Setting {
        scope: Scope::Topic,
        cluster,
        ..Setting::new(name, kind, default, unit, meaning)
    }
}

const fn harmless(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    unit: &'static str,
) -> Setting {
    Setting {
        has_effect: false,
        ..topic(name, kind, default, unit, None, HARMLESS)
    }
}

const fn cluster(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    unit: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting {
        scope: Scope::Cluster,
        ..Setting::new(name, kind, default, unit, meaning)
    }
}

const COMPRESSIONS: Kind =
    Kind::Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]);
const TIMESTAMPS: Kind = Kind::Choice(&["CreateTime", "LogAppendTime"]);

/// The configs of topics (Kafka's `TopicConfig`), sorted by name.
pub const TOPIC: &[Setting] = &[
    topic(
        "cleanup.policy",
        Kind::Only(
            "delete",
            "log compaction is not supported yet; use cleanup.policy=delete",
        ),
        "delete",
        "",
        None,
        "What becomes of old records: delete removes them by retention.ms and retention.bytes.",
    ),
    harmless("compression.gzip.level", between(-1, 9), "-1", ""),
    harmless("compression.lz4.level", between(1, 17), "9", ""),
    topic(
        "compression.type",
        COMPRESSIONS,
        "producer",
        "",
        Some("compression.type"),
        "Compression of the topic's batches; producer keeps what producers chose.",
    ),
    harmless("compression.zstd.level", between(-131_072, 22), "3", ""),
    harmless("delete.retention.ms", between(0, MAX), DAY_MILLIS, "ms"),
    harmless("file.delete.delay.ms", between(0, MAX), "60000", "ms"),
    harmless("flush.messages", between(1, MAX), LONG_MAX, ""),
    harmless("flush.ms", between(0, MAX), LONG_MAX, "ms"),
    harmless("index.interval.bytes", between(0, INT_MAX), "4096", "bytes"),
    harmless("max.compaction.lag.ms", between(1, MAX), LONG_MAX, "ms"),
    topic(
        "max.message.bytes",
        between(0, INT_MAX),
        "1048588",
        "bytes",
        Some("message.max.bytes"),
        "Largest record batch, in bytes.",
    ),
    topic(
        "message.timestamp.after.max.ms",
        between(0, MAX),
        "3600000",
        "ms",
        Some("log.message.timestamp.after.max.ms"),
        "How far a record's timestamp may lie in the future, in milliseconds.",
    ),
    topic(
        "message.timestamp.before.max.ms",
        between(0, MAX),
        LONG_MAX,
        "ms",
        Some("log.message.timestamp.before.max.ms"),
        "How far a record's timestamp may lie in the past, in milliseconds.",
    ),
    topic(
        "message.timestamp.type",
        TIMESTAMPS,
        "CreateTime",
        "",
        Some("log.message.timestamp.type"),
        "Whose clock sets a record's timestamp: the producer's, or that of the agent it reaches.",
    ),
    harmless("min.cleanable.dirty.ratio", Kind::Fraction, "0.5", ""),
    harmless("min.compaction.lag.ms", between(0, MAX), "0", "ms"),
    Setting {
        has_effect: false,
        ..topic(
            "min.insync.replicas",
            between(1, INT_MAX),
            "1",
            "",
            Some("min.insync.replicas"),
            "Accepted for tools that set it: every record is in all copies the cluster requires.",
        )
    },
    harmless("preallocate", Kind::Boolean, "false", ""),
    topic(
        "retention.bytes",
        between(-1, MAX),
        "-1",
        "bytes",
        Some("log.retention.bytes"),
        "Bytes kept per partition; the oldest beyond are removed. -1: no limit.",
    ),
    topic(
        "retention.ms",
        between(-1, MAX),
        "604800000",
        "ms",
        Some("log.retention.ms"),
        "Milliseconds for which records are kept. -1: for ever.",
    ),
    harmless("segment.bytes", between(14, INT_MAX), "1073741824", "bytes"),
    harmless(
        "segment.index.bytes",
        between(4, INT_MAX),
        "10485760",
        "bytes",
    ),
    harmless("segment.jitter.ms", between(0, MAX), "0", "ms"),
    harmless("segment.ms", between(1, MAX), "604800000", "ms"),
    harmless("unclean.leader.election.enable", Kind::Boolean, "false", ""),
];

/// The cluster's configs, sorted by name: Kafka's broker configs where it has them.
pub const CLUSTER: &[Setting] = &[
    cluster(
        "auto.create.topics.enable",
        Kind::Boolean,
        "true",
        "",
        "Create a topic when a client asks for one that is not there.",
    ),
    cluster(
        "compression.type",
        COMPRESSIONS,
        "producer",
        "",
        "Compression of topics that do not say; producer: as it came, at no cost here.",
    ),
    cluster(
        "file.delete.grace.ms",
        between(0, MAX),
        "600000",
        "ms",
        "Time between a file's last record expiring and its deletion from the bucket.",
    ),
    cluster(
        "group.initial.rebalance.delay.ms",
        between(0, 300_000),
        "3000",
        "ms",
        "How long the first rebalance of an empty group waits for more members.",
    ),
    cluster(
        "group.max.session.timeout.ms",
        between(1, INT_MAX),
        "1800000",
        "ms",
        "Longest session timeout a member may ask for.",
    ),
    cluster(
        "group.max.size",
        between(1, INT_MAX),
        "2147483647",
        "",
        "Most members of one group.",
    ),
    cluster(
        "group.min.session.timeout.ms",
        between(1, INT_MAX),
        "6000",
        "ms",
        "Shortest session timeout a member may ask for.",
    ),
    cluster(
        "log.message.timestamp.after.max.ms",
        between(0, MAX),
        "3600000",
        "ms",
        "How far timestamps of topics that do not say may lie in the future.",
    ),
    cluster(
        "log.message.timestamp.before.max.ms",
        between(0, MAX),
        "9223372036854775807",
        "ms",
        "How far timestamps of topics that do not say may lie in the past.",
    ),
    cluster(
        "log.message.timestamp.type",
        TIMESTAMPS,
        "CreateTime",
        "",
        "Whose clock sets a record's timestamp: the producer's, or that of the agent it reaches.",
    ),
    cluster(
        "log.retention.bytes",
        between(-1, MAX),
        "-1",
        "bytes",
        "Bytes kept per partition of topics that do not say; -1: no limit.",
    ),
    cluster(
        "log.retention.ms",
        between(-1, MAX),
        "604800000",
        "ms",
        "Time that records of topics that do not say are kept; -1: for ever.",
    ),
    cluster(
        "message.max.bytes",
        between(64, GIB),
        "1048588",
        "bytes",
        "Largest record batch of topics that do not say.",
    ),
    cluster(
        "min.insync.replicas",
        between(1, INT_MAX),
        "1",
        "",
        "Shown to tools; every acknowledged record is in the bucket, whatever it says.",
    ),
    cluster(
        "num.partitions",
        between(1, 100_000),
        "1",
        "",
        "Partitions of a topic that is created without saying how many.",
    ),
    cluster(
        "offset.metadata.max.bytes",
        between(0, MIB),
        "4096",
        "bytes",
        "Longest note that may go with a committed offset.",
    ),
    cluster(
        "offsets.retention.minutes",
        between(1, INT_MAX),
        "10080",
        "min",
        "Time that the offsets of a group without members are kept.",
    ),
    cluster(
        "producer.id.expiration.ms",
        between(1, INT_MAX),
        "86400000",
        "ms",
        "What is known of an idempotent producer is dropped after it was idle this long.",
    ),
    cluster(
        "producer.ids.max",
        between(1_000, INT_MAX),
        "500000",
        "",
        "Most idempotent producers remembered, one for each partition that it has written to; beyond, new ones wait.",
    ),
];

/// The config of a name in a table.
pub fn find(table: &'static [Setting], name: &str) -> Option<&'static Setting> {
    table
        .binary_search_by_key(&name, |spec| spec.name)
        .ok()
        .and_then(|at| table.get(at))
}

/// Whether configs may be set together with what is there already; if not, why not.
pub(crate) fn check_all<'a>(
    table: &'static [Setting],
    configs: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<(), String> {
    for (name, value) in configs {
        let spec = find(table, name).ok_or_else(|| format!("there is no config {name}"))?;
        spec.check(value)?;
    }
    Ok(())
}

/// Checks changes, then makes them; true if anything is different then.
pub(crate) fn change(
    table: &'static [Setting],
    configs: &mut Configs,
    changes: &ConfigChanges,
) -> Result<bool, String> {
    check_all(table, &changes.set)?;
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
pub(crate) fn cluster_value<'a>(cluster: &'a Configs, name: &str) -> &'a str {
    match cluster.get(name) {
        Some(value) => value,
        None => find(CLUSTER, name).map_or("", |spec| spec.default),
    }
}

/// The value in force of a topic's config; empty if there is no such config.
pub fn topic_value<'a>(cluster: &'a Configs, topic: &'a Configs, name: &str) -> &'a str {
    if let Some(value) = topic.get(name) {
        return value;
    }
    let Some(spec) = find(TOPIC, name) else {
        return "";
    };
    let set = spec.cluster.and_then(|name| cluster.get(name));
    set.map_or(spec.default, String::as_str)
}

/// A number in force; what no longer parses counts as not set.
pub(crate) fn number(value: &str) -> Option<i64> {
    value.trim().parse().ok()
}

/// Every config of a topic.
pub fn describe_topic(cluster: &Configs, topic: &Configs) -> Vec<Described> {
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
    TOPIC.iter().map(describe).collect()
}

/// Every config of the cluster.
pub(crate) fn describe_cluster(cluster: &Configs) -> Vec<Described> {
    let describe = |spec: &'static Setting| {
        let set = cluster
            .get(spec.name)
            .map(|value| (spec.name, value.clone(), Source::Cluster));
        let default = (spec.name, spec.default.to_owned(), Source::Default);
        described(spec, [set, Some(default)].into_iter().flatten())
    };
    CLUSTER.iter().map(describe).collect()
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

    #[test]
    fn tables_are_sorted_and_their_defaults_are_allowed() {
        for table in [TOPIC, CLUSTER] {
            assert!(table.is_sorted_by(|a, b| a.name < b.name));
            for spec in table {
                assert_eq!(spec.check(spec.default), Ok(()), "{}", spec.name);
            }
        }
        for spec in TOPIC {
            let Some(name) = spec.cluster else { continue };
            let cluster = find(CLUSTER, name).expect("the cluster has it too");
            assert_eq!(cluster.default, spec.default, "{name}");
        }
    }

    #[test]
    fn what_has_no_effect_is_documented_and_says_so() {
        let page = include_str!("../../../../docs/protocol.md");
        let (_, list) = page.split_once("```accepted\n").expect("the list is there");
        let (list, _) = list.split_once("```").expect("it ends");
        let without = TOPIC.iter().filter(|spec| !spec.has_effect);
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
        for (name, value) in refused {
            let spec = find(TOPIC, name).expect("it is in the table");
            assert!(spec.check(value).is_err(), "{name}={value}");
        }
        let allowed = [
            ("retention.ms", "-1"),
            ("min.cleanable.dirty.ratio", "0.25"),
            ("min.cleanable.dirty.ratio", "1.00"),
            ("compression.type", "zstd"),
        ];
        for (name, value) in allowed {
            let spec = find(TOPIC, name).expect("it is in the table");
            assert_eq!(spec.check(value), Ok(()), "{name}={value}");
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
        let nothing = Configs::new();
        let cluster = set(&[("log.retention.ms", "5")]);
        let topic = set(&[("retention.ms", "7")]);
        assert_eq!(topic_value(&cluster, &topic, "retention.ms"), "7");
        assert_eq!(topic_value(&cluster, &nothing, "retention.ms"), "5");
        assert_eq!(topic_value(&nothing, &nothing, "retention.ms"), "604800000");
        assert_eq!(cluster_value(&cluster, "log.retention.ms"), "5");
        let all = describe_topic(&cluster, &topic);
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
