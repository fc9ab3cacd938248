"""confluent-kafka (librdkafka) against any cluster: BOOTSTRAP=host:port python -m tests.clients.confluent [CHECK ...].

Its argument `member` makes it a consumer group's member for groups.py.
"""

import sys
import threading

from confluent_kafka import (
    Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition, OFFSET_BEGINNING,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, ResourceType

from tests import patience
from tests.clients import members
from tests.harness import (
    BOOTSTRAP, CODECS, VALUE_BYTES_MAX, Suite, an_hour_ago_ms, expect, expect_equal, expect_same_records, mixed_records,
    payload, unique, wait_until,
)

suite = Suite("confluent-kafka")


def admin_client():
    return AdminClient({"bootstrap.servers": BOOTSTRAP})


def create_topic(stem, partitions=1, config=None):
    topic = unique(f"confluent-{stem}")
    admin = admin_client()
    admin.create_topics([NewTopic(topic, partitions, 1, config=config or {})])[topic].result(30)
    wait_until(
        lambda: topic in (known := admin.list_topics(timeout=10).topics)
        and len(known[topic].partitions) == partitions
        and all(partition.leader >= 0 for partition in known[topic].partitions.values()),
        15, f"topic {topic} with {partitions} partitions in Metadata",
    )
    return topic


def producer(**settings):
    return Producer({"bootstrap.servers": BOOTSTRAP, "linger.ms": 5} | {
        name.replace("_", "."): value for name, value in settings.items()
    })


def produce(client, topic, records, partition=0):
    """Sends (key, value, headers) and gives the offsets that were answered, in order; raises the first error."""
    answers = [None] * len(records)

    def remember(index):
        def delivered(error, message):
            answers[index] = error or message.offset()
        return delivered

    for index, (key, value, headers) in enumerate(records):
        client.produce(topic, value, key, partition, on_delivery=remember(index), headers=headers)
        client.poll(0)
    expect_equal(client.flush(60), 0, "records left in the queue")
    for answer in answers:
        if isinstance(answer, KafkaError):
            raise KafkaException(answer)
    return answers


def consumer(group=None, **settings):
    return Consumer({
        "bootstrap.servers": BOOTSTRAP, "group.id": group or unique("confluent-reader"),
        "auto.offset.reset": "earliest", "enable.auto.commit": False, "fetch.wait.max.ms": 200,
        "session.timeout.ms": 6000, "fetch.error.backoff.ms": 50,
    } | {name.replace("_", "."): value for name, value in settings.items()})


def read(client, count, timeout_s=30):
    """The next `count` messages of an assigned or subscribed consumer."""
    messages = []
    deadline = patience.now_s() + timeout_s
    while len(messages) < count:
        expect(patience.now_s() < deadline, f"{len(messages)} of {count} records within {timeout_s} s")
        for message in client.consume(count - len(messages), 0.5):
            if message.error():
                raise KafkaException(message.error())
            messages.append(message)
    return messages


def content(message):
    return message.key(), message.value(), message.headers() or []


def read_from(topic, count, partition=0, offset=OFFSET_BEGINNING):
    client = consumer()
    client.assign([TopicPartition(topic, partition, offset)])
    try:
        return read(client, count)
    finally:
        client.close()


def high_watermark(topic, partition=0):
    client = consumer()
    try:
        return client.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1]
    finally:
        client.close()


def error_of(future):
    """The error code with which an admin call fails."""
    try:
        future.result(30)
    except KafkaException as failure:
        return failure.args[0].code()
    return KafkaError.NO_ERROR


@suite.check
def topics_are_created_listed_grown_and_deleted():
    topic = create_topic("admin", 3)
    admin = admin_client()
    expect_equal(
        error_of(admin.create_topics([NewTopic(topic, 3, 1)])[topic]), KafkaError.TOPIC_ALREADY_EXISTS, "created twice"
    )
    expect_equal(
        error_of(admin.create_topics([NewTopic("no spaces", 1, 1)])["no spaces"]),
        KafkaError.TOPIC_EXCEPTION, "a name with a space",
    )
    tried = unique("confluent-tried")
    admin.create_topics([NewTopic(tried, 1, 1)], validate_only=True)[tried].result(30)
    expect(tried not in admin.list_topics(timeout=10).topics, "validate_only created the topic")
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    wait_until(lambda: len(admin.list_topics(topic, 10).topics[topic].partitions) == 5, 10, "five partitions")
    expect_equal(
        error_of(admin.create_partitions([NewPartitions(topic, 2)])[topic]), KafkaError.INVALID_PARTITIONS,
        "fewer partitions",
    )
    admin.delete_topics([topic])[topic].result(30)
    wait_until(lambda: topic not in admin.list_topics(timeout=10).topics, 10, "the deleted topic leaves Metadata")
    expect_equal(
        error_of(admin.delete_topics([topic])[topic]), KafkaError.UNKNOWN_TOPIC_OR_PART, "deleted twice"
    )


