"""Bad input for a running server:
BOOTSTRAP=host:port SERVER_PID=pid python -m tests.hostile [--seed N] [--rss-growth-mib N]

Random, truncated, oversized and negative frames, and bodies made of huge array and string lengths, on every API and
version that the server advertises, before and after a handshake; connections that never finish a frame; corrupt
batches. Expected: an answer or a closed connection, a server that goes on serving within bounded memory, and nothing
of a corrupt batch stored.
"""

import argparse
import concurrent.futures
import gzip
import os
import pathlib
import random
import resource
import socket
import struct
import threading
import time

from tests import patience, protocol
from tests.harness import BOOTSTRAP, Failed, Suite, expect, expect_equal, unique, wait_until

PID = int(os.environ["SERVER_PID"])
CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, COORDINATOR_LOAD_IN_PROGRESS, INVALID_RECORD = 2, 10, 14, 87
OFFSET_COMMIT, JOIN_GROUP, CREATE_TOPICS, DELETE_TOPICS = 8, 11, 19, 20
# The server runs with memory.bytes of 640 MiB, of which no load takes all shares at one time, beside what docs/memory.md says comes on top.
RESIDENT_MIB = 600
LARGE_BATCH = protocol.batch([bytes(1_000_000)], timestamp_ms=int(time.time() * 1000))
# These may hold back their answer for as long as the request says, or give none: a fetch, a join, a sync, and a produce
# with acks=0.
WAITING = {0, 1, 11, 14}
# What those are given, of which nothing follows if it is too short; and what all others are given on the patient clock, since
# the twelve that ask at a time keep the processors busy themselves.
WAITED_FOR_S, ANSWERED_WITHIN_S = 4, 10
FLEXIBLE_BODY = b"\xff\xff\xff\xff\x07"  # 2^31 - 1 as an unsigned varint: a compact array of that many
options = None
suite = Suite("hostile")


def resident_mib():
    for line in pathlib.Path(f"/proc/{PID}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise Failed("the server is gone")


class Memory:
    """The largest resident size of the server while the block runs: it may grow a little, or be `limit_mib` in all."""

    def __init__(self, limit_mib=None):
        self.limit_mib = limit_mib

    def __enter__(self):
        self.before = self.most = resident_mib()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self):
        while not self.done.wait(0.02):
            try:
                self.most = max(self.most, resident_mib())
            except (OSError, Failed):
                return

    def __exit__(self, kind, *_):
        self.done.set()
        self.thread.join()
        grown = self.most - self.before
        print(f"  resident {self.before:.0f} MiB before, {self.most:.0f} at most", flush=True)
        if kind is None:
            if self.limit_mib:
                expect(self.most <= self.limit_mib, f"{self.most:.0f} MiB resident; {self.limit_mib} are allowed")
                return
            expect(grown <= options.rss_growth_mib, f"grew by {grown:.0f} MiB; {options.rss_growth_mib} are allowed")


def served():
    with protocol.Connection(BOOTSTRAP) as connection:
        return protocol.api_versions(connection)


def frame(body):
    return struct.pack(">i", len(body)) + body


def header(api, version):
    return struct.pack(">hhi", api, version, 7) + protocol.string("hostile")


def valid_bodies():
    """A sensible body for some APIs, to be cut off and damaged."""
    batch = protocol.batch([b"hello"] * 3)
    return {
        (protocol.METADATA, 1): protocol.array([protocol.string("some-topic")]),
        (protocol.PRODUCE, 3): protocol.string(None) + struct.pack(">hi", -1, 1000) + protocol.array([
            protocol.string("no-such-topic-here") + protocol.array([struct.pack(">ii", 0, len(batch)) + batch])
        ]),
        (protocol.FETCH, 4): struct.pack(">iiiib", -1, 10, 1, 1000, 0) + protocol.array([
            protocol.string("no-such-topic-here") + protocol.array([struct.pack(">iqi", 0, 0, 1000)])
        ]),
        (protocol.LIST_OFFSETS, 1): struct.pack(">i", -1) + protocol.array([
            protocol.string("no-such-topic-here") + protocol.array([struct.pack(">iq", 0, -1)])
        ]),
    }


