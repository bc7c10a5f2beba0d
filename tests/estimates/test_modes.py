"""Telling modes apart, and weighing them."""

import math

import numpy as np
import pytest

from stanflow.estimates.modes import find_modes
from stanflow.stan.density import DensityBatch
from stanflow.stan.model import StanModel

MIXTURE = """
data { int D; int K; array[K] vector[D] m; vector<lower=0>[K] s; simplex[K] w; }
parameters { vector[D] x; }
model {
  vector[K] l;
  for (k in 1:K) l[k] = log(w[k]) + normal_lpdf(x | m[k], s[k]);
  target += log_sum_exp(l);
}
"""


def mixture(means, scales, weights):
    means = np.asarray(means, float)
    data = {"D": means.shape[1], "K": len(means), "m": means, "s": scales, "w": weights}
    return StanModel(stan_code=MIXTURE, data=data, engine="embedded")


def chains(means, scales, n=25, seed=1):
    rng = np.random.default_rng(seed)
    return [
        mean + scale * rng.standard_normal((n, len(mean)))
        for mean, scale in zip(np.asarray(means, float), scales, strict=True)
    ]


@pytest.mark.parametrize("dim", [1, 5, 30])
def test_modes_have_their_chains_and_masses(dim):
    means = np.outer([-10, 0, 12], np.ones(dim)) / math.sqrt(dim)
    scales, weights = [1.0, 0.5, 2.0], [0.2, 0.5, 0.3]
    which = [0, 2, 1, 2, 0, 1, 2]
    visited = chains(means[which], np.array(scales)[which])
    modes = find_modes(mixture(means, scales, weights), visited, np.random.default_rng(2))
    assert [len(mode.points) for mode in modes] == [50, 75, 50]
    for mode, k in zip(modes, (1, 2, 0), strict=True):
        np.testing.assert_allclose(
            mode.points.mean(0), means[k], atol=5 * scales[k] / math.sqrt(50)
        )
        # 2000 draws of a Student-t, of which few count in 30 dimensions
        assert mode.log_mass == pytest.approx(math.log(weights[k]), abs=0.1 + dim / 100)


def test_chains_of_one_mode_are_not_taken_apart():
    """At either end of a normal with strong correlation, and of a Student-t's heavy tail."""
    for code, ends in (
        ("x ~ multi_normal([0, 0]', [[1, .99], [.99, 1]]);", [[-2.0, -2.0], [2.0, 2.0]]),
        ("x ~ student_t(2, 0, 1);", [[-8.0, 0.0], [8.0, 1.0]]),
    ):
        program = f"parameters {{ vector[2] x; }} model {{ {code} }}"
        model = StanModel(stan_code=program, engine="embedded")
        (mode,) = find_modes(model, chains(ends, [0.05, 0.05]), np.random.default_rng(1))
        assert len(mode.points) == 50


def test_what_holds_next_to_nothing_is_left_out():
    means, scales = [[-10.0], [10.0]], [1.0, 1.0]
    model = mixture(means, scales, [1 - 1e-5, 1e-5])
    (mode,) = find_modes(model, chains(means, scales), np.random.default_rng(1))
    assert mode.points.mean() < 0


def test_chains_beyond_the_densitys_end_have_no_mass():
    class Cut:
        dim = 1

        def log_density_gradient(self, z):
            inside = z[:, 0] < 0
            log_density = np.where(inside, -0.5 * (z[:, 0] + 5) ** 2, np.nan)
            gradient = np.where(inside[:, None], -z - 5, np.nan)
            return DensityBatch(log_density, gradient, inside)

        def log_density(self, z):
            return self.log_density_gradient(z).log_density

    (mode,) = find_modes(Cut(), chains([[-5.0], [5.0]], [1.0, 1.0]), np.random.default_rng(1))
    assert mode.points.mean() < 0
    assert mode.log_mass == pytest.approx(0.5 * math.log(2 * math.pi), abs=0.1)
