"""Annealing between normal distributions, of which all is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from stanflow.sampling import annealing
from stanflow.sampling.annealing import Path
from stanflow.stan.density import Density, DensityBatch

DIM = 4


class Normal(Density):
    """``scale N(mean, sd^2 I)``, cut off where the first coordinate is above a limit."""

    def __init__(self, mean=0.0, sd=1.0, log_scale=0.0, limit=np.inf):
        self.mean, self.sd, self.log_scale, self.limit = mean, sd, log_scale, limit

    dim = DIM

    def log_density_gradient(self, z):
        accepted = z[:, 0] <= self.limit
        log_density = stats.norm.logpdf(z, self.mean, self.sd).sum(axis=1) + self.log_scale
        gradient = (self.mean - z) / self.sd**2
        return DensityBatch(np.where(accepted, log_density, np.nan), gradient, accepted)


def anneal(end, *, particles=1024, islands=8, seed=1, share=0.9, moves=2):
    rng = np.random.default_rng(seed)
    path = Path(Normal(), end)
    state = annealing.init(path, rng.standard_normal((particles, DIM)), islands)
    betas = []
    while state.beta < 1:
        state = annealing.heat(state, share)
        state = annealing.resample(state, rng, always=state.beta == 1)
        for _ in range(moves):
            state, info = annealing.move(state, path, rng)
        betas.append(state.beta)
    return state, betas, info


@pytest.mark.parametrize(
    ("end", "log_evidence"),
    [
        (Normal(log_scale=3.0), 3.0),
        (Normal(mean=4.0, sd=0.3, log_scale=-7.0), -7.0),
        (Normal(mean=0.5, limit=0.5), np.log(0.5)),
    ],
    ids=["where it starts", "far and narrow", "half of it refused"],
)
def test_the_evidence_is_exact_to_the_islands_error(end, log_evidence):
    z = [np.exp(anneal(end, seed=seed)[0].log_evidence - log_evidence) for seed in (1, 2, 3)]
    z = np.concatenate(z)
    error = z.std(ddof=1) / np.sqrt(len(z))
    assert error < 0.1
    assert z.mean() == pytest.approx(1, abs=4 * error + 1e-9)


def test_particles_come_to_the_end_of_the_path():
    state, betas, info = anneal(Normal(mean=4.0, sd=0.3))
    points = state.particles.points
    assert len(betas) > 5
    assert all(np.diff(betas) > 0)
    assert betas[-1] == 1
    np.testing.assert_allclose(points.mean(axis=0), 4, atol=4 * 0.3 / np.sqrt(300))
    np.testing.assert_allclose(points.std(axis=0), 0.3, rtol=0.2)
    assert info.acceptance == pytest.approx(0.8, abs=0.15)


def test_moves_leave_the_density_as_it_is():
    """From exact draws, after as many moves as it takes to forget them."""
    end = Normal(mean=-1.0, sd=2.0)
    rng = np.random.default_rng(1)
    path = Path(Normal(), end)
    n = 20_000
    start = -1 + 2 * rng.standard_normal((n, DIM))
    state = replace(annealing.init(path, start, 4), beta=1.0)
    for _ in range(20):
        state, _info = annealing.move(state, path, rng)
    points = state.particles.points
    assert abs(np.corrcoef(points[:, 0], start[:, 0])[0, 1]) < 0.5
    for i in range(DIM):
        assert stats.kstest((points[:, i] + 1) / 2, "norm").pvalue > 1e-4
    at = end.log_density_gradient(points)
    np.testing.assert_allclose(state.particles.log_end, at.log_density)
    np.testing.assert_allclose(state.particles.end_gradient, at.gradient)


def test_short_steps_keep_the_energy():
    end = Normal(mean=1.0, sd=0.5)
    rng = np.random.default_rng(1)
    path = Path(Normal(), end)
    state = annealing.init(path, 1 + 0.5 * rng.standard_normal((500, DIM)), 4)
    state = replace(state, beta=1.0, log_step=np.log(0.02))
    assert annealing.move(state, path, rng)[1].acceptance > 0.999


def test_the_next_inverse_temperature_keeps_the_share_asked_for():
    end = Normal(mean=2.0)
    rng = np.random.default_rng(1)
    state = annealing.init(Path(Normal(), end), rng.standard_normal((1000, DIM)), 4)
    hotter = annealing.heat(state, 0.9)
    w = np.exp(hotter.beta * state.particles.log_ratio)
    assert w.sum() ** 2 / (len(w) * (w**2).sum()) == pytest.approx(0.9, abs=1e-6)
    np.testing.assert_allclose(np.exp(hotter.log_weights).sum(axis=1), 1)
    own = np.log(w.reshape(4, -1).mean(axis=1))
    np.testing.assert_allclose(hotter.log_evidence, own)


def test_islands_choose_among_their_own_by_weight():
    rng = np.random.default_rng(1)
    path = Path(Normal(), Normal())
    state = annealing.init(path, rng.standard_normal((12, DIM)), 3)
    weights = rng.dirichlet(np.full(4, 0.3), size=3)
    state = replace(state, log_weights=np.log(weights))
    chosen = annealing.resample(state, rng, always=True)
    for island in range(3):
        own = slice(4 * island, 4 * island + 4)
        before, after = state.particles.points[own], chosen.particles.points[own]
        counts = np.array([(after == row).all(axis=1).sum() for row in before])
        assert counts.sum() == 4
        assert (np.abs(counts - 4 * weights[island]) < 1).all()
    np.testing.assert_allclose(chosen.log_weights, -np.log(4))


def test_what_the_program_refuses_weighs_nothing():
    end = Normal(limit=0.0)
    rng = np.random.default_rng(1)
    path = Path(Normal(), end)
    state = annealing.heat(annealing.init(path, rng.standard_normal((400, DIM)), 4), 0.4)
    refused = state.particles.points[:, 0] > 0
    assert (np.exp(state.log_weights).ravel()[refused] == 0).all()
    moved = annealing.resample(state, rng, always=True)
    for _ in range(5):
        moved, _info = annealing.move(moved, path, rng)
    assert (moved.particles.points[:, 0] <= 0).all()
