"""The hand-derived passes, against automatic differentiation of the plain maps and inverses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.flow.sweep import Sweep
from stanflow.flow.wiring import Wiring
from stanflow.kernels import layers as compiled
from stanflow.kernels import library

from .configurations import (
    WITH_AND_WITHOUT_COMPILED,
    batches,
    by_autograd,
    configs,
    dims,
    generator,
    random_flow,
    seeds,
)

use_compiled = st.sampled_from(WITH_AND_WITHOUT_COMPILED)


def gradient_of_log_p(z):
    """Of a density that is not the flow's."""
    return -torch.tanh(z) - 0.1 * z


def assert_relatively_close(ours, theirs, tolerance=1e-10):
    scale = max(float(theirs.abs().max()), 1e-30)
    assert float((ours - theirs).abs().max()) <= tolerance * scale


@settings(max_examples=300)
@given(configs, dims, batches, seeds, st.sampled_from(["keep", "rebuild"]), use_compiled)
def test_path_gradients_are_those_of_the_inverse_pass(
    config, dim, batch, seed, memory, use_compiled
):
    flow = random_flow(config, dim, seed)
    z, log_q, score, gradient = by_autograd(
        flow, batch, seed, lambda z, _, score: (z * (score - gradient_of_log_p(z.detach()))).sum()
    )
    sweep = Sweep(flow, batch, memory=memory, use_compiled=use_compiled)
    sweep.draw(generator(seed))
    assert_relatively_close(sweep.z.T, z)
    assert_relatively_close(sweep.log_q, log_q)
    assert_relatively_close(sweep.score.T, score)
    sweep.pull(sweep.score - gradient_of_log_p(sweep.z))
    assert_relatively_close(flow.flat_gradient, gradient)


@settings(max_examples=100)
@given(configs, dims, batches, seeds, use_compiled)
def test_given_base_points_take_the_place_of_draws(config, dim, batch, seed, use_compiled):
    """Their images, scores and path gradients, of which the base's parameters see nothing."""
    flow, n = random_flow(config, dim, seed), (batch + 1) // 2
    points = torch.randn(n, dim, generator=generator(seed + 1), dtype=torch.float64)
    sweep = Sweep(flow, batch, use_compiled=use_compiled)
    sweep.draw(generator(seed))
    others = sweep.z[:, n:].clone()
    sweep.draw(generator(seed), given=points)
    torch.testing.assert_close(sweep.z[:, n:], others)
    z = sweep.z[:, :n].T.clone().requires_grad_()
    log_q = flow.log_prob(z)
    (score,) = torch.autograd.grad(log_q.sum(), z)
    assert_relatively_close(sweep.log_q[:n], log_q.detach())
    assert_relatively_close(sweep.score[:, :n].T, score, 1e-8)
    cotangent = torch.zeros_like(sweep.z)
    cotangent[:, :n] = gradient_of_log_p(z.detach()).T
    sweep.pull(cotangent.clone())
    ours = flow.flat_gradient.clone()
    flow.flat_gradient.zero_()
    images = points
    for bijection in flow.bijections:
        images, _ = bijection(images)
    assert_relatively_close(images.detach(), z.detach(), 1e-8)
    if images.requires_grad:
        (images * cotangent[:, :n].T).sum().backward()
    assert_relatively_close(ours, flow.flat_gradient, 1e-8)


@settings(max_examples=200)
@given(configs, dims, batches, seeds, st.sampled_from(["keep", "rebuild"]), use_compiled)
def test_total_gradients_are_those_of_the_forward_pass(
    config, dim, batch, seed, memory, use_compiled
):
    flow = random_flow(config, dim, seed)
    weight = torch.rand(batch, generator=generator(seed), dtype=torch.float64)
    *_, gradient = by_autograd(
        flow,
        batch,
        seed,
        lambda z, log_q, _: (weight * log_q).sum() - (z * gradient_of_log_p(z.detach())).sum(),
    )
    sweep = Sweep(flow, batch, memory=memory, total=True, use_compiled=use_compiled)
    sweep.draw(generator(seed))
    sweep.pull(-gradient_of_log_p(sweep.z), weight)
    assert_relatively_close(flow.flat_gradient, gradient)


