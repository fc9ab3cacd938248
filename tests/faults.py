"""Faults against a cluster of real processes, three control nodes and three agents on an S3 server in memory, under load from real
idempotent clients; the checker judges what the clients were told.

    python -m tests.faults [--rows N,N] [--clients NAME,NAME] [--acknowledged N] [--seed N] [--history FILE] [--check COMMAND ...]

Each row is a row of the catalogue of faults (docs/faults.md); 65 is beyond it. A row waits until records are acknowledged, hurts the cluster, heals it, and waits
until records of each client library are acknowledged again. A row that injected nothing fails, and so does a run that acknowledged fewer
than --acknowledged. The libraries are all that tests/setup has installed, unless --clients names them.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import time
import urllib.request
import xml.etree.ElementTree

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from tests import ROOT, apache_kafka, cluster, control_faults, descriptors, judged, losses, memory_limit, orphans, patience, squeezed
from tests.harness import wait_until

S3_SERVER = pathlib.Path(os.environ.get("SEAWAY_S3_SERVER", ROOT / "target" / "release" / "s3-server"))
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "anyone", "AWS_SECRET_ACCESS_KEY": "anything"}
READY_S = 40
# A member's session in all client libraries.
SESSION_S = 6
# Each of two members finds its partitions taken, and others given.
MOVES_OF_A_REBALANCE = 4
# How long the catalogue gives the control nodes to find a new leader.
NEW_LEADER_S = 5
# An agent waits 15 s for its clients at most, and then ends within five.
DRAIN_S = 25


class Bucket:
    """The S3 server in memory, and the faults that it injects (crates/bench/src/s3/control.rs)."""

    def __init__(self, directory, put_delay_ms=20):
        self.port = apache_kafka.free_port()
        self.put_delay_ms = put_delay_ms
        self.log = directory / "s3.log"
        self.process = None

    @property
    def url(self):
        return f"s3://bucket/cluster?endpoint=http://127.0.0.1:{self.port}&region=us-east-1&allow_http=true"

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(S3_SERVER), "--listen", f"127.0.0.1:{self.port}", "--put-delay-ms", str(self.put_delay_ms), "--get-delay-ms", "10"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        wait_until(self.listens, 20, "the S3 server listens")

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def request(self, method, path, body=None):
        """Asks for something, with bytes or with what becomes JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", data=data, method=method)
        with urllib.request.urlopen(asked, timeout=patience.wall_s(10)) as answer:
            return answer.read()

    def requests(self):
        """How many requests of each kind have come so far."""
        return collections.Counter(json.loads(self.request("GET", "_control/stats"))["requests"])

    def injected(self):
        """How many requests were struck so far, without those that were only delayed by the server's own pace."""
        counts = json.loads(self.request("GET", "_control/stats"))["injected"]
        return sum(count for effect, count in counts.items() if effect != "delay")

    @contextlib.contextmanager
    def hurt(self, *rules):
        """Injects faults; yields how many requests were struck since."""
        before = self.injected()
        healthy = json.loads(self.request("GET", "_control"))
        self.request("POST", "_control", list(rules))
        try:
            yield lambda: self.injected() - before
        finally:
            self.request("PUT", "_control", healthy)

    def keys(self, prefix="", oldest_first=False):
        found, after = [], ""
        while True:
            page = self.request("GET", f"bucket?list-type=2&prefix={prefix}&start-after={after}")
            listed = [{field.tag.rsplit("}", 1)[-1]: field.text for field in entry} for entry in xml.etree.ElementTree.fromstring(page)]
            listed = [entry for entry in listed if "Key" in entry]
            found += listed
            if len(listed) < 1_000:
                break
            after = listed[-1]["Key"]
        if oldest_first:
            found.sort(key=lambda entry: entry["LastModified"])
        return [entry["Key"] for entry in found]

    def objects(self):
        """All that the bucket holds: {key: bytes}."""
        return {key: self.request("GET", f"bucket/{key}") for key in self.keys()}

    def put_all(self, objects):
        for key, content in objects.items():
            self.request("PUT", f"bucket/{key}", content)

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class HurtCluster(cluster.Cluster):
    """The cluster's processes and its bucket, as `judged.Judged` wants a server."""

    def __init__(self, directory, settings=None, **processes):
        directory.mkdir(parents=True)
        self.bucket = Bucket(directory)
        settings = {"group.initial.rebalance.delay.ms": 0, "journal.snapshot.entries": 200, "flush.requests.per.second": 0} | (settings or {})
        super().__init__(directory, settings, self.bucket.url, CREDENTIALS, **processes)

    def start(self):
        self.bucket.start()
        super().start()

    def stop(self):
        for process in self.agents + self.control:
            process.send(signal.SIGTERM)
        return all(process.process.wait(patience.wall_s(20)) == 0 for process in self.processes)

    def end(self):
        super().end()
        self.bucket.end()

    @property
    def logs(self):
        return [process.log for process in self.processes]

    def alive(self):
        return all(process.alive() for process in self.processes)

    def log_tail(self, lines=8):
        return "\n".join(
            f"{log.name}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) for log in self.logs
        )


