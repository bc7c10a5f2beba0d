from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stanflow.errors import UsageError
from stanflow.flow import realnvp
from stanflow.flow.affine import ShiftScale
from stanflow.flow.clamp import SoftClamp
from stanflow.flow.config import FlowConfig
from stanflow.flow.coupling import AffineCoupling
from stanflow.flow.loft import Loft
from stanflow.flow.realnvp import Flow, build_flow
from stanflow.flow.sinh_arcsinh import SinhArcsinh
from stanflow.flow.wiring import Wiring

from .configurations import configs, dims, generator, random_flow, seeds


@settings(max_examples=60)
@given(configs, dims, seeds)
def test_the_log_density_of_samples_is_theirs(config, dim, seed):
    flow = random_flow(config, dim, seed)
    z, log_q = flow.sample(8, generator(seed))
    torch.testing.assert_close(log_q, flow.log_prob(z).detach(), rtol=1e-9, atol=1e-9)


@settings(max_examples=60)
@given(configs, dims, seeds)
def test_inverting_gives_the_base_points_back(config, dim, seed):
    flow = random_flow(config, dim, seed)
    e = flow.base.sample(8, generator(seed)).detach()
    z, _ = flow.sample(8, generator(seed))
    torch.testing.assert_close(flow.inverse(z)[0].detach(), e, rtol=1e-8, atol=1e-8)


@settings(max_examples=60)
@given(configs, st.integers(1, 6), seeds)
def test_the_log_determinant_is_that_of_the_jacobian(config, dim, seed):
    flow = random_flow(config, dim, seed)
    z, log_q = flow.sample(4, generator(seed))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: flow.inverse(row[None])[0][0]))(z)
    _, log_det = torch.linalg.slogdet(jacobian)
    expected = flow.base.log_prob(flow.inverse(z)[0]) + log_det
    torch.testing.assert_close(log_q, expected.detach(), rtol=1e-9, atol=1e-9)


def test_many_samples_and_densities_are_made_in_parts():
    """More than are made at once, and a rest."""
    flow = random_flow(FlowConfig(layers=3, hidden=4), 3, 1)
    z, log_q = flow.sample(2500, generator())
    assert len(torch.unique(z[:, 0])) == 2500
    with torch.no_grad():
        in_parts = [flow.log_prob(z[a:b]) for a, b in ((0, 1000), (1000, 2500))]
        torch.testing.assert_close(flow.log_prob(z), torch.cat(in_parts))
    torch.testing.assert_close(flow.log_prob(z).detach(), log_q)


def test_densities_without_gradients_take_little_memory(monkeypatch):
    flow = random_flow(FlowConfig(layers=2, hidden=4), 5, 1, wired=False)
    z, log_q = flow.sample(100, generator())
    sizes = []
    plain = Flow._log_prob
    monkeypatch.setattr(realnvp, "_NUMBERS_AT_ONCE", 5 * 30)
    monkeypatch.setattr(
        Flow, "_log_prob", lambda self, z: (sizes.append(len(z)), plain(self, z))[1]
    )
    with torch.no_grad():
        torch.testing.assert_close(flow.log_prob(z), log_q)
    assert sizes == [30, 30, 30, 10]
    assert flow.log_prob(z[:0]).shape == (0,)


def test_all_parameters_are_views_of_one_tensor():
    flow = build_flow(FlowConfig(layers=2, hidden=4), 5, 1)
    assert flow.flat.numel() == sum(p.numel() for p in flow.parameters())
    flow.flat.fill_(0.25)
    assert all((p == 0.25).all() for p in flow.parameters())
    flow.flat_gradient.fill_(0.5)
    assert all((p.grad == 0.5).all() for p in flow.parameters())
    flow.double()
    assert flow.flat.dtype == torch.float64
    flow.flat.fill_(2.0)
    assert all((p == 2.0).all() and p.dtype == torch.float64 for p in flow.parameters())
    assert flow.flat_gradient.dtype == torch.float64
    flow.release_gradient()
    assert all(p.grad is None for p in flow.parameters())


def test_a_copy_stands_on_its_own():
    flow = build_flow(FlowConfig(layers=2, hidden=4), 5, 1)
    flow.flat_gradient.fill_(1.0)
    copied = deepcopy(flow)
    copied.flat.add_(1.0)
    for ours, theirs in zip(flow.parameters(), copied.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours + 1)
    assert all(parameter.grad is None for parameter in copied.parameters())


def test_a_state_can_be_loaded():
    one, other = (build_flow(FlowConfig(layers=2, hidden=4), 5, seed) for seed in (1, 2))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.flat, other.flat)
    assert other.flat.data_ptr() == next(other.parameters()).data_ptr()


