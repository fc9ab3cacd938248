"""The table of docs/failures.md against a cluster over three regions of real processes: every row's parts are lost at once, and writes and reads
go on or not as the row says; once all are back, everything goes on by itself, and no record that was acknowledged is gone.

    python -m tests.failures [ROW ...]     the first cells of rows; without any, all of them
"""

import pathlib
import sys
import tempfile
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests import patience, regions
from tests.harness import expect, expect_equal, wait_until
from tests.judged_librdkafka import CONNECTIONS

TABLE = pathlib.Path(__file__).parent.parent / "docs" / "failures.md"
TOPIC, PARTITIONS = "kept", 3
# Who writes or reads waits so long, after which it counts as refused. The longest pause that docs/failures.md allows is half of that.
PATIENCE_S = 12
# All serves again by itself within this time.
HEALED_S = 60

# What is lost, by the first cell of the table. L is the region that leads; M and N are the others.
LOST = {
    "an agent": ["M agent"],
    "every agent of a region": ["L agent"],
    "every agent of two regions": ["L agent", "M agent"],
    "every agent": ["L agent", "M agent", "N agent"],
    "a control node that follows": ["M control"],
    "the control node that leads": ["L control"],
    "every control node of two regions": ["L control", "M control"],
    "every control node": ["L control", "M control", "N control"],
    "the bucket of the region that leads": ["L bucket"],
    "the bucket of another region": ["M bucket"],
    "two buckets": ["L bucket", "M bucket"],
    "every bucket": ["L bucket", "M bucket", "N bucket"],
    "the region that leads": ["L"],
    "another region": ["M"],
    "a region's processes and the bucket of another": ["L agent", "L control", "M bucket"],
    "a region and the bucket of another": ["M", "N bucket"],
    "a region, and the agents of another": ["L", "M agent"],
    "a region, and the control nodes of another": ["L", "M control"],
    "two regions": ["L", "M"],
    "every region": ["L", "M", "N"],
}


def promised():
    """{first cell: (whether writes go on, whether reads do)} by the table."""
    rows = {}
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 5 and cells[0] in LOST:
            rows[cells[0]] = tuple(cell.startswith("go on") for cell in cells[1:3])
    expect_equal(sorted(rows), sorted(LOST), "rows of the table, and those that this test knows")
    return rows


