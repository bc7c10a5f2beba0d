"""Against ArviZ, which has the same definitions."""

import arviz
import numpy as np
import pytest

from stanflow.statistics import markov_chains

SHAPES = [(1, 4), (2, 5), (4, 17), (3, 250), (4, 1000)]


def autoregression(rng, shape, correlation):
    x = rng.normal(size=shape)
    for step in range(1, shape[1]):
        x[:, step] += correlation * x[:, step - 1]
    return x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.6, 0.99])
@pytest.mark.parametrize("form", ["as it is", "rounded", "heavy tails"])
def test_effective_sample_sizes_and_errors_are_arvizs(shape, correlation, form):
    x = autoregression(np.random.default_rng(1), shape, correlation)
    if form == "rounded":
        x = np.round(x, 1)
    elif form == "heavy tails":
        x = np.sign(x) * np.exp(np.abs(3 * x))
    pairs = [
        (markov_chains.ess_bulk(x), arviz.ess(x, method="bulk")),
        (markov_chains.ess_mean(x), arviz.ess(x, method="mean")),
        (markov_chains.ess_quantile(x, 0.3), arviz.ess(x, method="quantile", prob=0.3)),
        (markov_chains.mcse_mean(x), arviz.mcse(x, method="mean")),
        (markov_chains.mcse_sd(x), arviz.mcse(x, method="sd")),
        (markov_chains.mcse_quantile(x, 0.3), arviz.mcse(x, method="quantile", prob=0.3)),
        (markov_chains.bfmi(x)[0], arviz.bfmi(x)[0]),
    ]
    if shape[0] > 1:
        pairs.append((markov_chains.rhat(x), arviz.rhat(x)))
    for ours, arvizs in pairs:
        assert ours == pytest.approx(float(arvizs), rel=1e-9, nan_ok=True)


def test_the_tails_effective_sample_size_is_the_smaller_quantiles():
    x = autoregression(np.random.default_rng(2), (4, 333), 0.5)
    x[x > 1] **= 3
    low, high = (markov_chains.ess_quantile(x, p) for p in (0.05, 0.95))
    assert markov_chains.ess_tail(x) == min(low, high)


def test_chains_that_disagree_only_in_scale_or_halves_have_a_large_rhat():
    rng = np.random.default_rng(3)
    scales = rng.normal(size=(4, 500)) * np.array([[1.0], [1.0], [1.0], [5.0]])
    drifting = rng.normal(size=(4, 500)) + np.linspace(0, 3, 500)
    assert markov_chains.rhat(scales) > 1.05
    assert markov_chains.rhat(drifting) > 1.05


def test_what_is_not_finite_or_too_short_has_no_diagnostics():
    x = np.random.default_rng(4).normal(size=(2, 100))
    with_nan = x.copy()
    with_nan[1, 3] = np.nan
    for draws in (with_nan, x[:, :3]):
        for name in ("ess_bulk", "ess_tail", "ess_mean", "mcse_mean", "rhat"):
            assert np.isnan(getattr(markov_chains, name)(draws))
    assert np.isnan(markov_chains.rhat(x[:1]))