def hostile_bodies(source):
    yield b""
    yield b"\0"
    yield b"\x7f\xff\xff\xff" * 20
    yield b"\x7f" * 300
    yield b"\xff" * 300
    yield b"\x80\0\0\0" * 20
    yield b"\0" * 300
    yield b"\0" + b"\x00\xff\xff\xff" * 20
    yield b"\0" + FLEXIBLE_BODY * 20
    yield FLEXIBLE_BODY * 20
    yield b"\x01" * 200 + FLEXIBLE_BODY * 4
    yield b"\x02" * 5000
    # Arrays in arrays: each says that it holds a few million, none is there.
    yield struct.pack(">i", 5_000_000) * 200
    yield source.randbytes(source.randrange(1, 40))
    yield source.randbytes(source.randrange(1, 4000))
    yield bytes(source.choice((0, 0, 0, 1, 2, 255)) for _ in range(source.randrange(1, 400)))


def provoke(label, data, handshake, silent_ok):
    """Sends `data` on a connection of its own and tells what came: "answer", "closed" or, if that is allowed, "silence"."""
    try:
        connection = protocol.Connection(BOOTSTRAP, timeout_s=ANSWERED_WITHIN_S)
    except OSError as failure:
        raise Failed(f"no connection: {failure}") from failure
    with connection:
        if handshake:
            protocol.api_versions(connection)
        if silent_ok:
            connection.socket.settimeout(WAITED_FOR_S)
        try:
            connection.send_raw(data)
            size = struct.unpack(">i", connection.read_exactly(4))[0]
            expect(0 < size < 200_000_000, f"an answer of {size} bytes")
            connection.read_exactly(size)
            return "answer"
        except socket.timeout:
            expect(silent_ok, f"{label}: neither an answer nor a closed connection in {ANSWERED_WITHIN_S} s")
            return "silence"
        except OSError:
            return "closed"


def provoke_all(cases, silent_ok=lambda label: False):
    """Runs (label, data, handshake) side by side; fails on a silence that has no reason."""
    seen = {"answer": 0, "closed": 0, "silence": 0}
    with Memory(), concurrent.futures.ThreadPoolExecutor(12) as pool:
        for outcome in pool.map(lambda case: provoke(*case, silent_ok(case[0])), cases):
            seen[outcome] += 1
    print(f"  {seen}", flush=True)
    still_serves()


def still_serves():
    """A handshake is answered at once, whatever went before."""
    started = patience.now_s()
    expect(served(), "the server serves no API")
    expect(patience.now_s() - started < 3, "a handshake took more than 3 s")


def fresh_topic():
    """A topic with one good record, created by a mention in Metadata v1."""
    topic = unique("hostile")
    good = protocol.batch([b"good"], timestamp_ms=int(time.time() * 1000))
    with protocol.Connection(BOOTSTRAP) as connection:
        def stored():
            connection.request(protocol.METADATA, 1, protocol.array([protocol.string(topic)]))
            return protocol.produce(connection, topic, 0, good)[0] == 0
        wait_until(stored, 20, "a first record in a new topic")
    return topic


@suite.check
def hostile_bodies_on_every_api_and_version():
    source = random.Random(options.seed)
    cases = []
    for api, (low, high) in served().items():
        for version in range(low, high + 1):
            for number, body in enumerate(hostile_bodies(source)):
                cases.append(((api, version, body[:24]), frame(header(api, version) + body), number % 2 == 0))
    source.shuffle(cases)
    provoke_all(cases, lambda label: label[0] in WAITING)


@suite.check
def unknown_apis_and_versions():
    known = served()
    cases = [((api, 0), frame(header(api, 0) + b"\0" * 20), False) for api in (-1, 4, 999, 32767) if api not in known]
    for api, (low, high) in known.items():
        for version in (-1, low - 1, high + 1, 32767):
            if version < 0 or not low <= version <= high:
                cases.append(((api, version), frame(header(api, version) + b"\0" * 20), version % 2 == 0))
    provoke_all(cases)


@suite.check
def valid_requests_cut_off_at_every_byte_and_damaged():
    source = random.Random(options.seed)
    cases = []
    for (api, version), body in valid_bodies().items():
        whole = header(api, version) + body
        for size in range(len(whole)):
            cases.append((("cut", api, size), frame(whole[:size]), size % 2 == 0))
        for _ in range(300):
            damaged = bytearray(whole)
            for _ in range(source.randrange(1, 4)):
                damaged[source.randrange(8, len(damaged))] = source.randrange(256)
            cases.append(((api, version, "damaged"), frame(bytes(damaged)), True))
    provoke_all(cases, lambda label: label[0] in WAITING or label[1] in WAITING)


