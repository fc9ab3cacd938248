"""Control nodes and agents as processes of their own: python -m tests.roles [CHECK ...]. Who leads is killed and paused under load, agents
are killed, clients are sent to those of their zone, a process of another cluster or without a certificate is refused."""

import collections
import pathlib
import shutil
import signal
import subprocess
import struct
import tempfile
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests import patience, protocol
from tests import server as servers
from tests.cluster import ZONES, Cluster, Process, certs, issue
from tests.faults import CREDENTIALS, Bucket
from tests.harness import Suite, expect, expect_equal, wait_until
from tests.process import checks_of, seaway
from tests.relay import Relay

suite = Suite("roles", own_servers=True)
# A client that loses its agent looks for another soon.
CLIENT = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 200, "topic.metadata.refresh.fast.interval.ms": 100}
PARTITIONS = 6
SETTINGS = {"num.partitions": PARTITIONS, "group.initial.rebalance.delay.ms": 0, "flush.interval.ms": 20}


class RelayedCluster(Cluster):
    """The same, with a relay in front of each control node."""

    def __init__(self, directory, settings):
        super().__init__(directory, settings)
        for node in self.control:
            node.relay = Relay(node.port)
            node.command += ["--advertise", f"127.0.0.1:{node.relay.port}"]


class FarBucketCluster(Cluster):
    """The same on an S3 server, which each agent reaches by way of a relay."""

    def __init__(self, directory, settings):
        self.bucket = Bucket(directory)
        super().__init__(directory, settings, self.bucket.url, CREDENTIALS)
        for agent in self.agents:
            agent.relay = Relay(self.bucket.port)
            agent.command = [part.replace(f"127.0.0.1:{self.bucket.port}", f"127.0.0.1:{agent.relay.port}") for part in agent.command]

    def start(self):
        self.bucket.start()
        super().start()

    def end(self):
        super().end()
        self.bucket.end()


def on_cluster(function, kind=Cluster):
    """A check that is given a cluster that has started; logs are kept if it fails."""
    def run():
        directory = pathlib.Path(tempfile.mkdtemp(prefix="seaway-roles-"))
        cluster = kind(directory, SETTINGS)
        try:
            cluster.start()
            function(cluster)
            for process in cluster.processes:
                expect_equal(servers.panics(process.log), [], f"panics of {process.name}")
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            cluster.end()
    run.__name__ = function.__name__
    return run


def check(function):
    """Registers a check that is given a cluster."""
    return suite.check(on_cluster(function))


def check_relayed(function):
    """Registers a check that is given a cluster with relays."""
    return suite.check(on_cluster(function, RelayedCluster))


def check_far_bucket(function):
    """Registers a check that is given a cluster with a relay between an agent and the bucket."""
    return suite.check(on_cluster(function, FarBucketCluster))


def create(cluster, topic, replicas=1):
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    for future in admin.create_topics([NewTopic(topic, PARTITIONS, replicas)]).values():
        future.result(patience.wall_s(20))


class Load:
    """An idempotent producer that sends a record to every partition in turn, and when each was acknowledged."""

    def __init__(self, cluster, topic, bootstrap=None):
        self.topic = topic
        self.producer = Producer({
            "bootstrap.servers": bootstrap or cluster.bootstrap, "enable.idempotence": True, "linger.ms": 2, "message.timeout.ms": 120_000,
        } | CLIENT)
        self.acked = []
        self.failed = []
        self.sent = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        wait_until(lambda: len(self.acked) > 50, 40, "records are acknowledged")
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(patience.wall_s(10))

    def run(self):
        while not self.stopping.is_set():
            value, partition = self.sent, self.sent % PARTITIONS
            self.producer.produce(self.topic, str(value).encode(), partition=partition, on_delivery=self.told)
            self.sent += 1
            self.producer.poll(0.005)

    def told(self, error, message):
        if error:
            self.failed.append(str(error))
        else:
            self.acked.append((time.monotonic(), int(message.value()), message.partition(), message.offset()))

    def goes_on(self, count=8):
        """Waits until records of every partition are acknowledged that were sent from now on."""
        at = self.sent

        def later():
            counts = collections.Counter(partition for _, value, partition, _ in self.acked[-3000:] if value >= at)
            return all(counts[partition] >= count for partition in range(PARTITIONS))
        wait_until(later, 60, "records of every partition are acknowledged again")

    def finish(self):
        self.__exit__()
        expect_equal(self.producer.flush(patience.wall_s(30)), 0, "records without an answer")
        expect_equal(self.failed, [], "records that failed")

    def longest_gap_s(self, since):
        """The longest time without an acknowledged record, in the partition that had the longest."""
        def gap(partition):
            times = sorted(at for at, _, of, _ in self.acked if of == partition and at >= since - 1)
            return max((later - earlier for earlier, later in zip(times, times[1:])), default=0)
        return max(map(gap, range(PARTITIONS)))


