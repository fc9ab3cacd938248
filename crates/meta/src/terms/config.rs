//! The configs of topics and of the cluster: which there are, what values they take, what holds
//! where nothing is set. It must not know what a config does.

use std::collections::BTreeMap;

use super::command::ConfigChanges;

/// Kafka's type of a config's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    String,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    Double,
    List,
}

/// What values a config takes beyond its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Any,
    Between(i64, i64),
    /// A fraction from 0 to 1.
    Fraction,
    OneOf(&'static [&'static str]),
    /// Only this value; the text says why.
    Only(&'static str, &'static str),
}

#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub name: &'static str,
    /// Kafka's type of its value.
    pub kind: Kind,
    /// What holds where nothing is set.
    pub default: &'static str,
    /// For a topic's config: the cluster's config that holds where the topic says nothing.
    pub cluster: Option<&'static str>,
    /// What it does, in a sentence.
    pub doc: &'static str,
    check: Check,
    effect: bool,
}

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
    pub name: &'static str,
    /// The value in force.
    pub value: String,
    /// Where that comes from.
    pub source: Source,
    /// Kafka's type of the value.
    pub kind: Kind,
    pub doc: &'static str,
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
const LONG_MAX: &str = "9223372036854775807";
const HARMLESS: &str = "Accepted for tools that set it; without disks it changes nothing.";

const fn topic(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    check: Check,
    cluster: Option<&'static str>,
    doc: &'static str,
) -> Spec {
    Spec {
        name,
        kind,
        default,
        cluster,
        doc,
        check,
        effect: true,
    }
}

const fn harmless(name: &'static str, kind: Kind, default: &'static str, check: Check) -> Spec {
    Spec {
        name,
        kind,
        default,
        cluster: None,
        doc: HARMLESS,
        check,
        effect: false,
    }
}

const fn cluster(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    check: Check,
    doc: &'static str,
) -> Spec {
    Spec {
        name,
        kind,
        default,
        cluster: None,
        doc,
        check,
        effect: true,
    }
}

const COMPRESSIONS: Check =
    Check::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]);
const TIMESTAMPS: Check = Check::OneOf(&["CreateTime", "LogAppendTime"]);
const POSITIVE: Check = Check::Between(1, MAX);
const NOT_NEGATIVE: Check = Check::Between(0, MAX);
const INT_NOT_NEGATIVE: Check = Check::Between(0, INT_MAX);

/// The configs of topics (Kafka's `TopicConfig`), sorted by name.
pub const TOPIC: &[Spec] = &[
    topic(
        "cleanup.policy",
        Kind::List,
        "delete",
        Check::Only(
            "delete",
            "log compaction is not supported yet; use cleanup.policy=delete",
        ),
        None,
        "What becomes of old records: delete removes them by retention.ms and retention.bytes.",
    ),
    harmless(
        "compression.gzip.level",
        Kind::Int,
        "-1",
        Check::Between(-1, 9),
    ),
    harmless(
        "compression.lz4.level",
        Kind::Int,
        "9",
        Check::Between(1, 17),
    ),
    topic(
        "compression.type",
        Kind::String,
        "producer",
        COMPRESSIONS,
        Some("compression.type"),
        "Compression of the topic's batches; producer keeps what producers chose.",
    ),
    harmless(
        "compression.zstd.level",
        Kind::Int,
        "3",
        Check::Between(-131_072, 22),
    ),
    harmless("delete.retention.ms", Kind::Long, DAY_MILLIS, NOT_NEGATIVE),
    harmless("file.delete.delay.ms", Kind::Long, "60000", NOT_NEGATIVE),
    harmless("flush.messages", Kind::Long, LONG_MAX, POSITIVE),
    harmless("flush.ms", Kind::Long, LONG_MAX, NOT_NEGATIVE),
    harmless("index.interval.bytes", Kind::Int, "4096", INT_NOT_NEGATIVE),
    harmless("max.compaction.lag.ms", Kind::Long, LONG_MAX, POSITIVE),
    topic(
        "max.message.bytes",
        Kind::Int,
        "1048588",
        INT_NOT_NEGATIVE,
        Some("message.max.bytes"),
        "Largest record batch, in bytes.",
    ),
    topic(
        "message.timestamp.after.max.ms",
        Kind::Long,
        "3600000",
        NOT_NEGATIVE,
        Some("log.message.timestamp.after.max.ms"),
        "How far a record's timestamp may lie in the future, in milliseconds.",
    ),
    topic(
        "message.timestamp.before.max.ms",
        Kind::Long,
        LONG_MAX,
        NOT_NEGATIVE,
        Some("log.message.timestamp.before.max.ms"),
        "How far a record's timestamp may lie in the past, in milliseconds.",
    ),
    topic(
        "message.timestamp.type",
        Kind::String,
        "CreateTime",
        TIMESTAMPS,
        Some("log.message.timestamp.type"),
        "Whose clock sets a record's timestamp: the producer's, or that of the agent it reaches.",
    ),
    harmless(
        "min.cleanable.dirty.ratio",
        Kind::Double,
        "0.5",
        Check::Fraction,
    ),
    harmless("min.compaction.lag.ms", Kind::Long, "0", NOT_NEGATIVE),
    Spec {
        effect: false,
        ..topic(
            "min.insync.replicas",
            Kind::Int,
            "1",
            Check::Between(1, INT_MAX),
            Some("min.insync.replicas"),
            "Accepted for tools that set it: every record is in all copies the cluster requires.",
        )
    },
    harmless("preallocate", Kind::Boolean, "false", Check::Any),
    topic(
        "retention.bytes",
        Kind::Long,
        "-1",
        Check::Between(-1, MAX),
        Some("log.retention.bytes"),
        "Bytes kept per partition; the oldest beyond are removed. -1: no limit.",
    ),
    topic(
        "retention.ms",
        Kind::Long,
        "604800000",
        Check::Between(-1, MAX),
        Some("log.retention.ms"),
        "Milliseconds for which records are kept. -1: for ever.",
    ),
    harmless(
        "segment.bytes",
        Kind::Int,
        "1073741824",
        Check::Between(14, INT_MAX),
    ),
    harmless(
        "segment.index.bytes",
        Kind::Int,
        "10485760",
        Check::Between(4, INT_MAX),
    ),
    harmless("segment.jitter.ms", Kind::Long, "0", NOT_NEGATIVE),
    harmless("segment.ms", Kind::Long, "604800000", POSITIVE),
    harmless(
        "unclean.leader.election.enable",
        Kind::Boolean,
        "false",
        Check::Any,
    ),
];

