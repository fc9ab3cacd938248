"""Consumer groups made of real processes of every client:
BOOTSTRAP=host:port python -m tests.clients.groups [CHECK | CLIENT ...].

Members are the client programs' `member` mode (see members.py); this driver starts them, kills one with SIGKILL,
restarts static ones, and judges by what they report. What it sends, each record once, every group must deliver.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading

from tests import ROOT, TOOLS, patience
from tests.clients.confluent import create_topic, produce, producer
from tests.harness import Suite, expect, expect_equal, unique, wait_until

PARTITIONS = 6
suite = Suite("groups")

COMMANDS = {
    "confluent-kafka": [sys.executable, "-m", "tests.clients.confluent"],
    "kafka-python": [sys.executable, "-m", "tests.clients.kafka_python"],
    "aiokafka": [sys.executable, "-m", "tests.clients.aio"],
    "kafkajs": ["node", "tests/clients/kafkajs.js"],
    "java": [sys.executable, "-m", "tests.clients.java_client"],
}


class Member:
    """A running member process and what it has reported."""

    def __init__(self, client, group, topic, instance=None, strategy=None):
        command = COMMANDS[client] + ["member", "--group", group, "--topic", topic]
        # A static member has half a minute to come back: a JVM takes its time on a busy machine.
        command += ["--instance", instance, "--session-timeout-ms", "30000"] if instance else []
        command += ["--strategy", strategy] if strategy else []
        environment = os.environ | {
            "NODE_PATH": str(TOOLS / "node" / "node_modules"), "KAFKAJS_NO_PARTITIONER_WARNING": "1",
        }
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log(group), cwd=ROOT,
            env=environment,
        )
        self.values = []
        self.rebalances = []
        self.owned = set()
        self.reader = threading.Thread(target=self.listen, daemon=True)
        self.reader.start()

    @staticmethod
    def log(group):
        directory = os.environ.get("MEMBER_LOGS")
        return open(tempfile.mktemp(prefix=group, dir=directory), "wb") if directory else subprocess.DEVNULL

    def listen(self):
        cooperative = "cooperative-sticky" in self.process.args
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == "record":
                self.values.append(event["value"])
            elif event["event"] == "assigned":
                self.rebalances.append(("assigned", event["partitions"]))
                self.owned = (self.owned if cooperative else set()) | set(event["partitions"])
            elif event["event"] == "revoked":
                self.rebalances.append(("revoked", event["partitions"]))
                self.owned -= set(event["partitions"])

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.owned = set()

    def leave(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            expect(False, "a member did not end within 20 s of being asked to")
        finally:
            self.reader.join()
            self.owned = set()


def share_fairly(running, timeout_s=30):
    """Waits until the members own all partitions between them, none twice, each about the same number."""
    def shared():
        owned = [set(member.owned) for member in running]
        least, most = min(map(len, owned)), max(map(len, owned))
        return sum(map(len, owned)) == PARTITIONS == len(set().union(*owned)) and most - least <= 1
    try:
        wait_until(shared, timeout_s, "all partitions owned, each by one member")
    except AssertionError as failure:
        for member in running:
            print(f"  rebalances of {member.process.pid}: {member.rebalances}", file=sys.stderr)
        raise failure


def send(topic, label, count=60):
    """Sends `count` records, spread over all partitions, and gives their values."""
    values = [f"{label}-{index}" for index in range(count)]
    sender = producer(acks="all", enable_idempotence=True)
    for partition in range(PARTITIONS):
        produce(sender, topic, [(None, value.encode(), []) for value in values[partition::PARTITIONS]], partition)
    return values


def delivered(values, members, timeout_s=30):
    """Waits until the members have reported all of `values` between them."""
    def missing():
        return set(values) - {value for member in members for value in list(member.values)}
    try:
        wait_until(lambda: not missing(), timeout_s, "every record delivered to some member")
    except AssertionError:
        expect(False, f"after {timeout_s} s not delivered: {sorted(missing())[:10]} of {len(values)}")


def group_of_three_with_one_killed(client):
    topic, group = create_topic(f"three-{client}", PARTITIONS), unique(f"three-{client}")
    everyone = [Member(client, group, topic) for _ in range(3)]
    try:
        share_fairly(everyone)
        delivered(send(topic, "before"), everyone)
        victim = everyone[1]
        killed_at = patience.now_s()
        victim.kill()
        values = send(topic, "after")
        survivors = [everyone[0], everyone[2]]
        share_fairly(survivors, 40)
        delivered(values, survivors)
        expect(patience.now_s() - killed_at < 40, "the takeover took longer than 40 s")
        everyone.append(Member(client, group, topic))
        survivors.append(everyone[-1])
        share_fairly(survivors)
        delivered(send(topic, "joined"), survivors)
        survivors.pop(0).leave()
        share_fairly(survivors)
        delivered(send(topic, "left"), survivors)
        # What was reported and committed is not delivered again at each rebalance: only a member that is killed or
        # evicted between report and commit makes doubles.
        total = sum(len(member.values) for member in everyone)
        expect(total <= 4 * 60 + 120, f"{total} deliveries of {4 * 60} records: commits were lost")
    finally:
        end(everyone)


def static_members_restart_without_a_rebalance(client):
    topic, group = create_topic(f"static-{client}", PARTITIONS), unique(f"static-{client}")
    everyone = [Member(client, group, topic, instance=f"instance-{number}") for number in range(3)]
    try:
        share_fairly(everyone)
        delivered(send(topic, "first"), everyone)
        settle(everyone)
        before = [list(member.rebalances) for member in everyone]
        owned = set(everyone[0].owned)
        everyone[0].kill()
        everyone[0] = Member(client, group, topic, instance="instance-0")
        wait_until(lambda: everyone[0].owned, 30, "the restarted member's assignment")
        expect_equal(everyone[0].owned, owned, "the partitions of the restarted member")
        delivered(send(topic, "second"), everyone)
        for number in (1, 2):
            expect_equal(everyone[number].rebalances, before[number], f"rebalances that member {number} saw")
    finally:
        end(everyone)


def cooperative_members_keep_what_they_own(client):
    topic, group = create_topic(f"coop-{client}", PARTITIONS), unique(f"coop-{client}")
    strategy = "cooperative-sticky"
    everyone = [Member(client, group, topic, strategy=strategy)]
    try:
        share_fairly(everyone)
        everyone.append(Member(client, group, topic, strategy=strategy))
        share_fairly(everyone)
        revoked = [number for kind, numbers in everyone[0].rebalances if kind == "revoked" for number in numbers]
        expect_equal(len(revoked), PARTITIONS // 2, f"partitions taken from the first member ({revoked})")
        expect_equal(set(revoked), everyone[1].owned, "what was taken is what the second member got")
        delivered(send(topic, "both"), everyone)
        everyone.pop().leave()
        share_fairly(everyone)
        delivered(send(topic, "alone"), everyone)
    finally:
        end(everyone)


def settle(running):
    """Waits until no member has seen a rebalance for a second: the last joiner's is over everywhere."""
    state = []

    def still():
        current = (patience.now_s(), [len(member.rebalances) for member in running])
        if not state or state[-1][1] != current[1]:
            state.append(current)
        return current[0] - state[-1][0] > 1.0
    wait_until(still, 20, "a second without a rebalance")


def end(running):
    for member in running:
        if member.process.poll() is None:
            member.process.kill()
            member.process.wait()


def register(scenario, clients):
    for client in clients:
        def check(client=client):
            scenario(client)
        check.__name__ = f"{scenario.__name__}:{client}"
        suite.check(check)


register(group_of_three_with_one_killed, COMMANDS)
register(static_members_restart_without_a_rebalance, ("confluent-kafka", "kafka-python", "aiokafka", "java"))
register(cooperative_members_keep_what_they_own, ("confluent-kafka", "kafka-python", "java"))


if __name__ == "__main__":
    # A client's name stands for all its checks.
    suite.main([
        check for argument in sys.argv[1:]
        for check in ([name for name in suite.checks if name.endswith(f":{argument}")] or [argument])
    ])
