"""Chains from elsewhere: where draws are the posterior's, and where a mode of it is missing."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import stanflow
from stanflow.estimates.draws import draw
from stanflow.estimates.elbo import estimate_elbo
from stanflow.flow.config import FlowConfig
from stanflow.flow.noncentering import NonCentering
from stanflow.flow.realnvp import build_flow
from stanflow.refine.config import RefineConfig
from stanflow.refine.elsewhere import _Space, _walk_on, look_elsewhere
from stanflow.refine.refine import refine
from stanflow.refine.verdict import judge
from stanflow.stan.density import CountingTarget

MIXTURE = """
data { int D; real w; real s; }
parameters { vector[D] x; }
model { target += log_mix(w, normal_lpdf(x | -s, 1), normal_lpdf(x | s, 1)); }
"""
CONFIG = RefineConfig(particles=256)


def refined_at(location, *, dim, share, distance):
    """Refine a normal flow at a place, and look elsewhere; return all, and the verdict."""
    data = {"D": dim, "w": share, "s": distance}
    model = stanflow.StanModel(stan_code=MIXTURE, data=data, engine="embedded")
    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), dim, seed=1).double()
    with torch.no_grad():
        flow.output.shift.fill_(location)
    target = CountingTarget(model)
    densities = draw(flow, target, 1000, 1).densities
    refined = refine(flow, target, densities, CONFIG, draws=1000, seed=1)
    assert refined is not None
    elsewhere = look_elsewhere(flow, target, refined, seed=2)
    constant = model.normalizing_constant
    elbo = estimate_elbo(densities, constant)
    return refined, elsewhere, judge(refined, elsewhere, elbo, constant=constant.value, steps=500)


@pytest.mark.parametrize("dim", [1, 3])
def test_chains_come_to_draws_of_the_posterior(dim):
    refined, elsewhere, verdict = refined_at(0.3, dim=dim, share=0.5, distance=0.5)
    assert elsewhere.escaped == 0
    assert elsewhere.log_missing_mass == -np.inf
    assert elsewhere.rhat < 1.1
    assert refined.log_evidence.value == pytest.approx(0, abs=0.03)
    assert verdict.name == "good"


def test_a_mode_that_few_particles_reach_sets_islands_apart():
    """Some islands have a particle there to begin with, others not."""
    refined, _, verdict = refined_at(6.0, dim=1, share=0.9, distance=6.0)
    assert refined.settling.rhat > 1.1
    assert verdict.name == "unreliable"
    assert "islands of particles disagree" in verdict.reasons[0]


def test_a_mode_without_draws_is_found_and_weighed():
    """The particles stay with the flow, at a tenth of the posterior; chains find the rest."""
    refined, elsewhere, verdict = refined_at(6.0, dim=3, share=0.9, distance=6.0)
    assert (refined.z > 0).all()
    assert refined.log_evidence.value == pytest.approx(np.log(0.1), abs=0.03)
    assert elsewhere.escaped > 0
    assert elsewhere.log_missing_mass == pytest.approx(np.log(9), abs=0.3)
    assert verdict.name == "unreliable"
    assert "about 90% of the posterior" in verdict.reasons[0]


def test_a_mode_apart_is_seen_in_many_dimensions_too():
    """Where its mass cannot be told, the number of chains that ended there speaks."""
    _, elsewhere, verdict = refined_at(2.0, dim=60, share=0.9, distance=2.0)
    assert elsewhere.escaped > 0
    assert np.isnan(elsewhere.log_missing_mass)
    assert verdict.name != "good"


HEAVY_TAILS = "parameters { vector[20] x; } model { x ~ student_t(3, 0, 1); }"


def refined_normal(target, dim):
    """Draws of the target, moved from a normal flow."""
    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), dim, seed=1).double()
    refined = refine(
        flow, target, draw(flow, target, 1000, 1).densities, CONFIG, draws=1000, seed=1
    )
    assert refined is not None
    return flow, refined


def test_chains_far_out_in_a_tail_walk_home():
    target = CountingTarget(stanflow.StanModel(stan_code=HEAVY_TAILS, engine="embedded"))
    flow, refined = refined_normal(target, 20)
    far = np.where(np.arange(20) < 3, 60.0, 0.5) * np.ones((25, 4, 20))
    near = np.full((25, 2, 20), 0.5)
    points = np.concatenate([far, near], axis=1)
    densities = target.log_density(points.reshape(-1, 20)).reshape(25, 6)
    _walk_on(
        flow, _Space(flow, target, refined), refined, (points, densities), np.random.default_rng(1)
    )
    assert np.abs(points[-1]).max() < 30
    assert (points[:, 4:] == 0.5).all()  # who is at home stays
    expected = target.log_density(points.reshape(-1, 20)).reshape(25, 6)
    np.testing.assert_allclose(densities, expected, rtol=1e-9)


def test_a_walk_from_which_none_comes_home_is_short():
    data = {"D": 3, "w": 0.9, "s": 6.0}
    model = stanflow.StanModel(stan_code=MIXTURE, data=data, engine="embedded")
    target = CountingTarget(model)
    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), 3, seed=1).double()
    with torch.no_grad():
        flow.output.shift.fill_(6.0)
    densities = draw(flow, target, 1000, 1).densities
    refined = refine(flow, target, densities, CONFIG, draws=1000, seed=1)
    points = np.full((25, 4, 3), -6.0)
    there = target.log_density(points.reshape(-1, 3)).reshape(25, 4)
    before = target.evaluations
    _walk_on(
        flow, _Space(flow, target, refined), refined, (points, there), np.random.default_rng(1)
    )
    assert (points < -1).all()
    assert target.evaluations - before == 4 + 3 * 25 * 32 * 4


def test_chains_walk_where_the_hierarchy_is_apart():
    """Points, densities and draws go there and back."""
    code = "parameters { real v; vector[3] x; } model { v ~ normal(0, 2); x ~ normal(0, exp(v)); }"
    target = CountingTarget(stanflow.StanModel(stan_code=code, engine="embedded"))
    one, zero = torch.ones(3, 1), torch.zeros(3, 1)
    layer = NonCentering(
        moved=torch.tensor([1, 2, 3]), parents=torch.zeros(3, 1, dtype=torch.int64),
        scale_weights=one, location_weights=zero, log_scale=zero[:, 0], location=zero[:, 0],
    )  # fmt: skip
    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), 4, seed=1).double()
    flow.append(layer.double())
    z = np.random.default_rng(1).normal(size=(6, 4))
    space = _Space(flow, target, SimpleNamespace(z=z, log_p=target.log_density(z)))
    u = space.of(z)
    np.testing.assert_array_equal(space.draws, u)
    np.testing.assert_allclose(u[:, 1:], z[:, 1:] * np.exp(-z[:, :1]))
    flat = space.target.log_density(u)
    np.testing.assert_array_equal(space.log_p, flat)
    back, densities = space.back(u.reshape(3, 2, 4), flat.reshape(3, 2))
    np.testing.assert_allclose(back, z.reshape(3, 2, 4))
    np.testing.assert_allclose(densities, target.log_density(z).reshape(3, 2))
    np.testing.assert_allclose(flat - densities.ravel(), 3 * z[:, 0])
