"""What goes wrong, from outside: nothing finished is lost, nothing hangs."""

import os
import select
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .servers import DATA, LONG, LOOP, ON_SQLITE, example, run_cli, until

ALLOCATES = (
    "parameters { real x; } transformed parameters { real s = 0; "
    "{ vector[2000000000] big = rep_vector(x, 2000000000); s = sum(big) * 0; } } "
    "model { x ~ normal(s, 1); }"
)


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


@pytest.mark.slow
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


@pytest.mark.slow
@ON_SQLITE
def test_a_second_server_disturbs_nothing(serving, tmp_path):
    with serving(tmp_path / "data", "--call-seconds", 8) as server:
        loop = server.model(LOOP, "loop")
        with ThreadPoolExecutor(1) as pool:
            asked = {"unconstrained": [[0.0]]}
            running = pool.submit(server.client.post, f"/v1/models/{loop}/log_prob", json=asked)
            until(lambda: list((server.folder / "calls").glob("call-*/task.json")))
            second = run_cli("serve", "--port", 0, "--data-dir", server.folder)
            assert (second.returncode, "another server" in second.stderr) == (2, True)
            assert list((server.folder / "calls").glob("call-*/task.json"))
            problem = running.result().json()
        assert (problem["kind"], "8 seconds" in problem["detail"]) == ("limit", True)


def abandoned(server, path, body):
    """A connection that has asked and will not wait for the answer."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def looping(server, model):
    """A connection that has asked for the density of a program that loops."""
    return abandoned(server, f"/v1/models/{model}/log_prob", b'{"unconstrained": [[0.0]]}')


@ON_SQLITE
def test_calls_whose_clients_are_gone_end(serving, tmp_path):
    with serving(tmp_path / "data", "--call-seconds", 100) as server:
        loop = server.model(LOOP, "loop")
        calls = [abandoned(server, f"/v1/models/{loop}/params", b'{"data": {}}') for _ in range(12)]
        until(server.workers)
        for connection in calls:
            connection.close()
        until(lambda: not server.workers(), seconds=30)
        until(lambda: not list((server.folder / "calls").glob("call-*")))


@pytest.mark.slow
@ON_SQLITE
def test_compiling_does_not_wait_for_evaluating(serving, tmp_path):
    with serving(tmp_path / "data", "--call-seconds", 100) as server:
        loop = server.model(LOOP, "loop")
        calls = [looping(server, loop) for _ in range(12)]
        until(server.workers)
        began = time.monotonic()
        assert server.model()
        assert time.monotonic() - began < 60
        assert server.workers()
        for connection in calls:
            connection.close()


@pytest.mark.slow
@ON_SQLITE
def test_more_calls_than_may_wait_are_refused(serving, tmp_path):
    with serving(tmp_path / "data", "--call-seconds", 100) as server:
        loop = server.model(LOOP, "loop")
        calls = [looping(server, loop) for _ in range(40)]
        answered = 40 - 1 - 32  # one client has one of two places
        until(lambda: len(select.select(calls, [], [], 0)[0]) >= answered, seconds=60)
        refused = select.select(calls, [], [], 1.0)[0]
        assert len(refused) == answered
        assert b" 503 " in refused[0].recv(100)
        for connection in calls:
            connection.close()


@ON_SQLITE
def test_a_server_that_is_stopped_waits_for_no_call(serving, tmp_path):
    with serving(tmp_path / "data", "--call-seconds", 100) as server:
        loop = server.model(LOOP, "loop")
        call = looping(server, loop)
        job = server.begin("fits", server.model(), DATA, max_steps=10**6)
        with server.client.stream("GET", f"/v1/operations/{job}/events"):
            until(lambda: len(server.workers()) == 2)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(5) == 0
        assert b" 503 " in call.recv(100)


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
