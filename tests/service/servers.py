"""Servers as users start them, each in a process of its own."""

import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from stanflow.service.problems import MEDIA_TYPE, documented

STANFLOW = Path(sys.executable).with_name("stanflow")
NORMAL = "data { real y; } parameters { real mu; } model { mu ~ normal(0, 1); y ~ normal(mu, 1); }"
DATA = {"y": 1.0}  # of NORMAL
LONG = {"max_steps": 800, "preset": "paper", "layers": 16}
LOOP = (
    "parameters { real x; } transformed parameters { real z = 0; while (x == x) z += 1; } "
    "model { x ~ normal(z, 1); }"
)

# For what is slow and the same whatever the database.
ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
# For what the database itself does.
ON_BOTH = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


def run_cli(*arguments):
    return subprocess.run(
        [STANFLOW, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def example(status):
    """What the OpenAPI document says that a problem of that status looks like."""
    return documented(status)[status]["content"][MEDIA_TYPE]["example"]


def until(holds, seconds=10):
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Server:
    """A server and a client of it."""

    def __init__(self, folder, *options, env=None):
        self.folder = Path(folder)
        self.log = self.folder.with_name(f"{self.folder.name}.log")  # a pipe would fill up
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [STANFLOW, "serve", "--port", "0", "--data-dir", folder, *map(str, options)],
                stderr=log, env=env,
            )  # fmt: skip
        while not (found := re.search(r"http://\S+?(?=;)", self.log.read_text())):
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        self.url = found[0]
        self.client = httpx.Client(base_url=self.url, timeout=120)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0

    def model(self, program=NORMAL, name="normal"):
        response = self.client.post("/v1/models", json={"program_code": program, "name": name})
        assert response.is_success, response.text
        return response.json()["id"]

    def begin(self, what, model, data=None, key=None, **options):
        response = self.client.post(
            f"/v1/models/{model}/{what}",
            json={"data": data or {}, "options": options},
            headers={} if key is None else {"Idempotency-Key": key},
        )
        assert response.status_code == 202, response.text
        return response.json()["id"]

    def workers(self):
        """Process ids of its workers."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return [int(pid) for pid in listed.stdout.split()]

    def operation(self, job):
        return self.client.get(f"/v1/operations/{job}").json()

    def wait(self, job, *, until=lambda o: o["done"], seconds=300):
        deadline = time.monotonic() + seconds
        while not until(operation := self.operation(job)):
            assert time.monotonic() < deadline, operation
            time.sleep(0.1)
        return operation


@contextmanager
def serving(folder, *options, env=None):
    """A server whose database is SQLite, unless the options say otherwise."""
    server = Server(folder, *options, env=env)
    try:
        yield server
        if server.process.poll() is None:
            server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()
