"""The commands nuts and compare, as their users run them."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

import stanflow
from tests.command_line import run, run_json

NUTS_CONTRACT = {
    "model", "engine", "engine_version", "chains", "warmup", "draws", "divergences",
    "max_treedepth_hits", "max_rhat", "min_ess_bulk", "seconds", "out",
}  # fmt: skip
COMPARE_CONTRACT = {
    "parameters", "max_mean_error", "max_abs_log_sd_ratio", "max_mean_error_weighted",
    "max_abs_log_sd_ratio_weighted", "worst_parameter", "sliced_wasserstein", "reference_engine",
    "report",
}  # fmt: skip


@pytest.fixture(scope="module")
def schools(zoo):
    folder = zoo / "eight_schools"
    return folder / "eight_schools_noncentered.stan", folder / "eight_schools.json"


@pytest.fixture(scope="module")
def runs(schools, zoo, tmp_path_factory):
    """A folder with a fit, two NUTS runs, and a fit of another program."""
    folder = tmp_path_factory.mktemp("runs")
    settings = ("--max-steps", 600, "--engine", "embedded")
    assert run("fit", *schools, *settings, "--out", folder / "fit").returncode == 0
    for seed in (1, 2):
        result = run(
            "nuts",
            *schools,
            "--engine",
            "embedded",
            "--seed",
            seed,
            "--out",
            folder / f"nuts{seed}",
        )
        assert result.returncode == 0, result.stderr
    funnel = (zoo / "funnel/funnel.stan", zoo / "funnel/funnel.json")
    settings = ("--max-steps", 3, "--draws", 30, "--engine", "embedded")
    assert run("fit", *funnel, *settings, "--out", folder / "other").returncode == 0
    return folder


def test_nuts_prints_one_json_object_with_the_contracts_keys(schools, tmp_path):
    settings = ("--engine", "embedded", "--chains", 3, "--warmup", 300, "--draws", 200)
    status, report = run_json("nuts", *schools, *settings, cwd=tmp_path)
    assert status == 0
    assert report.keys() >= NUTS_CONTRACT
    assert (report["engine"], report["chains"], report["warmup"], report["draws"]) == (
        "embedded", 3, 300, 200
    )  # fmt: skip
    assert "columns" not in report
    assert report["out"] == "nuts/eight_schools_noncentered"
    loaded = stanflow.load_nuts(tmp_path / report["out"])
    assert loaded.values.shape[:2] == (3, 200)
    assert 1 <= report["max_rhat"] < 1.1
    assert [p.name for p in tmp_path.iterdir()] == ["nuts"]


def test_nuts_prints_a_table_and_its_warnings(schools, tmp_path):
    few = ("--engine", "embedded", "--warmup", 20, "--draws", 20)
    result = run("nuts", *schools, *few, cwd=tmp_path)
    assert result.returncode == 0
    header = next(line for line in result.stdout.splitlines() if "Mean" in line)
    assert header.split() == [
        "Mean", "MCSE", "StdDev", "5%", "50%", "95%", "ESS_bulk", "ESS_tail", "R_hat"
    ]  # fmt: skip
    assert "R-hat" in result.stdout  # twenty draws do not converge
    assert "embedded engine" in result.stdout


def test_compare_agrees_where_both_are_right(runs, tmp_path):
    page = tmp_path / "report.html"
    status, summary = run_json("compare", runs / "fit", runs / "nuts1", "--out", page)
    assert status == 0
    assert summary.keys() >= COMPARE_CONTRACT
    assert summary["agreement"] == "agree"
    assert summary["parameters"] == 18
    assert summary["reference_engine"] == "embedded"
    assert summary["max_mean_error"] < 0.1
    assert summary["report"] == str(page)
    HTMLParser().feed(page.read_text())
    status, other = run_json("compare", runs / "nuts1", runs / "nuts2")
    assert (status, other["agreement"], other["report"]) == (0, "agree", None)
    assert other["max_mean_error_weighted"] is None


def test_compare_prints_the_worst_first(runs):
    result = run("compare", runs / "fit", runs / "nuts1")
    assert result.returncode == 0
    assert "The flow and NUTS agree" in result.stdout
    assert "log evidence by bridge sampling" in result.stdout
    assert "theta_raw[8]" in result.stdout


def test_nuts_starts_at_a_fit(runs, schools, tmp_path):
    settings = ("--engine", "embedded", "--warmup", 50, "--draws", 500)
    status, report = run_json("nuts", *schools, *settings, "--init", runs / "fit", cwd=tmp_path)
    assert status == 0
    assert report["initialized_from"] == "flow"
    assert report["max_rhat"] < 1.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "{runs}/fit", "{runs}"), "holds no fit"),
        (("compare", "{runs}/fit", "{other}"), "program"),
        (("nuts", "{program}", "{data}", "--init", "{other}"), "fit"),
        (("nuts", "{program}", "{data}", "--exe", "/nowhere"), "/nowhere"),
        (("nuts", "{program}", "{data}", "--out", "{runs}/nuts1"), "already holds a NUTS run"),
        (("nuts", "{program}", "{data}", "--out", "{runs}/fit"), "not empty"),
        (("nuts", "{program}", "{data}", "--chains", "0"), "chains"),
        (("nuts", "{program}", "{data}", "--draws", "0"), "draws"),
        (("nuts", "{program}"), "the data variable J is missing"),
    ],
)
def test_bad_input_is_one_sentence(runs, schools, tmp_path, arguments, message):
    names = {"runs": runs, "other": runs / "other", "program": schools[0], "data": schools[1]}
    filled = [argument.format(**names) for argument in arguments]
    before = {p: p.stat().st_mtime_ns for p in runs.rglob("*")}
    result = run(*filled, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("stanflow: ")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert {p: p.stat().st_mtime_ns for p in runs.rglob("*")} == before
    status, error = run_json(*filled, cwd=tmp_path)
    assert status == 2
    assert error.keys() == {"error", "kind", "detail"}


def test_runs_read_back_are_what_was_run(runs):
    one, other = (stanflow.load_nuts(runs / f"nuts{seed}") for seed in (1, 2))
    assert not np.array_equal(one.values, other.values)
    report = json.loads((runs / "nuts1" / "nuts.json").read_text())
    assert report["seed"] == 1
    comparison = stanflow.compare(stanflow.load(runs / "fit"), one)
    assert comparison.summary["agreement"] == "agree"
