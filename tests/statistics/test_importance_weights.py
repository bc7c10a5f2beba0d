"""Against ArviZ, which has the same definitions."""

import arviz
import numpy as np
import pytest

from stanflow.statistics.importance_weights import (
    effective_sample_size,
    normalized,
    pareto_smoothed,
)
from tests.arviz_versions import IS_BEFORE_1


@pytest.mark.skipif(not IS_BEFORE_1, reason="ArviZ 1.x fits the tail a little otherwise")
@pytest.mark.parametrize("draws", [25, 60, 1000, 20_000])
@pytest.mark.parametrize("scale", [0.05, 0.5, 2.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_smoothed_weights_and_k_hat_are_arvizs(draws, scale, seed):
    log_ratio = scale * np.random.default_rng(seed).standard_t(4, size=draws)
    log_weights, k = pareto_smoothed(log_ratio)
    if k == 0:
        return
    with np.errstate(over="ignore"):
        smoothed, arvizs = arviz.psislw(log_ratio)
    assert k == pytest.approx(float(arvizs), rel=1e-9)
    np.testing.assert_allclose(log_weights, smoothed, atol=1e-9)


def test_k_hat_is_the_shape_of_the_weights_tail():
    rng = np.random.default_rng(1)
    for shape in (0.2, 0.5, 0.9):
        _, k = pareto_smoothed(rng.exponential(shape, size=200_000))
        assert k == pytest.approx(shape, abs=0.05)


def test_few_draws_have_no_k_hat_and_equal_weights_no_tail():
    assert pareto_smoothed(np.zeros(24))[1] == np.inf
    log_weights, k = pareto_smoothed(np.full(100, 3.0))
    assert k == 0
    np.testing.assert_allclose(log_weights, -np.log(100))


def test_draws_without_weight_stay_without():
    log_ratio = np.random.default_rng(2).normal(size=500)
    log_ratio[:100] = -np.inf
    log_weights, k = pareto_smoothed(log_ratio)
    assert (log_weights[:100] == -np.inf).all()
    assert np.isfinite(k)
    assert np.exp(log_weights).sum() == pytest.approx(1)


def test_effective_draws_are_those_that_share_the_weight():
    log_weights = normalized(np.array([0.0, 0.0, 0.0, -np.inf]))
    assert effective_sample_size(log_weights) == pytest.approx(3)
