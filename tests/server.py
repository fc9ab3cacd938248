"""Servers under test: `seaway dev` from the release build, or Apache Kafka as the reference, behind one interface.

    python -m tests.server [--reference] [--set NAME=VALUE ...] -- COMMAND ...

starts a fresh server on a free port, runs COMMAND with BOOTSTRAP, SERVER_PID, SERVER_LOG and SERVER_HTTP in its
environment, stops the server, and ends with COMMAND's exit code; or with 1 if the server did not outlive it.
"""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from tests import ROOT, apache_kafka, patience

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SEAWAY = pathlib.Path(os.environ.get("SEAWAY", TARGET / "release" / "seaway"))
SETTINGS = {
    "num.partitions": "4",
    "auto.create.topics.enable": "true",
    "group.initial.rebalance.delay.ms": "0",
    "flush.interval.ms": "20",
}


class Seaway:
    """A `seaway dev` process on a data directory; it may be killed and started again on the same one."""

    def __init__(self, directory, settings=None, bucket=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = apache_kafka.free_port()
        self.http_port = apache_kafka.free_port()
        self.settings = SETTINGS | (settings or {})
        self.bucket = bucket
        self.log = self.directory / "server.log"
        self.process = None

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.process.pid if self.process else None

    @property
    def data(self):
        return self.directory / "data"

    def command(self):
        command = [
            str(SEAWAY), "dev", "--data-dir", str(self.data), "--kafka", self.bootstrap,
            "--http", f"127.0.0.1:{self.http_port}",
        ]
        command += ["--bucket", self.bucket] if self.bucket else []
        for name, value in self.settings.items():
            command += ["--set", f"{name}={value}"]
        return command

    def launch(self, environment=None):
        """Starts the process and returns at once."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | {"RUST_BACKTRACE": "1"} | (environment or {}),
            )

    def start(self, environment=None, ready_timeout_s=20):
        self.launch(environment)
        deadline = patience.now_s() + ready_timeout_s
        while not apache_kafka.answers(self.port):
            if self.process.poll() is not None:
                raise RuntimeError(f"seaway ended with {self.process.returncode}; {self.log} ends:\n{self.log_tail()}")
            if patience.now_s() > deadline:
                self.kill()
                raise RuntimeError(f"seaway not ready after {ready_timeout_s} s; {self.log} ends:\n{self.log_tail()}")
            time.sleep(0.02)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """SIGKILL: no handler runs, nothing is flushed."""
        if self.alive():
            self.process.kill()
        self.process.wait()

    def stop(self, timeout_s=10):
        """Ctrl-C; gives whether it ended of itself, in time and with exit code 0."""
        if not self.alive():
            return False
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(patience.wall_s(timeout_s)) == 0
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def end(self):
        """Leaves nothing behind, whatever state it is in."""
        if self.alive():
            self.kill()

    @property
    def logs(self):
        return [self.log]

    def log_tail(self, lines=25):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Reference:
    """Apache Kafka behind the same interface, to check the tests themselves."""

    def __init__(self, directory, settings=None):
        self.directory = pathlib.Path(directory)
        self.port = apache_kafka.free_port()
        self.http_port = 0
        self.settings = {name: value for name, value in (settings or {}).items() if not name.startswith("flush.")}
        self.log = self.directory / "kafka.log"
        self.pid = None

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    def start(self, environment=None):
        self.pid = apache_kafka.start(self.directory, self.port, self.settings)

    def alive(self):
        return apache_kafka.process_runs(self.pid)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def stop(self):
        apache_kafka.stop(self.directory)
        return True

    def end(self):
        if self.pid and self.alive():
            self.kill()

    @property
    def logs(self):
        return [self.log]

    def log_tail(self, lines=25):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def page(port, path):
    """(status, text) of an HTTP page on this machine."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=patience.wall_s(5)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as failure:
        return failure.code, failure.read().decode()


def panics(log):
    """The lines of a server's log that tell of a panic."""
    text = pathlib.Path(log).read_text(errors="replace")
    return [line for line in text.splitlines() if "panicked at" in line or "RUST_BACKTRACE" in line]


def kept(log, command):
    """Copies the log of a failed run to where logs of tests are, under the name of what ran; gives the copy's path."""
    is_module = len(command) > 2 and command[1] == "-m"
    name = command[2].removeprefix("tests.") if is_module else pathlib.Path(command[0]).name
    copy = TARGET / "test-logs" / f"{name}-server.log"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(log, copy)
    return copy


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", action="store_true", help="Apache Kafka instead of Seaway")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--keep", action="store_true", help="leave the server's directory behind")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    settings = dict(item.split("=", 1) for item in options.set)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="seaway-test-"))
    server = (Reference if options.reference else Seaway)(directory, settings)
    try:
        server.start()
        environment = {
            "BOOTSTRAP": server.bootstrap, "SERVER_PID": str(server.pid), "SERVER_LOG": str(server.log),
            "SERVER_HTTP": f"127.0.0.1:{server.http_port}",
        }
        code = subprocess.run(command, env=os.environ | environment, check=False).returncode
        if not server.alive():
            print(f"the server ended during the test; its log ends:\n{server.log_tail()}")
            code = code or 1
        elif not server.stop():
            print(f"the server did not stop cleanly; its log ends:\n{server.log_tail()}")
            code = code or 1
        if found := panics(server.log):
            print("the server panicked:\n" + "\n".join(found))
            code = code or 1
    except RuntimeError as failure:
        print(failure)
        code = 1
    finally:
        if server.pid and server.alive():
            server.kill()
        if code:
            print(f"the server's log is kept: {kept(server.log, command)}")
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
