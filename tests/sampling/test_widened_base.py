"""The widened base: normalised, its gradient, and its draws."""

import numpy as np
import pytest
import torch
from scipy import stats

from stanflow.flow.base import Gaussian, StudentT
from stanflow.flow.mixture_base import MixtureBase
from stanflow.sampling.widened_base import WidenedBase


def mixture(dim):
    centres = torch.tensor([[-4.0], [3.0]]).expand(2, dim).clone()
    return MixtureBase(StudentT(dim), centres, torch.tensor([0.3, 0.7]).log())


BASES = (Gaussian, StudentT, mixture)


@pytest.mark.parametrize("base", BASES)
def test_it_integrates_to_one(base):
    """On a grid of quantiles of the Cauchy distribution, where its tails are flat."""
    n = 1001
    u = (np.arange(n) + 0.5) / n
    x = stats.cauchy.ppf(u)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    log_density = WidenedBase(base(2).double()).log_density_gradient(grid).log_density
    ratio = np.exp(log_density - stats.cauchy.logpdf(grid).sum(axis=1))
    assert ratio.mean() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("base", BASES)
def test_the_gradient_is_that_of_finite_differences(base):
    wide = WidenedBase(base(3).double())
    e = np.random.default_rng(1).normal(size=(5, 3)) * 3
    step = 1e-5
    for i, direction in enumerate(np.eye(3)):
        ends = (wide.log_density(e + sign * step * direction) for sign in (1, -1))
        slope = np.subtract(*ends) / (2 * step)
        np.testing.assert_allclose(slope, wide.log_density_gradient(e).gradient[:, i], atol=1e-7)


def test_draws_have_its_density():
    """A coordinate is Cauchy with probability 1 / (2 D), else of the base."""
    e = WidenedBase(Gaussian(4).double()).sample(20_000, torch.Generator().manual_seed(1))
    share = 1 / 8

    def cdf(x):
        return share * stats.cauchy.cdf(x) + (1 - share) * stats.norm.cdf(x)

    assert stats.kstest(e[:, 2], cdf).pvalue > 1e-3


def test_draws_of_a_mixture_have_a_heavy_tail_around_each_centre():
    e = WidenedBase(mixture(4).double()).sample(20_000, torch.Generator().manual_seed(1))

    def cdf(x):
        parts = [0.125 * stats.cauchy.cdf(x - c) + 0.875 * stats.t.cdf(x - c, 30) for c in (-4, 3)]
        return 0.3 * parts[0] + 0.7 * parts[1]

    assert stats.kstest(e[:, 2], cdf).pvalue > 1e-3


def test_no_weight_of_the_base_is_above_two():
    wide, base = WidenedBase(StudentT(50).double()), StudentT(50).double()
    e = base.sample(1000, torch.Generator().manual_seed(1)).detach()
    ratio = base.log_prob(e).detach().numpy() - wide.log_density(e.numpy())
    assert ratio.max() <= np.log(2) + 1e-9
