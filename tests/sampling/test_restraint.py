"""A restraint leaves a density as it is up to its bound, and lets it fall beyond."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stanflow.sampling.restraint import Restrained, Restraint
from stanflow.stan.density import Density, DensityBatch

FINITE = st.floats(-5, 5)


class Normal(Density):
    """Two independent standard normals; nothing is accepted where the first is above 4."""

    dim = 2

    def log_density_gradient(self, z):
        return DensityBatch(stats.norm.logpdf(z).sum(axis=1), -z, z[:, 0] < 4)


@given(
    sign=st.sampled_from([1, -1]),
    bound=FINITE,
    width=st.floats(0.1, 3),
    at=st.tuples(FINITE, FINITE),
)
def test_the_gradient_is_that_of_the_density(sign, bound, width, at):
    density = Restrained(Normal(), Restraint(1, sign, bound, width))
    z, h = np.array([at]), 1e-6
    batch = density.log_density_gradient(z)
    np.testing.assert_array_equal(batch.log_density, density.log_density(z))
    for i in range(2):
        step = h * np.eye(2)[i]
        slope = (density.log_density(z + step) - density.log_density(z - step)) / (2 * h)
        assert batch.gradient[0, i] == pytest.approx(slope[0], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_up_to_the_bound_nothing_changes(sign):
    restraint = Restraint(0, sign, bound=0.5 * sign, width=0.3)
    z = np.random.default_rng(1).normal(size=(500, 2))
    held = restraint.holds(z)
    np.testing.assert_array_equal(held, sign * z[:, 0] <= 0.5)
    change = Restrained(Normal(), restraint).log_density(z) - Normal().log_density(z)
    assert (change[held] == 0).all()
    assert (change[~held] < 0).all()
    np.testing.assert_allclose(change, restraint.log_factor(z), atol=1e-12)


def test_what_is_refused_stays_refused():
    z = np.array([[5.0, 0.0], [0.0, 0.0]])
    there = Restrained(Normal(), Restraint(1, 1, 0.0, 1.0)).log_density_gradient(z)
    np.testing.assert_array_equal(there.accepted, [False, True])
