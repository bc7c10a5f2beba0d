"""Correlated units: where they are taken, and that they lead back to the target's own."""

import numpy as np
import pytest
import torch

from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.sampling.standardize import StandardizedTarget
from stanflow.stan.density import DensityBatch
from stanflow.stan.model import StanModel
from stanflow.training.config import TrainConfig
from stanflow.training.start import begin
from stanflow.training.whitening import whitening

from .targets import GaussianTarget, trained


def correlated(dim=30, seed=1):
    """A normal far from a diagonal one."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((dim, dim // 3))
    precision = np.eye(dim) + 1000 * directions @ directions.T
    return GaussianTarget(rng.standard_normal(dim), np.linalg.inv(precision))


def draws(target, n=200):
    return np.random.default_rng(2).multivariate_normal(target.mean, target.covariance, n)


def test_a_normal_is_found_exactly():
    """Its Hessian is constant, and one step leads to its mean from wherever the points are."""
    target = correlated()
    points = draws(target) + np.random.default_rng(3).standard_normal(30)
    normal = whitening(target, points, np.random.default_rng(1))
    np.testing.assert_allclose(normal.factor @ normal.factor.T, target.covariance, atol=1e-6)
    assert (np.triu(normal.factor, 1) == 0).all()
    noise = 5 * np.sqrt(np.diag(target.covariance) / 256)
    assert (np.abs(normal.location - target.mean) < noise).all()


@pytest.mark.parametrize(("correlation", "pays"), [(0.0, False), (0.5, False), (0.99, True)])
def test_correlations_must_be_worth_it(correlation, pays):
    """Ten pairs: a mean-field normal is ``-log(1 - rho^2) / 2`` nats a pair from the target."""
    pair = np.array([[1, correlation], [correlation, 1]])
    target = GaussianTarget(np.zeros(20), np.kron(np.eye(10), pair))
    normal = whitening(target, draws(target), np.random.default_rng(1))
    assert (normal is not None) == pays


@pytest.mark.parametrize(
    "program",
    [
        "parameters { real v; vector[60] x; } "
        "model { v ~ normal(0, 3); x ~ normal(0, exp(v / 2)); }",
        "parameters { vector[40] x; } model { x ~ cauchy(0, 1); }",
        "parameters { vector[40] x; } model { target += 0.1 * dot_self(x) - 0.01 * sum(x^4); }",
    ],
)
def test_where_the_posterior_is_no_normal_units_stay_as_they_are(program):
    model = StanModel(stan_code=program, engine="embedded")
    points = np.random.default_rng(1).standard_normal((100, model.dim))
    assert whitening(model, points, np.random.default_rng(1)) is None


def test_where_no_second_derivative_is_finite_there_is_none():
    class Rough(GaussianTarget):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            bad = np.arange(len(z)) % 2 == 0
            return DensityBatch(batch.log_density, batch.gradient, ~bad)

    target = Rough(np.zeros(4), np.eye(4))
    assert whitening(target, np.zeros((3, 4)), np.random.default_rng(1)) is None


@pytest.mark.parametrize(("whiten", "has_factor"), [(True, True), (False, False)])
def test_the_start_has_correlated_units_where_it_may(whiten, has_factor):
    start = begin(correlated(), TrainConfig(whiten=whiten), seed=1)
    assert (start.factor is not None) == has_factor


def test_a_density_in_correlated_units_has_its_gradient_and_jacobian():
    target = correlated(6)
    rng = np.random.default_rng(1)
    location, log_scale = rng.standard_normal(6), rng.standard_normal(6)
    factor = np.tril(rng.standard_normal((6, 6)), -1) + np.diag(rng.uniform(0.5, 2, 6))
    in_units = StandardizedTarget(target, location, log_scale, factor)
    matrix = np.exp(log_scale)[:, None] * factor
    u = rng.standard_normal((5, 6))
    z = location + u @ matrix.T
    np.testing.assert_allclose(in_units.in_units(z), u, atol=1e-12)
    there, expected = in_units.log_density_gradient(u), target.log_density_gradient(z)
    log_det = np.linalg.slogdet(matrix)[1]
    np.testing.assert_allclose(there.log_density, expected.log_density + log_det)
    np.testing.assert_allclose(there.gradient, expected.gradient @ matrix)

    flow = build_flow(FlowConfig(layers=2, hidden=3), 6, 1)
    with torch.no_grad():
        e = torch.from_numpy(u).float()
        flow.flat.add_(
            0.1 * torch.randn(flow.flat.shape, generator=torch.Generator().manual_seed(1))
        )
        before = flow.log_prob(e).double().numpy()
        in_units.restore_units(flow)
        after = flow.log_prob(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(after, before - log_det, atol=1e-4)
    np.testing.assert_array_equal(flow.correlated_units, matrix)


def test_a_flow_in_correlated_units_fits_what_its_couplings_could_not():
    """At once: this normal's condition number is 10,000."""
    target = correlated()
    flow, _ = trained(FlowConfig(layers=4), target, max_steps=300)
    z, log_q = flow.sample(2000, torch.Generator().manual_seed(9))
    log_p = target.log_density_gradient(z.numpy()).log_density
    evidence = -target.normalizing_constant.value
    assert np.mean(log_p - log_q.numpy()) == pytest.approx(evidence, abs=0.2)
    torch.testing.assert_close(flow.log_prob(z), log_q, rtol=0, atol=1e-6)
