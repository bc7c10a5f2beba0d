"""Connections whose clients keep the server waiting."""

import contextlib
import json
import socket
import time

import pytest

from .servers import example, serving

HEAD = b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LARGE = 50_000_000
HEALTH = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """It waits for a second."""
    with serving(tmp_path_factory.mktemp("slow") / "data", "--request-seconds", 1) as running:
        yield running


def connect(server):
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def drip(connection, seconds=5.0):
    """Send a byte now and then until the other side closes; what came, and whether it closed."""
    connection.settimeout(0.1)
    deadline, came = time.monotonic() + seconds, b""
    while time.monotonic() < deadline:
        try:
            part = connection.recv(2**16)
        except TimeoutError:
            pass
        except ConnectionError:
            return came, True
        else:
            if not part:
                return came, True
            came += part
        try:
            connection.sendall(b"x")
        except ConnectionError:
            return came, True
    return came, False


def read_answer(connection):
    """What came until it is a whole answer to `HEALTH`."""
    came = b""
    while b"}" not in came:
        came += connection.recv(2**16)
    return came


@pytest.mark.parametrize("begun", [b"GET /v1/health HTTP/1.1\r\nX-", HEALTH[:-1]])
def test_a_head_that_comes_slowly_ends_its_connection(server, begun):
    with connect(server) as connection:
        connection.sendall(begun[:-1])
        time.sleep(0.5)
        connection.sendall(begun[-1:])
        came, closed = drip(connection)
    assert closed
    assert came.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 "))  # an x in the wrong place is 400


def test_a_connection_without_a_request_is_closed_without_a_word(server):
    with connect(server) as connection:
        assert connection.recv(100) == b""


@pytest.mark.parametrize("answered", [1, 3])
def test_the_head_of_a_later_request_may_come_slowly_no_more_than_that_of_the_first(
    server, answered
):
    with connect(server) as connection:
        for _ in range(answered):
            connection.sendall(HEALTH)
            assert b" 200 OK" in read_answer(connection)
            time.sleep(0.6)
        connection.sendall(b"GET /v1/health HTTP/1.1\r\nX-")
        came, closed = drip(connection)
    assert (closed, came[:13]) == (True, b"HTTP/1.1 408 ")


def test_a_connection_is_kept_while_its_requests_are_whole(server):
    with connect(server) as connection:
        begun = time.monotonic()
        while time.monotonic() < begun + 3:
            connection.sendall(HEALTH[:30])
            time.sleep(0.3)
            connection.sendall(HEALTH[30:])
            assert b" 200 OK" in read_answer(connection)


def test_requests_that_come_at_once_are_all_answered(server):
    with connect(server) as connection:
        connection.sendall(HEALTH * 20 + HEALTH[:30])
        time.sleep(0.5)
        connection.sendall(HEALTH[30:])
        came = b""
        while came.count(b'"status":"ok"') < 21:
            part = connection.recv(2**16)
            assert part
            came += part


@pytest.mark.parametrize("framing", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
def test_a_body_that_comes_slowly_is_refused(server, framing):
    with connect(server) as connection:
        connection.sendall(HEAD + framing + b"\r\n\r\n10000;")
        came, closed = drip(connection)
    assert closed
    head, _, body = came.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head.lower()
    said = example(408)
    assert json.loads(body) == said | {"detail": said["detail"].replace("20 sec", "1 sec")}


def test_a_body_may_take_longer_the_larger_it_is(server):
    body = json.dumps({"program_code": "x" * 100_000}).encode()
    with connect(server) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
        for begin in range(0, len(body), 20_000):
            connection.sendall(body[begin : begin + 20_000])
            time.sleep(0.6)
        assert connection.recv(100).startswith(b"HTTP/1.1 422 ")


def test_the_rest_of_a_body_that_was_refused_is_not_read_for_long(server):
    refused = HEAD.replace(b"application/json", b"text/plain")
    with connect(server) as connection:
        connection.sendall(refused + b"Content-Length: 100000\r\n\r\n{")
        came, closed = drip(connection)
    assert (closed, came[:13]) == (True, b"HTTP/1.1 415 ")


def test_a_body_that_ends_before_its_end_is_no_defect(server):
    with connect(server) as connection:
        connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n{")
        time.sleep(0.2)
    time.sleep(0.5)
    assert server.client.get("/v1/health").status_code == 200
    assert server.log.read_text().count("\n") == 1  # that it has started


@pytest.fixture(scope="module")
def large(server):
    """A request whose answer has 50 MB."""
    job = server.begin("fits", server.model(), {"y": "x" * LARGE})
    path = f"/v1/operations/{job}/task"
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.slow
def test_who_does_not_take_an_answer_is_cut_off(server, large):
    with connect(server) as connection:
        connection.sendall(large)
        time.sleep(70)
        came = 0
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(2**20):
                came += len(part)
    assert 0 < came < LARGE


@pytest.mark.slow
def test_who_takes_an_answer_slowly_gets_it(server, large):
    with connect(server) as connection:
        connection.sendall(large)
        came = 0
        while part := connection.recv(2**20):
            came += len(part)
            time.sleep(90 * len(part) / LARGE)
    assert came > LARGE
