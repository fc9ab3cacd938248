"""Measures a cluster of processes, three control nodes and three agents on an S3 server in memory (PUT 20 ms, GET 10 ms), and prints each figure
beside its aim. It judges nothing: figures of a machine that others use as well are no test.

    python -m tests.figures [--only NAME,...] [--rounds N] [--kills N] [--limited]

With --limited the system gives each agent 512 MiB, so that the same figures can be compared with those of agents that have what they want.

    cpu         CPU time per GiB of all server processes, over that of `seaway dev`, in turn, without TLS
    acks        acknowledgements at 5 MiB/s of 16 KiB batches, without a budget of requests
    leader      the longest time without an acknowledged record when the leader is killed: librdkafka and Java, idempotent
    paused      the same when the leader is paused
    agent       the same when an agent is killed, in the partitions it led and in the others
    idle        memory for 10,000 connections that do nothing
    members     10,000 members in 100 groups: processor time of their heartbeats; and a rebalance of 1,000
    tails       1,000 readers at the tail of 10 partitions each, while records come: calls to control nodes, beside those of commits
    trickle     100 records a second and one, through one agent and over three: PUT/s at PUT 30 ms
    files       partitions in a file, while clients go where Metadata sends them
    limited     an agent that the system limits to 512 MiB, with a load of producers and readers and bad input at one time
    partitions  10,000 partitions: created, asked for, and a control node and an agent that start with them
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests import ROOT, apache_kafka, memory_limit, patience, protocol, roles, tail_readers
from tests import server as servers
from tests.faults import CREDENTIALS, Bucket
from tests.cluster import Cluster
from tests.harness import expect_equal, wait_until
from tests.members_load import Crowd

BENCH = pathlib.Path(os.environ.get("BENCH", ROOT / "target" / "release" / "bench"))
MIB = 1 << 20
LIMIT_BYTES = 512 * MIB
METADATA = 3
NO_BUDGET = {"flush.requests.per.second": 0}
# Bad input that any agent gets at any time; the others of tests/hostile.py want settings of their own.
HOSTILE = ["hostile_bodies_on_every_api_and_version", "frame_lengths_that_lie", "unfinished_frames_hold_no_memory_and_leave_no_trace",
           "answers_that_nobody_reads_are_bounded", "many_large_produces_in_flight_are_bounded"]
TAILS = 100  # partitions that are read at their tail
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
FIGURES = {}


def figure(function):
    FIGURES[function.__name__] = function
    return function


def tell(what, found, aim):
    print(f"| {what} | {found} | {aim} |", flush=True)


class Apart:
    """The processes of a cluster apart, and their bucket."""

    is_limited = False

    def __init__(self, directory, settings=None, is_encrypted=True, put_delay_ms=20):
        directory.mkdir(parents=True)
        self.bucket = Bucket(directory, put_delay_ms)
        settings = {"num.partitions": roles.PARTITIONS, "group.initial.rebalance.delay.ms": 0} | (settings or {})
        if self.is_limited:
            # Agents take their share of what the system gives them.
            settings.pop("memory.bytes", None)
        self.cluster = Cluster(directory, settings, self.bucket.url, CREDENTIALS)
        self.limits = []
        for agent in self.cluster.agents if self.is_limited else []:
            limit = memory_limit.Limit(f"{directory.name.replace(' ', '-')}-{agent.name}", LIMIT_BYTES)
            agent.command = limit.begins(agent.command)
            self.limits.append(limit)
        if not is_encrypted:
            for process in self.cluster.processes:
                at = process.command.index("--tls-dir")
                process.command[at:at + 2] = ["--plaintext-links"]

    def __enter__(self):
        self.bucket.start()
        self.cluster.start()
        return self

    def __exit__(self, *_):
        killed = sum(limit.kills() for limit in self.limits)
        self.cluster.end()
        self.bucket.end()
        for limit in self.limits:
            limit.__exit__()
        if killed:
            tell("agents that the system has ended for want of memory", killed, "none")

    @property
    def addresses(self):
        return [f"127.0.0.1:{agent.port}" for agent in self.cluster.agents]

    @property
    def pids(self):
        return [process.process.pid for process in self.cluster.processes]


class Alone:
    """One `seaway dev` on the same kind of bucket."""

    def __init__(self, directory, settings=None):
        directory.mkdir(parents=True)
        self.bucket = Bucket(directory)
        self.server = servers.Seaway(directory, settings, self.bucket.url)

    def __enter__(self):
        self.bucket.start()
        self.server.start(CREDENTIALS)
        return self

    def __exit__(self, *_):
        self.server.end()
        self.bucket.end()

    @property
    def addresses(self):
        return [self.server.bootstrap] * 3

    @property
    def pids(self):
        return [self.server.pid]


def cpu_s(pids):
    """Processor time of these processes so far."""
    def of(pid):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return sum(map(of, pids))


def resident_bytes(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def loads(under, seconds, *arguments, rates=(None, None, None)):
    """A load on each address at the same time, of so many MiB/s if that is said; what each printed."""
    def start(number, address, rate):
        command = [str(BENCH), "load", "--address", address, "--topic", f"load-{number}", "--partitions", "16", "--connections", "2", "--seconds", str(seconds)]
        command += ["--mib-per-second", str(rate)] if rate else []
        return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running = [start(number, address, rate) for number, (address, rate) in enumerate(zip(under.addresses, rates))]
    printed = []
    for process in running:
        out, errors = process.communicate(timeout=patience.wall_s(seconds + 60))
        if process.returncode:
            raise RuntimeError(f"a load failed: {errors}")
        printed.append(out)
    return printed


def number(text, pattern):
    return float(re.search(pattern, text).group(1))


def cpu_per_gib(under, seconds, *arguments):
    before = cpu_s(under.pids)
    texts = loads(under, seconds, *arguments)
    mib = sum(number(text, r"([\d.]+) MiB/s acknowledged") for text in texts) * seconds
    return (cpu_s(under.pids) - before) / (mib / 1024), mib / seconds


def measured_cpu(cluster, arguments):
    with cluster as under:
        cpu_per_gib(under, 6, *arguments)
        return cpu_per_gib(under, 4, *arguments)


@figure
def cpu(options):
    for what, arguments, aim in [("produce only", [], 1.15), ("three readers", ["--readers", "1"], 1.2)]:
        ratios, rates = [], []
        for number in range(options.rounds):
            # Anew each time: the bucket in memory keeps all that was written. Caches are as large in both, and full when it is
            # measured: a page that is used for the first time costs more than all that is done with it.
            settings = NO_BUDGET | {"memory.bytes": 1 << 30}
            apart = Apart(options.directory / f"apart {aim} {number}", settings, is_encrypted=False)
            alone = Alone(options.directory / f"alone {aim} {number}", settings)
            (one, rate), (other, other_rate) = (measured_cpu(under, arguments) for under in (apart, alone))
            ratios.append(one / other)
            rates.append((one, rate, other, other_rate))
        one, rate, other, other_rate = map(statistics.median, zip(*rates))
        tell(f"CPU-s/GiB, 1 MiB batches, {what}", f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f}; {one:.2f} at {rate:.0f} MiB/s, "
             f"dev {other:.2f} at {other_rate:.0f} MiB/s)", f"<= {aim} x")


@figure
def acks(options):
    with Apart(options.directory / "acks", NO_BUDGET) as apart:
        found = [[], []]
        for _ in range(options.rounds + 1):
            texts = loads(apart, 6, "--batch-bytes", "16384", rates=(2, 2, 1))
            for at, pattern in enumerate((r"p50 ([\d.]+)", r"p99 ([\d.]+)")):
                found[at].append(statistics.median(number(text, pattern) for text in texts))
    p50, p99 = (statistics.median(of[1:]) for of in found)
    tell("5 MiB/s of 16 KiB batches: ack p50 / p99", f"{p50:.0f} / {p99:.0f} ms", "<= 65 / 120 ms")


class JavaLoad:
    """Kafka's own verifiable producer, idempotent, which needs retries that the tool turns off; when each record was acknowledged."""

    def __init__(self, cluster, topic, directory):
        settings = directory / "producer.properties"
        settings.write_text("enable.idempotence=true\nretries=2147483647\nreconnect.backoff.ms=50\nreconnect.backoff.max.ms=200\nlinger.ms=2\n")
        command = apache_kafka.java_command(
            "org.apache.kafka.tools.VerifiableProducer", "--bootstrap-server", cluster.bootstrap, "--topic", topic, "--throughput", "200",
            "--acks", "-1", "--command-config", str(settings), heap="256m")
        self.acked, self.failed = [], []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()
        wait_until(lambda: len(self.acked) > 50, 60, "Java's records are acknowledged")

    def read(self):
        for line in self.process.stdout:
            told = json.loads(line)
            if told.get("name") == "producer_send_success":
                self.acked.append(time.monotonic())
            elif told.get("name") == "producer_send_error":
                self.failed.append(told)

    def longest_gap_s(self, since):
        times = [at for at in self.acked if at >= since - 1]
        return max((later - earlier for earlier, later in zip(times, times[1:])), default=float("inf"))

    def end(self):
        self.process.terminate()
        self.process.wait(patience.wall_s(30))