@suite.check
def a_topic_made_again_under_its_old_name_is_empty():
    topic = create_topic("again")
    admin = admin_client()
    produce(producer(acks="all"), topic, [(b"old", b"old", [])])
    admin.delete_topics([topic])[topic].result(30)
    wait_until(lambda: topic not in admin.list_topics(timeout=10).topics, 10, "the topic is gone")
    wait_until(
        lambda: error_of(admin.create_topics([NewTopic(topic, 1, 1)])[topic]) == KafkaError.NO_ERROR, 10, "made again"
    )
    wait_until(lambda: topic in admin.list_topics(timeout=10).topics, 10, "the topic is back")
    produce(producer(acks="all"), topic, [(b"new", b"new", [])])
    expect_equal([content(message) for message in read_from(topic, 1)], [(b"new", b"new", [])], "its first record")


@suite.check
def configs_of_topics_and_brokers_are_described():
    topic = create_topic("configs", config={"retention.ms": "123456000"})
    admin = admin_client()
    resource = ConfigResource(ResourceType.TOPIC, topic)
    configs = admin.describe_configs([resource])[resource].result(30)
    expect_equal(configs["retention.ms"].value, "123456000", "retention.ms of the topic")
    expect(not configs["retention.ms"].is_default, "retention.ms should not be a default")
    expect_equal(configs["max.message.bytes"].value, "1048588", "max.message.bytes")
    expect_equal(configs["cleanup.policy"].value, "delete", "cleanup.policy")
    node = next(iter(admin.list_topics(timeout=10).brokers))
    resource = ConfigResource(ResourceType.BROKER, str(node))
    configs = admin.describe_configs([resource])[resource].result(30)
    expect("num.partitions" in configs, f"num.partitions among the broker's configs: {sorted(configs)[:8]}")
    bad = unique("confluent-config")
    expect_equal(
        error_of(admin.create_topics([NewTopic(bad, 1, 1, config={"no.such.config": "1"})])[bad]),
        KafkaError.INVALID_CONFIG, "an unknown config",
    )


@suite.check
def the_cluster_describes_itself():
    admin = admin_client()
    cluster = admin.describe_cluster().result(30)
    expect(cluster.cluster_id, "a cluster id")
    expect(len(cluster.nodes) >= 1, "at least one node")
    expect_equal(cluster.cluster_id, admin.list_topics(timeout=10).cluster_id, "cluster id in Metadata")


@suite.check
def a_topic_is_created_by_its_first_record():
    topic = unique("confluent-auto")
    offsets = produce(producer(acks="all"), topic, [(b"k", b"v", [])])
    expect_equal(offsets, [0], "offset of the first record")
    expect_equal([content(message) for message in read_from(topic, 1)], [(b"k", b"v", [])], "the record")


@suite.check
def every_codec_brings_back_what_was_sent():
    topic = create_topic("codecs", len(CODECS) * 2)
    for number, codec in enumerate(CODECS):
        for idempotent in (False, True):
            partition = number * 2 + idempotent
            records = mixed_records(f"{codec}{idempotent}")
            client = producer(acks="all", compression_type=codec, enable_idempotence=idempotent)
            expect_equal(produce(client, topic, records, partition), list(range(len(records))), f"{codec}: offsets")
            messages = read_from(topic, len(records), partition)
            expect_equal([message.offset() for message in messages], list(range(len(records))), f"{codec}: read at")
            expect_same_records([content(message) for message in messages], records, codec)


@suite.check
def timestamps_are_kept():
    topic = create_topic("timestamps")
    client = producer(acks="all")
    base = an_hour_ago_ms()
    for index in range(10):
        client.produce(topic, f"{index}", partition=0, timestamp=base + index * 1000)
    client.flush(30)
    kinds = [message.timestamp() for message in read_from(topic, 10)]
    expect_equal(kinds, [(1, base + index * 1000) for index in range(10)], "timestamps (1 = CreateTime)")


