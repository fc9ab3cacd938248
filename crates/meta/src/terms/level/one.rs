//! Level 1, at which every journal begins: its configs and numbers. From the first release on nothing here changes: what
//! is to differ belongs to a later level. It must not know what a number is used for.

use super::Level;
use crate::terms::setting::{Kind, Limits, Setting};

const MINUTE_MILLIS: u64 = 60 * 1_000;

pub const LEVEL: Level = Level {
    number: 1,
    topic_configs: TOPIC_CONFIGS,
    cluster_configs: CLUSTER_CONFIGS,
    texts: Limits {
        name_bytes_max: 255,
        value_bytes_max: 8_192,
        number_bytes_max: 32,
    },
    listeners_max: 16,
    topic_name_length_max: 249,
    topic_partitions_max: 100_000,
    partitions_max: 1_000_000,
    topics_max: 100_000,
    topics_deleted_max: 1_000,
    counter_max: (1 << 47) - 1,
    left_out_numbers: 1 << 32,
    left_out_agents: 1 << 16,
    outcomes_kept: 64,
    block_slices: 128,
    step_slices: 20_000,
    step_partitions: 5_000,
    step_offsets: 20_000,
    pressed_idle_millis: 10 * MINUTE_MILLIS,
    pressed_divisor: 2,
    jump_millis: 10 * MINUTE_MILLIS,
    drift_summed_millis: 60 * MINUTE_MILLIS,
    jump_confirmed_millis: 60 * MINUTE_MILLIS,
    jump_confirmed_divisor: 2,
    empty_group_kept_millis: 10 * MINUTE_MILLIS,
    suspect_within_millis: 10 * MINUTE_MILLIS,
};

const DAY_MILLIS: &str = "86400000";
const MAX: i64 = i64::MAX;
const INT_MAX: i64 = i32::MAX as i64;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
const LONG_MAX: &str = "9223372036854775807";

const fn between(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

const COMPRESSIONS: Kind =
    Kind::Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]);
const TIMESTAMPS: Kind = Kind::Choice(&["CreateTime", "LogAppendTime"]);