def broker_count(admin):
    """How many brokers clients are told of; `None` if the client has to ask again, since the agent that it asked has just gone."""
    try:
        return len(admin.list_topics(timeout=patience.wall_s(10)).brokers)
    except KafkaException:
        return None


def bounds(consumer, at):
    """(low, high) of a partition; `None` if the client has to ask again, since the agent that it asked has just gone."""
    try:
        return consumer.get_watermark_offsets(at, timeout=patience.wall_s(10))
    except KafkaException:
        return None


def read_all(cluster, topic, bootstrap=None, **settings):
    """Every record of a topic, by partition: [(offset, value)]."""
    own = {name.replace("_", "."): value for name, value in settings.items()}
    consumer = Consumer({"bootstrap.servers": bootstrap or cluster.bootstrap, "group.id": "reader", "enable.auto.commit": False} | CLIENT | own)
    found = {}
    for partition in range(PARTITIONS):
        at = TopicPartition(topic, partition)
        low, high = wait_until(lambda: bounds(consumer, at), 60, f"the bounds of partition {partition}")
        found[partition] = []
        if low == high:
            continue
        consumer.assign([TopicPartition(topic, partition, low)])
        while not found[partition] or found[partition][-1][0] < high - 1:
            message = consumer.poll(patience.wall_s(20))
            expect(message is not None and not message.error(), f"partition {partition} of {topic} is read up to {high}: {message and message.error()}")
            found[partition].append((message.offset(), int(message.value())))
    consumer.close()
    return found


def nothing_lost(cluster, load):
    """What was acknowledged is where it was said to be, once, and each partition holds the order in which it was sent."""
    found = read_all(cluster, load.topic)
    for partition, records in found.items():
        values = [value for _, value in records]
        expect_equal(values, sorted(set(values)), f"order and uniqueness in partition {partition}")
    at = {(partition, offset): value for partition, records in found.items() for offset, value in records}
    wrong = [(value, partition, offset) for _, value, partition, offset in load.acked if at.get((partition, offset)) != value]
    expect_equal(wrong, [], "acknowledged records that are not where they were said to be")
    expect(len(load.acked) > 100, f"only {len(load.acked)} records were acknowledged")


@check
def three_control_nodes_and_three_agents_are_one_cluster(cluster):
    create(cluster, "orders")
    brokers = AdminClient({"bootstrap.servers": cluster.bootstrap}).list_topics(timeout=patience.wall_s(10)).brokers
    expect_equal(sorted(broker.port for broker in brokers.values()), sorted(agent.port for agent in cluster.agents), "the brokers that clients are told of")
    with Load(cluster, "orders") as load:
        load.goes_on()
    load.finish()
    nothing_lost(cluster, load)
    for agent in cluster.agents:
        found = read_all(cluster, "orders", bootstrap=f"127.0.0.1:{agent.port}")
        expect_equal(sum(map(len, found.values())), load.sent, f"records by way of {agent.name}")
    followers = [node for node in cluster.control if node is not cluster.leader()]
    expect_equal([node.status()["journal"]["role"] for node in followers], ["Follower"] * 2, "what the others do")


@check
def a_second_agent_of_a_name_is_refused_while_the_first_is_there(cluster):
    first, elsewhere = cluster.agents[0], cluster.directory / "elsewhere"
    elsewhere.mkdir()
    second = Process(elsewhere, "agent", first.name, ["--bucket", str(cluster.directory / "bucket"), "--tls-dir", str(cluster.certificates)])
    create(cluster, "orders")
    with Load(cluster, "orders") as load:
        second.start()
        wait_until(lambda: not second.alive(), 20, "the second ends")
        expect(f"an agent named {first.name} runs already, at 127.0.0.1:{first.port}: stop it" in second.log.read_text(), second.log.read_text())
        load.goes_on()
        # It takes the place of one that was killed at once.
        first.kill()
        second.start()
        wait_until(second.ready, 20, "the second is ready once the first is gone")
        second.kill()
    load.finish()
    nothing_lost(cluster, load)
    first.start()
    wait_until(first.ready, 20, "the first is ready again")


@check
def a_second_control_node_of_a_name_is_refused_while_the_first_answers(cluster):
    first, elsewhere = cluster.control[0], cluster.directory / "elsewhere"
    elsewhere.mkdir()
    second = Process(elsewhere, "control", first.name, ["--bucket", str(cluster.directory / "bucket"), "--tls-dir", str(cluster.certificates)])
    second.start()
    wait_until(lambda: not second.alive(), 20, "the second ends")
    expect(f"a control node named {first.name} runs already, at 127.0.0.1:{first.port}: stop it" in second.log.read_text(), second.log.read_text())
    first.kill()
    second.start()
    wait_until(second.ready, 20, "the second is ready once the first is gone")
    second.kill()


