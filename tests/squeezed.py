"""An agent with little memory for what producers send. It must not know how the cluster is loaded."""

import threading
import time

from confluent_kafka.admin import AdminClient, NewTopic

from tests import patience, protocol
from tests.harness import wait_until

# The least that an agent may be given.
BUFFER_BYTES = 16 << 20
PRODUCERS = 30
BATCH_BYTES = 900_000
TOPIC = "squeezed"


def produces(agent, data, answers):
    with protocol.Connection(f"127.0.0.1:{agent.port}", timeout_s=patience.wall_s(60)) as connection:
        answers.append(protocol.produce(connection, TOPIC, 0, data, timeout_ms=60_000)[0])


def free_bytes(agent):
    lines = agent.page("/metrics")[1].splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("seaway_agent_produce_buffer_free_bytes "))


def wait_for_memory(test, agent):
    """More is sent to an agent at one time than it has memory for, while uploads are slow: it takes the rest as memory comes free, and
    refuses nothing."""
    agent.kill()
    agent.start({"SEAWAY_PRODUCE_BUFFER_BYTES": str(BUFFER_BYTES)})
    wait_until(agent.ready, 40, f"{agent.name} is ready with {BUFFER_BYTES} bytes for records")
    admin = AdminClient({"bootstrap.servers": test.bootstrap})
    for created in admin.create_topics([NewTopic(TOPIC, 1, 1)]).values():
        created.result(patience.wall_s(20))
    data = protocol.batch([b"s" * BATCH_BYTES], timestamp_ms=int(time.time() * 1000))
    answers, least = [], BUFFER_BYTES
    with test.cluster.bucket.hurt({"kind": "put", "prefix": "cluster/files/", "effect": "delay", "ms": 1_500}):
        producers = [threading.Thread(target=produces, args=(agent, data, answers), daemon=True) for _ in range(PRODUCERS)]
        for producer in producers:
            producer.start()

        def are_served():
            nonlocal least
            least = min(least, free_bytes(agent))
            return not any(producer.is_alive() for producer in producers)
        test.under_load_until(are_served, 60, f"{agent.name} has served {PRODUCERS} producers")
    if answers != [0] * PRODUCERS:
        raise AssertionError(f"producers whose records had to wait for memory were answered {answers}")
    if least > BATCH_BYTES:
        raise AssertionError(f"nothing waited for memory: {least} of {BUFFER_BYTES} bytes were free at least")
