"""A cluster whose journal is in an etcd: three control nodes and three agents on an S3 server in memory, and three members of etcd, under load
from real idempotent clients; the checker judges what the clients were told.

    python -m tests.etcd [--rounds N] [--seed N] [--history FILE] [--check COMMAND ...]

In each round the member that leads is killed, and is paused; so is the control node that leads killed; and once all members are killed at
the same time, when nothing may be acknowledged. Before and after that, control nodes that name no journal, another prefix or another
cluster's are refused.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.request

from tests import TOOLS, apache_kafka, faults, judged, patience
from tests import cluster as clusters
from tests.harness import expect, wait_until

ETCD = pathlib.Path(os.environ.get("SEAWAY_ETCD", TOOLS / "bin" / "etcd"))
MEMBERS = 3


class Member:
    """One member of the etcd."""

    def __init__(self, directory, number):
        self.name = f"etcd-{number}"
        self.directory = directory / self.name
        self.log = directory / f"{self.name}.log"
        self.port = apache_kafka.free_port()
        self.peer = f"http://127.0.0.1:{apache_kafka.free_port()}"
        self.process = None

    def start(self, members):
        url = f"http://127.0.0.1:{self.port}"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(ETCD), "--name", self.name, "--data-dir", str(self.directory), "--log-level", "error",
                 "--listen-client-urls", url, "--advertise-client-urls", url,
                 "--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer,
                 "--initial-cluster", ",".join(f"{member.name}={member.peer}" for member in members),
                 "--heartbeat-interval", "20", "--election-timeout", "200"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    def leads(self):
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}/v3/maintenance/status", data=b"{}", method="POST")
        try:
            with urllib.request.urlopen(asked, timeout=2) as answer:
                status = json.loads(answer.read())
        except OSError:
            return False
        return status["header"]["member_id"] == status.get("leader")


class EtcdCluster(faults.HurtCluster):
    """The cluster's processes, its bucket and its etcd."""

    def __init__(self, directory):
        super().__init__(directory)
        self.members = [Member(directory, number) for number in range(MEMBERS)]
        for node in self.control:
            node.command += ["--journal", self.journal()]

    def journal(self, prefix="test"):
        return f"etcd://{','.join(f'127.0.0.1:{member.port}' for member in self.members)}/{prefix}"

    def start(self):
        for member in self.members:
            member.start(self.members)
        super().start()

    def end(self):
        super().end()
        for member in self.members:
            member.kill()

    def etcd_leader(self):
        return wait_until(lambda: next((member for member in self.members if member.leads()), None), 30, "a member of etcd leads")


class EtcdTest(judged.Judged):
    """The hand that hurts etcd and the control nodes that use it."""

    def __init__(self, options, directory):
        super().__init__(options, directory, EtcdCluster(directory / "cluster"))
        self.elsewhere = directory / "elsewhere"
        self.elsewhere.mkdir()
        self.gaps = {}

    def hurt(self):
        self.strangers_are_refused()
        for _ in range(self.options.rounds):
            self.during("etcd's leader is killed", self.kill_etcd_leader)
            self.during("the control node that leads is killed", self.kill_control_leader)
            self.during("etcd's leader is paused for 2 s", self.pause_etcd_leader)
        self.during("all of etcd is killed for 2 s", self.kill_etcd)
        self.strangers_are_refused()

    def summary(self):
        told = [f"{name}: {', '.join(f'{gap:.2f}' for gap in gaps)} s" for name, gaps in self.gaps.items()]
        return "longest time without an acknowledged record:\n  " + "\n  ".join(told) + "\n "

    def during(self, name, inject):
        self.await_acknowledgements(20)
        self.history.event("fault", name)
        gap = judged.Gap(self.history)
        inject()
        self.await_acknowledgements(30)
        gap.over.set()
        gap.join()
        self.gaps.setdefault(name, []).append(gap.longest_s)
        for process in self.server.processes:
            wait_until(process.ready, faults.READY_S, f"{process.name} is ready after '{name}'")

    def kill_etcd_leader(self):
        leader = self.server.etcd_leader()
        leader.kill()
        time.sleep(1)
        self.await_acknowledgements(30)
        leader.start(self.server.members)

    def pause_etcd_leader(self):
        leader = self.server.etcd_leader()
        leader.process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        leader.process.send_signal(signal.SIGCONT)

    def kill_control_leader(self):
        leader = self.server.leader()
        leader.kill()
        time.sleep(1)
        leader.start()

    def kill_etcd(self):
        for member in self.server.members:
            member.kill()
        # What etcd held when it was killed may be told a moment later.
        time.sleep(0.5)
        before = self.history.acknowledged
        time.sleep(1.5)
        expect(self.history.acknowledged == before, "records are acknowledged without a journal")
        for member in self.server.members:
            member.start(self.server.members)

    def strangers_are_refused(self):
        """Control nodes that take the journal to be elsewhere, or have a bucket of their own, end and say what to do."""
        own, bucket = self.server.bucket.url, str(self.elsewhere / "bucket")
        for name, place, journal, told in [
            ("nothing", own, [], "by `seaway control --journal etcd://"),
            ("prefix", own, ["--journal", self.server.journal("other")], "does not hold this cluster's journal"),
            ("cluster", bucket, ["--journal", self.server.journal()], "give this cluster a prefix of its own"),
        ]:
            certificates = clusters.issue(self.server.certificates, "control", name, "--force")
            stranger = clusters.Process(self.elsewhere, "control", name, ["--bucket", place, *journal, *certificates], faults.CREDENTIALS)
            stranger.log.unlink(missing_ok=True)
            stranger.start()
            try:
                wait_until(lambda: not stranger.alive(), 30, f"the stranger that names {name} ends")
            finally:
                stranger.kill()
            expect(told in stranger.log.read_text(errors="replace"), stranger.log.read_text(errors="replace"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    judged.arguments(parser)
    judged.judge(parser.parse_args(), EtcdTest)


if __name__ == "__main__":
    main()
