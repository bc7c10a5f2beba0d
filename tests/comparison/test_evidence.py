from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

import stanflow
from stanflow.comparison.compare import compare
from stanflow.comparison.evidence import EvidenceEntry, _contradictions, estimate
from stanflow.errors import UsageError
from stanflow.reference.sampling import nuts

from .runs import flow_run, nuts_run

Y = [1.2, 0.4, 2.2, -0.3, 1.9]
CODE = """
data { int N; vector[N] y; }
parameters { real<lower=-20> mu; vector[2] nuisance; }
model { mu ~ normal(0, 2); y ~ normal(mu, 1); nuisance ~ std_normal(); }
"""
LABELS = ("flow", "NUTS")


@pytest.fixture(scope="module")
def model():
    return stanflow.StanModel(stan_code=CODE, data={"N": len(Y), "y": Y}, engine="embedded")


@pytest.fixture(scope="module")
def fit(model):
    """A mean-field flow, so that the ELBO is below the evidence."""
    return stanflow.fit(
        model,
        flow=stanflow.FlowConfig(family="meanfield", base="student-t"),
        training=stanflow.TrainConfig(max_steps=150),
        refining=stanflow.RefineConfig(when="never"),
        progress=False,
    )


@pytest.fixture(scope="module")
def reference(model):
    return nuts(model, seed=2, engine="embedded", progress=False)


def exact():
    covariance = np.eye(len(Y)) + 4
    # The prior of mu is cut off at -20, ten of its sds away.
    return stats.multivariate_normal(np.zeros(len(Y)), covariance).logpdf(Y)


def by_method(evidence):
    return {entry.method: entry for entry in evidence.entries}


def test_all_estimates_are_the_exact_evidence(model, fit, reference):
    evidence = estimate(fit, reference, LABELS, model)
    found = by_method(evidence)
    assert set(found) == {"ELBO", "importance sampling", "bridge sampling"}
    for method in ("importance sampling", "bridge sampling"):
        entry = found[method]
        assert abs(entry.value - exact()) < 4.5 * entry.se < 0.2
        assert entry.normalized
    assert found["ELBO"].value < exact() + 4.5 * found["ELBO"].se
    assert evidence.bridge_left_out is None
    assert evidence.warnings == ()


def test_the_model_is_built_from_the_fit_where_it_is_not_given(model, fit, reference):
    given, built = (estimate(fit, reference, LABELS, m) for m in (model, None))
    assert by_method(built)["bridge sampling"].value == pytest.approx(
        by_method(given)["bridge sampling"].value
    )
    swapped = estimate(reference, fit, LABELS[::-1], model)
    assert by_method(swapped)["bridge sampling"] == by_method(given)["bridge sampling"]
    summary = compare(fit, reference, model=model).summary
    methods = [entry["method"] for entry in summary["evidence"]]
    assert methods == ["ELBO", "importance sampling", "bridge sampling"]


def test_constants_are_added_and_their_absence_is_said(model, fit, reference):
    found = by_method(estimate(fit, reference, LABELS, model))["bridge sampling"]
    unknown = {"value": 0.0, "known": False, "reason": "it varies"}
    bare = replace(fit, report={**fit.report, "normalized": False, "normalizing_constant": unknown})
    entry = by_method(estimate(bare, reference, LABELS, model))["bridge sampling"]
    constant = fit.report["normalizing_constant"]["value"]
    assert entry.value + constant == pytest.approx(found.value)
    assert not entry.normalized
    assert "WITHOUT Stan's dropped constants" in str(compare(bare, reference, model=model))


def test_draws_that_the_program_refuses_shrink_the_flow(model, fit, reference):
    """Half of the flow's mass is cut off, so its density is twice as high on the rest."""
    half = replace(fit, report={**fit.report, "rejected_draws": fit.report["evidence_draws"]})
    ours = by_method(estimate(fit, reference, LABELS, model))["bridge sampling"].value
    theirs = by_method(estimate(half, reference, LABELS, model))["bridge sampling"].value
    assert theirs == pytest.approx(ours - np.log(2))


