"""versitygw, an S3 server that others wrote, for the tests of a process whose bucket goes away."""

import socket
import subprocess

from tests import TOOLS, apache_kafka
from tests.harness import wait_until

USER, PASSWORD = "user", "password"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": PASSWORD}


class Gateway:
    """A bucket of versitygw's, in a directory."""

    def __init__(self, directory):
        self.directory = directory
        (directory / "bucket").mkdir(parents=True)
        self.port = apache_kafka.free_port()
        self.process = None

    @property
    def url(self):
        return f"s3://bucket/cluster?endpoint=http://127.0.0.1:{self.port}&region=us-east-1&allow_http=true"

    def start(self):
        self.process = subprocess.Popen(
            [str(TOOLS / "bin" / "versitygw"), "--port", f"127.0.0.1:{self.port}", "--access", USER, "--secret",
             PASSWORD, "--region", "us-east-1", "--iam-cache-disable", "--quiet", "posix", str(self.directory)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        wait_until(self.listens, 20, "versitygw listens")

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        self.process.kill()
        self.process.wait()
