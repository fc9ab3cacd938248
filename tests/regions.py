"""A cluster over three regions: regions are lost and come back under load from real clients in all of them, and the checker judges what
the clients were told.

    python -m tests.regions [--preferences N] [--slow N] [--losses N] [--wan AB,AC,BC] [--seed N] [--history FILE] [--check COMMAND ...]

First one region after another is preferred to lead, so many times, and must lead for that reason; then none is preferred any more. The
region that leads is ten times as far from the buckets of others as before, so many times, and must be led elsewhere within ten seconds. A region is
lost as `seaway region kill` does it: its processes are killed, and its bucket answers nobody. The one that leads is lost in turn with the
others. Records must be acknowledged again while it is away, and its safe offsets must stay behind by just those that it lacks; then it comes
back, its bucket is given the files that it lacks, it is behind no more, and the next is lost. At the end the clients must have found everything, and each region's bucket must be the cluster's.
"""

import argparse
import json
import statistics
import subprocess
import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests import judged, patience
from tests import server as servers
from tests.harness import wait_until

# Within this a region that is slow must be led elsewhere.
SLOW_LED_S = 10
# A topic that is written to only while a region is away: so many partitions, and so many records of each.
QUIET, QUIET_PARTITIONS, QUIET_RECORDS = "quiet", 3, 10


class Regions(servers.Seaway):
    """`seaway dev --regions 3`."""

    def __init__(self, directory, wan):
        # So that agents give up late copies while a region is away, and what it lacks is repaired.
        super().__init__(directory, {"upload.timeout.ms": 3_000})
        self.wan = wan

    def command(self):
        return super().command() + ["--regions", "3"] + (["--wan", self.wan, "--put-ms", "10"] if self.wan else [])

    def start(self, environment=None, ready_timeout_s=60):
        super().start(environment, ready_timeout_s)
        wait_until(lambda: (self.data / "endpoints.json").exists(), 60, "all processes are ready")

    def stop(self, timeout_s=30):
        return super().stop(timeout_s)

    @property
    def nodes(self):
        return json.loads((self.data / "endpoints.json").read_text())["nodes"]

    @property
    def agents(self):
        """The address of each region's agent."""
        return {node["region"]: node["kafka"] for node in self.nodes if node["role"] == "agent"}

    @property
    def logs(self):
        return [self.log, *(self.data / "nodes").glob("*.log")]

    def seaway(self, *words):
        """What a command prints that is about this cluster."""
        command = [str(servers.SEAWAY), *words, "--data-dir", str(self.data)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience.wall_s(30), check=False)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)} ends with {done.returncode}: {done.stderr}")
        return done.stdout

    def region(self, verb, *arguments):
        return self.seaway("region", verb, *arguments)

    def node(self, verb, *arguments):
        return self.seaway("node", verb, *arguments)

    def list(self):
        return {region["region"]: region for region in json.loads(self.region("list", "--json"))}

    def records_behind(self, region, topic):
        """By how many records each partition of a topic is behind in a region."""
        told = json.loads(self.region("offsets", "--topic", topic, "--region", region, "--json"))
        if told["is_more"]:
            raise AssertionError(f"there are more partitions of {topic} than were told")
        return [partition["safe"][region]["records_behind"] for partition in told["partitions"]]

    def registered(self):
        """The regions whose control nodes the cluster knows."""
        told = json.loads(self.seaway("status", "--json"))
        return {node["region"] for node in told["nodes"] if node["role"] == "control"}

    def leaders(self):
        return [name for name, region in self.list().items() if region["leads"]]

    def is_well(self):
        """Whether all that there is runs, every bucket is used, and a region leads."""
        told = self.list().values()
        return all(region["bucket"] == "ok" and region["running"] == region["processes"] for region in told) and any(region["leads"] for region in told)

    def is_running(self, region):
        return all(node["pid"] for node in self.nodes if node["region"] == region)


