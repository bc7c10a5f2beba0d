"""The server under load: many clients ask how jobs stand while fits run.

A server of its own, on SQLite, runs some fits at a time; every client keeps a connection and asks
for one job's state once in an interval, as the page does. The script reports how many requests
failed, quantiles of the time until the answer, and the server's memory after every thousand.

    python benchmarks/service_load.py [--clients 200] [--fits 4] [--interval 2.0] [--requests 10000]
        [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

STANFLOW = Path(sys.executable).with_name("stanflow")
MODEL = Path(__file__).parents[1] / "stan_models" / "hierarchical_schools"
REQUESTS_BETWEEN_LOOKS = 1000
WARMUP = 2000  # requests after which caches and pools have their size


@contextmanager
def serving(folder: Path, fits: int) -> Iterator[tuple[str, int]]:
    """Start a server; its URL and process id."""
    command = [
        STANFLOW, "serve", "--port", "0", "--data-dir", folder, "--jobs", str(fits),
        "--threads", "1",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        yield server.stderr.readline().split()[2].rstrip(";"), server.pid
        server.terminate()


def begin_fits(url: str, fits: int) -> list[str]:
    """Begin fits that outlast the measurement."""
    with httpx.Client(base_url=url, timeout=60) as client:
        program = (MODEL / "hierarchical_schools.stan").read_text()
        data = json.loads((MODEL / "hierarchical_schools.json").read_text())
        new = {"program_code": program, "name": "hierarchical_schools"}
        model = client.post("/v1/models", json=new).raise_for_status().json()["id"]
        options = {"max_steps": 1_000_000, "preset": "paper"}
        jobs = [
            client.post(
                f"/v1/models/{model}/fits", json={"data": data, "options": options | {"seed": seed}}
            )
            .raise_for_status()
            .json()["id"]
            for seed in range(1, fits + 1)
        ]
        while not all(client.get(f"/v1/operations/{job}").json()["progress"] for job in jobs):
            time.sleep(0.5)
    return jobs


def resident_mb(process: int) -> float:
    """Return the memory that a process has."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Load:
    """Clients that ask, and what they saw.

    They are threads with a connection each of the standard library's, which takes a fraction of the
    time that the server takes: clients that are slow themselves would measure that.
    """

    def __init__(self, url: str, server: int, jobs: list[str], requests: int) -> None:
        self.address = urlsplit(url).netloc
        self.server, self.jobs, self.requests = server, jobs, requests
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.memory: list[float] = []

    @property
    def made(self) -> int:
        return len(self.seconds) + len(self.failures)

    def run(self, clients: int, interval: float) -> float:
        """Ask until enough was asked; return how long that took."""
        threads = [Thread(target=self._client, args=(k, interval)) for k in range(clients)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if self.made >= REQUESTS_BETWEEN_LOOKS * (len(self.memory) + 1):
                self.memory.append(resident_mb(self.server))
            time.sleep(0.1)
        return time.perf_counter() - began

    def _client(self, number: int, interval: float) -> None:
        path = f"/v1/operations/{self.jobs[number % len(self.jobs)]}"
        connection = HTTPConnection(self.address, timeout=30)
        due = time.perf_counter() + random.Random(number).uniform(0, interval)
        while self.made < self.requests:
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            due = began + interval
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
                took = time.perf_counter() - began
                if response.status == HTTPStatus.OK and json.loads(body)["status"] == "running":
                    self.seconds.append(took)
                else:
                    self.failures.append(f"{response.status} {body!r}")
            except (OSError, HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
        connection.close()


def measure(clients: int, fits: int, interval: float, requests: int) -> dict[str, Any]:
    """Return what was asked, and what came of it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), fits) as (url, server),
    ):
        load = Load(url, server, begin_fits(url, fits), requests + WARMUP)
        took = load.run(clients, interval)
    steady = load.memory[WARMUP // REQUESTS_BETWEEN_LOOKS - 1 :]
    milliseconds = 1000 * np.quantile(load.seconds[WARMUP:], [0.5, 0.9, 0.99, 1.0])
    return {
        "clients": clients,
        "fits": fits,
        "cores": os.cpu_count(),
        "interval": interval,
        "requests": load.made,
        "requests_a_second": load.made / took,
        "failed": len(load.failures),
        "failures": load.failures[:5],
        "milliseconds": dict(zip(("p50", "p90", "p99", "max"), milliseconds, strict=True)),
        "memory_mb": load.memory,
        "memory_growth_mb": steady[-1] - steady[0],
    }


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--fits", type=int, default=4)
    parser.add_argument(
        "--interval", type=float, default=2.0, help="seconds between a client's requests"
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    found = measure(asked.clients, asked.fits, asked.interval, asked.requests)
    print(json.dumps(found, indent=2))
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
