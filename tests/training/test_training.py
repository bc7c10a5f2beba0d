import math
import signal
import threading

import numpy as np
import pytest
import torch

from stanflow.errors import NumericsError, UsageError
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.flow.sweep import Sweep
from stanflow.target.density import DensityBatch, NormalizingConstant, Target
from stanflow.training import warmstart
from stanflow.training.config import TrainConfig
from stanflow.training.exchange import Exchange
from stanflow.training.gradients import GradientEstimator
from stanflow.training.interruption import Interruption
from stanflow.training.optimizers import FlatAdam, first_learning_rate
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


def estimate(flow, target, batch, seed, kind="path"):
    sweep = Sweep(flow, batch, total=kind == "total")
    result = GradientEstimator(sweep, target, kind).estimate(torch.Generator().manual_seed(seed))
    return result, flow.flat_gradient.clone(), sweep


@pytest.mark.parametrize("kind", ["path", "total"])
@pytest.mark.parametrize("family", ["realnvp", "fullrank", "meanfield"])
def test_gradients_are_those_of_the_elbo(kind, family):
    """Against automatic differentiation of -ELBO, with and without the score term."""
    flow = build_flow(FlowConfig(family=family, layers=4, hidden=6, loft_tau=2.0), 3, 3).double()
    torch.manual_seed(0)
    flow.flat.add_(0.3 * torch.randn_like(flow.flat))
    z = flow.base.sample(16, torch.Generator().manual_seed(5))
    log_q = flow.base.log_prob(z)
    for bijection in flow.bijections:
        z, log_det = bijection(z)
        log_q = log_q - log_det
    log_p = -0.5 * (z - torch.from_numpy(TARGET.mean)) @ torch.from_numpy(TARGET.precision)
    loss = (log_q - (log_p * (z - torch.from_numpy(TARGET.mean))).sum(1)).mean()
    score_term = flow.log_prob(z.detach()).mean() if kind == "path" else 0.0
    (loss - score_term).backward()
    expected = torch.cat([p.grad.flatten() for p in flow.parameters()])
    result, computed, _ = estimate(flow, TARGET, 16, 5, kind)
    torch.testing.assert_close(computed, expected, rtol=1e-9, atol=1e-9)
    assert result.rejected == 0
    assert result.elbo == pytest.approx(-loss.item())


def test_the_path_gradient_vanishes_where_the_flow_is_the_target():
    """Not only its mean: every single draw's, which is what it is used for."""
    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), 2, 1).double()
    standard_normal = GaussianTarget([0, 0], np.eye(2))
    _, path, _ = estimate(flow, standard_normal, 3, 1)
    _, total, _ = estimate(flow, standard_normal, 3, 1, "total")
    torch.testing.assert_close(path, torch.zeros_like(path), rtol=0, atol=1e-14)
    assert total.abs().max() > 0.1


@pytest.mark.parametrize("kind", ["path", "total"])
def test_rejected_draws_take_no_part(kind):
    """The gradient is the mean over the accepted ones alone."""
    target, everywhere = (kind([1.0, 0.0], np.eye(2)) for kind in (HalfGaussian, GaussianTarget))
    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), 2, 1).double()
    batch, gradient, sweep = estimate(flow, target, 1000, 1, kind)
    kept = (sweep.z[0] > 0).numpy()
    assert batch.rejected == (~kept).sum() == pytest.approx(500, abs=4 * math.sqrt(250))
    exact = everywhere.log_density_gradient(sweep.z.T.numpy())
    score = sweep.score.T.numpy() if kind == "path" else 0.0
    cotangent = (score - exact.gradient)[kept]
    np.testing.assert_allclose(flow.output.shift.grad, cotangent.mean(0))
    log_scale = (cotangent * sweep.z.T.numpy()[kept]).mean(0) - (kind == "total")
    np.testing.assert_allclose(flow.output.log_scale.grad, log_scale)
    log_ratio = (exact.log_density - sweep.log_q.numpy())[kept]
    assert batch.elbo == pytest.approx(log_ratio.mean() + math.log(kept.mean()))
    assert torch.isfinite(gradient).all()


def test_a_gradient_beyond_float32_costs_its_own_draw_alone():
    class Steep(GaussianTarget):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            batch.gradient[3] = 1e39
            return batch

    flow = build_flow(FlowConfig(layers=2), 2, 1)
    batch, gradient, _ = estimate(flow, Steep([0, 0], np.eye(2)), 10, 1)
    assert batch.rejected == 1
    assert torch.isfinite(gradient).all()


def test_a_batch_without_any_accepted_draw_leaves_no_gradient():
    class Nowhere(GaussianTarget):
        def log_density_gradient(self, z):
            nan = np.full(len(z), np.nan)
            return DensityBatch(nan, np.full(z.shape, np.nan), np.zeros(len(z), bool))

    flow = build_flow(FlowConfig(layers=2), 2, 1)
    flow.flat_gradient.fill_(7.0)
    batch, gradient, _ = estimate(flow, Nowhere([0, 0], np.eye(2)), 10, 1)
    assert batch.rejected == 10
    assert math.isnan(batch.elbo)
    assert (gradient == 0).all()