class RegionTest(judged.Judged):
    """The hand that loses regions."""

    def __init__(self, options, directory):
        super().__init__(options, directory, Regions(directory / "server", options.wan))
        self.gaps_s = {"leader": [], "other": []}
        self.flips_s = []
        self.slow_s = []
        self.repairs_s = []

    def create_topics(self):
        self.bootstrap = ",".join(self.server.agents.values())
        super().create_topics()
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        created = admin.create_topics([NewTopic(QUIET, QUIET_PARTITIONS, 1)])
        created[QUIET].result(patience.wall_s(30))

    def hurt(self):
        for number in range(self.options.preferences):
            self.prefer(number)
        if self.options.preferences:
            self.server.region("prefer", "auto")
        # Where there is no way between the regions, ten times as much is none either.
        for _ in range(self.options.slow if self.options.wan else 0):
            self.slow()
        for number in range(self.options.losses):
            self.lose("leader" if number % 2 == 0 else "other")
        states = {name: region["bucket"] for name, region in self.server.list().items()}
        if set(states.values()) != {"ok"}:
            raise AssertionError(f"the buckets are {states} after all regions are back")

    def prefer(self, number):
        """Has a region lead that does not, by an operator's word."""
        self.await_acknowledgements(20)
        wait_until(lambda: len(self.server.leaders()) == 1, 30, "one region leads")
        leads = self.server.leaders()[0]
        others = [name for name in self.server.agents if name != leads]
        region = others[number % len(others)]
        wait_until(lambda: region in self.server.registered(), 30, f"the control node of {region} is known to the others")
        before, gap = self.history.acknowledged, judged.Gap(self.history)
        self.history.event("fault", f"{region} is preferred")
        self.server.region("prefer", region)
        wait_until(lambda: self.server.leaders() == [region], 30, f"{region} leads")
        self.await_acknowledgements(20)
        gap.over.set()
        told = self.server.list()[region]
        if told["lead_because"] != "preferred" or not told["preferred"]:
            raise AssertionError(f"{region} leads because of {told['lead_because']}, not because it is preferred")
        if self.history.acknowledged <= before:
            raise AssertionError(f"since {region} is preferred no record is acknowledged")
        self.flips_s.append(gap.longest_s)

    def slow(self):
        """The region that leads becomes slow."""
        self.await_acknowledgements(20)
        wait_until(lambda: len(self.server.leaders()) == 1, 30, "one region leads")
        leads = self.server.leaders()[0]
        file = self.server.data / "nodes" / "away" / f"{leads}.slow"
        self.history.event("fault", f"{leads} is slow")
        began = patience.now_s()
        file.write_text("10")
        try:
            wait_until(lambda: self.server.leaders() not in ([leads], []), SLOW_LED_S, f"{leads}, which is slow, is led elsewhere")
            self.slow_s.append(patience.now_s() - began)
            told = self.server.list()[self.server.leaders()[0]]
            if told["lead_because"] != "faster":
                raise AssertionError(f"{told['region']} leads because of {told['lead_because']}, not because it is faster")
            self.await_acknowledgements(20)
        finally:
            file.unlink()
        self.history.event("heal", leads)

    def lose(self, which):
        """Loses the region that leads, or another one, and has it back."""
        self.await_acknowledgements(20)
        wait_until(lambda: len(self.server.leaders()) == 1, 30, "one region leads")
        leads = self.server.leaders()[0]
        lost = leads if which == "leader" else self.random.choice([name for name in self.server.agents if name != leads])
        self.await_safe(lost)
        self.history.event("fault", f"{lost} is lost ({which})")
        before, gap = self.history.acknowledged, judged.Gap(self.history)
        self.server.region("kill", lost)
        wait_until(lambda: not any(node["pid"] for node in self.server.nodes if node["region"] == lost), 20, f"{lost} is lost")
        # Whatever was on its way when the region was lost has come by then.
        time.sleep(0.2)
        self.await_acknowledgements(20)
        time.sleep(2)
        gap.over.set()
        self.gaps_s[which].append(gap.longest_s)
        self.look_after_clients()
        if self.history.acknowledged <= before + 20:
            raise AssertionError(f"without {lost} hardly any record is acknowledged")
        self.fall_behind(lost)
        self.history.event("heal", lost)
        restored = time.monotonic()
        self.server.region("restore", lost)
        wait_until(lambda: self.server.is_running(lost), 60, f"{lost} is back")
        wait_until(lambda: self.serves(self.server.agents[lost]), 60, f"the agent of {lost} serves again")
        wait_until(lambda: self.server.list()[lost]["bucket"] == "ok", 30, f"the bucket of {lost} is back")
        self.await_copies(lost, restored)
        self.await_safe(lost)

    def await_safe(self, region):
        """Waits until the region is behind by no record of the topic to which nobody writes."""
        none = [0] * QUIET_PARTITIONS
        wait_until(lambda: self.server.records_behind(region, QUIET) == none, 180, f"{region} holds all records of {QUIET}")

    def fall_behind(self, lost):
        """Writes while a region is away: it is behind by these records, and the others by none."""
        failed = []
        producer = Producer({"bootstrap.servers": self.bootstrap, "enable.idempotence": True})
        for number in range(QUIET_PARTITIONS * QUIET_RECORDS):
            told = lambda error, _: failed.append(error) if error else None
            producer.produce(QUIET, b"quiet", partition=number % QUIET_PARTITIONS, on_delivery=told)
        if producer.flush(patience.wall_s(60)) or failed:
            raise AssertionError(f"without {lost} records of {QUIET} are not acknowledged: {failed}")
        for region in self.server.agents:
            wanted = [QUIET_RECORDS if region == lost else 0] * QUIET_PARTITIONS
            # A control node that follows is asked if the leader has just changed: it hears of the commits a moment later.
            wait_until(lambda: self.server.records_behind(region, QUIET) == wanted, 20, f"{region} is behind by {wanted} records")
        told = self.server.list()[lost]
        if told["behind_partitions"] < QUIET_PARTITIONS or told["behind_records"] < QUIET_PARTITIONS * QUIET_RECORDS:
            raise AssertionError(f"{lost} lacks records, and is told to be behind by {told['behind_records']} in {told['behind_partitions']} partitions")

    def await_copies(self, region, since):
        """Waits until the region's bucket has every file that is older than that: of younger ones a copy may be on its way."""
        began = patience.now_s()

        def is_complete():
            told = self.server.list()[region]
            return told["short_files"] is not None and (told["short_age_ms"] or 0) < (time.monotonic() - since) * 1000

        wait_until(is_complete, 180, f"the bucket of {region} is given what it lacks")
        self.repairs_s.append(patience.now_s() - began)

    @staticmethod
    def serves(address):
        try:
            judged.partition_ends(address)
            return True
        except (OSError, ValueError, KeyError):
            return False

    def summary(self):
        told = {which: f"{len(gaps)} lost, no record acknowledged for {statistics.median(gaps):.2f} s in the median, {max(gaps):.2f} s at most"
                for which, gaps in self.gaps_s.items() if gaps}
        if self.flips_s:
            told["preferred"] = (f"{len(self.flips_s)} handed over, no record acknowledged for {statistics.median(self.flips_s):.2f} s in the "
                                 f"median, {max(self.flips_s):.2f} s at most")
        if self.slow_s:
            told["slow"] = f"led elsewhere after {max(self.slow_s):.1f} s at most"
        return f"regions: {told}; buckets complete after {max(self.repairs_s, default=0):.0f} s at most"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preferences", type=int, default=4, help="how often another region is preferred to lead")
    parser.add_argument("--slow", type=int, default=1, help="how often the region that leads becomes slow")
    parser.add_argument("--losses", type=int, default=4)
    parser.add_argument("--wan", default="12,65,70", help="round trips between the regions; empty for none")
    judged.arguments(parser)
    judged.judge(parser.parse_args(), RegionTest)


if __name__ == "__main__":
    main()
