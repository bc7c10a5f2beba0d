"""A batch in one compiled call, against automatic differentiation and the estimator in torch."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from stanflow.flow.base import StudentT
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.flow.sweep import Sweep
from stanflow.flow.wiring import Wiring
from stanflow.sampling.standardize import StandardizedTarget
from stanflow.stan.density import CountingTarget
from stanflow.stan.model import StanModel
from stanflow.training.compiled_gradients import CompiledGradientEstimator
from stanflow.training.config import TrainConfig
from stanflow.training.gradients import GradientEstimator
from stanflow.training.optimizers import FlatAdam

DIM = 5
BATCH = 300
PROGRAM = """
data { real cliff; }
parameters { vector[5] x; }
model { x ~ student_t(4, 1, 2); x[1] ~ normal(x[2], 0.5); if (x[3] > cliff) reject("beyond"); }
"""


def make_flow(dtype, base="student-t"):
    """A flow that bends, whose LOFT is felt."""
    rng = np.random.default_rng(1)
    halves = Wiring.alternating(DIM, 4).halves
    wiring = Wiring(
        DIM, [h.moved for h in halves], [rng.choice(h.kept, (len(h.moved), 2)) for h in halves]
    )
    config = FlowConfig(layers=4, hidden=8, base=base, marginal_layers=2, loft_tau=1.0)
    flow = build_flow(config, DIM, 1, wiring).to(dtype)
    noise = torch.randn(flow.flat.shape, generator=torch.Generator().manual_seed(3))
    flow.flat.add_(0.2 * noise.to(dtype))
    return flow


def make_units(cliff=math.inf, factor=None, threads=1):
    rng = np.random.default_rng(2)
    model = StanModel(
        stan_code=PROGRAM, data={"cliff": min(cliff, 1e300)}, engine="embedded", threads=threads
    )
    target = CountingTarget(model)
    return StandardizedTarget(target, rng.normal(size=DIM), 0.1 * rng.normal(size=DIM), factor)


def make_estimator(flow, units, tail_share=0.0, longest=None):
    sweep = Sweep(flow, BATCH)
    assert sweep.chain is not None
    return CompiledGradientEstimator(
        sweep,
        sweep.chain,
        units,
        units.compiled_without_units(),
        tail_share=tail_share,
        longest=longest,
    )


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


def base_points(estimator):
    """Base points of the last batch, (B, D), and the noise that they were made of."""
    return (torch.cat(of_parts, 1).T.double() for of_parts in estimator.base_and_noise)


def through(flow, estimator):
    """The last batch's draws as functions of a flow's parameters, by automatic differentiation."""
    e, w = base_points(estimator)
    if isinstance(flow.base, StudentT):
        nu = flow.base.degrees_of_freedom
        with torch.no_grad():
            exponential, cosine = w * nu / 2, e / torch.sqrt(nu * torch.expm1(w))
        e = torch.sqrt(nu * torch.expm1(2 * exponential / nu)) * cosine
    for bijection in flow.bijections:
        e, _ = bijection(e)
    return e


FACTOR = np.tril(np.random.default_rng(4).normal(size=(DIM, DIM)) * 0.2) + np.eye(DIM)


@pytest.mark.parametrize("base", ["student-t", "gaussian"])
@pytest.mark.parametrize(
    "factor", [None, FACTOR, np.asfortranarray(FACTOR)], ids=["apart", "correlated", "by columns"]
)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("tail_share", [0.0, 0.5])
def test_gradients_are_those_of_automatic_differentiation(base, factor, dtype, error, tail_share):
    flow, units = make_flow(dtype, base), make_units(factor=factor)
    estimator = make_estimator(flow, units, tail_share)
    result = estimator.estimate(generator())
    found = flow.flat_gradient.clone().double()
    flow.double()
    parameters = list(flow.parameters())
    z = through(flow, estimator)
    at = z.detach().requires_grad_()
    log_q = flow.log_prob(at)
    (score,) = torch.autograd.grad(log_q.sum(), at)
    density = units.log_density_gradient(at.detach().numpy())
    cotangent = (score - torch.from_numpy(density.gradient)) / BATCH
    gradients = torch.autograd.grad(z, parameters, cotangent, allow_unused=True)
    expected = torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for p, g in zip(parameters, gradients, strict=True)
        ]
    )
    np.testing.assert_allclose(found, expected, atol=error * float(expected.abs().max()))
    log_ratio = (density.log_density - log_q.detach().numpy())[int(tail_share * BATCH) :]
    assert result.elbo == pytest.approx(log_ratio.mean(), abs=100 * error)
    assert result.log_weight_sd == pytest.approx(log_ratio.std(ddof=1), rel=100 * error)
    assert result.rejected == 0


def test_fifty_steps_lead_where_torch_goes_from_the_same_noise():
    """Automatic differentiation and torch's Adam against the compiled step, whole."""
    compiled, plain, units = make_flow(torch.float64), make_flow(torch.float64), make_units()
    estimator = make_estimator(compiled, units, tail_share=0.5)
    config = TrainConfig(learning_rate=0.01, max_gradient_norm=None)
    ours = FlatAdam(compiled, config)
    theirs = torch.optim.Adam(plain.parameters(), lr=0.01, betas=config.adam_betas, eps=1e-8)
    begun = plain.flat.clone()
    for seed in range(50):
        estimator.estimate(generator(seed))
        z = through(plain, estimator)
        at = z.detach().requires_grad_()
        (score,) = torch.autograd.grad(plain.log_prob(at).sum(), at)
        density = units.log_density_gradient(at.detach().numpy())
        theirs.zero_grad()
        z.backward((score - torch.from_numpy(density.gradient)) / BATCH)
        theirs.step()
        assert ours.step(1.0) > 0
    moved = float((plain.flat - begun).abs().max())
    assert moved > 0.1
    np.testing.assert_allclose(compiled.flat, plain.flat, rtol=1e-9, atol=1e-9 * moved)


