import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stanflow.errors import UsageError
from stanflow.flow.clamp import AsymmetricSoftClamp
from stanflow.flow.config import FlowConfig
from stanflow.flow.coupling import AffineCoupling
from stanflow.flow.realnvp import build_flow
from stanflow.flow.sinh_arcsinh import SinhArcsinh

configs = st.builds(
    FlowConfig,
    family=st.sampled_from(["realnvp", "fullrank", "meanfield"]),
    layers=st.integers(1, 6),
    hidden=st.integers(1, 9),
    base=st.sampled_from(["student-t", "gaussian"]),
    clamp_positive=st.floats(0.05, 1),
    clamp_negative=st.floats(0.1, 3),
    loft_tau=st.floats(0.5, 100),
)
dims = st.integers(1, 6)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def random_flow(config, dim, seed, spread=0.3):
    flow = build_flow(config, dim, seed).double()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return flow


@settings(max_examples=60)
@given(configs, dims, st.integers(0, 1000))
def test_the_score_carried_forward_is_that_of_the_inverse_pass(config, dim, seed):
    flow = random_flow(config, dim, seed)
    z, log_q, score = flow.sample_with_score(8, generator(seed))
    points = z.detach().requires_grad_()
    log_prob = flow.log_prob(points)
    (expected,) = torch.autograd.grad(log_prob.sum(), points)
    torch.testing.assert_close(log_q, log_prob.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(score, expected, rtol=1e-8, atol=1e-8)


@settings(max_examples=30)
@given(configs, dims, st.integers(0, 1000))
def test_samples_are_the_same_with_and_without_score(config, dim, seed):
    flow = random_flow(config, dim, seed)
    z, log_q = flow.sample(8, generator(seed))
    again, log_q_again, _ = flow.sample_with_score(8, generator(seed))
    torch.testing.assert_close((z, log_q), (again, log_q_again), rtol=1e-12, atol=1e-12)


@settings(max_examples=30)
@given(configs, dims, st.integers(0, 1000))
def test_inverting_gives_the_base_points_back(config, dim, seed):
    flow = random_flow(config, dim, seed)
    e = flow.base.sample(8, generator(seed)).detach()
    z, _ = flow.sample(8, generator(seed))
    torch.testing.assert_close(flow.inverse(z.detach())[0], e, rtol=1e-8, atol=1e-8)


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
    first = [flow.state_dict()["layers.0.hidden.weight"] for flow in (one, again, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_couplings_take_turns_so_that_every_coordinate_moves():
    for dim in (2, 5):
        flow = random_flow(FlowConfig(layers=2, loft_tau=50.0), dim, seed=1)
        e = torch.randn(1, dim, dtype=torch.float64)
        x = e
        for layer in flow.bijections[:2]:
            x, _ = layer(x)
        assert (x != e).all()


def test_the_configuration_reaches_the_layers():
    config = FlowConfig(layers=3, hidden=11, clamp_positive=0.3, clamp_negative=1.7, loft_tau=42.0)
    *couplings, loft, _ = build_flow(config, 4, 1).bijections
    assert len(couplings) == 3
    assert couplings[0].raw_scale.in_features == 11
    assert couplings[0]._clamp == AsymmetricSoftClamp(positive=0.3, negative=1.7)
    assert loft.tau == 42.0


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
    ],
)
def test_values_out_of_range_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        FlowConfig(**change)
