"""Where `seaway dev` sends clients: python -m tests.routes [CHECK ...]. Several listeners, and processes in several zones. Agents of
several zones with records in them are in tests/roles.py."""

import json
import subprocess

from tests import apache_kafka, regions
from tests.harness import Suite, expect, expect_equal, wait_until
from tests.process import checks_of, create, seaway, verb

suite = Suite("routes", own_servers=True)
check = checks_of(suite)


def kcat(address, *arguments, stdin=""):
    """What kcat prints, by way of one address."""
    command = ["kcat", "-q", "-b", address, *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    expect_equal(done.returncode, 0, f"exit code of {' '.join(command)}: {done.stderr[-500:]}")
    return done.stdout


@check
def clients_are_told_the_addresses_of_the_listener_by_which_they_came(directory):
    inside, outside = apache_kafka.free_port(), apache_kafka.free_port()
    server = seaway(directory / "one", settings={
        "listeners": f"INTERNAL://127.0.0.1:{inside},external://0.0.0.0:{outside}",
        "advertised.listeners": f"EXTERNAL://localhost:{outside}",
        "listener.zones": "EXTERNAL:a-zone-of-nobody",
        "broker.rack": "az1",
        "min.insync.replicas": "2",
    })
    command = server.command()
    at = command.index("--kafka")
    server.command = lambda: command[:at] + command[at + 2:]
    server.port = inside
    server.start()
    ports = {"127.0.0.1": inside, "localhost": outside}
    for host, port in ports.items():
        address = f"{host}:{port}"
        listed = json.loads(kcat(address, "-L", "-J"))
        expect_equal([broker["name"] for broker in listed["brokers"]], [address], f"brokers by {address}")
        # The address that clients are told is one that they can go to.
        kcat(address, "-P", "-t", "t", "-p", "0", stdin=f"by {host}\n")
    for host, port in ports.items():
        got = kcat(f"{host}:{port}", "-C", "-t", "t", "-p", "0", "-o", "beginning", "-e", "-X", "client.rack=az1")
        expect_equal(got.splitlines(), ["by 127.0.0.1", "by localhost"], f"records by {host}")
    listed = json.loads(kcat(f"localhost:{outside}", "-L", "-J"))
    node = listed["brokers"][0]["id"]
    for partition in listed["topics"][0]["partitions"]:
        expect_equal(partition["leader"], node, "a leader")
        for kind in ("replicas", "isrs"):
            expect_equal([one["id"] for one in partition[kind]], [node, node], f"{kind} with two that must be in sync")
    wait_until(lambda: "Seaway is ready" in server.log.read_text(), 5, "the ready line")
    for line in (f"127.0.0.1:{inside} (INTERNAL)", f"localhost:{outside} (EXTERNAL)"):
        expect(line in server.log.read_text(), f"the line {line}")
    topics, _ = verb(server, "topic", "list", "--data-dir", str(server.data))
    expect("t" in topics.split(), f"topics by the first listener: {topics}")
    expect(server.stop(), "an orderly stop")


@check
def processes_of_their_own_are_dealt_out_over_zones(directory):
    server = seaway(directory / "one")
    command = server.command() + ["--agents", "3", "--control", "1", "--zones", "a,b"]
    server.command = lambda: command
    server.start()
    place = ["--data-dir", str(server.data)]
    wait_until(lambda: (server.data / "endpoints.json").exists(), 30, "all processes are ready")
    nodes = json.loads(verb(server, "node", "list", "--json", *place)[0])
    zones = {"control-1": "a", "agent-1": "a", "agent-2": "b", "agent-3": "a"}
    expect_equal({node["name"]: node["zone"] for node in nodes}, zones, "zones in the list of nodes")
    status, _ = verb(server, "status", *place)
    for name, zone in zones.items():
        expect(f"  {name}  {name[:-2]}, zone {zone}, " in status, f"the zone of {name} in the status: {status}")
    create(server, "t")
    listed = json.loads(kcat(server.bootstrap, "-L", "-J", "-X", "client.id=zone=b"))
    addresses = {broker["id"]: broker["name"] for broker in listed["brokers"]}
    of_b = next(node["kafka"] for node in nodes if node["name"] == "agent-2")
    leaders = {addresses[partition["leader"]] for topic in listed["topics"] for partition in topic["partitions"]}
    expect_equal(leaders, {of_b}, "agents to which a client of zone b is sent")
    expect(server.stop(), "an orderly stop")


@check
def clients_are_sent_to_the_agent_of_the_region_that_they_name_and_to_others_once_it_is_lost(directory):
    server = regions.Regions(directory / "three", "")
    server.start()
    create(server, "t")
    agents = server.agents

    def leaders(asked, named):
        listed = json.loads(kcat(agents[asked], "-L", "-J", "-X", f"client.id=app,region={named}"))
        addresses = {broker["id"]: broker["name"] for broker in listed["brokers"]}
        return {addresses[partition["leader"]] for topic in listed["topics"] for partition in topic["partitions"]}

    # An agent hears of a new topic a moment after the one that was asked to create it.
    for asked in agents:
        wait_until(lambda: leaders(asked, asked), 5, f"the agent of {asked} knows the topic")
    for asked in agents:
        for named in agents:
            expect_equal(leaders(asked, named), {agents[named]}, f"agents that {asked} names to a client in {named}")
    bootstrap = ",".join(agents.values())
    lost, kept, _ = agents
    kcat(bootstrap, "-P", "-t", "t", "-p", "0", "-X", f"client.id=region={lost}", stdin="before\n")
    server.region("kill", lost)
    wait_until(lambda: agents[lost] not in leaders(kept, lost), 30, f"clients in {lost} are sent to the agents of other regions")
    kcat(bootstrap, "-P", "-t", "t", "-p", "0", "-X", f"client.id=region={lost}", stdin="after\n")
    got = kcat(bootstrap, "-C", "-t", "t", "-p", "0", "-o", "beginning", "-e", "-X", f"client.id=region={lost}")
    expect_equal(got.splitlines(), ["before", "after"], "records of clients in the region that was lost")
    expect(server.stop(), "an orderly stop")


if __name__ == "__main__":
    suite.main()
