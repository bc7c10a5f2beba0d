"""NUTS against densities known in closed form, and Stan's bookkeeping."""

import math

import numpy as np
import pytest
from scipy import stats

from stanflow.sampling.nuts import _window_ends, sample
from stanflow.stan.density import Density, DensityBatch
from stanflow.statistics.markov_chains import mcse_mean, rhat
from tests.training.targets import GaussianTarget, HalfGaussian, StudentTTarget

MCSES = 4.5
CORRELATED = GaussianTarget([3.0, -1.0, 0.5], [[4.0, 1.2, 0], [1.2, 1.0, 0.2], [0, 0.2, 0.5]])
NAMES = ("lp", "acceptance", "step", "treedepth", "leapfrogs", "divergent", "energy")


class Separate(Density):
    """A sum of terms of one coordinate each, so that rows of a batch do not touch each other."""

    def __init__(self, dim, log_density, gradient):
        self.dim = dim
        self._terms = log_density, gradient

    dim = 0

    def log_density_gradient(self, z):
        log_density, gradient = (term(z) for term in self._terms)
        return DensityBatch(log_density.sum(axis=1), gradient, np.ones(len(z), bool))


class Banana(Density):
    """``x ~ N(0, 1)``, ``y ~ N(x^2, 0.5)``: E y = 1, var y = 2.25."""

    dim = 2

    def log_density_gradient(self, z):
        x, y = z.T
        off = 4 * (y - x**2)
        gradient = np.column_stack([-x + 2 * x * off, -off])
        return DensityBatch(-0.5 * x**2 - off**2 / 8, gradient, np.ones(len(z), bool))


def normal(dim):
    return Separate(dim, lambda z: -0.5 * z**2, lambda z: -z)


def run(density, *, chains=4, seed=1, **settings):
    """Positions and statistics, by name, after warmup; and what the whole run was."""
    settings = {"warmup": 500, "draws": 1000, **settings}
    starts = np.random.default_rng(seed).uniform(0.2, 1, size=(chains, density.dim))
    whole = sample(density, starts, seed=seed, **settings)
    after = slice(settings["warmup"], None)
    statistics = np.moveaxis(whole.statistics[:, after], 2, 0)
    return whole.positions[:, after], dict(zip(NAMES, statistics, strict=True)), whole


def assert_mean(draws, expected, mcses=MCSES):
    """Draws of shape (chains, draws) against a true mean, within Monte Carlo error."""
    assert abs(draws.mean() - expected) < mcses * mcse_mean(draws)


@pytest.fixture(scope="module")
def of_normal():
    return run(CORRELATED, draws=1000, warmup=200)


def test_a_correlated_normal_has_its_moments(of_normal):
    z, statistics, _ = of_normal
    centred = z - CORRELATED.mean
    for i in range(3):
        assert_mean(z[..., i], CORRELATED.mean[i])
        for j in range(i + 1):
            assert_mean(centred[..., i] * centred[..., j], CORRELATED.covariance[i, j])
        assert rhat(z[..., i]) < 1.01
    np.testing.assert_allclose(
        statistics["lp"].ravel(), CORRELATED.log_density(z.reshape(-1, 3)), atol=1e-12
    )
    assert statistics["divergent"].sum() == 0


def test_energies_have_their_distribution(of_normal):
    # Kinetic and potential energy of D normals are half a chi-squared variable of 2 D degrees.
    _, statistics, _ = of_normal
    assert_mean(statistics["energy"], 3)
    thinned = 2 * statistics["energy"][:, ::10].ravel()
    assert stats.kstest(thinned, stats.chi2(6).cdf).pvalue > 1e-4


def test_heavy_tails_have_their_quantiles():
    target = StudentTTarget([1.0, -3.0], [2.0, 0.5], 4.0)
    z, _, _ = run(target, warmup=300)
    for i in range(2):
        truth = stats.t(4, target.location[i], target.scale[i])
        for probability in (0.02, 0.25, 0.5, 0.9, 0.98):
            assert_mean((z[..., i] < truth.ppf(probability)).astype(float), probability)


def test_a_banana_has_its_moments():
    z, statistics, _ = run(Banana(), warmup=300, adapt_delta=0.95)
    x, y = np.moveaxis(z, 2, 0)
    for draws, expected in ((x, 0), (x**2, 1), (y, 1), ((y - 1) ** 2, 2.25), (x * y, 0)):
        assert_mean(draws, expected)
    assert statistics["divergent"].mean() < 0.02


@pytest.mark.parametrize("max_treedepth", [1, 2])
def test_few_long_steps_keep_the_distribution(max_treedepth):
    # Where a trajectory's weights differ most, what is drawn from it by them matters most.
    z, statistics, _ = run(
        normal(3), adapt_delta=0.4, max_treedepth=max_treedepth, warmup=200, draws=2000
    )
    assert statistics["acceptance"].mean() < 0.65
    for i in range(3):
        assert_mean(z[..., i] ** 2, 1)
        assert_mean((np.abs(z[..., i]) < 1).astype(float), 0.6826895)


@pytest.mark.parametrize("target", [0.6, 0.9])
def test_the_acceptance_goes_to_its_target(target):
    _, statistics, _ = run(normal(50), chains=2, adapt_delta=target, warmup=300, draws=300)
    # Stan's dual averaging ends a little above its target.
    assert target - 0.05 < statistics["acceptance"].mean() < target + 0.15


