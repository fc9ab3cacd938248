"""Processes that end on purpose: python -m tests.drain [CHECK ...]. Agents send their clients to others, the control node that leads hands
the lead over: while each process of a cluster is ended by SIGTERM and started again, clients notice nothing but a moment's delay."""

import signal
import subprocess
import threading
import time

from confluent_kafka import Consumer

from tests import patience
from tests.harness import Suite, expect, expect_equal, wait_until
from tests.roles import CLIENT, PARTITIONS, Load, create, nothing_lost, on_cluster

suite = Suite("drain", own_servers=True)
# An agent waits 15 s for its clients at most, and then ends within five.
END_LIMIT_S = 25
# Of members that die.
SESSION_S = 15


class Member:
    """A consumer of a group that commits by itself: what it was given, in how many assignments, and what went wrong."""

    def __init__(self, cluster, topic, group, settings=None):
        self.consumer = Consumer({
            "bootstrap.servers": cluster.bootstrap, "group.id": group, "auto.offset.reset": "earliest", "auto.commit.interval.ms": 300,
        } | CLIENT | (settings or {}))
        self.values = []
        self.errors = []
        self.assigned = []
        self.stopping = threading.Event()
        self.consumer.subscribe([topic], on_assign=lambda _, partitions: self.assigned.append(len(partitions)))
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.is_set():
            message = self.consumer.poll(0.1)
            if message is None:
                continue
            if message.error():
                self.errors.append(str(message.error()))
            else:
                self.values.append(int(message.value()))
        self.consumer.close()

    def stop(self):
        self.stopping.set()
        self.thread.join(patience.wall_s(20))


def restart(process, load):
    """Ends a process by SIGTERM and starts it again; the longest time without an acknowledged record in a partition meanwhile."""
    load.goes_on()
    begun = time.monotonic()
    process.send(signal.SIGTERM)
    wait_until(lambda: not process.alive(), END_LIMIT_S, f"{process.name} ends")
    took = time.monotonic() - begun
    expect_equal(process.process.returncode, 0, f"exit code of {process.name}")
    load.goes_on()
    gap = load.longest_gap_s(begun)
    process.start()
    wait_until(process.ready, 40, f"{process.name} is ready again")
    load.goes_on()
    return gap, took


def shown(restarts):
    return ", ".join(f"{gap:.2f} s (it took {took:.1f} s)" for gap, took in restarts)


