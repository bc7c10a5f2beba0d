import numpy as np
import pytest
from scipy import stats

from stanflow.comparison.montecarlo import QUANTILES, from_chains, from_independent

from .runs import autoregression

TRUE_QUANTILES = stats.norm.ppf(QUANTILES)


def z_scores(estimates):
    """Errors of estimates of the standard normal, in units of their standard errors."""
    return {
        "mean": estimates.mean / estimates.mean_se,
        "sd": (estimates.sd - 1) / estimates.sd_se,
        **{
            f"quantile {p}": (q - truth) / se
            for p, q, se, truth in zip(
                QUANTILES, estimates.quantiles, estimates.quantile_se, TRUE_QUANTILES, strict=True
            )
        },
    }


def assert_standard_normal(scores):
    """Sd of z-scores within 4 of its standard errors, and 5 % for what is asymptotic in them."""
    for name, z in scores.items():
        allowed = 4 / np.sqrt(2 * len(z)) + 0.05
        assert abs(np.sqrt(np.mean(z**2)) - 1) < allowed, (name, np.sqrt(np.mean(z**2)))


def test_errors_of_correlated_chains_are_what_estimates_vary_by():
    chains = autoregression(np.random.default_rng(1), 0.6, 4, 500, 250)
    found = from_chains(chains)
    assert_standard_normal(z_scores(found))
    # An autoregression is worth (1 - c) / (1 + c) of its draws; its squares c^2 in place of c.
    assert np.median(found.ess) == pytest.approx(2000 * 0.4 / 1.6, rel=0.1)
    assert np.median(found.ess_sd) == pytest.approx(2000 * 0.64 / 1.36, rel=0.15)


def test_errors_of_independent_draws_are_what_estimates_vary_by():
    values = np.random.default_rng(2).normal(size=(1000, 400))
    found = from_independent(values)
    assert_standard_normal(z_scores(found))
    np.testing.assert_allclose(found.mean_se, values.std(axis=0, ddof=1) / np.sqrt(1000))
    np.testing.assert_allclose(found.ess, 1000)


def test_errors_of_weighted_draws_are_what_estimates_vary_by():
    """Draws of N(0.3, 1.3) weighted to be of N(0, 1)."""
    rng, scores = np.random.default_rng(3), []
    for _ in range(400):
        x = rng.normal(0.3, 1.3, size=1000)
        weights = stats.norm.pdf(x) / stats.norm.pdf(x, 0.3, 1.3)
        found = from_independent(x[:, None], weights)
        scores.append({name: z[0] for name, z in z_scores(found).items()})
    assert_standard_normal({k: np.array([s[k] for s in scores]) for k in scores[0]})


def test_weighted_estimates_are_their_formulas_written_out():
    x, w = [0.0, 1.0, 3.0, 7.0], [0.1, 0.4, 0.3, 0.2]
    squares = sum(v * v for v in w)
    mean = sum(v * a for v, a in zip(w, x, strict=True))
    variance = sum(v * (a - mean) ** 2 for v, a in zip(w, x, strict=True)) / (1 - squares)
    mean_se = np.sqrt(
        sum(v**2 * (a - mean) ** 2 for v, a in zip(w, x, strict=True)) / (1 - squares)
    )
    variance_se = np.sqrt(
        sum(v**2 * ((a - mean) ** 2 - variance) ** 2 for v, a in zip(w, x, strict=True))
    )
    found = from_independent(np.array(x)[:, None], 5 * np.array(w))
    assert found.mean[0] == pytest.approx(mean)
    assert found.sd[0] == pytest.approx(np.sqrt(variance))
    assert found.mean_se[0] == pytest.approx(mean_se)
    assert found.sd_se[0] == pytest.approx(variance_se / (2 * np.sqrt(variance)))


def test_weights_count_as_repetitions():
    rng = np.random.default_rng(4)
    x, times = rng.normal(size=500), rng.integers(0, 4, size=500)
    repeated = np.repeat(x, times)
    found = from_independent(x[:, None], times.astype(float))
    assert found.mean[0] == pytest.approx(repeated.mean())
    spread = np.diff(np.quantile(repeated, QUANTILES)).max() / len(repeated)
    np.testing.assert_allclose(
        found.quantiles[:, 0], np.quantile(repeated, QUANTILES), atol=10 * spread
    )


def test_one_draw_with_all_the_weight_has_no_error():
    found = from_independent(np.arange(4.0)[:, None], np.array([0.0, 1.0, 0.0, 0.0]))
    assert found.mean[0] == 1
    assert not np.isfinite(found.mean_se[0])


def test_heavy_tails_are_seen_and_light_ones_are_not():
    rng = np.random.default_rng(5)
    normal, cauchy = rng.normal(size=(4000, 50)), rng.standard_cauchy(size=(4000, 50))
    assert not from_independent(normal).heavy.any()
    assert from_independent(cauchy).heavy.all()
    assert not from_chains(normal.reshape(4, 1000, 50)).heavy.any()
    assert from_chains(cauchy.reshape(4, 1000, 50)).heavy.all()
    assert from_chains(autoregression(rng, 0.9, 4, 1000, 50)).heavy.mean() < 0.2
    rare = np.zeros((4000, 1))
    rare[:3] = 1
    assert from_independent(rare).heavy.all()


def test_huge_numbers_give_no_number_rather_than_a_wrong_one():
    found = from_independent(np.array([[1e200], [-1e200], [3e199], [0.0]]))
    assert not np.isfinite(found.sd_se[0])
