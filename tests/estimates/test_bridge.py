import math

import numpy as np
import pytest
from scipy import stats

from stanflow.errors import NumericsError
from stanflow.estimates.bridge import bridge_evidence

DIM = 5
LOG_EVIDENCE = math.log(3)


def log_p(z):
    return LOG_EVIDENCE + stats.norm.logpdf(z).sum(axis=-1)


def log_q(z):
    return stats.norm.logpdf(z, 0.3, 0.8).sum(axis=-1)


def autoregressive(rng, chains, draws, rho):
    noise = rng.normal(size=(draws, chains, DIM))
    z = np.empty_like(noise)
    z[0] = noise[0]
    for t in range(1, draws):
        z[t] = rho * z[t - 1] + math.sqrt(1 - rho**2) * noise[t]
    return np.moveaxis(z, 0, 1)


def estimate(seed, rho=0.0, n=1000):
    rng = np.random.default_rng(seed)
    x = rng.normal(0.3, 0.8, size=(n, DIM))
    y = autoregressive(rng, 4, n // 4, rho)
    return bridge_evidence(log_p(x), log_q(x), log_p(y), log_q(y))


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_evidence_is_found_with_an_honest_error(rho):
    """Scores of 60 repetitions have mean 0 and variance 1, up to the error's own approximation."""
    estimates = [estimate(seed, rho) for seed in range(60)]
    scores = np.array([(e.value - LOG_EVIDENCE) / e.se for e in estimates])
    assert abs(scores.mean()) < 4.5 / math.sqrt(60) * 1.3
    assert 0.6 < scores.std() < 1.5
    assert all(e.converged for e in estimates)


def test_autocorrelated_draws_tell_less():
    assert estimate(1, rho=0.9).se > 1.5 * estimate(1).se


def test_it_is_more_precise_than_importance_sampling_where_q_is_too_narrow():
    """q = N(0.3, 0.8) has a variance of weights that is barely finite; the bridge does not mind."""
    rng = np.random.default_rng(1)
    bridged, sampled = [], []
    for seed in range(40):
        bridged.append(estimate(seed).value)
        x = rng.normal(0.3, 0.8, size=(2000, DIM))
        sampled.append(np.log(np.mean(np.exp(log_p(x) - log_q(x)))))
    assert np.std(bridged) < 0.5 * np.std(sampled)


@pytest.mark.parametrize(("away", "is_high"), [(0.0, False), (1.0, False), (5.0, True)])
def test_pareto_k_tells_whether_the_two_overlap(away, is_high):
    """Of normals five standard deviations apart, each draw in between carries the whole mean."""
    rng = np.random.default_rng(1)
    at_q, at_p = rng.normal(away, 1, 4000), rng.normal(size=(4, 1000))
    found = bridge_evidence(
        -0.5 * at_q**2, -0.5 * (at_q - away) ** 2, -0.5 * at_p**2, -0.5 * (at_p - away) ** 2
    )
    assert (found.pareto_k > 0.7) == is_high
    assert abs(found.value) < 4 * found.se + 1e-9 or is_high


def test_equal_densities_give_the_evidence_exactly():
    z = np.random.default_rng(1).normal(size=(100, DIM))
    exact = bridge_evidence(log_p(z), log_p(z) - 7.0, log_p(z)[None], log_p(z)[None] - 7.0)
    assert exact.value == pytest.approx(7.0)
    assert exact.se < 1e-12


def test_draws_outside_the_support_count():
    """Half of q's mass is where p is zero: the evidence is q's other half, twice as dense."""
    at_q = np.where(np.arange(2000) % 2 == 0, math.log(2), -np.inf)
    at_p = np.full((4, 250), math.log(2))
    assert bridge_evidence(at_q, np.zeros(2000), at_p, np.zeros((4, 250))).value == pytest.approx(0)


def test_draws_that_cannot_be_bridged_are_an_error_in_words():
    with pytest.raises(NumericsError, match="not finite"):
        bridge_evidence(np.zeros(9), np.zeros(9), np.full((1, 9), np.nan), np.zeros((1, 9)))
    with pytest.raises(NumericsError, match="do not overlap"):
        bridge_evidence(np.full(9, -np.inf), np.zeros(9), np.zeros((1, 9)), np.zeros((1, 9)))
