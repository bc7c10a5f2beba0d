import numpy as np
import pytest
import torch
from scipy import stats

from stanflow.flow.base import Gaussian, StudentT


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def student_t(degrees):
    base = StudentT(len(degrees)).double()
    with torch.no_grad():
        base.log_degrees_minus_one.copy_(torch.log(torch.tensor(degrees) - 1))
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


def test_the_score_is_the_gradient_of_the_log_density(base_and_truth):
    base, _ = base_and_truth
    e = base.sample(100, generator()).detach().requires_grad_()
    (expected,) = torch.autograd.grad(base.log_prob(e).sum(), e)
    torch.testing.assert_close(base.score(e.detach()), expected)


def test_degrees_of_freedom_start_at_thirty():
    torch.testing.assert_close(StudentT(2).degrees_of_freedom, torch.full((2,), 30.0))


def test_samples_follow_their_precision():
    for base in (Gaussian(2), StudentT(2)):
        assert base.sample(1, generator()).dtype == torch.float32
        assert base.double().sample(1, generator()).dtype == torch.float64


@pytest.mark.parametrize("nu", [1.5, 3.0, 12.0])
def test_the_degrees_of_freedom_move_samples_as_the_quantile_function_does(nu):
    """d e / d nu at a fixed chi-squared level, by differences of scipy's quantiles.

    With e = normal * sqrt(nu / chi2) and chi2 = F_nu^{-1}(level), the derivative at fixed normal
    and level is what implicit reparameterisation gives.
    """
    base = student_t([nu] * 400)
    e = base.sample(1, generator(3))
    (total,) = torch.autograd.grad(e.sum(), base.log_degrees_minus_one)
    computed = total.numpy() / (nu - 1)  # d nu / d log(nu - 1) = nu - 1

    again = generator(3)
    normal = torch.randn(1, 400, generator=again, dtype=torch.float64).numpy()[0]
    chi2 = nu * (normal / e.detach().numpy()[0]) ** 2
    level, h = stats.chi2.cdf(chi2, nu), 1e-4
    up, down = (normal * np.sqrt((nu + s) / stats.chi2.ppf(level, nu + s)) for s in (h, -h))
    quotient = (up - down) / (2 * h)
    usable = (level > 1e-6) & (level < 1 - 1e-6)
    # torch approximates the derivative of the gamma quantile to about three digits.
    np.testing.assert_allclose(computed[usable], quotient[usable], rtol=5e-3, atol=1e-4)
