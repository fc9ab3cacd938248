#!/usr/bin/env python3
"""Runs one Apache Kafka broker (KRaft, combined roles) from its Maven artifacts: the reference that the client programs
are checked against, and the peer in benchmarks.

    apache_kafka.py start --dir DIR --port PORT [--set NAME=VALUE ...]   returns when the broker answers; prints its pid
    apache_kafka.py stop --dir DIR

The broker keeps running after `start`; its data, log and pid lie in DIR. It listens on 127.0.0.1 only.
"""

import argparse
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = pathlib.Path(os.environ.get("SEAWAY_TOOLS", ROOT / ".tools")).resolve()
JAVA = TOOLS / "java"
CLUSTER_ID = "c2Vhd2F5LXJlZmVyZW5jZQ"

# One node: replication factors of 1, share state included. No wait for further members when a group starts, so that
# tests of groups do not spend their time in it.
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "num.partitions": "4",
    "auto.create.topics.enable": "true",
    "group.initial.rebalance.delay.ms": "0",
    "log.retention.check.interval.ms": "2000",
    "log.segment.delete.delay.ms": "1000",
}


PORTS_GIVEN = set()


def free_port():
    """A port on which nothing listens and which this process has not been given before (a server that has it may not listen yet), below those
    that the system gives to connections (from 32768 on Linux), so that none takes it before the server does."""
    for port in random.sample(range(20_000, 32_000), 2_000):
        if port in PORTS_GIVEN:
            continue
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        PORTS_GIVEN.add(port)
        return port
    raise RuntimeError("of two thousand ports between 20,000 and 32,000 none is free")


def java_command(main, *arguments, heap="1g"):
    """The command line of a Java program on the classpath that `tests/setup java` made."""
    return [
        "java", f"-Xmx{heap}", "-XX:+UseSerialGC" if heap.endswith("m") else "-XX:+UseG1GC",
        "-XX:TieredStopAtLevel=1" if heap.endswith("m") else "-XX:+TieredCompilation",
        f"-Dlog4j2.configurationFile={JAVA / 'log4j2.properties'}",
        "-cp", f"{JAVA / 'lib'}/*", main, *arguments,
    ]


def process_runs(pid):
    """Whether `pid` is a live Java process; a pid file may outlive its process, and pids are used again."""
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"kafka.Kafka" in command


def start(directory, port, settings=None, ready_timeout_s=60):
    """Formats `directory` if it is new, starts the broker on `port`, waits until it answers, and gives its pid."""
    directory = pathlib.Path(directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    controller_port = free_port()
    values = dict(SETTINGS)
    values |= {
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "log.dirs": str(directory / "data"),
    }
    values |= settings or {}
    properties = directory / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    with open(directory / "kafka.log", "ab") as log:
        if not (directory / "data" / "meta.properties").exists():
            subprocess.run(
                java_command("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties), heap="256m"),
                stdout=log, stderr=log, check=True,
            )
        process = subprocess.Popen(
            java_command("kafka.Kafka", str(properties)),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )
    (directory / "pid").write_text(str(process.pid))
    deadline = time.monotonic() + ready_timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"Kafka ended with {process.returncode}; see {directory / 'kafka.log'}")
        if answers(port):
            return process.pid
        time.sleep(0.1)
    stop(directory)
    raise RuntimeError(f"Kafka was not ready after {ready_timeout_s} s; see {directory / 'kafka.log'}")


def answers(port):
    """Whether the broker answers Metadata (v1, all topics) and names itself: it listens some time before it can."""
    request = bytes.fromhex("0003 0001 00000001 ffff ffffffff".replace(" ", ""))
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(len(request).to_bytes(4, "big") + request)
            size = int.from_bytes(read_exactly(connection, 4), "big")
            body = read_exactly(connection, size)
    except OSError:
        return False
    return int.from_bytes(body[4:8], "big") > 0


def read_exactly(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError("closed")
        data += more
    return data


def stop(directory, timeout_s=20):
    """Ends the broker of `directory`: asked first, killed after `timeout_s`."""
    pid_file = pathlib.Path(directory) / "pid"
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    deadline = time.monotonic() + timeout_s
    if process_runs(pid):
        os.kill(pid, signal.SIGTERM)
    while process_runs(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass  # started by another process; /proc tells
        time.sleep(0.05)
    pid_file.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    start_parser = verbs.add_parser("start")
    start_parser.add_argument("--dir", required=True)
    start_parser.add_argument("--port", type=int, required=True)
    start_parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    stop_parser = verbs.add_parser("stop")
    stop_parser.add_argument("--dir", required=True)
    options = parser.parse_args()
    if options.verb == "stop":
        stop(options.dir)
        return
    try:
        print(start(options.dir, options.port, dict(item.split("=", 1) for item in options.set)))
    except RuntimeError as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main()
