"""Ridges: where they are found, how exactly, and that nothing else is taken for one."""

import numpy as np
import pytest

from stanflow.stan.density import DensityBatch
from stanflow.stan.model import StanModel
from stanflow.training.batch_and_match import (
    Normal,
    _condition_number,
    _with_the_rest,
    along_ridge,
)
from stanflow.training.config import TrainConfig
from stanflow.training.start import begin

from .targets import GaussianTarget


def ridge(correlation=-0.99999, location=0.0, dim=2):
    """A normal with a strongly correlated first pair, in units of its conditional scales."""
    covariance = np.eye(dim)
    covariance[0, 1] = covariance[1, 0] = correlation
    return GaussianTarget(np.full(dim, location), in_conditional_scales(covariance))


def in_conditional_scales(covariance):
    scale = 1 / np.sqrt(np.diag(np.linalg.inv(covariance)))
    return covariance / np.outer(scale, scale)


@pytest.mark.parametrize(("location", "divergence"), [(0.0, 0.001), (1000.0, 0.5)])
@pytest.mark.parametrize("correlation", [-0.99999, 1 - 1e-8])
def test_a_normal_with_a_ridge_is_found(correlation, location, divergence):
    """Its scores are linear: noise leaves no trace. From afar, to what is worth an update."""
    target = ridge(correlation, location, dim=5)
    found = along_ridge(target, np.random.default_rng(1))
    assert (np.triu(found.factor, 1) == 0).all()
    factor = np.linalg.cholesky(target.covariance)
    whitened = np.linalg.solve(factor, found.factor)
    away = np.linalg.solve(factor, found.location - target.mean)
    kl = (np.sum(whitened**2) - 5 - 2 * np.log(np.diag(whitened)).sum() + away @ away) / 2
    assert kl < divergence, kl


def test_few_evaluations_do():
    target = ridge()
    along_ridge(target, np.random.default_rng(1))
    assert target.evaluations <= 256 * 5


def test_more_dimensions_than_draws():
    target = ridge(dim=300)
    found = along_ridge(target, np.random.default_rng(1))
    covariance = found.factor @ found.factor.T
    correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert correlation < -0.999


def test_two_ridges_among_a_thousand_dimensions():
    """One of a pair, and one of ten coordinates together; the others are correlated a little."""
    dim = 1100
    covariance = 0.2 * np.ones((dim, dim)) + 0.8 * np.eye(dim)
    covariance[:2, :] = covariance[:, :2] = 0
    covariance[:2, :2] = [[1, -0.99999], [-0.99999, 1]]
    covariance[2:12, 2:12] = 0.999 + 0.001 * np.eye(10)
    mean = np.zeros(dim)
    mean[:2] = 300.0, -300.0
    target = GaussianTarget(mean, in_conditional_scales(covariance))
    found = along_ridge(target, np.random.default_rng(1))
    assert (np.triu(found.factor, 1) == 0).all()
    whitened = np.linalg.solve(np.linalg.cholesky(target.covariance), found.factor)
    values = np.linalg.svd(whitened, compute_uv=False)
    assert values.min() > 0.7  # the common 0.2 is no ridge, nor are its directions flat
    assert np.sum(np.abs(np.log(values)) > 0.1) <= 2
    away = np.linalg.solve(np.linalg.cholesky(target.covariance), found.location - mean)
    assert np.abs(away).max() < 0.3


def test_the_condition_number_along_a_few_directions_is_that_of_the_whole():
    rng = np.random.default_rng(1)
    directions = np.linalg.qr(rng.standard_normal((40, 3)))[0].T
    factor = np.linalg.cholesky(np.cov(rng.standard_normal((3, 9))) * np.outer(*[[90, 3, 0.1]] * 2))
    within = Normal(np.zeros(3), factor)
    whole = _with_the_rest(within, directions).factor
    projector = directions.T @ directions
    covariance = np.eye(40) - projector + directions.T @ factor @ factor.T @ directions
    np.testing.assert_allclose(whole @ whole.T, covariance, atol=1e-9)
    sd = np.sqrt(np.diag(covariance))
    condition = np.linalg.cond(covariance / np.outer(sd, sd))
    assert _condition_number(within, directions) == pytest.approx(condition, rel=1e-6)