@contextlib.contextmanager
def two_clients(options, name):
    with Apart(options.directory / name) as apart:
        roles.create(apart.cluster, "orders")
        with roles.Load(apart.cluster, "orders") as load:
            java = JavaLoad(apart.cluster, "orders", options.directory / name)
            yield apart.cluster, load, java
            java.end()
        load.finish()
        if java.failed:
            raise AssertionError(f"Java's producer was told of errors: {java.failed[:3]}")


def middle_and_worst(gaps):
    return f"{statistics.median(gaps):.2f} / {max(gaps):.2f} s"


@figure
def leader(options):
    found = {"librdkafka": [], "Java": []}
    with two_clients(options, "leader") as (cluster, load, java):
        for _ in range(options.kills):
            node = cluster.leader()
            load.goes_on()
            at = time.monotonic()
            node.kill()
            load.goes_on()
            time.sleep(1)
            found["librdkafka"].append(load.longest_gap_s(at))
            found["Java"].append(java.longest_gap_s(at))
            node.start()
            wait_until(node.ready, 40, f"{node.name} is ready again")
    for client, gaps in found.items():
        tell(f"leader killed {len(gaps)} times: longest gap, {client}, median / worst", middle_and_worst(gaps), "<= 1.0 / 2.0 s")


@figure
def paused(options):
    gaps = []
    with two_clients(options, "paused") as (cluster, load, java):
        for _ in range(max(3, options.kills // 4)):
            node = cluster.leader()
            load.goes_on()
            at = time.monotonic()
            node.send(signal.SIGSTOP)
            load.goes_on()
            time.sleep(1)
            gaps.append(max(load.longest_gap_s(at), java.longest_gap_s(at)))
            node.send(signal.SIGCONT)
            load.goes_on()
    tell(f"leader paused {len(gaps)} times: longest gap of both clients, median / worst", middle_and_worst(gaps), "<= 3 s")


@figure
def agent(options):
    its, others = [], []
    with two_clients(options, "agent") as (cluster, load, java):
        for _ in range(max(3, options.kills // 4)):
            load.goes_on()
            killed, _ = roles.busiest(cluster, "orders")
            led = led_by(cluster, killed)
            at = time.monotonic()
            killed.kill()
            load.goes_on()
            time.sleep(1)
            gaps = [gap_in(load, partition, at) for partition in range(roles.PARTITIONS)]
            its.append(max(gap for partition, gap in enumerate(gaps) if partition in led))
            others.append(max([gap for partition, gap in enumerate(gaps) if partition not in led], default=0))
            killed.start()
            wait_until(killed.ready, 40, f"{killed.name} is ready again")
            admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
            wait_until(lambda: roles.broker_count(admin) == 3, 20, "clients are sent to it again")
    tell(f"agent killed {len(its)} times: longest gap in its partitions, median / worst", middle_and_worst(its), "<= 1 s")
    tell("the same in the others' partitions", middle_and_worst(others), "none: a flush and a PUT, some 0.1 s")


def led_by(cluster, agent):
    told = AdminClient({"bootstrap.servers": cluster.bootstrap}).list_topics("orders", timeout=patience.wall_s(10))
    partitions = told.topics["orders"].partitions
    return {number for number, partition in partitions.items() if told.brokers[partition.leader].port == agent.port}


def gap_in(load, partition, since):
    times = sorted(at for at, _, of, _ in load.acked if of == partition and at >= since - 1)
    return max((later - earlier for earlier, later in zip(times, times[1:])), default=0)


def connections_max(wanted):
    """So many connections as this process may have, at most as many as are wanted."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return min(wanted, most - 1_000)


@figure
def idle(options):
    count = connections_max(10_000)
    with Apart(options.directory / "idle") as apart:
        agent = apart.cluster.agents[0]
        before = resident_bytes(agent.process.pid)
        connections = []
        for _ in range(count):
            connection = protocol.Connection(f"127.0.0.1:{agent.port}", 30)
            protocol.api_versions(connection)
            connections.append(connection)
        time.sleep(2)
        grown = resident_bytes(agent.process.pid) - before
        for connection in connections:
            connection.close()
    tell(f"{count} idle connections on one agent", f"{grown / MIB:.0f} MiB more, {grown / count / 1024:.1f} KiB each", "< 500 MiB for 10,000")


@figure
def members(options):
    with Apart(options.directory / "members", {"group.initial.rebalance.delay.ms": 3_000}) as apart:
        asyncio.run(many_members(apart))


async def many_members(apart):
    measured_s, groups = 20, 100
    each = connections_max(10_000) // groups
    before = cpu_s(apart.pids)
    await asyncio.sleep(measured_s)
    idle = cpu_s(apart.pids) - before
    crowd, at = Crowd(), time.monotonic()
    for group in range(groups):
        await crowd.add(apart.addresses, f"group-{group}", each)
    took = await crowd.assigned_since(at, 180)
    await asyncio.sleep(5)
    before, beats = cpu_s(apart.pids), sum(member.heartbeats for member in crowd.members)
    await asyncio.sleep(measured_s)
    spent, beats = cpu_s(apart.pids) - before, sum(member.heartbeats for member in crowd.members) - beats
    await crowd.leave()
    share = (spent - idle) / measured_s
    tell(f"{groups * each} members in {groups} groups: heartbeats ({beats / measured_s:.0f}/s)",
         f"{share * 100:.1f} % of a core, beside {idle / measured_s * 100:.1f} % of all processes without members", "< 10 %")
    tell("the same: from the first to the last assignment", f"{took:.1f} s", "")
    crowd = Crowd()
    at = time.monotonic()
    await crowd.add(apart.addresses, "large", 1_000)
    await crowd.assigned_since(at, 60)
    at = time.monotonic()
    await crowd.add(apart.addresses, "large", 1)
    took = await crowd.assigned_since(at, 60)
    await crowd.leave()
    tell("a group of 1,000 and one more member: until all have their assignments, heartbeats each 3 s", f"{took:.1f} s", "<= 5 s")


@figure
def partitions(options):
    with Apart(options.directory / "partitions") as apart:
        admin = AdminClient({"bootstrap.servers": apart.addresses[0], "log_level": 0})
        at = time.monotonic()
        for future in admin.create_topics([NewTopic(f"wide-{number}", 1_000, 1) for number in range(10)]).values():
            future.result(patience.wall_s(60))
        created = time.monotonic() - at
        asked = metadata_s(apart.addresses[0])
        ready = {}
        for process in (apart.cluster.agents[1], apart.cluster.leader()):
            process.kill()
            at = time.monotonic()
            process.start()
            wait_until(process.ready, 60, f"{process.name} is ready", interval_s=0.01)
            ready[process.name.split("-")[0]] = time.monotonic() - at
    tell("10,000 partitions: created", f"{created:.2f} s", "<= 5 s")
    tell("Metadata of all, median / worst of 50", f"{statistics.median(asked) * 1_000:.0f} / {max(asked) * 1_000:.0f} ms", "<= 50 ms")
    tell("a start to ready: agent / control node", f"{ready['agent']:.1f} / {ready['control']:.1f} s", "<= 3 s")


def counted(agents, name):
    """The sum of a counter of agents."""
    def of(agent):
        return sum(int(line.split()[1]) for line in agent.page("/metrics")[1].splitlines() if line.startswith(f"seaway_agent_{name} "))
    return sum(map(of, agents))


@figure
def tails(options):
    with Apart(options.directory / "tails") as apart:
        admin = AdminClient({"bootstrap.servers": apart.addresses[0], "log_level": 0})
        admin.create_topics([NewTopic("tail", TAILS, 1)])["tail"].result(patience.wall_s(30))
        asyncio.run(many_tails(apart, True))
        asyncio.run(many_tails(apart, False))


async def many_tails(apart, has_session):
    measured_s, readers = 15, connections_max(1_000)
    stop = asyncio.Event()
    crowd = tail_readers.Crowd(apart.addresses, "tail", TAILS, readers, 10, has_session)
    writing = asyncio.create_task(tail_readers.write(apart.addresses[0], "tail", TAILS, stop))
    await crowd.start()
    await asyncio.sleep(5)
    names = ["control_calls_total", "commit_calls_total", "fetch_requests_total"]
    before, read = [counted(apart.cluster.agents, name) for name in names], crowd.records
    await asyncio.sleep(measured_s)
    calls, commits, fetches = (counted(apart.cluster.agents, name) - was for name, was in zip(names, before))
    read = crowd.records - read
    stop.set()
    await writing
    await crowd.leave()
    if not read:
        raise RuntimeError("the readers were given nothing")
    how = "in fetch sessions (Java, franz-go)" if has_session else "without sessions (librdkafka, kafkajs)"
    tell(f"{readers} tail readers of 10 partitions each, {how}, {fetches / measured_s:.0f} fetches/s, {read / measured_s:.0f} records/s: calls to control nodes beside commits",
         f"{(calls - commits) / measured_s:.1f}/s, {(calls - commits) / fetches:.4f} per fetch", "none per fetch")


@figure
def trickle(options):
    with Apart(options.directory / "trickle", put_delay_ms=30) as apart:
        for agents, aim in ((apart.addresses[:1], "<= 8 PUT/s, ack p50 <= 220 ms"), (apart.addresses, "<= 24 PUT/s")):
            named = [word for address in agents for word in ("--agent", address)]
            command = [str(BENCH), "trickle", *named, "--s3", f"127.0.0.1:{apart.bucket.port}"]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=patience.wall_s(300)).stdout
            rows = [[word.strip() for word in line.split("|")[1:-1]] for line in out.splitlines()[2:]]
            for rate, puts, _, dollars, p50, p99 in rows:
                what = f"a trickle of {rate} records/s over {len(agents)} agents, PUT 30 ms: PUT/s, dollars a month, ack p50 / p99"
                tell(what, f"{puts}, {dollars}, {p50} / {p99} ms", aim if rate != "1" else "two PUTs + 10 ms")


@figure
def files(options):
    wide, seconds = 60, 15
    with Apart(options.directory / "files", NO_BUDGET) as apart:
        admin = AdminClient({"bootstrap.servers": apart.addresses[0], "log_level": 0})
        admin.create_topics([NewTopic("wide", wide, 1)])["wide"].result(patience.wall_s(30))
        producer = Producer({"bootstrap.servers": apart.cluster.bootstrap, "linger.ms": 5})
        end = time.monotonic() + seconds
        for number in itertools.count():
            if time.monotonic() > end:
                break
            producer.produce("wide", bytes(1_000), partition=number % wide)
            producer.poll(0.001)
        expect_equal(producer.flush(patience.wall_s(30)), 0, "records without an answer")
        counts = [[counted([agent], f"file_partitions_{what}") for what in ("sum", "count")] for agent in apart.cluster.agents]
    per_file = ", ".join(f"{partitions / max(1, files):.0f}" for partitions, files in counts)
    tell(f"{wide} partitions written through 3 agents by way of Metadata: partitions in a file, for each agent", per_file, "a third of them")


@figure
def limited(options):
    if memory_limit.place() is None:
        return tell("an agent limited to 512 MiB", "this machine lets nobody make a cgroup", "")
    apart = Apart(options.directory / "limited", NO_BUDGET)
    agent = apart.cluster.agents[0]
    with memory_limit.Limit("limited", LIMIT_BYTES) as limit:
        agent.command = limit.begins(agent.command)
        with apart:
            share = next(line.split()[1] for line in agent.page("/metrics")[1].splitlines() if line.startswith("seaway_memory_max_bytes "))
            loads(apart, 4, "--readers", "1")
            rates = [number(text, r"([\d.]+) MiB/s acknowledged") for text in loads(apart, 8, "--readers", "1")]
            hostile = subprocess.Popen(
                [sys.executable, "-m", "tests.hostile", "--rss-growth-mib", "512", *HOSTILE], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env=os.environ | {"BOOTSTRAP": f"127.0.0.1:{agent.port}", "SERVER_PID": str(agent.process.pid), "CHECK_TIMEOUT_S": "240"},
            )
            meanwhile = []
            while hostile.poll() is None:
                meanwhile.append([number(text, r"([\d.]+) MiB/s acknowledged") for text in loads(apart, 8, "--readers", "1")])
            printed = hostile.communicate()[0]
            lives, kills = agent.alive(), limit.kills()
            most = limit.most_bytes()
    failed = [line for line in printed.splitlines() if "FAILED" in line]
    tell(f"an agent limited to 512 MiB, memory.bytes {int(float(share)) / MIB:.0f} MiB: producers and a reader, alone / beside bad input",
         f"{rates[0]:.0f} / {statistics.mean(row[0] for row in meanwhile):.0f} MiB/s acknowledged; at most {most / MIB:.0f} MiB with the kernel's; killed {kills} times"
         + ("" if lives else "; ENDED") + f"; of {len(HOSTILE)} kinds of bad input failed: {len(failed)}", "never killed")
    for line in failed:
        print(f"    {line}", flush=True)


def metadata_s(address):
    """How long Metadata of all topics takes at the wire, many times."""
    every_topic = (-1).to_bytes(4, "big", signed=True) + b"\0"
    asked = []
    with protocol.Connection(address, 30) as connection:
        for _ in range(50):
            at = time.monotonic()
            answer = connection.request(METADATA, 4, every_topic)
            asked.append(time.monotonic() - at)
            if len(answer.data) < 10_000 * 20:
                raise AssertionError("Metadata does not show all partitions")
    return asked


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(FIGURES))
    parser.add_argument("--rounds", type=int, default=5, help="pairs of loads")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--limited", action="store_true", help="each agent has 512 MiB")
    options = parser.parse_args()
    unknown = set(options.only) - set(FIGURES)
    if unknown:
        parser.error(f"there is no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    if options.limited and memory_limit.place() is None:
        parser.error("--limited: this machine lets nobody make a cgroup")
    Apart.is_limited = options.limited
    options.directory = pathlib.Path(tempfile.mkdtemp(prefix="seaway-figures-"))
    print("| what | figure | aim |\n|---|---|---|", flush=True)
    for name in options.only:
        FIGURES[name](options)
    shutil.rmtree(options.directory, ignore_errors=True)


if __name__ == "__main__":
    main()
