"""A density in units of its own hierarchy: against the program's other form, in both languages."""

import ctypes

import numpy as np
import pytest
import torch

from stanflow.flow.noncentering import NonCentering
from stanflow.sampling.noncentered import NoncenteredDensity, NoncenteredTarget
from stanflow.sampling.standardize import StandardizedTarget
from stanflow.stan.model import StanModel

CENTERED = """
parameters { real m; real s; vector[3] x; }
model { m ~ normal(1, 2); s ~ normal(0, 1); x ~ normal(m, exp(s)); [1, 2, 0] ~ normal(x, 2); }
"""
NONCENTERED = """
parameters { real m; real s; vector[3] u; }
transformed parameters { vector[3] x = m + exp(s) * u; }
model { m ~ normal(1, 2); s ~ normal(0, 1); u ~ std_normal(); [1, 2, 0] ~ normal(x, 2); }
"""
LAYER = NonCentering(
    moved=torch.tensor([2, 3, 4]),
    parents=torch.tensor([[0, 1]] * 3),
    scale_weights=torch.tensor([[0.0, 1.0]] * 3).double(),
    location_weights=torch.tensor([[1.0, 0.0]] * 3).double(),
    log_scale=torch.zeros(3).double(),
    location=torch.zeros(3).double(),
)
U = np.random.default_rng(1).normal(size=(7, 5))


def models():
    return (StanModel(stan_code=code, engine="embedded") for code in (CENTERED, NONCENTERED))


def test_it_is_the_density_of_the_noncentered_program():
    centered, noncentered = models()
    density = NoncenteredDensity(centered, LAYER)
    found, expected = (x.log_density_gradient(U) for x in (density, noncentered))
    offset = found.log_density - expected.log_density
    np.testing.assert_allclose(offset, offset[0], atol=1e-9)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(density.log_density(U), found.log_density, atol=1e-12)


def test_points_go_there_and_back():
    density = NoncenteredDensity(next(models()), LAYER)
    z = density.carry(U)
    np.testing.assert_allclose(z[:, 2:], U[:, :1] + np.exp(U[:, 1:2]) * U[:, 2:])
    np.testing.assert_allclose(density.carry_back(z), U, atol=1e-12)


def test_compiled_code_gets_the_same():
    centered, _ = models()
    density = NoncenteredDensity(centered, LAYER)
    compiled = density.compiled()
    if compiled is None:
        pytest.skip("the compiled loops were not built")
    value, gradient = ctypes.c_double(), np.empty(5)
    signature = [ctypes.c_void_p, ctypes.c_bool, ctypes.c_bool, *[ctypes.c_void_p] * 4]
    with_gradient = ctypes.CFUNCTYPE(ctypes.c_int, *signature)(compiled.log_density_gradient)
    alone = ctypes.CFUNCTYPE(ctypes.c_int, *signature[:-1])(compiled.log_density)
    expected = density.log_density_gradient(U)
    for row, u in enumerate(U):
        at, out = u.ctypes.data, ctypes.byref(value)
        assert with_gradient(compiled.model, True, True, at, out, gradient.ctypes.data, None) == 0
        assert value.value == pytest.approx(expected.log_density[row], abs=1e-10)
        np.testing.assert_allclose(gradient, expected.gradient[row], rtol=1e-9, atol=1e-9)
        value.value = np.nan
        assert alone(compiled.model, True, True, at, out, None) == 0
        assert value.value == pytest.approx(expected.log_density[row], abs=1e-10)


def test_points_out_of_reach_are_rejected():
    density = NoncenteredDensity(next(models()), LAYER)
    u = U.copy()
    u[2, 1] = 800.0
    there = density.log_density_gradient(u)
    np.testing.assert_array_equal(there.accepted, np.arange(7) != 2)


def test_starting_points_are_those_of_the_target():
    centered, _ = models()
    target = NoncenteredTarget(centered, LAYER)
    starts = (x.starting_points(4, np.random.default_rng(2)) for x in (target, centered))
    u, z = starts
    np.testing.assert_allclose(target.carry(u), z, atol=1e-12)


@pytest.mark.parametrize("correlated", [False, True])
def test_units_are_within_the_hierarchy(correlated):
    centered, _ = models()
    rng = np.random.default_rng(3)
    factor = np.tril(rng.normal(size=(5, 5)) * 0.2) + np.eye(5) if correlated else None
    location, log_scale = rng.normal(size=(2, 5)) * 0.3
    units = StandardizedTarget(centered, location, log_scale, factor, LAYER)
    z = units.out_of_units(U)
    np.testing.assert_allclose(units.in_units(z), U, atol=1e-9)
    x = NoncenteredDensity(centered, LAYER).carry_back(z)
    scaled = U if factor is None else U @ factor.T
    np.testing.assert_allclose(x, location + np.exp(log_scale) * scaled, atol=1e-12)
    difference = 1e-5
    there = units.log_density_gradient(U)
    for i in range(5):
        step = difference * np.eye(5)[i]
        slope = (units.log_density(U + step) - units.log_density(U - step)) / (2 * difference)
        np.testing.assert_allclose(there.gradient[:, i], slope, rtol=1e-5, atol=1e-5)