@suite.check
def acks_0_1_and_all_store_alike():
    topic = create_topic("acks", 3)
    for partition, acks in enumerate(("all", "1", "0")):
        produce(producer(acks="all"), topic, [(None, b"first", [])], partition)
        records = mixed_records(f"acks{acks}")
        produce(producer(acks=acks), topic, records, partition)
        messages = read_from(topic, len(records) + 1, partition)[1:]
        expect_same_records([content(message) for message in messages], records, f"acks={acks}")


@suite.check
def records_up_to_the_limit_pass_and_one_byte_more_does_not():
    topic = create_topic("sizes")
    client = producer(acks="all", message_max_bytes=8_000_000, compression_type="none")
    sizes = [1, 100, 65_535, 65_536, 524_288, 1_000_000, VALUE_BYTES_MAX]
    records = [(None, payload(size, size, compressible=False), []) for size in sizes]
    for record in records:
        produce(client, topic, [record])
    expect_same_records([content(message) for message in read_from(topic, len(sizes))], records, "sizes")
    before = high_watermark(topic)
    for size in (VALUE_BYTES_MAX + 1, 3_000_000):
        try:
            produce(client, topic, [(None, payload(size, size, compressible=False), [])])
        except KafkaException as failure:
            expect_equal(failure.args[0].code(), KafkaError.MSG_SIZE_TOO_LARGE, f"the error for {size} bytes")
        else:
            expect(False, f"a record of {size} bytes was accepted")
    expect_equal(high_watermark(topic), before, "the end of the partition after refusals")


@suite.check
def a_fetch_smaller_than_a_record_still_brings_it():
    topic = create_topic("progress")
    value = payload("progress", 700_000, compressible=False)
    produce(producer(acks="all"), topic, [(None, value, [])] * 3)
    client = consumer(fetch_message_max_bytes=1000, fetch_max_bytes=1000, message_max_bytes=1000)
    client.assign([TopicPartition(topic, 0, 0)])
    expect_equal([message.value() for message in read(client, 3)], [value] * 3, "large records by small fetches")
    client.close()


@suite.check
def seek_and_offsets_by_time():
    topic = create_topic("seek")
    client = producer(acks="all")
    base = an_hour_ago_ms()
    for index in range(200):
        client.produce(topic, f"value-{index}", partition=0, timestamp=base + index * 10)
        if index % 20 == 19:
            client.flush(30)
    reader = consumer()
    reader.assign([TopicPartition(topic, 0, 0)])
    expect_equal(read(reader, 1)[0].offset(), 0, "the first offset")
    for target in (150, 7, 199, 0):
        reader.seek(TopicPartition(topic, 0, target))
        message = read(reader, 1)[0]
        expect_equal((message.offset(), message.value()), (target, b"value-%d" % target), f"after a seek to {target}")
    for time_ms, offset in ((base, 0), (base + 10, 1), (base + 1234, 124), (base + 1990, 199), (base - 5, 0)):
        found = reader.offsets_for_times([TopicPartition(topic, 0, time_ms)], timeout=10)[0]
        expect_equal(found.offset, offset, f"the offset for {time_ms - base} ms")
    found = reader.offsets_for_times([TopicPartition(topic, 0, base + 10_000_000)], timeout=10)[0]
    expect_equal(found.offset, -1, "the offset for a time after the last record")
    expect_equal(reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=10), (0, 200), "watermarks")
    reader.close()


@suite.check
def an_offset_beyond_the_end_is_out_of_range():
    topic = create_topic("range")
    produce(producer(acks="all"), topic, [(None, b"only", [])])
    client = consumer(auto_offset_reset="error")
    client.assign([TopicPartition(topic, 0, 1000)])
    message = wait_until(lambda: client.poll(0.5), 15, "an answer")
    expect(message.error(), "an error")
    expect_equal(message.error().code(), KafkaError._AUTO_OFFSET_RESET, "the error")
    expect("out of range" in message.error().str().lower(), message.error().str())
    client.close()


@suite.check
def a_waiting_reader_gets_a_record_soon():
    topic = create_topic("tail")
    client = consumer(fetch_wait_max_ms=5000)
    client.assign([TopicPartition(topic, 0, 0)])
    client.poll(1.0)
    sender = producer(acks="all", linger_ms=0)
    slowest_s = 0
    for index in range(5):
        started = patience.now_s()
        produce(sender, topic, [(None, b"%d" % index, [])])
        expect_equal(read(client, 1)[0].value(), b"%d" % index, "the record")
        slowest_s = max(slowest_s, patience.now_s() - started)
    expect(slowest_s < 2.5, f"send to arrival took {slowest_s:.2f} s; a long poll of 5 s was not woken")
    client.close()