ROWS = {}


def row(number, name):
    """Registers a row: a function of the test that hurts, heals, and gives how often it struck."""
    def register(function):
        ROWS[number] = (name, function)
        return function
    return register


class FaultsTest(judged.Judged):
    def __init__(self, options, directory):
        super().__init__(options, directory, HurtCluster(directory / "cluster"))
        self.report = []

    @property
    def cluster(self):
        return self.server

    def hurt(self):
        for number in self.options.rows or sorted(ROWS):
            name, inject = ROWS[number]
            self.await_acknowledgements()
            self.history.event("fault", f"{number} {name}")
            before, before_each, gap = self.history.acknowledged, self.history.acknowledged_by.copy(), judged.Gap(self.history)
            struck = inject(self)
            for process in self.cluster.processes:
                wait_until(process.ready, READY_S, f"{process.name} is ready after '{name}'")
            self.await_acknowledgements(30)
            gap.over.set()
            self.await_each_library()
            acknowledged, each = self.history.acknowledged - before, self.acknowledged_since(before_each)
            self.report.append((number, name, struck))
            print(f"  {number:>2} {name:<58} struck {struck:>6}, acknowledged {acknowledged:>6} ({each}), longest gap {gap.longest_s:5.2f} s", flush=True)
            if not struck:
                raise AssertionError(f"row {number} ({name}) injected nothing")
        while self.history.acknowledged < self.options.acknowledged:
            self.await_acknowledgements(100)

    def summary(self):
        return f"{len(self.report)} of {len(self.options.rows or ROWS)} rows"

    def under_load(self, seconds):
        """Lets the clients work on, whether they get on or not: for so long on the wall clock, since a fault lasts as long."""
        time.sleep(seconds)
        self.look_after_clients()

    def under_load_until(self, holds, limit_s, what):
        """Lets the clients work on until something has come about."""
        def look():
            self.look_after_clients()
            return holds()
        return wait_until(look, limit_s, what)

    def an_agent(self):
        """An agent to which clients are sent."""
        topic, partition = self.random.choice(judged.KEYS)
        admin = AdminClient({"bootstrap.servers": self.bootstrap})

        def find():
            try:
                told = admin.list_topics(topic, timeout=patience.wall_s(10))
            except KafkaException:  # the agent that it asked has just gone
                return None
            broker = told.brokers.get(told.topics[topic].partitions[partition].leader)
            return broker and next(agent for agent in self.cluster.agents if agent.port == broker.port)
        return wait_until(find, 20, f"an agent serves {topic}/{partition}")

    def another_leads(self, leader):
        """Whether a control node leads that is not this one."""
        others = [node for node in self.cluster.control if node is not leader]
        return any(node.status().get("journal", {}).get("role") == "Leader" for node in others)

    def kill(self, *processes):
        killed = [process for process in processes if process.kill()]
        self.under_load(1)
        for process in processes:
            process.start()
        return len(killed)

    def pause(self, process, seconds):
        process.send(signal.SIGSTOP)
        self.under_load(seconds)
        stood_still = process.stands_still()
        process.send(signal.SIGCONT)
        return int(stood_still)

    def fail_at(self, point, failure="kill"):
        """An agent ends at a point of a record's path; gives it before it is started again."""
        agent, count = self.an_agent(), self.random.randrange(1, 20)
        agent.kill()
        agent.start({"SEAWAY_FAILPOINTS": f"{point}={failure}@{count}"})
        wait_until(lambda: not agent.alive(), 60, f"{agent.name} ends at {point}")
        return agent

    def killed_at(self, point):
        agent = self.fail_at(point)
        killed = agent.was_killed()
        agent.start()
        return int(killed)

    def rebalances(self):
        """How often the members of each group have seen partitions given or taken."""
        return collections.Counter({
            group: sum(client.moves for client in self.clients if isinstance(client, judged.Member) and client.group == group)
            for group in self.groups()
        })

    def request_rates(self, seconds):
        """How many requests of each kind the bucket has a second while clients work on."""
        before, began = self.cluster.bucket.requests(), time.monotonic()
        self.under_load(seconds)
        took = time.monotonic() - began
        return {kind: round(count / took) for kind, count in (self.cluster.bucket.requests() - before).items()}

    def bucket_fails(self, seconds, *rules):
        with self.cluster.bucket.hurt(*rules) as struck:
            self.under_load(seconds)
            return struck()