@suite.check
def frame_lengths_that_lie():
    cases = []
    for handshake in (False, True):
        for size in (-1, -2147483648, 0, 1, 3, 7, 104_857_601, 1_000_000_000, 2147483647):
            cases.append((("length", size), struct.pack(">i", size) + b"\0" * max(0, min(size, 8)), handshake))
        cases.append((("http",), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", handshake))
        cases.append((("tls",), bytes.fromhex("16030100f1010000ed0303") + b"\x55" * 200, handshake))
        for seed in range(30):
            cases.append((("noise", seed), random.Random(seed).randbytes(2000) + b"\xff" * 8, handshake))
    # A length within the limit, of a frame that never comes whole, may be waited for.
    provoke_all(cases, lambda label: label[0] == "noise")


class Held:
    """Connections that have sent `start` each and stay; those in `dribbling` send another byte now and then."""

    def __init__(self, starts, dribbling=False):
        self.connections = []
        for start in starts:
            connection = protocol.Connection(BOOTSTRAP)
            connection.socket.settimeout(0.5)
            self.connections.append(connection)
            try:
                connection.send_raw(start)
            except OSError:
                pass  # closed before it had sent all of it, or not read: as good as halted
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.dribble, daemon=True)
        if dribbling:
            self.thread.start()

    def dribble(self):
        while not self.done.wait(0.05):
            for connection in self.connections:
                try:
                    connection.socket.send(b"\0", socket.MSG_DONTWAIT)
                except OSError:
                    pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.done.set()
        for connection in self.connections:
            connection.close()


def announced(size, sent, api=protocol.PRODUCE):
    """The beginning of a frame of `size` bytes, of which only `sent` come."""
    return struct.pack(">i", size) + (struct.pack(">h", api) + b"\0" * sent)[:sent]


def producers_are_served(within_s, what):
    """A topic is created, written and read, and a batch of the largest size stored."""
    started = patience.now_s()
    topic = fresh_topic()
    with protocol.Connection(BOOTSTRAP) as connection:
        expect_equal(protocol.fetch(connection, {(topic, 0): 0})[topic, 0][:2], (0, 1), f"a fetch beside {what}")
        expect_equal(protocol.produce(connection, topic, 0, LARGE_BATCH), (0, 1), f"a large batch beside {what}")
    took = patience.now_s() - started
    print(f"  served in {took:.2f} s beside {what}", flush=True)
    expect(took < within_s, f"beside {what}: producers waited {took:.1f} s")


@suite.check
def unfinished_frames_hold_no_memory_and_leave_no_trace():
    fresh_topic()
    # 100 MB announced, the most that is allowed; next to nothing of it is sent.
    starts = [announced(104_857_600, index % 9) for index in range(1_000)]
    with Memory(), Held(starts):
        producers_are_served(3, "1000 frames announced")
        still_serves()
    with Memory(), Held(starts, dribbling=True):
        producers_are_served(3, "1000 frames of which a byte comes at a time")
        still_serves()


@suite.check
def frames_that_halt_keep_no_memory_from_others():
    for size, sent, count in ((1 << 20, 5_000, 600), (1 << 20, 100_000, 300), (104_857_600, 100_000, 200)):
        for dribbling in (False, True):
            with Memory(), Held([announced(size, sent)] * count, dribbling):
                what = f"{count} frames of {size} bytes with {sent} come{', the rest a byte at a time' if dribbling else ''}"
                # What they hold is theirs for one second of grace; so are the places of those who come next.
                producers_are_served(6, what)
    with Memory(), Held([announced(4 << 20, 100_000, protocol.METADATA)] * 200):
        producers_are_served(6, "200 large requests for metadata that halt")


def create_topic(partitions=1, configs=()):
    """A new topic of this number of partitions, with configs by name."""
    topic = unique("hostile")
    configs = [protocol.string(name) + protocol.string(value) for name, value in configs]
    create = protocol.array([
        protocol.string(topic) + struct.pack(">ih", partitions, 1) + protocol.array([]) + protocol.array(configs)
    ])
    with protocol.Connection(BOOTSTRAP, timeout_s=30) as connection:
        connection.request(CREATE_TOPICS, 2, create + struct.pack(">ib", 10_000, 0))
    return topic


def delete_topic(topic):
    with protocol.Connection(BOOTSTRAP, timeout_s=30) as connection:
        connection.request(DELETE_TOPICS, 1, protocol.array([protocol.string(topic)]) + struct.pack(">i", 10_000))


def growing_batch(timestamp_ms, grown=120_000_000):
    """A batch of two records that grows a thousandfold when it is decompressed; the second is a millisecond later."""
    plain = protocol.batch([bytes(grown), b"later"], timestamp_ms=timestamp_ms, checked=False)
    records = bytearray(plain[61:])
    # What ends it: a length, attributes, timestamp delta, offset delta, no key, the value, no headers.
    records[-10] = protocol.varint(1)[0]
    head = bytearray(plain[:61])
    struct.pack_into(">h", head, 21, 1)
    struct.pack_into(">q", head, 35, timestamp_ms + 1)
    return protocol.sealed(bytes(head) + gzip.compress(bytes(records), 9))


@suite.check
def batches_that_grow_a_thousandfold_are_looked_through_in_bounded_memory():
    topic, now_ms = create_topic(), int(time.time() * 1000)
    with protocol.Connection(BOOTSTRAP, timeout_s=30) as connection:
        expect_equal(protocol.produce(connection, topic, 0, growing_batch(now_ms)), (0, 0), "a batch that grows")

    def look_up(_):
        with protocol.Connection(BOOTSTRAP, timeout_s=120) as connection:
            return protocol.list_offsets(connection, [(topic, 0)], now_ms + 1)[topic, 0]

    with Memory(limit_mib=RESIDENT_MIB), concurrent.futures.ThreadPoolExecutor(24) as pool:
        expect_equal(set(pool.map(look_up, range(48))), {(0, 1)}, "the offset of the later record")


@suite.check
def batches_that_grow_a_thousandfold_are_compressed_anew_in_bounded_memory():
    batch = growing_batch(int(time.time() * 1000))
    for wanted, expected in (("zstd", 0), ("uncompressed", MESSAGE_TOO_LARGE)):
        topic = create_topic(configs=[("compression.type", wanted)])

        def produce(_):
            with protocol.Connection(BOOTSTRAP, timeout_s=120) as connection:
                return protocol.produce(connection, topic, 0, batch, timeout_ms=120_000)[0]

        with Memory(limit_mib=RESIDENT_MIB), concurrent.futures.ThreadPoolExecutor(24) as pool:
            expect_equal(set(pool.map(produce, range(24))), {expected}, f"errors of a topic that is {wanted}")


def commit_notes(connection, group, topic, partitions, note):
    """The errors of a commit of an offset for each partition, by a client that is no member."""
    entries = [struct.pack(">iq", number, 1) + protocol.string(note) for number in range(partitions)]
    body = protocol.string(group) + struct.pack(">i", -1) + protocol.string("") + struct.pack(">q", -1)
    answer = connection.request(OFFSET_COMMIT, 2, body + protocol.array([protocol.string(topic) + protocol.array(entries)]))
    answer.i32()
    answer.string()
    return {error for _, error in answer.array(lambda: (answer.i32(), answer.i16()))}


@suite.check
def what_groups_remember_is_bounded():
    partitions = 900
    topic, group = create_topic(partitions), unique("notes")
    with Memory(limit_mib=RESIDENT_MIB):
        with protocol.Connection(BOOTSTRAP, timeout_s=60) as connection:
            errors = [commit_notes(connection, f"{group}-{number}", topic, partitions, "n" * 4_000) for number in range(220)]
            kept = errors.index({COORDINATOR_LOAD_IN_PROGRESS})
            print(f"  {kept} groups of {partitions} offsets with notes kept", flush=True)
            expect(kept > 5, f"only {kept} groups were kept")
            expect_equal(commit_notes(connection, f"{group}-0", topic, partitions, "m" * 4_000), {0}, "errors of one that is kept")
        refused = [join_with(1_000_000) for _ in range(100)]
        expect_equal(set(refused[-20:]), {COORDINATOR_LOAD_IN_PROGRESS}, "errors of members that say too much")
        still_serves()
    delete_topic(topic)
    with protocol.Connection(BOOTSTRAP, timeout_s=60) as connection:
        other = fresh_topic()
        expect_equal(commit_notes(connection, unique("notes"), other, 1, "n"), {0}, "errors once the topic is gone")


def join_with(metadata_bytes):
    """The error of joining a new group."""
    body = protocol.string(unique("large")) + struct.pack(">ii", 6_000, 6_000) + protocol.string("") + protocol.string("consumer")
    protocols = [protocol.string("range") + struct.pack(">i", metadata_bytes) + bytes(metadata_bytes)]
    with protocol.Connection(BOOTSTRAP) as connection:
        answer = connection.request(JOIN_GROUP, 2, body + protocol.array(protocols))
        answer.i32()
        return answer.i16()


def topic_of_small_batches(partitions=4, rounds=40, requests=60):
    """A topic of 15 MB in batches of the size below which they are copied into an answer."""
    topic = unique("small")
    batch = protocol.batch([b"s" * 1_500], timestamp_ms=int(time.time() * 1000))
    entries = [struct.pack(">ii", number, len(batch)) + batch for number in range(partitions)]
    body = protocol.string(None) + struct.pack(">hi", -1, 10_000) + protocol.array([protocol.string(topic) + protocol.array(entries)])
    create = protocol.array([protocol.string(topic) + struct.pack(">ih", partitions, 1) + protocol.array([]) * 2])
    with protocol.Connection(BOOTSTRAP, timeout_s=30) as connection:
        connection.request(CREATE_TOPICS, 2, create + struct.pack(">ib", 10_000, 0))
        for _ in range(rounds):
            connection.send_raw(frame(header(protocol.PRODUCE, 3) + body) * requests)
            for _ in range(requests):
                connection.read_frame()
    return topic, partitions


@suite.check
def answers_that_nobody_reads_are_bounded():
    topic, partitions = topic_of_small_batches()
    positions = {(topic, number): 0 for number in range(partitions)}
    body = struct.pack(">iiiib", -1, 500, 1, 50 << 20, 0) + protocol.by_topic(
        positions, lambda _, number: struct.pack(">iqi", number, 0, 50 << 20)
    )
    fetch = frame(header(protocol.FETCH, 4) + body)
    metadata = frame(header(protocol.METADATA, 1) + struct.pack(">i", -1))
    with Memory(limit_mib=RESIDENT_MIB), Held([fetch] * 1_000), Held([metadata * 2_000] * 200):
        patience.sleep(5)  # for as long as it takes to make more answers than may be
        producers_are_served(6, "1200 clients that do not read their answers")


@suite.check
def refusals_that_nobody_reads_are_bounded():
    topic = fresh_topic()
    good = protocol.batch([b"good"], timestamp_ms=int(time.time() * 1000))
    # One batch that is written, beside as many refused as a request may have; and far more than it may have.
    for count, content in ((10_000, b"\0" * 61), (100_000, b"")):
        entries = [struct.pack(">ii", 0, len(data)) + data for data in [good] + [content] * count]
        body = protocol.string(None) + struct.pack(">hi", -1, 30_000) + protocol.array([
            protocol.string(topic) + protocol.array(entries)
        ])
        produce = frame(header(protocol.PRODUCE, 3) + body)
        with Memory(limit_mib=RESIDENT_MIB), Held([produce * 5] * 200):
            producers_are_served(10, f"200 clients that are refused {count} batches at a time and read no answer")


@suite.check
def many_large_produces_in_flight_are_bounded():
    topic = fresh_topic()
    body = protocol.string(None) + struct.pack(">hi", -1, 30_000) + protocol.array([
        protocol.string(topic) + protocol.array([struct.pack(">ii", 0, len(LARGE_BATCH)) + LARGE_BATCH])
    ])
    produce = frame(header(protocol.PRODUCE, 3) + body)
    connections = [protocol.Connection(BOOTSTRAP, timeout_s=60) for _ in range(60)]

    def five(connection):
        with connection:
            connection.send_raw(produce * 5)
            for _ in range(5):
                connection.read_frame()

    with Memory(limit_mib=RESIDENT_MIB), concurrent.futures.ThreadPoolExecutor(len(connections)) as pool:
        list(pool.map(five, connections))


@suite.check
def corrupt_batches_are_refused_and_not_stored():
    topic = fresh_topic()
    good = protocol.batch([b"some", b"more", b"values"], timestamp_ms=int(time.time() * 1000))
    for label, data, errors in corrupt_batches(good):
        with protocol.Connection(BOOTSTRAP) as connection:
            before = protocol.list_offsets(connection, [(topic, 0)], protocol.LATEST)[topic, 0]
            try:
                error, offset = protocol.produce(connection, topic, 0, data)
            except (ConnectionError, socket.timeout):
                error, offset = "closed", -1
        expect(error in errors or error == "closed" and "closed" in errors, f"{label}: error {error}, wanted {errors}")
        expect_equal(offset, -1, f"{label}: the base offset in a refusal")
        with protocol.Connection(BOOTSTRAP) as connection:
            after = protocol.list_offsets(connection, [(topic, 0)], protocol.LATEST)[topic, 0]
            expect_equal(after, before, f"{label}: the partition's end")
    with protocol.Connection(BOOTSTRAP) as connection:
        expect_equal(protocol.produce(connection, topic, 0, good), (0, 1), "a good batch after all that")
        error, high, data = protocol.fetch(connection, {(topic, 0): 0})[topic, 0]
        expect_equal((error, high), (0, 4), "error and end of the fetch")
        expect_equal([entry[2] for entry in protocol.records(data)], [b"good", b"some", b"more", b"values"], "the records")


def corrupt_batches(good):
    """(what is wrong, bytes, the errors that may answer)"""
    def altered(at, content):
        return good[:at] + content + good[at + len(content):]
    for at in (17, 20, 22, 30, 45, 57, 61, 70, len(good) - 1):
        yield f"bit flipped at byte {at}", altered(at, bytes([good[at] ^ 0x08])), {CORRUPT_MESSAGE}
    yield "cut off in the records", good[:-3], {CORRUPT_MESSAGE, INVALID_RECORD, "closed"}
    yield "cut off in the header", good[:40], {CORRUPT_MESSAGE, INVALID_RECORD, "closed"}
    yield "a length that goes beyond the end", altered(8, struct.pack(">i", len(good) + 100)), {CORRUPT_MESSAGE, INVALID_RECORD, "closed"}
    yield "a negative length", altered(8, struct.pack(">i", -1)), {CORRUPT_MESSAGE, INVALID_RECORD, "closed"}
    yield "a length of almost nothing", altered(8, struct.pack(">i", 10)), {CORRUPT_MESSAGE, INVALID_RECORD, "closed"}
    yield "two batches", good + good, {INVALID_RECORD}
    yield "a count that is not the last offset delta plus one", protocol.batch([b"one"], count=5), {INVALID_RECORD, CORRUPT_MESSAGE}
    yield "a count of more records than there are", protocol.batch([b"one"], count=5, delta=4), {INVALID_RECORD, CORRUPT_MESSAGE}
    yield "a control batch", protocol.batch([b"one"], attributes=32), {INVALID_RECORD}
    yield "message format 1", altered(16, b"\x01"), {INVALID_RECORD, CORRUPT_MESSAGE, 76, 43, "closed"}


@suite.check
def a_corrupt_batch_does_not_spoil_its_neighbour():
    topic, other = fresh_topic(), fresh_topic()
    good = protocol.batch([b"neighbour"], timestamp_ms=int(time.time() * 1000))
    bad = good[:-1] + bytes([good[-1] ^ 1])
    entries = [
        protocol.string(name) + protocol.array([struct.pack(">ii", 0, len(data)) + data])
        for name, data in ((topic, bad), (other, good))
    ]
    body = protocol.string(None) + struct.pack(">hi", -1, 10_000) + protocol.array(entries)
    with protocol.Connection(BOOTSTRAP) as connection:
        answer = connection.request(protocol.PRODUCE, 3, body)
        found = {}
        for _ in range(answer.i32()):
            name = answer.string()
            answer.i32()
            answer.i32()
            found[name] = answer.i16()
            answer.i64()
            answer.i64()
        expect_equal(found, {topic: CORRUPT_MESSAGE, other: 0}, "errors by topic")


def main():
    global options
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--rss-growth-mib", type=int, default=256)
    parser.add_argument("--silent-ok", type=int, nargs="*", default=[], help="APIs that may leave a request unanswered")
    parser.add_argument("checks", nargs="*", metavar="CHECK")
    options = parser.parse_args()
    WAITING.update(options.silent_ok)
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    print(f"  seed {options.seed}", flush=True)
    suite.main(options.checks)


if __name__ == "__main__":
    main()
