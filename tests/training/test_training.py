import math

import numpy as np
import pytest
import torch

from stanflow.errors import NumericsError, UsageError
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.target.density import DensityBatch, NormalizingConstant, Target
from stanflow.training.config import TrainConfig
from stanflow.training.gradients import accumulate_path_gradient
from stanflow.training.trainer import train
from stanflow.training.warmstart import mean_field_start


class GaussianTarget(Target):
    """N(mean, covariance), with its own normalizing constant left out."""

    def __init__(self, mean, covariance):
        self.mean, self.covariance = np.asarray(mean, float), np.asarray(covariance, float)
        self.precision = np.linalg.inv(self.covariance)
        self.evaluations = 0

    @property
    def dim(self):
        return len(self.mean)

    @property
    def normalizing_constant(self):
        log_det = np.linalg.slogdet(2 * np.pi * self.covariance)[1]
        return NormalizingConstant(-0.5 * log_det, known=True, reason="closed form")

    def log_density_gradient(self, z):
        self.evaluations += len(z)
        gradient = -(z - self.mean) @ self.precision
        log_density = 0.5 * np.einsum("ij,ij->i", z - self.mean, gradient)
        return DensityBatch(log_density, gradient, np.ones(len(z), bool))

    def starting_points(self, n, rng):
        return rng.uniform(-2, 2, size=(n, self.dim))


class HalfGaussian(GaussianTarget):
    """As above where the first coordinate is positive, and an error elsewhere."""

    def log_density_gradient(self, z):
        batch = super().log_density_gradient(z)
        bad = z[:, 0] <= 0
        batch.log_density[bad] = np.nan
        batch.gradient[bad] = np.nan
        return DensityBatch(batch.log_density, batch.gradient, ~bad)

    def starting_points(self, n, rng):
        return np.abs(super().starting_points(n, rng))


TARGET = GaussianTarget([1.0, -2.0, 30.0], [[1.0, 0.8, 0], [0.8, 1.0, 0], [0, 0, 100.0]])


def trained(flow_config, target=TARGET, seed=1, **settings):
    flow = build_flow(flow_config, target.dim, seed)
    result = train(flow, target, TrainConfig(**settings), seed)
    return flow, result


def grads(flow):
    return [p.grad.clone() for p in flow.parameters() if p.grad is not None]


@pytest.mark.parametrize("family", ["realnvp", "fullrank", "meanfield"])
@pytest.mark.parametrize("dim", [1, 3])
def test_the_path_gradient_is_that_of_the_inverse_pass(family, dim):
    """Against automatic differentiation: log q by inversion with parameters held fixed."""
    config = FlowConfig(family=family, layers=4, hidden=6, loft_tau=2.0)
    target = GaussianTarget(np.zeros(dim), np.eye(dim))
    flow, frozen = (build_flow(config, dim, 3).double() for _ in range(2))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter, copy in zip(flow.parameters(), frozen.parameters(), strict=True):
            parameter.add_(0.3 * torch.randn_like(parameter))
            copy.copy_(parameter)
    frozen.requires_grad_(False)

    z, _ = flow.sample(16, torch.Generator().manual_seed(5))
    (frozen.log_prob(z) + 0.5 * z.square().sum(1)).mean().backward()
    expected = grads(flow)
    flow.zero_grad()
    batch = accumulate_path_gradient(flow, target, 16, torch.Generator().manual_seed(5))
    assert batch.rejected == 0
    assert len(expected) == len(grads(flow)) > 0
    for ours, theirs in zip(grads(flow), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_the_path_gradient_vanishes_where_the_flow_is_the_target():
    """Not only its mean: every single draw's, which is what it is used for."""
    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), 2, 1).double()
    accumulate_path_gradient(
        flow, GaussianTarget([0, 0], np.eye(2)), 3, torch.Generator().manual_seed(1)
    )
    for gradient in grads(flow):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-14)


def test_rejected_draws_take_no_part():
    target = HalfGaussian([1.0, 0.0], np.eye(2))
    flow = build_flow(FlowConfig(layers=2), 2, 1).double()
    batch = accumulate_path_gradient(flow, target, 1000, torch.Generator().manual_seed(1))
    assert batch.rejected == pytest.approx(500, abs=4 * math.sqrt(250))
    assert math.isfinite(batch.elbo)
    assert all(torch.isfinite(g).all() for g in grads(flow))


def test_a_batch_without_any_accepted_draw_leaves_no_gradient():
    class Nowhere(GaussianTarget):
        def log_density_gradient(self, z):
            nan = np.full(len(z), np.nan)
            return DensityBatch(nan, np.full(z.shape, np.nan), np.zeros(len(z), bool))

    flow = build_flow(FlowConfig(layers=2), 2, 1)
    batch = accumulate_path_gradient(
        flow, Nowhere([0, 0], np.eye(2)), 10, torch.Generator().manual_seed(1)
    )
    assert batch.rejected == 10
    assert math.isnan(batch.elbo)
    assert grads(flow) == []