@row(1, "an agent is killed")
def _(test):
    return test.kill(test.an_agent())


@row(2, "an agent is killed between upload and commit")
def _(test):
    killed = test.killed_at("after-put")
    return killed and killed + orphans.outlive_the_grace(test)


@row(3, "an agent is killed between commit and answer")
def _(test):
    return test.killed_at("after-commit")


@row(4, "all agents are killed")
def _(test):
    return test.kill(*test.cluster.agents)


@row(5, "the leader is killed")
def _(test):
    leader = test.cluster.leader()
    killed = leader.kill()
    test.under_load_until(lambda: test.another_leads(leader), NEW_LEADER_S, "another leads")
    leader.start()
    return int(killed)


@row(6, "the leader is killed in the middle of a snapshot, and of a trim")
def _(test):
    killed = control_faults.end_in_a_snapshot(test)
    return killed and killed + control_faults.end_in_a_trim(test)


@row(7, "an agent is paused for 1 s, for 10 s and for 60 s")
def _(test):
    paused = 0
    for seconds in (1, 10, 60):
        agent = test.an_agent()
        paused += test.pause(agent, seconds)
        wait_until(agent.ready, READY_S, f"{agent.name} serves again after a pause of {seconds} s")
    fenced = [node.name for node in test.cluster.control if "is not heard any more" in node.log.read_text(errors="replace")]
    if not fenced:
        raise AssertionError("nobody has fenced an agent that was away for a minute")
    return paused


@row(8, "the leader is paused until another leads, and goes on")
def _(test):
    leader = test.cluster.leader()
    leader.send(signal.SIGSTOP)
    wait_until(lambda: test.another_leads(leader), 40, "another leads")
    stood_still = leader.stands_still()
    leader.send(signal.SIGCONT)
    return int(stood_still)


@row(9, "an agent has little memory, and less until the system kills it")
def _(test):
    agent = test.an_agent()
    squeezed.wait_for_memory(test, agent)
    if memory_limit.place() is None:
        # It may map no more than it has: the first time that it needs more, it ends by itself.
        mapped = next(int(line.split()[1]) for line in pathlib.Path(f"/proc/{agent.process.pid}/status").read_text().splitlines() if line.startswith("VmData:"))
        resource.prlimit(agent.process.pid, resource.RLIMIT_DATA, (mapped << 10, mapped << 10))
        test.under_load_until(lambda: not agent.alive(), 60, f"{agent.name} has no memory left")
        agent.start()
        return 1
    with memory_limit.Limit("row-9", 2 << 20) as limit:
        limit.take(agent.process.pid)
        test.under_load_until(lambda: not agent.alive(), 60, f"{agent.name} is killed for want of memory")
        killed = limit.kills()
    agent.start()
    return killed


