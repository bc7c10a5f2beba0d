import json
from dataclasses import replace

import numpy as np
import pytest

import stanflow
from stanflow.errors import UsageError
from stanflow.reference.flow_starts import flow_starts, inverse_metric
from stanflow.reference.sampling import nuts
from tests.reference.trend_program import trend_data

SCALES = np.array([1e-3, 1e3, 1.0])
SCALED = """
parameters { real a; real b; real<lower=0> c; simplex[3] p; }
model { a ~ normal(5, 1e-3); b ~ normal(-2e3, 1e3); c ~ lognormal(0, 1); }
"""


@pytest.fixture(scope="module")
def scaled():
    return stanflow.StanModel(stan_code=SCALED, engine="embedded")


@pytest.fixture(scope="module")
def scaled_fit(scaled):
    quick = stanflow.TrainConfig(max_steps=200)
    return stanflow.fit(scaled, seed=1, draws=2000, training=quick, progress=False)


@pytest.fixture(scope="module")
def trend_fit(trend):
    quick = stanflow.TrainConfig(max_steps=300)
    return stanflow.fit(trend, seed=1, draws=2000, training=quick, progress=False)


def test_the_metric_is_the_regularised_covariance():
    z = np.random.default_rng(0).normal(size=(500, 3)) @ [[1, 2, 0], [0, 1, 0], [0, 0, 5.0]]
    equal = np.full(500, 1 / 500)
    for metric, covariance in (("dense_e", np.cov(z.T)), ("diag_e", z.var(axis=0, ddof=1))):
        found, effective = inverse_metric(z, equal, metric)
        added = 1e-3 * 5 / 505 * (np.eye(3) if metric == "dense_e" else 1)
        np.testing.assert_allclose(found, 500 / 505 * covariance + added, rtol=1e-12)
        assert effective == pytest.approx(500)


def test_weights_count_where_they_leave_enough_draws():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(20_000, 2))
    log_weights = -0.5 * (z[:, 0] / 0.5) ** 2 + 0.5 * z[:, 0] ** 2  # to sd 0.5 of the first
    weights = np.exp(log_weights) / np.exp(log_weights).sum()
    for metric in ("diag_e", "dense_e"):
        found, effective = inverse_metric(z, weights, metric)
        variances = found if metric == "diag_e" else np.diag(found)
        np.testing.assert_allclose(variances, [0.25, 1], rtol=0.05)
        assert 2000 < effective < 20_000
    by_numpy = np.cov(z.T, aweights=weights)
    n = 1 / np.sum(weights**2)
    np.testing.assert_allclose(found, n / (n + 5) * by_numpy + 5e-3 / (n + 5) * np.eye(2))


def test_weights_that_leave_few_draws_are_passed_over():
    z = np.random.default_rng(2).normal(size=(1000, 2))
    degenerate = np.zeros(1000)
    degenerate[:50] = 1 / 50
    found, effective = inverse_metric(z, degenerate, "diag_e")
    assert effective == pytest.approx(1000)
    np.testing.assert_allclose(found, z.var(axis=0), rtol=0.01)
    # 110 are enough for two variances, not for the covariances of 40 dimensions.
    weights = np.zeros(1000)
    weights[:110] = 1 / 110
    assert inverse_metric(z, weights, "diag_e")[1] == pytest.approx(110)
    wide = np.random.default_rng(3).normal(size=(1000, 40))
    assert inverse_metric(wide, weights, "dense_e")[1] == pytest.approx(1000)


def test_a_dense_metric_is_positive_definite_with_fewer_draws_than_dimensions():
    z = np.random.default_rng(4).normal(size=(20, 50))
    found, _ = inverse_metric(z, np.full(20, 1 / 20), "dense_e")
    assert np.linalg.eigvalsh(found).min() > 0
    np.testing.assert_array_equal(found, found.T)


def test_chains_start_at_draws_of_their_own(scaled, scaled_fit):
    starts = flow_starts(scaled_fit, scaled, chains=8, seed=1, metric="diag_e")
    rows = [np.flatnonzero((scaled_fit.z == z).all(axis=1)).item() for z in starts.z]
    assert len(set(rows)) == 8
    for parameters, z, row in zip(starts.parameters, starts.z, rows, strict=True):
        assert parameters["p"].shape == (3,)
        assert parameters["a"] == scaled_fit.stan_variable("a")[row]
        np.testing.assert_allclose(scaled.unconstrain(parameters), z, rtol=1e-6, atol=1e-9)
    again = flow_starts(scaled_fit, scaled, chains=8, seed=1, metric="diag_e")
    np.testing.assert_array_equal(again.z, starts.z)
    other = flow_starts(scaled_fit, scaled, chains=8, seed=2, metric="diag_e")
    assert not np.isin(other.z, starts.z).all()


def test_starts_follow_the_weights(scaled, scaled_fit):
    log_weights = np.full(2000, -np.inf)
    log_weights[100:110] = np.log(0.1)
    weighted = replace(scaled_fit, log_weights=log_weights)
    first = set()
    for seed in range(40):
        starts = flow_starts(weighted, scaled, chains=2, seed=seed, metric="diag_e")
        rows = [np.flatnonzero((weighted.z == z).all(axis=1)).item() for z in starts.z]
        assert set(rows) <= set(range(100, 110))
        first.add(rows[0])
    assert len(first) > 5
    # Where fewer draws have weight than there are chains, others fill in.
    few = flow_starts(weighted, scaled, chains=12, seed=1, metric="diag_e")
    assert len(np.unique(few.z, axis=0)) == 12


