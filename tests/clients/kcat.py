"""kcat against any cluster: BOOTSTRAP=host:port python -m tests.clients.kcat [CHECK ...]."""

import json
import os
import subprocess
import tempfile

from tests.harness import (
    BOOTSTRAP, CODECS, VALUE_BYTES_MAX, Suite, an_hour_ago_ms, expect, expect_equal, payload, unique, wait_until,
)

suite = Suite("kcat")


def kcat(*arguments, stdin=b"", wanted_exit=0, timeout_s=60):
    """Runs kcat and gives its standard output."""
    done = subprocess.run(
        ["kcat", "-b", BOOTSTRAP, *(["-q"] if wanted_exit == 0 else []), *arguments], input=stdin, capture_output=True, timeout=timeout_s
    )
    if wanted_exit is not None:
        expect_equal(done.returncode, wanted_exit, f"exit code of kcat {' '.join(arguments)}: {done.stderr[-500:]}")
    return done.stdout if wanted_exit == 0 else done.stdout + done.stderr


def new_topic(stem):
    """A topic made by its first mention: kcat has no admin verbs, the cluster creates topics of itself."""
    topic = unique(f"kcat-{stem}")
    wait_until(
        lambda: (described := json.loads(kcat("-L", "-J", "-t", topic))["topics"])
        and described[0]["partitions"] and all(entry["leader"] >= 0 for entry in described[0]["partitions"]),
        20, f"topic {topic} created by a mention",
    )
    return topic


def consume(topic, *arguments):
    return kcat("-C", "-t", topic, "-e", *arguments)


@suite.check
def metadata_is_listed():
    topic = new_topic("list")
    described = json.loads(kcat("-L", "-J"))
    expect(described["brokers"], "brokers")
    expect(topic in [entry["topic"] for entry in described["topics"]], "the topic")


@suite.check
def lines_come_back_with_every_codec():
    topic = new_topic("codecs")
    for codec in CODECS:
        for idempotent in ("true", "false"):
            lines = b"".join(b"%s %d %s\n" % (codec.encode(), index, payload(index, index % 300)) for index in range(500))
            before = json_ends(topic)
            kcat("-P", "-t", topic, "-p", "0", "-z", codec, "-X", f"enable.idempotence={idempotent}", stdin=lines)
            expect_equal(json_ends(topic), before + 500, f"{codec}: the end of the partition")
            got = consume(topic, "-p", "0", "-o", str(before), "-c", "500")
            expect_equal(got, lines, f"{codec}, idempotent {idempotent}")


def json_ends(topic):
    """The high watermark of partition 0, by ListOffsets."""
    answer = kcat("-Q", "-t", f"{topic}:0:-1").decode()
    return int(answer.rsplit(" ", 1)[-1])


@suite.check
def keys_headers_and_nulls_come_back():
    topic = new_topic("headers")
    kcat("-P", "-t", topic, "-p", "0", "-K", ":", "-Z", "-H", "a=1", "-H", "a=2", "-H", "b=", stdin=b"k1:v1\nk2:\n:v3\n")
    lines = consume(topic, "-p", "0", "-J").splitlines()
    got = [json.loads(line) for line in lines]
    expect_equal(
        [(entry["key"], entry["payload"]) for entry in got], [("k1", "v1"), ("k2", None), (None, "v3")], "key, value"
    )
    for entry in got:
        expect_equal(entry["headers"], ["a", "1", "a", "2", "b", ""], "headers, twice the same among them")


@suite.check
def acks_0_1_and_all_store_alike():
    topic = new_topic("acks")
    kcat("-P", "-t", topic, "-p", "0", stdin=b"first\n")
    for acks in ("0", "1", "all"):
        kcat("-P", "-t", topic, "-p", "0", "-X", f"acks={acks}", stdin=b"acks %s\n" % acks.encode())
    expect_equal(consume(topic, "-p", "0"), b"first\nacks 0\nacks 1\nacks all\n", "what was stored")


@suite.check
def a_file_up_to_the_limit_is_a_record_and_one_byte_more_is_refused():
    topic = new_topic("sizes")
    with tempfile.TemporaryDirectory() as directory:
        for size, exit_code in ((1, 0), (VALUE_BYTES_MAX, 0), (VALUE_BYTES_MAX + 1, 1)):
            path = os.path.join(directory, str(size))
            with open(path, "wb") as file:
                file.write(payload(size, size, compressible=False))
            output = kcat(
                "-P", "-t", topic, "-p", "0", "-X", "message.max.bytes=8000000", path, wanted_exit=exit_code
            )
            if exit_code:
                expect(b"too large" in output.lower(), f"the reason of the refusal: {output[-300:]}")
        got = consume(topic, "-p", "0", "-D", "")
        wanted = payload(1, 1, False) + payload(VALUE_BYTES_MAX, VALUE_BYTES_MAX, False)
        expect(got == wanted, f"{len(got)} bytes came back, {len(wanted)} wanted, or other contents")


@suite.check
def offsets_from_the_end_by_number_and_by_time():
    topic = new_topic("offsets")
    kcat("-P", "-t", topic, "-p", "0", stdin=b"".join(b"%d\n" % index for index in range(100)))
    expect_equal(consume(topic, "-p", "0", "-o", "95"), b"95\n96\n97\n98\n99\n", "from offset 95")
    expect_equal(consume(topic, "-p", "0", "-o", "-2"), b"98\n99\n", "the last two")
    expect_equal(consume(topic, "-p", "0", "-o", "beginning", "-c", "2"), b"0\n1\n", "the first two")
    expect_equal(consume(topic, "-p", "0", "-o", f"s@{an_hour_ago_ms()}", "-c", "1"), b"0\n", "by time")


@suite.check
def a_group_resumes_where_it_stopped():
    topic, group = new_topic("group"), unique("kcat-group")
    kcat("-P", "-t", topic, "-p", "0", stdin=b"".join(b"%d\n" % index for index in range(50)))
    group_options = ("-G", group, "-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000")
    first = kcat(*group_options, "-c", "20", topic)
    expect_equal(first, b"".join(b"%d\n" % index for index in range(20)), "the first twenty")
    second = kcat(*group_options, "-c", "30", topic)
    expect_equal(second, b"".join(b"%d\n" % index for index in range(20, 50)), "the rest, by a second process")


if __name__ == "__main__":
    suite.main()
