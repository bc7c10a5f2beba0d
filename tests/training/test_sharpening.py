"""A flow that learns from draws of the posterior."""

import numpy as np
import torch

from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.stan.density import CountingTarget
from stanflow.training.config import TrainConfig
from stanflow.training.sharpening import sharpen

from .targets import GaussianTarget, trained

DIM = 5
SCALES = np.array([1e-2, 1.0, 3.0, 100.0, 1.0])
TARGET = GaussianTarget(np.arange(DIM) * 1000.0, np.diag(SCALES**2))


def narrow_flow(share=0.3):
    """A normal in the target's units, at the right place and too narrow."""
    flow = build_flow(FlowConfig(layers=4, hidden=8), DIM, seed=1).double()
    with torch.no_grad():
        flow.output.shift.copy_(torch.from_numpy(TARGET.mean))
        flow.output.log_scale.copy_(torch.from_numpy(np.log(share * SCALES)))
    return flow


def posterior(n=2000, seed=1):
    noise = np.random.default_rng(seed).standard_normal((n, DIM))
    return TARGET.mean + SCALES * noise


def divergences(flow):
    """KL(q | p) and KL(p | q), the target's normalizing constant put in."""
    constant = TARGET.normalizing_constant.value
    z, log_q = flow.sample(4000, torch.Generator().manual_seed(5))
    forward = posterior(4000, 6)
    log_p = [TARGET.log_density(x) + constant for x in (z.numpy(), forward)]
    with torch.no_grad():
        return (
            float(np.mean(log_q.numpy() - log_p[0])),
            float(np.mean(log_p[1] - flow.log_prob(torch.from_numpy(forward)).numpy())),
        )


CONFIG = TrainConfig(batch=64, learning_rate=0.01)


def test_a_narrow_flow_learns_where_it_had_no_draws():
    flow = narrow_flow()
    before = divergences(flow)
    sharper = sharpen(flow, CountingTarget(TARGET), posterior(), CONFIG, seed=1)
    after = divergences(sharper)
    assert before[1] > 10
    assert after[1] < 0.2 * before[1]
    assert sum(after) < 0.2 * sum(before)
    # A copy has learnt, in the target's own units.
    assert divergences(flow) == before
    assert sharper.output.shift.dtype == torch.float64


def test_a_flow_that_is_the_posterior_stays_as_it_is():
    """Path terms vanish there: at its own draws and at the posterior's alike."""
    flow = narrow_flow(share=1.0)
    with torch.no_grad():
        flow.base.log_degrees_minus_one.fill_(20.0)  # normal, to float32's rounding
    sharper = sharpen(flow, CountingTarget(TARGET), posterior(), CONFIG, seed=1)
    assert max(np.abs(divergences(sharper))) < 0.01


def test_in_correlated_units_too():
    rng = np.random.default_rng(3)
    directions = rng.standard_normal((30, 10))
    covariance = np.linalg.inv(np.eye(30) + 1000 * directions @ directions.T)
    target = GaussianTarget(np.zeros(30), covariance)
    flow, _ = trained(FlowConfig(layers=4), target, max_steps=300)
    assert flow.correlated_units is not None
    z = rng.multivariate_normal(np.zeros(30), covariance, 1000)
    sharper = sharpen(flow, CountingTarget(target), z, TrainConfig(), seed=1)
    with torch.no_grad():
        log_q = sharper.log_prob(torch.from_numpy(z)).numpy()
    log_p = target.log_density(z) + target.normalizing_constant.value
    assert np.mean(log_p - log_q) < 0.2


def test_it_follows_its_seed_and_ends_when_it_is_told_to():
    flow, target = narrow_flow(), CountingTarget(TARGET)
    one, again, other = (
        sharpen(flow, target, posterior(), CONFIG, seed=seed).flat for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    before = target.evaluations
    asked = []

    def should_stop():
        asked.append(None)
        return len(asked) > 2

    sharpen(flow, target, posterior(), CONFIG, seed=1, should_stop=should_stop)
    assert target.evaluations - before == 2 * 10 * 64


def test_points_that_are_not_finite_are_left_out():
    z = posterior()
    z[::2] = np.nan
    sharper = sharpen(narrow_flow(), CountingTarget(TARGET), z, CONFIG, seed=1)
    assert torch.isfinite(sharper.flat).all()
    nothing = sharpen(
        narrow_flow(), CountingTarget(TARGET), np.full_like(z, np.nan), CONFIG, seed=1
    )
    torch.testing.assert_close(nothing.flat, narrow_flow().flat, rtol=1e-6, atol=1e-6)
