import numpy as np
import pytest

from stanflow.stan.density import DensityBatch
from stanflow.training import warmstart
from stanflow.training.warmstart import mean_field_start

from .targets import TARGET, GaussianTarget


def test_the_warm_start_finds_location_and_scale():
    far = GaussianTarget([1000.0, -1e5, 0.0], np.diag([1e-2, 1e6, 1e-8]))
    for target in (TARGET, far):
        start = mean_field_start(target, np.random.default_rng(1))
        conditional_sd = 1 / np.sqrt(np.diag(target.precision))  # what mean-field VI gives
        error = (start.location - target.mean) / np.sqrt(np.diag(target.covariance))
        np.testing.assert_allclose(error, 0, atol=1)
        np.testing.assert_allclose(np.exp(start.log_scale), conditional_sd, rtol=0.5)


def test_the_warm_start_knows_the_elbo_and_its_gradient():
    """Both against the closed form for a Gaussian, averaged over many batches."""
    rng = np.random.default_rng(2)
    location, log_scale = np.array([0.5, -1.0, 33.0]), np.array([-0.5, 0.2, 1.0])
    parameters = np.concatenate([location, log_scale])
    off, precision = location - TARGET.mean, TARGET.precision
    variance = np.exp(2 * log_scale)
    elbo = -0.5 * (off @ precision @ off + variance @ np.diag(precision)) + log_scale.sum()
    gradient = np.concatenate([precision @ off, variance * np.diag(precision) - 1])
    elbos = [warmstart._elbo(TARGET, parameters, rng) for _ in range(400)]
    gradients = np.array(
        [warmstart._path_gradient(TARGET, parameters, 16, rng) for _ in range(2000)]
    )
    assert np.mean(elbos) == pytest.approx(elbo, abs=4.5 * np.std(elbos) / np.sqrt(400))
    bound = 4.5 * gradients.std(0) / np.sqrt(2000)
    assert (np.abs(gradients.mean(0) - gradient) < bound + 1e-12).all()


def test_the_warm_start_comes_back_from_where_no_draw_is_accepted():
    """Its steps grow while the sign stays, so here it runs off the edge."""

    class Cliff(GaussianTarget):
        def log_density_gradient(self, z):
            accepted = z[:, 0] < 3
            gradient = np.where(accepted[:, None], np.array([1.0, 0.0]) - 0.001 * z, np.nan)
            return DensityBatch(np.where(accepted, z[:, 0], np.nan), gradient, accepted)

    start = mean_field_start(Cliff([0.0, 0.0], np.eye(2)), np.random.default_rng(1))
    assert start.location[0] < 3
    assert np.isfinite(start.log_scale).all()


def test_time_and_ctrl_c_reach_the_warm_start_too():
    calls = []

    def stop_at_the_third():
        calls.append(None)
        return len(calls) >= 3

    target = GaussianTarget([1000.0, 0.0], np.eye(2))
    start = mean_field_start(target, np.random.default_rng(1), stop_at_the_third)
    assert target.evaluations < 500
    assert np.isfinite(start.location).all()