def test_draws_that_are_not_finite_are_left_out(scaled, scaled_fit):
    z = scaled_fit.z.copy()
    z[:1990, 2] = np.inf
    z[1990] = np.nan
    broken = replace(scaled_fit, z=z)
    starts = flow_starts(broken, scaled, chains=9, seed=1, metric="dense_e")
    assert np.isfinite(starts.z).all()
    assert np.isfinite(starts.inverse_metric).all()
    assert starts.averaged_draws == 9
    with pytest.raises(UsageError, match="only 9 draws of the fit can start a chain, and 10 are"):
        flow_starts(broken, scaled, chains=10, seed=1, metric="diag_e")


def test_draws_outside_the_support_do_not_start_chains():
    code = 'parameters { real x; } model { if (x < 0) reject("no"); x ~ normal(0, 1); }'
    model = stanflow.StanModel(stan_code=code, engine="embedded")
    quick = stanflow.TrainConfig(max_steps=20)
    fit = stanflow.fit(model, draws=300, training=quick, progress=False)
    forged = replace(fit, z=np.where(np.arange(300)[:, None] < 150, -1.0, fit.z))
    starts = flow_starts(forged, model, chains=20, seed=1, metric="diag_e")
    assert (starts.z > 0).all()


def test_a_fit_of_another_posterior_is_refused(trend, trend_fit, scaled, exe):
    with pytest.raises(UsageError, match="fit to start from is of another program"):
        nuts(scaled, init=trend_fit, engine="embedded", progress=False)
    other = {**trend_data(), "tau": 0.5}
    model = stanflow.StanModel(exe.with_name("prophet.stan"), other, engine="embedded")
    with pytest.raises(UsageError, match="fit to start from is of other data"):
        nuts(model, init=trend_fit, engine="embedded", progress=False)


@pytest.mark.parametrize("metric", ["diag_e", "dense_e"])
def test_scales_a_million_apart_need_no_long_warmup(scaled, scaled_fit, metric):
    settings = {"warmup": 50, "draws": 500, "engine": "embedded", "progress": False}
    warm = nuts(scaled, init=scaled_fit, metric=metric, **settings)
    assert warm.report["initialized_from"] == "flow"
    assert warm.report["max_rhat"] < 1.02
    assert warm.statistics["n_leapfrog__"].mean() < 10
    for name, mean, sd in (("a", 5, 1e-3), ("b", -2e3, 1e3)):
        draws = warm.stan_variable(name)
        assert abs(draws.mean() - mean) < 0.2 * sd
        assert 0.85 < draws.std() / sd < 1.15
    cold = nuts(scaled, metric=metric, **settings)
    assert cold.statistics["n_leapfrog__"].mean() > 100
    assert any("does not adapt the metric" in line for line in cold.report["warnings"])
    assert not any("does not adapt" in line for line in warm.report["warnings"])


@pytest.mark.parametrize("engine", ["cmdstan", "embedded"])
def test_the_first_draws_are_near_the_starts(trend, trend_fit, exe, engine):
    how = {"exe": exe} if engine == "cmdstan" else {"engine": engine}
    settings = {"seed": 3, "chains": 48, "warmup": 1, "draws": 1, "max_treedepth": 1}
    run = nuts(trend, init=trend_fit, progress=False, **settings, **how)
    starts = flow_starts(trend_fit, trend, chains=48, seed=3, metric="diag_e")
    k = trend.columns.index("k")  # N(0, 5); Stan's own starts are between -2 and 2
    three_standard_errors = 3 / np.sqrt(48)  # of the correlation of what has none
    assert np.corrcoef(starts.z[:, k], run.values[:, 0, k])[0, 1] > three_standard_errors


@pytest.mark.parametrize("metric", ["diag_e", "dense_e"])
def test_cmdstan_starts_from_a_flow_as_the_embedded_engine_does(trend, trend_fit, exe, metric):
    settings = {"warmup": 60, "draws": 400, "metric": metric, "progress": False}
    by_cmdstan = nuts(trend, init=trend_fit, exe=exe, **settings)
    embedded = nuts(trend, init=trend_fit, engine="embedded", **settings)
    cold = nuts(trend, exe=exe, **settings)
    for run in (by_cmdstan, embedded):
        assert run.report["initialized_from"] == "flow"
        assert run.report["initial_metric"]["draws"] == 2000
        assert run.report["max_rhat"] < 1.03
        assert (
            2 * run.report["sampling_gradient_evaluations"]
            < (cold.report["sampling_gradient_evaluations"])
        )
    for name in ("m", "k", "sigma_obs"):
        one, two = by_cmdstan.stan_variable(name), embedded.stan_variable(name)
        assert abs(one.mean() - two.mean()) < 0.3 * two.std()
        assert 0.8 < one.std() / two.std() < 1.25
    assert json.loads(json.dumps(by_cmdstan.report, allow_nan=False)) == by_cmdstan.report