def test_leapfrog_steps_are_the_evaluations():
    target = GaussianTarget(CORRELATED.mean, CORRELATED.covariance)
    _, _, whole = run(target, warmup=10, draws=200)  # so short, no step size is looked for
    leapfrogs = whole.statistics[..., NAMES.index("leapfrogs")]
    assert target.evaluations == leapfrogs.sum() + 4
    _, _, whole = run(target, warmup=160, draws=20)
    starts = 4 * (1 + 2 * 30)  # two step sizes looked for
    counted = whole.statistics[..., NAMES.index("leapfrogs")].sum()
    assert counted < target.evaluations - leapfrogs.sum() - 4 < counted + starts


def test_trajectories_turn_after_half_a_period():
    # A standard normal's flow turns after pi; the tree has between half and twice as much.
    _, statistics, _ = run(normal(100), chains=2, warmup=300, draws=300)
    full = statistics["leapfrogs"] == 2 ** statistics["treedepth"] - 1
    length = statistics["leapfrogs"] * statistics["step"]
    assert full.mean() > 0.75
    assert 0.5 * math.pi < np.quantile(length, 0.05)
    assert np.quantile(length, 0.95) < 2 * math.pi + 1


def test_trajectories_do_not_come_round_in_a_whole_period():
    # A step turns these normals by 50 degrees. The ends of eight points in a row, 350 degrees
    # apart, look as if there had been no turn; five points in a row, of both halves, tell.
    sd = 0.5 / math.sin(math.radians(25))
    wide = Separate(500, lambda z: -0.5 * (z / sd) ** 2, lambda z: -z / sd**2)
    starts = sd * np.random.default_rng(1).normal(size=(4, 500))
    whole = sample(wide, starts, seed=1, warmup=1, draws=60, max_treedepth=6)
    assert (whole.statistics[..., NAMES.index("step")] == 1).all()
    assert (whole.statistics[..., NAMES.index("treedepth")] <= 3).mean() > 0.95


def test_treedepth_has_its_limit():
    _, statistics, _ = run(CORRELATED, max_treedepth=2, warmup=50, draws=50)
    assert statistics["treedepth"].max() == 2
    assert statistics["leapfrogs"].max() == 3


def test_scales_are_learnt():
    scales = np.array([0.03, 1.0, 3.0])
    target = GaussianTarget(np.zeros(3), np.diag(scales**2))
    z, statistics, _ = run(target, warmup=200, draws=500, max_treedepth=5)
    assert statistics["leapfrogs"].mean() < 12
    for i, scale in enumerate(scales):
        assert_mean((z[..., i] / scale) ** 2, 1)
    short = run(target, warmup=149, draws=20, chains=1, max_treedepth=5)[1]
    assert short["leapfrogs"].mean() > 25  # the metric is the identity still


@pytest.mark.parametrize(
    ("warmup", "ends"),
    [
        (1000, [100, 150, 250, 450, 950]),
        (300, [100, 150, 250]),
        (160, [100, 110]),
        (150, [100]),
        (149, []),
    ],
)
def test_windows_are_stans(warmup, ends):
    assert _window_ends(warmup) == ends


def test_a_wall_is_a_divergence():
    target = HalfGaussian([1.0, 0.0], np.eye(2))
    z, statistics, _ = run(target, warmup=200)
    assert (z[..., 0] > 0).all()
    assert statistics["divergent"].mean() > 0.05
    assert np.isfinite(statistics["energy"]).all()
    truth = stats.truncnorm(-1, np.inf, 1, 1)
    assert_mean(z[..., 0], truth.mean())
    assert_mean(z[..., 0] ** 2, truth.moment(2))


def test_positions_beyond_all_bounds_are_divergences():
    target = Separate(2, lambda z: -(z**4), lambda z: -4 * z**3)
    starts = np.full((2, 2), 1e3)  # where a step of size 1 leaps to 10^9, and then to infinity
    whole = sample(target, starts, seed=1, warmup=1, draws=20)
    assert whole.statistics[..., NAMES.index("divergent")].all()
    np.testing.assert_array_equal(whole.positions, np.full((2, 21, 2), 1e3))


def test_the_seed_decides_and_chains_do_not_touch_each_other():
    settings = {"seed": 7, "warmup": 200, "draws": 100}
    starts = np.random.default_rng(1).normal(size=(5, 3))
    five = sample(normal(3), starts, **settings)
    two = sample(normal(3), starts[:2], **settings)
    np.testing.assert_array_equal(five.positions[:2], two.positions)
    np.testing.assert_array_equal(five.statistics[:2], two.statistics)
    other = sample(normal(3), starts, **{**settings, "seed": 8})
    assert not (five.positions[:, -1] == other.positions[:, -1]).any()
    assert not (five.positions[0, -1] == five.positions[1, -1]).any()


def test_progress_is_told_of_every_iteration():
    told = []
    sample(normal(1), np.zeros((2, 1)), seed=1, warmup=5, draws=5, told=lambda *x: told.append(x))
    assert sorted(told) == [(chain, i) for chain in (1, 2) for i in range(1, 11)]