@row(10, "the leader gets 5 % of a processor")
def _(test):
    leader, slices = test.cluster.leader(), 0
    end = patience.now_s() + 6
    while patience.now_s() < end:
        leader.send(signal.SIGSTOP)
        time.sleep(0.095)
        leader.send(signal.SIGCONT)
        time.sleep(0.005)
        slices += 1
    return slices


@row(11, "an agent may open no more files, then none at all")
def _(test):
    agent = test.an_agent()
    refused = descriptors.refuse_new_ones(test, agent)
    waited = descriptors.let_new_ones_wait(test, agent)
    # Each has to have met its limit.
    return refused and waited and refused + waited


@row(12, "a task of an agent panics, and one of the leader")
def _(test):
    agent = test.fail_at("after-commit", "panic")
    control_faults.set_panic_aside(agent)
    agent.start()
    return 1 + control_faults.panic_in_a_snapshot(test)


@row(13, "all start while the bucket is away")
def _(test):
    with test.cluster.bucket.hurt({"effect": "reset"}) as struck:
        for process in test.cluster.processes:
            process.kill()
            process.start()
        test.under_load(4)
        ended = [process.name for process in test.cluster.processes if not process.alive()]
        ready = [process.name for process in test.cluster.processes if process.page("/readyz")[0] == 200]
        if ended or ready:
            raise AssertionError(f"without a bucket {ended} ended and {ready} are ready")
        return struck()


@row(14, "an agent ends again and again")
def _(test):
    agent, before = test.an_agent(), test.rebalances()
    killed = sum(test.kill(agent) for _ in range(5))
    # Who had been silent from the last end on would be out by then, and the others would be given its partitions.
    test.under_load(SESSION_S + 1)
    storms = {group: count for group, count in (test.rebalances() - before).items() if count > MOVES_OF_A_REBALANCE * killed}
    if storms:
        raise AssertionError(f"an agent ended {killed} times, and members saw partitions move so often: {storms}")
    return killed


@row(32, "the bucket answers half of all requests, then all, with SlowDown")
def _(test):
    usual, struck = test.request_rates(4), 0
    healthy = sum(usual.values())
    # Each process repeats ten requests a second at most (docs/buckets.md). Afterwards clients send what they could not.
    repeats = 10 * len(test.cluster.processes)
    rates = {}
    for seconds, share in ((4, 0.5), (2, 1.0)):
        with test.cluster.bucket.hurt({"effect": "slow_down", "share": share}) as strikes:
            rates[f"{share:.0%} refused"] = test.request_rates(seconds), 2 * healthy + repeats
            struck += strikes()
    rates["afterwards"] = test.request_rates(2), 3 * healthy + repeats
    storms = {when: f"{sum(rate.values())}, not {most}: {rate}" for when, (rate, most) in rates.items() if sum(rate.values()) > most}
    if storms:
        raise AssertionError(f"requests a second to the bucket, {healthy} when it is well ({usual}): {storms}")
    return struck


@row(33, "3 % of answers are seconds late, 1 % never come")
def _(test):
    late = {"effect": "delay", "ms": 3_000, "share": 0.03}
    return test.bucket_fails(8, late, {"effect": "silence", "share": 0.01})


@row(34, "writes take effect and their answers are lost")
def _(test):
    return test.bucket_fails(5, {"kind": "put", "effect": "lose_reply", "share": 0.3})


@row(35, "writes take effect 8 s later, and 40 s, when who sent them has given up")
def _(test):
    # An upload is given up after 30 s (`upload.timeout.ms`).
    struck = test.bucket_fails(5, {"kind": "put", "effect": "hold", "ms": 8_000, "share": 0.05})
    struck += test.bucket_fails(5, {"kind": "put", "prefix": "cluster/data/", "effect": "hold", "ms": 40_000, "share": 0.05})
    test.under_load(40)
    return struck


@row(36, "conditional writes meet conflicts, and errors although they took effect")
def _(test):
    lost = {"kind": "put", "effect": "lose_reply", "status": 500, "share": 0.2}
    return test.bucket_fails(5, {"kind": "put", "effect": "conflict", "share": 0.2}, lost)


@row(37, "bodies of reads break off, and those of successes are an error's")
def _(test):
    broken = test.bucket_fails(5, {"kind": "get", "effect": "truncate", "share": 0.3})
    return broken and broken + test.bucket_fails(5, {"kind": "get", "effect": "error_body", "share": 0.3})


