"""Flat directions against a whole Hessian's eigenvectors."""

import numpy as np
import pytest

from stanflow.stan.density import DensityBatch
from stanflow.training.flat_directions import flat_directions

from .targets import GaussianTarget


def of_curvatures(curvatures, seed=1):
    """A normal whose precision has these eigenvalues, in random directions, (D, D)."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((len(curvatures), len(curvatures))))[0]
    covariance = directions / curvatures @ directions.T
    return GaussianTarget(np.zeros(len(curvatures)), covariance), directions


@pytest.mark.parametrize("flat", [(1e-2,), (1e-8, 1e-5, 2e-2)])
def test_they_are_those_of_the_hessian(flat):
    curvatures = np.concatenate([flat, np.linspace(0.2, 4, 80)])
    target, directions = of_curvatures(curvatures)
    found = flat_directions(target, np.random.default_rng(2))
    assert found.shape == (len(flat), len(curvatures))
    np.testing.assert_allclose(found @ found.T, np.eye(len(flat)), atol=1e-8)
    inside = found @ directions[:, : len(flat)]
    np.testing.assert_allclose(inside @ inside.T, np.eye(len(flat)), atol=1e-3)


def test_at_most_sixteen_are_looked_for():
    target, _ = of_curvatures(np.concatenate([np.full(20, 1e-3), np.ones(80)]))
    assert len(flat_directions(target, np.random.default_rng(2))) <= 16


def test_without_any_there_are_none():
    target, _ = of_curvatures(np.linspace(0.1, 3, 50))
    assert flat_directions(target, np.random.default_rng(2)) is None


def test_where_the_density_is_not_finite_there_are_none():
    class Cut(GaussianTarget):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            return DensityBatch(batch.log_density, batch.gradient, z[:, 0] < 1)

    target = Cut(np.zeros(50), np.diag(np.r_[1e4, np.ones(49)]))
    assert flat_directions(target, np.random.default_rng(2)) is None