@settings(max_examples=100)
@given(configs, dims, batches, seeds, st.sampled_from(["keep", "rebuild"]), use_compiled)
def test_a_density_is_pulled_back_to_the_base_points(
    config, dim, batch, seed, memory, use_compiled
):
    """The derivative of ``log p(T(e)) + log|det dT/de|``, log p of the gradient above."""
    flow = random_flow(config, dim, seed)
    e = flow.base.sample(batch, generator(seed)).detach().requires_grad_()
    z, log_det = e, torch.zeros(batch, dtype=torch.float64)
    for bijection in flow.bijections:
        z, log_det_of_layer = bijection(z)
        log_det = log_det + log_det_of_layer
    log_p = -z.cosh().log().sum(1) - 0.05 * z.square().sum(1)
    (expected,) = torch.autograd.grad((log_p + log_det).sum(), e)
    sweep = Sweep(
        flow, batch, memory=memory, with_score=False, total=True, use_compiled=use_compiled
    )
    sweep.carry(e.detach().T.contiguous(), torch.zeros(batch, dtype=torch.float64))
    assert_relatively_close(sweep.z.T, z.detach())
    assert_relatively_close(-sweep.log_q, log_det.detach())
    cotangent = gradient_of_log_p(sweep.z)
    sweep.pull_to_base(cotangent, torch.full((batch,), -1.0, dtype=torch.float64))
    assert_relatively_close(cotangent.T, expected)


@settings(max_examples=60)
@given(configs, dims, batches, seeds)
def test_in_float32_the_passes_agree_to_its_rounding(config, dim, batch, seed):
    flow = random_flow(config, dim, seed, spread=0.1)
    exact = Sweep(flow, batch)
    exact.draw(generator(seed))
    exact.pull(exact.score - gradient_of_log_p(exact.z))
    expected = flow.flat_gradient.clone()

    single = random_flow(config, dim, seed, spread=0.1).float()
    # The same noise: uniform numbers in float64, rounded.
    noise = exact._e.float()
    results = []
    for use in WITH_AND_WITHOUT_COMPILED:
        sweep = Sweep(single, batch, use_compiled=use)
        with torch.no_grad():
            sweep.draw(generator(seed))
            sweep._e.copy_(noise)
            sweep.z.copy_(noise)
            score = torch.autograd.functional.jacobian(
                lambda e: single.base.log_prob(e.T).sum(), noise
            )
            sweep.score.copy_(score)
            sweep.log_q.copy_(single.base.log_prob(noise.T))
            for layer in sweep._layers:
                layer.push(sweep.z, sweep.score, sweep.log_q)
        assert_relatively_close(sweep.z.double(), exact.z, 2e-4)
        assert_relatively_close(sweep.score.double(), exact.score, 2e-3)
        sweep.pull(sweep.score - gradient_of_log_p(sweep.z))
        results.append(single.flat_gradient.double().clone())
    layers_parameters = slice(dim if config.base == "student-t" else 0, None)
    for result in results:
        assert_relatively_close(result[layers_parameters], expected[layers_parameters], 5e-3)


@settings(max_examples=60)
@given(configs, dims, batches, seeds, use_compiled)
def test_restoring_undoes_pushing(config, dim, batch, seed, use_compiled):
    flow = random_flow(config, dim, seed)
    sweep = Sweep(flow, batch, memory="rebuild", use_compiled=use_compiled)
    sweep.draw(generator(seed))
    with torch.no_grad():
        for layer in reversed(sweep._layers):
            layer.restore(sweep.z)
    assert_relatively_close(sweep.z, sweep._e, 1e-9)