/// The cluster's configs, sorted by name: Kafka's broker configs where it has them.
pub const CLUSTER: &[Spec] = &[
    cluster(
        "auto.create.topics.enable",
        Kind::Boolean,
        "true",
        Check::Any,
        "Create a topic when a client asks for one that is not there.",
    ),
    cluster(
        "compression.type",
        Kind::String,
        "producer",
        COMPRESSIONS,
        "Compression of topics that do not say.",
    ),
    cluster(
        "file.delete.grace.ms",
        Kind::Long,
        "600000",
        NOT_NEGATIVE,
        "Time between a file's last record expiring and its deletion from the buckets.",
    ),
    cluster(
        "group.initial.rebalance.delay.ms",
        Kind::Int,
        "3000",
        INT_NOT_NEGATIVE,
        "How long the first rebalance of an empty group waits for more members.",
    ),
    cluster(
        "group.max.session.timeout.ms",
        Kind::Int,
        "1800000",
        Check::Between(1, INT_MAX),
        "Longest session timeout a member may ask for.",
    ),
    cluster(
        "group.max.size",
        Kind::Int,
        "2147483647",
        Check::Between(1, INT_MAX),
        "Most members of one group.",
    ),
    cluster(
        "group.min.session.timeout.ms",
        Kind::Int,
        "6000",
        Check::Between(1, INT_MAX),
        "Shortest session timeout a member may ask for.",
    ),
    cluster(
        "log.message.timestamp.after.max.ms",
        Kind::Long,
        "3600000",
        NOT_NEGATIVE,
        "How far timestamps of topics that do not say may lie in the future.",
    ),
    cluster(
        "log.message.timestamp.before.max.ms",
        Kind::Long,
        LONG_MAX,
        NOT_NEGATIVE,
        "How far timestamps of topics that do not say may lie in the past.",
    ),
    cluster(
        "log.message.timestamp.type",
        Kind::String,
        "CreateTime",
        TIMESTAMPS,
        "Whose clock sets the timestamps of topics that do not say.",
    ),
    cluster(
        "log.retention.bytes",
        Kind::Long,
        "-1",
        Check::Between(-1, MAX),
        "Bytes kept per partition of topics that do not say. -1: no limit.",
    ),
    cluster(
        "log.retention.ms",
        Kind::Long,
        "604800000",
        Check::Between(-1, MAX),
        "Time that records of topics that do not say are kept. -1: for ever.",
    ),
    cluster(
        "message.max.bytes",
        Kind::Int,
        "1048588",
        INT_NOT_NEGATIVE,
        "Largest record batch of topics that do not say, in bytes.",
    ),
    cluster(
        "min.insync.replicas",
        Kind::Int,
        "1",
        Check::Between(1, INT_MAX),
        "Accepted for tools that set it: every record is in all copies the cluster requires.",
    ),
    cluster(
        "num.partitions",
        Kind::Int,
        "1",
        Check::Between(1, 100_000),
        "Partitions of a topic that is created without saying how many.",
    ),
    cluster(
        "offset.metadata.max.bytes",
        Kind::Int,
        "4096",
        INT_NOT_NEGATIVE,
        "Longest note that may go with a committed offset.",
    ),
    cluster(
        "offsets.retention.minutes",
        Kind::Int,
        "10080",
        Check::Between(1, INT_MAX),
        "Time that the offsets of a group without members are kept.",
    ),
    cluster(
        "producer.id.expiration.ms",
        Kind::Int,
        DAY_MILLIS,
        Check::Between(1, INT_MAX),
        "What is known of an idempotent producer is dropped after it was idle this long.",
    ),
    cluster(
        "producer.ids.max",
        Kind::Int,
        "500000",
        Check::Between(1_000, INT_MAX),
        "Most idempotent producers remembered, one for each partition that it has written to.",
    ),
];

