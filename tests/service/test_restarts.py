"""Servers that are killed or stopped, and started again: what they were at goes on."""

import time
from pathlib import Path

import pytest

from . import servers

DATA = {"y": 1.0}
ONE_AT_A_TIME = ("--jobs", 1, "--threads", 1)
PROGRAM = "parameters { vector[10] x; } model { x ~ student_t(4, 0, 1); }"
LONG = {"max_steps": 800, "preset": "paper", "layers": 16}


def elbo(server, job):
    return server.client.get(f"/v1/fits/{job}").json()["result"]["elbo"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The ELBO of a fit without a break."""
    with servers.serving(tmp_path_factory.mktemp("whole") / "data", *ONE_AT_A_TIME) as server:
        job = server.begin("fits", server.model(PROGRAM), **LONG)
        server.wait(job)
        return elbo(server, job)


def has_checkpoint(server, job):
    """Wait until a fit has kept one."""
    deadline = time.monotonic() + 60
    while not list((server.folder / "jobs" / job).glob("checkpoint*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_after_a_kill_of_the_server_jobs_go_on_where_they_were(serving, whole, tmp_path):
    """The one that ran goes on from its checkpoint, to the numbers of a run without a break."""
    with serving(tmp_path / "data", *ONE_AT_A_TIME) as server:
        model = server.model()
        done = server.begin("nuts", model, DATA, draws=50)
        server.wait(done)
        running = server.begin("fits", server.model(PROGRAM), **LONG)
        queued = server.begin("nuts", model, DATA, draws=60)
        server.wait(running, until=lambda o: o["progress"] is not None)
        has_checkpoint(server, running)
        (worker,) = server.workers()
        server.kill()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{worker}").exists():
            assert time.monotonic() < deadline, "a worker outlives its server"
            time.sleep(0.1)
    with serving(tmp_path / "data", *ONE_AT_A_TIME) as server:
        assert server.operation(done)["status"] == "succeeded"
        again = server.wait(running)
        assert (again["status"], again["attempts"]) == ("succeeded", 2)
        assert elbo(server, running) == whole
        assert server.wait(queued)["status"] == "succeeded"
        rows = server.client.get(f"/v1/nuts/{queued}/draws", params={"limit": 1000}).json()
        assert rows["total"] == 4 * 60


def test_a_server_that_is_stopped_lets_its_jobs_go_on_later(serving, tmp_path):
    with serving(tmp_path / "data", *ONE_AT_A_TIME) as server:
        job = server.begin("fits", server.model(PROGRAM), **{**LONG, "max_steps": 200})
        server.wait(job, until=lambda o: o["progress"] is not None)
    with serving(tmp_path / "data", *ONE_AT_A_TIME) as server:
        operation = server.wait(job)
        assert (operation["status"], operation["attempts"]) == ("succeeded", 1)
