"""A rolling upgrade of a cluster of real processes under load from real idempotent clients, with two builds: this one, and the same with
the feature `rehearsal`, which knows a feature level more (crates/meta/src/terms/level/rehearsal.rs). The checker judges what the
clients were told.

    python -m tests.upgrade [--acknowledged N] [--seed N] [--history FILE] [--check COMMAND ...]

The later build is $SEAWAY_LATER, by default target/rehearsal/seaway. Processes are replaced one after the other: by the later build with the
level held, by this one again, and by the later one with nothing held. Then the level is risen, and this build is refused.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import time

from tests import ROOT, judged, patience
from tests import server as servers
from tests.faults import HurtCluster
from tests.harness import wait_until

LATER = pathlib.Path(os.environ.get("SEAWAY_LATER", ROOT / "target" / "rehearsal" / "seaway"))
HELD = ["--set=feature.level.max=1"]
SETTINGS = {"log.retention.check.interval.ms": 500}
READY_S = 40


def version_of(program):
    """What a build says that it is."""
    said = subprocess.run([str(program), "--version"], check=True, capture_output=True, text=True, timeout=patience.wall_s(20))
    return said.stdout.split()[1]


class UpgradeTest(judged.Judged):
    def __init__(self, options, directory):
        cluster = HurtCluster(directory / "cluster", SETTINGS)
        super().__init__(options, directory, cluster)
        self.steps = []
        self.version, self.later_version = version_of(servers.SEAWAY), version_of(LATER)
        # Without the program's name.
        self.arguments = {process.name: process.command[1:] for process in cluster.processes}

    @property
    def cluster(self):
        return self.server

    def hurt(self):
        self.await_acknowledgements()
        self.expect_levels(in_force=1, supported=1)
        self.roll("to the later build, the level held", LATER, HELD)
        self.expect_levels(in_force=1, supported=2)
        self.roll("back to this build", servers.SEAWAY)
        self.expect_levels(in_force=1, supported=1)
        self.roll("to the later build", LATER)
        self.expect_levels(in_force=2, supported=2)
        self.this_build_is_refused(self.cluster.control[0], "feature level")
        self.this_build_is_refused(self.cluster.agents[0], "feature level 2")
        self.expect_levels(in_force=2, supported=2)
        while self.history.acknowledged < self.options.acknowledged:
            self.await_acknowledgements(100)

    def roll(self, step, program, more=()):
        """Replaces one process after the other, as an operator would."""
        self.history.event("fault", step)
        before, gap = self.history.acknowledged, judged.Gap(self.history)
        for process in self.cluster.processes:
            self.replace(process, program, more)
            wait_until(process.ready, READY_S, f"{process.name} is ready")
            self.await_acknowledgements(30)
        gap.over.set()
        self.steps.append(step)
        print(f"  {step:<40} acknowledged {self.history.acknowledged - before:>6}, longest gap {gap.longest_s:5.2f} s", flush=True)

    def replace(self, process, program, more=()):
        process.send(signal.SIGTERM)
        code = process.process.wait(patience.wall_s(60))
        if code != 0:
            raise AssertionError(f"{process.name} ends with {code} on SIGTERM")
        process.command = [str(program), *self.arguments[process.name], *more]
        process.start()

    def expect_levels(self, in_force, supported):
        """The level in force, and of each process what it is known to support and of which build it is."""
        version = self.version if supported == 1 else self.later_version
        def found():
            told = self.cluster.leader().status()
            if "nodes" not in told:
                return False
            levels = {(node["name"], node["feature_level"], node["version"]) for node in told["nodes"]}
            wanted = {(process.name, supported, version) for process in self.cluster.processes}
            return told["cluster"]["feature_level"] == in_force and wanted == levels
        wait_until(found, READY_S, f"level {in_force} is in force, and all support {supported}")

    def this_build_is_refused(self, process, why):
        """It comes back as this build, says why it does not serve, and the others go on; then the later one again."""
        read = process.log.stat().st_size
        self.replace(process, servers.SEAWAY)

        def refused():
            log = process.log.read_text(errors="replace")[read:]
            return [line for line in log.splitlines() if why in line and ("ERROR" in line or "WARN" in line or "error" in line)]
        lines = wait_until(refused, READY_S, f"{process.name} says that {why} is too new for it")
        print(f"  refused: {lines[0]}", flush=True)
        end = patience.now_s() + 1
        while patience.now_s() < end:
            if process.alive() and process.page("/readyz")[0] == 200:
                raise AssertionError(f"{process.name} serves at a level that it does not support")
            time.sleep(0.1)
        self.await_acknowledgements(30)
        process.kill()
        process.command[0] = str(LATER)
        process.start()
        wait_until(process.ready, READY_S, f"{process.name} is ready")

    def summary(self):
        return f"{len(self.steps)} rolls of {len(self.cluster.processes)} processes"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acknowledged", type=int, default=10_000, help="so many records are acknowledged at least")
    judged.arguments(parser)
    judged.judge(parser.parse_args(), UpgradeTest)


if __name__ == "__main__":
    main()
