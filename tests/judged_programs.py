"""Client libraries of other languages in judged tests (judged_load.py): a program for each, which holds all clients of its library and is told what to do.

The program finds the servers in the variable BOOTSTRAP, reads commands from its standard input, a JSON object a line, and answers each but `drop` by an object
with the command's `id` on its standard output, in any order. It ends when its input does. Every command names its `client`; the commands of one client
are obeyed in their order, `send` without waiting for the answer to the one before.

    {"do": "producer", "timeout_ms": N}              makes the client: an idempotent producer that gives a record up after so long
    {"do": "send", "topic", "partition", "key": base64 or null, "value": base64, "headers": [[name, base64], ...]}
                                                     -> {"offset": N}, or {"error": NAME, "refused": whether it certainly had no effect}
    {"do": "reader", "keys": [[topic, partition], ...]}       makes a consumer that reads these from their beginnings
    {"do": "member", "group", "topics"}              makes a consumer that is a member of the group
    {"do": "poll"}                                   -> {"records": [[topic, partition, offset, value, hash], ...], "moved": [[topic, partition], ...]}
                                                     after 0.3 s at most if nothing comes; `moved` are the keys assigned or revoked since the last one;
                                                     `errors`, if there are any, names what the library has met meanwhile
    {"do": "commit", "offsets": [[topic, partition, offset], ...]}    waits for the answer
    {"do": "drop"}                                   ends the client as a crash would
    {"do": "close"}                                  ends the client after all is answered

Value and hash are as judged_load.py has them. A program that cannot do what it is told answers {"failed": WHY}, which ends the test; of an operation whose
outcome may be any it answers {"error": NAME}. So the test alone writes the history: what is asked for before the library is, what came of it after.
"""

import base64
import itertools
import json
import os
import pathlib
import subprocess
import threading
import time

from tests import ROOT, TOOLS, patience
from tests.clients import java_client
from tests.judged_load import KEYS

# No command takes longer: those that wait for servers give up after 40 s by themselves.
ANSWER_S = 60


def encoded(data):
    return None if data is None else base64.b64encode(data).decode("ascii")


class Answer:
    """What a command is answered, when it is."""

    def __init__(self, act=None):
        self.act = act
        self.come = threading.Event()
        self.content = None

    def give(self, content):
        self.content = content
        if self.act:
            self.act(content)
        self.come.set()


class Program:
    """A library of another language: its program, and the commands that are under way."""

    # Each sends slower than librdkafka's do: the machine that runs the tests has to run all of them.
    timeouts_ms = (30_000,)
    pause_s = 0.2
    reads_by_assignment = True

    def __init__(self, bootstrap, directory):
        self.bootstrap = bootstrap
        self.log = pathlib.Path(directory) / f"{self.name}.log"
        self.process = None
        # A program may read nothing until what it says is heard, so that the one lock must not wait for the other.
        self.writing = threading.Lock()
        self.lock = threading.Lock()
        self.ids = itertools.count(1)
        self.answers = {}
        self.clients = itertools.count(1)
        self.ended = False

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
                env=os.environ | {"BOOTSTRAP": self.bootstrap} | self.environment(),
            )
        threading.Thread(target=self.listen, daemon=True).start()

    def environment(self):
        return {}

    def listen(self):
        for line in self.process.stdout:
            content = json.loads(line)
            with self.lock:
                answer = self.answers.pop(content["id"], None)
            if answer:
                answer.give(content)
        with self.lock:
            self.ended = True
            left, self.answers = list(self.answers.values()), {}
        for answer in left:
            answer.give({"failed": self.why_ended()})

    def tell(self, client, do, act=None, **arguments):
        """Sends a command; gives the answer that will come. `act` is called with it by the thread that hears it."""
        answer = Answer(act)
        with self.lock:
            if self.ended:
                raise AssertionError(self.why_ended())
            number = next(self.ids)
            self.answers[number] = answer
        line = json.dumps({"id": number, "client": client, "do": do} | arguments) + "\n"
        try:
            with self.writing:
                self.process.stdin.write(line)
                self.process.stdin.flush()
        except OSError as failure:
            raise AssertionError(self.why_ended()) from failure
        return answer

    def why_ended(self):
        return f"the program of {self.name} has ended; its log is {self.log}"

    def ask(self, client, do, **arguments):
        answer = self.tell(client, do, **arguments)
        if not answer.come.wait(patience.wall_s(ANSWER_S)):
            raise AssertionError(f"{self.name} does not answer to {do} after {ANSWER_S} s; its log is {self.log}")
        if failed := answer.content.get("failed"):
            raise AssertionError(f"{self.name} at {do}: {failed}")
        return answer.content

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()

    def producer(self, timeout_ms):
        return ProgramProducer(self, timeout_ms)

    def reader(self):
        return ProgramConsumer(self, "reader", keys=KEYS)

    def member(self, group):
        return ProgramConsumer(self, "member", group=group, topics=sorted({topic for topic, _ in KEYS}))


