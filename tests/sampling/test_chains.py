"""Chains against targets known in closed form, over many independent chains."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stanflow.sampling.chains import MOST_CLIMBS, Chains
from stanflow.sampling.metric import Metric
from stanflow.stan.density import DensityBatch
from tests.training.targets import TARGET, GaussianTarget, HalfGaussian, StudentTTarget

CHAINS = 4000
CORRELATED = GaussianTarget([3.0, -1.0, 0.5], [[4.0, 1.8, 0], [1.8, 1.0, 0.2], [0, 0.2, 0.25]])


def draws_of(target, n=20_000, seed=1):
    return np.random.default_rng(seed).multivariate_normal(target.mean, target.covariance, n)


def diagonal(scale):
    return Metric(np.empty((0, len(scale))), np.asarray(scale, float))


def run(target, metric, *, transitions=40, seed=1, start=None, chains=CHAINS):
    """Chains that begin near the target, but too narrow, after some transitions."""
    rng = np.random.default_rng(seed)
    if start is None:
        start = 0.3 * rng.standard_normal((chains, target.dim))
    walking = Chains(target, start, metric, rng)
    for _ in range(transitions):
        walking.transition(8)
    return walking


def test_a_metric_has_the_covariance_of_its_draws():
    metric = Metric(draws_of(CORRELATED))
    factor = metric.to_space(np.eye(3)).T
    # A covariance's standard error is at most that of two perfectly correlated normals.
    scale = np.sqrt(np.diag(CORRELATED.covariance))
    bound = 4.5 * np.sqrt(2 / 20_000) * np.outer(scale, scale)
    assert (np.abs(factor @ factor.T - CORRELATED.covariance) < bound).all()


@given(st.integers(1, 6), st.booleans(), st.integers(0, 1000))
def test_gradients_are_pulled_back_by_the_map_of_steps(dim, dense, seed):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((dim, dim))
    metric = Metric(rng.standard_normal((10 * dim if dense else 3, dim)) @ mixing)
    u, gradient = rng.standard_normal((2, 5, dim))
    np.testing.assert_allclose(
        (metric.to_space(u) * gradient).sum(1), (u * metric.pull_back(gradient)).sum(1)
    )
    off_diagonal = metric.to_space(np.eye(dim)) - np.diag(np.diag(metric.to_space(np.eye(dim))))
    assert (np.abs(off_diagonal).max() > 0) == (dense and dim > 1)


def test_heavy_tails_do_not_change_a_metrics_correlations():
    draws = draws_of(CORRELATED, 1000)
    ones = np.ones(3)
    one, other = (Metric(x, ones).to_space(np.eye(3)) for x in (draws, np.sinh(20 * draws)))
    np.testing.assert_allclose(one, other)


def test_a_given_scale_takes_the_place_of_standard_deviations():
    scale = np.array([0.1, 7.0, 1e-8])
    np.testing.assert_array_equal(diagonal(scale).to_space(np.eye(3)), np.diag(scale))
    lengths = np.linalg.norm(Metric(draws_of(CORRELATED), scale).to_space(np.eye(3)).T, axis=1)
    np.testing.assert_allclose(lengths, scale, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_coordinate_that_never_moved_leaves_a_usable_metric():
    draws = draws_of(CORRELATED, 100)
    draws[:, 1] = 5.0
    image = Metric(draws).to_space(np.ones((1, 3)))
    assert np.isfinite(image).all()
    assert (image > 0).all()


def test_chains_draw_from_a_correlated_normal():
    z = run(CORRELATED, Metric(draws_of(CORRELATED))).z
    scale = np.sqrt(np.diag(CORRELATED.covariance))
    error = (z.mean(0) - CORRELATED.mean) / (scale / np.sqrt(CHAINS))
    assert np.abs(error).max() < 4.5
    assert np.abs(np.log(z.std(0) / scale)).max() < 4.5 / np.sqrt(2 * CHAINS)
    whitened = (z - CORRELATED.mean) @ np.linalg.cholesky(CORRELATED.precision)
    assert np.abs(np.corrcoef(whitened.T) - np.eye(3)).max() < 4.5 / np.sqrt(CHAINS)
    assert all(stats.kstest(x, "norm").pvalue > 1e-3 for x in whitened.T)


def test_chains_draw_from_a_student_t():
    target = StudentTTarget([3.0, -20.0], [1.0, 5.0], 4.0)
    z = run(target, diagonal([1.0, 5.0]), transitions=60).z
    for x, location, scale in zip(z.T, target.location, target.scale, strict=True):
        assert stats.kstest(x, stats.t(4.0, location, scale).cdf).pvalue > 1e-3


def test_chains_keep_to_where_the_density_is_finite():
    """Step sizes that adapt to each chain's place bend its distribution a little near an edge."""
    target = HalfGaussian([0.0, 2.0], np.eye(2))
    start = np.abs(np.random.default_rng(2).standard_normal((CHAINS, 2)))
    chains = run(target, diagonal([1.0, 1.0]), start=start)
    assert chains.there.accepted.all()
    assert stats.kstest(chains.z[:, 0], "halfnorm").statistic < 0.1
    assert stats.kstest(chains.z[:, 1] - 2, "norm").pvalue > 1e-3