@settings(max_examples=60)
@given(configs, dims, batches, seeds, use_compiled)
def test_the_largest_values_are_those_of_each_layer(config, dim, batch, seed, use_compiled):
    flow = random_flow(config, dim, seed)
    sweep = Sweep(flow, batch, use_compiled=use_compiled)
    sweep.draw(generator(seed))
    x = flow.base.sample(batch, generator(seed)).detach()
    expected = [x.abs().max()]
    for layer in flow.bijections:
        x = layer(x)[0].detach()
        if hasattr(layer, "moved"):
            expected.append(x[:, layer.moved].abs().max())
    torch.testing.assert_close(sweep.largest(), torch.stack(expected))


@pytest.mark.parametrize("use_compiled", WITH_AND_WITHOUT_COMPILED)
@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize("memory", ["keep", "rebuild"])
def test_several_parts_share_a_layer(use_compiled, total, memory, monkeypatch):
    """Which add to the same partners' rows, and take turns where there is one thread."""
    monkeypatch.setattr(compiled, "parts_for", lambda numbers: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    rng = np.random.default_rng(1)
    dim, batch = 301, 300
    moved = [np.arange(1, dim, 2), np.sort(rng.permutation(dim)[:140])]
    partners = [rng.choice(np.setdiff1d(np.arange(dim), half), (len(half), 2)) for half in moved]
    config = FlowConfig(layers=2, hidden=5, marginal_layers=0)
    flow = build_flow(config, dim, 1, Wiring(dim, moved, partners))
    flow.double()
    torch.manual_seed(1)
    flow.flat.add_(0.2 * torch.randn_like(flow.flat))
    weight = torch.rand(batch, generator=generator(1), dtype=torch.float64)

    def loss(z, log_q, score):
        cotangent = score - gradient_of_log_p(z.detach())
        return (weight * log_q).sum() + (z * cotangent).sum() if total else (z * cotangent).sum()

    _, log_q, score, gradient = by_autograd(flow, batch, 1, loss)
    sweep = Sweep(flow, batch, total=total, use_compiled=use_compiled, memory=memory)
    sweep.draw(generator(1))
    moved_last = flow.bijections[1].moved
    x = flow.bijections[1](flow.bijections[0](flow.base.sample(batch, generator(1)))[0])[0]
    torch.testing.assert_close(sweep.largest()[2], x[:, moved_last].detach().abs().max())
    assert_relatively_close(sweep.log_q, log_q)
    assert_relatively_close(sweep.score.T, score)
    sweep.pull(sweep.score - gradient_of_log_p(sweep.z), weight if total else None)
    assert_relatively_close(flow.flat_gradient, gradient)


@pytest.mark.parametrize("layers", [128, 256])
def test_deep_flows_keep_their_gradients(layers):
    """Depth 256: rebuilding loses digits, layer by layer, but few in float64."""
    flow = build_flow(FlowConfig(layers=layers, hidden=8), 6, 1).double()
    torch.manual_seed(1)
    flow.flat.add_(0.1 * torch.randn_like(flow.flat))
    gradients = []
    for memory in ("keep", "rebuild"):
        sweep = Sweep(flow, 32, memory=memory)
        sweep.draw(generator(1))
        sweep.pull(sweep.score - gradient_of_log_p(sweep.z))
        gradients.append(flow.flat_gradient.clone())
    assert_relatively_close(gradients[1], gradients[0], 1e-8)


def test_the_memory_mode_follows_the_budget():
    flow = build_flow(FlowConfig(layers=8, hidden=4), 10, 1)
    # Per layer and draw: 5 kept coordinates, 2 x 4 hidden units, exp(s) and the gain of 5.
    needed = 8 * (5 + 8 + 10) * 16 * 4
    assert Sweep(flow, 16, memory_budget=needed).memory == "keep"
    assert Sweep(flow, 16, memory_budget=needed - 1).memory == "rebuild"
    assert Sweep(flow, 16, memory="keep", memory_budget=0).memory == "keep"
    with pytest.raises(ValueError, match="memory must be one of"):
        Sweep(flow, 16, memory="lots")


def test_the_memory_mode_counts_bytes():
    flow = build_flow(FlowConfig(layers=8, hidden=4), 10, 1).double()
    needed = 8 * (5 + 8 + 10) * 16 * 8
    assert Sweep(flow, 16, memory_budget=needed).memory == "keep"
    assert Sweep(flow, 16, memory_budget=needed - 1).memory == "rebuild"


def test_what_does_not_fit_the_sweep_is_refused():
    flow = build_flow(FlowConfig(layers=2, hidden=4), 5, 1)
    sweep, total = Sweep(flow, 8), Sweep(flow, 8, total=True)
    for each in (sweep, total):
        each.draw(generator(1))
    weight = torch.ones(8, dtype=torch.float64)
    for each, cotangent, log_q_weight, message in (
        (sweep, sweep.score.double(), None, "cotangent must be contiguous"),
        (sweep, sweep.score.T.contiguous().T, None, "cotangent must be contiguous"),
        (sweep, sweep.score[:4], None, "cotangent must be contiguous"),
        (sweep, sweep.score, weight, "where the sweep was made with total"),
        (total, total.score, None, "where the sweep was made with total"),
        (total, total.score, weight.float(), "log_q_weight must be contiguous"),
    ):
        with pytest.raises(ValueError, match=message):
            each.pull(cotangent, log_q_weight)


def test_a_sweep_through_a_converted_flow_is_refused():
    flow = build_flow(FlowConfig(layers=2, hidden=4), 5, 1)
    sweep = Sweep(flow, 8)
    sweep.draw(generator(1))
    flow.release_gradient()
    with pytest.raises(RuntimeError, match="make another"):
        sweep.pull(sweep.score.clone())
    sweep = Sweep(flow, 8)
    flow.double()
    with pytest.raises(RuntimeError, match="make another"):
        sweep.draw(generator(1))


def test_partners_that_are_none_get_a_gradient_of_zero():
    """Not what stood there before."""
    wiring = Wiring(4, [[0, 2]], [[[1, -1], [-1, 3]]])
    flow = build_flow(FlowConfig(layers=1, hidden=2), 4, 1, wiring)
    for use in WITH_AND_WITHOUT_COMPILED:
        sweep = Sweep(flow, 8, use_compiled=use)
        sweep.draw(generator(1))
        flow.flat_gradient.fill_(7.0)
        sweep.pull(sweep.score.clone())
        local = flow.bijections[0].local
        for parameter in (local.linear, local.weight, local.inner):
            assert (parameter.grad[:, 0, 1] == 0).all()
            assert (parameter.grad[:, 1, 0] == 0).all()


def test_as_many_partners_as_allowed_fit_the_compiled_passes():
    wiring = Wiring(20, [list(range(3))], [[list(range(3, 19))] * 3])
    flow = build_flow(FlowConfig(layers=1, hidden=2), 20, 1, wiring).double()
    flow.flat.add_(0.1 * torch.randn(flow.flat.shape, generator=generator(1), dtype=torch.float64))
    *_, gradient = by_autograd(
        flow, 130, 1, lambda z, _, score: (z * (score - gradient_of_log_p(z.detach()))).sum()
    )
    sweep = Sweep(flow, 130)
    sweep.draw(generator(1))
    sweep.pull(sweep.score - gradient_of_log_p(sweep.z))
    assert_relatively_close(flow.flat_gradient, gradient)


@pytest.mark.parametrize("clamp", ["asymmetric", "tanh", "none"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1000.0, -1000.0])
def test_extreme_values_are_the_same_compiled_and_in_torch(clamp, value):
    config = FlowConfig(layers=1, hidden=3, clamp=clamp, loft_tau=None)
    for dtype in (torch.float32, torch.float64):
        flow = build_flow(config, 6, 1).to(dtype)
        conditioner = flow.bijections[0].conditioner
        conditioner.output_weight.detach().fill_(0.5)
        for bias in (conditioner.output_bias.detach()[0, 1:2], conditioner.input_bias.detach()[:1]):
            before = bias.clone()
            bias.fill_(value)
            states = []
            for use in WITH_AND_WITHOUT_COMPILED:
                sweep = Sweep(flow, 5, use_compiled=use)
                sweep.draw(generator(1))
                states.append((sweep.z.clone(), sweep.score.clone(), sweep.log_q.clone()))
            for state in states[1:]:
                most = 1e-5 if dtype == torch.float32 else 1e-12
                torch.testing.assert_close(states[0], state, equal_nan=True, rtol=most, atol=most)
            bias.copy_(before)


@pytest.mark.skipif(library.load() is None, reason="the compiled passes were not built")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 4e-7), (torch.float64, 2e-15)])
def test_compiled_functions_are_accurate(dtype, tolerance):
    """Through the clamps tanh, atan and exp, on a dense grid."""
    grid = torch.cat([torch.linspace(-30, 30, 40_001), torch.linspace(-0.01, 0.01, 2001)])
    x = grid.to(dtype).unsqueeze(0)
    config = FlowConfig(layers=1, hidden=1, loft_tau=None, base="gaussian")
    for clamp in ("asymmetric", "tanh", "none"):
        flow = build_flow(replace(config, clamp=clamp), 2 * x.shape[1], 1).to(dtype)
        flow.bijections[0].conditioner.output_bias.detach()[0].copy_(x[0])
        sweep = Sweep(flow, 1)
        sweep.draw(generator(1))
        scale = sweep._layers[0]._elementwise._keep_alive[2]
        exact = flow.bijections[0].clamp(x[0].double()).exp()
        error = (scale[:, 0].double() - exact).abs()
        # exp turns an error of its argument, up to 30, into a relative one of the result
        most = tolerance * (1 + (x[0].double().abs() if clamp == "none" else 1))
        assert (error <= most * exact).all(), clamp


