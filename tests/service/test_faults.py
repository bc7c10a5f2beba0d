"""What goes wrong, from outside: nothing finished is lost, nothing hangs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from .servers import LOOP, ON_SQLITE, SLOW_ON_POSTGRESQL, example

DATA = {"y": 1.0}
LONG = {"max_steps": 800, "preset": "paper", "layers": 16}
ALLOCATES = (
    "parameters { real x; } transformed parameters { real s = 0; "
    "{ vector[2000000000] big = rep_vector(x, 2000000000); s = sum(big) * 0; } } "
    "model { x ~ normal(s, 1); }"
)


@SLOW_ON_POSTGRESQL
def test_a_worker_that_is_killed_fails_its_job_alone(server):
    job = server.begin("fits", server.model(), DATA, **LONG)
    server.wait(job, until=lambda o: o["progress"] is not None)
    os.kill(server.workers()[0], signal.SIGKILL)
    operation = server.wait(job)
    assert (operation["status"], operation["failure"]["kind"]) == ("failed", "crash")
    assert "SIGKILL" in operation["failure"]["detail"]
    assert (
        server.wait(server.begin("nuts", server.model(), DATA, draws=10))["status"] == "succeeded"
    )


@ON_SQLITE
def test_a_job_that_loops_or_takes_too_much_memory_is_ended(serving, tmp_path):
    with serving(tmp_path / "data", "--job-seconds", 6, "--memory-mb", 2048, "--jobs", 2) as server:
        loops = server.begin("fits", server.model(LOOP, "loop"))
        allocates = server.begin("fits", server.model(ALLOCATES, "allocates"))
        failure = server.wait(loops)["failure"]
        assert (failure["kind"], "6 seconds" in failure["detail"]) == ("limit", True)
        failure = server.wait(allocates)["failure"]
        assert failure["kind"] in {"limit", "crash", "numerics"}, failure
        assert server.client.get("/v1/health").json()["running"] == 0


@SLOW_ON_POSTGRESQL
def test_as_many_jobs_wait_as_may_and_all_are_run(serving, tmp_path):
    with serving(tmp_path / "data", "--queue", 100, "--jobs", 1) as server:
        model = server.model()
        first = server.begin("fits", server.model(LOOP, "loop"))
        server.wait(first, until=lambda o: o["status"] == "running")
        jobs = [server.begin("nuts", model, DATA, draws=10, chains=1) for _ in range(100)]
        refused = server.client.post(f"/v1/models/{model}/nuts", json={"data": DATA})
        assert (refused.status_code, refused.json()) == (503, example(503))
        assert int(refused.headers["retry-after"]) > 0
        for job in jobs[3:]:
            server.client.delete(f"/v1/operations/{job}")
        server.client.delete(f"/v1/operations/{first}")
        assert {server.wait(job)["status"] for job in jobs[:3]} == {"succeeded"}
        assert {server.operation(job)["status"] for job in jobs[3:]} == {"cancelled"}


def test_clients_that_vanish_leave_nothing_behind(server):
    host, port = server.url.removeprefix("http://").split(":")
    for request in (
        b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b'Content-Length: 100000\r\n\r\n{"program_code": "par',
        b"GET /v1/operations/%s/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        % server.begin("fits", server.model(), DATA, max_steps=500).encode(),
    ):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(request)
            time.sleep(0.5)
    assert server.client.get("/v1/health").status_code == 200
    assert list((Path(server.folder) / "calls").glob("call-*")) == []


def fill(path):
    """Write to a file until there is no room."""
    with suppress(OSError), path.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


@SLOW_ON_POSTGRESQL
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_said_and_loses_nothing(serving, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small disk cannot be mounted here")
    try:
        with serving(disk / "data") as server:
            model = server.model()
            done = server.begin("nuts", model, DATA, draws=10)
            server.wait(done)
            fill(disk / "filler")
            data = {"y": 1.0, "ignored": [1.0] * 100_000}
            refused = server.client.post(f"/v1/models/{model}/fits", json={"data": data})
            assert refused.status_code in {503, 507}, refused.text
            if refused.status_code == 507:
                assert refused.json() == example(507)
            assert server.operation(done)["status"] == "succeeded"
            (disk / "filler").unlink()
            assert server.wait(server.begin("nuts", model, DATA, draws=10))["done"]
    finally:
        subprocess.run(["umount", disk], check=False)


def test_a_run_whose_files_are_gone_is_said(server):
    job = server.begin("nuts", server.model(), DATA, draws=10)
    assert server.wait(job)["status"] == "succeeded"
    shutil.rmtree(server.folder / "jobs" / job)
    for path in (f"nuts/{job}/draws", f"nuts/{job}/draws?format=netcdf", f"operations/{job}/task"):
        response = server.client.get(f"/v1/{path}")
        assert response.status_code == 404
        assert "its files are not in the server's data folder" in response.json()["detail"]
    assert server.client.get(f"/v1/nuts/{job}").status_code == 200
    assert server.client.delete(f"/v1/nuts/{job}").status_code == 204


@ON_SQLITE
def test_progress_that_is_half_written_is_not_shown(server):
    job = server.begin("fits", server.model(), DATA, max_steps=300)
    server.wait(job)
    with (Path(server.folder) / "jobs" / job / "progress.jsonl").open("a") as file:
        file.write('{"step": 99999')
    lines = server.client.get(f"/v1/operations/{job}/events").text.splitlines()
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert max(step["step"] for step in told if "step" in step) <= 300
    assert told[-1]["status"] == "succeeded"
