"""`seaway dev` as a process: python -m tests.process [CHECK ...]. Start, stop, restart, refusals, the client verbs, damage in the bucket,
and a bucket that goes away, on a directory and on an S3 server that others wrote."""

import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

from tests import apache_kafka, patience, protocol
from tests import server as servers
from tests.gateway import CREDENTIALS, Gateway
from tests.harness import Suite, expect, expect_equal, wait_until

suite = Suite("process", own_servers=True)
CORRUPT_MESSAGE, KAFKA_STORAGE_ERROR = 2, 56


def checks_of(suite):
    """Registers checks that are given a directory of their own each; it is kept if the check fails."""
    def check(function):
        def run():
            directory = pathlib.Path(tempfile.mkdtemp(prefix="seaway-process-"))
            servers_of_check.clear()
            try:
                function(directory)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                for started in servers_of_check:
                    if started.alive():
                        started.kill()
                    for line in servers.panics(started.log) if started.log.exists() else []:
                        print(f"  {line}", flush=True)
                        expect(False, f"the server panicked; see {started.log}")
        run.__name__ = function.__name__
        return suite.check(run)
    return check


check = checks_of(suite)
servers_of_check = []


def seaway(directory, **settings):
    made = servers.Seaway(directory, **settings)
    servers_of_check.append(made)
    return made


def verb(server, *arguments, stdin="", wanted_exit=0):
    """Runs a client verb of the binary against `server`; (standard output, standard error)."""
    done = subprocess.run(
        [str(servers.SEAWAY), *arguments], input=stdin, capture_output=True, text=True, timeout=60,
        cwd=server.directory,
    )
    expect_equal(done.returncode, wanted_exit, f"exit code of seaway {' '.join(arguments)}: {done.stderr[-500:]}")
    return done.stdout, done.stderr


def page(server, path):
    """(status, text) of an HTTP page."""
    return servers.page(server.http_port, path)


def create(server, topic):
    """Creates a topic by asking for it."""
    with protocol.Connection(server.bootstrap) as connection:
        def there():
            connection.request(protocol.METADATA, 1, protocol.array([protocol.string(topic)]))
            return protocol.list_offsets(connection, [(topic, 0)], protocol.LATEST)[topic, 0][0] == 0
        wait_until(there, 20, f"topic {topic}")


def produce(server, topic, values):
    """Stores `values` in partition 0 as one batch; its base offset."""
    with protocol.Connection(server.bootstrap, timeout_s=40) as connection:
        data = protocol.batch(values, timestamp_ms=int(time.time() * 1000))
        error, offset = protocol.produce(connection, topic, 0, data)
        expect_equal(error, 0, f"the answer to a produce to {topic}")
        return offset


def fetch(server, topic, offset=0):
    """(error, values) of one fetch from partition 0."""
    with protocol.Connection(server.bootstrap, timeout_s=40) as connection:
        error, _, data = protocol.fetch(connection, {(topic, 0): offset})[topic, 0]
        return error, [entry[2] for entry in protocol.records(data) if entry[0] >= offset]


def values_of(label, count=20):
    return [f"{label} {number} ".encode() + bytes([number]) * 300 for number in range(count)]


def expect_orderly_stop(server, signal_number, within_s):
    """Sends a signal that asks for the end, and waits for it; how long it took."""
    started = patience.now_s()
    server.process.send_signal(signal_number)
    code = server.process.wait(patience.wall_s(within_s))
    took_s = patience.now_s() - started
    expect_equal(code, 0, "exit code of an orderly stop")
    expect(took_s < within_s, f"the stop took {took_s:.1f} s")
    return took_s


@check
def ready_within_two_seconds_and_telling_where(directory):
    server = seaway(directory / "one")
    started = patience.now_s()
    server.start()
    first_s = patience.now_s() - started
    told = wait_until(
        lambda: (server.data / "endpoints.json").exists() and json.loads((server.data / "endpoints.json").read_text()),
        2, "endpoints.json",
    )
    expect_equal(told["kafka"], server.bootstrap, "the Kafka address in endpoints.json")
    expect_equal(told["http"], f"http://127.0.0.1:{server.http_port}", "the HTTP address in endpoints.json")
    expect_equal(page(server, "/healthz")[0], 200, "/healthz")
    expect_equal(page(server, "/readyz")[0], 200, "/readyz")
    status, metrics = page(server, "/metrics")
    expect(status == 200 and "# TYPE " in metrics, f"/metrics: {metrics[:200]}")
    expect("ready" in server.log.read_text(), "the ready line")
    # Two seconds are the promise; a machine that builds something else at the same time gets twice that.
    expect(first_s < 4, f"ready after {first_s:.1f} s")
    print(f"  ready after {first_s:.2f} s", flush=True)


