"""What every request passes: tokens, origins, types, sizes, rates, headers."""

import json
import time

import pytest

from stanflow.errors import UsageError
from stanflow.service.settings import Settings
from stanflow.service.tokens import hash_token, is_token, make_token

from .servers import NORMAL, ON_SQLITE, example, run_cli


def test_a_server_that_others_can_reach_needs_a_token(tmp_path):
    with pytest.raises(UsageError, match="clients must bring a token"):
        Settings(tmp_path, host="0.0.0.0")
    Settings(tmp_path, host="0.0.0.0", token_hash=hash_token("x"))
    done = run_cli("serve", "--host", "0.0.0.0", "--data-dir", tmp_path / "data")
    assert (done.returncode, "stanflow token" in done.stderr) == (2, True)
    assert not (tmp_path / "data").exists()


@ON_SQLITE
def test_only_who_has_the_token_is_answered(serving, tmp_path):
    made = run_cli("token", tmp_path / "hash")
    token = made.stdout.strip()
    assert token not in (tmp_path / "hash").read_text()
    assert (tmp_path / "hash").stat().st_mode & 0o077 == 0
    again = run_cli("token", tmp_path / "hash")
    assert (again.returncode, "there already" in again.stderr) == (2, True)
    with serving(tmp_path / "data", "--token-file", tmp_path / "hash") as server:
        for header in (None, "Bearer", f"Basic {token}", "Bearer guess", f"Bearer {token}x"):
            headers = {} if header is None else {"Authorization": header}
            refused = server.client.get("/v1/models", headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert refused.json() == example(401)
            assert token not in refused.text
        ok = server.client.get("/v1/models", headers={"Authorization": f"Bearer {token}"})
        assert ok.status_code == 200
        assert server.client.get("/v1/health").status_code == 200


@pytest.mark.parametrize("host", ["elsewhere.example", "localhost.elsewhere.example:80", "", "[x"])
def test_without_a_token_it_answers_to_this_machines_names_only(server, host):
    """A page of another site may have its name lead here."""
    refused = server.client.get("/v1/models", headers={"Host": host})
    assert refused.status_code in {400, 421}
    if refused.status_code == 421:
        assert refused.json() == example(421)
    assert server.client.get("/v1/models", headers={"Host": "localhost:1234"}).status_code == 200


def test_tokens_are_long_and_differ():
    one, other = make_token(), make_token()
    assert one != other
    assert len(one) >= 43
    assert is_token(one, hash_token(one))
    assert not is_token(other, hash_token(one))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_pages_of_other_sites_change_nothing(server, method):
    def answer(origin, host="localhost:8000"):
        headers = {"Host": host, "Origin": origin}
        return server.client.request(method, "/v1/models/feedc0ffee123456", headers=headers)

    refused = answer("https://elsewhere.example")
    assert (refused.status_code, refused.json()) == (403, example(403))
    for origin in (
        "null",
        "",
        "http://localhost",
        "http://localhost:3000",
        "http://127.0.0.1:8000",
    ):
        assert answer(origin).status_code == 403, origin
    for origin in ("http://localhost:8000", "HTTPS://LOCALHOST:8000"):
        assert answer(origin).status_code in {404, 405}, origin
    assert answer("http://localhost", "localhost:80").status_code in {404, 405}
    assert answer("https://localhost:443", "localhost").status_code in {404, 405}
    read = server.client.get("/v1/models", headers={"Origin": "https://elsewhere.example"})
    assert read.status_code == 200


@ON_SQLITE
def test_a_token_makes_no_page_of_this_server(serving, tmp_path):
    token = run_cli("token", tmp_path / "hash").stdout.strip()
    with serving(tmp_path / "data", "--token-file", tmp_path / "hash") as server:
        headers = {"Authorization": f"Bearer {token}", "Origin": "https://elsewhere.example"}
        new = {"program_code": NORMAL}
        assert server.client.post("/v1/models", json=new, headers=headers).status_code == 403
        # As a proxy that encrypts passes it on.
        headers |= {"Host": "elsewhere.example"}
        assert server.client.post("/v1/models", json=new, headers=headers).status_code == 201


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "kind",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "text/json", "json", "+json"],
)
def test_bodies_that_are_not_said_to_be_json_are_refused(server, kind, chunked):
    """A page of another site may send such without being asked."""
    body = json.dumps({"program_code": NORMAL}).encode()
    response = server.client.post(
        "/v1/models",
        content=iter([body]) if chunked else body,
        headers={} if kind is None else {"Content-Type": kind},
    )
    assert (response.status_code, response.json()) == (415, example(415))


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/problem+JSON"])
def test_bodies_that_are_said_to_be_json_are_read(server, kind):
    body = json.dumps({"program_code": NORMAL})
    response = server.client.post("/v1/models", content=body, headers={"Content-Type": kind})
    assert response.is_success, response.text


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_that_are_too_large_are_not_read(server, chunked):
    size = 81 * 2**20
    body = (b" " * 2**20 for _ in range(81)) if chunked else b" " * size
    response = server.client.post(
        "/v1/models", content=body, headers={"Content-Type": "application/json"}
    )
    assert (response.status_code, response.json()) == (413, example(413))


