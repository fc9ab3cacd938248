"""The Java client and Kafka's own console tools against any cluster:
BOOTSTRAP=host:port python -m tests.clients.java_client [CHECK ...].

Compiles java/Checks.java against the client's jars, runs it, and adds checks of the console producer and consumer and
of the administrator's tools. Its argument `member` makes it a group member for groups.py.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

from tests import TOOLS, apache_kafka
from tests.harness import BOOTSTRAP, Suite, expect, expect_equal, unique

SOURCES = pathlib.Path(__file__).resolve().parent / "java"
suite = Suite("java")


def classes():
    """The directory of the compiled programs; compiled once per source, safely beside others that do the same."""
    target = TOOLS / "java" / "classes"
    sources = sorted(SOURCES.glob("*.java"))
    if target.exists() and target.stat().st_mtime >= max(source.stat().st_mtime for source in sources):
        return target
    with tempfile.TemporaryDirectory(dir=TOOLS / "java") as directory:
        subprocess.run(
            ["javac", "-Xlint:all,-classfile,-processing", "-cp", f"{TOOLS / 'java' / 'lib'}/*", "-d", directory, *map(str, sources)],
            check=True,
        )
        target.mkdir(exist_ok=True)
        for file in pathlib.Path(directory).iterdir():
            os.replace(file, target / file.name)
    os.utime(target)
    return target


def program(main, *arguments, heap="256m"):
    """The command line of one of the compiled programs."""
    command = apache_kafka.java_command(main, *arguments, heap=heap)
    command[command.index("-cp") + 1] += f":{classes()}"
    return command


def tool(main, *arguments, stdin=""):
    done = subprocess.run(
        apache_kafka.java_command(f"org.apache.kafka.tools.{main}", *arguments, heap="256m"),
        input=stdin, capture_output=True, text=True,
    )
    expect_equal(done.returncode, 0, f"exit code of {main}: {done.stderr[-800:]}{done.stdout[-300:]}")
    return done.stdout


@suite.check
def the_java_client():
    done = subprocess.run(program("Checks"))
    expect_equal(done.returncode, 0, "exit code of Checks")


@suite.check
def console_tools_make_fill_read_and_describe_a_topic():
    topic, group = unique("java-console"), unique("java-console")
    server = ("--bootstrap-server", BOOTSTRAP)
    tool("TopicCommand", *server, "--create", "--topic", topic, "--partitions", "2")
    described = tool("TopicCommand", *server, "--describe", "--topic", topic)
    expect("PartitionCount: 2" in described, described)
    lines = [f"key-{index % 5}:line {index} åß∂" for index in range(200)]
    tool(
        "ConsoleProducer", *server, "--topic", topic, "--reader-property", "parse.key=true",
        "--reader-property", "key.separator=:", "--compression-codec", "zstd", stdin="\n".join(lines) + "\n",
    )
    output = tool(
        "consumer.ConsoleConsumer", *server, "--topic", topic, "--from-beginning", "--max-messages", "200",
        "--timeout-ms", "30000", "--group", group, "--formatter-property", "print.key=true",
        "--formatter-property", "key.separator=:",
    )
    expect_equal(sorted(output.splitlines()), sorted(lines), "the lines that were read")
    for key in range(5):
        mine = [line for line in output.splitlines() if line.startswith(f"key-{key}:")]
        expect_equal(mine, [line for line in lines if line.startswith(f"key-{key}:")], f"the order of key {key}")
    described = tool("consumer.group.ConsumerGroupCommand", *server, "--describe", "--group", group)
    rows = [line.split() for line in described.splitlines() if topic in line]
    expect_equal(sum(int(row[3]) for row in rows), 200, f"the group's committed offsets: {described}")
    ends = tool("GetOffsetShell", *server, "--topic", topic)
    expect_equal(sum(int(line.rsplit(":", 1)[1]) for line in ends.split()), 200, f"the ends: {ends}")
    tool("TopicCommand", *server, "--delete", "--topic", topic)


@suite.check
def api_versions_are_read_by_the_tool():
    output = tool("BrokerApiVersionsCommand", "--bootstrap-server", BOOTSTRAP)
    expect("Produce(0):" in output and "Fetch(1):" in output, output)


if __name__ == "__main__":
    if sys.argv[1:2] == ["member"]:
        command = program("Checks", *sys.argv[1:])
        os.execvp(command[0], command)
    suite.main()
