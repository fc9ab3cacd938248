"""aiokafka against any cluster: BOOTSTRAP=host:port python -m tests.clients.aio [CHECK ...].

Its argument `member` makes it a consumer group's member for groups.py.
"""

import asyncio
import functools
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, OffsetOutOfRangeError

from tests.clients import members
from tests.harness import (
    BOOTSTRAP, CODECS, VALUE_BYTES_MAX, Suite, an_hour_ago_ms, expect, expect_equal, expect_same_records,
    mixed_records, payload, unique,
)

suite = Suite("aiokafka")
TOPIC_ALREADY_EXISTS = 36
UNKNOWN_TOPIC_OR_PARTITION = 3


def check(function):
    """Registers a coroutine as a check of the suite."""
    @functools.wraps(function)
    def run():
        asyncio.run(asyncio.wait_for(function(), 80))
    return suite.check(run)


async def until(condition, timeout_s, what):
    """Awaits `condition()` until it is true and gives its value."""
    async def poll():
        while not (value := await condition()):
            await asyncio.sleep(0.05)
        return value
    try:
        return await asyncio.wait_for(poll(), timeout_s)
    except asyncio.TimeoutError:
        expect(False, f"not within {timeout_s} s: {what}")


async def with_admin(call):
    admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await admin.start()
    try:
        return await call(admin)
    finally:
        await admin.close()


async def create_topic(stem, partitions=1):
    topic = unique(f"aiokafka-{stem}")

    async def create(admin):
        answer = await admin.create_topics([NewTopic(topic, partitions, 1)])
        expect_equal(answer.topic_errors[0][1], 0, f"the answer to creating {topic}")

        async def visible():
            described = await admin.describe_topics([topic])
            return described[0]["error_code"] == 0 and len(described[0]["partitions"]) == partitions
        await until(visible, 15, f"{topic} with {partitions} partitions in Metadata")

    await with_admin(create)
    return topic


async def produce(topic, records, partition=0, timestamps=None, **settings):
    """Sends (key, value, headers) through a producer of its own and gives the answered offsets."""
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, **{"acks": "all", "linger_ms": 5} | settings)
    await producer.start()
    try:
        futures = [
            await producer.send(
                topic, value, key, partition, timestamps[index] if timestamps else None, headers
            )
            for index, (key, value, headers) in enumerate(records)
        ]
        answers = await asyncio.gather(*futures)
        return [answer.offset if answer else None for answer in answers]
    finally:
        await producer.stop()


def consumer(group=None, **settings):
    return AIOKafkaConsumer(
        bootstrap_servers=BOOTSTRAP, group_id=group,
        **{"auto_offset_reset": "earliest", "enable_auto_commit": False, "fetch_max_wait_ms": 200} | settings,
    )


async def read(client, count, timeout_s=30):
    records = []

    async def enough():
        batches = await client.getmany(timeout_ms=200, max_records=count - len(records))
        for batch in batches.values():
            records.extend(batch)
        return len(records) >= count

    await until(enough, timeout_s, f"{count} records")
    return records


async def read_from(topic, count, partition=0):
    client = consumer()
    await client.start()
    client.assign([TopicPartition(topic, partition)])
    try:
        await client.seek_to_beginning()
        return await read(client, count)
    finally:
        await client.stop()


def content(record):
    return record.key, record.value, list(record.headers)


@check
async def topics_are_created_grown_and_deleted():
    topic = await create_topic("admin", 2)

    async def change(admin):
        answer = await admin.create_topics([NewTopic(topic, 2, 1)])
        expect_equal(answer.topic_errors[0][1], TOPIC_ALREADY_EXISTS, "created twice")
        await admin.create_partitions({topic: NewPartitions(4)})

        async def grown():
            return len((await admin.describe_topics([topic]))[0]["partitions"]) == 4
        await until(grown, 10, "four partitions")
        await admin.delete_topics([topic])

        async def gone():
            return topic not in await admin.list_topics()
        await until(gone, 10, "the deleted topic leaves Metadata")
        answer = await admin.delete_topics([topic])
        expect_equal(answer.topic_error_codes[0][1], UNKNOWN_TOPIC_OR_PARTITION, "deleted twice")

    await with_admin(change)


@check
async def cluster_and_configs_are_described():
    topic = await create_topic("configs")

    async def describe(admin):
        cluster = await admin.describe_cluster()
        expect(cluster["brokers"], f"brokers in {cluster}")
        answer = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        configs = {entry[0]: entry[1] for entry in answer[0].resources[0][4]}
        expect_equal(configs.get("max.message.bytes"), "1048588", "max.message.bytes")

    await with_admin(describe)


@check
async def every_codec_brings_back_what_was_sent():
    topic = await create_topic("codecs", len(CODECS) * 2)
    for number, codec in enumerate(CODECS):
        for idempotent in (False, True):
            partition = number * 2 + idempotent
            records = mixed_records(f"{codec}{idempotent}")
            offsets = await produce(
                topic, records, partition, enable_idempotence=idempotent,
                compression_type=None if codec == "none" else codec,
            )
            expect_equal(offsets, list(range(len(records))), f"{codec}: offsets")
            got = [content(record) for record in await read_from(topic, len(records), partition)]
            expect_same_records(got, records, codec)


