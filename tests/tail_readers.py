"""Very many consumers at the tail of partitions, each on a connection of its own, and one producer, at the wire: a thousand real clients
would need a machine of their own."""

import asyncio
import struct
import time

from tests import protocol
from tests.members_load import array, blob
from tests.protocol import FETCH, PRODUCE, Reader, string

WAIT_MS = 500
FETCH_BYTES = 1 << 20


class Connection:
    async def open(self, address):
        host, port = address.rsplit(":", 1)
        self.reader, self.writer = await asyncio.open_connection(host, int(port))
        self.correlation = 0
        return self

    async def request(self, api, version, body):
        self.correlation += 1
        self.writer.write(blob(struct.pack(">hhi", api, version, self.correlation) + string("tail-readers") + body))
        size = struct.unpack(">i", await self.reader.readexactly(4))[0]
        answer = Reader(await self.reader.readexactly(size))
        answer.i32()
        return answer


def last_offsets(records):
    """The offset after each batch of a fetched partition."""
    at = 0
    while at + 61 <= len(records):
        base, length = struct.unpack_from(">qi", records, at)
        if at + 12 + length > len(records):
            return
        yield base + struct.unpack_from(">i", records, at + 23)[0] + 1
        at += 12 + length


class Consumer:
    """Reads some partitions from their start on, for ever; in a fetch session (KIP-227), as Java's consumer does, or without."""

    def __init__(self, address, topic, partitions, has_session):
        self.address, self.topic, self.has_session = address, topic, has_session
        self.offsets = dict.fromkeys(partitions, 0)
        self.records = 0
        self.session, self.epoch = 0, 0 if has_session else -1
        # What the next request names: in a session, what is new.
        self.named = set(partitions)

    async def run(self):
        connection = await Connection().open(self.address)
        try:
            while True:
                await self.fetch(connection)
        finally:
            connection.writer.close()

    async def fetch(self, connection):
        named = self.named if self.has_session else self.offsets
        wanted = array([struct.pack(">iqqi", partition, self.offsets[partition], -1, FETCH_BYTES) for partition in named])
        topics = array([string(self.topic) + wanted] if named else [])
        body = struct.pack(">iiiibii", -1, WAIT_MS, 1, FETCH_BYTES, 0, self.session, self.epoch) + topics + array([])
        answer = await connection.request(FETCH, 7, body)
        answer.i32()
        error, self.session = answer.i16(), answer.i32()
        if error or self.has_session and not self.session:
            raise RuntimeError(f"error {error} of session {self.session}")
        self.epoch += 1 if self.has_session else 0
        self.named = set()

        def partition():
            index, error = answer.i32(), answer.i16()
            answer.i64(), answer.i64(), answer.i64()
            answer.array(lambda: (answer.i64(), answer.i64()))
            records = answer.bytes()
            if error:
                raise RuntimeError(f"error {error} of partition {index}")
            for after in last_offsets(records):
                self.records += max(after - self.offsets[index], 0)
                self.named.add(index)
                self.offsets[index] = max(after, self.offsets[index])
        answer.array(lambda: (answer.string(), answer.array(partition)))


class Crowd:
    """Consumers of so many partitions each, spread over the addresses."""

    def __init__(self, addresses, topic, partitions, count, each, has_session):
        def consumer(number):
            its = [(number * each + at) % partitions for at in range(each)]
            return Consumer(addresses[number % len(addresses)], topic, its, has_session)
        self.consumers = [consumer(number) for number in range(count)]
        self.tasks = []

    @property
    def records(self):
        for task in self.tasks:
            if task.done():
                task.result()
        return sum(consumer.records for consumer in self.consumers)

    async def start(self):
        for number, consumer in enumerate(self.consumers):
            self.tasks.append(asyncio.create_task(consumer.run()))
            if number % 100 == 99:
                await asyncio.sleep(0.1)

    async def leave(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def write(address, topic, partitions, stop):
    """Writes a record to each partition in turn, ten of them together some forty times a second."""
    connection = await Connection().open(address)
    at = 0
    while not stop.is_set():
        batch = protocol.batch([b"x" * 100], timestamp_ms=int(time.time() * 1_000))
        written = [struct.pack(">i", (at + number) % partitions) + blob(batch) for number in range(10)]
        at += 10
        answer = await connection.request(PRODUCE, 3, string(None) + struct.pack(">hi", -1, 10_000) + array([string(topic) + array(written)]))

        def partition():
            index, error = answer.i32(), answer.i16()
            answer.i64(), answer.i64()
            if error:
                raise RuntimeError(f"error {error} of partition {index}")
        answer.array(lambda: (answer.string(), answer.array(partition)))
        await asyncio.sleep(0.025)
    connection.writer.close()
