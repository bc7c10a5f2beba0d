"""Stan's NUTS in the native engine: against closed forms, and against CmdStan's very numbers."""

import os
import re
import signal
import threading
import time
from dataclasses import dataclass

import arviz
import numpy as np
import pytest
from scipy import stats

import stanflow
from stanflow.errors import NumericsError
from stanflow.reference import cmdstan
from stanflow.reference import native as native_nuts
from stanflow.reference.cmdstan_program import open_executable
from stanflow.reference.progress import NutsProgress
from stanflow.reference.run import STATISTICS, ChainStarts, NutsSettings, parameters_of
from stanflow.stan import native
from stanflow.stan.data import bind_data
from stanflow.stan.loaded import LoadedModel
from stanflow.stan.program import StanProgram

MCSES = 4.5
REJECTED, PRINTING, SLOW, LATE = 1, 2, 3, 4
PROGRAM = """
functions {
  real slow(real x) { real s = 0; for (i in 1:20000000) s += sin(i * x); return s; }
}
data { int N; vector[N] y; int trouble; }
parameters { vector[2] mu; real<lower=0, upper=1> p; }
transformed parameters { real total = mu[1] + 2 * mu[2]; }
model {
  if (trouble == 1) reject("never ", 7);
  if (trouble == 2) print("p is ", p);
  if (trouble == 3) target += 1e-20 * slow(1e-3) * p;
  mu ~ normal(0, 3);
  y ~ normal(total, 0.5);
  3 ~ binomial(10, p);
}
generated quantities {
  real ahead = normal_rng(total, 0.5);
  if (trouble == 4 && p > 0.4) reject("p is too large");
  real late = p;
}
"""
Y = [1.2, 0.3, 0.9, 1.4]


@dataclass
class Native:
    """A program with data: as a StanModel, and from the native engine's library."""

    model: stanflow.StanModel
    library: LoadedModel

    def run(self, starts=None, progress=None, **settings):
        return native_nuts.run(self.library.stan_model, NutsSettings(**settings), starts, progress)


@pytest.fixture(scope="session")
def natively(headers, trend):
    """Load a model in the native engine, with its own data or other."""
    program = StanProgram.from_string(PROGRAM)
    native.compiled_libraries([program, trend.program], headers)

    def load(model, data=None):
        library = native.compiled_library(model.program, headers)
        return Native(model, native.open_library(library, model.program, data or model.data))

    return load


@pytest.fixture(scope="session")
def troubled(natively):
    """The program above with a trouble, or none; the embedded engine is spared it."""
    data = {"N": len(Y), "y": Y}
    model = stanflow.StanModel(stan_code=PROGRAM, data={**data, "trouble": 0}, engine="embedded")

    def load(trouble):
        return natively(model, bind_data(model.program, {**data, "trouble": trouble}))

    return load


@pytest.fixture(scope="session")
def normal(troubled):
    return troubled(0)


@pytest.fixture(scope="session")
def native_trend(natively, trend):
    return natively(trend)


def assert_moments(draws, mean, sd):
    """Draws of shape (chains, draws) against a true mean and sd, within Monte Carlo error."""
    assert abs(draws.mean() - mean) < MCSES * arviz.mcse(draws, method="mean")
    assert abs(draws.std() - sd) < MCSES * arviz.mcse(draws, method="sd")


def assert_same(run, other, **tolerance):
    """Two runs' draws, statistics and work."""
    np.testing.assert_allclose(run.values, other.values, **tolerance)
    for name in STATISTICS:
        np.testing.assert_allclose(run.statistics[name], other.statistics[name], **tolerance)
    assert run.warmup_gradient_evaluations == other.warmup_gradient_evaluations


# ---- Draws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["diag_e", "dense_e"])
def test_a_known_posterior_is_hit(normal, metric):
    run = normal.run(seed=3, draws=3000, metric=metric)
    columns = dict(zip(normal.model.columns, np.moveaxis(run.values, -1, 0), strict=True))
    assert list(columns) == ["mu.1", "mu.2", "p", "total", "ahead", "late"]
    a = np.array([1.0, 2.0])
    covariance = np.linalg.inv(np.eye(2) / 9 + len(Y) * np.outer(a, a) / 0.25)
    mean = covariance @ a * sum(Y) / 0.25
    for i in range(2):
        assert_moments(columns[f"mu.{i + 1}"], mean[i], np.sqrt(covariance[i, i]))
    variance = a @ covariance @ a
    assert_moments(columns["total"], mean @ a, np.sqrt(variance))
    assert_moments(columns["ahead"], mean @ a, np.sqrt(variance + 0.25))
    p = stats.beta(4, 8)
    assert_moments(columns["p"], p.mean(), p.std())
    assert stats.kstest(columns["p"][:, ::20].ravel(), p.cdf).pvalue > 1e-4
    np.testing.assert_array_equal(columns["late"], columns["p"])