@check
def stops_within_five_seconds_and_starts_again_with_everything(directory):
    server = seaway(directory / "one")
    server.start()
    create(server, "kept")
    values = values_of("kept")
    produce(server, "kept", values)
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        idle = [protocol.Connection(server.bootstrap) for _ in range(20)]
        # A fetch that waits for a record does not hold the stop up.
        body = protocol.struct.pack(">iiiib", -1, 60_000, 1, 1 << 20, 0) + protocol.by_topic(
            {("kept", 0): 0}, lambda topic, number: protocol.struct.pack(">iqi", number, len(values), 1 << 20)
        )
        frame = protocol.struct.pack(">hhi", protocol.FETCH, 4, 1) + protocol.string("waiting") + body
        idle[0].send_raw(protocol.struct.pack(">i", len(frame)) + frame)
        expect_orderly_stop(server, signal_number, 5.5)
        expect(not (server.data / "endpoints.json").exists(), "endpoints.json is there although nothing runs")
        for connection in idle:
            connection.close()
        server.start()
        expect_equal(fetch(server, "kept"), (0, values), "the records after a restart")


@check
def a_log_that_cannot_be_written_does_not_end_the_node(directory):
    server = seaway(directory / "one", settings={"log.level": "debug"})
    with open("/dev/full", "ab") as full:
        server.process = subprocess.Popen(server.command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=full)
    wait_until(lambda: apache_kafka.answers(server.port), 20, "a node whose log is full")
    create(server, "kept")
    values = values_of("kept")
    produce(server, "kept", values)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port)) as garbage:
            garbage.sendall(b"garbage\r\n")
    expect_equal(fetch(server, "kept"), (0, values), "the records of a node whose log is full")
    expect(server.alive(), "the node ended when its log could not be written")


@check
def refuses_what_it_cannot_serve_with_one_line(directory):
    server = seaway(directory / "one")
    server.start()
    other = servers.Seaway(directory / "two")
    base = other.command()
    foreign = directory / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    newer = directory / "newer"
    newer.mkdir()
    (newer / "seaway.json").write_text('{"seaway_data_directory": 99}')

    def changed(flag, value):
        at = base.index(flag) + 1
        return base[:at] + [value] + base[at + 1:]

    cases = {
        "a port in use": (changed("--kafka", server.bootstrap), "in use"),
        "an HTTP port in use": (changed("--http", f"127.0.0.1:{server.http_port}"), "in use"),
        "a second process on a directory": (changed("--data-dir", str(server.data)), "another process"),
        "a directory of something else": (changed("--data-dir", str(foreign)), "not a Seaway data directory"),
        "a directory of a newer version": (changed("--data-dir", str(newer)), "newer"),
        "an unknown setting": (base + ["--set", "no.such.setting=1"], "no.such.setting"),
        "a setting that is no number": (base + ["--set", "num.partitions=many"], "num.partitions"),
        "a setting out of range": (base + ["--set", "num.partitions=0"], "num.partitions"),
        "a level of logs that does not exist": (base + ["--set", "log.level=inof"], "log.level"),
        "an advertised host with a port": (base + ["--set", "advertised.host=kafka.example:9092"], "without a port"),
        "every address as advertised host": (base + ["--set", "advertised.host=0.0.0.0"], "none that a client could connect to"),
        "listeners that are no PLAINTEXT": (base + ["--set", "advertised.listeners=SSL://a:1"], "PLAINTEXT://HOST:PORT"),
        "an advertised listener that is none": (base + ["--set", "advertised.listeners=EXTERNAL://a:1"], "EXTERNAL is not among the listeners"),
        "listeners beside --kafka": (base + ["--set", "listeners=A://127.0.0.1:0"], "give one of them"),
        "listeners of several agents": (base + ["--agents", "2", "--control", "1", "--set", "advertised.port=1"], "where one agent is"),
        "a zone beside zones": (base + ["--agents", "2", "--control", "1", "--set", "zone=a", "--zones", "a,b"], "--zone b and broker.rack=a"),
        "no region": (base + ["--set", "region="], "region=: must not be empty"),
        "a region that is too long": (base + ["--set", f"region={'r' * 256}"], "of which 255 are allowed"),
        "a zone that is too long": (base + ["--set", f"zone={'z' * 256}"], "of which 255 are allowed"),
        "a host that is too long": (base + ["--set", f"advertised.host={'h' * 256}"], "of which 255 are allowed"),
        "a name that does not exist": (changed("--kafka", "no.such.host.invalid:9092"), "--kafka"),
        "a bucket without TLS": (base + ["--bucket", "s3://b?endpoint=http://127.0.0.1:1"], "allow_http=true"),
    }
    for label, (command, fragment) in cases.items():
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        expect_equal(done.returncode, 1, f"{label}: exit code; {done.stderr[-300:]}")
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        expect_equal(len(lines), 1, f"{label}: lines on standard error: {lines}")
        expect(fragment in lines[0], f"{label}: {lines[0]}")
        print(f"  {label}: {lines[0]}", flush=True)
    expect_equal(sorted(path.name for path in foreign.iterdir()), ["thesis.txt"], "files beside the thesis")
    expect(server.alive(), "the first process goes on")


