"""Kills the server at random moments under load from real idempotent clients, starts it again on the same data, and
has the checker judge what the clients were told.

    python -m tests.kill [--rounds N] [--seed N] [--history FILE] [--reference] [--check COMMAND ...]

Round by round the server is killed: with SIGKILL after a while, with SIGKILL while it starts, by the fail point between
the upload of a file and its commit, or by the one between commit and answer. Between two kills it must acknowledge
records again. After the last one all is healed: readers and the group must reach the ends, and a fresh reader reads every
partition from its beginning through raw fetches, which show producer ids, epochs and sequences.
"""

import argparse
import collections
import os
import time

from tests import judged, patience
from tests import server as servers


class KillTest(judged.Judged):
    """The hand that kills the server."""

    def __init__(self, options, directory):
        server = (servers.Reference if options.reference else servers.Seaway)(directory / "server")
        super().__init__(options, directory, server)
        self.fired = collections.Counter()

    def hurt(self):
        for number in range(self.options.rounds):
            self.round(number)

    def summary(self):
        return f"kills: {dict(self.fired)}"

    def round(self, number):
        """Waits until the server serves, kills it in one of the ways, and starts it again."""
        # The first rounds take each way once, so that no run is without one of them.
        ways = [self.kill_under_load, self.kill_at_start]
        if not self.options.reference:
            ways += [self.fail_after_put, self.fail_after_commit]
        way = ways[number] if number < len(ways) else self.random.choice(ways + [self.kill_under_load])
        way()
        self.fired[way.__name__] += 1
        time.sleep(self.random.random() * 0.5)
        self.server.start()
        self.look_after_clients()

    def kill_under_load(self):
        self.await_acknowledgements()
        time.sleep(self.random.random() ** 2 * 4)
        self.history.event("fault", "SIGKILL")
        self.server.kill()

    def kill_at_start(self):
        self.kill_under_load()
        if self.options.reference:
            return
        self.server.launch()
        time.sleep(self.random.random() ** 2)
        self.history.event("fault", "SIGKILL at start")
        self.server.kill()

    def fail_after_put(self):
        self.fail_at("after-put")

    def fail_after_commit(self):
        self.fail_at("after-commit")

    def fail_at(self, point):
        """Starts the server with a fail point that kills it at one of its next passes."""
        self.kill_under_load()
        count = self.random.randrange(1, 40)
        try:
            self.server.start({"SEAWAY_FAILPOINTS": f"{point}=kill@{count}"})
        except RuntimeError:
            if self.server.alive():
                raise  # else the point was passed before the server was seen to answer
        self.history.event("fault", f"{point}=kill@{count}")
        deadline = patience.now_s() + 30
        while self.server.alive():
            if patience.now_s() > deadline:
                raise AssertionError(f"the fail point {point}=kill@{count} was not passed within 30 s of load")
            time.sleep(0.01)
        # By SIGKILL or SIGABRT: no handler runs either way. A panic that aborts is told from it by the log, at the end.
        if self.server.process.returncode not in (-9, -6):
            raise AssertionError(
                f"{point}: exit code {self.server.process.returncode}, no kill; the log ends:\n{self.server.log_tail()}"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS", "20")))
    parser.add_argument("--reference", action="store_true", help="Apache Kafka instead of Seaway")
    judged.arguments(parser)
    judged.judge(parser.parse_args(), KillTest)


if __name__ == "__main__":
    main()
