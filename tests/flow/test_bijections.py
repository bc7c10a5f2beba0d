"""Every bijection: inverse, log-determinant and score, against automatic differentiation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import softsign

from stanflow.flow.affine import FixedAffine, LowerTriangular, ShiftScale
from stanflow.flow.clamp import NoClamp, SoftClamp, TanhClamp, make_clamp
from stanflow.flow.config import FlowConfig
from stanflow.flow.coupling import AffineCoupling
from stanflow.flow.loft import Loft
from stanflow.flow.noncentering import NonCentering
from stanflow.flow.sinh_arcsinh import SinhArcsinh
from stanflow.flow.wiring import Wiring

CLAMP = SoftClamp()


def coupling(dim, moved, partners=None, **settings):
    wiring = Wiring(dim, [moved], None if partners is None else [partners])
    return AffineCoupling(wiring.halves[0], FlowConfig(hidden=5, **settings))


def with_partners(dim):
    return coupling(dim, [1], [[0, -1 if dim == 2 else 2]], local_features=3)


def fixed_affine(dim):
    factor = torch.randn(dim, dim, dtype=torch.float64).tril(-1) + torch.diag(torch.rand(dim) + 0.2)
    return FixedAffine(torch.randn(dim, dtype=torch.float64), factor)


def noncentering(dim):
    """All but the first coordinate hang on those before them, one by one."""
    moved = torch.arange(1, dim)
    parents = torch.stack([moved - 1, torch.zeros_like(moved)], 1)
    weights, others = torch.randn(2, dim - 1, 2) / 10
    return NonCentering(
        moved=moved,
        parents=parents,
        scale_weights=weights,
        location_weights=others,
        log_scale=torch.randn(dim - 1) / 3,
        location=torch.randn(dim - 1),
    )


BIJECTIONS = {
    "coupling": lambda dim: coupling(max(dim, 2), range(1, max(dim, 2), 2)),
    "coupling with partners": lambda dim: with_partners(max(dim, 2)),
    "LOFT": lambda dim: Loft(tau=1.5),
    "shift-scale": ShiftScale,
    "lower-triangular": LowerTriangular,
    "fixed affine": fixed_affine,
    "non-centering": lambda dim: noncentering(max(dim, 2)),
    "sinh-arcsinh": lambda dim: SinhArcsinh(dim, CLAMP),
}

bijection_names = st.sampled_from(sorted(BIJECTIONS))
dims = st.integers(1, 7)
seeds = st.integers(0, 10_000)


def make(name, dim, seed, spread=2.0):
    """A bijection with random parameters, and points; some far out."""
    torch.manual_seed(seed)
    bijection = BIJECTIONS[name](dim).double()
    with torch.no_grad():
        for parameter in bijection.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    size = max(dim, 2) if name.startswith(("coupling", "non-centering")) else dim
    x = spread * torch.randn(6, size, dtype=torch.float64)
    return bijection, x


def jacobian(bijection, x):
    return torch.func.vmap(torch.func.jacrev(lambda row: bijection(row[None])[0][0]))(x)


@given(bijection_names, dims, seeds)
def test_the_inverse_undoes_the_forward_map(name, dim, seed):
    bijection, x = make(name, dim, seed)
    y, log_det = bijection(x)
    back, log_det_back = bijection.inverse(y)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det_back, log_det, rtol=1e-9, atol=1e-9)


@given(bijection_names, dims, seeds)
def test_the_log_determinant_is_that_of_the_jacobian(name, dim, seed):
    bijection, x = make(name, dim, seed)
    _, expected = torch.linalg.slogdet(jacobian(bijection, x))
    torch.testing.assert_close(bijection(x)[1], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(set(BIJECTIONS) - {"fixed affine", "non-centering"}))
def test_it_starts_as_the_identity(name):
    bijection = BIJECTIONS[name](4).double()
    x = torch.linspace(-1.4, 1.4, 12, dtype=torch.float64).reshape(3, 4)
    y, log_det = bijection(x)
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_det, torch.zeros(3, dtype=torch.float64))


def test_couplings_keep_one_half():
    bijection = coupling(5, [3, 0], [[1], [4]]).double()
    with torch.no_grad():
        for parameter in bijection.parameters():
            parameter.normal_()
    x = torch.randn(3, 5, dtype=torch.float64)
    y, _ = bijection(x)
    assert torch.equal(x[:, [1, 2, 4]], y[:, [1, 2, 4]])
    assert (x[:, [0, 3]] != y[:, [0, 3]]).all()


def test_a_partner_alone_moves_its_coordinate():
    """The local conditioner of coordinate 0 sees 4, and that of 3 sees 1."""
    bijection = coupling(5, [3, 0], [[1], [4]]).double()
    with torch.no_grad():
        bijection.local.linear.normal_()
        bijection.local.weight.normal_()
    derivative = jacobian(bijection, torch.randn(1, 5, dtype=torch.float64))[0]
    assert torch.equal(
        derivative.nonzero().T, torch.tensor([[0, 0, 1, 2, 3, 3, 4], [0, 4, 1, 2, 1, 3, 4]])
    )


def test_the_local_conditioner_is_the_formula():
    local = coupling(3, [0], [[2, 1]], local_features=2).local.double()
    with torch.no_grad():
        for parameter in local.parameters():
            parameter.normal_()
    kept = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    for which in (0, 1):
        w, v = local.linear[which, 0], local.weight[which, 0]
        g, h = local.inner[0, 0], local.inner[1, 0]
        x = kept[0, [1, 0]]
        expected = sum(
            w[k] * x[k] + sum(v[k, m] * softsign(g[k, m] * x[k] + h[k, m]) for m in (0, 1))
            for k in (0, 1)
        )
        torch.testing.assert_close(local(kept)[which, 0, 0], expected)


def test_loft_is_the_formula():
    x = torch.tensor([[-1e9, -101.0, -100.0, 0.0, 3.0, 100.0, 1e5]], dtype=torch.float64)
    y, log_det = Loft(100.0)(x)
    outside = (x.abs() - 100).clamp(min=0)
    torch.testing.assert_close(y, x.sign() * ((outside + 1).log() + x.abs().clamp(max=100)))
    torch.testing.assert_close(log_det, -(outside + 1).log().sum(1))


@given(
    st.floats(-1e6, 1e6),
    st.floats(0.01, 5),
    st.floats(0.01, 5),
    st.sampled_from([SoftClamp, TanhClamp]),
)
def test_clamps_are_bounded_monotone_and_differentiable(value, positive, negative, kind):
    clamp = kind(positive, negative)
    u = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    s = clamp(u)
    assert -negative <= s.item() <= positive
    (slope,) = torch.autograd.grad(s, u)
    torch.testing.assert_close(clamp.derivative(u.detach()), slope)
    assert 0 <= slope.item() <= 1
    alpha = positive if value >= 0 else negative
    expected = (
        2 / math.pi * alpha * math.atan(value / alpha)
        if kind is SoftClamp
        else alpha * math.tanh(value / alpha)
    )
    assert s.item() == pytest.approx(expected, rel=1e-12)


def test_no_clamp_is_none():
    u = torch.tensor([-5.0, 7.0])
    assert torch.equal(NoClamp()(u), u)
    assert torch.equal(NoClamp().derivative(u), torch.ones(2))


def test_the_symmetric_clamp_has_one_threshold():
    assert make_clamp("symmetric", 0.3, 2.0) == SoftClamp(0.3, 0.3)
    assert make_clamp("asymmetric", 0.3, 2.0) == SoftClamp(0.3, 2.0)
    assert make_clamp("tanh", 0.3, 2.0) == TanhClamp(0.3, 2.0)
    assert make_clamp("none", 0.3, 2.0) == NoClamp(0.3, 2.0)
