"""Control nodes and agents as processes of their own, for the tests of a cluster."""

import itertools
import json
import os
import signal
import subprocess

from tests import apache_kafka, patience
from tests import server as servers
from tests.harness import wait_until

ZONES = ["a", "b", "c"]


class Process:
    """One `seaway control` or `seaway agent`."""

    def __init__(self, directory, role, name, arguments, environment=None):
        self.name = name
        self.environment = environment or {}
        self.http_port = apache_kafka.free_port()
        self.port = apache_kafka.free_port()
        self.log = directory / f"{name}.log"
        listen = "--listen" if role == "control" else "--kafka"
        self.command = [
            str(servers.SEAWAY), role, "--name", name, listen, f"127.0.0.1:{self.port}", "--http", f"127.0.0.1:{self.http_port}", *arguments,
        ]
        self.process = None

    def start(self, environment=None, files=None):
        """Starts it, with as many files open at one time as it may have; None for as many as this process."""
        limited = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh"] if files else []
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                limited + self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | {"RUST_BACKTRACE": "1"} | (self.environment | (environment or {})),
            )

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def send(self, number):
        self.process.send_signal(number)

    def kill(self):
        """Ends it as `kill -9` does, if it runs; whether it was that which ended it."""
        was_alive = self.alive()
        if was_alive:
            self.process.kill()
        if self.process:
            self.process.wait()
        return was_alive and self.was_killed()

    def was_killed(self):
        """Whether it has ended as by `kill -9`."""
        return self.process.poll() == -signal.SIGKILL

    def stands_still(self):
        """Whether it was stopped, and not let go on."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as told:
            return told.read().rpartition(")")[2].split()[0] == "T"

    def page(self, path):
        """(status, text) of an HTTP page; (None, why) if there is no answer."""
        try:
            return servers.page(self.http_port, path)
        except OSError as failure:
            return None, str(failure)

    def ready(self):
        if not self.alive():
            raise RuntimeError(f"{self.name} ended; its log ends:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-20:]))
        return self.page("/readyz")[0] == 200

    def status(self):
        """What its status page says; nothing if it gives no answer."""
        code, text = self.page("/status.json")
        return json.loads(text) if code == 200 else {}


def certs(*arguments):
    subprocess.run([str(servers.SEAWAY), "certs", *map(str, arguments)], check=True, capture_output=True, timeout=patience.wall_s(20))


def issue(directory, role, name, *arguments):
    """A certificate of a process, by the CA in the directory; the flags that name it."""
    certs("issue", "--dir", directory, "--role", role, "--name", name, *arguments)
    return ["--tls-dir", str(directory)]


class Cluster:
    """Three control nodes and three agents, one of each in a zone, on a bucket, which is a directory unless one is given; they know each other by certificates."""

    def __init__(self, directory, settings, bucket=None, environment=None, control=3, agents=3):
        self.directory = directory
        arguments = ["--bucket", bucket or str(directory / "bucket")]
        arguments += [f"--set={name}={value}" for name, value in settings.items()]
        self.certificates = directory / "certs"
        certs("init", "--dir", self.certificates)

        def process(role, number, zone):
            name = f"{role}-{number}"
            return Process(directory, role, name, ["--zone", zone, *arguments, *issue(self.certificates, role, name)], environment)

        def processes(role, count):
            zones = itertools.cycle(ZONES)
            return [process(role, number, next(zones)) for number in range(count)]

        self.process = process
        self.control = processes("control", control)
        self.agents = processes("agent", agents)

    @property
    def processes(self):
        return self.control + self.agents

    @property
    def bootstrap(self):
        return ",".join(f"127.0.0.1:{agent.port}" for agent in self.agents)

    def start(self):
        for process in self.processes:
            process.start()
        for process in self.processes:
            wait_until(process.ready, 40, f"{process.name} is ready")

    def leader(self):
        """The control node that leads."""
        def find():
            alive = [node for node in self.control if node.alive() and node.page("/readyz")[0] is not None]
            return next((node for node in alive if node.status().get("journal", {}).get("role") == "Leader"), None)
        return wait_until(find, 30, "a control node leads")

    def end(self):
        for process in self.processes:
            if process.process:
                process.send(signal.SIGCONT) if process.alive() else None
                process.kill()
