"""Particles whose weights lead beyond the flow's reach are held to it, and the rest follows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import stanflow
import stanflow.refine.reach as reach_module
import stanflow.training.checkpoint as checkpoint_module
from stanflow.estimates.draws import draw
from stanflow.flow.affine import FixedAffine
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.refine.config import RefineConfig
from stanflow.refine.outward import go_outward
from stanflow.refine.reach import direction_of_weights, restraint_to_reach
from stanflow.refine.refine import refine
from stanflow.stan.density import CountingTarget
from stanflow.training.checkpoint import Checkpoint

MEAN, SD = 4.0, 1.5
CONFIG = RefineConfig(particles=128, most_evaluations=200_000)
OUTWARD = 300_000


@pytest.fixture(scope="module")
def model():
    """Normal: with the first coordinate beyond what a standard normal reaches, the scale of two."""
    return stanflow.StanModel(
        stan_code=f"""
        parameters {{ real t; vector[2] x; real y; }}
        model {{
          target += normal_lpdf(t | {MEAN}, {SD}) + normal_lpdf(x | 0, exp(0.1 * (t - {MEAN})));
          target += normal_lpdf(y | 0, 1);
        }}""",
        engine="embedded",
    )


def flow_of(sign=1):
    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), 4, seed=1).double()
    with torch.no_grad():
        flow.output.shift[0] = 0.0 if sign > 0 else 2 * MEAN
    return flow


def moved(model, flow, seed=1, **settings):
    target = CountingTarget(model)
    drawn = draw(flow, target, 2000, seed)
    found = refine(
        flow, target, drawn.densities, CONFIG, drawn=drawn, draws=2000, seed=seed, **settings
    )
    return target, found


@pytest.mark.parametrize("sign", [1, -1])
def test_draws_are_held_to_where_the_flow_has_some(model, sign, monkeypatch):
    monkeypatch.setattr(reach_module, "_WITHIN", 0.5)  # so that much of the flow is beyond
    target, refined = moved(model, flow_of(sign))
    held = refined.held
    assert held.direction == (0, sign)
    centre = 0.0 if sign > 0 else 2 * MEAN
    assert held.bound == pytest.approx(centre, abs=0.1)
    log_p = target.log_density(refined.z) + held.log_factor(refined.z)
    np.testing.assert_allclose(refined.log_p, log_p, rtol=1e-12)
    t = np.linspace(-10, 20, 30_001)
    at = np.zeros((len(t), 4))
    at[:, 0] = t
    density = stats.norm.pdf(t, MEAN, SD) * np.exp(held.log_factor(at))
    whole = integrate.trapezoid(density, t)
    assert refined.bridge.se < 0.05
    for evidence in (refined.annealed, refined.bridge):
        assert evidence.value == pytest.approx(np.log(whole), abs=4 * evidence.se)
    assert refined.settling.rhat < 1.05
    cumulated = integrate.cumulative_trapezoid(density, t, initial=0) / whole
    for probability in (0.1, 0.5, 0.9):
        below = (refined.z[:, 0] <= np.interp(probability, cumulated, t)).mean()
        error = np.sqrt(probability * (1 - probability) / refined.settling.ess)
        assert below == pytest.approx(probability, abs=4 * error)


@pytest.mark.parametrize(("seed", "sign"), [(1, 1), (2, 1), (3, -1)])
def test_what_is_beyond_follows(model, seed, sign):
    flow = flow_of(sign)
    target, refined = moved(model, flow, seed)
    whole = go_outward(flow, target, refined, most_evaluations=OUTWARD, seed=seed)
    assert whole.outward.ended
    beyond = stats.norm.sf(sign * refined.held.bound, sign * MEAN, SD)
    assert whole.outward.share == pytest.approx(beyond, abs=0.02)
    for evidence in (whole.annealed, whole.bridge):
        assert evidence.se < 0.2
        assert evidence.value == pytest.approx(0, abs=4 * evidence.se)
    t = whole.z[:, 0]
    assert len(t) == 2000
    assert t.mean() == pytest.approx(MEAN, abs=0.3)
    assert t.std() == pytest.approx(SD, abs=0.25)
    scaled = whole.z[:, 1:3] / np.exp(0.1 * (t[:, None] - MEAN))
    assert scaled.std() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(whole.log_p, target.log_density(whole.z), rtol=1e-12)


def test_a_bound_beyond_which_there_is_nothing_costs_nothing(model):
    flow = flow_of()
    target, refined = moved(model, flow)
    held = replace(refined.held, bound=MEAN + 6 * SD)
    z = model_draws(2000)
    log_p = target.log_density(z)
    known = replace(refined, held=held, z=z, base_points=z, log_p=log_p, log_q=log_p)
    whole = go_outward(flow, target, known, most_evaluations=OUTWARD, seed=1)
    assert whole.outward.share < 1e-3
    assert whole.log_evidence.value == pytest.approx(refined.log_evidence.value, abs=0.01)


def model_draws(n):
    """Return draws of the model's density."""
    rng = np.random.default_rng(1)
    z = rng.standard_normal((n, 4))
    z[:, 0] = MEAN + SD * z[:, 0]
    z[:, 1:3] *= np.exp(0.1 * (z[:, :1] - MEAN))
    return z


