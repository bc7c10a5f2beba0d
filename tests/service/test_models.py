"""Programs over HTTP: compiled, refused, evaluated."""

import numpy as np
import pytest

from .servers import LOOP, NORMAL, ON_BOTH, ON_SQLITE, example

DATA = {"y": 1.0}


@ON_BOTH
def test_a_program_is_one_model_however_often_it_is_sent(server):
    first, second = (
        server.client.post("/v1/models", json={"program_code": NORMAL, "name": "n"})
        for _ in range(2)
    )
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json() == server.client.get(first.headers["location"]).json()
    assert first.json()["data"] == [{"name": "y", "declaration": "real y"}]
    assert first.json() in server.client.get("/v1/models").json()["models"]
    assert server.client.delete(first.headers["location"]).status_code == 204
    assert server.client.get(first.headers["location"]).status_code == 404


def test_a_program_that_does_not_compile_is_refused_at_its_line(server):
    program = "parameters {\n  real x;\n}\nmodel {\n  x ~ normal(0, y);\n}"
    response = server.client.post("/v1/models", json={"program_code": program, "name": "bad"})
    problem = response.json()
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert (problem["kind"], problem["line"], problem["column"]) == ("program", 5, 16)
    assert "bad.stan, line 5" in problem["detail"]
    assert '"y" not in scope' in problem["detail"]
    response = server.client.post(
        "/v1/models", json={"program_code": "parameters { real x; } model { x ~ normal(0, y); }"}
    )
    assert {**response.json(), "output": None} == {**example(422), "output": None}


def test_a_model_that_is_not_there_is_said(server):
    assert server.client.get("/v1/models/feedc0ffee123456").json() == example(404)


@pytest.mark.parametrize("file", ["/etc/passwd", "../secret.stan", "near.stan"])
def test_include_reaches_no_file(server, file):
    (server.folder / "calls" / "near.stan").write_text("// here")
    program = f"// text\n#include {file}\nparameters {{ real x; }} model {{ x ~ normal(0, 1); }}"
    response = server.client.post("/v1/models", json={"program_code": program})
    assert (response.status_code, response.json()["line"]) == (422, 2)
    assert "without #include" in response.json()["detail"]


def test_densities_are_those_of_the_program(server):
    """Of mu ~ N(0, 1), y ~ N(mu, 1) at y = 1: -mu^2/2 - (1-mu)^2/2 - log 2 pi."""
    model = server.model()
    mu = np.array([-1.0, 0.0, 2.5])
    asked = {"data": DATA, "unconstrained": mu[:, None].tolist()}
    found = server.client.post(f"/v1/models/{model}/log_prob_grad", json=asked).json()
    expected = -(mu**2) / 2 - (1 - mu) ** 2 / 2 - np.log(2 * np.pi)
    np.testing.assert_allclose(found["log_prob"], expected)
    np.testing.assert_allclose(np.array(found["gradient"])[:, 0], 1 - 2 * mu)
    assert found["normalized"]
    alone = server.client.post(f"/v1/models/{model}/log_prob", json=asked).json()
    assert alone == {key: found[key] for key in ("log_prob", "normalized")}


def test_draws_go_to_the_programs_scale_and_back(server):
    program = (
        "parameters { real<lower=0> s; } model { s ~ exponential(1); } "
        "generated quantities { real t = 2 * s; }"
    )
    model = server.model(program, "scale")
    asked = {"unconstrained": [[0.5]]}
    found = server.client.post(f"/v1/models/{model}/write_array", json=asked).json()
    assert found["columns"] == ["s", "t"]
    np.testing.assert_allclose(found["values"], [[np.exp(0.5), 2 * np.exp(0.5)]])
    back = server.client.post(
        f"/v1/models/{model}/transform_inits", json={"parameters": {"s": found["values"][0][0]}}
    )
    np.testing.assert_allclose(back.json()["unconstrained"], [0.5])
    params = server.client.post(f"/v1/models/{model}/params", json={}).json()
    assert (params["dim"], params["unconstrained"], params["shapes"]) == (
        1, ["s"], {"s": [], "t": []},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("what", "asked", "kind", "says"),
    [
        ("log_prob", {"unconstrained": [[0.0]]}, "data", "y is missing"),
        ("log_prob", {"data": DATA, "unconstrained": [[0.0, 1.0]]}, "data", "must have 1 number"),
        ("log_prob", {"data": DATA, "unconstrained": []}, "usage", "unconstrained"),
        ("log_prob", {"data": DATA, "unconstrained": "0"}, "usage", "unconstrained"),
        ("transform_inits", {"data": DATA, "parameters": {}}, "data", "mu"),
        ("params", {"data": {"y": "one"}}, "data", "y"),
        ("params", {"dat": DATA}, "usage", "dat"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_program_is_refused(server, what, asked, kind, says):
    response = server.client.post(f"/v1/models/{server.model()}/{what}", json=asked)
    assert (response.status_code, response.json()["kind"]) == (422, kind)
    assert says in response.json()["detail"]
    assert "Traceback" not in response.text


@ON_SQLITE
def test_a_program_that_loops_is_ended_and_others_go_on(serving, tmp_path):
    with serving(tmp_path / "data", "--call-seconds", 8) as server:
        model = server.model(LOOP, "loop")
        response = server.client.post(
            f"/v1/models/{model}/log_prob", json={"unconstrained": [[0.0]]}
        )
        assert (response.status_code, response.json()["kind"]) == (422, "limit")
        assert "8 seconds" in response.json()["detail"]
        assert server.model()
        assert list((tmp_path / "data" / "calls").iterdir()) == []