def test_many_dimensions_without_a_flat_direction_cost_little():
    target = GaussianTarget(np.zeros(1100), np.eye(1100))
    assert along_ridge(target, np.random.default_rng(1)) is None
    assert target.evaluations < 2000


def test_a_funnel_of_a_thousand_dimensions_is_no_ridge():
    model = StanModel(
        stan_code="parameters { real v; vector[1099] x; } "
        "model { v ~ normal(0, 3); x ~ normal(0, exp(v / 2)); }",
        engine="embedded",
    )
    assert along_ridge(model, np.random.default_rng(1)) is None


@pytest.mark.parametrize(
    "program",
    [
        "parameters { vector[2] x; } model { x ~ multi_normal([0, 0]', [[1, .99], [.99, 1]]); }",
        "parameters { real v; vector[9] x; } "
        "model { v ~ normal(0, 3); x ~ normal(0, exp(v / 2)); }",
        "parameters { vector[40] x; } model { x ~ cauchy(0, 1); }",
        "parameters { vector[2] x; } model { target += log_mix(.3, normal_lpdf(x | -7, 1), "
        "normal_lpdf(x | 7, 1)); }",
        "parameters { real x; } model { x ~ normal(0, 1); }",
    ],
)
def test_what_is_no_ridge_is_not_taken_for_one(program):
    model = StanModel(stan_code=program, engine="embedded")
    assert along_ridge(model, np.random.default_rng(1)) is None


def test_points_that_are_rejected_are_left_out():
    class Cut(GaussianTarget):
        """Only a ridge whose first coordinate is below one standard deviation."""

        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            inside = z[:, 0] < np.sqrt(self.covariance[0, 0])
            return DensityBatch(
                np.where(inside, batch.log_density, np.nan),
                np.where(inside[:, None], batch.gradient, np.nan),
                inside,
            )

    whole = ridge()
    found = along_ridge(Cut(whole.mean, whole.covariance), np.random.default_rng(1))
    np.testing.assert_allclose(found.factor @ found.factor.T, whole.covariance, rtol=0.1)


def test_where_nothing_is_accepted_there_is_none():
    class Nowhere(GaussianTarget):
        def log_density_gradient(self, z):
            bad = np.full(z.shape, np.nan)
            return DensityBatch(bad[:, 0], bad, np.zeros(len(z), dtype=bool))

    assert along_ridge(Nowhere([0.0, 0], np.eye(2)), np.random.default_rng(1)) is None


def test_it_ends_when_it_is_told_to():
    target = ridge()
    assert along_ridge(target, np.random.default_rng(1), lambda: True) is None
    assert target.evaluations <= 256


@pytest.mark.parametrize("seed", [1, 2])
def test_the_start_is_in_units_of_a_ridge(seed):
    """Intercept and slope over years: units, points and location in the program's own scale."""
    scale = np.array([1e3, 0.5])
    correlation = np.array([[1, -0.999999], [-0.999999, 1]])
    target = GaussianTarget([-3e3, 2.0], correlation * np.outer(scale, scale))
    start = begin(target, TrainConfig(spare_gradients=False), seed)
    matrix = np.exp(start.log_scale)[:, None] * start.factor
    whitened = np.linalg.solve(np.linalg.cholesky(target.covariance), matrix)
    # Twice the posterior's own, as where there is no ridge.
    np.testing.assert_allclose(whitened @ whitened.T, 4 * np.eye(2), atol=1.0)
    away = np.linalg.solve(matrix, (start.points - start.location).T)
    assert np.abs(away.mean(axis=1)).max() < 0.15
    np.testing.assert_allclose(away.std(axis=1), 0.5, rtol=0.2)
    assert begin(target, TrainConfig(whiten=False), seed).factor is None
