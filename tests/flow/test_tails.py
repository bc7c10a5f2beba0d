"""Draws that are spread out: their density, score and derivatives are the flow's own there."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stanflow.flow.base import Gaussian, StudentT
from stanflow.flow.config import FlowConfig
from stanflow.flow.sweep import Sweep
from stanflow.flow.workspace import Workspace

from .configurations import (
    WITH_AND_WITHOUT_COMPILED,
    configs,
    dims,
    generator,
    random_flow,
    seeds,
)

BASES = {
    "gaussian": lambda dim: Gaussian(dim).double(),
    "student-t": lambda dim: student_t(np.geomspace(1.2, 50, dim)),
}


def student_t(degrees):
    base = StudentT(len(degrees)).double()
    with torch.no_grad():
        base.log_degrees_minus_one.copy_(torch.log(torch.tensor(degrees, dtype=torch.float64) - 1))
    return base


@torch.no_grad()
def spread_out(base, n, tails, seed, dtype=torch.float64):
    """Points of a base, (D, n), before and after, with score and log density after."""
    like = torch.empty(0, dtype=dtype)
    passes = base.passes(Workspace(n, like))
    e, score = (torch.empty(base.dim, n, dtype=dtype) for _ in range(2))
    log_q = torch.empty(n, dtype=torch.float64)
    draws = generator(seed)
    passes.draw(e, score, log_q, draws)
    before = e.clone()
    passes.spread_out(e, score, log_q, tails, draws)
    return passes, before, e, score, log_q


@pytest.mark.parametrize("name", sorted(BASES))
@given(dim=st.integers(1, 6), n=st.integers(1, 40), seed=seeds, data=st.data())
def test_density_and_score_are_the_bases_at_the_points_they_are_spread_to(name, dim, n, seed, data):
    base = BASES[name](dim)
    tails = data.draw(st.integers(0, n))
    _, _, e, score, log_q = spread_out(base, n, tails, seed)
    points = e.T.clone().requires_grad_()
    log_probs = base.marginal_log_probs(points).sum(1)
    (expected,) = torch.autograd.grad(log_probs.sum(), points)
    torch.testing.assert_close(log_q, log_probs.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(score.T, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", sorted(BASES))
def test_in_float32_they_are_right_to_its_rounding(name):
    base = BASES[name](50).float()
    _, _, e, score, log_q = spread_out(base, 200, 200, 1, torch.float32)
    points = e.T.double().requires_grad_()
    exact = base.double().marginal_log_probs(points).sum(1)
    (slope,) = torch.autograd.grad(exact.sum(), points)
    torch.testing.assert_close(log_q, exact.detach(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(score.T.double(), slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(BASES))
@given(dim=st.integers(1, 6), n=st.integers(1, 40), seed=seeds, data=st.data())
def test_the_first_draws_alone_are_spread_up_to_threefold(name, dim, n, seed, data):
    """In one coordinate or two, by the same factor."""
    tails = data.draw(st.integers(0, n))
    _, before, after, _, _ = spread_out(BASES[name](dim), n, tails, seed)
    changed = before != after
    assert not changed[:, tails:].any()
    assert (changed[:, :tails].sum(0) >= 1).all()
    assert (changed.sum(0) <= 2).all()
    for draw in range(tails):
        factors = (after / before)[changed[:, draw], draw]
        assert ((factors > 1) & (factors <= 3)).all()
        torch.testing.assert_close(factors, factors[:1].expand_as(factors))


def test_all_coordinates_and_factors_have_their_turn():
    """Half of the draws have two coordinates spread out."""
    _, before, after, _, _ = spread_out(Gaussian(5).double(), 20_000, 20_000, 1)
    changed = before != after
    share = changed.double().mean(1).numpy()
    expected = 0.2 + 0.5 * 0.2
    np.testing.assert_allclose(share, expected, atol=4.5 * np.sqrt(0.25 / 20_000))
    factors = (after / before)[changed]
    np.testing.assert_allclose(
        np.quantile(factors.numpy(), [0.1, 0.5, 0.9]), [1.2, 2.0, 2.8], atol=0.05
    )


@settings(max_examples=100)
@given(configs, dims, st.integers(1, 40), seeds, st.sampled_from(WITH_AND_WITHOUT_COMPILED))
def test_a_sweeps_density_and_score_are_the_flows_at_its_draws(
    config, dim, batch, seed, use_compiled
):
    flow = random_flow(config, dim, seed, spread=0.1)
    tails = (batch + 1) // 2
    sweep = Sweep(flow, batch, use_compiled=use_compiled)
    sweep.draw(generator(seed), tails)
    points = sweep.z.T.clone().requires_grad_()
    log_prob = flow.log_prob(points)
    (score,) = torch.autograd.grad(log_prob.sum(), points)
    torch.testing.assert_close(sweep.log_q, log_prob.detach(), rtol=1e-8, atol=1e-8)
    largest = float(score.abs().max())
    torch.testing.assert_close(sweep.score.T, score, rtol=1e-7, atol=1e-8 * largest)


@pytest.mark.parametrize("dim", [1, 5])
def test_draws_that_are_not_spread_out_are_as_without_tails(dim):
    flow = random_flow(FlowConfig(layers=4, hidden=5), dim, 1)
    for use in WITH_AND_WITHOUT_COMPILED:
        plain, sweep = (Sweep(flow, 16, use_compiled=use) for _ in range(2))
        plain.draw(generator(1))
        sweep.draw(generator(1), 6)
        for name in ("z", "score", "log_q"):
            one, other = getattr(plain, name), getattr(sweep, name)
            torch.testing.assert_close(one[..., 6:], other[..., 6:], rtol=1e-14, atol=1e-14)
        assert (plain.z[:, :6] != sweep.z[:, :6]).any(0).all()


@pytest.mark.parametrize("memory", ["keep", "rebuild"])
@pytest.mark.parametrize("use_compiled", WITH_AND_WITHOUT_COMPILED)
@pytest.mark.parametrize("dim", [1, 6])
def test_path_gradients_go_through_points_that_are_spread_out(dim, use_compiled, memory):
    """Against automatic differentiation, the factors held fixed."""
    flow = random_flow(FlowConfig(layers=4, hidden=5), dim, 2, spread=0.1)
    sweep = Sweep(flow, 30, use_compiled=use_compiled, memory=memory)
    sweep.draw(generator(4), 15)
    cotangent = sweep.score + torch.tanh(sweep.z)
    e = flow.base.sample(30, generator(4))
    z = e * (sweep._e.T / e).detach()
    for bijection in flow.bijections:
        z, _ = bijection(z)
    parameters = list(flow.parameters())
    loss = (z * cotangent.T).sum()
    parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    expected = torch.cat([part.flatten() for part in parts])
    sweep.pull(cotangent)
    scale = float(expected.abs().max())
    torch.testing.assert_close(flow.flat_gradient, expected, rtol=1e-9, atol=1e-10 * scale)


@pytest.mark.parametrize("nu", [1.2, 3.0, 30.0])
@pytest.mark.parametrize("dim", [1, 20])
def test_degrees_of_freedom_move_points_that_are_spread_out_as_differences_do(nu, dim):
    n, tails, h = 50, 40, 1e-5 * (nu - 1)
    cotangent = torch.randn(dim, n, generator=generator(9), dtype=torch.float64)

    def loss(degrees):
        _, _, e, _, _ = spread_out(student_t([degrees] * dim), n, tails, 3)
        return (e * cotangent).sum(1)

    quotient = (loss(nu + h) - loss(nu - h)) / (2 * h)
    base = student_t([nu] * dim)
    base.log_degrees_minus_one.grad = torch.zeros(dim, dtype=torch.float64)
    passes, _, e, _, _ = spread_out(base, n, tails, 3)
    with torch.no_grad():
        passes.pull(e, cotangent.clone(), None)
    computed = base.log_degrees_minus_one.grad / (nu - 1)
    most = 1e-7 * float(e.abs().max()) / nu
    torch.testing.assert_close(computed, quotient, rtol=1e-6, atol=most)