def told_address(server):
    """The address that Metadata tells clients."""
    with protocol.Connection(server.bootstrap) as connection:
        answer = connection.request(protocol.METADATA, 1, protocol.array([]))
        expect_equal(answer.i32(), 1, "brokers in Metadata")
        answer.i32()
        return answer.string(), answer.i32()


@check
def clients_are_told_what_they_can_connect_to(directory):
    port = apache_kafka.free_port()
    cases = [
        ("127.0.0.1", {}, "127.0.0.1", port, False),
        ("localhost", {}, "localhost", port, False),
        ("0.0.0.0", {}, "127.0.0.1", port, True),
        ("0.0.0.0", {"advertised.host": "kafka.example"}, "kafka.example", port, False),
        ("localhost", {"advertised.listeners": "PLAINTEXT://kafka.example:19092"}, "kafka.example", 19092, False),
    ]
    for number, (host, settings, told_host, told_port, warned) in enumerate(cases):
        server = seaway(directory / str(number), settings=settings)
        server.port = port
        at = server.command().index("--kafka") + 1
        command = server.command()
        command[at] = f"{host}:{port}"
        server.command = lambda command=command: command
        server.start()
        expect_equal(told_address(server), (told_host, told_port), f"what clients of --kafka {host}, {settings} are told")
        wait_until(lambda: "Seaway is ready" in server.log.read_text(), 5, "the ready line")
        log = server.log.read_text()
        expect_equal("which only this machine can" in log, warned, f"a warning with --kafka {host}, {settings}: {log}")
        expect(server.stop(), "an orderly stop")
        lines = [line for line in server.log.read_text().splitlines() if " INFO " in line]
        ready = [line for line in lines if "ready kafka=" in line and f"{told_host}:{told_port}" in line and "http=" in line]
        expect_equal(len(ready), 1, f"log lines with the addresses when ready: {lines}")
        expect_equal(len([line for line in lines if line.endswith("stopped")]), 1, f"log lines when stopped: {lines}")


@check
def a_new_file_system_is_a_data_directory(directory):
    server = seaway(directory / "one")
    (server.data / "lost+found").mkdir(parents=True)
    server.start()
    expect(server.stop(), "an orderly stop")


@check
def a_cluster_and_a_bucket_that_do_not_belong_together_are_refused(directory):
    one, two = seaway(directory / "one"), seaway(directory / "two")
    for server in (one, two):
        server.start()
        expect(server.stop(), "an orderly stop")
    mixed = seaway(directory / "one", bucket=str(two.data / "bucket"))
    done = subprocess.run(mixed.command(), capture_output=True, text=True, timeout=20)
    expect_equal(done.returncode, 1, f"exit code: {done.stderr[-300:]}")
    expect("belongs to cluster" in done.stderr, done.stderr[-500:])


@check
def the_log_says_how_the_clusters_configs_become_those_of_the_flags(directory):
    server = seaway(directory / "one")

    def start_and_compare():
        server.start()
        # It is there just after /readyz says so, and gone between two runs.
        wait_until((server.data / "endpoints.json").exists, 20, "its endpoints are told")
        status, _ = verb(server, "status", "--json", "--data-dir", str(server.data))
        return list(json.loads(status)["cluster"]["configs_differ_from_flags"])

    expect_equal(start_and_compare(), [], "configs that differ in a new cluster")
    expect(server.stop(), "an orderly stop")
    server.settings["log.retention.ms"] = "86400000"
    expect_equal(start_and_compare(), ["log.retention.ms"], "configs that differ from changed flags")
    expect(server.stop(), "an orderly stop")
    lines = [line for line in server.log.read_text().splitlines() if "WARN" in line and "log.retention.ms" in line]
    expect(len(lines) == 1 and " --set " in lines[0], f"what the log says to do: {lines}")
    name, version = lines[0].split(" --set ")[1].split()[0].split("=")
    server.settings[name] = version
    expect_equal(start_and_compare(), [], f"configs that differ once --set {name}={version} was given")
    expect(server.stop(), "an orderly stop")
    del server.settings[name]
    expect_equal(start_and_compare(), [], "configs that differ at the next start")
    print(f"  {lines[0]}", flush=True)


