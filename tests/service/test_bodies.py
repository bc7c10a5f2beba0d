"""Bodies of requests: how they are kept and read."""

import json
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stanflow.service.bodies import BodyRoute
from stanflow.service.routes import models, operations

from .servers import LOOP, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("bodies") / "data", "--most-values", 300_000) as running:
        yield running


def post(server, path, body):
    return server.client.post(path, content=body, headers={"Content-Type": "application/json"})


def test_every_body_is_read_beside_the_event_loop():
    routes = [*models.router.routes, *operations.router.routes]
    with_body = [route for route in routes if route.body_field is not None]
    assert len(with_body) == 9
    assert all(isinstance(route, BodyRoute) for route in with_body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": {"y": [%s]}}' % b",".join([b"0"] * 300_000),
        b'{"data": {"y": [%s]}}' % b",".join([b"[]"] * 200_000),
        b'{"data": {%s}}' % b",".join(b'"x%d":1' % k for k in range(200_000)),
        b'{"data": {"y": %s' % (b"[" * 400_000),
    ],
)
def test_bodies_with_too_many_values_are_refused(server, body):
    response = post(server, "/v1/models/feedc0ffee123456/params", body)
    said = "the body has more than 300000 values and names, the most that is taken"
    assert (response.status_code, response.json()["detail"]) == (413, said)


def test_large_bodies_are_read(server):
    body = b'{"data": {"y": 1.0, "extra": [%s]}}' % b", ".join([b"0.123456789"] * 250_000)
    response = post(server, f"/v1/models/{server.model()}/params", body)
    assert response.is_success, response.text
    assert response.json()["ignored_data"] == ["extra"]


def test_data_may_have_numbers_that_are_not_finite(server):
    model = server.model("data { array[4] real y; } parameters { real mu; }", "any")
    path, body = f"/v1/models/{model}/params", b'{"data": {"y": [%s, Infinity, -Infinity, 1e999]}}'
    assert post(server, path, body % b"0.5").is_success
    assert post(server, path, body % b"NaN").is_success
    refused = post(server, path, body % b"null").json()
    assert (refused["kind"], "y has a missing value" in refused["detail"]) == ("data", True)


@pytest.mark.parametrize("what", ["params", "nuts"])
def test_data_that_are_nested_as_deeply_as_can_be_read_are_no_defect(server, what):
    data = b'{"data": {"y": %s%s}}' % (b"[" * 195, b"]" * 195)
    response = post(server, f"/v1/models/{server.model()}/{what}", data)
    assert response.status_code == (202 if what == "nuts" else 422), response.text
    if what == "nuts":
        asked = server.client.get(f"/v1/operations/{response.json()['id']}/task")
        assert asked.json()["data"] == json.loads(data)["data"]


@pytest.mark.parametrize(
    ("what", "body", "says"),
    [
        (
            "params",
            b"{%s}" % b",".join(b'"x%d":1' % k for k in range(100_000)),
            "x0: extra inputs are not permitted",
        ),
        (
            "log_prob",
            b'{"unconstrained": [%s]}' % b",".join([b'["a","b"]'] * 50_000),
            "unconstrained.0.0: input should be a valid number",
        ),
    ],
)
def test_of_mistakes_without_number_some_are_told(server, what, body, says):
    begun = time.monotonic()
    response = post(server, f"/v1/models/feedc0ffee123456/{what}", body)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(says)
    assert len(response.json()["detail"]) < 100
    assert time.monotonic() - begun < 1


def test_bodies_that_are_not_whole_are_not_in_memory(server):
    def megabytes():
        told = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(server.process.pid)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return int(told.stdout) / 1024

    host, port = server.url.removeprefix("http://").split(":")
    head = (
        b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 30000000\r\n\r\n"
    )
    before = megabytes()
    connections = [socket.create_connection((host, int(port)), timeout=10) for _ in range(10)]
    for connection in connections:
        connection.sendall(head + b" " * 20_000_000)
    server.client.get("/v1/health")
    assert megabytes() - before < 50
    for connection in connections:
        connection.close()


@pytest.mark.slow
def test_one_large_body_of_a_client_is_answered_at_a_time_and_small_ones_meanwhile(tmp_path):
    with serving(tmp_path / "data", "--most-values", 1000, "--call-seconds", 8) as server:
        model, begun = server.model("data { real y; } " + LOOP, "loop"), time.monotonic()

        def seconds(values):
            data = {"y": 1.0, "more": [0] * values}
            asked = {"data": data, "unconstrained": [[0.0]]}
            answer = server.client.post(f"/v1/models/{model}/log_prob", json=asked)
            assert answer.json()["kind"] == "limit", answer.text
            return time.monotonic() - begun

        with ThreadPoolExecutor() as pool:
            large = [pool.submit(seconds, 900) for _ in range(2)]
            first, second = sorted(future.result() for future in large)
            assert second - first > 7
            begun = time.monotonic()
            large = pool.submit(seconds, 900)
            time.sleep(1)
            compiled = server.client.post("/v1/models", json={"program_code": "parameters {}"})
            assert compiled.is_success, compiled.text
            assert not large.done()