def beside(cluster, role, name, *flags, port=None):
    """Another process of this name in the same cluster, in a directory of its own."""
    elsewhere = cluster.directory / f"beside-{name}-{len(list(cluster.directory.iterdir()))}"
    elsewhere.mkdir()
    certificates = [] if "--tls-dir" in flags or "--plaintext-links" in flags else ["--tls-dir", str(cluster.certificates)]
    process = Process(elsewhere, role, name, ["--bucket", str(cluster.directory / "bucket"), *certificates, *flags])
    if port:
        process.command[process.command.index("--listen" if role == "control" else "--kafka") + 1] = f"127.0.0.1:{port}"
    return process


@check
def a_second_agent_that_advertises_the_same_address_is_refused_while_the_first_is_there(cluster):
    # As two are that listen everywhere on two machines, or are behind one load balancer.
    advertised = "--set=advertised.listeners=PLAINTEXT://127.0.0.1:29531"
    issue(cluster.certificates, "agent", "twin")
    first, second = (beside(cluster, "agent", "twin", advertised) for _ in range(2))
    try:
        first.start()
        wait_until(first.ready, 40, "the first is ready")
        second.start()
        wait_until(lambda: not second.alive(), 20, "the second ends")
        says(second, "an agent named twin runs already", "give this one another name with --name")
        patience.sleep(2)
        expect("its incarnation is fenced" not in first.log.read_text(), first.log.read_text())
        expect_equal(first.page("/readyz")[0], 200, "whether the first goes on")
        # One that was killed is no obstacle, though the next is at the same address.
        first.kill()
        begun = time.monotonic()
        second.start()
        wait_until(second.ready, 20, "the second is ready once the first is gone")
        print(f"  an agent that takes the place of one that was killed is ready after {time.monotonic() - begun:.2f} s", flush=True)
    finally:
        first.kill()
        second.kill()


def one_is_left(processes, name):
    """Waits until one of the processes has ended and said why; the one that is left, still running a while later."""
    wait_until(lambda: sum(process.alive() for process in processes) == 1, 30, "one of the two ends")
    left, ended = sorted(processes, key=Process.alive, reverse=True)
    says(ended, f"a control node named {name} runs already, at 127.0.0.1:", "give this one another name with --name")
    wait_until(left.ready, 20, "the other goes on")
    patience.sleep(3)
    expect(left.alive(), "the other goes on: " + left.log.read_text())
    return left


@check
def of_two_control_nodes_of_a_name_that_start_at_one_moment_one_goes_on(cluster):
    issue(cluster.certificates, "control", "twin")
    for _ in range(3):
        twins = [beside(cluster, "control", "twin") for _ in range(2)]
        try:
            for twin in twins:
                twin.start()
            left = one_is_left(twins, "twin")
            told = [node["address"] for node in cluster.leader().status()["nodes"] if node["name"] == "twin"]
            expect_equal(told, [f"127.0.0.1:{left.port}"], "where it is said to be")
        finally:
            for twin in twins:
                twin.kill()


@check
def a_control_node_that_was_paused_ends_if_another_has_its_name_by_then(cluster):
    issue(cluster.certificates, "control", "twin")
    first, second = (beside(cluster, "control", "twin") for _ in range(2))
    try:
        first.start()
        wait_until(first.ready, 40, "the first is ready")
        registered = lambda port: any(node.get("address") == f"127.0.0.1:{port}" for node in cluster.leader().status()["nodes"])
        wait_until(lambda: registered(first.port), 20, "the first is registered")
        first.send(signal.SIGSTOP)
        second.start()
        wait_until(lambda: second.ready() and registered(second.port), 40, "the second takes the place of one that does not answer")
        first.send(signal.SIGCONT)
        left = one_is_left([first, second], "twin")
        expect_equal(left.port, second.port, "which goes on")
    finally:
        first.kill()
        second.kill()


@check
def of_two_control_nodes_of_a_name_and_an_address_one_goes_on(cluster):
    issue(cluster.certificates, "control", "twin")
    # Connections to what both advertise get to the first that is there, as with an address that is moved by hand.
    first = beside(cluster, "control", "twin")
    relay = Relay(first.port)
    advertised = ["--advertise", f"127.0.0.1:{relay.port}"]
    first.command += advertised
    second = beside(cluster, "control", "twin", *advertised)
    try:
        first.start()
        wait_until(first.ready, 40, "the first is ready")
        second.start()
        expect_equal(one_is_left([first, second], "twin").port, first.port, "which goes on")
    finally:
        first.kill()
        second.kill()


@check
def another_control_node_takes_over_when_the_leader_is_killed(cluster):
    create(cluster, "orders")
    gaps = []
    with Load(cluster, "orders") as load:
        for _ in range(3):
            leader = cluster.leader()
            load.goes_on()
            killed_at = time.monotonic()
            leader.kill()
            load.goes_on()
            gaps.append(load.longest_gap_s(killed_at))
            leader.start()
            wait_until(leader.ready, 40, f"{leader.name} is ready again")
    load.finish()
    nothing_lost(cluster, load)
    print("  longest time without an acknowledged record after the leader was killed: " + ", ".join(f"{gap:.2f} s" for gap in gaps), flush=True)


