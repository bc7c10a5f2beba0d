"""Draws that stop short along one coordinate get what the posterior has beyond."""

import numpy as np
import pytest
from scipy import stats

import stanflow.refine.outward as outward_module
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.refine.outward import go_outward
from stanflow.refine.refined import LogEvidence, Refined
from stanflow.refine.settling import Settling
from stanflow.stan.density import CountingTarget
from stanflow.stan.model import StanModel

DRAWS, LIMIT = 4000, 0.8
FUNNEL = (
    "parameters { vector[4] x; real v; } model { v ~ normal(0, 1); x ~ normal(0, exp(2 * v)); }"
)
CAUCHY = "parameters { real x; real y; } model { x ~ cauchy(0, 1); y ~ normal(0, 1); }"
ALL = 1_000_000


def funnel_draws(rng, *, limit):
    v = stats.truncnorm.rvs(-np.inf, limit, size=(DRAWS, 1), random_state=rng)
    return np.concatenate([np.exp(2 * v) * rng.normal(size=(DRAWS, 4)), v], axis=1)


def refined(target, z, log_weights, far=4.0):
    """Draws with weights of which those of mean zero are so far above the evidence of -1."""
    log_p = target.log_density(z)
    return Refined(
        base_points=z,
        z=z,
        log_p=log_p,
        log_q=log_p - log_weights + 1.0 - far,
        annealed=LogEvidence(-1.0, 0.02),
        bridge=LogEvidence(-1.01, 0.01, 0.1),
        eubo=0.5,
        settling=Settling(rhat=1.01, shift=0.0, ess=float(len(z))),
        temperatures=5,
        transitions=40,
        acceptance=0.8,
        log_step=0.0,
        stopped="settled",
        particles=512,
        islands=8,
    )


def outward_of(code, z, log_weights, *, seed, most=ALL, told=None):
    target = CountingTarget(StanModel(stan_code=code, engine="embedded"))
    flow = build_flow(FlowConfig(layers=2, hidden=4), dim=target.dim, seed=1).double()
    before = refined(target, z, log_weights)
    on_value = ([] if told is None else told).append
    return before, go_outward(
        flow, target, before, most_evaluations=most, seed=seed, on_value=on_value
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_missing_is_put_there_and_weighed(seed):
    z = funnel_draws(np.random.default_rng(seed), limit=LIMIT)
    told = []
    before, after = outward_of(FUNNEL, z, z[:, 4], seed=seed, told=told)
    outward = after.outward
    assert len(told) == outward.values
    assert told == sorted(told)
    assert told[-1] == 1
    assert outward.ended
    assert outward.coordinate == 4
    added = outward.log_added
    assert added.se < 0.1
    assert added.value == pytest.approx(-stats.norm.logcdf(LIMIT), abs=4 * added.se)
    assert after.annealed.value == pytest.approx(before.annealed.value + added.value)
    assert after.bridge.value == pytest.approx(before.bridge.value + added.value)
    assert after.bridge.se == pytest.approx(np.hypot(before.bridge.se, added.se))
    assert after.bridge.pareto_k == before.bridge.pareto_k
    assert outward.eubo < (before.log_p - before.log_q)[z[:, 4] < LIMIT].mean()
    v = after.z[:, 4]
    assert len(v) == DRAWS
    for beyond in (LIMIT, 1.5):
        share = stats.norm.sf(beyond)
        assert (v > beyond).mean() == pytest.approx(share, abs=4 * added.se)
    scaled = after.z[v > LIMIT, :4] / np.exp(2 * v[v > LIMIT, None])
    assert scaled.std() == pytest.approx(1, abs=0.15)
    assert after.settling.ess < before.settling.ess


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_draws_that_lack_nothing_stay_as_they_are(seed):
    z = funnel_draws(np.random.default_rng(seed), limit=np.inf)
    before, after = outward_of(FUNNEL, z, z[:, 4], seed=seed)
    assert after is before


@pytest.mark.parametrize("far", [4.0, 2.0])
def test_weights_that_lead_nowhere_or_are_near_cost_nothing(far):
    z = funnel_draws(np.random.default_rng(1), limit=LIMIT)
    target = CountingTarget(StanModel(stan_code=FUNNEL, engine="embedded"))
    flow = build_flow(FlowConfig(layers=2, hidden=4), dim=5, seed=1).double()
    noise = np.random.default_rng(2).normal(size=DRAWS)
    log_weights = noise if far > 3 else z[:, 4] - z[:, 4].mean()
    before = refined(target, z, log_weights, far)
    spent = target.evaluations
    assert go_outward(flow, target, before, most_evaluations=ALL, seed=1) is before
    assert target.evaluations == spent


def test_a_way_that_was_not_gone_to_its_end_says_so():
    rng = np.random.default_rng(1)
    x = stats.cauchy.rvs(size=4 * DRAWS, random_state=rng)
    x = x[x < 1][:DRAWS]
    z = np.column_stack([x, rng.normal(size=DRAWS)])
    _before, after = outward_of(CAUCHY, z, np.arctan(x), seed=1, most=20_000)
    assert not after.outward.ended
    assert after.outward.share > 0.1


def test_the_same_seed_gives_the_same():
    z = funnel_draws(np.random.default_rng(1), limit=LIMIT)
    one, other = (outward_of(FUNNEL, z, z[:, 4], seed=3)[1] for _ in range(2))
    np.testing.assert_array_equal(one.z, other.z)
    assert one.outward == other.outward


def test_a_ratio_that_is_large_and_uncertain_is_taken_for_what_it_is(monkeypatch):
    """Four times as much, give or take two, is more than there is."""
    z = funnel_draws(np.random.default_rng(1), limit=LIMIT)
    monkeypatch.setattr(outward_module, "_mass_beyond", lambda *args, **settings: (4.0, 2.0))
    _, after = outward_of(FUNNEL, z, z[:, 4], seed=1)
    assert after.outward is not None
    whole = np.exp(after.outward.log_added.value)
    assert 4 < whole < 5
    assert after.outward.log_added.se == pytest.approx(2.0 / whole, rel=0.01)
    monkeypatch.setattr(outward_module, "_mass_beyond", lambda *args, **settings: (0.6, 0.6))
    assert outward_of(FUNNEL, z, z[:, 4], seed=1)[1].outward is None
