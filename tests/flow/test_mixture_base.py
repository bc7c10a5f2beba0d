"""A base with a copy of itself for each mode: its density, draws, and hand-derived passes."""

import numpy as np
import pytest
import torch
from scipy import stats

from stanflow.flow.base import Gaussian, StudentT
from stanflow.flow.config import FlowConfig
from stanflow.flow.mixture_base import MixtureBase
from stanflow.flow.realnvp import Modes, build_flow
from stanflow.flow.sweep import Sweep
from stanflow.flow.workspace import Workspace

CENTRES = np.array([[-6.0, 0, 1], [5, 2, 0], [0, 0, 9]])
WEIGHTS = np.array([0.5, 0.3, 0.2])
NU = 30


def mixture(component=StudentT):
    base = MixtureBase(component(3), torch.from_numpy(CENTRES), torch.from_numpy(np.log(WEIGHTS)))
    return base.double()


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("component", "law"), [(Gaussian, stats.norm()), (StudentT, stats.t(NU))])
def test_the_log_density_is_the_mixtures(component, law):
    e = 5 * np.random.default_rng(0).standard_normal((50, 3))
    parts = [w * law.pdf(e - c).prod(axis=1) for w, c in zip(WEIGHTS, CENTRES, strict=True)]
    computed = mixture(component).log_prob(torch.from_numpy(e)).detach().numpy()
    np.testing.assert_allclose(computed, np.log(sum(parts)), rtol=1e-7)


@pytest.mark.parametrize("component", [Gaussian, StudentT])
def test_the_scores_are_those_of_automatic_differentiation(component):
    base = mixture(component)
    e = (5 * torch.randn(40, 3, generator=generator(), dtype=torch.float64)).requires_grad_()
    (score,) = torch.autograd.grad(base.log_prob(e).sum(), e)
    torch.testing.assert_close(base.score(e).detach(), score)


def test_samples_are_stratified_and_follow_the_mixture():
    base, n = mixture(), 20_000
    e = base.sample(n, generator()).detach().numpy()
    nearest = ((e[:, None] - CENTRES) ** 2).sum(axis=2).argmin(axis=1)
    # No copy's samples are nearer to another's centre, but for a few in a thousand.
    assert np.abs(np.bincount(nearest) / n - WEIGHTS).max() < 1e-3
    for i in range(3):

        def cdf(x, i=i):
            return sum(w * stats.t(NU).cdf(x - c[i]) for w, c in zip(WEIGHTS, CENTRES, strict=True))

        assert stats.kstest(e[:, i], cdf).pvalue > 1e-3


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_each_copy_has_its_share_of_samples_in_random_order(n):
    base = mixture()
    counts = torch.bincount(base.choose(n, generator(3)), minlength=3).numpy()
    assert np.abs(counts - n * WEIGHTS).max() <= 1
    if n == 1000:
        chosen = base.choose(n, generator(3)).numpy()
        halves = [np.bincount(half, minlength=3) for half in np.split(chosen, 2)]
        assert np.abs(halves[0] - halves[1]).max() < 5 * np.sqrt(250)


def drawn(base, n, tails=0):
    passes = base.passes(Workspace(n, torch.empty(0, dtype=torch.float64)))
    e, score = torch.empty(2, 3, n, dtype=torch.float64).unbind()
    e, score, log_q = e.clone(), score.clone(), torch.empty(n, dtype=torch.float64)
    with torch.no_grad():
        passes.draw(e, score, log_q, generator(5))
        if tails:
            passes.spread_out(e, score, log_q, tails, generator(6))
    return passes, e, score, log_q


@pytest.mark.parametrize("tails", [0, 30])
def test_the_passes_draw_with_density_and_score(tails):
    base = mixture()
    _, e, score, log_q = drawn(base, 200, tails)
    torch.testing.assert_close(log_q, base.log_prob(e.T).detach())
    torch.testing.assert_close(score, base.score(e.T).detach().T)


def test_tails_are_spread_out_around_their_own_centre():
    base = mixture()
    _, before, _, _ = drawn(base, 200)
    _, after, _, _ = drawn(base, 200, tails=50)
    torch.testing.assert_close(before[:, 50:], after[:, 50:])
    nearest = ((before.T[:, None] - torch.from_numpy(CENTRES)) ** 2).sum(2).argmin(1)
    away, farther = (x.T - torch.from_numpy(CENTRES)[nearest] for x in (before, after))
    ratio = (farther / away)[:50]
    assert (ratio > 1 - 1e-9).all()
    assert (ratio < 3 + 1e-9).all()
    assert ((ratio > 1 + 1e-9).sum(1) >= 1).all()
    assert ((ratio > 1 + 1e-9).sum(1) <= 2).all()


def test_the_degrees_of_freedom_move_samples_as_the_components():
    """By finite differences of samples of the same copies."""
    base, n = mixture(), 300
    cotangent = torch.randn(3, n, generator=generator(9), dtype=torch.float64)
    parameter = base.component.log_degrees_minus_one
    parameter.grad = torch.zeros_like(parameter)
    passes, e, _, _ = drawn(base, n)
    with torch.no_grad():
        passes.pull(e, cotangent.clone(), None)
    step = 1e-4
    ends = []
    for sign in (1, -1):
        moved = mixture()
        with torch.no_grad():
            moved.component.log_degrees_minus_one.add_(sign * step)
        ends.append(drawn(moved, n)[1])
    quotient = ((ends[0] - ends[1]) / (2 * step) * cotangent).sum(1)
    torch.testing.assert_close(parameter.grad, quotient, rtol=1e-5, atol=1e-7)


def test_a_flow_of_it_trains_by_the_path_gradient_of_the_inverse_pass():
    """``(dT/dtheta)^T score``, score the derivative of log q at the draws, parameters held."""
    modes = Modes(CENTRES, np.log(WEIGHTS))
    flow = build_flow(FlowConfig(layers=4, hidden=6, base="gaussian"), 3, 1, modes=modes).double()
    with torch.no_grad():
        flow.flat.add_(0.1 * torch.randn(flow.flat.shape, generator=generator(2)))
    sweep = Sweep(flow, 50)
    sweep.draw(generator(3))
    z, score = sweep.z.T.clone().requires_grad_(), sweep.score.clone()
    (expected,) = torch.autograd.grad(flow.log_prob(z).sum(), z)
    torch.testing.assert_close(score.T, expected)
    torch.testing.assert_close(sweep.log_q, flow.log_prob(z).detach())
    e = flow.inverse(z.detach())[0].detach()
    sweep.pull(score.clone())
    gradient = flow.flat_gradient.clone()
    flow.flat_gradient.zero_()
    images = e
    for bijection in flow.bijections:
        images, _ = bijection(images)
    (images * score.T).sum().backward()
    torch.testing.assert_close(gradient, flow.flat_gradient)


def test_it_has_no_total_gradient():
    passes, e, score, log_q = drawn(mixture(), 5)
    with pytest.raises(NotImplementedError, match="path gradients"):
        passes.pull(e, score, log_q)