@check
def who_takes_over_from_a_leader_that_was_killed_stays_the_leader(cluster):
    """Agents that do nothing but say that they are there find the new leader too, by themselves."""
    for _ in range(2):
        killed = cluster.leader()
        killed.kill()
        left = [node for node in cluster.control if node is not killed]
        cluster.leader()
        patience.sleep(4)
        leader, passed_on = cluster.leader(), sum(map(relayed_calls, left))
        patience.sleep(3)
        expect_equal(cluster.leader().name, leader.name, "who leads some seconds later")
        expect_equal(sum(map(relayed_calls, left)), passed_on, "calls that were passed on to the new leader")
        killed.start()
        wait_until(killed.ready, 40, f"{killed.name} is ready again")
    given_up = [node.name for node in cluster.control if "no agent reaches this control node" in node.log.read_text(errors="replace")]
    expect_equal(given_up, [], "control nodes that gave up the lead as if no agent reached them")


@check
def another_control_node_takes_over_when_the_leader_is_paused(cluster):
    create(cluster, "orders")
    with Load(cluster, "orders") as load:
        leader = cluster.leader()
        paused_at = time.monotonic()
        leader.send(signal.SIGSTOP)
        load.goes_on()
        gap = load.longest_gap_s(paused_at)
        leader.send(signal.SIGCONT)
        load.goes_on()
    load.finish()
    nothing_lost(cluster, load)
    print(f"  longest time without an acknowledged record after the leader was paused: {gap:.2f} s", flush=True)


@check_relayed
def another_control_node_takes_over_when_nobody_reaches_the_leader(cluster):
    create(cluster, "orders")
    with Load(cluster, "orders") as load:
        leader = cluster.leader()
        load.goes_on()
        cut_at = time.monotonic()
        # It goes on to append, and reaches everybody.
        leader.relay.passes.clear()
        load.goes_on()
        gap = load.longest_gap_s(cut_at)
        says(leader, "no agent reaches this control node")
        fenced = [node.name for node in cluster.control if "is not heard any more" in node.log.read_text(errors="replace")]
        expect_equal(fenced, [], "control nodes that have fenced agents which are there")
        leader.relay.passes.set()
        load.goes_on()
    load.finish()
    nothing_lost(cluster, load)
    print(f"  longest time without an acknowledged record after the leader was cut off: {gap:.2f} s", flush=True)