@suite.check
def committed_offsets_outlive_the_consumer():
    topic = create_topic("commit", 2)
    for partition in (0, 1):
        produce(producer(acks="all"), topic, [(None, b"%d" % index, []) for index in range(20)], partition)
    group = unique("confluent-commit")
    first = consumer(group)
    first.subscribe([topic])
    read(first, 40)
    first.commit(offsets=[
        TopicPartition(topic, 0, 7, metadata="seven"), TopicPartition(topic, 1, 11),
    ], asynchronous=False)
    first.close()
    second = consumer(group)
    committed = second.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], timeout=10)
    expect_equal([entry.offset for entry in committed], [7, 11], "committed offsets")
    expect_equal(committed[0].metadata, "seven", "the commit's metadata")
    second.subscribe([topic])
    seen = {(message.partition(), message.offset()) for message in read(second, 13 + 9)}
    expect_equal(seen, {(0, n) for n in range(7, 20)} | {(1, n) for n in range(11, 20)}, "read after restart")
    second.close()
    fresh = consumer(unique("confluent-unknown"))
    nothing = fresh.committed([TopicPartition(topic, 0)], timeout=10)
    expect_equal(nothing[0].offset, -1001, "the committed offset of an unknown group")
    fresh.close()


@suite.check
def groups_are_listed_and_described():
    topic = create_topic("describe", 2)
    group = unique("confluent-describe")
    admin = admin_client()
    client = consumer(group, client_id="the-member")
    client.subscribe([topic])
    wait_until(lambda: (client.poll(0.1), client.assignment())[1], 20, "an assignment")
    described = admin.describe_consumer_groups([group])[group].result(30)
    expect_equal(described.state.name, "STABLE", "the group's state")
    expect_equal([member.client_id for member in described.members], ["the-member"], "its members")
    assigned = sorted(entry.partition for entry in described.members[0].assignment.topic_partitions)
    expect_equal(assigned, [0, 1], "the member's partitions")
    listed = {entry.group_id for entry in admin.list_consumer_groups().result(30).valid}
    expect(group in listed, f"{group} among the listed groups")
    produce(producer(acks="all"), topic, [(None, b"x", [])])
    read(client, 1)
    client.commit(asynchronous=False)
    offsets = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(30)
    found = {entry.partition: entry.offset for entry in offsets.topic_partitions if entry.offset >= 0}
    expect_equal(found, {0: 1}, "the group's offsets")
    client.close()
    wait_until(
        lambda: admin.describe_consumer_groups([group])[group].result(30).state.name == "EMPTY", 10, "an empty group"
    )


@suite.check
def many_producers_and_partitions_at_once():
    topic = create_topic("many", 4)
    failures = []

    def send(number):
        try:
            client = producer(acks="all", enable_idempotence=True, compression_type="lz4")
            produce(client, topic, [(b"%d" % number, b"%d/%d" % (number, n), []) for n in range(500)], number % 4)
        except Exception as failure:  # handed to the main thread
            failures.append(failure)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(not failures, f"producers failed: {failures[:1]}")
    for partition in range(4):
        messages = read_from(topic, 1000, partition)
        expect_equal([message.offset() for message in messages], list(range(1000)), "dense offsets")
        for number in (partition, partition + 4):
            mine = [message.value() for message in messages if message.key() == b"%d" % number]
            expect_equal(mine, [b"%d/%d" % (number, n) for n in range(500)], f"order of producer {number}")


def be_member(options):
    """A member of a group for groups.py: reports on standard output, commits what it has reported."""
    settings = {"session_timeout_ms": options.session_timeout_ms, "heartbeat_interval_ms": 500}
    if options.instance:
        settings["group_instance_id"] = options.instance
    if options.strategy:
        settings["partition_assignment_strategy"] = options.strategy
    client = consumer(options.group, **settings)

    def assigned(_, partitions):
        members.report("assigned", [entry.partition for entry in partitions])

    def revoked(_, partitions):
        members.report("revoked", [entry.partition for entry in partitions])

    client.subscribe([options.topic], on_assign=assigned, on_revoke=revoked, on_lost=revoked)
    while not members.asked_to_stop():
        messages = client.consume(100, 0.2)
        for message in messages:
            if not message.error():
                members.report_record(message.partition(), message.offset(), message.value())
        if any(not message.error() for message in messages):
            try:
                client.commit(asynchronous=False)
            except KafkaException as failure:
                members.report("commit-failed", str(failure))
    client.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["member"]:
        be_member(members.parse(sys.argv[2:]))
    else:
        suite.main()
