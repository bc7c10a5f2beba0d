"""The Python client, against a running server."""

import arviz
import numpy as np
import pytest

import stanflow
from stanflow.client import ServiceError
from stanflow.errors import UsageError

from .servers import NORMAL, ON_SQLITE


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