/// The configs of topics (Kafka's `TopicConfig`), sorted by name.
const TOPIC_CONFIGS: &[Setting] = &[
    Setting::of_topic(
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
    Setting::harmless("compression.gzip.level", between(-1, 9), "-1", ""),
    Setting::harmless("compression.lz4.level", between(1, 17), "9", ""),
    Setting::of_topic(
        "compression.type",
        COMPRESSIONS,
        "producer",
        "",
        Some("compression.type"),
        "Compression of the topic's batches; producer keeps what producers chose.",
    ),
    Setting::harmless("compression.zstd.level", between(-131_072, 22), "3", ""),
    Setting::harmless("delete.retention.ms", between(0, MAX), DAY_MILLIS, "ms"),
    Setting::harmless("file.delete.delay.ms", between(0, MAX), "60000", "ms"),
    Setting::harmless("flush.messages", between(1, MAX), LONG_MAX, ""),
    Setting::harmless("flush.ms", between(0, MAX), LONG_MAX, "ms"),
    Setting::harmless("index.interval.bytes", between(0, INT_MAX), "4096", "bytes"),
    Setting::harmless("max.compaction.lag.ms", between(1, MAX), LONG_MAX, "ms"),
    Setting::of_topic(
        "max.message.bytes",
        between(0, INT_MAX),
        "1048588",
        "bytes",
        Some("message.max.bytes"),
        "Largest record batch, in bytes.",
    ),
    Setting::of_topic(
        "message.timestamp.after.max.ms",
        between(0, MAX),
        "3600000",
        "ms",
        Some("log.message.timestamp.after.max.ms"),
        "How far a record's timestamp may lie in the future, in milliseconds.",
    ),
    Setting::of_topic(
        "message.timestamp.before.max.ms",
        between(0, MAX),
        LONG_MAX,
        "ms",
        Some("log.message.timestamp.before.max.ms"),
        "How far a record's timestamp may lie in the past, in milliseconds.",
    ),
    Setting::of_topic(
        "message.timestamp.type",
        TIMESTAMPS,
        "CreateTime",
        "",
        Some("log.message.timestamp.type"),
        "Whose clock sets a record's timestamp: the producer's, or that of the agent it reaches.",
    ),
    Setting::harmless("min.cleanable.dirty.ratio", Kind::Fraction, "0.5", ""),
    Setting::harmless("min.compaction.lag.ms", between(0, MAX), "0", "ms"),
    Setting::of_topic(
        "min.insync.replicas",
        between(1, INT_MAX),
        "1",
        "",
        Some("min.insync.replicas"),
        "The least number of replicas that clients are shown, and nothing else: every record is in all copies the cluster requires.",
    ),
    Setting::harmless("preallocate", Kind::Boolean, "false", ""),
    Setting::of_topic(
        "retention.bytes",
        between(-1, MAX),
        "-1",
        "bytes",
        Some("log.retention.bytes"),
        "Bytes kept per partition; the oldest beyond are removed. -1: no limit.",
    ),
    Setting::of_topic(
        "retention.ms",
        between(-1, MAX),
        "604800000",
        "ms",
        Some("log.retention.ms"),
        "Milliseconds for which records are kept. -1: for ever.",
    ),
    Setting::harmless("segment.bytes", between(14, INT_MAX), "1073741824", "bytes"),
    Setting::harmless(
        "segment.index.bytes",
        between(4, INT_MAX),
        "10485760",
        "bytes",
    ),
    Setting::harmless("segment.jitter.ms", between(0, MAX), "0", "ms"),
    Setting::harmless("segment.ms", between(1, MAX), "604800000", "ms"),
    Setting::harmless("unclean.leader.election.enable", Kind::Boolean, "false", ""),
];

/// The cluster's configs, sorted by name: Kafka's broker configs where it has them.
const CLUSTER_CONFIGS: &[Setting] = &[
    Setting::of_cluster(
        "auto.create.topics.enable",
        Kind::Boolean,
        "true",
        "",
        "Create a topic when a client asks for one that is not there.",
    ),
    Setting::of_cluster(
        "compression.type",
        COMPRESSIONS,
        "producer",
        "",
        "Compression of topics that do not say; producer: as it came, at no cost here.",
    ),
    Setting::of_cluster(
        "file.delete.grace.ms",
        between(0, MAX),
        "600000",
        "ms",
        "Time between a file's last record expiring and its deletion from the bucket.",
    ),
    Setting::of_cluster(
        "group.initial.rebalance.delay.ms",
        between(0, 300_000),
        "3000",
        "ms",
        "How long the first rebalance of an empty group waits for more members.",
    ),
    Setting::of_cluster(
        "group.max.session.timeout.ms",
        between(1, INT_MAX),
        "1800000",
        "ms",
        "Longest session timeout a member may ask for.",
    ),
    Setting::of_cluster(
        "group.max.size",
        between(1, INT_MAX),
        "2147483647",
        "",
        "Most members of one group.",
    ),
    Setting::of_cluster(
        "group.min.session.timeout.ms",
        between(1, INT_MAX),
        "6000",
        "ms",
        "Shortest session timeout a member may ask for.",
    ),
    Setting::of_cluster(
        "log.message.timestamp.after.max.ms",
        between(0, MAX),
        "3600000",
        "ms",
        "How far timestamps of topics that do not say may lie in the future.",
    ),
    Setting::of_cluster(
        "log.message.timestamp.before.max.ms",
        between(0, MAX),
        "9223372036854775807",
        "ms",
        "How far timestamps of topics that do not say may lie in the past.",
    ),
    Setting::of_cluster(
        "log.message.timestamp.type",
        TIMESTAMPS,
        "CreateTime",
        "",
        "Whose clock sets a record's timestamp: the producer's, or that of the agent it reaches.",
    ),
    Setting::of_cluster(
        "log.retention.bytes",
        between(-1, MAX),
        "-1",
        "bytes",
        "Bytes kept per partition of topics that do not say; -1: no limit.",
    ),
    Setting::of_cluster(
        "log.retention.ms",
        between(-1, MAX),
        "604800000",
        "ms",
        "Time that records of topics that do not say are kept; -1: for ever.",
    ),
    Setting::of_cluster(
        "message.max.bytes",
        between(64, GIB),
        "1048588",
        "bytes",
        "Largest record batch of topics that do not say.",
    ),
    Setting::of_cluster(
        "min.insync.replicas",
        between(1, INT_MAX),
        "1",
        "",
        "Shown to tools; every acknowledged record is in the bucket, whatever it says.",
    ),
    Setting::of_cluster(
        "num.partitions",
        between(1, 100_000),
        "1",
        "",
        "Partitions of a topic that is created without saying how many.",
    ),
    Setting::of_cluster(
        "offset.metadata.max.bytes",
        between(0, MIB),
        "4096",
        "bytes",
        "Longest note that may go with a committed offset.",
    ),
    Setting::of_cluster(
        "offsets.retention.minutes",
        between(1, INT_MAX),
        "10080",
        "min",
        "Time that the offsets of a group without members are kept.",
    ),
    Setting::of_cluster(
        "producer.id.expiration.ms",
        between(1, INT_MAX),
        "86400000",
        "ms",
        "What is known of an idempotent producer is dropped after it was idle this long.",
    ),
    Setting::of_cluster(
        "producer.ids.max",
        between(1_000, INT_MAX),
        "500000",
        "",
        "Most idempotent producers remembered, one for each partition that it has written to; beyond, new ones wait.",
    ),
    Setting::of_cluster(
        "region.preferred",
        Kind::Label {
            may_be_empty: false,
        },
        "auto",
        "",
        "The region whose control nodes lead as long as they are well; auto: the one in which commits take the least time.",
    ),
];
