"""kafka-python against any cluster: BOOTSTRAP=host:port python -m tests.clients.kafka_python [CHECK ...].

Its argument `member` makes it a consumer group's member for groups.py.
"""

import sys

from kafka import (
    ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition,
)
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    InvalidTopicError, KafkaError, MessageSizeTooLargeError, TopicAlreadyExistsError, UnknownTopicOrPartitionError,
)

from tests.clients import members
from tests.harness import (
    BOOTSTRAP, CODECS, VALUE_BYTES_MAX, Suite, an_hour_ago_ms, expect, expect_equal, expect_same_records,
    mixed_records, payload, unique, wait_until,
)

suite = Suite("kafka-python")
# A poll returns when there are records; a shorter wait that ends while the group is being joined makes kafka-python
# 3.0.12 drop the assignment that then comes, for good.
POLL_MS = 2_000


def create_topic(stem, partitions=1):
    topic = unique(f"kafka-python-{stem}")
    admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    admin.create_topics([NewTopic(topic, partitions, 1)])
    wait_until(
        lambda: topic in admin.list_topics()
        and len(admin.describe_topics([topic])[0]["partitions"]) == partitions,
        15, f"topic {topic} with {partitions} partitions in Metadata",
    )
    admin.close()
    return topic


def produce(topic, records, partition=0, timestamps=None, **settings):
    """Sends (key, value, headers) through a producer of its own and gives the answered offsets."""
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, **{"acks": "all", "linger_ms": 5} | settings)
    try:
        futures = [
            producer.send(
                topic, value, key, headers, partition, timestamps[index] if timestamps else None
            )
            for index, (key, value, headers) in enumerate(records)
        ]
        producer.flush(60)
        return [future.get(60).offset for future in futures]
    finally:
        producer.close(timeout=10)


def consumer(group=None, **settings):
    return KafkaConsumer(
        bootstrap_servers=BOOTSTRAP, group_id=group,
        **{"auto_offset_reset": "earliest", "enable_auto_commit": False, "fetch_max_wait_ms": 200} | settings,
    )


def read(client, count, timeout_s=30):
    records = []

    def enough():
        for batch in client.poll(timeout_ms=POLL_MS, max_records=count - len(records)).values():
            records.extend(batch)
        return len(records) >= count

    wait_until(enough, timeout_s, f"{count} records", interval_s=0)
    return records


def read_from(topic, count, partition=0):
    client = consumer()
    client.assign([TopicPartition(topic, partition)])
    client.seek_to_beginning()
    try:
        return read(client, count)
    finally:
        client.close()


def content(record):
    return record.key, record.value, list(record.headers)


def raises(kind, call):
    try:
        call()
    except kind:
        return
    except KafkaError as failure:
        expect(False, f"wanted {kind.__name__}, got {failure!r}")
    expect(False, f"wanted {kind.__name__}, got no error")


@suite.check
def topics_are_created_grown_and_deleted():
    topic = create_topic("admin", 2)
    admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    raises(TopicAlreadyExistsError, lambda: admin.create_topics([NewTopic(topic, 2, 1)]))
    raises(InvalidTopicError, lambda: admin.create_topics([NewTopic("no spaces", 1, 1)]))
    admin.create_partitions({topic: NewPartitions(4)})
    wait_until(lambda: len(admin.describe_topics([topic])[0]["partitions"]) == 4, 10, "four partitions")
    admin.delete_topics([topic])
    wait_until(lambda: topic not in admin.list_topics(), 10, "the deleted topic leaves Metadata")
    raises(UnknownTopicOrPartitionError, lambda: admin.delete_topics([topic]))
    admin.close()


@suite.check
def cluster_and_configs_are_described():
    topic = create_topic("configs")
    admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    cluster = admin.describe_cluster()
    expect(cluster["cluster_id"], f"a cluster id in {cluster}")
    expect(cluster["brokers"], f"brokers in {cluster}")
    answer = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    expect("max.message.bytes" in str(answer) and "1048588" in str(answer), f"max.message.bytes in {answer}")
    admin.close()


@suite.check
def every_codec_brings_back_what_was_sent():
    topic = create_topic("codecs", len(CODECS) * 2)
    for number, codec in enumerate(CODECS):
        for idempotent in (False, True):
            partition = number * 2 + idempotent
            records = mixed_records(f"{codec}{idempotent}")
            offsets = produce(
                topic, records, partition, enable_idempotence=idempotent,
                compression_type=None if codec == "none" else codec,
            )
            expect_equal(offsets, list(range(len(records))), f"{codec}: offsets")
            expect_same_records([content(record) for record in read_from(topic, len(records), partition)], records, codec)


@suite.check
def acks_0_1_and_all_store_alike():
    topic = create_topic("acks", 3)
    for partition, acks in enumerate(("all", 1, 0)):
        produce(topic, [(None, b"first", [])], partition)
        records = mixed_records(f"acks{acks}")
        produce(topic, records, partition, acks=acks, enable_idempotence=acks == "all")
        messages = read_from(topic, len(records) + 1, partition)[1:]
        expect_same_records([content(record) for record in messages], records, f"acks={acks}")


