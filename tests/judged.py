"""Real idempotent clients under load while servers are hurt, and a history of what they were told, for the checker to judge
(docs/formats/history.md). What hurts the servers is the business of those who use this."""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition, version
from confluent_kafka.admin import AdminClient, NewTopic

from tests import patience, protocol
from tests import server as servers

TOPICS, PARTITIONS = 2, 3
KEYS = [(f"judged-{topic}", partition) for topic in range(TOPICS) for partition in range(PARTITIONS)]
GROUP = "judged-group"
AVAILABLE_AGAIN_S = 30
# Certainly without effect; everything else that is not an acknowledgement counts as unknown.
DEFINITE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._QUEUE_FULL}


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

    def __init__(self, path):
        self.file = open(path, "w", encoding="ascii")
        self.lock = threading.Lock()
        self.index = 0
        self.processes = 0
        self.acknowledged = 0
        self.counts = collections.Counter()
        header = {"history": 1, "clients": f"confluent-kafka {version()}", "faults": True, "lag_bound_us": 60_000_000}
        self.file.write(json.dumps(header) + "\n")

    def process(self, stem):
        with self.lock:
            self.processes += 1
            return f"{stem}{self.processes}"

    def write(self, process, kind, function, value, op=None, rebalanced=None):
        line = {"process": process, "type": kind, "f": function, "value": value}
        if op is not None:
            line["op"] = op
        if rebalanced:
            line["rebalanced"] = sorted(rebalanced)
        with self.lock:
            self.index += 1
            self.counts[f"{function} {kind}"] += 1
            if (function, kind) == ("send", "ok"):
                self.acknowledged += 1
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

    def __init__(self, test, stem):
        super().__init__(daemon=True)
        self.test = test
        self.history = test.history
        self.stem = stem
        self.failure = None
        self.stopping = threading.Event()
        self.begin()

    def begin(self):
        self.process = self.history.process(self.stem)
        self.ops = 0

    def next_op(self):
        self.ops += 1
        return self.ops

    def call(self, function, argument, result):
        """An operation that is told in the history as invoked and as completed at once."""
        op = self.next_op()
        self.history.write(self.process, "invoke", function, argument, op)
        self.history.write(self.process, "ok", function, result, op)

    def run(self):
        try:
            while not self.stopping.is_set():
                self.work()
            self.finish()
        except Exception as failure:  # told by the main thread
            self.failure = failure

    def finish(self):
        pass


class Sender(Client):
    """An idempotent producer that keeps a few records in flight and never sends one twice."""

    def __init__(self, test, seed, message_timeout_ms=30_000):
        self.random = random.Random(seed)
        self.message_timeout_ms = message_timeout_ms
        self.number = 0
        self.broken = False
        super().__init__(test, "p")

    def begin(self):
        super().begin()
        self.broken = False
        self.producer = Producer({
            "bootstrap.servers": self.test.bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 5,
            "message.timeout.ms": self.message_timeout_ms, "socket.timeout.ms": 5_000, "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 300, "retry.backoff.ms": 50, "retry.backoff.max.ms": 300,
            "topic.metadata.refresh.interval.ms": 5_000, "log_level": 0,
        })
        self.call("open", {}, {"producer": {"idempotent": True}})

    def work(self):
        for _ in range(self.random.randrange(1, 12)):
            self.send()
        self.producer.poll(self.random.random() * 0.05)
        deadline = patience.now_s() + 60
        while len(self.producer) > 200 and patience.now_s() < deadline and not self.broken and not self.stopping.is_set():
            self.producer.poll(0.05)
        if self.broken:
            self.drop()
            self.begin()

    def send(self):
        topic, partition = self.random.choice(KEYS)
        self.number += 1
        process, op, value = self.process, self.next_op(), f"{self.process}.{self.number}"
        size = self.random.choice((0, 10, 100, 1_000, 20_000))
        data = f"{value}|".encode() + self.random.randbytes(size).replace(b"|", b"/")
        key = None if self.number % 2 else f"key-{self.random.randrange(9)}".encode()
        headers = [("n", b"%d" % self.number), ("n", b"again")] if self.number % 3 == 0 else []
        name = key_name(topic, partition)
        sent = ["send", name, value, {"hash": payload_hash(key, data, headers)}]
        self.history.write(process, "invoke", "send", [sent], op)

        def answered(error, message):
            if error is None:
                offset = message.offset()
                done = [["send", name, [offset if offset >= 0 else None, value]]]
                self.history.write(process, "ok", "send", done, op)
                return
            self.broken = True
            self.test.errors[error.name()] += 1
            self.history.write(process, "fail" if error.code() in DEFINITE else "info", "send", None, op)

        try:
            self.producer.produce(topic, data, key, partition, on_delivery=answered, headers=headers)
        except BufferError:
            self.history.write(process, "fail", "send", None, op)
        except KafkaException as failure:  # a fatal error of this producer: this record was not taken
            self.broken = True
            self.test.errors[failure.args[0].name()] += 1
            self.history.write(process, "fail", "send", None, op)

    def drop(self):
        """Ends the client as a crash would: what is under way stays unknown."""
        self.history.event("crash", None, self.process)
        self.producer.purge()
        self.producer.flush(2)

    def finish(self):
        if self.producer.flush(patience.wall_s(40)):
            raise AssertionError(f"{len(self.producer)} records of {self.process} neither acknowledged nor failed after 40 s")


