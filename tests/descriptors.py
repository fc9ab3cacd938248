"""What an agent does whose file descriptors are used up: first by the limit of connections that it sets itself by how many files it may
open, then by none being left at all. It must not know how the cluster is loaded."""

import os
import resource
import select
import time

from tests import patience, protocol
from tests.harness import wait_until

# Of so many files an agent keeps half for the bucket and the like, and takes as many connections as are left (docs/operations.md).
FILES, CONNECTIONS = 256, 128
FLOOD = 200
OLD = 5
# What it has left when no more can be accepted: its clients' connections and the bucket's come and go.
SPARE = 3


def open_connections(agent, count):
    return [protocol.Connection(f"127.0.0.1:{agent.port}") for _ in range(count)]


def close(connections):
    for connection in connections:
        connection.close()


def is_closed(connection):
    """Whether the server has closed a connection on which it was asked for nothing."""
    readable, _, _ = select.select([connection.socket], [], [], 0)
    try:
        return bool(readable) and connection.socket.recv(1) == b""
    except ConnectionResetError:
        return True


def expect_served(connections, which):
    for connection in connections:
        try:
            protocol.api_versions(connection)
        except (OSError, ValueError) as failure:
            raise AssertionError(f"{which} is not served: {failure!r}") from failure


def counted(agent):
    """How many connections an agent says that it refused."""
    name = "seaway_agent_connections_refused_total "
    line = next(line for line in agent.page("/metrics")[1].splitlines() if line.startswith(name))
    return int(line.split()[1])


def refuse_new_ones(test, agent):
    """An agent that may open few files closes the connections beyond its limit as they come, counts them, and keeps those that it has.
    Gives how many it closed."""
    agent.kill()
    agent.start(files=FILES)
    wait_until(agent.ready, 40, f"{agent.name} is ready with {FILES} files")
    old = open_connections(agent, OLD)
    expect_served(old, "one of the first connections")
    before, flood = counted(agent), open_connections(agent, FLOOD)
    try:
        closed = wait_until(
            lambda: closed if len(closed := [one for one in flood if is_closed(one)]) >= OLD + FLOOD - CONNECTIONS else None,
            10, f"{agent.name} closes what is beyond {CONNECTIONS} connections",
        )
        refused = counted(agent) - before
        if refused < len(closed):
            raise AssertionError(f"{agent.name} closed {len(closed)} connections and counts {refused}")
        expect_served(old, "a connection from before the limit was met")
        expect_served([one for one in flood if one not in closed], "one that was within the limit")
        test.under_load(2)
    finally:
        close(flood)
    # Each end of a connection makes room for another.
    wait_until(lambda: takes_one(agent), 10, f"{agent.name} takes connections again")
    expect_served(old, "a connection from before the limit was met")
    close(old)
    agent.kill()
    agent.start()
    wait_until(agent.ready, 40, f"{agent.name} is ready with all its files")
    return len(closed)


def takes_one(agent):
    with protocol.Connection(f"127.0.0.1:{agent.port}") as connection:
        try:
            return bool(protocol.api_versions(connection))
        except OSError:
            return False


def is_answered(connection):
    return bool(select.select([connection.socket], [], [], 0)[0])


def let_new_ones_wait(test, agent):
    """An agent without a file descriptor leaves new connections to the kernel, serves those that it has, and takes the others once it can.
    Gives how many waited."""
    old = open_connections(agent, OLD)
    expect_served(old, "one of the first connections")
    limits = resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{agent.process.pid}/fd"))
    resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, (used + SPARE, limits[1]))
    flood = []
    try:
        flood = open_connections(agent, FLOOD // 4)
        for connection in flood:
            protocol.ask_api_versions(connection)
        test.under_load(3)
        expect_served(old, "a connection from before the descriptors were used up")
        waited = [connection for connection in flood if not is_answered(connection)]
    finally:
        resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, limits)
    end = patience.now_s() + 20
    while left := [connection for connection in waited if not is_answered(connection)]:
        if patience.now_s() > end:
            raise AssertionError(f"{agent.name} has descriptors again, and {len(left)} of {len(waited)} connections get no answer")
        time.sleep(0.05)
    for connection in waited:
        protocol.told_api_versions(connection)
    if waited and "a connection could not be accepted" not in agent.log.read_text(errors="replace"):
        raise AssertionError(f"{agent.name} does not say that it could accept no connection")
    close(old + flood)
    return len(waited)
