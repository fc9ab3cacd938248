"""The load of judged tests: clients that send, poll and commit in threads of their own, and the history of what they were told, for
the checker (docs/formats/history.md). Which client library works below them is no business of theirs.

A library has a name and gives what a client works with:

    producer(timeout_ms)   an idempotent producer that gives a record up after so long
    reader()               a consumer of all partitions from their beginnings, without a group
    member(group)          a consumer that is a member of a group

A producer has `send(record, answered)`, which at some time calls `answered(kind, offset, error)` from any thread, with a kind of
docs/formats/history.md; `under_way()`; `wait(seconds)`, in which answers come; `drop()`, which ends it as a crash would; and `close()`,
which ends it after all is answered. A consumer has `poll()`, which gives [(topic, partition, offset, value, hash), ...], the keys that were
assigned or revoked meanwhile, and the names of errors after which it goes on; `commit(positions)`, which gives the name of an error or None; and `close()`.
"""

import collections
import hashlib
import json
import random
import threading
import time

from tests import patience

TOPICS, PARTITIONS = 2, 3
KEYS = [(f"judged-{topic}", partition) for topic in range(TOPICS) for partition in range(PARTITIONS)]
GROUP = "judged-group"


def key_name(topic, partition):
    return f"{topic}/{partition}"


def payload_hash(key, value, headers):
    """As docs/formats/history.md has it; the application sets no timestamps."""
    def field(content):
        return b"\xff\xff\xff\xff" if content is None else len(content).to_bytes(4, "big") + content
    state = hashlib.sha256(field(key) + field(value) + len(headers).to_bytes(4, "big"))
    for name, content in headers:
        state.update(field(name.encode()) + field(content))
    state.update((-1).to_bytes(8, "big", signed=True))
    return state.hexdigest()[:16]


def value_of(data):
    """The workload's value in a record's bytes: what stands before the padding."""
    return data.split(b"|", 1)[0].decode()


