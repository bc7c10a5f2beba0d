"""Chains from elsewhere, and draws with heavier tails, against posteriors known exactly."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from stanflow.estimates.draws import draw
from stanflow.estimates.probe import probe
from stanflow.estimates.tails import check_tails
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.sampling.chains import Chains
from stanflow.stan.density import DensityBatch, Target

GAUSSIAN = FlowConfig(family="meanfield", base="gaussian")


class Mixture(Target):
    """Two normals with unit variances at -distance and +distance in every coordinate."""

    def __init__(self, dim, share, distance):
        self._dim, self.share, self.distance = dim, share, distance

    @property
    def dim(self):
        return self._dim

    def log_density_gradient(self, z):
        parts = np.stack(
            [
                math.log(share) - 0.5 * ((z - centre) ** 2).sum(axis=1)
                for share, centre in ((1 - self.share, -self.distance), (self.share, self.distance))
            ]
        )
        log_p = np.logaddexp(*parts) - 0.5 * self.dim * math.log(2 * math.pi)
        weights = np.exp(parts - np.logaddexp(*parts))
        gradient = -z + self.distance * (weights[1] - weights[0])[:, None]
        return DensityBatch(log_p, gradient, np.ones(len(z), dtype=bool))

    def starting_points(self, n, rng):
        return rng.uniform(-2, 2, size=(n, self.dim))


class HeavyTails(Mixture):
    """Independent Student-t coordinates with `nu` degrees of freedom."""

    def __init__(self, dim, nu):
        super().__init__(dim, 0.5, 0.0)
        self.nu = nu

    def log_density_gradient(self, z):
        gradient = -(self.nu + 1) * z / (self.nu + z**2)
        log_p = stats.t.logpdf(z, self.nu).sum(axis=1)
        return DensityBatch(log_p, gradient, np.ones(len(z), dtype=bool))


def flow_at(dim, centre, log_scale=0.0):
    flow = build_flow(GAUSSIAN, dim, 1).double()
    with torch.no_grad():
        flow.output.shift[:] = centre
        flow.output.log_scale[:] = log_scale
    return flow


def search(target, flow, log_evidence, seed=1):
    drawn = draw(flow, target, 2000, 2)
    return probe(flow, target, drawn, log_evidence, gradient_evaluations=20_000, seed=seed)


@pytest.mark.parametrize("dim", [1, 3, 30, 300])
def test_a_flow_that_is_the_posterior_has_nothing_missing(dim):
    found = search(Mixture(dim, 0.5, 0.0), flow_at(dim, 0.0), 0.0)
    assert (found.escaped, found.log_missing_mass) == (0, -math.inf)
    assert found.bridge.value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("dim", "share", "distance"), [(1, 0.5, 4), (3, 0.3, 4), (30, 0.5, 2), (100, 0.1, 1)]
)
def test_the_mass_of_a_missed_mode_is_found(dim, share, distance):
    """The flow is the mode at -distance, whose evidence is 1 - share."""
    log_evidence = math.log(1 - share)
    found = search(Mixture(dim, share, distance), flow_at(dim, -distance), log_evidence)
    assert 0 < found.escaped < found.chains
    assert found.log_missing_mass == pytest.approx(math.log(share) - log_evidence, abs=0.2)
    assert found.rhat > 1.2


def test_in_very_many_dimensions_the_mass_is_bounded_by_entropy():
    """500 dimensions: more than the truth by up to a hundredth of a nat a dimension, and noise."""
    found = search(Mixture(500, 0.5, 1.0), flow_at(500, -1.0), math.log(0.5))
    assert found.escaped > 0
    assert -5 < found.log_missing_mass < 10


def test_a_narrow_flow_is_held_against_chains():
    """Half as wide as the posterior in each of five coordinates: importance sampling is far off."""
    target, flow = Mixture(5, 0.5, 0.0), flow_at(5, 0.0, math.log(0.5))
    ratio = draw(flow, target, 2000, 2).densities.log_ratio
    by_importance = math.log(np.mean(np.exp(ratio)))
    found = search(target, flow, by_importance)
    assert by_importance < -0.3
    assert abs(found.bridge.value) < 0.5 * abs(by_importance)


def test_the_seed_decides():
    target = Mixture(3, 0.5, 4.0)
    flow = flow_at(3, -4.0)
    drawn = draw(flow, target, 500, 2)
    one = probe(flow, target, drawn, math.log(0.5), gradient_evaluations=5000, seed=1)
    again, other = (
        probe(flow, target, drawn, math.log(0.5), gradient_evaluations=5000, seed=seed)
        for seed in (1, 2)
    )
    assert one == again
    assert one.log_missing_mass != other.log_missing_mass


def test_a_few_draws_are_enough_to_start_from():
    flow = flow_at(3, 0.0)
    drawn = draw(flow, Mixture(3, 0.5, 0.0), 2, 2)
    found = probe(flow, Mixture(3, 0.5, 0.0), drawn, 0.0, gradient_evaluations=20_000, seed=1)
    assert found.chains == 32


@pytest.mark.parametrize("dim", [1, 4])
def test_the_mass_in_the_tails_is_found(dim):
    """Posterior share where a Cauchy's density is above 100 normal ones, by quadrature in 1-D."""
    flow = flow_at(dim, 0.0)
    check = check_tails(flow, HeavyTails(dim, 1), 0.0, 20_000, 1)
    if dim == 1:
        ratio = lambda x: stats.t.pdf(x, 1) > 100 * stats.norm.pdf(x)  # noqa: E731
        x = np.linspace(0, 50, 2_000_001)
        edge = x[np.argmax(ratio(x))]
        tolerance = 4.5 * np.sqrt(check.missing / 20_000) + 3 / 20_000
        assert check.missing == pytest.approx(2 * stats.t.sf(edge, 1), abs=tolerance)
    assert check.missing > 0.01


def test_tails_as_heavy_as_the_posteriors_miss_nothing():
    assert check_tails(flow_at(4, 0.0), Mixture(4, 0.5, 0.0), 0.0, 5000, 1).missing == 0
    heavy = build_flow(FlowConfig(family="meanfield", base="student-t"), 4, 1).double()
    assert check_tails(heavy, HeavyTails(4, 30), 0.0, 5000, 1).missing == 0


@pytest.mark.parametrize(("apart", "together"), [(0.1, True), (3.0, False)])
def test_chains_that_stay_apart_matter_where_their_log_weights_do(apart, together, monkeypatch):
    """Chains that do not move, half of them where the target is a little or much higher."""

    class Step(Mixture):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            higher = batch.log_density + apart * (z[:, 0] > 0)
            return DensityBatch(higher, batch.gradient, batch.accepted)

    monkeypatch.setattr(Chains, "transition", lambda self, steps: None)
    found = search(Step(3, 0.5, 0.0), flow_at(3, 0.0), 0.0)
    assert (found.rhat < 1.6) == together
