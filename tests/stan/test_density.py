import numpy as np

from stanflow.stan.density import CountingTarget
from stanflow.stan.model import StanModel


def test_every_evaluation_is_counted_and_is_the_targets():
    model = StanModel(
        stan_code="parameters { vector[2] x; } model { x ~ normal(1, 2); }", engine="embedded"
    )
    counting = CountingTarget(model, 10, 2)
    z = np.random.default_rng(1).normal(size=(5, 2))
    there, expected = counting.log_density_gradient(z), model.log_density_gradient(z)
    np.testing.assert_array_equal(there.log_density, expected.log_density)
    np.testing.assert_array_equal(there.gradient, expected.gradient)
    np.testing.assert_array_equal(counting.log_density(z[:3]), model.log_density(z[:3]))
    assert (counting.gradients, counting.densities) == (15, 5)
    assert (counting.evaluations, counting.dim) == (20, 2)
    points = counting.starting_points(3, np.random.default_rng(2))
    np.testing.assert_array_equal(points, model.starting_points(3, np.random.default_rng(2)))