def test_the_statistics_are_stans(normal):
    run = normal.run(seed=1, warmup=200, draws=100, chains=3, max_treedepth=2)
    assert run.values.shape == (3, 100, 6)
    assert re.fullmatch(r"Stan 2\.\d+\.\d+", run.engine_version)
    assert tuple(run.statistics) == STATISTICS
    # lp__ is the log density, Jacobian included, without the dropped constants.
    z = [normal.model.unconstrain(parameters_of(normal.model, row)) for row in run.values[0, :5]]
    np.testing.assert_allclose(
        normal.model.log_density_gradient(z).log_density, run.statistics["lp__"][0, :5]
    )
    assert run.statistics["n_leapfrog__"].max() == 3  # of a treedepth of 2
    assert run.statistics["treedepth__"].max() == 2
    assert 200 * 3 <= run.warmup_gradient_evaluations <= 200 * 3 * 3
    assert (np.ptp(run.statistics["stepsize__"], axis=1) == 0).all()
    loose, strict = (
        normal.run(draws=10, adapt_delta=delta).statistics["stepsize__"].mean()
        for delta in (0.6, 0.99)
    )
    assert strict < loose / 2


def test_the_seed_decides_the_draws_whatever_the_cores(normal, monkeypatch):
    settings = {"warmup": 100, "draws": 50, "chains": 3}
    first, other = normal.run(seed=5, **settings), normal.run(seed=6, **settings)
    monkeypatch.setattr(native_nuts, "available_cores", lambda: 1)
    assert_same(normal.run(seed=5, **settings), first, rtol=0)
    assert not (first.values[..., :4] == other.values[..., :4]).any()
    assert not (first.values[0, :, :4] == first.values[1, :, :4]).any()
    largest = normal.run(seed=2**32 - 1, warmup=1, draws=1, chains=1)
    assert largest.values.shape == (1, 1, 6)


def test_generated_quantities_that_fail_are_nan(normal, troubled):
    settings = {"seed": 3, "warmup": 200, "draws": 400}
    run, whole = troubled(LATE).run(**settings), normal.run(**settings)
    failed = run.values[..., 2] > 0.4
    assert failed.any()
    np.testing.assert_array_equal(np.isnan(run.values[..., -1]), failed)
    np.testing.assert_array_equal(run.values[..., :-2], whole.values[..., :-2])