def test_adapted_chains_mix_whatever_the_targets_scales_are():
    """They have the metric of their own draws from halfway on, as in an ensemble's start."""
    scale = np.array([1e-4, 1.0, 1e3])
    correlation = np.array([[1.0, 0.999, 0], [0.999, 1.0, 0], [0, 0, 1.0]])
    target = GaussianTarget([0.0, 0, 0], correlation * np.outer(scale, scale))
    rng = np.random.default_rng(3)
    start = rng.multivariate_normal(np.zeros(3), target.covariance, CHAINS)
    chains = run(target, diagonal(scale), start=start, transitions=20)
    chains.adapt(Metric(chains.z))
    before = chains.z
    for _ in range(20):
        chains.transition(8)
    assert all(
        stats.kstest(x / s, "norm").pvalue > 1e-3 for x, s in zip(chains.z.T, scale, strict=True)
    )
    for then, now in zip(before.T, chains.z.T, strict=True):
        assert abs(stats.spearmanr(then, now).statistic) < 4.5 / np.sqrt(CHAINS)


def test_what_is_known_at_the_chains_belongs_to_where_they_are():
    chains = run(CORRELATED, diagonal([1, 1, 1]), transitions=5, chains=20)
    there = CORRELATED.log_density_gradient(chains.z)
    np.testing.assert_array_equal(chains.there.log_density, there.log_density)
    np.testing.assert_array_equal(chains.there.gradient, there.gradient)


@pytest.mark.parametrize("distance", [10.0, 1e6])
def test_chains_climb_to_a_level(distance):
    target = GaussianTarget(TARGET.mean + distance, TARGET.covariance)
    start = TARGET.mean + np.random.default_rng(1).standard_normal((20, 3))
    start[:5] = target.mean + 0.1  # these are there already
    chains = Chains(target, start, diagonal([1, 1, 1]), np.random.default_rng(1))
    level = -stats.chi2(3).ppf(0.9) / 2  # nine tenths of the target's draws are above it
    assert (chains.there.log_density >= level).sum() == 5
    chains.climb(level, first_step=0.1)
    assert (chains.there.log_density >= level).all()
    assert (target.log_density_gradient(chains.z).log_density >= level).all()
    np.testing.assert_array_equal(chains.z[:5], start[:5])
    assert target.evaluations < 20 * MOST_CLIMBS  # it ended once all were there


def test_chains_that_are_nowhere_near_are_lost_and_start_again():
    """By 100 nats and 10 a dimension: 25 standard deviations out where there are three."""
    start = TARGET.mean + np.array([[0.0], [5], [30], [100]]) * [
        0,
        0,
        np.sqrt(TARGET.covariance[2, 2]),
    ]
    precise = GaussianTarget(TARGET.mean, np.diag(np.diag(TARGET.covariance)))
    chains = Chains(precise, start, diagonal([1, 1, 1]), np.random.default_rng(1))
    lost = chains.lost(-1.0)
    assert lost.tolist() == [False, False, True, True]
    before = precise.evaluations
    chains.restart(lost, np.tile(TARGET.mean, (4, 1)))
    assert precise.evaluations == before + 2
    np.testing.assert_array_equal(chains.z[:2], start[:2])
    np.testing.assert_array_equal(chains.z[2:], np.tile(TARGET.mean, (2, 1)))
    there = precise.log_density_gradient(chains.z)
    np.testing.assert_array_equal(chains.there.log_density, there.log_density)
    np.testing.assert_array_equal(chains.there.gradient, there.gradient)


def test_chains_climb_past_points_that_are_rejected():
    class Wall(GaussianTarget):
        """Long steps end beyond the wall, which is two standard deviations past the mode."""

        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            bad = z[:, 0] > 102
            return DensityBatch(
                np.where(bad, np.nan, batch.log_density),
                np.where(bad[:, None], np.nan, batch.gradient),
                ~bad,
            )

    chains = Chains(
        Wall([100.0], [[1.0]]), np.linspace(-50, 50, 9)[:, None], diagonal([1]),
        np.random.default_rng(1),
    )  # fmt: skip
    chains.climb(-1.0, first_step=30.0)
    assert (chains.there.log_density >= -1).all()


def test_chains_follow_their_seed():
    one, again, other = (
        run(CORRELATED, diagonal([1, 1, 1]), seed=seed, start=np.zeros((5, 3)), transitions=3).z
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