def polled(messages):
    """Messages as a history's poll has them, and the position after the last one per key."""
    found, positions = {}, {}
    for message in messages:
        if message.error():
            continue
        name = key_name(message.topic(), message.partition())
        proof = payload_hash(message.key(), message.value(), message.headers() or [])
        found.setdefault(name, []).append([message.offset(), value_of(message.value()), {"hash": proof}])
        positions[message.topic(), message.partition()] = message.offset() + 1
    return found, positions


class Reader(Client):
    """A consumer of all partitions by assignment; it must never skip a record or go back."""

    def __init__(self, test):
        self.positions = {}
        super().__init__(test, "r")

    def settings(self):
        return {
            "bootstrap.servers": self.test.bootstrap, "group.id": "judged-reader", "enable.auto.commit": False,
            "auto.offset.reset": "error", "isolation.level": "read_committed", "fetch.wait.max.ms": 100,
            "fetch.error.backoff.ms": 50, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 300, "log_level": 0,
        }

    def begin(self):
        super().begin()
        self.positions = dict.fromkeys(KEYS, 0)
        self.consumer = Consumer(self.settings())
        self.call("open", {}, {"consumer": {"isolation": "read_committed"}})
        self.call("assign", {"keys": [key_name(*key) for key in KEYS], "from": "beginning"}, None)
        self.consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in KEYS])

    def work(self):
        op = self.next_op()
        self.history.write(self.process, "invoke", "poll", [["poll"]], op)
        messages = self.consumer.consume(200, 0.3)
        found, positions = polled(messages)
        self.history.write(self.process, "ok", "poll", [["poll", found]], op)
        self.positions.update(positions)
        for message in messages:
            if message.error() and message.error().code() == KafkaError._AUTO_OFFSET_RESET:
                raise AssertionError(f"{message.topic()}/{message.partition()}: {message.error().str()}")

    def finish(self):
        self.consumer.close()


class Member(Reader):
    """A member of the group: commits what it has polled, so that the group's offsets can be judged."""

    def settings(self):
        return super().settings() | {
            "group.id": GROUP, "auto.offset.reset": "earliest", "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
        }

    def begin(self):
        Client.begin(self)
        self.positions = {}
        self.rebalanced = set()
        self.consumer = Consumer(self.settings())
        self.call("open", {}, {"consumer": {"group": GROUP, "isolation": "read_committed"}})
        topics = sorted({topic for topic, _ in KEYS})
        self.call("subscribe", {"topics": topics}, None)
        self.consumer.subscribe(topics, on_assign=self.moved, on_revoke=self.moved, on_lost=self.moved)

    def moved(self, _, partitions):
        self.rebalanced |= {key_name(entry.topic, entry.partition) for entry in partitions}

    def work(self):
        op = self.next_op()
        self.rebalanced.clear()
        self.history.write(self.process, "invoke", "poll", [["poll"]], op)
        found, positions = polled(self.consumer.consume(200, 0.3))
        self.history.write(self.process, "ok", "poll", [["poll", found]], op, rebalanced=self.rebalanced)
        if positions:
            self.positions.update(positions)
            self.commit(positions)

    def commit(self, positions):
        op = self.next_op()
        value = {"group": GROUP, "offsets": {key_name(*key): offset for key, offset in positions.items()}}
        self.history.write(self.process, "invoke", "commit", value, op)
        entries = [TopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()]
        try:
            answers = self.consumer.commit(offsets=entries, asynchronous=False)
            kind = "info" if any(answer.error for answer in answers) else "ok"
        except KafkaException as failure:
            self.test.errors[f"commit {failure.args[0].name()}"] += 1
            kind = "info"
        self.history.write(self.process, kind, "commit", None, op)