def test_the_warm_start_finds_location_and_scale():
    far = GaussianTarget([1000.0, -1e5, 0.0], np.diag([1e-2, 1e6, 1e-8]))
    for target in (TARGET, far):
        start = mean_field_start(target, np.random.default_rng(1))
        conditional_sd = 1 / np.sqrt(np.diag(target.precision))  # what mean-field VI gives
        error = (start.location - target.mean) / np.sqrt(np.diag(target.covariance))
        np.testing.assert_allclose(error, 0, atol=1)
        np.testing.assert_allclose(np.exp(start.log_scale), conditional_sd, rtol=0.5)


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


def test_a_full_rank_fit_recovers_a_gaussian_exactly():
    flow, result = trained(FlowConfig(family="fullrank", base="gaussian"), max_steps=1500)
    z, log_q = (t.detach().numpy() for t in flow.sample(2000, torch.Generator().manual_seed(9)))
    log_p = TARGET.log_density_gradient(z).log_density + TARGET.normalizing_constant.value
    assert np.std(log_p - log_q) < 0.02  # the same density, point by point
    assert abs(np.mean(log_p - log_q)) < 0.002
    assert result.stopped == "max_steps"
    assert len(result.trace) == 1500


@pytest.mark.parametrize(("location", "scale"), [(1e4, 1e-3), (-1e6, 1.0), (0.0, 1e-7), (1e3, 1e5)])
def test_posteriors_of_any_location_and_scale_are_fitted_alike(location, scale):
    """float32 cannot tell 10,000 from 10,000.0005: training must not notice."""
    correlated = scale**2 * np.array([[1.0, 0.7], [0.7, 1.0]])
    target = GaussianTarget([location, location], correlated)
    flow, _ = trained(FlowConfig(family="fullrank", base="gaussian"), target, max_steps=1500)
    z, log_q = (t.detach().numpy() for t in flow.sample(2000, torch.Generator().manual_seed(9)))
    log_p = target.log_density_gradient(z).log_density + target.normalizing_constant.value
    assert np.std(log_p - log_q) < 0.02
    assert abs(np.mean(log_p - log_q)) < 0.002


def test_the_trace_holds_the_elbo_in_the_targets_own_units():
    _, result = trained(
        FlowConfig(family="fullrank", base="gaussian"),
        GaussianTarget([50.0, 3.0], np.diag([100.0, 1e-4])),
        max_steps=300,
    )
    evidence = np.log(2 * np.pi * 10 * 1e-2)  # the constant was left out of the density
    assert result.trace[-1].elbo == pytest.approx(evidence, abs=0.01)


def test_the_count_of_gradient_evaluations_is_true():
    target = GaussianTarget([0.0, 0.0], np.eye(2))
    _, result = trained(FlowConfig(layers=2), target, batch=32, max_steps=10)
    assert result.gradient_evaluations == target.evaluations


def test_the_seed_decides_everything():
    one, again, other = (
        trained(FlowConfig(layers=4), seed=s, max_steps=30)[0].state_dict() for s in (1, 1, 2)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_max_seconds_ends_a_run():
    _, result = trained(FlowConfig(layers=4), max_steps=10**6, max_seconds=0.5)
    assert result.stopped == "max_seconds"
    assert 0 < len(result.trace) < 10**6


def test_a_run_without_any_usable_draw_breaks_down_in_words():
    class Vanishing(GaussianTarget):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            accepted = np.full(len(z), self.evaluations < 10_000)
            return DensityBatch(batch.log_density, batch.gradient, accepted)

    with pytest.raises(NumericsError, match=r"broke down at step .*100 steps in a row"):
        trained(FlowConfig(layers=2), Vanishing([0.0, 0.0], np.eye(2)))


def test_a_step_with_a_gradient_that_is_not_finite_is_skipped_and_counted():
    class Spiky(GaussianTarget):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            if len(z) == 256 and self.evaluations % (256 * 5) < 256:
                batch.gradient[0] = 1e38  # finite, but its square is not in float32
            return batch

    flow, result = trained(FlowConfig(layers=4), Spiky([0.0, 0.0], np.eye(2)), max_steps=50)
    assert result.skipped_steps == pytest.approx(10, abs=2)
    assert all(torch.isfinite(p).all() for p in flow.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch must be at least 1"),
        ({"max_steps": -3}, "max_steps must be at least 1"),
        ({"max_seconds": 0.0}, "max_seconds must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
    ],
)
def test_values_out_of_range_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**change)
