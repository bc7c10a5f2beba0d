"""What the benchmark of default settings makes of draws, traces and results."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from benchmarks.defaults import stopwatch
from benchmarks.defaults.accuracy import (
    accuracy,
    estimates,
    flagged,
    mode_shares,
    passes,
    statistic,
)
from benchmarks.defaults.exact import exact
from benchmarks.defaults.runs import Finished, elbo_after, smoothed, thinned
from benchmarks.defaults.store import Key, Results
from benchmarks.defaults.tables import tables, zoo_summary
from benchmarks.defaults.targets import EVIDENCE, HORSESHOE, LARGER, ZOO
from stanflow.stan.model import StanModel

BY_NAME = {target.name: target for target in (*ZOO, *LARGER, *EVIDENCE, *HORSESHOE)}
KEY = Key("zoo", "bernoulli", 1, "default")


def moments(mean, sd, **more):
    return {"mean": mean, "sd": sd, "statistic": "moments", **more}


def fitted(mean_error=0.05, sd_error=0.05, pareto_k=0.5, verdict="good", refined=False, **more):
    errors = {"mean_error": mean_error, "sd_error": sd_error, "by_quantiles": ["x.1", "x.2"]}
    shown = {"pareto_k": pareto_k, "verdict": verdict, "refined": refined}
    return {"accuracy": errors, **shown, **more}


# ---- Accuracy ----


def test_weights_count_as_repetitions():
    rng = np.random.default_rng(1)
    x = rng.normal(3, 2, (200, 2))
    counts = rng.integers(0, 4, len(x))
    weighted = estimates(["a", "b"], x, counts / counts.sum())
    repeated = np.repeat(x, counts, axis=0)
    for j, name in enumerate(("a", "b")):
        column = repeated[:, j]
        low, middle, high = np.quantile(column, [0.25, 0.5, 0.75], method="inverted_cdf")
        assert weighted[name]["mean"] == pytest.approx(column.mean())
        assert weighted[name]["sd"] == pytest.approx(column.std(), rel=0.01)
        assert weighted[name]["median"] == middle
        assert weighted[name]["spread"] == pytest.approx((high - low) / (2 * stats.norm.ppf(0.75)))


def test_errors_are_those_of_the_worst_scalar():
    reference = {
        "a": moments(1.0, 2.0),
        "b": moments(0.0, 1.0),
        "c": {"mean": None, "sd": None, "median": 2.0, "spread": 1.0, "statistic": "quantiles"},
    }
    found = {
        "a": {"mean": 1.5, "sd": 2.0, "median": 9.0, "spread": 9.0},
        "b": {"mean": 0.1, "sd": 0.8, "median": 9.0, "spread": 9.0},
        "c": {"mean": 1e9, "sd": 1e9, "median": 2.1, "spread": 1.1},
    }
    errors = accuracy(found, reference)
    assert (errors["mean_worst"], errors["sd_worst"]) == ("a", "b")
    assert errors["mean_error"] == pytest.approx(0.25)
    assert errors["sd_error"] == pytest.approx(np.log(1 / 0.8))
    assert errors["by_quantiles"] == ["c"]
    found["b"]["mean"] = np.nan
    assert accuracy(found, reference)["mean_worst"] == "b"


def test_moments_are_compared_where_the_reference_knows_them():
    assert statistic({"sd": 1.0, "sd_se": 0.005}, heavy=False) == "moments"
    assert statistic({"sd": 1.0, "sd_se": 0.005}, heavy=True) == "quantiles"
    assert statistic({"sd": 1.0, "sd_se": 0.01}, heavy=False) == "quantiles"
    assert statistic({"sd": 1.0, "sd_se": np.nan}, heavy=False) == "quantiles"
    assert statistic({"sd": None, "sd_se": None}, heavy=False) == "quantiles"


@pytest.mark.parametrize(
    "bad",
    [{"mean_error": 0.11}, {"sd_error": 0.11}, {"pareto_k": 0.71}, {"pareto_k": None},
     {"sd_error": None}],
)  # fmt: skip
def test_a_fit_passes_where_all_is_well(bad):
    assert passes(fitted())
    assert not passes(fitted(**bad))


def test_refined_draws_have_no_weights_to_be_bad():
    assert passes(fitted(pareto_k=0.9, refined=True))
    assert not passes(fitted(mean_error=0.11, refined=True))


def test_a_failed_fit_does_not_pass_and_is_flagged():
    assert not passes({"error": "no"})
    assert flagged({"error": "no"})
    assert flagged(fitted(verdict="unreliable"))
    assert not flagged(fitted(verdict="usable"))


def test_shares_of_modes():
    x = np.repeat([[-6.0], [0.0], [6.0], [6.0]], 4, axis=1) / 2
    assert mode_shares(x, np.array([0.1, 0.2, 0.3, 0.4])) == pytest.approx([0.1, 0.2, 0.7])


# ---- Targets and references ----


@pytest.mark.parametrize("name", list(BY_NAME))
def test_targets_have_the_dimensions_they_say(name):
    target = BY_NAME[name]
    model = StanModel(target.program_path, dict(target.data), engine="embedded")
    assert model.dim == target.dim
    known = exact(target)
    if known is not None:
        assert tuple(known.scalars) == model.parameter_columns


def test_exact_values_are_those_of_exact_draws():
    rng, n = np.random.default_rng(3), 40_000
    checked = 0
    for target in ZOO:
        known = exact(target)
        if known is None:
            continue
        checked += 1
        x = known.sample(rng, n)
        for column, (name, there) in zip(x.T, known.scalars.items(), strict=True):
            if there["sd"] is None:
                distance = there["spread"] * stats.norm.ppf(0.75)
                quartiles = there["median"] + np.array([-distance, 0, distance])
                shares = (column[:, None] < quartiles).mean(0)
                np.testing.assert_allclose(shares, [0.25, 0.5, 0.75], atol=4.5 * 0.5 / np.sqrt(n))
            else:
                kurtosis = stats.kurtosis(column, fisher=False)
                assert abs(column.mean() - there["mean"]) < 4.5 * there["sd"] / np.sqrt(n), name
                error = np.sqrt((kurtosis - 1) / (4 * n))
                assert abs(column.std() / there["sd"] - 1) < 4.5 * error, name
    assert checked == 5


def test_the_funnel_has_its_quartiles():
    quartile = exact(BY_NAME["funnel_10"]).scalars["x.1"]["spread"] * stats.norm.ppf(0.75)
    below = lambda v: stats.norm(0, 3).pdf(v) * stats.norm.cdf(quartile * np.exp(-v / 2))  # noqa: E731
    assert integrate.quad(below, -30, 30)[0] == pytest.approx(0.75, abs=1e-6)


# ---- Traces ----


@pytest.fixture
def fit():
    seconds = np.linspace(0.1, 10, 100)
    elbo = -100 / seconds
    elbo[3] = np.nan
    return Finished(Path(), {}, pd.DataFrame({"seconds": seconds, "elbo": elbo}))


def test_the_elbo_after_some_time(fit):
    after = elbo_after((0.05, 5, 50))(fit)["elbo_after"]
    assert after["0.05"] is None
    assert after["5"] == pytest.approx(fit.trace["elbo"][25:50].mean())
    assert after["50"] == pytest.approx(fit.trace["elbo"][75:].mean())


def test_a_thinned_trace_keeps_both_ends(fit):
    trace = thinned(fit)["trace"]
    assert (trace["seconds"][0], trace["seconds"][-1]) == (0.1, 10)
    assert trace["elbo"][-1] == smoothed(fit.trace).iloc[-1]
    assert np.isfinite(trace["elbo"]).all()


# ---- Results ----


def test_results_are_found_by_key_and_code(tmp_path):
    path = tmp_path / "results.json"
    Results(path).put(KEY, {"code": "a", "elbo": np.inf})
    Results(path).put(KEY, {"code": "b", "elbo": 1.5})
    Results(path).put(KEY._replace(seed=2), {"code": "a", "elbo": float("nan")})
    results = Results(path)
    assert results.find(KEY, "a") is None
    assert results.find(KEY, "b")["elbo"] == 1.5
    assert results.find(KEY._replace(seed=2))["elbo"] is None
    assert len(json.loads(path.read_text())) == 2


def test_the_summary_names_fits_that_fail_in_silence():
    about = {"wall_seconds": 1.0, "peak_memory_mb": 10.0}
    items = [
        fitted(model="passes", seed=1, variant="default", **about),
        fitted(0.5, model="silent", seed=2, variant="default", **about),
        fitted(0.5, model="flagged", seed=1, variant="default", verdict="unreliable", **about),
        {"model": "broken", "seed": 1, "variant": "default", "error": "no", **about},
    ]
    text = "\n".join(zoo_summary(items))
    assert "1 of 4 fits pass (25%); 2 are flagged" in text
    assert "Neither passing nor flagged: silent (seed 2)." in text
    assert "silent: x" in text
    assert "- default: no: broken (seed 1)" in text


def test_there_is_a_table_of_nothing(tmp_path):
    assert tables(Results(tmp_path / "none.json"), ["zoo"]) == "Nothing has been measured yet."


def test_the_stopwatch_measures_the_command_and_not_its_caller(tmp_path):
    held = np.ones(30_000_000)  # 240 MB
    measured = tmp_path / "measured.json"
    for limit, status in (("60", 3), ("0.5", None)):
        code = "import sys, time; time.sleep(1); sys.exit(3)"
        command = [sys.executable, "-c", code]
        subprocess.run([sys.executable, stopwatch.__file__, measured, limit, *command], check=True)
        found = json.loads(measured.read_text())
        assert found["status"] == status
        assert 0.4 < found["seconds"] < 20
        assert 1 < found["peak_memory_mb"] < held.nbytes / 2e6
