"""Marginal densities that are known: a funnel's, from its mouth to its neck, and a normal's."""

import numpy as np
import pytest
from scipy import stats

from stanflow.sampling.marginal import marginal, pooled
from stanflow.stan.density import Density, DensityBatch

DIM, PARTICLES, ISLANDS = 6, 512, 8


class Funnel(Density):
    """v, the third coordinate, is normal(0, 2); the others are normal(0, exp(v))."""

    dim = DIM

    def log_density_gradient(self, z):
        v, x = z[:, 2], np.delete(z, 2, axis=1)
        log_density = stats.norm.logpdf(v, 0, 2) + stats.norm.logpdf(x, 0, np.exp(v)[:, None]).sum(
            axis=1
        )
        of_x = -x / np.exp(2 * v)[:, None]
        of_v = -v / 4 + (x**2).sum(axis=1) * np.exp(-2 * v) - (DIM - 1)
        gradient = np.insert(of_x, 2, of_v, axis=1)
        return DensityBatch(log_density, gradient, np.isfinite(log_density))


class FunnelWithPit(Funnel):
    """A pit far from the funnel, too narrow to move in, that grows with v as nothing else does."""

    PLACE, WIDTH, GROWTH = 100.0, 1e-5, 1000.0

    def log_density_gradient(self, z):
        batch = super().log_density_gradient(z)
        inside = np.abs(z[:, 0] - self.PLACE) < 1
        from_middle = (z - self.PLACE * np.eye(DIM)[0]) / self.WIDTH
        from_middle[:, 2] = 0
        log_density = self.GROWTH * z[:, 2] - 0.5 * (from_middle**2).sum(axis=1)
        gradient = -from_middle / self.WIDTH + self.GROWTH * np.eye(DIM)[2]
        return DensityBatch(
            np.where(inside, log_density, batch.log_density),
            np.where(inside[:, None], gradient, batch.gradient),
            batch.accepted,
        )


def follow(direction, seed, *, way=4.0, particles=PARTICLES, density=None, points=None):
    rng = np.random.default_rng(seed)
    return marginal(
        Funnel() if density is None else density,
        rng.standard_normal((particles, DIM)) if points is None else points,
        2,
        (0.0, direction),
        scale=2.0,
        islands=ISLANDS,
        rng=rng,
        left=lambda values, log_density: float(abs(values[-1]) <= way),
    )


@pytest.mark.parametrize("direction", [1.0, -1.0], ids=["mouth", "neck"])
def test_the_density_is_exact_to_the_islands_error(direction):
    found = [follow(direction, seed) for seed in (1, 2, 3)]
    last = np.concatenate([np.exp(way.log_density[-1] + way.values[-1] ** 2 / 8) for way in found])
    error = last.std(ddof=1) / np.sqrt(len(last))
    assert error < 0.25
    assert last.mean() == pytest.approx(1, abs=4 * error)
    for way in found:
        assert (np.diff(way.values) * direction > 0).all()
        np.testing.assert_allclose(pooled(way.log_density), -(way.values**2) / 8, atol=0.6)


@pytest.mark.slow
def test_the_estimate_has_no_bias():
    """Units from the particles that move in them, or steps as long as these allow, cost a tenth."""
    ends = [follow(1.0, seed, way=5.0, particles=256) for seed in range(400)]
    ratio = np.array([np.exp(pooled(w.log_density)[-1] + w.values[-1] ** 2 / 8) for w in ends])
    error = ratio.std(ddof=1) / np.sqrt(len(ratio))
    assert error < 0.025
    assert ratio.mean() == pytest.approx(1, abs=3 * error)


def test_a_particle_that_is_no_draw_has_no_weight():
    points = np.random.default_rng(2).standard_normal((PARTICLES, DIM))
    points[0] = FunnelWithPit.PLACE * np.eye(DIM)[0]
    way = follow(1.0, seed=1, way=1.0, density=FunnelWithPit(), points=points)
    np.testing.assert_allclose(pooled(way.log_density), -(way.values**2) / 8, atol=0.3)
    assert np.abs(way.points[1:, :, 0]).max() < 50


@pytest.mark.parametrize("direction", [1.0, -1.0], ids=["mouth", "neck"])
def test_particles_are_draws_given_the_coordinate(direction):
    way = follow(direction, seed=1)
    for value, points in list(zip(way.values, way.points, strict=True))[5::10]:
        np.testing.assert_allclose(points[:, 2], value, rtol=1e-6)
        scaled = np.delete(points, 2, axis=1) / np.exp(value)
        assert (scaled**2).mean() == pytest.approx(1, abs=4 * np.sqrt(2 / scaled.size * 3))