def readiness(server):
    """What /readyz says; nothing if nobody answers."""
    try:
        return page(server, "/readyz")
    except OSError:
        return 0, ""


@check
def two_processes_on_one_bucket_tell_who_leads_and_one_serves(directory):
    one = seaway(directory / "one")
    two = seaway(directory / "two", bucket=str(one.data / "bucket"))
    one.start()
    create(one, "kept")
    produce(one, "kept", [b"one"])
    two.start()
    # Between losing the lead and reading who took it, the first can only say that it has no leader.
    wait_until(
        lambda: all(said in readiness(one)[1] for said in ("another process leads", two.bootstrap, str(two.pid))),
        5,
        "the first says who leads in its place",
    )
    expect_equal(readiness(one)[0], 503, "/readyz of the first, which does not lead")
    status, _ = verb(one, "status", "--data-dir", str(one.data))
    expect(status.startswith("NOT READY: another process leads"), f"seaway status says: {status[:300]}")
    warnings = [line for line in one.log.read_text().splitlines() if "WARN" in line and "another process leads" in line]
    expect(len(warnings) == 1 and two.bootstrap in warnings[0], f"a warning in the log: {warnings}")
    expect_equal(readiness(two)[0], 200, "/readyz of the second")
    produce(two, "kept", [b"two"])
    two.kill()
    started = time.monotonic()
    wait_until(lambda: readiness(one)[0] == 200, 30, "the first serves again once the second is gone")
    print(f"  ready again after {time.monotonic() - started:.0f} s", flush=True)
    produce(one, "kept", [b"three"])
    expect_equal(fetch(one, "kept"), (0, [b"one", b"two", b"three"]), "the records of both")
    # Both live on: they settle, whoever leads.
    two.start()
    time.sleep(25)
    wait_until(lambda: sorted(readiness(server)[0] for server in (one, two)) == [200, 503], 10, "one of them leads")
    told = [server.log.read_text().count("another process leads the journal") for server in (one, two)]
    settled = [readiness(server)[0] for server in (one, two)]
    time.sleep(20)
    expect_equal([readiness(server)[0] for server in (one, two)], settled, "who is ready, 20 s later")
    again = [server.log.read_text().count("another process leads the journal") for server in (one, two)]
    expect_equal(again, told, "depositions meanwhile")


def wipe(bucket, _other):
    # A directory without #staging is one whose disk is not mounted: an error, and no word on the objects.
    for part in bucket.iterdir():
        if part.name == "#staging":
            continue
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()


def exchange(bucket, other):
    wipe(bucket, other)
    shutil.copytree(other, bucket, dirs_exist_ok=True)


@check
def a_bucket_that_is_wiped_or_exchanged_under_a_process_ends_it(directory):
    stranger = seaway(directory / "stranger")
    stranger.start()
    expect(stranger.stop(), "an orderly stop")
    for damage, said in ((wipe, "wiped"), (exchange, "belongs to cluster")):
        server = seaway(directory / damage.__name__)
        server.start()
        damage(server.data / "bucket", stranger.data / "bucket")
        wait_until(lambda: not server.alive(), 30, "the process ends")
        expect_equal(server.process.returncode, 1, "exit code")
        last = server.log.read_text().splitlines()[-1]
        expect(last.startswith("seaway: ") and said in last and "--bucket" in last, f"{damage.__name__}: {last}")
        print(f"  {damage.__name__}: {last[:300]}", flush=True)


@check
def idle_connections_leave_open_files_for_the_bucket(directory):
    server = seaway(directory / "one")
    command = server.command
    server.command = lambda: ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *command()]
    server.start()
    create(server, "kept")
    with protocol.Connection(server.bootstrap, timeout_s=20) as producer:
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(600)]
        refused = "seaway_agent_connections_refused_total "
        wait_until(
            lambda: any(line.startswith(refused) and int(line.split()[1]) > 400 for line in page(server, "/metrics")[1].splitlines()),
            20, "refused connections",
        )
        for number in range(20):
            data = protocol.batch(values_of(f"kept {number}"), timestamp_ms=int(time.time() * 1000))
            expect_equal(protocol.produce(producer, "kept", 0, data), (0, number * 20), "a produce beside idle connections")
        expect_equal(page(server, "/readyz")[0], 200, "/readyz")
    lines = server.log.read_text().count("too many connections")
    expect(0 < lines < 30, f"{lines} lines about refused connections")
    for one in idle:
        one.close()
    wait_until(lambda: len(fetch(server, "kept")[1]) == 400, 20, "a connection once the idle ones are gone")


