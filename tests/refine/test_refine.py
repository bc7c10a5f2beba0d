"""Annealing from short-trained flows against what is known of the posterior."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import stanflow
import stanflow.refine.refine as refine_module
from stanflow.errors import UsageError
from stanflow.estimates.draws import draw
from stanflow.fitting import fitting
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.refine.config import RefineConfig
from stanflow.refine.refine import refine
from stanflow.stan.density import CountingTarget

MODELS = Path(__file__).parents[2] / "stan_models"
SHORT = stanflow.TrainConfig(max_steps=150)
NAMES = ("hierarchical_normal", "hierarchical_normal_noncentered")


def model_of(name, data):
    folder = MODELS / "hierarchical_normal"
    return stanflow.StanModel(folder / f"{name}.stan", folder / data, engine="embedded")


def of_variance(data):
    """Return the grid of the log variance, its posterior's weights there, and the log evidence."""
    given = json.loads((MODELS / "hierarchical_normal" / data).read_text())
    log_v = np.linspace(-14, 8, 20_001)
    v = np.exp(log_v)
    log_p = stats.invgamma.logpdf(v, given["a"], scale=given["b"]) + log_v
    log_p += stats.norm.logpdf(np.array(given["y"])[:, None], 0, np.sqrt(1 + v)).sum(axis=0)
    top = log_p.max()
    log_evidence = top + np.log(integrate.trapezoid(np.exp(log_p - top), log_v))
    weights = np.exp(log_p - log_evidence) * (log_v[1] - log_v[0])
    return log_v, weights, log_evidence


@pytest.fixture(scope="module", params=NAMES)
def fit(request):
    return stanflow.fit(
        model_of(request.param, "hierarchical_normal_10.json"),
        training=SHORT,
        refining=RefineConfig(when="always"),
        progress=False,
    )


def test_the_evidence_is_the_integral_over_the_variance(fit):
    _, _, log_evidence = of_variance("hierarchical_normal_10.json")
    assert fit.refined
    assert fit.report["method"] == "smc"
    assert fit.log_evidence_se < 0.05
    assert fit.log_evidence == pytest.approx(log_evidence, abs=0.02 + 4 * fit.log_evidence_se)
    refine_report = fit.report["refine"]
    for method in ("annealed", "bridge"):
        se = refine_report[f"log_evidence_{method}_se"]
        value = refine_report[f"log_evidence_{method}"]
        assert value == pytest.approx(log_evidence, abs=0.05 + 4 * se)
    assert fit.elbo - 4 * fit.elbo_se < fit.log_evidence < refine_report["eubo"] + 0.1


def test_draws_are_the_posteriors_own(fit):
    """The variance's quantiles, and the means' given the variance."""
    log_v, weights, _ = of_variance("hierarchical_normal_10.json")
    x = np.log(fit.stan_variable("variance"))
    assert (fit.weights == 1 / len(x)).all()
    for probability in (0.05, 0.25, 0.5, 0.75, 0.95):
        quantile = log_v[np.searchsorted(np.cumsum(weights), probability)]
        error = np.sqrt(probability * (1 - probability) / fit.report["refine"]["ess"])
        assert np.mean(x <= quantile) == pytest.approx(probability, abs=4 * error + 0.01)
    y = np.array(json.loads(fit.data)["y"])
    v = fit.stan_variable("variance")[:, None]
    theta = fit.stan_variable("theta")
    scores = (theta - y * v / (1 + v)) / np.sqrt(v / (1 + v))
    error = 1 / np.sqrt(fit.report["refine"]["ess"])
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=5 * error)
    np.testing.assert_allclose(scores.std(axis=0), 1, atol=5 * error)


def test_both_log_densities_are_those_of_the_draws(fit):
    model = model_of(fit.report["model"], "hierarchical_normal_10.json")
    np.testing.assert_allclose(fit.log_p, model.log_density(fit.z), rtol=1e-9)
    np.testing.assert_allclose(fit.log_q, fit.log_prob(fit.z), rtol=1e-6, atol=1e-6)


def test_a_right_answer_is_good_and_says_what_it_rests_on(fit):
    assert fit.verdict == "good"
    text = str(fit.summary())
    assert "annealed to the posterior" in text
    assert "EUBO" in text
    assert "8 islands of particles agree" in text


def test_the_fit_is_saved_and_loaded(fit, tmp_path):
    loaded = stanflow.load(fit.save(tmp_path / "fit"))
    assert loaded.refined
    np.testing.assert_array_equal(loaded.z, fit.z)
    assert loaded.report["refine"] == fit.report["refine"]


def test_new_draws_of_the_flow_are_the_flows(fit):
    anew = fit.sample(500, seed=2)
    assert not anew.refined
    assert anew.report["method"] == "importance"


def test_the_same_seed_gives_the_same_draws(fit):
    name = fit.report["model"]
    again = stanflow.fit(
        model_of(name, "hierarchical_normal_10.json"),
        training=SHORT,
        refining=RefineConfig(when="always"),
        progress=False,
    )
    np.testing.assert_array_equal(again.z, fit.z)
    assert again.log_evidence == fit.log_evidence


@pytest.fixture(scope="module")
def trained():
    model = model_of(NAMES[0], "hierarchical_normal_10.json")
    fit = stanflow.fit(
        model, training=SHORT, refining=RefineConfig(when="never"), draws=1000, progress=False
    )
    target = CountingTarget(model)
    return fit.flow, target, draw(fit.flow, target, 1000, 1).densities


def test_never_is_never(trained):
    model = model_of(NAMES[0], "hierarchical_normal_10.json")
    fit = stanflow.fit(
        model, training=SHORT, refining=RefineConfig(when="never"), draws=100, progress=False
    )
    assert not fit.refined
    assert "refine" not in fit.report["stages"]