def test_why_there_is_no_bridge_is_said(model, fit, reference):
    outside = reference.values.copy()
    outside[..., 0] = -30
    found = estimate(fit, replace(reference, values=outside), LABELS, model)
    assert "could not be mapped to unconstrained space" in found.bridge_left_out
    assert len(found.entries) == 2
    short = replace(reference, columns=reference.columns[1:], values=reference.values[..., 1:])
    assert estimate(fit, short, LABELS, model).bridge_left_out == "the NUTS run has no draws of mu"
    broken = estimate(replace(fit, program="parameters { real x }"), reference, LABELS, None)
    assert broken.bridge_left_out
    assert "\n" not in broken.bridge_left_out
    assert len(broken.entries) == 2
    comparison = compare(flow_run(np.random.default_rng(1).normal(size=(500, 1))),
                         flow_run(np.random.default_rng(2).normal(size=(500, 1))))  # fmt: skip
    assert "NUTS on the other" in comparison.summary["bridge_left_out"]


def test_a_model_of_another_program_is_refused(model):
    runs = [nuts_run(np.random.default_rng(s).normal(size=(4, 100, 1))) for s in (1, 2)]
    with pytest.raises(UsageError, match=r"the program of the model .* is not that of the runs"):
        compare(*runs, model=model)


def test_a_few_draws_on_a_boundary_are_left_out(model, fit, reference):
    rounded = reference.values.copy()
    rounded[2, 17, 0] = -20
    every = rounded.shape[1]
    some = replace(reference, values=rounded[:, : every // 2])  # all draws of a chain are used
    found = by_method(estimate(fit, some, LABELS, model))["bridge sampling"]
    assert "4 left out" in found.note
    assert abs(found.value - exact()) < 4.5 * found.se


def test_without_a_flow_there_is_no_evidence(reference):
    found = estimate(reference, reference, LABELS, None)
    assert found.entries == ()


def test_estimates_that_contradict_each_other_are_pointed_out():
    sampled = EvidenceEntry("importance sampling", "flow", -11.0, 0.05, True)
    bridge = EvidenceEntry("bridge sampling", "both", -10.0, 0.05, True)
    (warning,) = _contradictions([sampled], bridge)
    assert "1.00 nats below bridge sampling (z = 14.1)" in warning
    assert "the flow probably misses" in warning
    assert _contradictions([replace(sampled, value=-10.1)], bridge) == ()
    assert _contradictions([replace(sampled, se=1.0)], bridge) == ()


def test_a_flow_that_lacks_a_mode_is_found_by_the_bridge():
    """Two far modes of equal mass; the flow has one of them."""
    model = stanflow.StanModel(
        stan_code="""
        parameters { real x; }
        model { target += log_mix(0.5, normal_lpdf(x | -10, 1), normal_lpdf(x | 10, 1)); }
        """,
        engine="embedded",
    )
    rng = np.random.default_rng(3)
    z = rng.normal(10, 1, size=(2000, 1))
    fit = flow_run(z, columns=("x",), log_evidence=np.log(0.5), log_evidence_se=0.001)
    fit.flow.flat.zero_()
    location = next(
        p for name, p in fit.flow.named_parameters() if "location" in name or "shift" in name
    )
    location.data.fill_(10.0)
    with torch.no_grad():
        log_q = fit.flow.log_prob(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(log_q, stats.norm.logpdf(z[:, 0], 10, 1))
    fit = replace(fit, log_q=log_q, log_p=model.log_density_gradient(z).log_density)
    values = rng.normal(size=(4, 500, 1)) + 10 * rng.choice([-1, 1], size=(4, 500, 1))
    evidence = estimate(fit, nuts_run(values), LABELS, model)
    assert by_method(evidence)["bridge sampling"].value == pytest.approx(0, abs=0.15)
    assert "the flow probably misses a part of the posterior" in evidence.warnings[0]


def test_resampled_draws_are_not_bridged(model, fit, reference):
    """They are draws of the posterior, as far as the weights are right, and not of the flow."""
    evidence = estimate(fit.resampled(), reference, LABELS, model)
    assert set(by_method(evidence)) == {"ELBO", "importance sampling"}
    assert "resampled" in evidence.bridge_left_out
