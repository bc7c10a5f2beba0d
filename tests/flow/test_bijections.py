"""Every bijection: inverse, log-determinant and score, against automatic differentiation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stanflow.flow.affine import LowerTriangular, ShiftScale
from stanflow.flow.clamp import AsymmetricSoftClamp
from stanflow.flow.coupling import AffineCoupling
from stanflow.flow.loft import Loft
from stanflow.flow.sinh_arcsinh import SinhArcsinh

CLAMP = AsymmetricSoftClamp()


def coupling(dim, *, moves_odd):
    return AffineCoupling(dim, moves_odd=moves_odd, hidden=5, clamp=CLAMP)


BIJECTIONS = {
    "coupling moving odd": lambda dim: coupling(max(dim, 2), moves_odd=True),
    "coupling moving even": lambda dim: coupling(max(dim, 2), moves_odd=False),
    "LOFT": lambda dim: Loft(tau=1.5),
    "shift-scale": ShiftScale,
    "lower-triangular": LowerTriangular,
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
    size = max(dim, 2) if "coupling" in name else dim
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


@given(bijection_names, dims, seeds)
def test_the_pushed_score_is_the_gradient_of_the_pushed_density(name, dim, seed):
    """The density of y = T(x), x ~ N(0, I), differentiated through the inverse."""
    bijection, x = make(name, dim, seed)
    y = bijection(x)[0].detach().requires_grad_()
    back, log_det = bijection.inverse(y)
    (expected,) = torch.autograd.grad((-0.5 * back.square().sum(1) - log_det).sum(), y)
    y_again, log_det_again, score = bijection.forward_with_score(x, -x)
    torch.testing.assert_close(score, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(score, bijection.push_score(x, -x), rtol=0, atol=0)
    torch.testing.assert_close((y_again, log_det_again), bijection(x), rtol=0, atol=0)
    assert not score.requires_grad


@pytest.mark.parametrize("name", sorted(BIJECTIONS))
def test_it_starts_as_the_identity(name):
    bijection = BIJECTIONS[name](4).double()
    x = torch.linspace(-1.4, 1.4, 12, dtype=torch.float64).reshape(3, 4)
    y, log_det = bijection(x)
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_det, torch.zeros(3, dtype=torch.float64))


def test_couplings_keep_one_half():
    for moves_odd, kept in ((True, slice(0, None, 2)), (False, slice(1, None, 2))):
        bijection, _ = make("coupling moving odd" if moves_odd else "coupling moving even", 5, 0)
        x = torch.randn(3, 5, dtype=torch.float64)
        y, _ = bijection(x)
        assert torch.equal(x[:, kept], y[:, kept])
        assert not torch.equal(x, y)


def test_one_coordinate_cannot_be_split():
    with pytest.raises(ValueError, match="at least two"):
        coupling(1, moves_odd=True)


def test_loft_is_the_formula():
    x = torch.tensor([[-1e9, -101.0, -100.0, 0.0, 3.0, 100.0, 1e5]], dtype=torch.float64)
    y, log_det = Loft(100.0)(x)
    outside = (x.abs() - 100).clamp(min=0)
    torch.testing.assert_close(y, x.sign() * ((outside + 1).log() + x.abs().clamp(max=100)))
    torch.testing.assert_close(log_det, -(outside + 1).log().sum(1))


@given(st.floats(-1e6, 1e6), st.floats(0.01, 5), st.floats(0.01, 5))
def test_the_clamp_is_bounded_monotone_and_differentiable(value, positive, negative):
    clamp = AsymmetricSoftClamp(positive, negative)
    u = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    s = clamp(u)
    assert -negative <= s.item() <= positive
    (slope,) = torch.autograd.grad(s, u)
    torch.testing.assert_close(clamp.derivative(u.detach()), slope)
    assert slope.item() >= 0
    torch.testing.assert_close(
        s.detach(),
        torch.tensor(
            [2 / torch.pi * (a := positive if value >= 0 else negative)
             * torch.atan(torch.tensor(value / a, dtype=torch.float64)).item()],
            dtype=torch.float64,
        ),
    )  # fmt: skip