def relayed_calls(node):
    lines = node.page("/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("seaway_control_relayed_calls_total "))


@check_relayed
def an_agent_that_does_not_reach_the_leader_goes_on_through_another_control_node(cluster):
    create(cluster, "orders")
    leader, agent = cluster.leader(), cluster.agents[0]
    own = f"127.0.0.1:{agent.port}"
    others = [node for node in cluster.control if node is not leader]
    # Each agent leads a third of the partitions, or so; those of one are to go on without another's help.
    with Load(cluster, "orders") as load:
        load.goes_on()
        cut_at = time.monotonic()
        leader.relay.cut_off(agent.process.pid)
        load.goes_on()
        gap = load.longest_gap_s(cut_at)
        wait_until(lambda: sum(map(relayed_calls, others)) > 0, 20, "control nodes say that they pass calls on")
        expect_equal(cluster.leader().name, leader.name, "who leads")
        expect_equal(broker_count(AdminClient({"bootstrap.servers": own})), 3, "agents that clients are told of by the one that is cut off")
        consumer = Consumer({"bootstrap.servers": own, "group.id": "cut", "enable.auto.commit": False} | CLIENT)
        at = TopicPartition("orders", 0, 7)
        consumer.commit(offsets=[at], asynchronous=False)
        expect_equal(consumer.committed([at], timeout=patience.wall_s(10))[0].offset, 7, "the offset that was committed")
        consumer.close()
        patience.sleep(12)  # longer than an agent may be silent
        load.goes_on()
        expect_equal([node.name for node in cluster.control if "is not heard any more" in node.log.read_text(errors="replace")], [], "control nodes that have fenced the agent")
        leader.relay.cut_off(None)
        load.goes_on()
    load.finish()
    nothing_lost(cluster, load)
    print(f"  longest time without an acknowledged record after an agent was cut off from the leader: {gap:.2f} s", flush=True)


def leaders(cluster, topic):
    """The ports of the agents to which clients are sent for a topic; `None` if the client has to ask again."""
    try:
        told = AdminClient({"bootstrap.servers": cluster.bootstrap}).list_topics(topic, timeout=patience.wall_s(10))
    except KafkaException:
        return None
    return {told.brokers[partition.leader].port for partition in told.topics[topic].partitions.values()}


@check_far_bucket
def clients_go_on_at_others_while_their_agent_does_not_reach_the_bucket(cluster):
    create(cluster, "orders")
    far, _ = busiest(cluster, "orders")
    everyone = leaders(cluster, "orders")
    expect(len(everyone) > 1, "more than one agent serves the topic")
    with Load(cluster, "orders") as load:
        load.goes_on()
        cut_at = time.monotonic()
        # What was asked of the bucket and what will be has no answer, as when packets are dropped.
        far.relay.passes.clear()
        load.goes_on()
        gap = load.longest_gap_s(cut_at)
        expect(far.port not in leaders(cluster, "orders"), "clients are sent to others meanwhile")
        expect_equal(broker_count(AdminClient({"bootstrap.servers": f"127.0.0.1:{far.port}"})), 3, "agents that the one that is cut off tells of")
        says(far, "this agent reaches too few buckets")
        expect(gap < patience.wall_s(12), f"clients waited {gap:.1f} s")
        back_at = time.monotonic()
        far.relay.passes.set()
        wait_until(lambda: leaders(cluster, "orders") == everyone, 40, "clients are sent to it again")
        load.goes_on()
        back = load.longest_gap_s(back_at)
    load.finish()
    nothing_lost(cluster, load)
    moves = [line for node in cluster.control for line in node.log.read_text(errors="replace").splitlines() if "reaches too few buckets" in line or "told to clients again" in line]
    expect_equal(len(moves), 1 + 1, f"times that clients were sent elsewhere and back: {moves}")
    print(f"  longest time without an acknowledged record after an agent was cut off from the bucket: {gap:.2f} s; once it was back: {back:.2f} s", flush=True)


def busiest(cluster, topic):
    """The agent to which clients are sent for the most partitions, and another one."""
    told = AdminClient({"bootstrap.servers": cluster.bootstrap}).list_topics(topic, timeout=patience.wall_s(10))
    led = collections.Counter(told.brokers[partition.leader].port for partition in told.topics[topic].partitions.values())
    port = led.most_common(1)[0][0]
    return next(agent for agent in cluster.agents if agent.port == port), next(agent for agent in cluster.agents if agent.port != port)


@check
def clients_go_on_at_another_agent_when_theirs_is_killed(cluster):
    create(cluster, "orders")
    with Load(cluster, "orders") as load:
        load.goes_on()
        agent, other = busiest(cluster, "orders")
        killed_at = time.monotonic()
        agent.kill()
        load.goes_on()
        gap = load.longest_gap_s(killed_at)
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{other.port}"})
        wait_until(lambda: broker_count(admin) == 2, 20, "clients are not sent to the agent that was killed")
        agent.start()
        wait_until(agent.ready, 40, "the agent is ready again")
        wait_until(lambda: broker_count(admin) == 3, 20, "clients are sent to it again")
        load.goes_on()
    load.finish()
    nothing_lost(cluster, load)
    print(f"  longest time without an acknowledged record in a partition after its agent was killed: {gap:.2f} s", flush=True)


@check
def an_agent_that_was_paused_is_fenced_and_comes_back(cluster):
    create(cluster, "orders")
    admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{cluster.agents[0].port}"})

    with Load(cluster, "orders") as load:
        cluster.agents[2].send(signal.SIGSTOP)
        wait_until(lambda: broker_count(admin) == 2, 60, "an agent that is not heard is fenced")
        cluster.agents[2].send(signal.SIGCONT)
        wait_until(lambda: broker_count(admin) == 3, 30, "it registers again")
        load.goes_on()
    load.finish()
    nothing_lost(cluster, load)


def commit_body(group, offset):
    """An OffsetCommit (version 2) of a client that is no member, for partition 0 of `orders`."""
    entry = struct.pack(">iq", 0, offset) + protocol.string(None)
    body = protocol.string(group) + struct.pack(">i", -1) + protocol.string("") + struct.pack(">q", -1)
    return body + protocol.array([protocol.string("orders") + protocol.array([entry])])


def commit(address, group, offset):
    """Commits once the agent takes it."""
    def done():
        with protocol.Connection(address, timeout_s=patience.wall_s(10)) as connection:
            answer = connection.request(8, 2, commit_body(group, offset))
        answer.i32(), answer.string(), answer.i32(), answer.i32()
        return answer.i16() == 0
    wait_until(done, 20, f"offset {offset} of {group} is committed")


@check
def offsets_that_a_paused_agent_holds_do_not_replace_what_was_committed_meanwhile(cluster):
    create(cluster, "orders")
    paused, other = (f"127.0.0.1:{agent.port}" for agent in cluster.agents[:2])
    # For less time than it takes to be fenced, and for more.
    for seconds in (4, 14):
        groups = [f"held-{seconds}-{number}" for number in range(20)]
        for group in groups:
            commit(paused, group, 50)
        connections = [protocol.Connection(paused, timeout_s=60) for _ in groups]
        cluster.agents[0].send(signal.SIGSTOP)
        for group, connection in zip(groups, connections):
            frame = struct.pack(">hhi", 8, 2, 1) + protocol.string("held") + commit_body(group, 100)
            connection.send_raw(struct.pack(">i", len(frame)) + frame)
            connection.close()
        patience.sleep(seconds)
        for group in groups:
            commit(other, group, 120)
        cluster.agents[0].send(signal.SIGCONT)
        wait_until(cluster.agents[0].ready, 40, "the agent is ready again")
        patience.sleep(3)
        consumers = (Consumer({"bootstrap.servers": other, "group.id": group}) for group in groups)
        found = [consumer.committed([TopicPartition("orders", 0)], timeout=patience.wall_s(10))[0].offset for consumer in consumers]
        expect_equal(found, [120] * len(groups), f"committed offsets after a pause of {seconds} s")
        says(cluster.agents[0], "this agent stood still")
        counts = cluster.agents[0].page("/metrics")[1]
        expect("seaway_agent_requests_malformed_total 0\n" in counts, "no client is said to have sent what is malformed")
        expect("seaway_agent_requests_stale_total 0\n" not in counts, "what is stale is counted")


@check
def clients_are_sent_to_the_agent_of_their_zone(cluster):
    create(cluster, "orders", replicas=3)
    of_zone = dict(zip(ZONES, cluster.agents))
    all_ports = sorted(agent.port for agent in cluster.agents)

    def told(client_id):
        """Of each partition: the port of the agent to which a client that calls itself so is sent, and those of the replicas."""
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "client.id": client_id})
        try:
            listed = admin.list_topics("orders", timeout=patience.wall_s(10))
        except KafkaException:
            return None
        port = {broker.id: broker.port for broker in listed.brokers.values()}
        partitions = listed.topics["orders"].partitions.values()
        return [(port.get(one.leader), sorted(port[id] for id in one.replicas), sorted(port[id] for id in one.isrs)) for one in partitions]

    for zone, agent in of_zone.items():
        wait_until(lambda: told(f"app,zone={zone}") == [(agent.port, all_ports, all_ports)] * PARTITIONS, 20, f"clients of {zone} are sent to {agent.name}")
    expect_equal(told("app"), told("zone=of-nobody"), "where clients are sent whose zone no agent is in")
    with Load(cluster, "orders") as load:
        load.goes_on()
    load.finish()
    # The first agents that a consumer is told of are not those of its rack: Fetch sends it on.
    found = read_all(cluster, "orders", client_rack="b")
    expect_equal(sum(map(len, found.values())), load.sent, "records for a reader whose client.rack is b")
    served = {zone for zone, agent in of_zone.items() if agent.status()["agent"]["fetch_bytes"] > 0}
    expect_equal(served, {"b"}, "zones whose agents served it")
    told_by_status = {node["name"]: node["zone"] for node in cluster.leader().status()["nodes"]}
    expect_equal(told_by_status, {process.name: zone for kind in (cluster.control, cluster.agents) for zone, process in zip(ZONES, kind)}, "zones in the status")


