"""The Python client, against a running server."""

import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import arviz
import httpx
import numpy as np
import pytest

import stanflow
from stanflow.errors import DataError, UsageError
from stanflow.service.client import Job, ServiceError
from stanflow.stan.data import bind_data
from stanflow.stan.program import StanProgram

from .servers import NORMAL, ON_SQLITE

LONG = {"max_steps": 300, "preset": "paper"}
BOUNDED = (
    "data { array[3] real b; } parameters { real<lower=b[2], upper=b[1]> x; } "
    "model { x ~ normal(0, 1); }"
)


class Proxy(BaseHTTPRequestHandler):
    """One whose server is away."""

    def do_GET(self):
        self.send_error(502)

    def log_message(self, *said):
        pass


@pytest.fixture(scope="module")
def client(server):
    with stanflow.Client(server.url) as connected:
        yield connected


@ON_SQLITE
def test_from_a_program_to_a_comparison(client, tmp_path):
    program, data = tmp_path / "normal.stan", tmp_path / "normal.json"
    program.write_text(NORMAL)
    data.write_text('{"y": 1.0}')
    model = client.model(program)
    assert (model.name, model.data) == ("normal", ("real y",))
    steps = []
    fit = client.fit(model, data, seed=1, max_steps=600).result(steps.append)
    assert steps
    assert fit["verdict"] == "good"
    draws = fit.draws_pd()
    assert len(draws) == 4000
    assert fit.summary().loc["mu", "Mean"] == pytest.approx(draws["mu"].mean())
    read = arviz.from_netcdf(fit.save_netcdf(tmp_path / "draws.nc"))
    np.testing.assert_array_equal(read.posterior["mu"].values[0], draws["mu"])
    reference = client.nuts(model, {"y": np.float64(1.0)}, seed=1).result()
    comparison = client.compare(fit, reference).result()
    assert comparison["agreement"] == "agree"
    assert "<html" in comparison.save_report(tmp_path / "report.html").read_text()
    fit.delete()
    with pytest.raises(ServiceError, match="there is no fit"):
        client.run("fit", fit.id)


@ON_SQLITE
def test_what_is_wrong_is_one_sentence(client, tmp_path):
    with pytest.raises(ServiceError, match="not in scope") as raised:
        client.model(stan_code="parameters { real x; } model { x ~ normal(0, y); }")
    assert (raised.value.problem["kind"], raised.value.problem["line"]) == ("program", 1)
    with pytest.raises(UsageError, match="either as a file or as code"):
        client.model()
    with pytest.raises(UsageError, match=r"nowhere\.stan cannot be read: no such file"):
        client.model(tmp_path / "nowhere.stan")
    with pytest.raises(ServiceError, match="y is missing"):
        client.nuts(client.model(stan_code=NORMAL)).result()
    with pytest.raises(ServiceError, match="layers"):
        client.fit(client.model(stan_code=NORMAL), layers=-1)


@ON_SQLITE
def test_a_job_can_be_cancelled(client):
    job = client.fit(client.model(stan_code=NORMAL), {"y": 1}, preset="paper")
    job.cancel()
    assert job.status() == "cancelled"
    with pytest.raises(ServiceError, match="cancelled"):
        job.result()


def test_a_server_that_is_not_there_is_said():
    with stanflow.Client("http://127.0.0.1:9") as client:
        with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9.* does not answer"):
            client.model(stan_code=NORMAL)
        with pytest.raises(ServiceError, match="does not answer"):
            list(client._events("/v1/operations/x/events"))


@pytest.mark.slow
@ON_SQLITE
def test_a_job_is_waited_for_while_its_server_is_killed_and_started_again(serving, tmp_path):
    steps = []
    with (
        serving(tmp_path / "data", "--threads", 1) as first,
        stanflow.Client(first.url, patience=60) as client,
        stanflow.Client(first.url, patience=1) as impatient,
        ThreadPoolExecutor(1) as pool,
    ):
        job = client.fit(client.model(stan_code=NORMAL), {"y": 1}, **LONG)
        fit = pool.submit(job.result, steps.append)
        while not steps:
            assert not fit.done()
            time.sleep(0.1)
        first.kill()
        with pytest.raises(ServiceError, match="does not answer"):
            Job(impatient, {"id": job.id, "kind": "fit"}).result()
        told, port = len(steps), httpx.URL(first.url).port
        with HTTPServer(("127.0.0.1", port), Proxy) as proxy:
            proxy.handle_request()
        with serving(tmp_path / "data", "--threads", 1, "--port", port):
            assert fit.result()["steps"] == LONG["max_steps"]
    steps = [step["step"] for step in steps]
    assert len(steps) > told
    assert steps == sorted(set(steps))


def test_rounds_of_refining_are_told_once_where_the_server_tells_them_again(monkeypatch):
    trained, more = ({"step": step} for step in (1, 2))
    first, second = ({**more, "refine": {"round": number}} for number in (1, 2))
    connections = iter([[trained, more, first], [trained, more, first, second]])

    def events(client, url):
        steps = next(connections)
        yield from (("step", told) for told in steps)
        if second in steps:
            yield "operation", {"done": True}

    monkeypatch.setattr(stanflow.Client, "_events", events)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with stanflow.Client("http://127.0.0.1:9") as client:
        told = list(Job(client, {"id": "x", "kind": "fit"}).events())
    assert [step for name, step in told if name == "step"] == [trained, more, first, second]


@ON_SQLITE
def test_a_job_that_is_not_there_is_not_waited_for(client):
    with pytest.raises(ServiceError, match="there is no operation"):
        Job(client, {"id": "x", "kind": "fit"}).result()


@ON_SQLITE
def test_numbers_without_end_are_sent(client, tmp_path):
    (tmp_path / "data.json").write_text('{"b": [Infinity, -1e999, "Inf"]}')
    model = client.model(stan_code=BOUNDED)
    for data in ({"b": [np.inf, np.float64("-inf"), "Infinity"]}, tmp_path / "data.json"):
        run = client.nuts(model, data, chains=1, draws=10).result()
        assert len(run.draws_pd()) == 10


@ON_SQLITE
def test_data_without_a_value_are_refused_as_here(client, tmp_path):
    (tmp_path / "data.json").write_text('{"y": null}')
    with pytest.raises(DataError) as here:
        bind_data(StanProgram.from_string(NORMAL), {"y": None})
    model = client.model(stan_code=NORMAL)
    for data in ({"y": None}, tmp_path / "data.json"):
        with pytest.raises(ServiceError) as there:
            client.nuts(model, data).result()
        assert str(there.value) == str(here.value)


@ON_SQLITE
def test_what_json_has_not_is_named(client):
    model = client.model(stan_code=NORMAL)
    with pytest.raises(DataError, match="variable y cannot be written as Stan JSON"):
        client.fit(model, {"y": object()})
    with pytest.raises(UsageError, match=r"max_seconds cannot be sent: .* not nan"):
        client.fit(model, {"y": 1}, max_seconds=float("nan"))
    with pytest.raises(UsageError, match="name cannot be sent"):
        client.model(stan_code=NORMAL, name=float("inf"))
