"""Sends this machine's own documentation through the cluster and gets it back byte for byte:
BOOTSTRAP=host:port python -m tests.corpus

Every file is a key, every line a record. kcat produces them, compressed and idempotent; a group of three kcat processes
reads them. Then each file is put together again from its records, in the order of their offsets, and compared.
"""

import collections
import pathlib
import subprocess
import sysconfig
import threading
import time

from confluent_kafka import KafkaException

from tests.clients.confluent import admin_client, create_topic
from tests.harness import BOOTSTRAP, Suite, expect, expect_equal, unique, wait_until

PARTITIONS = 6
BYTES_MAX = 8 << 20
BYTES_MIN = 2 << 20
# What a machine that can build and test Seaway surely has, the most readable first.
SOURCES = (
    ("/usr/share/doc", "*/copyright"), ("/usr/share/perl", "**/*.pod"), (sysconfig.get_path("stdlib"), "*.py"),
    ("/usr/share/perl", "**/*.pm"),
)
suite = Suite("corpus")


def corpus():
    """{key: bytes} of text files, in an order of its own; a line of a file is never empty-handed of its key."""
    files, total = {}, 0
    for root, pattern in SOURCES:
        for path in sorted(pathlib.Path(root).glob(pattern)):
            if total > BYTES_MAX or not path.is_file():
                continue
            content = path.read_bytes()
            # kcat takes a line's end off, so that a file is told from its lines only if it ends with one.
            if not content.endswith(b"\n") or b"\0" in content:
                continue
            files[b"%d" % len(files)] = content
            total += len(content)
    expect(total > BYTES_MIN, f"only {total} bytes of text found under {[root for root, _ in SOURCES]}")
    return files


class Reader:
    """A kcat process of the group, and the records that it has printed."""

    def __init__(self, group, topic):
        self.records = []
        self.process = subprocess.Popen(
            ["kcat", "-b", BOOTSTRAP, "-q", "-G", group, "-f", "%p %o %k %S\n%s\n", "-u", "-X", "auto.offset.reset=earliest",
             "-X", "session.timeout.ms=10000", "-X", "auto.commit.interval.ms=500", topic],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        output = self.process.stdout
        while head := output.readline():
            partition, offset, key, size = head.split(b" ")
            value = output.read(int(size) + 1)
            self.records.append((int(partition), int(offset), key, value[:-1]))

    def end(self):
        self.process.terminate()
        self.process.wait(20)
        self.thread.join(20)


def members_of(admin, group):
    try:
        described = admin.describe_consumer_groups([group])[group].result(30)
    except KafkaException:  # a coordinator that is not there yet
        return 0
    return len(described.members) if described.state.name == "STABLE" else 0


@suite.check
def a_corpus_comes_back_byte_for_byte():
    files = corpus()
    lines = [(key, line) for key, content in files.items() for line in content[:-1].split(b"\n")]
    topic, group = create_topic("corpus", PARTITIONS), unique("corpus")
    admin = admin_client()
    readers = [Reader(group, topic) for _ in range(3)]
    try:
        wait_until(lambda: members_of(admin, group) == 3, 30, "a group of three")
        started = time.monotonic()
        done = subprocess.run(
            ["kcat", "-b", BOOTSTRAP, "-q", "-P", "-t", topic, "-K", "\t", "-z", "zstd", "-X", "enable.idempotence=true",
             "-X", "linger.ms=20"],
            input=b"".join(key + b"\t" + line + b"\n" for key, line in lines), capture_output=True,
        )
        expect_equal(done.returncode, 0, f"exit code of the producing kcat: {done.stderr[-500:]}")
        wait_until(lambda: sum(len(reader.records) for reader in readers) >= len(lines), 60, "every line read")
        seconds = time.monotonic() - started
    finally:
        for reader in readers:
            reader.end()
    judge(files, lines, readers)
    total = sum(map(len, files.values()))
    print(f"  {len(files)} files, {len(lines)} lines, {total / (1 << 20):.1f} MiB in {seconds:.1f} s, read by "
          f"{[len(reader.records) for reader in readers]}", flush=True)


def judge(files, lines, readers):
    records = sorted(record for reader in readers for record in reader.records)
    expect_equal(len(records), len(lines), "records read, none twice")
    expect(all(reader.records for reader in readers), "each of the three had a share")
    for reader in readers:
        last = {}
        for partition, offset, _, _ in reader.records:
            expect(offset > last.get(partition, -1), f"offset {offset} of partition {partition} after {last.get(partition)}")
            last[partition] = offset
    by_key, partitions = collections.defaultdict(list), collections.defaultdict(list)
    for partition, offset, key, value in records:
        by_key[key].append(value)
        partitions[partition].append(offset)
    for partition, offsets in partitions.items():
        expect_equal(offsets, list(range(len(offsets))), f"offsets of partition {partition}")
    expect_equal(len(by_key), len(files), "keys")
    for key, content in files.items():
        expect(b"\n".join(by_key[key]) + b"\n" == content, f"file {key.decode()} came back with other bytes")


if __name__ == "__main__":
    suite.main()
