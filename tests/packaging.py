"""What is installed: the systemd units, the image's file system and the Helm chart. python -m tests.packaging [CHECK ...]

The image itself is built only where a Docker daemon answers."""

import os
import pathlib
import shutil
import subprocess
import tempfile

import yaml

from tests import ROOT, TOOLS, apache_kafka, patience
from tests import server as servers
from tests.harness import Suite, expect, expect_equal, wait_until

PACKAGING = ROOT / "packaging"
CHART = PACKAGING / "helm" / "seaway"
IMAGE_BYTES_MAX = 60 << 20
VALUES = ["--set", "bucket=s3://bucket/prefix?region=eu-central-1"]
# Built as a library, helm takes Kubernetes for an old one.
KUBERNETES = ["--kube-version", "1.31.0"]
suite = Suite("packaging", own_servers=True)


def run(*command, environment=None):
    """(exit code, what it printed)."""
    environment = os.environ | (environment or {})
    ended = subprocess.run(
        list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        timeout=patience.wall_s(60), check=False,
    )
    return ended.returncode, ended.stdout


def succeeds(*command, environment=None):
    code, printed = run(*command, environment=environment)
    expect_equal(code, 0, f"exit code of {' '.join(map(str, command))}, which printed:\n{printed}\nThe exit code")
    return printed


def helm(*arguments):
    return run(TOOLS / "bin" / "helm", *arguments)


@suite.check
def systemd_takes_the_units():
    with tempfile.TemporaryDirectory() as directory:
        for unit in sorted((PACKAGING / "systemd").glob("*.service")):
            # The program is where it was built, not where it will be installed.
            installed = pathlib.Path(directory) / unit.name
            installed.write_text(unit.read_text().replace("/usr/bin/seaway", str(servers.SEAWAY)))
            printed = succeeds("systemd-analyze", "verify", "--man=no", installed)
            expect(unit.name not in printed, printed)


@suite.check
def the_image_holds_what_the_program_needs_and_no_more():
    root = pathlib.Path(tempfile.mkdtemp(prefix="seaway-image-"))
    root.chmod(0o755)
    try:
        succeeds(PACKAGING / "docker" / "root", servers.SEAWAY, root)
        size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
        print(f"  the image's files: {size / (1 << 20):.1f} MiB", flush=True)
        expect(size < IMAGE_BYTES_MAX, f"{size} bytes")
        if os.getuid() == 0:
            expect("seaway" in succeeds("chroot", root, "/usr/bin/seaway", "--version"), "it runs there")
            expect("flush.interval.ms" in succeeds("chroot", "--userspec=65532:65532", root, "/usr/bin/seaway", "settings"), "it runs there as nobody")
    finally:
        shutil.rmtree(root)


@suite.check
def docker_builds_the_image():
    if run("docker", "version")[0] != 0:
        print("  not tried: no Docker daemon answers", flush=True)
        return
    tag = f"seaway-test-{os.getpid()}"
    built = subprocess.run(["docker", "build", "--file", PACKAGING / "docker" / "Dockerfile", "--tag", tag, ROOT], check=False)
    expect_equal(built.returncode, 0, "docker build")
    try:
        expect("seaway" in succeeds("docker", "run", "--rm", tag, "--version"), "the image runs")
        expect(int(succeeds("docker", "image", "inspect", "--format", "{{.Size}}", tag)) < IMAGE_BYTES_MAX, "the image's size")
    finally:
        run("docker", "image", "rm", tag)


def rendered(*values):
    code, printed = helm("template", "east", CHART, "--namespace", "kafka", *KUBERNETES, *VALUES, *values)
    expect_equal(code, 0, f"helm template printed:\n{printed}\nThe exit code")
    return [document for document in yaml.safe_load_all(printed) if document]


def environment_of(pod_name, container):
    """The variables of a pod's container; those that name others are filled in."""
    given = {}
    for variable in container["env"]:
        value = pod_name if "valueFrom" in variable else variable["value"]
        given[variable["name"]] = value.replace("$(SEAWAY_NAME)", pod_name)
    return given


