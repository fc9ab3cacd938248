"""Runs the client programs against BOOTSTRAP, a few at a time: a line per program, the output of those that fail.

    BOOTSTRAP=host:port python -m tests.clients [--jobs N] [PROGRAM ...]
"""

import argparse
import concurrent.futures
import os
import subprocess
import sys
import time

from tests import ROOT, TOOLS

PROGRAMS = {
    # The longest first, so that the others fill the time beside it.
    "java": [sys.executable, "-m", "tests.clients.java_client"],
    "groups-java": [sys.executable, "-m", "tests.clients.groups", "java"],
    "groups-confluent-kafka": [sys.executable, "-m", "tests.clients.groups", "confluent-kafka"],
    "groups-kafka-python": [sys.executable, "-m", "tests.clients.groups", "kafka-python"],
    "groups-kafkajs-aiokafka": [sys.executable, "-m", "tests.clients.groups", "kafkajs", "aiokafka"],
    "confluent-kafka": [sys.executable, "-m", "tests.clients.confluent"],
    "kafkajs": ["node", "tests/clients/kafkajs.js"],
    "kafka-python": [sys.executable, "-m", "tests.clients.kafka_python"],
    "aiokafka": [sys.executable, "-m", "tests.clients.aio"],
    "kcat": [sys.executable, "-m", "tests.clients.kcat"],
}


def run(name):
    environment = os.environ | {
        "NODE_PATH": str(TOOLS / "node" / "node_modules"), "KAFKAJS_NO_PARTITIONER_WARNING": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    started = time.monotonic()
    try:
        done = subprocess.run(
            PROGRAMS[name], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", timeout=1800,
        )
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as expired:
        code, output = -1, (expired.stdout or b"").decode(errors="replace") + "\nnot done after 1800 s"
    return name, code, time.monotonic() - started, output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=", ".join(PROGRAMS))
    options = parser.parse_args()
    names = [name for name in PROGRAMS if not options.programs or name in options.programs]
    if unknown := set(options.programs) - set(PROGRAMS):
        parser.error(f"no such program: {', '.join(unknown)}")
    failed = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for future in concurrent.futures.as_completed([pool.submit(run, name) for name in names]):
            name, code, seconds, output = future.result()
            checks = sum(line.rstrip().endswith(" s ok") for line in output.splitlines())
            print(f"  {name}: {checks} checks ok, {seconds:.0f} s{'' if code == 0 else ', FAILED'}", flush=True)
            if code != 0 or checks == 0:
                failed.append(name)
                print("\n".join("    " + line for line in output.splitlines()[-60:]), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
