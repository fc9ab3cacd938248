"""The member side of the group checks: the options that every member program takes and what it reports.

A member prints one JSON object a line: {"event": "assigned" | "revoked", "partitions": [..]},
{"event": "record", "partition": p, "offset": o, "value": ".."}; it leaves its group when its standard input ends.
Members in other languages do the same. With MEMBER_LOGS=DIR each leaves its client's log there.
"""

import argparse
import json
import logging
import os
import select
import sys


def parse(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--group", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--instance", help="group.instance.id: a static member")
    parser.add_argument("--strategy", help="the assignor, by the client's own name")
    parser.add_argument("--session-timeout-ms", type=int, default=6000)
    if os.environ.get("MEMBER_LOGS"):
        logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return parser.parse_args(arguments)


def report(event, detail):
    key = "partitions" if event in ("assigned", "revoked") else "detail"
    print(json.dumps({"event": event, key: detail}), flush=True)


def report_record(partition, offset, value):
    print(
        json.dumps({"event": "record", "partition": partition, "offset": offset, "value": value.decode()}), flush=True
    )


def asked_to_stop():
    """Whether standard input has ended; never waits."""
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable) and not sys.stdin.buffer.read1(1)