@suite.check
def records_up_to_the_limit_pass_and_one_byte_more_does_not():
    topic = create_topic("sizes")
    records = [(None, payload(size, size, compressible=False), []) for size in (1, 65_536, 1_000_000, VALUE_BYTES_MAX)]
    for record in records:
        produce(topic, [record], max_request_size=8_000_000)
    expect_same_records([content(record) for record in read_from(topic, len(records))], records, "sizes")
    over = payload("over", VALUE_BYTES_MAX + 1, compressible=False)
    raises(MessageSizeTooLargeError, lambda: produce(topic, [(None, over, [])], max_request_size=8_000_000))
    reader = consumer()
    end = reader.end_offsets([TopicPartition(topic, 0)])
    expect_equal(list(end.values()), [len(records)], "the end of the partition after a refusal")
    reader.close()


@suite.check
def seek_and_offsets_by_time():
    topic = create_topic("seek")
    base = an_hour_ago_ms()
    produce(
        topic, [(None, b"value-%d" % index, []) for index in range(200)], batch_size=600,
        timestamps=[base + index * 10 for index in range(200)],
    )
    partition = TopicPartition(topic, 0)
    reader = consumer()
    reader.assign([partition])
    for target in (150, 7, 199, 0):
        reader.seek(partition, target)
        record = read(reader, 1)[0]
        expect_equal((record.offset, record.value), (target, b"value-%d" % target), f"after a seek to {target}")
    for time_ms, offset in ((base, 0), (base + 1234, 124), (base + 1990, 199), (base - 5, 0)):
        found = reader.offsets_for_times({partition: time_ms})[partition]
        expect_equal(found.offset, offset, f"the offset for {time_ms - base} ms")
    expect_equal(reader.offsets_for_times({partition: base + 10_000_000})[partition], None, "a time after the end")
    expect_equal(reader.beginning_offsets([partition]), {partition: 0}, "the beginning")
    expect_equal(reader.end_offsets([partition]), {partition: 200}, "the end")
    reader.close()


@suite.check
def committed_offsets_outlive_the_consumer():
    topic = create_topic("commit")
    produce(topic, [(None, b"%d" % index, []) for index in range(20)])
    group = unique("kafka-python-commit")
    partition = TopicPartition(topic, 0)
    first = consumer(group)
    first.subscribe([topic])
    read(first, 20)
    first.commit({partition: OffsetAndMetadata(7, "seven", -1)})
    first.close()
    second = consumer(group)
    expect_equal(second.committed(partition), 7, "the committed offset")
    second.subscribe([topic])
    expect_equal([record.offset for record in read(second, 13)], list(range(7, 20)), "read after restart")
    second.close()
    stranger = consumer(unique("kafka-python-unknown"))
    expect_equal(stranger.committed(partition), None, "the committed offset of an unknown group")
    stranger.close()


@suite.check
def groups_are_listed_and_described():
    topic = create_topic("describe")
    group = unique("kafka-python-describe")
    client = consumer(group, client_id="the-member")
    client.subscribe([topic])
    wait_until(lambda: (client.poll(POLL_MS), client.assignment())[1], 20, "an assignment")
    admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    described = str(admin.describe_groups([group]))
    expect("Stable" in described or "STABLE" in described, f"a stable group: {described}")
    expect("the-member" in described, f"its member: {described}")
    expect(group in str(admin.list_groups()), "the group in the list")
    client.commit({TopicPartition(topic, 0): OffsetAndMetadata(3, "", -1)})
    offsets = str(admin.list_group_offsets({group: [TopicPartition(topic, 0)]}))
    expect("offset=3" in offsets, f"the group's offset: {offsets}")
    admin.close()
    client.close()


class Listener(ConsumerRebalanceListener):
    """Reports what the coordinator gives and takes."""

    def on_partitions_assigned(self, assigned):
        members.report("assigned", [entry.partition for entry in assigned])

    def on_partitions_revoked(self, revoked):
        members.report("revoked", [entry.partition for entry in revoked])


def be_member(options):
    """A member of a group for groups.py: reports on standard output, commits what it has reported."""
    strategies = {"cooperative-sticky": CooperativeStickyAssignor, "range": RangePartitionAssignor}
    client = consumer(
        options.group, group_instance_id=options.instance, session_timeout_ms=options.session_timeout_ms,
        heartbeat_interval_ms=500, partition_assignment_strategy=[strategies[options.strategy or "range"]],
    )
    client.subscribe([options.topic], listener=Listener())
    while not members.asked_to_stop():
        batches = client.poll(timeout_ms=POLL_MS)
        for batch in batches.values():
            for record in batch:
                members.report_record(record.partition, record.offset, record.value)
        if batches:
            try:
                client.commit()
            except KafkaError as failure:
                members.report("commit-failed", str(failure))
    client.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["member"]:
        be_member(members.parse(sys.argv[2:]))
    else:
        suite.main()