def test_programs_that_are_too_large_are_not_compiled(server):
    code = NORMAL + "/" * 2 + "x" * 2**20
    response = server.client.post("/v1/models", json={"program_code": code})
    assert (response.status_code, "1048576 bytes" in response.json()["detail"]) == (413, True)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"nope", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[]", 422),
        (b"null", 422),
        (b"", 422),
        (b"[" * 10**5, 400),
        (b'{"program_code": 1%s}' % (b"0" * 5000), 400),
        (rb'{"program_code": "\ud800"}', 400),
        (rb'{"program_code": "// \u0000"}', 422),
        (rb'{"\ud800": 1}', 400),
        (rb'{"data": {"y": [1, {"x": "\udfff\ud800"}]}}', 400),
        (b'{"program_code": "\xed\xa0\x80"}', 400),
    ],
)
def test_what_is_not_json_is_refused(server, content, status):
    response = server.client.post(
        "/v1/models", content=content, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == status, response.text
    assert response.json()["status"] == status
    assert "Traceback" not in response.text
    if content == b"nope":
        assert response.json() == example(400)


def test_data_that_are_nested_without_end_are_refused(server):
    data = b'{"data": {"y": %s%s}}' % (b"[" * 900, b"]" * 900)
    for what in ("params", "fits"):
        response = server.client.post(
            f"/v1/models/{server.model()}/{what}",
            content=data, headers={"Content-Type": "application/json"},
        )  # fmt: skip
        assert response.status_code == 400
        assert "nested too deeply at line 1 column 2" in response.json()["detail"]


def test_a_method_that_a_path_has_not_is_refused_with_those_that_it_has(server):
    refused = server.client.put("/v1/models")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST")
    assert server.client.get("/v1/models/").status_code == 404


@ON_SQLITE
def test_who_asks_too_often_waits_and_others_do_not(serving, tmp_path):
    with serving(tmp_path / "data", "--requests-a-minute", 30) as server:
        answered = 0
        while (refused := server.client.get("/v1/health")).status_code == 200:
            answered += 1
            assert answered < 60
        assert answered >= 30
        said = example(429)["detail"].replace("60000", "30")
        assert (refused.status_code, refused.json()["detail"]) == (429, said)
        # Behind a proxy on this machine clients are told apart by whom it answers.
        other = server.client.get("/v1/health", headers={"X-Forwarded-For": "192.0.2.1"})
        assert other.status_code == 200
        time.sleep(int(refused.headers["retry-after"]))
        assert server.client.get("/v1/health").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/../../etc/passwd", "/v1/models/%2e%2e%2f%2e%2e", "/v1/fits/..%2f..%2fx/draws",
        "/v1/fits/%00", "/v1/nowhere", "/v1/operations/x", "/v1/models/" + "a" * 5000,
    ],
)  # fmt: skip
def test_paths_lead_to_no_file(server, path):
    response = server.client.get(path)
    assert response.status_code == 404
    assert json.loads(response.text)["title"] == "Not Found"


def test_every_response_has_security_headers(server):
    for path in ("/v1/health", "/v1/nowhere"):
        headers = server.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers
    preflight = server.client.options(
        "/v1/models",
        headers={"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"},
    )
    assert "access-control-allow-origin" not in preflight.headers