class ProgramProducer:
    def __init__(self, program, timeout_ms):
        self.program = program
        self.client = f"producer-{next(program.clients)}"
        self.lock = threading.Lock()
        self.count = 0
        self.failed = None
        program.ask(self.client, "producer", timeout_ms=timeout_ms)

    def send(self, record, answered):
        def act(answer):
            with self.lock:
                self.count -= 1
            if failed := answer.get("failed"):
                self.failed = failed
            elif "offset" in answer:
                answered("ok", answer["offset"])
            else:
                answered("fail" if answer.get("refused") else "info", error=answer["error"])

        with self.lock:
            self.count += 1
        self.program.tell(
            self.client, "send", act, topic=record.topic, partition=record.partition, key=encoded(record.key), value=encoded(record.value),
            headers=[[name, encoded(content)] for name, content in record.headers],
        )

    def under_way(self):
        with self.lock:
            return self.count

    def wait(self, seconds):
        if self.failed:
            raise AssertionError(f"{self.program.name} at send: {self.failed}")
        time.sleep(seconds)

    def drop(self):
        self.program.tell(self.client, "drop")

    def close(self):
        deadline = time.monotonic() + patience.wall_s(40)
        while self.under_way() and time.monotonic() < deadline:
            self.wait(0.02)
        if not self.under_way():
            self.program.ask(self.client, "close")


class ProgramConsumer:
    def __init__(self, program, role, **arguments):
        self.program = program
        self.client = f"{role}-{next(program.clients)}"
        program.ask(self.client, role, **arguments)

    def poll(self):
        answer = self.program.ask(self.client, "poll")
        return answer["records"], {tuple(key) for key in answer["moved"]}, answer.get("errors", [])

    def commit(self, positions):
        offsets = [[topic, partition, offset] for (topic, partition), offset in positions.items()]
        return self.program.ask(self.client, "commit", offsets=offsets).get("error")

    def close(self):
        self.program.ask(self.client, "close")


class FranzGo(Program):
    """franz-go, which Go programs use: clients/franz-go, built by `tests/setup go`."""

    name = "franz-go"

    program = TOOLS / "bin" / "franz-go-judged"

    @classmethod
    def is_installed(cls):
        return cls.program.exists()

    @classmethod
    def version(cls):
        return subprocess.run([cls.program, "version"], capture_output=True, text=True, check=True).stdout.strip()

    def command(self):
        return [str(self.program)]


class Java(Program):
    """The official client: clients/java/Judged.java, with the jars that `tests/setup java` has fetched."""

    name = "java"

    @staticmethod
    def is_installed():
        return (TOOLS / "java" / "lib").is_dir()

    @classmethod
    def version(cls):
        return subprocess.run(java_client.program("Judged", "version"), capture_output=True, text=True, check=True).stdout.strip()

    def command(self):
        return java_client.program("Judged", heap="128m")


class Kafkajs(Program):
    """kafkajs: clients/kafkajs_judged.js, with the packages that `tests/setup node` has fetched."""

    name = "kafkajs"
    # It has no assignment: whoever reads is a member of a group.
    reads_by_assignment = False
    source = ROOT / "tests" / "clients" / "kafkajs_judged.js"
    modules = TOOLS / "node" / "node_modules"

    @classmethod
    def is_installed(cls):
        return (cls.modules / "kafkajs").is_dir()

    @classmethod
    def version(cls):
        return json.loads((cls.modules / "kafkajs" / "package.json").read_text(encoding="utf-8"))["version"]

    def environment(self):
        return {"NODE_PATH": str(self.modules), "KAFKAJS_NO_PARTITIONER_WARNING": "1"}

    def command(self):
        return ["node", "--max-old-space-size=128", str(self.source)]
