"""What a cluster does that has lost something in its bucket: one file, or all of it. It must not know how the cluster is loaded."""

import pathlib
import re
import tempfile
import time

from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests import judged, patience, protocol
from tests.harness import wait_until

KAFKA_STORAGE_ERROR = 56
# A value of the workload in a file that was not compressed.
VALUE = re.compile(rb"(p\d+\.\d+)\|")
# How much of each partition is searched for what a file holds: the oldest files lie at the beginning.
SEARCHED_BYTES = 16 << 20
FILES_TRIED = 20


def fetched(bootstrap, positions):
    """{key: (error, [(offset, value)])} of the records from the offset that is asked for on."""
    with judged.connect(bootstrap) as connection:
        found = {}
        for key, (error, _, data) in protocol.fetch(connection, positions, max_wait_ms=5_000).items():
            values = [(offset, judged.value_of(value)) for offset, _, value, *_ in protocol.records(data)]
            found[key] = error, [(offset, value) for offset, value in values if offset >= positions[key]]
        return found


def search(bootstrap, key, values):
    """The offsets of those values that are found at the beginning of a partition, with them."""
    held, position, read = {}, 0, 0
    with judged.connect(bootstrap) as connection:
        while read < SEARCHED_BYTES:
            error, _, data = protocol.fetch(connection, {key: position})[key]
            records = protocol.records(data)
            if error or not records:
                return held
            held |= {offset: found for offset, _, value, *_ in records if (found := judged.value_of(value)) in values}
            position, read = records[-1][0] + 1, read + len(data)
    return held


def old_file(test):
    """A file with records that can be read: (key in the bucket, bytes, {(topic, partition): {offset: value}})."""
    bucket = test.cluster.bucket
    oldest = bucket.keys("cluster/files/", oldest_first=True)[:FILES_TRIED]
    for name in test.random.sample(oldest, len(oldest)):
        content = bucket.request("GET", f"bucket/{name}")
        values = {value.decode() for value in VALUE.findall(content)}
        held = {key: search(test.bootstrap, key, values) for key in judged.KEYS}
        held = {key: offsets for key, offsets in held.items() if offsets}
        if held:
            return name, content, held
    raise AssertionError("none of the oldest files holds records that can be read")


def expect_errors(bootstrap, held):
    """What is lost is an error wherever it is asked for, and nothing else is; gives how many errors there were."""
    errors = 0
    for key, offsets in held.items():
        first, last = min(offsets), max(offsets)
        for position in (first, last):
            error, values = fetched(bootstrap, {key: position})[key]
            if error != KAFKA_STORAGE_ERROR or values:
                raise AssertionError(f"{key} at {position}, which is lost: error {error}, {values[:3]}")
            errors += 1
        beyond = fetched(bootstrap, {key: last + 1})[key]
        if beyond[0] or beyond[1][0][0] != last + 1:
            raise AssertionError(f"{key} at {last + 1}, which is there: error {beyond[0]}, {beyond[1][:3]}")
    for key in set(judged.KEYS) - set(held):
        error, values = fetched(bootstrap, {key: 0})[key]
        if error or values[0][0] != 0:
            raise AssertionError(f"{key}, of which nothing is lost: error {error}, {values[:3]}")
    return errors


def expect_a_reader_to_stop(bootstrap, held):
    """A client that reads from the beginning comes to what is lost, is told so, and is given nothing beyond it."""
    key = min(held)
    lost_from = min(held[key])
    reader = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "reads-what-is-lost", "enable.auto.commit": False, "auto.offset.reset": "error",
        "fetch.error.backoff.ms": 50, "log_level": 0,
    })
    reader.assign([TopicPartition(*key, 0)])
    seen, end = [], patience.now_s() + 30
    quiet_since = time.monotonic()
    while patience.now_s() < end and time.monotonic() < quiet_since + 3:
        for message in reader.consume(500, 0.2):
            if message.error() and message.error().code() == KafkaError._AUTO_OFFSET_RESET:
                raise AssertionError(f"{key}: {message.error().str()}")
            if not message.error():
                seen.append(message.offset())
                quiet_since = time.monotonic()
    reader.close()
    if seen != list(range(lost_from)):
        raise AssertionError(f"{key} is lost from {lost_from} on, and a reader was given {len(seen)} records, the last at {seen[-1:]}")


def lose_a_file(test):
    """A file is deleted behind the cluster's back, and later put back; gives how many reads were told that it is lost."""
    bucket = test.cluster.bucket
    name, content, held = old_file(test)
    bucket.request("DELETE", f"bucket/{name}")
    try:
        # Caches hold it as yet.
        test.kill(*test.cluster.agents)
        for agent in test.cluster.agents:
            wait_until(agent.ready, 40, f"{agent.name} is ready without {name}")
        errors = expect_errors(test.bootstrap, held)
        expect_a_reader_to_stop(test.bootstrap, held)
        counted = [agent for agent in test.cluster.agents if counts(agent, "seaway_agent_missing_files_total")]
        if not counted:
            raise AssertionError("no agent counts a file that is missing")
    finally:
        bucket.request("PUT", f"bucket/{name}", content)
    for key, offsets in held.items():
        for offset, value in sorted(offsets.items()):
            back = fetched(test.bootstrap, {key: offset})[key]
            if back[0] or back[1][0] != (offset, value):
                raise AssertionError(f"{key} at {offset}, which is back: error {back[0]}, {back[1][:1]}, not {value}")
    return errors


def counts(process, name):
    """What a counter of a process says; 0 if it has none of that name."""
    lines = process.page("/metrics")[1].splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


def lose_the_bucket(test):
    """A cluster of its own loses all that it has, and another finds what was that one's in its bucket; gives how many processes ended."""
    strangers = small_cluster(test, "wiped", lambda _: None, "wiped")
    return strangers[1] + small_cluster(test, "exchanged", lambda cluster: cluster.bucket.put_all(strangers[0]), "belongs to cluster")[1]


def small_cluster(test, name, fill, said):
    """Starts a cluster, whose bucket is emptied and filled with something else: each process has to end and say why. Gives what was in the
    bucket before, and how many ended."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=test.directory))
    cluster = type(test.cluster)(directory / "cluster", control=2, agents=2)
    try:
        cluster.start()
        before = cluster.bucket.objects()
        cluster.bucket.request("DELETE", "_control/bucket")
        fill(cluster)
        for process in cluster.processes:
            wait_until(lambda process=process: not process.alive(), 60, f"{process.name} ends, whose bucket is {name}")
            last = process.log.read_text(errors="replace").splitlines()[-1]
            if process.process.returncode != 1 or not (last.startswith("seaway: ") and said in last and "--bucket" in last):
                raise AssertionError(f"{process.name}, whose bucket is {name}, ended with {process.process.returncode}: {last}")
        return before, len(cluster.processes)
    finally:
        cluster.end()
