"""Fits, NUTS runs and comparisons over HTTP."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow
import pytest
import xarray

from stanflow.refine.refined import RefineStep
from stanflow.service.schemas import Round
from stanflow.service.teller import Teller
from stanflow.training.train_step import TrainStep

from .servers import DATA, NORMAL, ON_BOTH, ON_SQLITE, example

EXACT_MEAN, EXACT_SD, EXACT_EVIDENCE = 0.5, np.sqrt(0.5), -0.25 - 0.5 * np.log(4 * np.pi)


@pytest.fixture(scope="module")
def fit(server):
    return server.begin("fits", server.model(), DATA, max_steps=600, seed=3)


@pytest.fixture(scope="module")
def reference(server):
    return server.begin("nuts", server.model(), DATA, seed=4)


def events_of(server, job):
    with server.client.stream("GET", f"/v1/operations/{job}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in stream.iter_lines() if line and not line.startswith(":")]
    return [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data in zip(lines[::2], lines[1::2], strict=True)
    ]


def test_a_fit_is_the_posterior(server, fit):
    operation = server.wait(fit)
    assert (operation["status"], operation["attempts"]) == ("succeeded", 1)
    run = server.client.get(f"/v1/fits/{fit}").json()
    result = run["result"]
    assert result["log_evidence"] == pytest.approx(EXACT_EVIDENCE, abs=0.02)
    assert (result["verdict"], operation["verdict"]) == ("good", "good")
    (mu,) = result["scalars"]
    assert mu["name"] == "mu"
    assert mu["Mean"] == pytest.approx(EXACT_MEAN, abs=5 * EXACT_SD / np.sqrt(4000))
    assert [r["id"] for r in server.client.get("/v1/fits").json()["runs"]] == [fit]


def test_what_a_job_was_asked_can_be_asked_again(server, fit):
    asked = server.client.get(f"/v1/operations/{fit}/task").json()
    assert (asked["program_code"], asked["name"], asked["data"]) == (NORMAL, "normal", DATA)
    assert (asked["options"]["seed"], asked["options"]["max_steps"]) == (3, 600)


def test_draws_come_in_three_forms(server, fit):
    server.wait(fit)
    url = f"/v1/fits/{fit}/draws"
    page = server.client.get(url, params={"offset": 10, "limit": 5}).json()
    assert page["columns"] == ["lp__", "lp_approx__", "log_weight", "mu"]
    assert (len(page["rows"]), page["total"]) == (5, 4000)
    arrow = server.client.get(url, params={"format": "arrow", "limit": 4000})
    table = pyarrow.ipc.open_stream(arrow.content).read_all()
    np.testing.assert_array_equal(table["mu"].to_numpy()[10:15], [row[3] for row in page["rows"]])
    netcdf = server.client.get(url, params={"format": "netcdf"}).content
    posterior = xarray.open_dataset(io.BytesIO(netcdf), group="posterior", engine="h5netcdf")
    np.testing.assert_array_equal(posterior["mu"].values[0], table["mu"].to_numpy())
    assert server.client.get(url, params={"offset": 4000}).json()["rows"] == []
    chosen = server.client.get(url, params={"columns": ["mu", "lp__"], "limit": 1}).json()
    assert chosen["columns"] == ["mu", "lp__"]
    assert chosen["rows"] == [[table["mu"][0].as_py(), table["lp__"][0].as_py()]]
    unknown = server.client.get(url, params={"columns": "nu"})
    assert (unknown.status_code, unknown.json()["detail"]) == (422, "the draws have no column 'nu'")
    trace = server.client.get(f"/v1/fits/{fit}/trace").text.splitlines()
    assert trace[0].startswith("step,seconds,elbo")


def test_a_fit_has_a_page(server, fit):
    server.wait(fit)
    page = server.client.get(f"/v1/fits/{fit}/report")
    assert page.headers["content-type"].startswith("text/html")
    assert "<html" in page.text
    assert "normal" in page.text
    assert str(server.folder) not in page.text
    (server.folder / "jobs" / fit / "report.html").unlink()
    assert server.client.get(f"/v1/fits/{fit}/report").status_code == 404


def test_a_fit_agrees_with_nuts(server, fit, reference):
    for job in (fit, reference):
        server.wait(job)
    response = server.client.post("/v1/comparisons", json={"fit": fit, "reference": reference})
    comparison = response.json()["id"]
    assert server.wait(comparison)["status"] == "succeeded"
    assert (
        server.client.get(f"/v1/comparisons/{comparison}").json()["result"]["agreement"] == "agree"
    )
    assert "<html" in server.client.get(f"/v1/comparisons/{comparison}/report").text


def test_events_tell_a_fit_as_it_trains(server):
    job = server.begin("fits", server.model(), DATA, max_steps=20_000, preset="paper", layers=4)
    events = events_of(server, job)
    steps = [data["step"] for name, data in events if name == "step"]
    assert len(steps) > 1
    assert steps == sorted(steps)
    assert events[-1][0] == "operation"
    assert events[-1][1]["status"] == "succeeded"


@ON_SQLITE
def test_it_is_told_how_far_refining_is(server):
    job = server.begin("fits", server.model(), DATA, max_steps=100, refine="always")
    operation = server.wait(job, until=lambda o: o["done"] or (o["progress"] or {}).get("refine"))
    Round.model_validate(operation["progress"]["refine"], strict=True)
    assert server.wait(job)["status"] == "succeeded"
    result = server.client.get(f"/v1/fits/{job}").json()["result"]
    steps = [told for name, told in events_of(server, job) if name == "step"]
    rounds = [step["refine"] for step in steps if "refine" in step]
    assert {step["step"] for step in steps if "refine" in step} == {result["steps"]}
    for name in ("round", "seconds", "inverse_temperature", "share"):
        assert [told[name] for told in rounds] == sorted(told[name] for told in rounds)
    assert (rounds[-1]["share"], rounds[-1]["rhat"]) == (1.0, result["refine"]["rhat"])
    evidence = result["refine"]["log_evidence_annealed"]
    assert rounds[-1]["log_evidence"] == pytest.approx(evidence, abs=1e-6)  # with its constants


def test_progress_is_told_four_times_a_second():
    lines = []
    tell = Teller(lambda line: lines.append(json.loads(line)), constant=-40.0)
    round_ = RefineStep(1, 0.5, 0.8, -3.0, np.nan, 0.2, 0.1)
    tell.round(round_)
    assert lines == []  # there was no training to tell
    for number in (1, 2):
        tell.step(TrainStep(number, 0.1, -5.0, 0.1, 1.0, 0, np.ones(1)))
    tell.round(round_)
    assert [line["step"] for line in lines] == [1]
    tell.round(replace(round_, share=1.0))
    assert (lines[-1]["step"], lines[-1]["elbo"]) == (2, -45.0)
    assert (lines[-1]["refine"]["log_evidence"], lines[-1]["refine"]["rhat"]) == (-43.0, None)


@ON_BOTH
def test_a_job_that_runs_is_cancelled(server):
    job = server.begin("fits", server.model(), DATA, max_steps=10**6, preset="paper")
    server.wait(job, until=lambda o: o["progress"] is not None)
    assert server.client.get(f"/v1/fits/{job}").status_code == 409
    refused = server.client.delete(f"/v1/fits/{job}")
    assert (refused.status_code, refused.json()) == (409, example(409))
    assert server.client.delete(f"/v1/operations/{job}").json()["status"] == "cancelled"
    assert server.wait(job)["status"] == "cancelled"
    assert server.client.delete(f"/v1/fits/{job}").status_code == 204
    assert server.client.get(f"/v1/operations/{job}").status_code == 404
    assert not (server.folder / "jobs" / job).exists()


@ON_BOTH
def test_a_key_begins_one_job(server):
    model = server.model()
    one, same = (server.begin("nuts", model, DATA, key="once", draws=10) for _ in range(2))
    assert one == same
    other = server.client.post(
        f"/v1/models/{model}/nuts", json={"data": {"y": 2.0}}, headers={"Idempotency-Key": "once"}
    )
    assert (other.status_code, "another request" in other.json()["detail"]) == (409, True)


@ON_BOTH
def test_a_key_that_is_sent_many_times_at_once_begins_one_job(server):
    model = server.model()
    with ThreadPoolExecutor(8) as pool:
        begun = [
            pool.submit(server.begin, "nuts", model, DATA, key="at once", draws=10)
            for _ in range(8)
        ]
    assert len({job.result() for job in begun}) == 1


def test_what_fails_says_why(server):
    model = server.model(
        "parameters { real x; } model { x ~ normal(0, 1); target += log(-1); }", "nan"
    )
    operation = server.wait(server.begin("fits", model))
    assert operation["status"] == "failed"
    assert operation["failure"]["kind"] == "numerics"
    assert "not finite" in operation["failure"]["detail"]
