"""Many clients, each of which asks again, of a server that is killed: every job is done once."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from .servers import NORMAL, ON_SQLITE, Server

CLIENTS, JOBS_OF_EACH, KILLS = 30, 10, 2


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def insistently(ask):
    """Ask until there is an answer that is no 503."""
    while True:
        try:
            response = ask()
        except httpx.HTTPError:
            time.sleep(0.5)
            continue
        if response.status_code != 503:
            assert response.is_success, response.text
            return response.json()
        time.sleep(0.5)


def begun(url, client):
    """What one client is told when it sends each job, and when it sends it again."""
    with httpx.Client(base_url=url, timeout=60) as http:
        asked = {"program_code": NORMAL, "name": "normal"}
        model = insistently(lambda: http.post("/v1/models", json=asked))["id"]
        told = {}
        for _ in range(2):
            for job in range(JOBS_OF_EACH):
                key = f"{client}-{job}"
                body = {
                    "data": {"y": float(client)},
                    "options": {"draws": 10, "warmup": 20, "chains": 1, "seed": job},
                }
                headers = {"Idempotency-Key": key}
                answer = insistently(
                    lambda body=body, headers=headers: http.post(
                        f"/v1/models/{model}/nuts", json=body, headers=headers
                    )
                )
                told.setdefault(key, set()).add(answer["id"])
        return told


@pytest.mark.slow
@ON_SQLITE
def test_every_job_is_done_once_though_the_server_is_killed(database, tmp_path):
    folder, port = tmp_path / "data", free_port()
    options = ("--port", port, "--queue", CLIENTS * JOBS_OF_EACH, *database(folder))
    server = Server(folder, *options)
    wanted = CLIENTS * JOBS_OF_EACH
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            telling = [pool.submit(begun, server.url, client) for client in range(CLIENTS)]
            for kill in range(1, KILLS + 1):
                finished(server, wanted * kill // (KILLS + 2))
                server.kill()
                server = Server(folder, *options)
            told = {key: ids for client in telling for key, ids in client.result().items()}
        assert all(len(ids) == 1 for ids in told.values())
        assert len({job for (job,) in told.values()}) == wanted
        finished(server, wanted)
        operations = server.client.get("/v1/operations", params={"limit": 1000}).json()
        statuses = [operation["status"] for operation in operations["operations"]]
        assert statuses == ["succeeded"] * wanted
        for (job,) in told.values():
            assert server.client.get(f"/v1/nuts/{job}/draws").json()["total"] == 10
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()


def finished(server, jobs, seconds=1800):
    """Wait until so many jobs have succeeded."""
    deadline = time.monotonic() + seconds
    while True:
        found = insistently(lambda: server.client.get("/v1/nuts", params={"limit": 1000}))
        if len(found["runs"]) >= jobs:
            return
        assert time.monotonic() < deadline, len(found["runs"])
        time.sleep(0.5)