@pytest.mark.parametrize("family", ["realnvp", "fullrank", "meanfield"])
@pytest.mark.parametrize("base", ["student-t", "gaussian"])
def test_in_one_dimension_the_density_integrates_to_one(family, base):
    config = FlowConfig(family=family, layers=5, base=base)
    flow = random_flow(config, 1, seed=4, spread=0.2)
    # z = sinh(t) covers the tails with an even grid in t, beyond where LOFT's inverse overflows.
    t = torch.linspace(-30, 30, 400_001, dtype=torch.float64)
    density = (flow.log_prob(torch.sinh(t)[:, None]).exp() * torch.cosh(t)).detach().numpy()
    assert np.trapezoid(density, t.numpy()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_an_untrained_flow_is_its_base(dim):
    flow = build_flow(FlowConfig(layers=4), dim, seed=1).double()
    z = torch.randn(20, dim, dtype=torch.float64)
    torch.testing.assert_close(flow.log_prob(z), flow.base.log_prob(z))


def test_the_seed_makes_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.randn(1)
    torch.manual_seed(0)
    one, again, other = (build_flow(FlowConfig(), 4, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.randn(1), expected)
    first = [flow.state_dict()["layers.0.conditioner.input_weight"] for flow in (one, again, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_couplings_take_turns_so_that_every_coordinate_moves():
    for dim in (2, 5):
        flow = random_flow(FlowConfig(layers=2, loft_tau=50.0), dim, seed=1, wired=False)
        e = torch.randn(1, dim, dtype=torch.float64)
        x = e
        for layer in flow.bijections[:2]:
            x, _ = layer(x)
        assert (x != e).all()


def test_the_configuration_reaches_the_layers():
    config = FlowConfig(
        layers=3,
        hidden=11,
        clamp_positive=0.3,
        clamp_negative=1.7,
        loft_tau=42.0,
        base_location_scale=True,
        local_features=7,
        marginal_layers=0,
    )
    wiring = Wiring(4, [[0, 1]] * 3, [[[2], [3]]] * 3)
    first, *couplings, loft, _ = build_flow(config, 4, 1, wiring).bijections
    assert isinstance(first, ShiftScale)
    assert len(couplings) == 3
    assert couplings[0].conditioner.output_weight.shape == (2, 2, 11)
    assert couplings[0].local.weight.shape == (2, 2, 1, 7)
    assert couplings[0].clamp == SoftClamp(positive=0.3, negative=1.7)
    assert loft.tau == 42.0
    without = build_flow(FlowConfig(layers=3, loft_tau=None), 4, 1).bijections
    assert not any(isinstance(layer, Loft) for layer in without)


@pytest.mark.parametrize(
    ("layers", "marginal_layers", "after"),
    [(8, 4, [2, 4, 6, 8]), (5, 2, [2, 5]), (3, 1, [3]), (2, 4, [1, 2]), (3, 0, [])],
)
def test_sinh_arcsinh_layers_are_spread_among_the_couplings(layers, marginal_layers, after):
    """The last one comes after them all."""
    config = FlowConfig(layers=layers, hidden=4, marginal_layers=marginal_layers, loft_tau=None)
    *among, _ = build_flow(config, 4, 1).bijections
    couplings, seen = 0, []
    for layer in among:
        couplings += isinstance(layer, AffineCoupling)
        if isinstance(layer, SinhArcsinh):
            seen.append(couplings)
    assert (couplings, sorted(set(seen))) == (layers, after)


def test_one_dimension_takes_sinh_arcsinh_layers_in_place_of_couplings():
    assert isinstance(build_flow(FlowConfig(layers=3), 1, 1).bijections[0], SinhArcsinh)
    assert isinstance(build_flow(FlowConfig(layers=3), 2, 1).bijections[0], AffineCoupling)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "planar"}, "no family 'planar'; choose realnvp or fullrank or meanfield"),
        ({"base": "cauchy"}, "no base 'cauchy'"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"hidden": -1}, "hidden must be at least 1"),
        ({"loft_tau": 0.0}, "loft_tau must be positive"),
        ({"clamp_positive": float("nan")}, "clamp_positive must be positive"),
        ({"clamp_negative": float("inf")}, "clamp_negative must be positive and finite"),
        ({"clamp": "hard"}, "no clamp 'hard'; choose asymmetric or symmetric or tanh or none"),
        ({"partners": 17}, "partners must be at least 0 and at most 16"),
        ({"marginal_layers": -1}, "marginal_layers must be at least 0"),
        ({"wiring": "random"}, "no wiring 'random'; choose curvature or even-odd"),
    ],
)
def test_values_out_of_range_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        FlowConfig(**change)