@check
def the_client_verbs(directory):
    server = seaway(directory / "one")
    server.start()
    node = ("--data-dir", str(server.data))
    address = verbs_address(server)
    verb(server, "topic", "create", "greetings", "--partitions", "3", *address)
    listed, _ = verb(server, "topic", "list", *address)
    expect("greetings" in listed, f"seaway topic list: {listed}")
    verb(server, "produce", "greetings", *address, stdin="".join(f"hello {number}\n" for number in range(100)))
    output, _ = verb(server, "consume", "greetings", "--from-beginning", "-e", *address)
    expect_equal(sorted(output.splitlines()), sorted(f"hello {number}" for number in range(100)), "consumed lines")
    described, _ = verb(server, "topic", "describe", "greetings", *address)
    expect("greetings" in described, described)
    verb(server, "topic", "create", "set", "--config", "segment.ms=1000", "--config", "retention.ms=1000", *address)
    described, _ = verb(server, "topic", "describe", "set", *address)
    effects = {line.split()[0]: "changes nothing here" in line for line in described.splitlines() if " = " in line}
    expect_equal(effects, {"retention.ms": False, "segment.ms": True}, "configs, and whether they change nothing")
    _, complaint = verb(server, "topic", "create", "none", "-p", "-1", *address, wanted_exit=2)
    expect("at least one partition" in complaint, complaint)
    # Kafka's list of addresses, of which the first is dead.
    dead = f"127.0.0.1:{apache_kafka.free_port()}"
    verb(server, "produce", "set", "-k", ":", "-b", f"{dead},{server.bootstrap}", stdin="a:1\nb:2\n")
    _, complaint = verb(server, "produce", "set", "-k", ":", *address, stdin="c:3\nd\ne:5\n", wanted_exit=1)
    expect("line 2 of standard input" in complaint and "1 records acknowledged" in complaint, complaint)
    output, _ = verb(server, "consume", "set", "--from-beginning", "-e", *address)
    expect_equal(output.splitlines(), ["1", "2", "3"], "what was sent before the line that was refused")
    status, _ = verb(server, "status", *node)
    expect(status.strip(), "seaway status says something")
    json.loads(verb(server, "status", "--json", *node)[0])
    settings, _ = verb(server, "settings")
    for name in ("num.partitions", "flush.interval.ms", "message.max.bytes", "auto.create.topics.enable"):
        expect(name in settings, f"{name} in seaway settings")
    json.loads(verb(server, "settings", "--json")[0])
    # Who reads the output may have seen enough.
    for arguments in (["settings"], ["status", *node], ["topic", "list", *address],
                      ["consume", "greetings", "--from-beginning", "-e", *address]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([str(servers.SEAWAY), *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30)
        os.close(writer)
        expect_equal((done.returncode, done.stderr), (0, ""), f"seaway {arguments[0]} into a closed pipe")
    verb(server, "topic", "delete", "greetings", *address)
    listed, _ = verb(server, "topic", "list", *address)
    expect("greetings" not in listed, f"after deletion: {listed}")
    _, complaint = verb(server, "topic", "describe", "greetings", *address, wanted_exit=1)
    expect_equal(len(complaint.strip().splitlines()), 1, f"one line for an unknown topic: {complaint}")


@check
def lines_come_back_as_they_went(directory):
    server = seaway(directory / "one")
    server.start()
    address = verbs_address(server)
    verb(server, "topic", "create", "lines", "--partitions", "1", *address)
    # Tiny records take several times what they hold: a request's batches must not become too large.
    lines = "".join(f"{number}\n" for number in range(1, 300_001))
    verb(server, "produce", "lines", *address, stdin=lines)
    output, _ = verb(server, "consume", "lines", "--from-beginning", "-e", *address)
    expect(output == lines, f"{len(output)} bytes of {len(lines)} came back, or others")
    # A line that no request can hold is refused here: the server could only close the connection.
    verb(server, "topic", "create", "long", "--partitions", "1", *address)
    long = "x" * 110_000_000
    _, complaint = verb(server, "produce", "long", *address, stdin=f"first\n{long}\nlast\n", wanted_exit=1)
    expect("line 2 of standard input" in complaint and "split it" in complaint, complaint)
    output, _ = verb(server, "consume", "long", "--from-beginning", "-e", *address)
    expect_equal(output, "first\n", "what was sent before the line that was refused")
    _, complaint = verb(server, "produce", "long", *address, stdin="x" * 2_000_000, wanted_exit=1)
    expect("MESSAGE_TOO_LARGE" in complaint, complaint)


def verbs_address(server):
    """How a client verb is told the cluster."""
    return ("--bootstrap", server.bootstrap)


def files_of(server):
    """The data files in the bucket, oldest first."""
    files = [path for path in (server.data / "bucket" / "files").rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: path.stat().st_mtime_ns)


def fill_two_files(server):
    """Two topics, each with its records in a file of its own; gives the file of the first."""
    for topic in ("damaged", "sound"):
        create(server, topic)
    before = set(files_of(server))
    produce(server, "damaged", values_of("damaged"))
    file = next(path for path in files_of(server) if path not in before)
    produce(server, "sound", values_of("sound"))
    return file


def expect_loud_damage(server, file, wanted, counter):
    """The damaged range errors, is told in the log and by a counter, and others go on."""
    error, values = fetch(server, "damaged")
    expect_equal(error, wanted, "the error of a fetch of damaged records")
    expect_equal(values, [], "records from a damaged range")
    expect_equal(fetch(server, "sound"), (0, values_of("sound")), "another partition")
    offset = produce(server, "damaged", [b"after the damage"])
    expect_equal(fetch(server, "damaged", offset), (0, [b"after the damage"]), "records after the damaged range")
    expect(file.name.split("-")[-1] in server.log.read_text(), "the log names the file")
    counts = [line.split()[1] for line in page(server, "/metrics")[1].splitlines() if line.startswith(f"{counter} ")]
    expect(counts and int(counts[0]) > 0, f"{counter} counts it: {counts}")


@check
def a_corrupt_file_errors_loudly_and_alone(directory):
    server = seaway(directory / "one")
    server.start()
    file = fill_two_files(server)
    expect(server.stop(), "an orderly stop")  # so that nothing of it is cached
    content = bytearray(file.read_bytes())
    at = content.find(b"damaged 10 ")
    content[at] ^= 1
    file.write_bytes(content)
    server.start()
    expect_loud_damage(server, file, CORRUPT_MESSAGE, "seaway_agent_corrupt_reads_total")


@check
def a_missing_file_errors_loudly_and_alone(directory):
    server = seaway(directory / "one")
    server.start()
    file = fill_two_files(server)
    expect(server.stop(), "an orderly stop")
    file.unlink()
    server.start()
    expect_loud_damage(server, file, KAFKA_STORAGE_ERROR, "seaway_agent_missing_files_total")


@check
def a_damaged_journal_never_becomes_an_empty_cluster(directory):
    server = seaway(directory / "one")
    server.start()
    fill_two_files(server)
    expect(server.stop(), "an orderly stop")
    slots = sorted(path for path in (server.data / "bucket" / "journal").rglob("*") if path.is_file())
    content = bytearray(slots[len(slots) // 2].read_bytes())
    content[len(content) // 2] ^= 1
    slots[len(slots) // 2].write_bytes(content)
    damaged = str(slots[len(slots) // 2].relative_to(server.data / "bucket"))
    server.launch()
    deadline = patience.now_s() + 10
    while server.alive() and patience.now_s() < deadline and page_or_none(server, "/readyz") != 200:
        time.sleep(0.1)
    if server.alive() and page_or_none(server, "/readyz") == 200:
        # It found the state without that entry: a verified snapshot lies above.
        expect_equal(fetch(server, "sound"), (0, values_of("sound")), "records behind a damaged entry")
        expect_equal(fetch(server, "damaged"), (0, values_of("damaged")), "records behind a damaged entry")
    else:
        expect(damaged in server.log.read_text(), f"the name of the damaged object, {damaged}: {server.log_tail()}")
        print(f"  refused: {server.log.read_text().splitlines()[-1][:300]}", flush=True)


def lose_a_slot(slots):
    slots[len(slots) // 2].unlink()


def exchange_slots(slots):
    one, other = slots[len(slots) // 2:len(slots) // 2 + 2]
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def double_a_slot(slots):
    one, other = slots[len(slots) // 2:len(slots) // 2 + 2]
    other.write_bytes(one.read_bytes())


def lose_all_but_files(slots):
    bucket = next(parent for parent in slots[0].parents if parent.name == "bucket")
    for part in ("journal", "snapshots", "chunks"):
        shutil.rmtree(bucket / part, ignore_errors=True)


@check
def a_journal_with_lost_or_exchanged_entries_is_refused(directory):
    server = seaway(directory / "one")
    server.start()
    create(server, "kept")
    for number in range(30):
        produce(server, "kept", [b"%d" % number])
    server.kill()
    bucket = server.data / "bucket"
    shutil.copytree(bucket, directory / "copy")
    for damage in (lose_a_slot, exchange_slots, double_a_slot, lose_all_but_files):
        damage(sorted(path for path in (bucket / "journal").rglob("*") if path.is_file()))
        server.launch()
        wait_until(lambda: not server.alive() or page_or_none(server, "/readyz") == 200, 20, "the start ends")
        expect(not server.alive(), f"{damage.__name__}: it goes on as if nothing were missing")
        why = server.log.read_text().splitlines()[-1]
        expect("journal" in why and "estore" in why, f"{damage.__name__}: what is wrong, and what to do: {why}")
        print(f"  {damage.__name__}: {why[:300]}", flush=True)
        shutil.rmtree(bucket)
        shutil.copytree(directory / "copy", bucket)
    server.start()
    error, values = fetch(server, "kept")
    expect_equal((error, values), (0, [b"%d" % number for number in range(30)]), "records once all is restored")


def append_to_journal(bucket, command):
    """Appends an entry with one command of cluster 1, as the leader would that claimed last; its slot."""
    slots = sorted((bucket / "journal" / "0000").iterdir())
    entries = [slot.read_bytes() for slot in slots]
    entries = [entry for entry in entries if entry[:4] == b"SWJE"]
    claims = [entry for entry in entries if entry[5] == 1]
    number = int(slots[-1].name) + 1
    body = struct.pack("<IIII", 1, 1, len(command), 0) + command
    length = 104 + len(body) + 4
    head = b"SWJE" + struct.pack("<BBHII", 1, 2, 0, length, 0)
    head += struct.pack("<Q", number) + os.urandom(16) + claims[-1][16:40] + entries[-1][16:40] + entries[-1][88:104]
    entry = head + body
    (bucket / "journal" / "0000" / f"{number:020}").write_bytes(entry + struct.pack("<I", protocol.crc32c(entry)))
    return number


@check
def an_entry_that_cannot_be_applied_is_left_out_on_an_operators_word(directory):
    server = seaway(directory / "one")
    server.start()
    create(server, "kept")
    values = values_of("kept")
    produce(server, "kept", values)
    server.kill()
    slot = append_to_journal(server.data / "bucket", b"\xff\xff of a later release")
    server.launch()
    wait_until(lambda: f"entry {slot} of the journal cannot be applied" in readiness(server)[1], 20, "/readyz names the entry")
    code, why = readiness(server)
    expect(code == 503 and server.alive(), f"the process lives and is not ready: {code}")
    word = why.split("journal.quarantine=")[1].split()[0]
    expect(word.startswith(f"{slot}-"), f"the word: {why}")
    errors = [line for line in server.log.read_text().splitlines() if "the journal's replica is stuck" in line]
    expect(len(errors) == 1 and word in errors[0], f"one line in the log: {errors}")
    print(f"  /readyz: {why.strip()}", flush=True)
    server.kill()

    server.settings["journal.quarantine"] = f"{slot}-0123456789abcdef"
    server.launch()
    wait_until(lambda: "is another entry" in readiness(server)[1], 20, "a word for another entry is refused")
    server.kill()

    server.settings["journal.quarantine"] = word
    server.start()
    expect_equal(fetch(server, "kept"), (0, values), "the records after an entry was left out")
    lost = [line for line in server.log.read_text().splitlines() if "this release cannot read it" in line]
    expect_equal(len(lost), 1, "lines of the log that say what is lost")
    print(f"  {lost[0]}", flush=True)
    more = values_of("more")
    produce(server, "kept", more)
    server.kill()
    # The word is left in place.
    server.start()
    expect_equal(fetch(server, "kept", len(values)), (0, more), "the records of afterwards")
    expect(f"{word}" in server.log_tail() or word in server.log.read_text(), "the log says that the setting can go")
    print(f"  {[line for line in server.log.read_text().splitlines() if 'is left out' in line][-1]}", flush=True)


def page_or_none(server, path):
    try:
        return page(server, path)[0]
    except OSError:
        return None


def start_producers(server, topic, count=3):
    """Producers in threads of their own; gives the threads, and what becomes of their requests."""
    ended = []
    threads = [threading.Thread(target=lambda: ended.append(unacknowledged(server, topic))) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, ended


@check
def a_bucket_that_refuses_writes_is_told_until_it_takes_them_again(directory):
    server = seaway(directory / "one")
    server.start()
    create(server, "kept")
    # Where objects are written before they have their name, nothing can be created now; all can be read.
    staging, away = server.data / "bucket" / "#staging", directory / "staging"
    staging.rename(away)
    staging.symlink_to("/proc")
    threads, _ = start_producers(server, "kept")
    wait_until(lambda: readiness(server)[0] == 503, 20, "not ready while the bucket refuses writes")
    why = readiness(server)[1]
    expect("the bucket has refused writes for" in why and " s: bucket put of " in why, f"/readyz says: {why}")
    expect_equal(why.count("\n"), 1, f"lines of /readyz: {why}")
    status, _ = verb(server, "status", "--data-dir", str(server.data))
    expect(status.startswith("NOT READY: the bucket has refused writes for"), f"seaway status says: {status[:300]}")
    metrics = page(server, "/metrics")[1].splitlines()
    for line in ("seaway_ready 0", 'seaway_bucket_refuses{kind="writes"} 1', 'seaway_bucket_refuses{kind="reads"} 0'):
        expect(line in metrics, f"{line} in /metrics")
    print(f"  {why.strip()}", flush=True)
    staging.unlink()
    away.rename(staging)
    started = time.monotonic()
    wait_until(lambda: readiness(server)[0] == 200, 40, "ready once the bucket takes writes")
    print(f"  ready again after {time.monotonic() - started:.1f} s", flush=True)
    for thread in threads:
        thread.join(60)
    wait_until(lambda: attempt(server, "kept", b"after"), 40, "records are stored again")


@check
def a_bucket_that_is_away_does_not_hold_the_stop_up(directory):
    server = seaway(directory / "one")
    server.start()
    create(server, "kept")
    (server.data / "bucket").rename(directory / "away")
    threads, ended = start_producers(server, "kept")
    wait_until(lambda: readiness(server)[0] == 503, 20, "not ready while the bucket is away")
    expect("the bucket has refused" in readiness(server)[1], f"/readyz says: {readiness(server)[1]}")
    expect_equal(ended, [], "requests that ended although nobody knows what became of them")
    print(f"  stopped after {expect_orderly_stop(server, signal.SIGINT, 5):.1f} s", flush=True)
    for thread in threads:
        thread.join(10)
    expect_equal(ended, [True] * len(threads), "requests that ended, and were not acknowledged")


@check
def a_bucket_of_s3_goes_away_and_comes_back(directory):
    gateway = Gateway(directory / "s3")
    server = seaway(directory / "one", bucket=gateway.url)
    try:
        # Away at the start: not ready, no end of the process; ready by itself once the bucket is there.
        server.launch(CREDENTIALS)
        time.sleep(1.5)
        expect(server.alive(), f"ended without its bucket: {server.log_tail()}")
        expect(page_or_none(server, "/readyz") != 200, "ready without a bucket")
        expect_equal(page_or_none(server, "/healthz"), 200, "/healthz without a bucket")
        # A client is not left waiting for its own timeout: it can try another agent, or this one again.
        with socket.create_connection(("127.0.0.1", server.port), timeout=patience.wall_s(5)) as client:
            expect_equal(client.recv(1), b"", "what a client hears without a bucket")
        gateway.start()
        wait_until(lambda: page_or_none(server, "/readyz") == 200, 30, "ready once the bucket is there")
        create(server, "kept")
        produce(server, "kept", [b"before"])
        gateway.kill()
        # Away later: a produce is not acknowledged; then everything goes on by itself.
        with protocol.Connection(server.bootstrap, timeout_s=40) as connection:
            data = protocol.batch([b"meanwhile"], timestamp_ms=int(time.time() * 1000))
            try:
                error, _ = protocol.produce(connection, "kept", 0, data, timeout_ms=3000)
            except (OSError, ConnectionError):
                error = -1
        expect(error != 0, "a record was acknowledged without a bucket")
        gateway.start()
        wait_until(lambda: attempt(server, "kept", b"after"), 40, "records are stored again")
        error, values = fetch(server, "kept")
        expect_equal(error, 0, "the fetch's error")
        expect(values[0] == b"before" and b"after" in values, f"what is stored: {values}")
        gateway.process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        gateway.process.send_signal(signal.SIGCONT)
        wait_until(lambda: attempt(server, "kept", b"resumed"), 40, "records are stored after a pause of the bucket")
        server.kill()
        server.start(CREDENTIALS)
        error, values = fetch(server, "kept")
        expect(error == 0 and values[0] == b"before" and b"resumed" in values, f"after kill -9: {error}, {values}")
    finally:
        if gateway.process and gateway.process.poll() is None:
            gateway.kill()


def unacknowledged(server, topic):
    """Whether a produce ends with an error, or with a closed connection."""
    try:
        with protocol.Connection(server.bootstrap, timeout_s=60) as connection:
            data = protocol.batch([b"waits"], timestamp_ms=int(time.time() * 1000))
            return protocol.produce(connection, topic, 0, data, timeout_ms=50_000)[0] != 0
    except (OSError, ConnectionError):
        return True


def attempt(server, topic, value):
    """Whether one more record is stored."""
    try:
        with protocol.Connection(server.bootstrap, timeout_s=20) as connection:
            data = protocol.batch([value], timestamp_ms=int(time.time() * 1000))
            return protocol.produce(connection, topic, 0, data, timeout_ms=5000)[0] == 0
    except (OSError, ConnectionError):
        return False


if __name__ == "__main__":
    suite.main()