def test_base_points_have_the_bases_distribution():
    flow, units = make_flow(torch.float64), make_units()
    with torch.no_grad():
        flow.base.log_degrees_minus_one.copy_(torch.tensor([-1.0, 0.0, 1.0, 2.0, 5.0]))
    estimator = make_estimator(flow, units)
    nu = flow.base.degrees_of_freedom.detach().numpy()
    batches = []
    for seed in range(40):
        estimator.log_weights(generator(seed))
        e, _ = base_points(estimator)
        batches.append(e.numpy())
    draws = np.concatenate(batches)
    for i in range(DIM):
        assert stats.kstest(draws[:, i], stats.t(nu[i]).cdf).pvalue > 1e-3
    uniforms = stats.t(nu).cdf(draws)
    correlations = np.corrcoef(np.hstack([uniforms[:-1], uniforms[1:]]).T)
    assert np.abs(correlations - np.eye(2 * DIM)).max() < 4.5 / np.sqrt(len(draws))


def test_draws_are_spread_out_in_one_coordinate_or_two():
    flow, units = make_flow(torch.float64), make_units()
    own, spread = make_estimator(flow, units), make_estimator(flow, units, tail_share=0.5)
    own.estimate(generator())
    spread.estimate(generator())
    (before, _), (after, _) = base_points(own), base_points(spread)
    ratio = (after / before).numpy()
    changed = (ratio != 1).sum(axis=1)
    tails = BATCH // 2
    assert (changed[tails:] == 0).all()
    assert (changed[0:tails:2] == 2).all()
    assert (changed[1:tails:2] == 1).all()
    factors = ratio[ratio != 1]
    assert stats.kstest((factors - 1) / 2, "uniform").pvalue > 1e-3
    for i in range(DIM):
        assert (ratio[:tails, i] != 1).sum() > tails / 5


@pytest.mark.parametrize("longest", [None, 0.3])
def test_draws_that_are_refused_are_drawn_back_as_in_torch(longest):
    """The same derivatives with respect to the draws, which the estimator in torch is given."""
    flow, units = make_flow(torch.float64), make_units(cliff=-0.5)
    estimator = make_estimator(flow, units, 0.3, longest)
    result = estimator.estimate(generator())
    assert 20 < result.rejected < BATCH - 20
    found = flow.flat_gradient.clone()
    z = through(flow, estimator).detach()

    sweep = Sweep(flow, BATCH, use_compiled=False)
    twin = GradientEstimator(sweep, units, tail_share=0.3, longest=longest)

    def draw(_, tails, given):
        assert tails == int(0.3 * BATCH)
        at = z.clone().requires_grad_()
        log_q = flow.log_prob(at)
        (score,) = torch.autograd.grad(log_q.sum(), at)
        sweep.z.copy_(z.T)
        sweep.score.copy_(score.T)
        sweep.log_q.copy_(log_q.detach())

    cotangents = []
    sweep.draw, sweep.pull = draw, lambda c, _: cotangents.append(c.clone())
    expected = twin.estimate(generator())
    assert expected.rejected == result.rejected
    assert expected.elbo == pytest.approx(result.elbo)
    parameters = list(flow.parameters())
    gradients = torch.autograd.grad(
        through(flow, estimator), parameters, cotangents[0].T, allow_unused=True
    )
    flat = torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for p, g in zip(parameters, gradients, strict=True)
        ]
    )
    np.testing.assert_allclose(found, flat, atol=1e-11)


def test_a_batch_without_a_draw_that_is_accepted_moves_nothing():
    flow, units = make_flow(torch.float32), make_units(cliff=-1e6)
    result = make_estimator(flow, units).estimate(generator())
    assert math.isnan(result.elbo)
    assert result.rejected == BATCH
    assert not flow.flat_gradient.any()


def test_the_key_decides_whatever_the_threads():
    gradients = []
    for threads, seed in ((1, 5), (3, 5), (1, 6)):
        flow, units = make_flow(torch.float32), make_units(threads=threads)
        make_estimator(flow, units, 0.5).estimate(generator(seed))
        gradients.append(flow.flat_gradient.clone())
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.equal(gradients[0], gradients[2])


def test_every_evaluation_is_counted():
    flow, units = make_flow(torch.float32), make_units()
    estimator = make_estimator(flow, units)
    estimator.estimate(generator())
    assert len(estimator.log_weights(generator())) == BATCH
    assert units._target.evaluations == 2 * BATCH
