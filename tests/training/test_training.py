import math
import signal
import threading

import numpy as np
import pytest
import torch

from stanflow.errors import NumericsError, UsageError
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.target.density import DensityBatch, NormalizingConstant, Target
from stanflow.training import trainer, warmstart
from stanflow.training.config import TrainConfig
from stanflow.training.gradients import accumulate_path_gradient
from stanflow.training.interruption import Interruption
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


def test_rejections_do_not_shrink_the_gradient():
    """It is the mean over the accepted draws."""
    target, everywhere = (kind([1.0, 0.0], np.eye(2)) for kind in (HalfGaussian, GaussianTarget))
    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), 2, 1).double()
    z, log_q, score = (
        t.detach() for t in flow.sample_with_score(64, torch.Generator().manual_seed(1))
    )
    batch = accumulate_path_gradient(flow, target, 64, torch.Generator().manual_seed(1))
    kept = z[:, 0] > 0
    exact = everywhere.log_density_gradient(z.numpy())
    cotangent = (score - torch.from_numpy(exact.gradient))[kept].mean(0)
    torch.testing.assert_close(flow.output.shift.grad, cotangent)
    assert batch.elbo == pytest.approx(np.mean((exact.log_density - log_q.numpy())[kept.numpy()]))
    assert batch.rejected == int((~kept).sum())


def test_a_gradient_beyond_float32_costs_its_own_draw_alone():
    class Steep(GaussianTarget):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            batch.gradient[3] = 1e39
            return batch

    flow = build_flow(FlowConfig(layers=2), 2, 1)
    batch = accumulate_path_gradient(
        flow, Steep([0, 0], np.eye(2)), 10, torch.Generator().manual_seed(1)
    )
    assert batch.rejected == 1
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
    gradients = np.array([warmstart._path_gradient(TARGET, parameters, rng) for _ in range(2000)])
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


def test_a_full_rank_fit_recovers_a_gaussian_exactly():
    flow, result = trained(FlowConfig(family="fullrank", base="gaussian"), max_steps=1500)
    z, log_q = (t.detach().numpy() for t in flow.sample(2000, torch.Generator().manual_seed(9)))
    log_p = TARGET.log_density_gradient(z).log_density + TARGET.normalizing_constant.value
    assert np.std(log_p - log_q) < 0.02  # the same density, point by point
    assert abs(np.mean(log_p - log_q)) < 0.002
    assert result.stopped == "max_steps"
    assert len(result.trace) == 1500


@pytest.mark.parametrize(
    ("location", "scale"), [(1e4, 1e-3), (-1e6, 1.0), (0.0, 1e-8), (1e6, 1e3), (1e3, 1e5)]
)
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


def test_the_learning_rate_falls_to_a_hundredth_and_starts_lower_in_many_dimensions():
    flow = build_flow(FlowConfig(layers=1), 2, 1)
    optimizer = torch.optim.Adam(flow.parameters())
    rates = []
    for progress in (0.0, 0.5, 1.0):
        trainer._set_learning_rate(optimizer, 0.1, progress)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.0505, 0.001])
    assert trainer._learning_rate(TrainConfig(learning_rate=0.3), 5000) == 0.3
    small, large = (trainer._learning_rate(TrainConfig(), dim) for dim in (4, 1000))
    assert (small, large) == pytest.approx((0.02, 0.002))


def test_gradients_are_shortened_to_the_norm_allowed():
    flow = build_flow(FlowConfig(layers=2), 2, 1)
    for parameter in flow.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer = torch.optim.SGD(flow.parameters(), lr=1.0)
    before = [parameter.clone() for parameter in flow.parameters()]
    norm = trainer._step(optimizer, flow, TrainConfig(max_gradient_norm=0.5))
    moved = sum(
        (new - old).square().sum() for new, old in zip(flow.parameters(), before, strict=True)
    )
    assert norm > 3
    assert moved.sqrt().item() == pytest.approx(0.5, rel=1e-5)


def test_failed_steps_must_be_in_a_row_to_end_a_run():
    class Flickering(GaussianTarget):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            dark = len(z) == 256 and self.evaluations // 256 % 2 == 0
            return DensityBatch(batch.log_density, batch.gradient, np.full(len(z), not dark))

    _, result = trained(
        FlowConfig(family="meanfield"), Flickering([0.0, 0.0], np.eye(2)), max_steps=300
    )
    assert result.skipped_steps == 150


def test_torch_threads_are_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    trained(FlowConfig(layers=1), max_steps=2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_time_and_ctrl_c_reach_the_warm_start_too():
    calls = []

    def stop_at_the_third():
        calls.append(None)
        return len(calls) >= 3

    target = GaussianTarget([1000.0, 0.0], np.eye(2))
    start = mean_field_start(target, np.random.default_rng(1), stop_at_the_third)
    assert start.gradient_evaluations == target.evaluations < 500
    assert np.isfinite(start.location).all()


def test_training_begins_wider_than_the_mean_field_fit():
    one_step = {"max_steps": 1, "learning_rate": 1e-12}
    flow, _ = trained(FlowConfig(family="meanfield"), **one_step)
    scale = flow.output.log_scale.detach().exp().numpy()
    np.testing.assert_allclose(scale, 3 / np.sqrt(np.diag(TARGET.precision)), rtol=0.5)


def test_training_works_outside_the_main_thread():
    """Where Python allows no signal handlers."""
    stopped = []
    thread = threading.Thread(
        target=lambda: stopped.append(trained(FlowConfig(layers=1), max_steps=3)[1].stopped)
    )
    thread.start()
    thread.join()
    assert stopped == ["max_steps"]


def test_the_first_ctrl_c_asks_and_the_second_interrupts():
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.requested
        signal.raise_signal(signal.SIGINT)
    with Interruption() as interruption:
        pass
    assert not interruption.requested
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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