class Watcher(Client):
    """Asks for the ends of all partitions again and again: they never go back and always hold what was acknowledged."""

    def work(self):
        time.sleep(0.1)
        op = self.next_op()
        keys = [key_name(*key) for key in KEYS]
        self.history.write(self.process, "invoke", "debug", {"keys": keys}, op)
        try:
            ends = partition_ends(self.test.bootstrap)
        except (OSError, ValueError):
            self.history.write(self.process, "info", "debug", None, op)
            return
        self.history.write(self.process, "ok", "debug", {
            key_name(*key): {"log_start": start, "hw": end} for key, (start, end) in ends.items()
        }, op)


def connect(bootstrap, timeout_s=10):
    """A connection to the first server of a list that takes it; any serves everything."""
    *others, last = bootstrap.split(",")
    for server in others:
        try:
            return protocol.Connection(server, timeout_s)
        except OSError:
            pass
    return protocol.Connection(last, timeout_s)


def partition_ends(bootstrap):
    """{(topic, partition): (log start offset, high watermark)}; ValueError if the server cannot tell of one."""
    with connect(bootstrap, timeout_s=5) as connection:
        starts = protocol.list_offsets(connection, KEYS, protocol.EARLIEST)
        ends = protocol.list_offsets(connection, KEYS, protocol.LATEST)
    for key in KEYS:
        for error, offset in (starts[key], ends[key]):
            if error or offset < 0:
                raise ValueError(f"{key}: error {error}, offset {offset}")
    return {key: (starts[key][1], ends[key][1]) for key in KEYS}


