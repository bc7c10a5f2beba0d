"""Trajectories: compiled ones against numpy's, and both against what physics keeps."""

import numpy as np
import pytest

from stanflow.sampling.metric import Metric
from stanflow.sampling.trajectories import Phase, trajectories
from stanflow.stan.density import CountingTarget, Density
from stanflow.stan.model import StanModel

PROGRAM = """
parameters { vector[3] x; real v; }
model { if (x[1] > 1) reject("beyond"); v ~ normal(0, 1); x ~ student_t(5, 0.3 * v, exp(v / 2)); }
"""
ROWS, STEPS = 40, 12


class InNumpy(Density):
    """The same, which is not compiled."""

    def __init__(self, density):
        self._density = density
        self.evaluations = 0

    @property
    def dim(self):
        return self._density.dim

    def log_density_gradient(self, z):
        self.evaluations += len(z)
        return self._density.log_density_gradient(z)


@pytest.fixture(scope="module")
def model():
    return StanModel(stan_code=PROGRAM, engine="embedded", threads=2)


def ends(density, scale, *, step=0.1, seed=1):
    rng = np.random.default_rng(seed)
    points = np.clip(0.5 * rng.standard_normal((ROWS, 4)), -0.9, 0.9)
    momentum = rng.standard_normal((ROWS, 4))
    steps = step * rng.uniform(0.5, 1, ROWS)
    there = density.log_density_gradient(points)
    before = there.log_density - 0.5 * (momentum**2).sum(axis=1)
    start = Phase(points, momentum, there)
    found = trajectories(density, Metric.of_scale(scale), start, steps, STEPS)
    after = found.there.log_density - 0.5 * (found.momentum**2).sum(axis=1)
    return points, found, after - before


def test_compiled_and_not_they_are_the_same(model):
    target = CountingTarget(model)
    if target.compiled() is None:
        pytest.skip("the compiled loops were not built")
    scale = np.array([0.5, 1.0, 2.0, 0.7])
    plain = InNumpy(model)
    _, one, _ = ends(target, scale)
    _, other, _ = ends(plain, scale)
    accepted = one.there.accepted
    np.testing.assert_array_equal(accepted, other.there.accepted)
    assert 0 < accepted.sum() < ROWS  # some have met the wall
    for found, expected in (
        (one.points, other.points),
        (one.momentum, other.momentum),
        (one.there.gradient, other.there.gradient),
        (one.there.log_density, other.there.log_density),
    ):
        np.testing.assert_allclose(found[accepted], expected[accepted], rtol=1e-10, atol=1e-10)
    # Those at the wall go no further.
    assert ROWS * (1 + STEPS) == plain.evaluations > target.evaluations > ROWS


@pytest.mark.parametrize("compiled", [True, False])
def test_energy_is_kept_and_a_held_coordinate_does_not_move(model, compiled):
    density = model if compiled else InNumpy(model)
    start, found, change = ends(density, np.array([1.0, 1.0, 1.0, 0.0]), step=0.01)
    accepted = found.there.accepted
    assert accepted.sum() > ROWS / 2
    np.testing.assert_allclose(change[accepted], 0, atol=1e-3)
    np.testing.assert_array_equal(found.points[:, 3], start[:, 3])
    assert (found.points[accepted, :3] != start[accepted, :3]).all()


@pytest.mark.parametrize("compiled", [True, False])
def test_they_go_back_the_way_they_came(model, compiled):
    density = model if compiled else InNumpy(model)
    scale = np.array([0.5, 1.0, 2.0, 0.7])
    start, found, _ = ends(density, scale)
    accepted = found.there.accepted
    rng = np.random.default_rng(1)
    rng.standard_normal((2, ROWS, 4))
    steps = 0.1 * rng.uniform(0.5, 1, ROWS)
    turned = found._replace(momentum=-found.momentum)
    back = trajectories(density, Metric.of_scale(scale), turned, steps, STEPS)
    np.testing.assert_allclose(back.points[accepted], start[accepted], atol=1e-9)


@pytest.mark.parametrize("compiled", [True, False])
def test_what_flies_off_is_refused(model, compiled):
    density = model if compiled else InNumpy(model)
    _, found, _ = ends(density, np.full(4, 1e200), step=1e200)
    assert not found.there.accepted.any()
