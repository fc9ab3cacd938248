"""Very many members of consumer groups, each on a connection of its own, which join, are given assignments and send heartbeats as
clients do; so that what they cost a server can be measured. At the wire, since ten thousand real clients would need a machine of their own."""

import asyncio
import struct
import time

from tests.protocol import Reader, string

JOIN, HEARTBEAT, SYNC = 11, 12, 14
REBALANCE_IN_PROGRESS, UNKNOWN_MEMBER, ILLEGAL_GENERATION = 27, 25, 22
HEARTBEAT_S = 3
TIMEOUT_MS = 60_000


def array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


def blob(data):
    return struct.pack(">i", len(data)) + data


class Member:
    """One member. `joined` is told each time that it has got its assignment."""

    def __init__(self, address, group):
        self.host, self.port = address.rsplit(":", 1)
        self.group = group
        self.id = ""
        self.generation = -1
        self.assigned_at = None
        self.heartbeats = 0
        self.correlation = 0

    async def run(self):
        self.reader, self.writer = await asyncio.open_connection(self.host, int(self.port))
        try:
            while True:
                await self.join()
                await self.stay()
        finally:
            self.writer.close()

    async def request(self, api, version, body):
        self.correlation += 1
        frame = struct.pack(">hhi", api, version, self.correlation) + string("members-load") + body
        self.writer.write(blob(frame))
        size = struct.unpack(">i", await self.reader.readexactly(4))[0]
        answer = Reader(await self.reader.readexactly(size))
        answer.i32()
        return answer

    async def join(self):
        """Joins until it has an assignment; its leader gives everybody an empty one."""
        while True:
            protocols = array([string("range") + blob(b"")])
            body = string(self.group) + struct.pack(">ii", TIMEOUT_MS, TIMEOUT_MS) + string(self.id) + string("consumer") + protocols
            answer = await self.request(JOIN, 3, body)
            answer.i32()
            error, generation = answer.i16(), answer.i32()
            answer.string()
            leader, own = answer.string(), answer.string()
            if error:
                self.id = "" if error == UNKNOWN_MEMBER else self.id
                await asyncio.sleep(0.1)
                continue
            self.id, self.generation = own, generation
            members = answer.array(lambda: (answer.string(), answer.bytes())) if leader == own else []
            assignments = array([string(member) + blob(b"") for member, _ in members])
            answer = await self.request(SYNC, 1, string(self.group) + struct.pack(">i", generation) + string(own) + assignments)
            answer.i32()
            if answer.i16() == 0:
                self.assigned_at = time.monotonic()
                return

    async def stay(self):
        """Sends heartbeats until the group changes."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            answer = await self.request(HEARTBEAT, 1, string(self.group) + struct.pack(">i", self.generation) + string(self.id))
            answer.i32()
            error = answer.i16()
            if error in (REBALANCE_IN_PROGRESS, UNKNOWN_MEMBER, ILLEGAL_GENERATION):
                self.id = "" if error == UNKNOWN_MEMBER else self.id
                return
            if error == 0:
                self.heartbeats += 1


class Crowd:
    """Members that run until the crowd is left."""

    def __init__(self):
        self.members, self.tasks = [], []

    async def add(self, addresses, group, count):
        """Starts members of a group, spread over the addresses, a hundred at a time."""
        for number in range(count):
            member = Member(addresses[number % len(addresses)], group)
            self.members.append(member)
            self.tasks.append(asyncio.create_task(member.run()))
            if number % 100 == 99:
                await asyncio.sleep(0.02)

    async def assigned_since(self, at, limit_s):
        """Waits until every member has got an assignment since then; how long that took, in seconds."""
        while any(member.assigned_at is None or member.assigned_at < at for member in self.members):
            for task in self.tasks:
                if task.done():
                    task.result()
            if time.monotonic() > at + limit_s:
                late = sum(member.assigned_at is None or member.assigned_at < at for member in self.members)
                raise AssertionError(f"{late} of {len(self.members)} members have no assignment after {limit_s} s")
            await asyncio.sleep(0.05)
        return max(member.assigned_at for member in self.members) - at

    async def leave(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
