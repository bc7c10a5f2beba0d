import math

import numpy as np
import pytest
import torch

from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.flow.sweep import Sweep
from stanflow.stan.density import DensityBatch
from stanflow.training.exchange import Exchange
from stanflow.training.gradients import GradientEstimator

from .targets import TARGET, GaussianTarget, HalfGaussian, StudentTTarget


def estimate(flow, target, batch, seed, kind="path", tail_share=0.0, longest=None):
    sweep = Sweep(flow, batch, total=kind == "total")
    estimator = GradientEstimator(sweep, target, kind, tail_share, longest)
    result = estimator.estimate(torch.Generator().manual_seed(seed))
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


@pytest.mark.parametrize("family", ["realnvp", "meanfield"])
@pytest.mark.parametrize("dim", [1, 4])
@pytest.mark.parametrize("base", ["gaussian", "student-t"])
def test_draws_in_the_tails_vanish_there_too(base, dim, family):
    """And so does the whole flow's gradient, be it an untrained Real NVP, which is its base."""
    flow = build_flow(FlowConfig(family=family, base=base, layers=4), dim, 1).double()
    target = GaussianTarget(np.zeros(dim), np.eye(dim))
    if base == "student-t":
        nu = flow.base.degrees_of_freedom.detach().numpy()
        target = StudentTTarget(np.zeros(dim), np.ones(dim), nu)
    _, path, sweep = estimate(flow, target, 64, 1, tail_share=0.5)
    assert_spread_out(sweep, 32)
    torch.testing.assert_close(path, torch.zeros_like(path), rtol=0, atol=1e-13)
    flow.output.shift.detach().fill_(0.1)  # where they differ it does not
    _, path, _ = estimate(flow, target, 64, 1, tail_share=0.5)
    assert path.abs().max() > 0.01


def assert_spread_out(sweep, tails):
    """The first draws, and they alone, differ from those of a sweep without tails."""
    plain = Sweep(sweep.flow, sweep.batch)
    plain.draw(torch.Generator().manual_seed(1))
    differ = (plain.z != sweep.z).any(0)
    assert differ[:tails].all()
    assert not differ[tails:].any()


@pytest.mark.parametrize("tail_share", [0.25, 0.5])
def test_the_elbo_is_that_of_the_draws_that_are_not_spread_out(tail_share):
    """Rejected ones among them count, those in the tails do not."""
    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), 2, 1).double()
    target = HalfGaussian([1.0, 0.0], np.eye(2))
    result, _, sweep = estimate(flow, target, 40, 1, tail_share=tail_share)
    there = target.log_density_gradient(sweep.z.T.numpy())
    assert result.rejected == (~there.accepted).sum()
    tails = int(40 * tail_share)
    own = there.accepted[tails:]
    assert 0 < own.sum() < len(own)
    log_ratio = (there.log_density - sweep.log_q.numpy())[tails:][own]
    assert result.elbo == pytest.approx(log_ratio.mean() + math.log(own.mean()))
    assert result.log_weight_sd == pytest.approx(log_ratio.std(ddof=1))


def test_where_only_draws_in_the_tails_are_accepted_there_is_a_gradient_but_no_elbo():
    class Outside(GaussianTarget):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            return DensityBatch(batch.log_density, batch.gradient, np.arange(len(z)) < 5)

    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), 2, 1)
    result, gradient, _ = estimate(flow, Outside([1.0, 0], np.eye(2)), 10, 1, tail_share=0.5)
    assert math.isnan(result.elbo)
    assert result.rejected == 5
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("kind", ["path", "total"])
def test_rejected_draws_move_towards_the_others_at_most(kind):
    """The gradient is the mean over the accepted ones; path gradients have a force back, too."""
    target, everywhere = (kind([1.0, 0.0], np.eye(2)) for kind in (HalfGaussian, GaussianTarget))
    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), 2, 1).double()
    batch, gradient, sweep = estimate(flow, target, 1000, 1, kind)
    kept = (sweep.z[0] > 0).numpy()
    assert batch.rejected == (~kept).sum() == pytest.approx(500, abs=4 * math.sqrt(250))
    exact = everywhere.log_density_gradient(sweep.z.T.numpy())
    score = sweep.score.T.numpy() if kind == "path" else 0.0
    cotangent = np.where(kept[:, None], score - exact.gradient, 0.0) / kept.sum()
    z = sweep.z.T.numpy()
    if kind == "path":
        away = (z[~kept] - z[kept].mean(0)) / z[kept].std(0, ddof=1)
        force = 2 / z[kept].std(0, ddof=1) * away / np.sqrt(1 + away**2)
        assert (force[:, 0] < 0).all()  # down the loss, up towards the half that has a density
        cotangent[~kept] = force / kept.sum()
    np.testing.assert_allclose(flow.output.shift.grad, cotangent.sum(0))
    log_scale = (cotangent * z).sum(0) - (kind == "total")
    np.testing.assert_allclose(flow.output.log_scale.grad, log_scale)
    log_ratio = (exact.log_density - sweep.log_q.numpy())[kept]
    assert batch.elbo == pytest.approx(log_ratio.mean() + math.log(kept.mean()))
    assert torch.isfinite(gradient).all()


def test_no_single_draw_decides_the_step():
    class Steep(GaussianTarget):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            batch.gradient[3] = [3e9, -4e9]
            return batch

    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), 2, 1).double()
    _, _, sweep = estimate(flow, Steep([0, 0], np.eye(2)), 10, 1, longest=100.0)
    z = sweep.z.T.numpy()
    others = np.delete(sweep.score.T.numpy() + z, 3, axis=0)
    shortened = 100 * math.sqrt(2) * np.array([-0.6, 0.8])
    expected = (others.sum(0) + shortened) / 10
    np.testing.assert_allclose(flow.output.shift.grad, expected, rtol=1e-6)


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


def test_a_draw_without_finite_density_of_the_flow_is_rejected(monkeypatch):
    draw = Sweep.draw

    def spoilt(self, generator, tails, given):
        draw(self, generator, tails)
        self.log_q[3] = -math.inf

    monkeypatch.setattr(Sweep, "draw", spoilt)
    flow = build_flow(FlowConfig(layers=2), 3, 1)
    batch, gradient, _ = estimate(flow, TARGET, 10, 1)
    assert batch.rejected == 1
    assert math.isfinite(batch.elbo)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("parts", [1, 3, 50])
def test_draws_reach_the_target_in_parts(parts):
    z = torch.randn(3, 10, generator=torch.Generator().manual_seed(1))
    there = Exchange(TARGET, z, parts).evaluate(z)
    exact = TARGET.log_density_gradient(z.T.double().numpy())
    np.testing.assert_allclose(there.log_density, exact.log_density, rtol=1e-14)
    np.testing.assert_allclose(there.gradient.T.numpy(), exact.gradient, rtol=1e-6)
    assert there.gradient.dtype == torch.float32
    assert there.accepted.all()
