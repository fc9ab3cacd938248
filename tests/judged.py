"""Real idempotent clients under load while servers are hurt, and a history of what they were told, for the checker to judge
(docs/formats/history.md). What hurts the servers is the business of those who use this."""

import argparse
import collections
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests import patience, protocol
from tests import server as servers
from tests.judged_librdkafka import Librdkafka
from tests.judged_load import KEYS, PARTITIONS, Client, Gap, History, Member, Reader, Sender, key_name, payload_hash, value_of
from tests.judged_programs import FranzGo, Java, Kafkajs

AVAILABLE_AGAIN_S = 30
# A client that gives records up has to start over, and one may have to wait until its member's session is over.
EACH_AVAILABLE_AGAIN_S = 60

LIBRARIES = {library.name: library for library in (Librdkafka, Java, Kafkajs, FranzGo)}


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
        self.libraries = []
        self.history = History(options.history, ", ".join(f"{name} {LIBRARIES[name].version()}" for name in options.clients))
        self.errors = collections.Counter()
        self.slowest_s = 0.0
        self.clients = []

    def run(self):
        self.server.start()
        self.create_topics()
        self.start_clients()
        self.hurt()
        self.history.event("heal", None)
        self.await_acknowledgements(20)
        self.await_each_library()
        self.end_clients([client for client in self.clients if isinstance(client, Sender)])
        self.await_ends()
        self.end_clients(self.clients)
        for group in self.groups():
            self.committed(group)
        self.final_read()
        self.history.close()
        if not self.server.stop():
            raise AssertionError(f"the server did not stop cleanly; its log ends:\n{self.server.log_tail()}")
        if found := [line for log in self.server.logs for line in servers.panics(log)]:
            raise AssertionError("the server panicked:\n" + "\n".join(found))

    def start_clients(self):
        self.libraries = [LIBRARIES[name](self.bootstrap, self.directory) for name in self.options.clients]
        for library in self.libraries:
            library.start()
        self.clients = [Watcher(self, "w")]
        for library in self.libraries:
            self.clients += [Sender(self, library, self.random.random(), timeout_ms) for timeout_ms in library.timeouts_ms]
            self.clients += [Reader(self, library)] if library.reads_by_assignment else []
            self.clients += [Member(self, library), Member(self, library)]
        for client in self.clients:
            client.start()

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

    def acknowledged_since(self, before):
        """How many records of each library were acknowledged since it had so many, as text."""
        return ", ".join(f"{library.name} {self.history.acknowledged_by[library.name] - before[library.name]}" for library in self.libraries)

    def await_each_library(self):
        """Clients of every library get a record acknowledged that none of them had before this began."""
        before = self.history.acknowledged_by.copy()
        deadline = patience.now_s() + EACH_AVAILABLE_AGAIN_S
        while waiting := [library.name for library in self.libraries if self.history.acknowledged_by[library.name] == before[library.name]]:
            self.look_after_clients()
            if patience.now_s() > deadline:
                raise AssertionError(f"no record of {waiting} is acknowledged for {EACH_AVAILABLE_AGAIN_S} s, though others are; client errors: {dict(self.errors)}")
            time.sleep(0.02)

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
        consumers = [client for client in self.clients if isinstance(client, Reader)]
        readers = [client for client in consumers if client.group is None]

        def behind():
            found = [f"reader {reader.library.name} at {reader.positions[key]} of {ends[key]} in {key}"
                     for reader in readers for key in KEYS if reader.positions[key] < ends[key]]
            for group in self.groups():
                members = [client for client in consumers if client.group == group]
                found += [f"{group} before {ends[key]} in {key}"
                          for key in KEYS if max(member.positions.get(key, 0) for member in members) < ends[key]]
            return found

        deadline = patience.now_s() + 60
        while waiting := behind():
            self.look_after_clients()
            if patience.now_s() > deadline:
                raise AssertionError(f"60 s after the last record: {waiting}")
            time.sleep(0.05)

    def groups(self):
        return sorted({client.group for client in self.clients if isinstance(client, Member)})

    def committed(self, group):
        """What a group has committed, asked by a new client."""
        process = self.history.process("g")
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group, "log_level": 0})
        self.history.write(process, "invoke", "committed", {"group": group, "keys": [key_name(*key) for key in KEYS]}, 1)
        entries = consumer.committed([TopicPartition(*key) for key in KEYS], timeout=patience.wall_s(20))
        offsets = {key_name(entry.topic, entry.partition): entry.offset if entry.offset >= 0 else None for entry in entries}
        self.history.write(process, "ok", "committed", {"group": group, "offsets": offsets}, 1)
        consumer.close()
        ends = {key_name(*key): end for key, (_, end) in partition_ends(self.bootstrap).items()}
        if offsets != {name: end or None for name, end in ends.items()}:
            raise AssertionError(f"{group} polled everything and committed {offsets}; the ends are {ends}")

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


def names_of_libraries(text):
    names = text.split(",")
    for name in names:
        if name not in LIBRARIES:
            raise argparse.ArgumentTypeError(f"no client library {name}; there are: {', '.join(LIBRARIES)}")
        if not LIBRARIES[name].is_installed():
            raise argparse.ArgumentTypeError(f"{name} is not installed: tests/setup")
    return names


def installed():
    """The names of all client libraries that tests/setup has installed."""
    return [name for name, library in LIBRARIES.items() if library.is_installed()]


def arguments(parser, clients=(Librdkafka.name,)):
    """The arguments that every such test takes, and the client libraries that it uses unless told otherwise."""
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--history", default=None, help="where the history goes; kept if the test fails")
    parser.add_argument("--clients", type=names_of_libraries, default=list(clients), metavar="NAME,NAME", help=f"the client libraries: of {', '.join(LIBRARIES)}")
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
        if not isinstance(failure, AssertionError):
            traceback.print_exception(failure)
    finally:
        test.server.end()
        for library in test.libraries:
            library.end()
    by_library = ", ".join(f"{name} {test.history.acknowledged_by[name]}" for name in options.clients)
    print(f"  {test.summary()}; acknowledged {test.history.acknowledged}: {by_library}; slowest return {test.slowest_s:.1f} s; "
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