class Clients:
    """A producer and readers with the addresses of all agents, and what was acknowledged to the producer."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.acknowledged = {}
        self.sent = 0
        self.producer = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 5, "message.timeout.ms": 300_000,
            "socket.timeout.ms": 5_000, "retry.backoff.ms": 50, "retry.backoff.max.ms": 300} | CONNECTIONS)

    def create_topic(self):
        admin = AdminClient({"bootstrap.servers": self.bootstrap} | CONNECTIONS)
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(30)

    def write(self, count):
        """Sends so many records, and does not wait."""
        for _ in range(count):
            value, partition = b"%d" % self.sent, self.sent % PARTITIONS
            self.sent += 1

            def told(error, message, value=value):
                if error is None:
                    self.acknowledged[value] = (message.partition(), message.offset())

            self.producer.produce(TOPIC, value, partition=partition, on_delivery=told)

    def are_acknowledged(self, within_s):
        """Whether all that was sent is acknowledged by then."""
        until = patience.now_s() + within_s
        while len(self.acknowledged) < self.sent and patience.now_s() < until:
            self.producer.poll(0.05)
        return len(self.acknowledged) == self.sent

    def read(self, within_s):
        """What a new reader finds from the beginning until it has all that was acknowledged: {value: (partition, offset)}."""
        wanted, found = set(self.acknowledged), {}
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "failures", "enable.auto.commit": False} | CONNECTIONS)
        consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
        until = patience.now_s() + within_s
        try:
            while wanted - set(found) and patience.now_s() < until:
                message = consumer.poll(0.2)
                if message is not None and message.error() is None:
                    expect(message.value() not in found, f"{message.value()} is there twice")
                    found[message.value()] = (message.partition(), message.offset())
        except KafkaException as failure:
            print(f"    a reader: {failure}", flush=True)
        finally:
            consumer.close()
        return found

    def can_read(self, within_s=PATIENCE_S):
        """Whether a new reader finds all that was acknowledged, where it was; what it finds is never anything else."""
        found = self.read(within_s)
        for value, place in found.items():
            expect(self.acknowledged.get(value, place) == place, f"{value} was acknowledged at {self.acknowledged.get(value)} and is at {place}")
        return set(self.acknowledged) <= set(found)


class Hand:
    """Takes parts away, and gives them back."""

    def __init__(self, server):
        self.server = server
        leads = server.leaders()[0]
        others = [name for name in server.agents if name != leads]
        self.names = dict(zip("LMN", [leads, *others]))

    def switch(self, region):
        return self.server.data / "nodes" / "away" / region

    def named(self, parts):
        """(region, what of it) of each part; of a whole region, nothing."""
        for part in parts:
            letter, _, what = part.partition(" ")
            yield self.names[letter], what

    def take(self, parts):
        for region, what in self.named(parts):
            if what == "bucket":
                self.switch(region).touch()
            elif what:
                self.server.node("kill", f"{region}-{what}-1")
            else:
                self.server.region("kill", region)

    def give_back(self, parts):
        for region, what in self.named(parts):
            if what == "bucket":
                self.switch(region).unlink()
            elif what:
                self.server.node("start", f"{region}-{what}-1")
            else:
                self.server.region("restore", region)


def are_shown(server, hand, parts):
    """Whether `seaway region list` tells what is lost, as far as a control node is left to tell it."""
    told = server.list()
    if all(region["bucket"] == "?" for region in told.values()):
        return True
    for name, what in hand.named(parts):
        region = told[name]
        is_told = {
            "bucket": region["bucket"] != "ok",
            "": region["bucket"] != "ok" and region["running"] == 0,
        }.get(what, region["running"] < region["processes"])
        if not is_told:
            return False
    return True


def walk(server, clients, row):
    """Whether writes, and reads, go on while the parts of a row are lost."""
    wait_until(lambda: server.is_well(), HEALED_S, "all is well before")
    hand, parts = Hand(server), LOST[row]
    began = time.monotonic()
    hand.take(parts)
    # What was under way when the parts were lost has come by then.
    time.sleep(0.5)
    clients.write(10)
    writes = clients.are_acknowledged(PATIENCE_S)
    written_s = time.monotonic() - began
    reads = clients.can_read()
    wait_until(lambda: are_shown(server, hand, parts), 20, "what is lost is shown")
    shown = {name: (region["bucket"], region["running"], region["leads"]) for name, region in server.list().items()}
    hand.give_back(parts)
    healed = time.monotonic()
    expect(clients.are_acknowledged(HEALED_S), f"records are not acknowledged {HEALED_S} s after all is back")
    wait_until(lambda: server.is_well(), HEALED_S, "all is well again")
    expect(clients.can_read(HEALED_S), "a record that was acknowledged is not found after all is back")
    print(f"  {row}: writes {writes} ({written_s:.1f} s), reads {reads}, well again after {time.monotonic() - healed:.1f} s; seen: {shown}", flush=True)
    return writes, reads


def main():
    rows = promised()
    chosen = sys.argv[1:] or list(rows)
    with tempfile.TemporaryDirectory(prefix="seaway-failures-") as directory:
        server = regions.Regions(pathlib.Path(directory) / "server", "")
        server.start()
        flawed = []
        try:
            wait_until(lambda: server.is_well(), HEALED_S, "all is well")
            clients = Clients(",".join(server.agents.values()))
            clients.create_topic()
            clients.write(100)
            expect(clients.are_acknowledged(30), "records are acknowledged while all is well")
            for row in chosen:
                found = walk(server, clients, row)
                if found != rows[row]:
                    flawed.append(f"{row}: (writes, reads) {found}, by the table {rows[row]}")
            expect(server.stop(), "an orderly stop")
        except BaseException:
            print(server.log_tail())
            raise
        finally:
            server.kill()
    print("\n".join(flawed) or f"{len(chosen)} rows of the table hold; {clients.sent} records were sent and all found")
    sys.exit(bool(flawed))


if __name__ == "__main__":
    main()
