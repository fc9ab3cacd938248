"""What the client programs share: where the cluster is, unique names, records that prove themselves, and the verdict.

It knows no Kafka client. Each program registers its checks and ends with `suite.main()`: a line per check, exit code 0
only if all passed. Checks can be named on the command line to run some alone.
"""

import hashlib
import os
import random
import signal
import sys
import time
import traceback

from tests import patience

BOOTSTRAP = os.environ.get("BOOTSTRAP")
CHECK_TIMEOUT_S = int(os.environ.get("CHECK_TIMEOUT_S", "90"))
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

# Kafka's default for the largest batch (message.max.bytes), and the value of a lone record without key and headers
# that fills such a batch to the last byte: 61 bytes of batch header, 3 of length, 1 attributes, 1 + 1 deltas, 1 null
# key, 3 value length, 1 header count.
BATCH_BYTES_MAX = 1_048_588
VALUE_BYTES_MAX = BATCH_BYTES_MAX - 72


class Failed(AssertionError):
    """A check's expectation that did not hold."""


def expect(condition, message):
    if not condition:
        raise Failed(message)


def expect_equal(got, wanted, what):
    if got != wanted:
        raise Failed(f"{what}: got {brief(got)}, wanted {brief(wanted)}")


def brief(thing, limit=300):
    text = repr(thing)
    return text if len(text) <= limit else text[:limit] + f"... ({len(text)} characters)"


def unique(stem):
    """A topic or group name that no other run uses."""
    return f"{stem}-{os.getpid():x}-{random.SystemRandom().randrange(1 << 32):08x}"


def an_hour_ago_ms():
    """A time for records with chosen timestamps: in the past, but within any sensible retention."""
    return (int(time.time()) - 3600) * 1000


def payload(seed, size, compressible=True):
    """`size` bytes that depend on nothing but `seed`."""
    source = random.Random(seed)
    if not compressible:
        return source.randbytes(size)
    phrase = source.randbytes(40).hex().encode()
    return (phrase * (size // len(phrase) + 1))[:size]


def mixed_records(seed, count=60):
    """(key, value, headers) with what applications send: null keys, null and empty values, repeated header names,
    null and binary header values, one byte to some tens of KiB."""
    source = random.Random(seed)
    records = []
    for index in range(count):
        key = None if index % 3 == 0 else f"key-{source.randrange(10)}".encode()
        size = (1, 10, 100, 1_000, 10_000, 40_000)[index % 6]
        value = payload(f"{seed}/{index}", size, compressible=index % 2 == 0)
        headers = []
        if index % 4 == 1:
            headers = [("trace", b"\x00\xff\x10"), ("again", b"1"), ("again", b"2"), ("again", b"1")]
        if index % 4 == 2:
            headers = [("ключ", "värde".encode()), ("empty", b"")]
        if index % 10 == 7:
            key, value = b"gone", None
        if index % 10 == 8:
            value = b""
        records.append((key, value, headers))
    return records


def digest(records):
    """A hash over (key, value, headers) in order; keys and values may be null."""
    state = hashlib.sha256()
    for key, value, headers in records:
        fields = [key, value]
        for name, content in headers:
            fields += [name.encode(), content]
        state.update(len(fields).to_bytes(4, "big"))
        for field in fields:
            state.update((-1 if field is None else len(field)).to_bytes(4, "big", signed=True))
            state.update(field or b"")
    return state.hexdigest()


def expect_same_records(got, wanted, what):
    """Compares by hash; on a difference says which record is the first to differ."""
    if digest(got) == digest(wanted):
        return
    for index, (one, other) in enumerate(zip(got, wanted)):
        if digest([one]) != digest([other]):
            raise Failed(f"{what}: record {index} of {len(wanted)}: got {brief(one)}, wanted {brief(other)}")
    raise Failed(f"{what}: got {len(got)} records, wanted {len(wanted)}")


def wait_until(condition, timeout_s, what, interval_s=0.05):
    """Polls `condition` until it is true and gives its value; fails after `timeout_s` of the patient clock."""
    deadline = patience.now_s() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if patience.now_s() > deadline:
            raise Failed(f"not within {timeout_s} s: {what}")
        time.sleep(interval_s)


class Suite:
    """The checks of one program, against the cluster at BOOTSTRAP unless each has a server of its own."""

    def __init__(self, client, own_servers=False):
        self.client = client
        self.own_servers = own_servers
        self.checks = {}

    def check(self, function):
        self.checks[function.__name__] = function
        return function

    def main(self, arguments=None):
        if not BOOTSTRAP and not self.own_servers:
            sys.exit("set BOOTSTRAP=host:port")
        names = sys.argv[1:] if arguments is None else arguments
        unknown = [name for name in names if name not in self.checks]
        if unknown:
            sys.exit(f"no such check: {', '.join(unknown)}; there are: {', '.join(self.checks)}")
        failed = 0
        for name in names or self.checks:
            started = time.monotonic()
            deadline = patience.now_s() + CHECK_TIMEOUT_S
            signal.signal(signal.SIGALRM, lambda *_: self.on_alarm(deadline))
            signal.alarm(CHECK_TIMEOUT_S)
            try:
                self.checks[name]()
                verdict = "ok"
            except Exception as failure:  # whatever a client library raises is a failed check
                failed += 1
                verdict = f"FAILED: {failure or type(failure).__name__}"
                if not isinstance(failure, Failed):
                    traceback.print_exc()
            finally:
                signal.alarm(0)
            print(f"{self.client} {name} {time.monotonic() - started:.1f} s {verdict}", flush=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if failed else 0)  # client libraries leave threads behind that would keep a failed run alive

    @staticmethod
    def on_alarm(deadline):
        if patience.now_s() >= deadline:
            raise Failed(f"not done after {CHECK_TIMEOUT_S} s")
        signal.alarm(2)