@suite.check
def helm_takes_the_chart_and_every_pod_is_told_what_a_start_accepts():
    code, printed = helm("lint", "--strict", CHART, *VALUES, "--set", "plaintextLinks=true")
    expect_equal(code, 0, f"helm lint printed:\n{printed}\nThe exit code")
    variants = [
        ["--set", "plaintextLinks=true"],
        ["--set", "tlsSecret=certs,bucketSecret=keys,agent.zones={eu-1a,eu-1b},settings.flush\\.interval\\.ms=50"],
    ]
    for variant in variants:
        sets = [document for document in rendered(*variant) if document["kind"] == "StatefulSet"]
        names = [one["metadata"]["name"] for one in sets]
        zoned = "zones" in " ".join(variant)
        expect_equal(names, ["east-agent-eu-1a", "east-agent-eu-1b", "east-control"] if zoned else ["east-agent", "east-control"], "what is run")
        for one in sets:
            container = one["spec"]["template"]["spec"]["containers"][0]
            given = environment_of(f"{one['metadata']['name']}-0", container)
            with tempfile.TemporaryDirectory() as certificates:
                if "SEAWAY_TLS_DIR" in given:
                    given["SEAWAY_TLS_DIR"] = certificates
                succeeds(servers.SEAWAY, "config", "check", environment=given)
                code, printed = run(servers.SEAWAY, "config", "check", environment=given | {"SEAWAY_FLUSH_INTERVALS": "1"})
                expect(code == 1 and "SEAWAY_FLUSH_INTERVALS" in printed, f"a variable that nothing goes by is refused: {code}, {printed}")


@suite.check
def the_pods_of_the_chart_are_a_cluster():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="seaway-pods-"))
    pods = {}
    for one in rendered("--set", "plaintextLinks=true"):
        if one["kind"] == "StatefulSet":
            container = one["spec"]["template"]["spec"]["containers"][0]
            pods[container["name"]] = (container, environment_of(f"{one['metadata']['name']}-0", container))
    processes = []
    try:
        for role in ("control", "agent"):
            container, given = pods[role]
            http = apache_kafka.free_port()
            # On one machine each has ports of its own, and the bucket is a directory.
            here = {"SEAWAY_BUCKET": str(directory / "bucket"), "SEAWAY_HTTP": f"127.0.0.1:{http}"}
            address = f"127.0.0.1:{apache_kafka.free_port()}"
            here |= {"SEAWAY_LISTEN": address, "SEAWAY_ADVERTISE": address} if role == "control" else {"SEAWAY_KAFKA": address}
            with open(directory / f"{role}.log", "ab") as log:
                process = subprocess.Popen(
                    [str(servers.SEAWAY), *container["args"]], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | given | here,
                )
            processes.append((role, process, http))
        for role, process, http in processes:
            probes = pods[role][0]
            for probe in ("livenessProbe", "readinessProbe"):
                path = probes[probe]["httpGet"]["path"]
                wait_until(lambda: answers(process, http, path, directory / f"{role}.log"), 40, f"{probe} of {role}")
    finally:
        for _, process, _ in processes:
            process.kill()
            process.wait()
    shutil.rmtree(directory)


def answers(process, port, path, log):
    """Whether a page has the status 200; an error if the process has ended."""
    expect(process.poll() is None, f"it ended:\n{log.read_text(errors='replace')}")
    try:
        return servers.page(port, path)[0] == 200
    except OSError:
        return False


@suite.check
def the_chart_says_what_it_must_be_told():
    for values, wanted in [
        (["--set", "plaintextLinks=true"], "bucket: name the bucket"),
        (VALUES, "tlsSecret: name a secret"),
    ]:
        code, printed = helm("template", "east", CHART, *KUBERNETES, *values)
        expect(code != 0 and wanted in printed, f"{values}: {code}, {printed}")


if __name__ == "__main__":
    suite.main()
