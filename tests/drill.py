"""`seaway drill region-loss` against a cluster over three regions of real processes: python -m tests.drill [CHECK ...]."""

import json
import signal
import subprocess

from tests import patience, regions
from tests import server as servers
from tests.harness import Suite, expect, expect_equal, wait_until
from tests.process import checks_of, servers_of_check, verb

suite = Suite("drill", own_servers=True)
check = checks_of(suite)

# Far above what a short drill takes: the files written meanwhile are left alone for 13 s before they are copied.
DRILL_S = 80
# Enough for 50,000 acknowledged records in three times as many seconds, also if the machine is busy.
ENOUGH = ("--seconds", "5", "--rate", "6000")


def cluster(directory):
    server = regions.Regions(directory / "three", "")
    server.start()
    servers_of_check.append(server)
    wait_until(lambda: server.is_well(), 60, "all regions are well")
    return server


def command(server, *arguments):
    return [str(servers.SEAWAY), "drill", "region-loss", "--data-dir", str(server.data), *arguments]


def drill(server, *arguments):
    """The exit code of a drill, what it prints, and what it says beside that."""
    done = subprocess.run(command(server, *arguments), capture_output=True, text=True, timeout=patience.wall_s(DRILL_S), check=False)
    return done.returncode, done.stdout, done.stderr