@row(38, "bits of reads are flipped")
def _(test):
    return test.bucket_fails(5, {"kind": "get", "effect": "corrupt", "share": 0.02})


@row(39, "a file is lost, and put back later")
def _(test):
    return losses.lose_a_file(test)


@row(40, "listings are empty, and reads do not see what was written in the last half second")
def _(test):
    empty = test.bucket_fails(8, {"kind": "list", "effect": "missing", "share": 0.7})
    stale = {"effect": "stale", "ms": 500, "share": 0.3}
    return empty and empty + test.bucket_fails(8, *(stale | {"kind": kind} for kind in ("get", "head", "list")))


@row(41, "a bucket is wiped, or exchanged for another cluster's")
def _(test):
    return losses.lose_the_bucket(test)


@row(42, "the credentials have expired")
def _(test):
    return test.bucket_fails(3, {"effect": "forbidden"})


@row(43, "one object is never read")
def _(test):
    key = test.random.choice(test.cluster.bucket.keys("cluster/files/"))
    rule = {"kind": "get", "prefix": key, "effect": "fail", "status": 500}
    with test.cluster.bucket.hurt(rule) as struck:
        # Caches hold it as yet, and those who follow the ends need it no more.
        test.kill(*test.cluster.agents)
        reader = Consumer({"bootstrap.servers": test.bootstrap, "group.id": "from-the-beginning", "enable.auto.commit": False, "log_level": 0})
        reader.assign([TopicPartition(topic, partition, 0) for topic, partition in judged.KEYS])

        def reads_on():
            reader.consume(1_000, 0.1)
            return struck()
        wait_until(reads_on, 60, f"a reader from the beginning comes to {key}")
        reader.close()
        test.under_load(2)
        return struck()


@row(44, "nothing can be deleted, until all can be again")
def _(test):
    bucket = test.cluster.bucket
    prefixes = (control_faults.SLOTS, control_faults.SNAPSHOTS)
    before = {prefix: set(bucket.keys(prefix)) for prefix in prefixes}

    def since(prefix):
        return sorted(set(bucket.keys(prefix)) - before[prefix])

    with bucket.hurt({"kind": "delete", "effect": "slow_down"}) as struck:
        test.under_load_until(lambda: struck() and len(since(prefixes[1])) > 2, 120, "three snapshots are written, and something is deleted")
        # Once the two later ones are known to be whole, everything before the first is to go.
        oldest = control_faults.numbered(since(prefixes[1])[0])
        dead = {key for prefix in prefixes for key in since(prefix) if control_faults.numbered(key) < oldest}
        refused = struck()
    counts = [len(dead)]

    def are_gone():
        left = dead & {key for prefix in prefixes for key in bucket.keys(prefix)}
        counts.append(len(left))
        return not left
    test.under_load_until(are_gone, 60, "what could not be deleted is")
    if not counts[0] or counts != sorted(counts, reverse=True):
        raise AssertionError(f"of what was to be deleted there were one after the other {counts}")
    return refused


@row(65, "the bucket refuses the snapshots of the leader alone")
def _(test):
    return control_faults.refuse_snapshots_of_the_leader(test)


@row(58, "each process is told to end and started again, as in an upgrade")
def _(test):
    for process in test.cluster.processes:
        process.send(signal.SIGTERM)
        test.under_load_until(lambda: not process.alive(), DRAIN_S, f"{process.name} ends")
        if process.process.returncode != 0:
            raise AssertionError(f"{process.name} ended with {process.process.returncode} when it was told to")
        process.start()
        test.under_load_until(process.ready, READY_S, f"{process.name} is ready again")
        test.await_acknowledgements(30)
    return len(test.cluster.processes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=lambda text: [int(number) for number in text.split(",")], default=None, help="only these rows")
    parser.add_argument("--acknowledged", type=int, default=50_000, help="so many records are acknowledged at least")
    judged.arguments(parser, judged.installed())
    judged.judge(parser.parse_args(), FaultsTest)


if __name__ == "__main__":
    main()