# ---- Beside CmdStan ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"warmup": 1, "draws": 6},
        {"warmup": 25, "draws": 1, "metric": "dense_e", "adapt_delta": 0.95, "max_treedepth": 3},
    ],
)
def test_random_numbers_and_defaults_are_cmdstans(native_trend, trend, exe, settings):
    """In a short run, where differences of rounding have not grown yet."""
    settings = {"seed": 8, "chains": 3, **settings}
    theirs = cmdstan.run(trend, NutsSettings(**settings), None, open_executable(exe), None)
    assert_same(native_trend.run(**settings), theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("metric", ["diag_e", "dense_e"])
def test_a_whole_run_agrees_with_cmdstans(native_trend, trend, exe, metric):
    settings = {"seed": 4, "warmup": 600, "draws": 1000, "metric": metric}
    run = native_trend.run(**settings)
    theirs = cmdstan.run(trend, NutsSettings(**settings), None, open_executable(exe), None)
    for name in ("k", "m", "sigma_obs", "beta.1", "delta.2", "trend.60"):
        ours, other = (r.values[..., trend.columns.index(name)] for r in (run, theirs))
        for method, moment in (("mean", np.mean), ("sd", np.std)):
            se = np.hypot(arviz.mcse(ours, method=method), arviz.mcse(other, method=method))
            assert abs(moment(ours) - moment(other)) < MCSES * se, (name, method)
    for name in ("stepsize__", "n_leapfrog__", "accept_stat__"):
        assert run.statistics[name].mean() == pytest.approx(theirs.statistics[name].mean(), rel=0.3)


@pytest.mark.parametrize("metric", ["diag_e", "dense_e"])
@pytest.mark.parametrize("warmup", [20, 160])
def test_starts_are_those_of_cmdstan(native_trend, trend, exe, metric, warmup):
    rows = native_trend.run(seed=2, warmup=300, draws=100).values[:2, -1]
    parameters = tuple(parameters_of(trend, row) for row in rows)
    z = np.array([trend.unconstrain(p) for p in parameters])
    scales = np.linspace(0.5, 2, trend.dim) ** 2 * 1e-2
    starts = ChainStarts(
        z, parameters, scales if metric == "diag_e" else np.diag(scales) + 1e-4, 100, 100.0
    )
    settings = {"seed": 3, "chains": 2, "warmup": warmup, "draws": 2, "metric": metric}
    run = native_trend.run(starts=starts, **settings)
    theirs = cmdstan.run(trend, NutsSettings(**settings), starts, open_executable(exe), None)
    if warmup == 20:  # in a longer run differences of rounding may have grown
        assert_same(run, theirs, rtol=1e-5, atol=1e-8)
    elsewhere = native_trend.run(**settings)
    assert not (run.values[..., 0] == elsewhere.values[..., 0]).any()


# ---- Failures, output and interruption --------------------------------------------------------


def test_a_chain_that_cannot_start_says_so_in_stans_words(troubled):
    with pytest.raises(NumericsError, match=r"chain \d of NUTS failed: .*never 7") as caught:
        troubled(REJECTED).run()
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; Initialization failed.")
    assert "Initialization between (-2, 2) failed after 100 attempts." in caught.value.detail


def starting_at(parameters, inverse_metric):
    n = len(parameters)
    return ChainStarts(np.zeros((n, 3)), parameters, np.array(inverse_metric), 1, 1.0)


INSIDE = {"mu": [0.0, 0.5], "p": 0.5}
OUTSIDE = {"mu": [0.0, 0.5], "p": 1.5}


def test_a_chain_that_finds_no_step_size_has_failed(normal):
    """Stan's sampler says so, but returns that all is well."""
    starts = starting_at((INSIDE,), np.full(3, 1e-16))
    with pytest.raises(NumericsError, match=r"step size\.; Posterior is improper"):
        normal.run(starts=starts, chains=1)


def test_a_chain_that_fails_ends_the_others(normal):
    threads = threading.active_count()
    starts = starting_at((INSIDE, OUTSIDE), np.ones(3))
    with pytest.raises(NumericsError, match=r"chain 2 of NUTS failed: .*1\.5"):
        normal.run(starts=starts, chains=2, warmup=10**6, draws=10**6)
    assert threading.active_count() <= threads


@pytest.mark.parametrize("metric", ["diag_e", "dense_e"])
def test_an_inverse_metric_that_is_none_is_refused_in_stans_words(normal, metric):
    inverse = [1.0, 1.0, -1.0]
    starts = starting_at((INSIDE,), inverse if metric == "diag_e" else np.diag(inverse))
    with pytest.raises(NumericsError, match="chain 1 of NUTS failed") as caught:
        normal.run(starts=starts, chains=1, metric=metric)
    assert "positive definite" in caught.value.detail


def test_parameters_that_are_not_given_start_anywhere(normal):
    settings = {"chains": 1, "warmup": 1, "draws": 1, "max_treedepth": 1}
    starts = starting_at(({"mu": [70.0, -30.0]},), np.ones(3))
    first, second = (normal.run(starts=starts, seed=s, **settings).values[0, 0] for s in (1, 2))
    assert first[0] > 20  # it has hardly moved
    assert second[0] > 20
    assert first[2] != second[2]


def test_progress_and_prints_go_to_standard_error(troubled, capfd):
    settings = {"warmup": 50, "draws": 50, "chains": 2}
    printing = troubled(PRINTING)
    with NutsProgress(NutsSettings(**settings)) as progress:
        shown = printing.run(progress=progress, **settings)
    out, err = capfd.readouterr()
    assert out == ""
    assert "iteration 200/200 of 2 chains" in err
    assert err.count("p is 0.") >= 50
    with printing.library.printing.muted():
        assert_same(printing.run(**settings), shown, rtol=0)
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_run_ends_in_the_midst_of_a_transition(troubled):
    """Of hundreds of gradients, each of which takes half a second."""
    slow = troubled(SLOW)
    threads = threading.active_count()
    interrupt = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    began = time.monotonic()
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        slow.run(chains=3)
    assert time.monotonic() - began < 30
    interrupt.join()
    assert threading.active_count() <= threads
