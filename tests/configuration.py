"""How `seaway` is configured, as processes: python -m tests.configuration [CHECK ...]. A file, the environment and flags; `seaway config
check`; memory that is shared out."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource

from tests import apache_kafka, patience, protocol
from tests import server as servers
from tests.harness import Suite, expect, expect_equal, wait_until

suite = Suite("configuration", own_servers=True)
MIB = 1 << 20


def check(function):
    """Registers a check that is given a directory of its own; it is kept if the check fails."""
    def run():
        directory = pathlib.Path(tempfile.mkdtemp(prefix="seaway-configuration-"))
        function(directory)
        shutil.rmtree(directory, ignore_errors=True)
    run.__name__ = function.__name__
    return suite.check(run)


def run(*arguments, environment=None):
    """Runs the binary to its end: (exit code, standard output, lines on standard error)."""
    done = subprocess.run(
        [str(servers.SEAWAY), *arguments], capture_output=True, text=True, timeout=60, env=os.environ | (environment or {}),
    )
    return done.returncode, done.stdout, [line for line in done.stderr.splitlines() if line.strip()]


def checked(*arguments, environment=None):
    """What `seaway config check --json` says."""
    code, out, errors = run("config", "check", "--json", *arguments, environment=environment)
    expect_equal((code, errors), (0, []), f"config check {' '.join(arguments)}")
    return json.loads(out)


def metrics(http):
    with urllib.request.urlopen(f"{http}/metrics", timeout=patience.wall_s(5)) as answer:
        lines = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def node_by_file(directory, text):
    """A node that is started with nothing but a file, which says this beside its addresses."""
    server = servers.Seaway(directory)
    file = directory / "seaway.toml"
    file.write_text(
        f'kafka = "{server.bootstrap}"\nhttp = "127.0.0.1:{server.http_port}"\ndata-dir = "{server.data}"\n{text}'
    )
    server.command = lambda: [str(servers.SEAWAY), "dev", "--config", str(file)]
    return server, file


def partitions_of_a_new_topic(server):
    with protocol.Connection(server.bootstrap) as connection:
        def told():
            answer = connection.request(protocol.METADATA, 1, protocol.array([protocol.string("new")]))
            answer.array(lambda: (answer.i32(), answer.string(), answer.i32(), answer.string()))
            answer.i32()
            (error, _, _, partitions), = answer.array(lambda: (
                answer.i16(), answer.string(), answer.i8(),
                answer.array(lambda: (answer.i16(), answer.i32(), answer.i32(), answer.array(answer.i32), answer.array(answer.i32))),
            ))
            return len(partitions) if error == 0 else 0
        return wait_until(told, 20, "a new topic")


@check
def a_node_runs_by_its_file_and_the_environment_beats_it(directory):
    server, _ = node_by_file(directory, "num.partitions = 3\n[memory]\nbytes = 300_000_000\n")
    server.start({"SEAWAY_NUM_PARTITIONS": "5"})
    try:
        expect_equal(partitions_of_a_new_topic(server), 5, "partitions by the environment")
        wait_until((server.data / "endpoints.json").exists, 20, "its endpoints where the file says")
        told = metrics(f"http://127.0.0.1:{server.http_port}")
        expect_equal(told["seaway_memory_max_bytes"], 300_000_000, "the memory by the file")
        shares = [value for name, value in told.items() if name.startswith("seaway_memory_share_bytes")]
        expect(280_000_000 < sum(shares) <= 300_000_000, f"the shares come to {sum(shares)}: {shares}")
        expect(server.stop(), "an orderly stop")
    finally:
        if server.alive():
            server.kill()


@check
def config_check_shows_what_is_in_force_and_from_where(directory):
    file = directory / "seaway.toml"
    file.write_text('bucket = "s3://a/b"\n\n[flush]\ninterval.ms = 50\nbytes = 5000\n')
    page = checked(
        "--config", str(file), "--set", "flush.bytes=6000", environment={"SEAWAY_ZONE": "az1", "SEAWAY_KAFKA": "0.0.0.0:9092"},
    )
    told = {row["name"]: (row["value"], row["from"]) for row in page["values"]}
    expect_equal(told, {
        "--bucket": ("s3://a/b", f"{file}:1"),
        "--kafka": ("0.0.0.0:9092", "SEAWAY_KAFKA"),
        "listeners": ("PLAINTEXT://0.0.0.0:9092", "SEAWAY_KAFKA"),
        "broker.rack": ("az1", "SEAWAY_ZONE"),
        "flush.bytes": ("6000", "--set"),
        "flush.interval.ms": ("50", f"{file}:4"),
    }, "what differs from the default")
    page = checked("--verb", "agent", "--config", str(file), environment={"SEAWAY_TLS_DIR": "certs", "SEAWAY_NAME": "agent-a"})
    told = {row["name"]: (row["value"], row["from"]) for row in page["values"] if row["name"].startswith("--")}
    expect_equal(told, {
        "--bucket": ("s3://a/b", f"{file}:1"), "--name": ("agent-a", "SEAWAY_NAME"), "--tls-dir": ("certs", "SEAWAY_TLS_DIR"),
    }, "flags of an agent")
    everything = checked("--all", environment={"SEAWAY_CONFIG": str(file)})
    told = {row["name"]: row["from"] for row in everything["values"]}
    expect_equal(told["--http"], "default", "where --http comes from")
    expect_equal(told["flush.bytes"], f"{file}:5", "where flush.bytes comes from")
    expect_equal(told["produce.buffer.bytes"], "share of memory.bytes", "where produce.buffer.bytes comes from")
    code, out, errors = run("config", "check", "--config", str(file))
    expect_equal((code, errors), (0, []), "config check for people")
    expect("flush.interval.ms" in out and f"{file}:4" in out and "memory.bytes" in out, out)


@check
def what_is_wrong_is_refused_in_one_line_with_its_place(directory):
    file = directory / "seaway.toml"
    data = ("--data-dir", str(directory / "data"), "--kafka", f"127.0.0.1:{apache_kafka.free_port()}", "--http", "127.0.0.1:0")
    cases = [
        ("\nflush.intervall.ms = 1\n", {}, (), f"{file}:2: there is no setting and no flag flush.intervall.ms; did you mean flush.interval.ms?"),
        ("flush.interval.ms = 'soon'\n", {}, (), f"{file}:1: flush.interval.ms=soon: must be a whole number"),
        ("kafka = 'nowhere'\n", {}, (), f"{file}:1: kafka=nowhere: it has no port"),
        ("a = \n", {}, (), f"{file}:1: "),
        ("max.connections = 1\nmax.connections.per.ip = 1\n", {}, (), "write the longer in quotes"),
        ("", {"SEAWAY_FLUSH_INTERVALL_MS": "1"}, (), "SEAWAY_FLUSH_INTERVALL_MS; did you mean SEAWAY_FLUSH_INTERVAL_MS?"),
        ("", {"SEAWAY_NUM_PARTITIONS": "0"}, (), "SEAWAY_NUM_PARTITIONS: num.partitions=0: the least value is 1"),
        ("log.level = 'inof'\n", {}, (), f"{file}:1: log.level=inof"),
        ("memory.bytes = 16777216\n", {}, (), "is the least that caches and buffers need"),
        ("agents = 9\ncontrol = 1\nmemory.bytes = 1000000000\n", {}, (), "is the least that 9 agents and 1 control nodes need"),
        ("agents = 2\ncontrol = 1\nzones = 'a,b'\nzone = 'c'\n", {}, (), "--zone a and broker.rack=c: give one of them"),
        ("listeners = 'A://127.0.0.1:0'\nagents = 2\ncontrol = 1\n", {}, (), "listeners says where one agent is"),
        ("agents = 51\ncontrol = 1\n", {}, (), f"{file}:1: agents=51: "),
        ("memory.bytes = 1000000000\n", {}, ("--set", "fetch.cache.bytes=1000000001"), "more than memory.bytes"),
    ]
    for text, environment, more, wanted in cases:
        file.write_text(text)
        for verb in (("config", "check"), ("dev", *data)):
            code, _, errors = run(*verb, "--config", str(file), *more, environment=environment)
            expect_equal((code, len(errors)), (1, 1), f"exit code and lines of {verb[0]} with {text!r}, {environment}: {errors}")
            expect(wanted in errors[0], f"{verb[0]}: {errors[0]}")
        print(f"  {errors[0]}", flush=True)
    code, _, errors = run("config", "check", "--config", str(directory / "none.toml"))
    expect(code == 1 and len(errors) == 1 and "none.toml" in errors[0], f"a file that is not there: {errors}")


@check
def processes_of_dev_have_what_the_file_and_the_environment_say_and_share_the_memory(directory):
    server, _ = node_by_file(directory, "agents = 2\ncontrol = 1\nflush.bytes = 50_000\n[memory]\nbytes = 900_000_000\n")
    # Of the variables, those that a child's own flags would go by are no child's.
    server.start({"SEAWAY_NUM_PARTITIONS": "5", "SEAWAY_LOG_FORMAT": "json", "SEAWAY_NAME": "nobody", "SEAWAY_ZONE": "a", "SEAWAY_PLAINTEXT_LINKS": "true"})
    try:
        nodes = wait_until(lambda: (server.data / "endpoints.json").exists() and json.loads((server.data / "endpoints.json").read_text())["nodes"], 20, "its nodes")
        expect_equal(sorted((node["name"], node["zone"]) for node in nodes), [("agent-1", "a"), ("agent-2", "a"), ("control-1", "a")], "names and zones")
        expect_equal(partitions_of_a_new_topic(server), 5, "partitions by the environment")
        had = [metrics(node["http"])["seaway_memory_max_bytes"] for node in nodes]
        expect(890_000_000 < sum(had) <= 900_000_000, f"the memory of all comes to {sum(had)}: {had}")
        log = (server.data / "nodes" / "agent-2.log").read_text().splitlines()
        expect(any(json.loads(line).get("fields", {}).get("message") == "ready" for line in log if line.startswith("{")), "an agent that logs JSON")
        admin = AdminClient({"bootstrap.servers": server.bootstrap})
        for broker in admin.list_topics(timeout=patience.wall_s(10)).brokers:
            told = broker_configs(admin, broker)
            expect_equal((told["flush.bytes"].value, told["flush.bytes"].source), ("50000", ConfigSource.STATIC_BROKER_CONFIG.value), f"flush.bytes of broker {broker}")
        expect(server.stop(), "an orderly stop")
    finally:
        if server.alive():
            server.kill()


def broker_configs(admin, broker):
    resource = ConfigResource(ConfigResource.Type.BROKER, str(broker))
    (told,) = admin.describe_configs([resource]).values()
    return told.result(patience.wall_s(10))


@check
def a_node_with_the_least_memory_serves(directory):
    code, _, errors = run("config", "check", "--set", f"memory.bytes={231 * MIB}")
    expect(code == 1 and str(234 * MIB) in errors[0], f"too little memory: {errors}")
    server, _ = node_by_file(directory, f"memory.bytes = {234 * MIB}\n")
    server.start()
    try:
        partitions_of_a_new_topic(server)
        with protocol.Connection(server.bootstrap, timeout_s=40) as connection:
            data = protocol.batch([bytes(1_000_000)], timestamp_ms=int(time.time() * 1000))
            for number in range(40):
                expect_equal(protocol.produce(connection, "new", 0, data), (0, number), "the answer to a large batch")
            error, high, data = protocol.fetch(connection, {("new", 0): 0})["new", 0]
            expect(error == 0 and high == 40 and data, f"a fetch: {error}, {high}, {len(data)} bytes")
        expect(server.stop(), "an orderly stop")
    finally:
        if server.alive():
            server.kill()


if __name__ == "__main__":
    suite.main()