@pytest.mark.parametrize("parts", [1, 3, 50])
def test_draws_reach_the_target_in_parts(parts):
    z = torch.randn(3, 10, generator=torch.Generator().manual_seed(1))
    there = Exchange(TARGET, z, parts).evaluate(z)
    exact = TARGET.log_density_gradient(z.T.double().numpy())
    np.testing.assert_allclose(there.log_density, exact.log_density, rtol=1e-14)
    np.testing.assert_allclose(there.gradient.T.numpy(), exact.gradient, rtol=1e-6)
    assert there.gradient.dtype == torch.float32
    assert there.accepted.all()


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


def distance_of_a_step(config, progress, gradient=3.0):
    """How far Adam's first step, whose length is the learning rate, moves each parameter."""
    flow = build_flow(FlowConfig(layers=2), 2, 1).double()
    optimizer = FlatAdam(flow, config)
    before = flow.flat.clone()
    flow.flat_gradient.fill_(gradient)
    norm = optimizer.step(progress)
    return norm, (flow.flat - before).abs()


def test_the_learning_rate_falls_to_a_hundredth_and_starts_lower_in_many_dimensions():
    for progress, expected in ((0.0, 0.1), (0.5, 0.0505), (1.0, 0.001)):
        _, moved = distance_of_a_step(TrainConfig(learning_rate=0.1), progress)
        torch.testing.assert_close(moved, torch.full_like(moved, expected))
        _, moved = distance_of_a_step(TrainConfig(learning_rate=0.1, schedule="constant"), progress)
        torch.testing.assert_close(moved, torch.full_like(moved, 0.1))
    assert first_learning_rate(TrainConfig(learning_rate=0.3), 5000) == 0.3
    small, large = (first_learning_rate(TrainConfig(), dim) for dim in (4, 1000))
    assert (small, large) == pytest.approx((0.02, 0.002))