def test_weights_that_suffice_are_left_alone():
    """The flow is the posterior."""
    model = stanflow.StanModel(
        stan_code="parameters { vector[2] x; } model { x ~ std_normal(); }", engine="embedded"
    )
    fit = stanflow.fit(model, draws=500, progress=False)
    assert not fit.refined
    assert fit.verdict == "good"


def test_asked_to_stop_before_the_posterior_it_gives_nothing(trained):
    flow, target, densities = trained
    config = RefineConfig()
    assert (
        refine(flow, target, densities, config, draws=9, seed=1, should_stop=lambda: True) is None
    )


def test_asked_to_stop_later_it_gives_what_there_is(trained):
    flow, target, densities = trained
    rounds = []
    refined = refine(
        flow,
        target,
        densities,
        RefineConfig(),
        draws=100,
        seed=1,
        should_stop=lambda: bool(rounds) and rounds[-1].inverse_temperature == 1,
        on_round=rounds.append,
    )
    assert refined is not None
    assert refined.stopped == "cut short"
    assert refined.transitions == 1
    assert len(refined.z) == 100
    assert [r.inverse_temperature for r in rounds] == sorted(r.inverse_temperature for r in rounds)


def test_it_ends_at_its_limit_of_evaluations(trained):
    flow, target, densities = trained
    before = target.evaluations
    config = RefineConfig(most_evaluations=30_000)
    refined = refine(flow, target, densities, config, draws=100_000, seed=1)
    assert refined is not None
    assert refined.stopped == "evaluations"
    # What is asked for is far more than there can be; a move and the draws come on top.
    assert target.evaluations - before < 30_000 + 512 * 16 + len(refined.z) + 512
    assert len(refined.z) < 100_000


def test_what_rounding_pushes_over_a_boundary_is_left_out(trained, monkeypatch):
    flow, target, densities = trained
    evaluate = CountingTarget.log_density

    def refusing(self, z):
        log_p = evaluate(self, z).copy()
        log_p[::10] = -np.inf
        return log_p

    monkeypatch.setattr(CountingTarget, "log_density", refusing)
    refined = refine(flow, target, densities, RefineConfig(), draws=512, seed=1)
    assert refined is not None
    assert np.isfinite(refined.log_p).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"when": "sometimes"}, "refine must be auto or always or never"),
        ({"islands": 1}, "islands must be at least 2"),
        ({"particles": 30}, "a multiple of islands"),
        ({"effective_share": 1.0}, "effective_share must be in"),
        ({"moves": 0}, "moves must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        RefineConfig(**change)


@pytest.mark.parametrize("narrow", [False, True])
def test_it_ends_early_only_where_the_flow_is_far(narrow):
    """A flow too narrow by a third in ten dimensions: KL(p | q) is 30 nats."""
    model = stanflow.StanModel(
        stan_code="parameters { vector[10] x; } model { x ~ normal(0, 1); }", engine="embedded"
    )
    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), 10, seed=1).double()
    with torch.no_grad():
        flow.output.log_scale.fill_(np.log(1 / 3) if narrow else 0.0)
    target = CountingTarget(model)
    densities = draw(flow, target, 1000, 1).densities
    config = RefineConfig(particles=64, most_evaluations=40_000)
    refined = refine(flow, target, densities, config, draws=40_000, seed=1, may_end_far=True)
    assert (refined.stopped == "far") == narrow
    assert (target.evaluations < 0.7 * 40_000) == narrow
    whole = refine(flow, target, densities, config, draws=40_000, seed=1)
    assert whole.stopped == "evaluations"


@pytest.fixture
def any_flow_is_far(monkeypatch):
    """And is found to be so by the first moves."""
    monkeypatch.setattr(refine_module, "_SHARE_BEFORE_SHARPENING", 0.0)
    monkeypatch.setattr(refine_module, "_FAR", -np.inf)
    monkeypatch.setattr(refine_module, "restraint_to_reach", lambda *args: None)


def fitted_from_far(**settings):
    model = model_of(NAMES[0], "hierarchical_normal_10.json")
    refining = RefineConfig(when="always")
    return stanflow.fit(model, training=SHORT, refining=refining, draws=1000, **settings)


@pytest.mark.usefixtures("any_flow_is_far")
def test_a_flow_that_is_far_learns_from_the_draws():
    told = []
    fit = fitted_from_far(on_round=told.append)
    assert [step.round for step in told] == list(range(1, len(told) + 1))
    for name in ("share", "seconds"):
        assert (np.diff([getattr(step, name) for step in told]) >= 0).all()
    assert [step.share for step in told].count(1) == 1
    assert fit.report["stages"]["sharpening"]["gradient_evaluations"] > 0
    assert fit.report["refine"]["stopped"] != "far"
    np.testing.assert_allclose(fit.log_q, fit.log_prob(fit.z), rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("any_flow_is_far")
def test_what_was_moved_is_kept_where_there_is_no_time_to_move_again(monkeypatch):
    """Ctrl-C in the second annealing, say: the draws of the first are those of its own flow."""
    asked = []

    def refine_once(*args, may_end_far=False, **settings):
        asked.append(may_end_far)
        return refine(*args, may_end_far=True, **settings) if may_end_far else None

    monkeypatch.setattr(fitting, "refine", refine_once)
    fit = fitted_from_far(progress=False)
    assert asked == [True, False]
    assert fit.report["refine"]["stopped"] == "far"
    np.testing.assert_allclose(fit.log_q, fit.log_prob(fit.z), rtol=1e-6, atol=1e-6)
