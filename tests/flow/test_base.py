import numpy as np
import pytest
import torch
from scipy import stats

from stanflow.flow.base import Gaussian, StudentT
from stanflow.flow.workspace import Workspace


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def student_t(degrees):
    base = StudentT(len(degrees)).double()
    with torch.no_grad():
        base.log_degrees_minus_one.copy_(torch.log(torch.tensor(degrees, dtype=torch.float64) - 1))
    return base


BASES = {
    "gaussian": (lambda: Gaussian(3).double(), [stats.norm()] * 3),
    "student-t": (
        lambda: student_t([1.5, 4.0, 40.0]),
        [stats.t(1.5), stats.t(4.0), stats.t(40.0)],
    ),
}


@pytest.fixture(params=sorted(BASES))
def base_and_truth(request):
    make, truth = BASES[request.param]
    return make(), truth


def test_the_log_density_is_scipys(base_and_truth):
    base, truth = base_and_truth
    e = np.random.default_rng(0).standard_cauchy((50, 3))
    expected = sum(t.logpdf(e[:, i]) for i, t in enumerate(truth))
    computed = base.log_prob(torch.from_numpy(e)).detach().numpy()
    np.testing.assert_allclose(computed, expected, rtol=1e-7)


def test_samples_follow_the_distribution(base_and_truth):
    base, truth = base_and_truth
    e = base.sample(20_000, generator()).detach().numpy()
    for i, t in enumerate(truth):
        assert stats.kstest(e[:, i], t.cdf).pvalue > 1e-3
    correlation = stats.spearmanr(e).statistic
    assert np.abs(correlation - np.eye(3)).max() < 4 / np.sqrt(20_000)


def test_samples_follow_the_seed(base_and_truth):
    base, _ = base_and_truth
    assert torch.equal(base.sample(5, generator(1)), base.sample(5, generator(1)))
    assert not torch.equal(base.sample(5, generator(1)), base.sample(5, generator(2)))


def test_degrees_of_freedom_start_at_thirty():
    torch.testing.assert_close(StudentT(2).degrees_of_freedom, torch.full((2,), 30.0))


@pytest.mark.parametrize("nu", [1.5, 30.0, 1e4, 1e6])
def test_log_densities_are_right_in_float32(nu):
    base = StudentT(50)
    with torch.no_grad():
        base.log_degrees_minus_one.fill_(np.log(nu - 1))
    e = torch.empty(50, 4)
    log_q = torch.empty(4, dtype=torch.float64)
    with torch.no_grad():
        base.passes(Workspace(4, e)).draw(e, None, log_q, generator(1))
    exact = stats.t(nu).logpdf(e.double().numpy()).sum(0)
    np.testing.assert_allclose(log_q.numpy(), exact, rtol=1e-5)
    np.testing.assert_allclose(base.log_prob(e.T).detach().numpy(), exact, rtol=1e-5)


def test_far_out_log_densities_do_not_overflow():
    log_prob = StudentT(1).log_prob(torch.tensor([[1e30]]))
    assert log_prob.item() == pytest.approx(stats.t(30.0).logpdf(1e30), rel=1e-4)


def test_samples_follow_their_precision():
    for base in (Gaussian(2), StudentT(2)):
        assert base.sample(1, generator()).dtype == torch.float32
        assert base.double().sample(1, generator()).dtype == torch.float64


@pytest.mark.parametrize("nu", [1.01, 1.5, 3.0, 30.0, 1e4])
@pytest.mark.parametrize("n", [1, 500])
def test_the_degrees_of_freedom_move_samples_as_differences_do(nu, n):
    """The total derivative through the sample, hand-derived, by finite differences of samples."""
    cotangent = torch.randn(40, n, generator=generator(9), dtype=torch.float64)
    h = 1e-5 * (nu - 1)

    def loss(degrees):
        e = student_t([degrees] * 40).sample(n, generator(3)).T
        return (e * cotangent).sum(1).detach()

    quotient = (loss(nu + h) - loss(nu - h)) / (2 * h)
    base = student_t([nu] * 40)
    base.log_degrees_minus_one.grad = torch.zeros(40, dtype=torch.float64)
    passes = base.passes(Workspace(n, cotangent))
    e = torch.empty_like(cotangent)
    log_q = torch.empty(n, dtype=torch.float64)
    with torch.no_grad():
        passes.draw(e, None, log_q, generator(3))
        passes.pull(e, cotangent.clone(), None)
    computed = base.log_degrees_minus_one.grad / (nu - 1)  # d nu / d log(nu - 1) = nu - 1
    torch.testing.assert_close(computed, quotient, rtol=1e-6, atol=1e-7 * float(e.abs().max()) / nu)
    torch.testing.assert_close(e.T, base.sample(n, generator(3)))


def test_the_total_derivative_moves_an_expectation_as_it_should():
    """d E[log(1 + e^2)] / d nu, from samples, against quadrature."""
    nu, n = 3.0, 200_000

    def expectation(degrees):
        t = np.linspace(-15, 15, 200_001)  # e = sinh(t)
        e = np.sinh(t)
        return np.trapezoid(np.log1p(e**2) * stats.t(degrees).pdf(e) * np.cosh(t), t)

    exact = (expectation(nu + 1e-3) - expectation(nu - 1e-3)) / 2e-3
    base = student_t([nu])
    e = base.sample(n, generator(4))
    torch.log1p(e.square()).mean().backward()
    estimate = base.log_degrees_minus_one.grad.item() / (nu - 1)
    w = np.log1p(e.detach().numpy() ** 2)
    # Each draw's derivative is at most of the order of its value over nu.
    assert estimate == pytest.approx(exact, abs=5 * w.std() / nu / np.sqrt(n))


def test_a_uniform_number_of_zero_does_no_harm():
    """Uniform generators give exactly 0 now and then; the exponential is then 0, too."""
    base = student_t([3.0]).float()
    base.log_degrees_minus_one.grad = torch.zeros(1)
    passes = base.passes(Workspace(1, torch.zeros(1)))
    e, score, log_q = torch.empty(1, 1), torch.empty(1, 1), torch.empty(1, dtype=torch.float64)

    class Zero:
        """Stands in for the generator: torch asks it for nothing that it gives."""

    uniform = torch.Tensor.uniform_
    try:
        torch.Tensor.uniform_ = lambda self, generator: self.zero_()
        with torch.no_grad():
            passes.draw(e, score, log_q, Zero())
            passes.pull(e, torch.ones(1, 1), None)
    finally:
        torch.Tensor.uniform_ = uniform
    assert torch.isfinite(e).all()
    assert torch.isfinite(score).all()
    assert torch.isfinite(base.log_degrees_minus_one.grad).all()
