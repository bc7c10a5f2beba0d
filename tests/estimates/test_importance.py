import math

import arviz
import numpy as np
import pytest
from scipy import stats

from stanflow.estimates.draws import LogDensities, pool
from stanflow.estimates.importance import (
    estimate_evidence,
    highest_pareto_k,
)
from stanflow.stan.density import NormalizingConstant
from stanflow.statistics.importance_weights import pareto_smoothed

CONSTANT = NormalizingConstant(0.25, known=True, reason="")


def normal_against_normal(sd, n, seed, dim=1):
    """Draws of q = N(0, sd) against p = 7 N(0, 1): the evidence is 7."""
    z = np.random.default_rng(seed).normal(0, sd, size=(n, dim))
    log_p = math.log(7) + stats.norm.logpdf(z).sum(axis=1)
    return LogDensities(log_p, stats.norm.logpdf(z, scale=sd).sum(axis=1), 0)


def test_the_evidence_and_its_standard_error_are_right():
    """For q = N(0, s), w^2 has the mean 49 s^2 / sqrt(2 s^2 - 1): the variance in closed form."""
    sd, n = 1.5, 20_000
    estimates = [
        estimate_evidence(normal_against_normal(sd, n, seed), CONSTANT) for seed in range(50)
    ]
    variance = sd**2 / math.sqrt(2 * sd**2 - 1) - 1
    scores = [(e.log_evidence - math.log(7) - 0.25) / math.sqrt(variance / n) for e in estimates]
    assert abs(np.mean(scores)) < 4.5 / math.sqrt(50)
    assert stats.chi2.cdf(np.square(scores).sum(), 50) == pytest.approx(0.5, abs=0.4999)
    assert estimates[0].se == pytest.approx(math.sqrt(variance / n), rel=0.05)
    assert estimates[0].normalized
    assert estimates[0].smoothed_log_evidence == pytest.approx(estimates[0].log_evidence, abs=1e-3)


def test_the_error_bar_holds_where_weights_have_no_variance():
    """k = 0.75: the delta method alone is off by two standard errors in a third of all cases."""
    estimates = [
        estimate_evidence(normal_against_normal(0.5, 4000, seed), CONSTANT) for seed in range(100)
    ]
    errors = np.array([e.log_evidence - math.log(7) - 0.25 for e in estimates])
    scores = errors / [e.se for e in estimates]
    plain = [4000 ** (min(max(e.pareto_k, 0.5), 1) - 0.5) for e in estimates] * scores
    assert np.mean(np.abs(plain) > 2) > 0.25
    assert np.mean(np.abs(scores) > 2) < 0.2


def test_k_hat_is_that_of_the_tail():
    """For q = N(0, s) narrower than N(0, 1), w has a Pareto tail of shape 1 - s^2."""
    for sd in (0.5, 0.7):
        k = estimate_evidence(normal_against_normal(sd, 200_000, 1), CONSTANT).pareto_k
        assert k == pytest.approx(1 - sd**2, abs=0.15)
    assert estimate_evidence(normal_against_normal(2, 20_000, 1), CONSTANT).pareto_k < 0.3


def test_weights_are_arviz_and_their_effective_number_is_kishs():
    draws = normal_against_normal(0.7, 4000, 3)
    estimate = estimate_evidence(draws, CONSTANT)
    log_weights, k = arviz.psislw(draws.log_ratio)
    np.testing.assert_allclose(estimate.log_weights, log_weights)
    assert estimate.pareto_k == k
    weights = np.exp(estimate.log_weights)
    assert weights.sum() == pytest.approx(1)
    assert estimate.ess == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_refused_draws_have_weight_zero():
    """Half of q outside the support, where the target has the rest of its mass twice over."""
    accepted = LogDensities(np.full(3000, math.log(2)), np.zeros(3000), rejected=3000)
    estimate = estimate_evidence(accepted, CONSTANT)
    assert estimate.log_evidence == pytest.approx(0.25)
    assert estimate.se == pytest.approx(1 / math.sqrt(5999))


def test_equal_weights_have_no_tail():
    rounding = 1e-13 * np.random.default_rng(1).normal(size=1000)
    for log_ratio in (np.zeros(1000), 1000 + rounding):
        log_weights, k = pareto_smoothed(log_ratio)
        assert k == 0
        np.testing.assert_allclose(np.exp(log_weights), 1e-3)


@pytest.mark.parametrize(("highest", "has_a_tail"), [(2.98, False), (3.02, True)])
def test_weights_that_are_nearly_alike_have_no_tail(highest, has_a_tail):
    """Their largest differences may have any shape, here that of a power law."""
    w = 1 + 1e-3 * np.random.default_rng(1).pareto(0.9, size=20_000)
    w = 1 + (w - 1) * (highest - 1) / (w.max() - 1)
    w[: len(w) // 2] -= 2 * (w.mean() - 1)  # the mean is one, and the heaviest half as it was
    w[-1] = highest * w.mean()
    estimate = estimate_evidence(LogDensities(np.log(w), np.zeros(len(w)), 0), CONSTANT)
    assert (estimate.pareto_k > 0.7) == has_a_tail
    assert has_a_tail or estimate.pareto_k == 0


def test_too_few_draws_cannot_tell():
    estimate = estimate_evidence(normal_against_normal(1.2, 10, 1), CONSTANT)
    assert estimate.pareto_k == math.inf
    assert np.exp(estimate.log_weights).sum() == pytest.approx(1)
    assert highest_pareto_k(10) < highest_pareto_k(100) == 0.5 < highest_pareto_k(10**6) == 0.7


def test_an_unknown_constant_is_not_called_normalized():
    unknown = NormalizingConstant(0.0, known=False, reason="")
    assert not estimate_evidence(normal_against_normal(1.2, 100, 1), unknown).normalized


def test_huge_log_densities_do_not_overflow():
    draws = normal_against_normal(1.5, 4000, 1)
    far = LogDensities(draws.log_p - 1e6, draws.log_q, 0)
    assert estimate_evidence(far, CONSTANT).log_evidence == pytest.approx(
        estimate_evidence(draws, CONSTANT).log_evidence - 1e6, abs=1e-6
    )


def test_parts_pooled_are_the_whole():
    whole = normal_against_normal(1.5, 1000, 1)
    parts = [
        LogDensities(whole.log_p[s], whole.log_q[s], rejected)
        for s, rejected in ((slice(300), 5), (slice(300, None), 7))
    ]
    np.testing.assert_array_equal(pool(parts).log_ratio, whole.log_ratio)
    assert pool(parts).rejected == 12