@suite.check
@on_cluster
def clients_go_on_while_each_process_is_ended_and_started_again(cluster):
    create(cluster, "orders")
    members = [Member(cluster, "orders", "readers") for _ in range(2)]
    wait_until(lambda: [member.assigned[-1:] for member in members] == [[PARTITIONS // 2]] * 2, 40, "the group is balanced")
    assigned = [list(member.assigned) for member in members]
    with Load(cluster, "orders") as load:
        agents = [restart(agent, load) for agent in cluster.agents]
        leader = cluster.leader()
        handed_over = [restart(leader, load)]
        expect("another takes over" in leader.log.read_text(errors="replace"), "the leader hands the lead over")
        expect(cluster.leader() is not leader, "another leads")
        followers = [node for node in cluster.control if node is not cluster.leader() and node is not leader]
        others = [restart(node, load) for node in followers]
    load.finish()
    nothing_lost(cluster, load)
    wait_until(lambda: sum(len(member.values) for member in members) >= load.sent, 40, "the group has read everything")
    for member in members:
        member.stop()
    expect_equal(sorted(value for member in members for value in member.values), list(range(load.sent)), "what the group has read")
    expect_equal([member.errors for member in members], [[], []], "errors of the group")
    expect_equal([member.assigned for member in members], assigned, "assignments of the group")
    print("  longest time without an acknowledged record in a partition while an agent left: " + shown(agents), flush=True)
    print("  the same while the lead was handed over: " + shown(handed_over) + "; while one that follows ended: " + shown(others), flush=True)


@suite.check
@on_cluster
def an_agent_that_is_told_twice_or_has_no_other_ends_at_once(cluster):
    create(cluster, "orders")
    member = Member(cluster, "orders", "readers")
    wait_until(lambda: member.assigned, 40, "the group is there")
    # Whoever has members of groups waits for their next heartbeats.
    coordinator = wait_until(lambda: next((one for one in cluster.agents if one.status()["agent"]["connections"] > 0), None), 20, "an agent serves it")
    with Load(cluster, "orders") as load:
        coordinator.send(signal.SIGTERM)
        wait_until(lambda: not coordinator.alive() or "draining" in coordinator.page("/readyz")[1], 20, "it drains")
        coordinator.send(signal.SIGTERM)
        wait_until(lambda: not coordinator.alive(), 3, "it ends at once")
        load.goes_on()
        coordinator.start()
        wait_until(coordinator.ready, 40, "it is ready again")
        # All agents at one time: nobody is left to whom clients could go.
        for one in cluster.agents:
            one.send(signal.SIGTERM)
        for one in cluster.agents:
            wait_until(lambda: not one.alive(), 8, f"{one.name} ends with the others")
        for one in cluster.agents:
            one.start()
        load.goes_on()
    load.finish()
    nothing_lost(cluster, load)
    member.stop()


def time_to_take_over(cluster, signal_of_leaders):
    """The time from the death of one of two members to when the other has all partitions, while each leader is ended after 3.5 s."""
    group = f"readers-{signal_of_leaders.name}"
    lives = Member(cluster, "orders", group, {"session.timeout.ms": SESSION_S * 1000})
    dies = subprocess.Popen(
        ["kcat", "-q", "-b", cluster.bootstrap, "-X", f"session.timeout.ms={SESSION_S * 1000}", "-G", group, "orders"], stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: lives.assigned[-1:] == [PARTITIONS // 2], 40, "the group is balanced")
    dies.kill()
    dies.wait()
    at = time.monotonic()
    for _ in range(4):
        time.sleep(3.5)
        leader = cluster.leader()
        leader.send(signal_of_leaders)
        wait_until(lambda: not leader.alive(), END_LIMIT_S, f"{leader.name} ends")
        leader.start()
    wait_until(lambda: lives.assigned[-1:] == [PARTITIONS], 60, "the other member has all partitions")
    took = time.monotonic() - at
    lives.stop()
    for node in cluster.control:
        wait_until(node.ready, 40, f"{node.name} is ready again")
    return took


@suite.check
@on_cluster
def a_member_that_has_died_is_out_after_its_session_while_leaders_change(cluster):
    create(cluster, "orders")
    for number in (signal.SIGTERM, signal.SIGKILL):
        took = time_to_take_over(cluster, number)
        print(f"  a dead member's partitions were given to another after {took:.1f} s, while four leaders got {number.name}", flush=True)
        # What the first leader knew may be lost with it, and the member that lives hears of it with its next heartbeat.
        expect(took < patience.wall_s(SESSION_S + 12), f"a dead member was out after {took:.1f} s, of which its session is {SESSION_S}")


@suite.check
@on_cluster
def a_cluster_that_is_told_to_end_as_a_whole_ends_soon(cluster):
    create(cluster, "orders")
    with Load(cluster, "orders") as load:
        load.goes_on()
        at = patience.now_s()
        for one in cluster.processes:
            one.send(signal.SIGTERM)
        # No control node is left that could say where clients are to go, and none is waited for.
        for one in cluster.processes:
            wait_until(lambda: not one.alive(), 6, f"{one.name} ends with the others")
        print(f"  all had ended after {patience.now_s() - at:.1f} s", flush=True)
        expect_equal([one.process.returncode for one in cluster.processes], [0] * 6, "how they ended")
        for one in cluster.processes:
            one.start()
        for one in cluster.processes:
            wait_until(one.ready, 40, f"{one.name} is ready again")
        load.goes_on()
    load.finish()
    nothing_lost(cluster, load)


if __name__ == "__main__":
    suite.main()