/// The config of a name in a table.
pub fn find(table: &'static [Spec], name: &str) -> Option<&'static Spec> {
    table
        .binary_search_by_key(&name, |spec| spec.name)
        .ok()
        .and_then(|at| table.get(at))
}

impl Spec {
    /// Whether it changes anything; the others are accepted for tools that set them.
    pub fn has_effect(&self) -> bool {
        self.effect
    }

    /// Whether a value may be set; if not, why not, for people.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let name = self.name;
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!(
                "{name}: a value has at most {VALUE_BYTES_MAX} bytes"
            ));
        }
        self.check_kind(value)?;
        match self.check {
            Check::Any => Ok(()),
            Check::Between(min, max) => match value.trim().parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                _ => Err(format!("{name}={value}: must be between {min} and {max}")),
            },
            // Decimal fractions of at most 1, judged without arithmetic on them.
            Check::Fraction if value == "1" || value.trim_end_matches('0') == "1." => Ok(()),
            Check::Fraction if value == "0" || value.starts_with("0.") => Ok(()),
            Check::Fraction => Err(format!("{name}={value}: must be between 0 and 1")),
            Check::OneOf(words) if words.contains(&value) => Ok(()),
            Check::OneOf(words) => Err(format!(
                "{name}={value}: must be one of {}",
                words.join(", ")
            )),
            Check::Only(only, _) if value == only => Ok(()),
            Check::Only(_, why) => Err(format!("{name}={value}: {why}")),
        }
    }

    fn check_kind(&self, value: &str) -> Result<(), String> {
        let short = value.len() <= NUMBER_BYTES_MAX;
        let fits = match self.kind {
            Kind::Boolean => value == "true" || value == "false",
            Kind::Int => short && value.trim().parse::<i32>().is_ok(),
            Kind::Long => short && value.trim().parse::<i64>().is_ok(),
            Kind::Double => short && is_decimal(value),
            Kind::String | Kind::List => true,
        };
        if fits {
            Ok(())
        } else {
            Err(format!("{}={value}: not a {:?}", self.name, self.kind))
        }
    }
}

/// Longest value of a config in bytes.
const VALUE_BYTES_MAX: usize = 8_192;
/// Longest number: it is kept as it came, with spaces and leading zeros.
const NUMBER_BYTES_MAX: usize = 32;

fn is_decimal(value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match value.split_once('.') {
        Some((whole, rest)) => digits(whole) && digits(rest),
        None => digits(value),
    }
}

/// Whether configs may be set together with what is there already; if not, why not.
pub(crate) fn check_all<'a>(
    table: &'static [Spec],
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
    table: &'static [Spec],
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
    let describe = |spec: &'static Spec| {
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
    let describe = |spec: &'static Spec| {
        let set = cluster
            .get(spec.name)
            .map(|value| (spec.name, value.clone(), Source::Cluster));
        let default = (spec.name, spec.default.to_owned(), Source::Default);
        described(spec, [set, Some(default)].into_iter().flatten())
    };
    CLUSTER.iter().map(describe).collect()
}

fn described(
    spec: &'static Spec,
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
        name: spec.name,
        value,
        source,
        kind: spec.kind,
        doc: spec.doc,
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
        let without = TOPIC.iter().filter(|spec| !spec.has_effect());
        let names: Vec<&str> = without
            .inspect(|spec| assert!(spec.doc.starts_with("Accepted for tools"), "{}", spec.name))
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
            .find(|config| config.name == "retention.ms")
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