def test_a_sweep_for_drawing_needs_no_gradients():
    flow = build_flow(FlowConfig(layers=2, hidden=4), 5, 1)
    sweep = Sweep(flow, 8, with_score=False)
    sweep.draw(generator(1))
    assert sweep.score is None
    assert all(parameter.grad is None for parameter in flow.parameters())


def test_values_that_are_not_finite_are_seen():
    flow = build_flow(FlowConfig(layers=2, hidden=4), 4, 1)
    for use in WITH_AND_WITHOUT_COMPILED:
        for bad in (float("nan"), float("inf")):
            flow.bijections[0].conditioner.output_bias.detach()[1, 0] = bad
            sweep = Sweep(flow, 8, use_compiled=use)
            sweep.draw(generator(1))
            assert not torch.isfinite(sweep.largest()[1])
            assert not torch.isfinite(sweep.z).all(dim=0).any()
            assert torch.isfinite(sweep.largest()[0])


def test_no_step_allocates_what_an_earlier_one_could_have_kept():
    """The buffers of a step, by size, are those of the step before."""
    flow = build_flow(FlowConfig(layers=6, hidden=32), 40, 1)
    sweep = Sweep(flow, 64)
    cotangent = torch.empty_like(sweep.z)
    for _ in range(2):
        sweep.draw(generator(1))
        sweep.pull(cotangent.copy_(sweep.score))
    with torch.profiler.profile(profile_memory=True) as profile:
        sweep.draw(generator(1))
        sweep.pull(cotangent.copy_(sweep.score))
    largest = max((event.self_cpu_memory_usage for event in profile.events()), default=0)
    assert largest < 64 * 40 * 4 / 2  # half a (D, B) matrix