class Judged:
    """The clients, and the judgement. `server` is what is hurt: it has bootstrap, logs, start, stop, kill, alive and log_tail."""

    def __init__(self, options, directory, server):
        self.options = options
        self.random = random.Random(options.seed)
        self.directory = directory
        self.server = server
        self.bootstrap = server.bootstrap
        self.history = History(options.history)
        self.errors = collections.Counter()
        self.slowest_s = 0.0
        self.clients = []

    def run(self):
        self.server.start()
        self.create_topics()
        # Two wait out every fault; one gives up early, so that outcomes stay unknown.
        self.clients = [Sender(self, self.random.random(), timeout_ms) for timeout_ms in (30_000, 30_000, 600)]
        self.clients += [Reader(self), Member(self), Member(self), Watcher(self, "w")]
        for client in self.clients:
            client.start()
        self.hurt()
        self.history.event("heal", None)
        self.await_acknowledgements(20)
        self.end_clients([client for client in self.clients if isinstance(client, Sender)])
        self.await_ends()
        self.end_clients(self.clients)
        self.committed()
        self.final_read()
        self.history.close()
        if not self.server.stop():
            raise AssertionError(f"the server did not stop cleanly; its log ends:\n{self.server.log_tail()}")
        if found := [line for log in self.server.logs for line in servers.panics(log)]:
            raise AssertionError("the server panicked:\n" + "\n".join(found))

    def hurt(self):
        """Hurts the servers, and leaves them whole."""
        raise NotImplementedError

    def create_topics(self):
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        topics = [NewTopic(topic, PARTITIONS, 1) for topic in sorted({topic for topic, _ in KEYS})]
        for future in admin.create_topics(topics).values():
            future.result(patience.wall_s(30))
        deadline = patience.now_s() + 15
        while True:
            try:
                partition_ends(self.bootstrap)
                return
            except (OSError, ValueError, KeyError):
                if patience.now_s() > deadline:
                    raise
                time.sleep(0.1)

    def await_acknowledgements(self, count=5):
        """The server serves again: some records are acknowledged in time."""
        started, before = patience.now_s(), self.history.acknowledged
        while self.history.acknowledged < before + count:
            self.look_after_clients()
            if patience.now_s() - started > AVAILABLE_AGAIN_S:
                raise AssertionError(
                    f"no records acknowledged for {AVAILABLE_AGAIN_S} s after a start; client errors: {dict(self.errors)}; "
                    f"the server's log ends:\n{self.server.log_tail()}"
                )
            time.sleep(0.02)
        self.slowest_s = max(self.slowest_s, patience.now_s() - started)

    def look_after_clients(self):
        for client in self.clients:
            if client.failure:
                raise client.failure

    def end_clients(self, clients):
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.join(patience.wall_s(60))
            if client.is_alive():
                raise AssertionError(f"client {client.process} does not end")
        self.look_after_clients()

    def await_ends(self):
        """Readers and the group reach what is there."""
        ends = {key: end for key, (_, end) in partition_ends(self.bootstrap).items()}
        readers = [client for client in self.clients if type(client) is Reader]
        members = [client for client in self.clients if type(client) is Member]

        def behind():
            found = [f"reader at {reader.positions[key]} of {ends[key]} in {key}"
                     for reader in readers for key in KEYS if reader.positions[key] < ends[key]]
            for key in KEYS:
                if max((member.positions.get(key, 0) for member in members)) < ends[key]:
                    found.append(f"group before {ends[key]} in {key}")
            return found

        deadline = patience.now_s() + 60
        while waiting := behind():
            self.look_after_clients()
            if patience.now_s() > deadline:
                raise AssertionError(f"60 s after the last record: {waiting}")
            time.sleep(0.05)

    def committed(self):
        """What the group has committed, asked by a new client."""
        process = self.history.process("g")
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": GROUP, "log_level": 0})
        self.history.write(process, "invoke", "committed", {"group": GROUP, "keys": [key_name(*key) for key in KEYS]}, 1)
        entries = consumer.committed([TopicPartition(*key) for key in KEYS], timeout=patience.wall_s(20))
        offsets = {key_name(entry.topic, entry.partition): entry.offset if entry.offset >= 0 else None for entry in entries}
        self.history.write(process, "ok", "committed", {"group": GROUP, "offsets": offsets}, 1)
        consumer.close()
        ends = {key_name(*key): end for key, (_, end) in partition_ends(self.bootstrap).items()}
        if offsets != {name: end or None for name, end in ends.items()}:
            raise AssertionError(f"the group polled everything and committed {offsets}; the ends are {ends}")

    def final_read(self):
        """A fresh reader of everything, through raw fetches."""
        process, ops = self.history.process("f"), 3
        keys = [key_name(*key) for key in KEYS]
        with connect(self.bootstrap) as connection:
            ends = {key: end for key, (_, end) in partition_ends(self.bootstrap).items()}
            self.history.write(process, "invoke", "assign", {"keys": keys, "from": "beginning"}, 1)
            self.history.write(process, "ok", "assign", None, 1)
            self.history.write(process, "invoke", "final", {"keys": keys}, 2)
            positions = dict.fromkeys(KEYS, 0)
            deadline = patience.now_s() + 100
            while any(positions[key] < ends[key] for key in KEYS):
                if patience.now_s() > deadline:
                    unreached = [key_name(*key) for key in KEYS if positions[key] < ends[key]]
                    self.history.write(process, "info", "final", {"unreached": unreached}, 2)
                    return
                self.history.write(process, "invoke", "poll", [["poll"]], ops)
                self.history.write(process, "ok", "poll", [["poll", self.fetch(connection, positions)]], ops)
                ops += 1
            self.history.write(process, "ok", "final", None, 2)

    @staticmethod
    def fetch(connection, positions):
        """One round of fetching; moves `positions` on."""
        found = {}
        for key, (error, _, data) in protocol.fetch(connection, positions).items():
            if error:
                raise AssertionError(f"the final reader gets error {error} at {positions[key]} of {key}")
            for offset, record_key, value, headers, pid, epoch, sequence in protocol.records(data):
                if offset < positions[key]:
                    continue  # the batch starts before the offset that was asked for
                proof = {"hash": payload_hash(record_key, value, headers), "pid": pid, "epoch": epoch, "seq": sequence}
                found.setdefault(key_name(*key), []).append([offset, value_of(value), proof])
                positions[key] = offset + 1
        return found


def arguments(parser):
    """The arguments that every such test takes."""
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--history", default=None, help="where the history goes; kept if the test fails")
    parser.add_argument("--check", nargs=argparse.REMAINDER, default=[], help="the checker's command line")


def judge(options, make):
    """Runs the test that `make` gives for a directory, then the checker, and ends the process with the verdict."""
    histories = pathlib.Path(tempfile.mkdtemp(prefix="seaway-history-"))
    options.history = options.history or str(histories / "history.jsonl")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="seaway-judged-"))
    test = make(options, directory)
    print(f"  seed {options.seed}", flush=True)
    code = 0
    try:
        test.run()
    except Exception as failure:  # told below with what helps to understand it
        code = 1
        print(f"  {type(failure).__name__}: {failure}", flush=True)
    finally:
        test.server.end()
    print(f"  {test.summary()}; acknowledged {test.history.acknowledged}; slowest return {test.slowest_s:.1f} s; "
          f"client errors {dict(test.errors)}", flush=True)
    if code == 0 and options.check:
        code = subprocess.run([*options.check, options.history], check=False).returncode
    if code == 0:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(histories, ignore_errors=True)
    else:
        print(f"  kept: the history in {options.history}, the servers' data and logs in {directory}", flush=True)
    sys.stdout.flush()
    os._exit(code)  # clients of a failed run may still wait in their library