@check
def agents_of_one_zone_read_for_each_other(cluster):
    beside = cluster.process("agent", len(cluster.agents), "a")
    cluster.agents.append(beside)
    beside.start()
    wait_until(beside.ready, 40, f"{beside.name} is ready")
    create(cluster, "orders")
    with Load(cluster, "orders") as load:
        load.goes_on()
    load.finish()
    found = read_all(cluster, "orders", client_id="zone=a")
    expect_equal(sum(map(len, found.values())), load.sent, "records for a reader of zone a")

    def counted(agent, name):
        lines = agent.page("/metrics")[1].splitlines()
        return int(next(line for line in lines if line.startswith(name + " ")).rsplit(" ", 1)[1])

    of_zone = [cluster.agents[0], beside]
    given, had = 0, 0
    for agent in of_zone:
        expect_equal(counted(agent, "seaway_agent_neighbour_failed_total"), 0, f"parts that {agent.name} was not given")
        given += counted(agent, "seaway_agent_neighbour_given_bytes_total")
        had += agent.status()["agent"]["loaded_bytes_neighbour"]
    expect(had > 0, "no part came from a neighbour")
    expect(given >= had, f"{given} bytes were given, and {had} came")


@check
def a_process_of_another_cluster_is_refused(cluster):
    elsewhere = Process(cluster.directory, "agent", "stranger", [
        "--bucket", str(cluster.directory / "other-bucket"), "--control", f"127.0.0.1:{cluster.control[0].port}",
        *issue(cluster.certificates, "agent", "stranger"),
    ])
    other = Process(cluster.directory, "control", "other", [
        "--bucket", str(cluster.directory / "other-bucket"), *issue(cluster.certificates, "control", "other"),
    ])
    other.start()
    try:
        wait_until(other.ready, 40, "the other cluster's control node is ready")
        other.kill()
        elsewhere.start()
        told = "belongs to cluster"
        wait_until(lambda: told in elsewhere.log.read_text(errors="replace"), 30, "the agent says that the control node is another cluster's")
        expect(elsewhere.page("/readyz")[0] != 200, "it does not serve")
    finally:
        other.kill()
        elsewhere.kill()