class History:
    """Writes one line per event at the moment it happens; any thread may call."""

    def __init__(self, path, clients):
        self.file = open(path, "w", encoding="ascii")
        self.lock = threading.Lock()
        self.index = 0
        self.processes = 0
        self.acknowledged = 0
        # By the name of the client library; and which library each process works with.
        self.acknowledged_by = collections.Counter()
        self.libraries = {}
        header = {"history": 1, "clients": clients, "faults": True, "lag_bound_us": 60_000_000}
        self.file.write(json.dumps(header) + "\n")

    def process(self, stem, library=None):
        with self.lock:
            self.processes += 1
            process = f"{stem}{self.processes}"
            self.libraries[process] = library
            return process

    def write(self, process, kind, function, value, op=None, rebalanced=None):
        line = {"process": process, "type": kind, "f": function, "value": value}
        if op is not None:
            line["op"] = op
        if rebalanced:
            line["rebalanced"] = sorted(rebalanced)
        with self.lock:
            self.index += 1
            if (function, kind) == ("send", "ok"):
                self.acknowledged += 1
                self.acknowledged_by[self.libraries[process]] += 1
            self.file.write(json.dumps({"index": self.index, "time": time.monotonic_ns() // 1000} | line) + "\n")

    def event(self, function, value, process="nemesis"):
        self.write(process, "info", function, value)

    def close(self):
        with self.lock:
            self.file.close()


class Gap(threading.Thread):
    """Measures the longest time without an acknowledged record."""

    def __init__(self, history):
        super().__init__(daemon=True)
        self.history = history
        self.longest_s = 0.0
        self.over = threading.Event()
        self.start()

    def run(self):
        count, since = self.history.acknowledged, time.monotonic()
        while not self.over.wait(0.01):
            now = time.monotonic()
            if self.history.acknowledged > count:
                count, since = self.history.acknowledged, now
            self.longest_s = max(self.longest_s, now - since)


class Client(threading.Thread):
    """A client that works in a thread of its own until it is told to stop. Its process in the history changes whenever
    an outcome is unknown; whatever it raises ends the test."""

    def __init__(self, test, stem, library=None):
        super().__init__(daemon=True)
        self.test = test
        self.history = test.history
        self.stem = stem
        self.library = library
        self.failure = None
        self.stopping = threading.Event()
        self.begin()

    def begin(self):
        self.process = self.history.process(self.stem, self.library and self.library.name)
        self.ops = 0

    def next_op(self):
        self.ops += 1
        return self.ops

    def call(self, function, argument, result):
        """An operation that is told in the history as invoked and as completed at once."""
        op = self.next_op()
        self.history.write(self.process, "invoke", function, argument, op)
        self.history.write(self.process, "ok", function, result, op)

    def note_error(self, name):
        self.test.errors[f"{self.library.name} {name}"] += 1

    def run(self):
        try:
            while not self.stopping.is_set():
                self.work()
            self.finish()
        except Exception as failure:  # told by the main thread
            self.failure = failure

    def finish(self):
        pass


Record = collections.namedtuple("Record", "topic partition key value headers")


class Sender(Client):
    """An idempotent producer that keeps a few records in flight and never sends one twice."""

    def __init__(self, test, library, seed, timeout_ms=30_000):
        self.random = random.Random(seed)
        self.timeout_ms = timeout_ms
        self.number = 0
        super().__init__(test, "p", library)

    def begin(self):
        super().begin()
        self.broken = threading.Event()
        self.producer = self.library.producer(self.timeout_ms)
        self.call("open", {}, {"producer": {"idempotent": True}})

    def work(self):
        for _ in range(self.random.randrange(1, 12)):
            self.send()
        self.producer.wait(self.random.random() * self.library.pause_s)
        deadline = patience.now_s() + 60
        while self.producer.under_way() > 200 and patience.now_s() < deadline and not self.broken.is_set() and not self.stopping.is_set():
            self.producer.wait(0.05)
        if self.broken.is_set():
            self.drop()
            self.begin()

    def record(self, value):
        topic, partition = self.random.choice(KEYS)
        size = self.random.choice((0, 10, 100, 1_000, 20_000))
        data = f"{value}|".encode() + self.random.randbytes(size).replace(b"|", b"/")
        key = None if self.number % 2 else f"key-{self.random.randrange(9)}".encode()
        headers = [("n", b"%d" % self.number), ("n", b"again")] if self.number % 3 == 0 else []
        return Record(topic, partition, key, data, headers)

    def send(self):
        self.number += 1
        process, op, broken, value = self.process, self.next_op(), self.broken, f"{self.process}.{self.number}"
        record = self.record(value)
        name = key_name(record.topic, record.partition)
        sent = ["send", name, value, {"hash": payload_hash(record.key, record.value, record.headers)}]
        self.history.write(process, "invoke", "send", [sent], op)

        def answered(kind, offset=None, error=None):
            if error is not None:
                broken.set()
                self.note_error(error)
            self.history.write(process, kind, "send", [["send", name, [offset, value]]] if kind == "ok" else None, op)

        self.producer.send(record, answered)

    def drop(self):
        """Ends the client as a crash would: what is under way stays unknown."""
        self.history.event("crash", None, self.process)
        self.producer.drop()

    def finish(self):
        self.producer.close()
        if left := self.producer.under_way():
            raise AssertionError(f"{left} records of {self.process} neither acknowledged nor failed after 40 s")


def polled(records):
    """Records as a history's poll has them, and the position after the last one per key."""
    found, positions = {}, {}
    for topic, partition, offset, value, proof in records:
        found.setdefault(key_name(topic, partition), []).append([offset, value, {"hash": proof}])
        positions[topic, partition] = offset + 1
    return found, positions


class Reader(Client):
    """A consumer of all partitions by assignment; it must never skip a record or go back."""

    group = None

    def __init__(self, test, library):
        self.positions = {}
        # How many polls have found partitions given or taken since the one before.
        self.moves = 0
        super().__init__(test, "r", library)

    def begin(self):
        super().begin()
        self.positions = dict.fromkeys(KEYS, 0)
        self.call("open", {}, {"consumer": {"isolation": "read_committed"}})
        self.call("assign", {"keys": [key_name(*key) for key in KEYS], "from": "beginning"}, None)
        self.consumer = self.library.reader()

    def poll(self):
        """Polls once; gives the positions that it moved."""
        op = self.next_op()
        self.history.write(self.process, "invoke", "poll", [["poll"]], op)
        records, moved, errors = self.consumer.poll()
        found, positions = polled(records)
        self.history.write(self.process, "ok", "poll", [["poll", found]], op, rebalanced={key_name(*key) for key in moved})
        self.positions.update(positions)
        self.moves += bool(moved)
        for error in errors:
            self.note_error(error)
        return positions

    def work(self):
        self.poll()

    def finish(self):
        self.consumer.close()


class Member(Reader):
    """A member of its library's group: commits what it has polled, so that the group's offsets can be judged."""

    def __init__(self, test, library):
        self.group = f"judged-{library.name}"
        super().__init__(test, library)

    def begin(self):
        Client.begin(self)
        self.positions = {}
        self.call("open", {}, {"consumer": {"group": self.group, "isolation": "read_committed"}})
        self.call("subscribe", {"topics": sorted({topic for topic, _ in KEYS})}, None)
        self.consumer = self.library.member(self.group)

    def work(self):
        if positions := self.poll():
            self.commit(positions)

    def commit(self, positions):
        op = self.next_op()
        value = {"group": self.group, "offsets": {key_name(*key): offset for key, offset in positions.items()}}
        self.history.write(self.process, "invoke", "commit", value, op)
        error = self.consumer.commit(positions)
        if error:
            self.note_error(f"commit {error}")
        self.history.write(self.process, "info" if error else "ok", "commit", None, op)