@pytest.mark.parametrize(("longest", "length"), [(0.5, 0.5), (1e6, None), (None, None)])
def test_gradients_are_shortened_to_the_norm_allowed(longest, length):
    flow = build_flow(FlowConfig(layers=2), 2, 1)
    optimizer = FlatAdam(flow, TrainConfig(max_gradient_norm=longest))
    flow.flat_gradient.fill_(3.0)
    whole = 3 * math.sqrt(flow.flat.numel())
    assert optimizer.step(0.0) == pytest.approx(whole, rel=1e-5)
    assert float(flow.flat_gradient.norm()) == pytest.approx(length or whole, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_along_a_gradient_that_is_not_finite_is_not_taken(bad):
    flow = build_flow(FlowConfig(layers=2), 2, 1)
    optimizer = FlatAdam(flow, TrainConfig())
    before = flow.flat.clone()
    flow.flat_gradient[3] = bad
    assert math.isnan(optimizer.step(0.0))
    assert torch.equal(flow.flat, before)


def test_training_in_float64_and_by_rebuilding_agree_with_the_defaults():
    """The same noise would give the same path; rounding makes it drift, slowly."""
    elbos = {}
    for settings in ({}, {"memory": "rebuild"}, {"precision": "float64"}):
        _, result = trained(FlowConfig(layers=4), max_steps=400, **settings)
        elbos[str(settings)] = np.mean([step.elbo for step in result.trace[-50:]])
    evidence = -TARGET.normalizing_constant.value
    assert all(elbo == pytest.approx(evidence, abs=0.05) for elbo in elbos.values()), elbos


def test_total_gradients_train_too():
    _, result = trained(FlowConfig(family="fullrank", base="gaussian"), gradient="total")
    elbo = np.mean([step.elbo for step in result.trace[-50:]])
    assert elbo == pytest.approx(-TARGET.normalizing_constant.value, abs=0.02)


def test_the_best_parameters_of_the_second_half_are_kept():
    """With a learning rate far too high the last parameters are bad."""
    settings = {"max_steps": 40, "learning_rate": 0.5, "schedule": "constant"}
    flow, result = trained(FlowConfig(layers=2), keep_best=True, precision="float64", **settings)
    second_half = [step for step in result.trace if step.step > 20]
    best = max(second_half, key=lambda step: step.elbo)
    # What the parameters were before that step.
    before, _ = trained(
        FlowConfig(layers=2),
        precision="float64",
        **settings | {"max_steps": best.step - 1},
    )
    torch.testing.assert_close(flow.flat, before.flat)
    last, _ = trained(FlowConfig(layers=2), precision="float64", **settings)
    assert not torch.allclose(last.flat, flow.flat)


def test_the_settings_reach_the_first_step(monkeypatch):
    """Of path and total gradients, of Adam's betas, of the schedule and the memory budget."""
    progress, memory = [], []
    step, make = FlatAdam.step, Sweep.__init__

    def spying_step(self, share):
        progress.append(share)
        return step(self, share)

    def spying_make(self, *arguments, **settings):
        make(self, *arguments, **settings)
        memory.append(self.memory)

    monkeypatch.setattr(FlatAdam, "step", spying_step)
    monkeypatch.setattr(Sweep, "__init__", spying_make)
    path, total, betas, small = (
        trained(FlowConfig(layers=2), max_steps=3, precision="float64", **settings)[0].flat
        for settings in (
            {},
            {"gradient": "total"},
            {"adam_betas": (0.0, 0.5)},
            {"memory_budget_mb": 1e-3},
        )
    )
    assert progress[:3] == pytest.approx([0, 1 / 3, 2 / 3])
    assert memory == ["keep", "keep", "keep", "rebuild"]
    assert not torch.allclose(path, total)
    assert not torch.allclose(path, betas)
    torch.testing.assert_close(path, small)


def test_a_draw_without_finite_density_of_the_flow_is_rejected(monkeypatch):
    draw = Sweep.draw

    def spoilt(self, generator):
        draw(self, generator)
        self.log_q[3] = -math.inf

    monkeypatch.setattr(Sweep, "draw", spoilt)
    flow = build_flow(FlowConfig(layers=2), 3, 1)
    batch, gradient, _ = estimate(flow, TARGET, 10, 1)
    assert batch.rejected == 1
    assert math.isfinite(batch.elbo)
    assert torch.isfinite(gradient).all()


def test_without_a_start_training_begins_at_the_origin():
    one_step = {"max_steps": 1, "learning_rate": 1e-12, "start": "none"}
    flow, result = trained(FlowConfig(layers=2), **one_step)
    torch.testing.assert_close(flow.output.shift, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(flow.output.log_scale, torch.zeros(3, dtype=torch.float64))
    assert result.gradient_evaluations == 256


def test_the_trace_holds_the_largest_value_of_every_layer():
    _, result = trained(FlowConfig(layers=5), max_steps=3)
    assert all(step.largest.shape == (6,) for step in result.trace)
    assert all((step.largest > 0).all() for step in result.trace)


def test_an_exploding_flow_ends_in_words_that_say_so():
    class Repelling(GaussianTarget):
        """Its density rises outward without end, so that nothing holds the flow back."""

        def log_density_gradient(self, z):
            with np.errstate(over="ignore"):
                return DensityBatch(0.5 * (z**2).sum(1), z, np.isfinite(z).all(1))

    config = FlowConfig(layers=8, clamp="none", loft_tau=None)
    with pytest.raises(NumericsError, match=r"values reach .* coupling layer .*clamp and LOFT"):
        trained(
            config,
            Repelling([0.0, 0.0], np.eye(2)),
            max_steps=3000,
            start="none",
            learning_rate=0.05,
        )


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(UsageError, match="no CUDA device"):
        trained(FlowConfig(layers=1), device="cuda")


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


def test_a_step_with_a_gradient_that_is_not_finite_is_skipped_and_counted(monkeypatch):
    pull, calls = Sweep.pull, []

    def spoilt(self, *arguments):
        pull(self, *arguments)
        calls.append(None)
        if len(calls) % 5 == 0:
            self.flow.flat_gradient[-1] = math.inf

    monkeypatch.setattr(Sweep, "pull", spoilt)
    flow, result = trained(FlowConfig(layers=4), max_steps=50)
    assert result.skipped_steps == 10
    assert [step.step for step in result.trace if math.isnan(step.gradient_norm)] == list(
        range(5, 51, 5)
    )
    assert all(torch.isfinite(p).all() for p in flow.parameters())


def test_a_huge_gradient_is_shortened_and_does_no_harm():
    class Steep(GaussianTarget):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            if len(z) == 256:
                batch.gradient[0] = 1e38  # finite, but its square is not in float32
            return batch

    flow, _ = trained(FlowConfig(layers=4), Steep([0.0, 0.0], np.eye(2)), max_steps=20)
    assert all(torch.isfinite(p).all() for p in flow.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch must be at least 1"),
        ({"max_steps": -3}, "max_steps must be at least 1"),
        ({"max_seconds": 0.0}, "max_seconds must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm must be positive"),
        ({"memory_budget_mb": -1.0}, "memory_budget_mb must be positive"),
        ({"memory_budget_mb": math.inf}, "memory_budget_mb must be finite"),
        ({"adam_betas": (0.9, 1.0)}, "adam_betas must be in"),
        ({"gradient": "score"}, "gradient must be path or total, not 'score'"),
        ({"memory": "some"}, "memory must be auto or keep or rebuild"),
        ({"precision": "float16"}, "precision must be float32 or float64"),
        ({"schedule": "linear"}, "schedule must be cosine or constant"),
        ({"start": "map"}, "start must be mean-field or none"),
        ({"device": "tpu"}, "device must be cpu or cuda"),
    ],
)
def test_values_out_of_range_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**change)