def topics(server):
    command = [str(servers.SEAWAY), "topic", "list", "--json", "--data-dir", str(server.data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience.wall_s(30), check=True)
    return [topic["name"] for topic in json.loads(done.stdout)]


@check
def the_region_that_leads_is_lost_and_nothing_else_is(directory):
    server = cluster(directory)
    leads = server.leaders()[0]
    code, told, beside = drill(server, *ENOUGH, "--json")
    expect_equal(code, 0, f"exit code of a drill that is passed: {told} {beside}")
    report = json.loads(told)
    expect(report["passed"] and not report["reasons"], f"a drill that is passed: {told}")
    expect_equal((report["region"], report["led_before"]), (leads, leads), "the region that is lost by default, and the one that led")
    expect(report["led_after"], f"the region that leads at the end: {told}")
    expect(report["acknowledged"] >= 50_000, f"records that were acknowledged: {told}")
    expect_equal(report["compared"], {"found": report["acknowledged"], "missing": 0, "doubled": 0, "out_of_order": 0, "foreign": 0}, "what was found")
    expect_equal(report["rpo_records"], 0, "the RPO")
    clients = {client["name"]: client for client in report["clients"]}
    expect_equal(len(clients), 9, "clients: two producers and a consumer in each of three regions")
    of_lost = sorted(name for name, client in clients.items() if client["is_of_lost_region"])
    expect_equal(of_lost, [f"{leads}-{kind}" for kind in ("consumer-1", "producer-1", "producer-2")], "the clients of the lost region")
    producers = [client for client in clients.values() if client["kind"] == "producer"]
    expect_equal(sum(client["records"] for client in producers), report["acknowledged"], "records of all producers")
    outside = [client["longest_pause_since_ms"] for client in producers if not client["is_of_lost_region"]]
    expect_equal(report["rto_ms"], max(outside), "the RTO: the longest pause of a producer outside the lost region")
    for client in clients.values():
        if client["kind"] == "consumer":
            expect_equal(client["records"], report["acknowledged"], f"records that {client['name']} read")
    expect(server.is_well(), f"all regions are well again: {server.list()}")
    expect_equal([name for name in topics(server) if name.startswith("drill")], [], "topics that are left")
    expect(server.stop(), "an orderly stop")


@check
def too_few_records_do_not_pass(directory):
    server = cluster(directory)
    lost = next(name for name in server.agents if name != server.leaders()[0])
    code, told, beside = drill(server, "--seconds", "2", "--rate", "300", "--region", lost, "--keep")
    expect_equal(code, 1, f"exit code of a drill with few records: {told} {beside}")
    expect(told.startswith(f"region loss, {lost}: NOT PASSED\n"), f"a report in text: {told}")
    expect("too little was tried to say anything" in told and "too little was tried" in beside, f"the reason: {told} {beside}")
    for line in ("0 doubled, 0 out of order, 0 foreign", "RPO           0 records", "RTO", "rejoined", f"{lost}-producer-2"):
        expect(line in told, f"{line} in the report: {told}")
    expect(server.is_well(), f"all regions are well again: {server.list()}")
    expect_equal(len([name for name in topics(server) if name.startswith("drill-region-loss-")]), 1, "topics that are kept")
    expect(server.stop(), "an orderly stop")


@check
def what_the_drill_has_not_written_is_told_and_kept(directory):
    server = cluster(directory)
    with subprocess.Popen(command(server, "--seconds", "3", "--rate", "300", "--json"), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        try:
            topic, = wait_until(lambda: [name for name in topics(server) if name.startswith("drill")], 30, "the drill is under way")
            verb(server, "produce", topic, "--data-dir", str(server.data), stdin="hello, sea\n")
            told, beside = running.communicate(timeout=patience.wall_s(DRILL_S))
        finally:
            running.kill()
    expect_equal(running.returncode, 1, f"exit code of a drill with somebody else's record: {told} {beside}")
    report = json.loads(told)
    compared = [report["compared"], *(client["compared"] for client in report["clients"] if client["kind"] == "consumer")]
    wanted = {"found": report["acknowledged"] + 1, "missing": 0, "doubled": 0, "out_of_order": 0, "foreign": 1}
    expect_equal(compared, [wanted] * 4, "what the last reader and the three consumers found")
    expect("what is there is not what was acknowledged: 1 foreign" in beside, f"the reason: {beside}")
    expect(f"the topic {topic} is there" in beside, f"what is kept: {beside}")
    expect_equal(topics(server), [topic], "topics that are kept")
    expect(server.stop(), "an orderly stop")


@check
def what_cannot_be_drilled_is_refused_before_anything_is_lost(directory):
    server = cluster(directory)
    code, told, beside = drill(server, "--region", "mars")
    expect_equal((code, told), (1, ""), "a region that there is not")
    expect("there is no region mars; there are us-east, us-west, eu-west" in beside, f"the reason: {beside}")
    for wrong in (("--seconds", "0"), ("--rate", "0"), ("--rate", "many")):
        code, _, beside = drill(server, *wrong)
        expect(code == 2 and wrong[0] in beside, f"{wrong} is refused: {code} {beside}")
    away, other, _ = server.agents
    server.region("kill", away)
    wait_until(lambda: not server.is_running(away), 20, f"{away} is lost")
    code, _, beside = drill(server, "--region", other)
    expect_equal(code, 1, "another region while one is away")
    expect(f"seaway region restore {away}" in beside, f"what to do: {beside}")
    expect(server.is_running(other), f"{other} is not lost")
    server.region("restore", away)
    wait_until(lambda: server.is_well(), 60, "all regions are well again")
    expect_equal(topics(server), [], "topics: nothing was begun")
    expect(server.stop(), "an orderly stop")
    code, _, beside = drill(server)
    expect(code == 1 and "start `seaway dev`" in beside, f"a cluster that does not run: {beside}")


@check
def a_drill_that_is_ended_has_its_region_back(directory):
    server = cluster(directory)
    lost = server.leaders()[0]
    for sent in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(command(server, "--seconds", "600", "--rate", "300", "--region", lost), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            try:
                # It works for ten minutes before it loses the region: until then nothing is to be had back.
                wait_until(lambda: [name for name in topics(server) if name.startswith("drill")], 30, "the drill is under way")
                running.send_signal(sent)
                told, beside = running.communicate(timeout=patience.wall_s(30))
            finally:
                running.kill()
        expect_equal((running.returncode, told), (1, ""), f"a drill that is ended before the loss: {beside}")
        expect("ended by a signal" in beside, f"the reason: {beside}")
        expect(server.is_well(), f"all regions are well: {server.list()}")
    with subprocess.Popen(command(server, "--seconds", "8", "--rate", "300", "--region", lost), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        try:
            wait_until(lambda: not server.is_running(lost), 60, f"{lost} is lost")
            running.send_signal(signal.SIGINT)
            told, beside = running.communicate(timeout=patience.wall_s(30))
        finally:
            running.kill()
    expect_equal((running.returncode, told), (1, ""), f"a drill that is ended: {beside}")
    expect(f"{lost} was lost, and comes back" in beside, f"what was done: {beside}")
    wait_until(lambda: server.is_well(), 60, f"{lost} is back")
    expect_equal([name for name in topics(server) if name.startswith("drill")], [], "topics that are left")
    expect(server.stop(), "an orderly stop")


if __name__ == "__main__":
    suite.main()