def says(process, *parts):
    """Waits until a line of the log has these parts."""
    def said():
        lines = process.log.read_text(errors="replace").splitlines()
        return any(all(part in line for part in parts) for line in lines)
    wait_until(said, 30, f"{process.name} says {parts}")


@check
def who_has_no_certificate_of_the_cluster_is_refused_and_told_what_to_do(cluster):
    elsewhere = cluster.directory / "other-certs"
    certs("init", "--dir", elsewhere)
    bucket = ["--bucket", str(cluster.directory / "bucket")]
    agents = {
        "other-ca": issue(elsewhere, "agent", "other-ca"),
        "plaintext": ["--plaintext-links"],
    }
    agents = {name: Process(cluster.directory, "agent", name, bucket + flags) for name, flags in agents.items()}
    unnamed = Process(cluster.directory, "agent", "unnamed", bucket)
    try:
        for agent in [*agents.values(), unnamed]:
            agent.start()
        says(agents["other-ca"], "its certificate is of another CA", "issue all from the CA of the cluster")
        # It asks them one after the other, and each says a line in ten seconds.
        wait_until(lambda: any("speaks no TLS" in node.log.read_text(errors="replace") for node in cluster.control), 30, "a control node says who speaks no TLS")
        wait_until(lambda: not unnamed.alive(), 30, "an agent without certificates ends")
        says(unnamed, "seaway certs init", "--tls-dir DIR", "--plaintext-links")
        for agent in agents.values():
            expect(agent.page("/readyz")[0] != 200, f"{agent.name} does not serve")
    finally:
        for agent in [*agents.values(), unnamed]:
            agent.kill()


@check
def a_control_node_that_the_others_do_not_believe_ends_and_never_leads(cluster):
    elsewhere = cluster.directory / "other-certs"
    certs("init", "--dir", elsewhere)
    issue(elsewhere, "control", "foreign")
    leader = cluster.leader().name
    strangers = {
        "is of another CA": beside(cluster, "control", "foreign", "--tls-dir", str(elsewhere)),
        "says nothing to a process without certificates": beside(cluster, "control", "open", "--plaintext-links"),
    }
    try:
        for stranger in strangers.values():
            stranger.start()
        patience.sleep(4)
        expect_equal([stranger.page("/readyz")[0] == 200 for stranger in strangers.values()], [False, False], "which of them is ready")
        for why, stranger in strangers.items():
            wait_until(lambda: not stranger.alive(), 30, f"{stranger.name} ends")
            says(stranger, "the control nodes of this cluster that answer do not let this one in", why)
            expect("Leader" not in stranger.log.read_text(), stranger.log.read_text())
        expect_equal(cluster.leader().name, leader, "who leads")
        expect_equal({node["name"] for node in cluster.leader().status()["nodes"]}, {process.name for process in cluster.processes}, "who has registered")
    finally:
        for stranger in strangers.values():
            stranger.kill()


@check
def certificates_that_are_issued_again_are_taken_by_processes_that_run(cluster):
    create(cluster, "orders")
    with Load(cluster, "orders") as load:
        for role, processes in [("control", cluster.control), ("agent", cluster.agents)]:
            for process in processes:
                issue(cluster.certificates, role, process.name, "--force", "--days", 50)
        for process in cluster.processes:
            wait_until(lambda: process.status().get("certificate", {}).get("days_left") in (49, 50), 30, f"{process.name} shows its new certificate")
        # Connections are made anew by them.
        cluster.leader().kill()
        load.goes_on()
    load.finish()


@checks_of(suite)
def a_process_of_dev_is_started_again_or_it_is_said_why_not(directory):
    program = directory / "seaway"
    shutil.copy(servers.SEAWAY, program)
    server = seaway(directory / "one")
    command = [str(program), *server.command()[1:], "--agents", "1", "--control", "1"]
    server.command = lambda: command
    server.start()
    wait_until(lambda: (server.data / "endpoints.json").exists(), 30, "all processes are ready")

    def node(*arguments):
        command = [str(servers.SEAWAY), "node", *arguments, "--data-dir", str(server.data)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience.wall_s(20))
        return done.returncode, done.stdout + done.stderr

    def refused(part):
        code, said = node("start", "control-1")
        expect_equal(code, 1, f"exit code of a start that is refused: {said}")
        expect(part in said, f"{part} in {said}")

    def killed():
        expect_equal(node("kill", "control-1")[0], 0, "exit code of kill")
        wait_until(lambda: "ended" in node("list")[1], 20, "the process has ended")
    refused("control-1 runs already, as process ")
    killed()
    program.unlink()
    refused(f"cannot start control-1 by {program}: No such file or directory")
    # As an upgrade leaves it.
    shutil.copy(servers.SEAWAY, program)
    code, said = node("start", "control-1")
    expect_equal((code, said.strip()), (0, "control-1 is started"), "a start by what is in the program's place")
    wait_until(lambda: "ended" not in node("list")[1], 20, "it runs")
    expect(server.stop(), "an orderly stop")