@check
async def acks_0_1_and_all_store_alike():
    topic = await create_topic("acks", 3)
    for partition, acks in enumerate(("all", 1, 0)):
        await produce(topic, [(None, b"first", [])], partition)
        records = mixed_records(f"acks{acks}")
        await produce(topic, records, partition, acks=acks)
        messages = (await read_from(topic, len(records) + 1, partition))[1:]
        expect_same_records([content(record) for record in messages], records, f"acks={acks}")


@check
async def records_up_to_the_limit_pass_and_one_byte_more_does_not():
    topic = await create_topic("sizes")
    records = [(None, payload(size, size, compressible=False), []) for size in (1, 65_536, 1_000_000, VALUE_BYTES_MAX)]
    large = {"max_request_size": 8_000_000, "max_batch_size": 8_000_000}
    for record in records:
        await produce(topic, [record], **large)
    expect_same_records([content(record) for record in await read_from(topic, len(records))], records, "sizes")
    try:
        await produce(topic, [(None, payload("over", VALUE_BYTES_MAX + 1, compressible=False), [])], **large)
    except MessageSizeTooLargeError:
        pass
    else:
        expect(False, "a record over the limit was accepted")


@check
async def seek_and_offsets_by_time():
    topic = await create_topic("seek")
    base = an_hour_ago_ms()
    await produce(
        topic, [(None, b"value-%d" % index, []) for index in range(200)], max_batch_size=600,
        timestamps=[base + index * 10 for index in range(200)],
    )
    partition = TopicPartition(topic, 0)
    reader = consumer()
    await reader.start()
    reader.assign([partition])
    for target in (150, 7, 199, 0):
        reader.seek(partition, target)
        record = (await read(reader, 1))[0]
        expect_equal((record.offset, record.value), (target, b"value-%d" % target), f"after a seek to {target}")
    for time_ms, offset in ((base, 0), (base + 1234, 124), (base + 1990, 199), (base - 5, 0)):
        found = (await reader.offsets_for_times({partition: time_ms}))[partition]
        expect_equal(found.offset, offset, f"the offset for {time_ms - base} ms")
    expect_equal(await reader.end_offsets([partition]), {partition: 200}, "the end")
    await reader.stop()


@check
async def an_offset_beyond_the_end_is_out_of_range():
    topic = await create_topic("range")
    await produce(topic, [(None, b"only", [])])
    reader = consumer(auto_offset_reset="none")
    await reader.start()
    reader.assign([TopicPartition(topic, 0)])
    reader.seek(TopicPartition(topic, 0), 1000)
    try:
        await asyncio.wait_for(reader.getone(), 15)
    except OffsetOutOfRangeError:
        pass
    else:
        expect(False, "a record from beyond the end")
    finally:
        await reader.stop()


@check
async def committed_offsets_outlive_the_consumer():
    topic = await create_topic("commit")
    await produce(topic, [(None, b"%d" % index, []) for index in range(20)])
    group = unique("aiokafka-commit")
    partition = TopicPartition(topic, 0)
    first = consumer(group)
    first.subscribe([topic])
    await first.start()
    await read(first, 20)
    await first.commit({partition: (7, "seven")})
    await first.stop()
    second = consumer(group)
    second.subscribe([topic])
    await second.start()
    expect_equal(await second.committed(partition), 7, "the committed offset")
    got = [record.offset for record in await read(second, 13)]
    expect_equal(got, list(range(7, 20)), "read after restart")
    await second.stop()


@check
async def groups_are_listed_and_described():
    topic = await create_topic("describe")
    group = unique("aiokafka-describe")
    client = consumer(group, client_id="the-member")
    client.subscribe([topic])
    await client.start()

    async def assigned():
        await client.getmany(timeout_ms=100)
        return client.assignment()
    await until(assigned, 20, "an assignment")

    async def describe(admin):
        described = str(await admin.describe_consumer_groups([group]))
        expect("Stable" in described and "the-member" in described, f"a stable group with its member: {described}")
        expect(group in str(await admin.list_consumer_groups()), "the group in the list")

    await with_admin(describe)
    await client.stop()


class Listener(ConsumerRebalanceListener):
    """Reports what the coordinator gives and takes."""

    def on_partitions_assigned(self, assigned):
        members.report("assigned", [entry.partition for entry in assigned])

    def on_partitions_revoked(self, revoked):
        members.report("revoked", [entry.partition for entry in revoked])


async def be_member(options):
    """A member of a group for groups.py: reports on standard output, commits what it has reported."""
    client = consumer(
        options.group, group_instance_id=options.instance, session_timeout_ms=options.session_timeout_ms,
        heartbeat_interval_ms=500,
    )
    client.subscribe([options.topic], listener=Listener())
    await client.start()
    while not members.asked_to_stop():
        batches = await client.getmany(timeout_ms=200)
        for batch in batches.values():
            for record in batch:
                members.report_record(record.partition, record.offset, record.value)
        if batches:
            try:
                await client.commit()
            except KafkaError as failure:
                members.report("commit-failed", str(failure))
    await client.stop()


if __name__ == "__main__":
    if sys.argv[1:2] == ["member"]:
        asyncio.run(be_member(members.parse(sys.argv[2:])))
    else:
        suite.main()
