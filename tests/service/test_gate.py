"""What every request passes: tokens, sizes, rates, headers."""

import json

import pytest

from stanflow.errors import UsageError
from stanflow.service.settings import Settings
from stanflow.service.tokens import hash_token, is_token, make_token

from .servers import NORMAL, ON_SQLITE, run_cli


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
            assert token not in refused.text
        ok = server.client.get("/v1/models", headers={"Authorization": f"Bearer {token}"})
        assert ok.status_code == 200
        assert server.client.get("/v1/health").status_code == 200


@pytest.mark.parametrize("host", ["elsewhere.example", "localhost.elsewhere.example:80", "", "[x"])
def test_without_a_token_it_answers_to_this_machines_names_only(server, host):
    """A page of another site may have its name lead here."""
    refused = server.client.get("/v1/models", headers={"Host": host})
    assert refused.status_code in {400, 421}
    assert server.client.get("/v1/models", headers={"Host": "localhost:1234"}).status_code == 200


def test_tokens_are_long_and_differ():
    one, other = make_token(), make_token()
    assert one != other
    assert len(one) >= 43
    assert is_token(one, hash_token(one))
    assert not is_token(other, hash_token(one))


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_that_are_too_large_are_not_read(server, chunked):
    size = 81 * 2**20
    body = (b" " * 2**20 for _ in range(81)) if chunked else b" " * size
    response = server.client.post(
        "/v1/models", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert "the most that is taken" in response.json()["detail"]


def test_programs_that_are_too_large_are_not_compiled(server):
    code = NORMAL + "/" * 2 + "x" * 2**20
    response = server.client.post("/v1/models", json={"program_code": code})
    assert (response.status_code, "1048576 bytes" in response.json()["detail"]) == (413, True)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[]", 422),
        (b"null", 422),
        (b"", 422),
        (b"[" * 10**5, 400),
    ],
)
def test_what_is_not_json_is_refused(server, content, status):
    response = server.client.post(
        "/v1/models", content=content, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == status, response.text
    assert response.json()["status"] == status
    assert "Traceback" not in response.text


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