def shown(node):
    """What a control node's status shows of each process, by name."""
    return {row["name"]: row for row in node.status().get("nodes", [])}


def waits_for_status(nodes, found, what):
    """Waits until the status of each of these control nodes is as it should be."""
    for node in nodes:
        try:
            wait_until(lambda: found(node, shown(node)), 10, f"{node.name} shows {what}")
        except AssertionError as failure:
            raise AssertionError(f"{failure}; it shows {node.page('/status')[1]}") from None


@check
def status_shows_builds_lag_and_who_is_not_heard(cluster):
    """By the node that leads and by those that follow; what a node cannot know it does not say."""
    names = {process.name for process in cluster.processes}
    version = subprocess.run([str(servers.SEAWAY), "--version"], check=True, capture_output=True, text=True, timeout=patience.wall_s(20)).stdout.split()[1]
    leader = cluster.leader()
    killed, other = [node for node in cluster.control if node is not leader]

    def all_are_here(node, rows):
        told = node.status().get("leader", {})
        return set(rows) == names and told.get("name") == leader.name and told["heard_s_ago"] < 3 and all(
            row["heard"] and row["heard_s_ago"] < 3 and row["version"] == version and row.get("behind_entries", 0) == 0 for row in rows.values())
    waits_for_status(cluster.control, all_are_here, "that all are there, and nobody is behind")
    expect(f'seaway_build_info{{version="{version}"}} 1' in leader.page("/metrics")[1], "the version in the metrics")
    expect("\nseaway_journal_behind_entries 0\n" in other.page("/metrics")[1], "how far a node is behind in its metrics")

    agent = cluster.agents[0]
    for process in (killed, agent):
        process.kill()

    def one_is_silent(node, rows):
        gone = {row["name"]: row for row in node.status().get("gone", [])}
        row = rows.get(killed.name, {})
        is_gone = agent.name in gone and agent.name not in rows and gone[agent.name]["gone_s_ago"] < 20 and not gone[agent.name]["ended_in_order"]
        return is_gone and row.get("heard") is False and row["heard_s_ago"] >= 3 and row["behind_entries"] is None and row["version"] == version
    waits_for_status((leader, other), one_is_silent, f"that {killed.name} is not heard and {agent.name} is gone")
    for node in (leader, other):
        text = node.page("/status")[1]
        line = next(line for line in text.splitlines() if line.startswith(f"  {killed.name} "))
        expect("NOT HEARD for " in line, f"the line of the node that was killed: {line}")
        expect(f"  {agent.name}  agent, zone {ZONES[0]}, was not heard any more, and was fenced " in text, f"the line of the agent that was killed: {text}")
    silent = next(line for line in leader.page("/metrics")[1].splitlines() if line.startswith(f'seaway_node_silent_ms{{node="{killed.name}",role="control"}}'))
    expect(int(silent.split()[1]) >= 3_000, f"the metric of the node that was killed: {silent}")
    for process in (killed, agent):
        process.start()
    waits_for_status(cluster.control, all_are_here, "that all are there again")


@check
def status_is_answered_at_once_while_the_leader_is_paused(cluster):
    leader = cluster.leader()
    others = [node for node in cluster.control if node is not leader]
    hears = lambda node, _: node.status().get("leader", {}).get("name") == leader.name
    waits_for_status(others, hears, "who leads")
    create(cluster, "t")
    with Load(cluster, "t") as load:
        leader.send(signal.SIGSTOP)
        try:
            slowest = 0
            end = patience.now_s() + 6
            while patience.now_s() < end:
                begun = time.monotonic()
                told = [node.status()["leader"] for node in others]
                slowest = max(slowest, time.monotonic() - begun)
                for one in told:
                    # To a tenth of a second.
                    expect(one["name"] is None or one["heard_s_ago"] <= 3, f"a leader that is not heard is not said to lead: {one}")
                time.sleep(0.05)
            expect(slowest < patience.wall_s(2), f"status was answered within {slowest:.2f} s")
            names = [node.name for node in others]
            waits_for_status(others, lambda node, _: node.status().get("leader", {}).get("name") in names, "that another leads")
            silent = lambda _, rows: rows.get(leader.name, {}).get("heard") is False and not rows[leader.name]["leads"]
            waits_for_status(others, silent, f"that {leader.name}, which led, is not heard")
        finally:
            leader.send(signal.SIGCONT)
        here = lambda _, rows: rows.get(leader.name, {}).get("heard") is True
        waits_for_status(cluster.control, here, f"that {leader.name} is there again")
        load.goes_on()
    load.finish()
    nothing_lost(cluster, load)


if __name__ == "__main__":
    suite.main()