def test_without_time_to_follow_it_is_said_that_it_was_not(model):
    flow = flow_of()
    target, refined = moved(model, flow)
    cut = go_outward(
        flow, target, refined, most_evaluations=OUTWARD, seed=1, should_stop=lambda: True
    )
    assert not cut.outward.ended
    assert cut.outward.share == 0
    assert refined.held.holds(cut.z).all()


def test_nothing_is_held_without_the_flows_draws(model):
    target = CountingTarget(model)
    densities = draw(flow_of(), target, 2000, 1).densities
    assert refine(flow_of(), target, densities, CONFIG, draws=2000, seed=1).held is None


def test_a_whole_fit_of_what_training_did_not_reach(model, monkeypatch):
    """The flow stays where it began, and the fit is right all the same."""
    monkeypatch.setattr("stanflow.fitting.fitting.train", trained_to(flow_of()))
    told = []
    fit = stanflow.fit(model, on_round=told.append)
    shares = [step.share for step in told if not step.outward]
    assert shares == sorted(shares)
    began_anew = np.diff([step.inverse_temperature for step in told]) < 0
    assert began_anew.sum() == 1
    assert fit.report["refine"]["outward"]["parameter"] == "t"
    assert fit.log_evidence == pytest.approx(0, abs=4 * fit.log_evidence_se)
    assert fit.stan_variable("t").mean() == pytest.approx(MEAN, abs=0.3)
    assert "sharpening" not in fit.report["stages"]


def trained_to(flow):
    from stanflow.training.trainer import train

    def instead(*args, **settings):
        result = train(*args, **settings)
        return type(result)(**{**vars(result), "flow": flow})

    return instead


def test_moving_that_died_goes_on_to_the_same_numbers(model, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "_LARGEST_SHARE_OF_TIME", np.inf)
    flow, path = flow_of(), tmp_path / "checkpoint"
    _, whole = moved(model, flow)
    rounds_before = iter(range(whole.temperatures - 1))
    moved(
        model,
        flow,
        keep=Checkpoint(path, {}, every=0.0).keep("refine"),
        should_stop=lambda: next(rounds_before, None) is None,
    )
    checkpoint = Checkpoint(path, {}, every=0.0)
    checkpoint.read()
    told = []
    _, again = moved(model, flow, keep=checkpoint.keep("refine"), on_round=told.append)
    assert told[0].round > 1
    assert again.held == whole.held
    np.testing.assert_array_equal(again.z, whole.z)
    assert again.bridge == whole.bridge


def test_a_direction_is_a_coordinate_and_a_sign():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(4000, 3))
    assert direction_of_weights(points, points[:, 1] + rng.normal(size=4000)) == (1, 1)
    assert direction_of_weights(points, -np.exp(points[:, 2])) == (2, -1)
    assert direction_of_weights(points, rng.normal(size=4000)) is None


def test_correlated_units_and_weights_that_lead_nowhere_hold_nothing():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(500, 4))
    flow = flow_of()
    assert restraint_to_reach(flow, points, points, points[:, 2]).coordinate == 2
    assert restraint_to_reach(flow, points, points, rng.normal(size=500)) is None
    flow.append(FixedAffine(torch.zeros(4).double(), torch.eye(4).double()))
    assert restraint_to_reach(flow, points, points, points[:, 2]) is None
