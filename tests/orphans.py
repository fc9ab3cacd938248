"""A file that was uploaded and never committed, since its agent was killed in between: it is removed once it has been dead for the grace, and
not before."""

import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.harness import wait_until
from tests.judged_librdkafka import CONNECTIONS

GRACE_S = 4
SETTINGS = {"file.delete.grace.ms": GRACE_S * 1_000, "collect.interval.ms": 500, "collect.list.interval.ms": 500}
FILES = "cluster/files/"
TOPIC = "orphan"


def outlive_the_grace(test):
    """A cluster of its own with one agent, which is killed with its first file in the bucket; gives how often it was."""
    cluster = type(test.cluster)(test.directory / "orphan", SETTINGS, control=1, agents=1)
    agent, = cluster.agents
    try:
        cluster.start()
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap} | CONNECTIONS)
        admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(30)
        agent.kill()
        agent.start({"SEAWAY_FAILPOINTS": "after-put=kill@1"})
        wait_until(agent.ready, 40, f"{agent.name} is ready")
        producer, told = Producer({"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True} | CONNECTIONS), []
        producer.produce(TOPIC, b"once", on_delivery=lambda error, message: told.append((error, message.offset())))

        def after_a_look(holds):
            """Lets the producer work before each look."""
            return lambda: (producer.poll(0.05), holds())[1]
        wait_until(after_a_look(lambda: not agent.alive()), 40, f"{agent.name} ends with a file in the bucket")
        killed = agent.was_killed()
        # Nobody else writes files.
        orphan, = cluster.bucket.keys(FILES)
        # It may be committed until the agent's run is over, which the leader finds out at about this time.
        restarted = time.monotonic()
        agent.start()
        wait_until(after_a_look(lambda: told), 60, "the record is acknowledged after all")
        if told != [(None, 0)]:
            raise AssertionError(f"the record of the killed agent is answered with {told}, not once at offset 0")

        def is_removed():
            """The journal's time, by which a run has been over for the grace, goes on with what is written."""
            producer.produce(TOPIC, b"later")
            return orphan not in cluster.bucket.keys(FILES)
        wait_until(after_a_look(is_removed), 4 * GRACE_S + 30, f"{orphan} is removed, which was never committed")
        lasted = time.monotonic() - restarted
        if lasted < GRACE_S:
            raise AssertionError(f"{orphan}, which was never committed, is removed after {lasted:.1f} s; the grace is {GRACE_S} s")
        if producer.flush(40):
            raise AssertionError("records stay unanswered")
        expect_all(cluster.bootstrap)
        return int(killed)
    finally:
        cluster.end()


def expect_all(bootstrap):
    """The record of the killed agent can be read, once, and all that came later."""
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "one", "enable.auto.commit": False} | CONNECTIONS)
    partition, found = TopicPartition(TOPIC, 0, 0), []
    reader.assign([partition])
    _, end = reader.get_watermark_offsets(partition, timeout=30)

    def reads_all():
        found.extend(message.value() for message in reader.consume(1_000, 0.2))
        return len(found) >= end
    wait_until(reads_all, 30, f"all {end} records are read")
    reader.close()
    if found != [b"once"] + [b"later"] * (end - 1):
        raise AssertionError(f"{end} records, of which {found.count(b'once')} are the first one's: {found[:3]}")
