"""What a fit makes of its settings."""

import numpy as np
import pytest

import stanflow
from stanflow.fitting import fitting
from stanflow.flow.wiring import Wiring
from stanflow.training.wiring import wire_by_curvature

FUNNEL = "parameters { real v; vector[5] x; } model { v ~ normal(0, 1); x ~ normal(0, exp(v)); }"
ONE_DIMENSION = "parameters { real x; } model { x ~ normal(3, 2); }"
QUICK = stanflow.TrainConfig(max_steps=2, start="mean-field")


def fit(code=FUNNEL, *, draws=20, evidence_draws=20, training=QUICK, **settings):
    model = stanflow.StanModel(stan_code=code, engine="embedded")
    return stanflow.fit(
        model,
        draws=draws,
        evidence_draws=evidence_draws,
        training=training,
        refining=stanflow.RefineConfig(when="never"),
        progress=False,
        **settings,
    )


def moved(wiring):
    return [half.moved.tolist() for half in wiring.halves]


def test_a_flow_is_wired_by_the_curvature_of_its_target():
    """The others of a funnel depend on v alone, which sits opposite them and is their partner."""
    flow = stanflow.FlowConfig(layers=8, hidden=4, partners=2)
    wiring = fit(flow=flow).flow.wiring
    assert wiring.n_partners == 2
    assert sorted(map(tuple, moved(wiring))) == 4 * [(0,)] + 4 * [(1, 2, 3, 4, 5)]
    for half in wiring.halves:
        if len(half.moved) == 5:
            assert (half.partners == [0, -1]).all()


def test_the_curvature_is_that_where_the_posteriors_mass_is(monkeypatch):
    """In units of the start, which is three times as wide as a mean-field fit."""
    measured = []

    def spying(config, target, points, rng):
        measured.append(points)
        return wire_by_curvature(config, target, points, rng)

    monkeypatch.setattr(fitting, "wire_by_curvature", spying)
    fit("parameters { vector[2] x; } model { x ~ normal(1e4, 50); }")
    (points,) = measured
    assert np.abs(points.mean(0)).max() < 0.2
    assert np.abs(points.std(0) * 3 - 1).max() < 0.2


@pytest.mark.parametrize("partners", [0, 1])
def test_even_and_odd_halves_are_taken_where_they_are_asked_for(partners):
    flow = stanflow.FlowConfig(layers=2, hidden=4, wiring="even-odd", partners=partners)
    wiring = fit(flow=flow).flow.wiring
    if partners == 0:
        assert wiring is None  # which stands for them
    else:
        assert moved(wiring) == [[1, 3, 5], [0, 2, 4]]
        assert (wiring.halves[0].partners == 0).all()


def test_a_wiring_that_is_given_is_taken():
    given = Wiring(6, [[0, 1], [2, 3]])
    flow = stanflow.FlowConfig(layers=2, hidden=4)
    assert moved(fit(flow=flow, wiring=given).flow.wiring) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("family", ["fullrank", "meanfield"])
def test_without_couplings_there_is_no_wiring(family):
    assert fit(flow=stanflow.FlowConfig(family=family)).flow.wiring is None
    assert fit(ONE_DIMENSION).flow.wiring is None


def test_the_report_has_the_settings_that_were_used():
    report = fit(flow=stanflow.FlowConfig(layers=12)).report
    assert report["flow_config"]["layers"] == 12
    assert report["flow_config"]["hidden"] == stanflow.FlowConfig().hidden_units(6)
    assert report["train_config"]["batch"] == QUICK.draws_a_step(6)
    assert report["train_config"]["learning_rate"] == QUICK.first_learning_rate(6)


@pytest.mark.parametrize(("draws", "drawn"), [(100, 20_000), (20_500, 20_500)])
def test_where_few_draws_leave_evidence_or_k_hat_open_there_are_twenty_thousand(draws, drawn):
    flow = stanflow.FlowConfig(family="meanfield")
    result = fit(ONE_DIMENSION, draws=draws, evidence_draws=None, flow=flow)
    assert len(result.values) == draws
    assert result.report["evidence_draws"] == drawn


@pytest.mark.parametrize(("draws", "drawn"), [(100, 4000), (4500, 4500)])
def test_where_few_draws_settle_them_there_are_no_more(draws, drawn):
    code = "parameters { vector[2] x; } model { x ~ normal(1, 2); }"
    result = fit(code, draws=draws, evidence_draws=None, training=stanflow.TrainConfig())
    assert result.report["evidence_draws"] == drawn
    assert result.report["pareto_k"] < 0.3
    assert result.report["log_evidence_se"] < 0.01


def test_the_gradients_for_the_curvature_are_counted(monkeypatch):
    """The rest of a fit takes as many whichever way the flow is wired."""
    evaluated = []
    evaluate = stanflow.StanModel.log_density_gradient

    def counting(self, z):
        evaluated.append(len(z))
        return evaluate(self, z)

    monkeypatch.setattr(stanflow.StanModel, "log_density_gradient", counting)
    uncounted = []
    for wiring, partners in (("even-odd", 0), ("curvature", 1)):
        evaluated.clear()
        flow = stanflow.FlowConfig(layers=2, hidden=4, wiring=wiring, partners=partners)
        counted = fit(flow=flow).report["gradient_evaluations"]
        uncounted.append(sum(evaluated) - counted)
    assert uncounted[0] == uncounted[1]


def test_rounds_of_refining_are_told_in_place_of_progress(capsys):
    told = []
    model = stanflow.StanModel(stan_code=ONE_DIMENSION, engine="embedded")
    refined = stanflow.fit(
        model,
        draws=100,
        training=QUICK,
        refining=stanflow.RefineConfig(when="always"),
        on_round=told.append,
    )
    assert capsys.readouterr().err == ""
    assert [step.round for step in told] == list(range(1, 1 + len(told)))
    for of_round in ("inverse_temperature", "seconds", "share"):
        values = [getattr(step, of_round) for step in told]
        assert values == sorted(values)
    last = told[-1]
    refine, constant = refined.report["refine"], refined.report["normalizing_constant"]["value"]
    assert (last.inverse_temperature, last.share) == (1.0, 1.0)
    assert (last.rhat, last.acceptance) == (refine["rhat"], refine["acceptance"])
    assert last.log_evidence + constant == refine["log_evidence_annealed"]
