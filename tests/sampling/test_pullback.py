"""The density pulled back through a flow against automatic differentiation."""

import numpy as np
import pytest
import torch

from stanflow.flow.affine import FixedAffine
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.sampling.pullback import PulledBack, images
from stanflow.stan.density import Density, DensityBatch

LARGE = 130  # beyond the layers that are one compiled call
FLOWS = {
    "real NVP": (FlowConfig(layers=4, hidden=8), 5),
    "real NVP, large": (FlowConfig(layers=2, hidden=8), LARGE),
    "Gaussian base": (FlowConfig(layers=2, hidden=8, base="gaussian"), 3),
    "one dimension": (FlowConfig(layers=2), 1),
    "full rank": (FlowConfig(family="fullrank", base="gaussian"), 4),
    "mean field": (FlowConfig(family="meanfield", base="student-t"), 4),
}


class Quartic(Density):
    """``-sum z^4 / 4 - z_1 z_D``; nothing at all where z_1 is above 2."""

    def __init__(self, dim):
        self._dim = dim

    @property
    def dim(self):
        return self._dim

    def log_density_gradient(self, z):
        gradient = -(z**3)
        gradient[:, 0] -= z[:, -1]
        gradient[:, -1] -= z[:, 0]
        accepted = z[:, 0] <= 2
        log_density = -0.25 * (z**4).sum(axis=1) - z[:, 0] * z[:, -1]
        return DensityBatch(np.where(accepted, log_density, np.nan), gradient, accepted)


def perturbed(name):
    config, dim = FLOWS[name]
    flow = build_flow(config, dim, seed=1)
    noise = torch.randn(flow.flat.shape, generator=torch.Generator().manual_seed(2))
    flow.flat.add_(0.1 * noise)
    return flow.double()


def base_points(flow, n=7):
    return np.random.default_rng(3).normal(size=(n, flow.dim))


def by_autograd(flow, e):
    """Return log p(T(e)) + log|det dT/de| and its gradient, a point at a time."""
    points = torch.from_numpy(e).requires_grad_()
    y, log_det = points, torch.zeros(len(e), dtype=torch.float64)
    for layer in flow.bijections:
        y, log_det_of_layer = layer.forward(y)
        log_det = log_det + log_det_of_layer
    log_p = -0.25 * y.pow(4).sum(1) - y[:, 0] * y[:, -1]
    (gradient,) = torch.autograd.grad((log_p + log_det).sum(), points)
    return (log_p + log_det).detach().numpy(), gradient.numpy(), y.detach().numpy()


@pytest.mark.parametrize("name", FLOWS)
def test_log_density_and_gradient_are_those_of_automatic_differentiation(name):
    flow = perturbed(name)
    e = base_points(flow)
    log_density, gradient, z = by_autograd(flow, e)
    found = PulledBack(flow, Quartic(flow.dim), torch.float64).log_density_gradient(e)
    inside = z[:, 0] <= 2
    assert inside.sum() >= 5
    np.testing.assert_array_equal(found.accepted, inside)
    np.testing.assert_allclose(found.log_density[inside], log_density[inside], rtol=1e-12)
    np.testing.assert_allclose(found.gradient[inside], gradient[inside], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FLOWS)
def test_single_precision_differs_by_rounding(name):
    flow = perturbed(name)
    e = base_points(flow)
    exact, rounded = (
        PulledBack(flow, Quartic(flow.dim), dtype).log_density_gradient(e)
        for dtype in (torch.float64, torch.float32)
    )
    size = 1 + np.abs(exact.log_density)
    assert np.nanmax(np.abs(rounded.log_density - exact.log_density) / size) < 1e-5


def test_correlated_units_are_undone():
    flow = perturbed("real NVP")
    factor = torch.tril(0.3 * torch.ones(5, 5, dtype=torch.float64)) + torch.eye(5)
    flow.append(FixedAffine(torch.full((5,), 1000.0, dtype=torch.float64), factor))

    class Shifted(Quartic):
        def log_density_gradient(self, z):
            return super().log_density_gradient((z - 1000) / 2)

    e = base_points(flow, n=3)
    pulled = PulledBack(flow, Shifted(5))  # in float32 the units alone would lose six digits
    step = 1e-2
    ahead, behind = (pulled.log_density(e + sign * step * np.eye(5)[0]) for sign in (1, -1))
    z, log_q = images(flow, e)
    log_base = flow.base.log_prob(torch.from_numpy(e)).detach().numpy()
    expected = Shifted(5).log_density(z) + log_base - log_q
    np.testing.assert_allclose(pulled.log_density(e), expected, rtol=1e-4)
    assert np.isfinite((ahead - behind) / (2 * step)).all()


def test_any_number_of_points_gives_the_same(monkeypatch):
    flow = perturbed("real NVP")
    e = base_points(flow, n=11)
    whole = PulledBack(flow, Quartic(5), torch.float64).log_density_gradient(e)
    monkeypatch.setattr("stanflow.sampling.pullback._MOST_AT_ONCE", 4)
    parts = PulledBack(flow, Quartic(5), torch.float64).log_density_gradient(e)
    np.testing.assert_allclose(parts.log_density, whole.log_density, rtol=1e-13)
    np.testing.assert_allclose(parts.gradient, whole.gradient, rtol=1e-12)


def test_images_have_the_density_of_the_flow():
    flow = perturbed("real NVP, large")
    z, log_q = images(flow, base_points(flow))
    with torch.no_grad():
        expected = flow.log_prob(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(log_q, expected, rtol=1e-10)
