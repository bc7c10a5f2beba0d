"""Each thing that speaks against a fit, on its own."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from stanflow.estimates.boundary import Boundary
from stanflow.estimates.bridge import BridgeEstimate
from stanflow.estimates.elbo import Elbo
from stanflow.estimates.importance import ImportanceEstimate
from stanflow.estimates.probe import Probe
from stanflow.estimates.tails import TailCheck
from stanflow.estimates.verdict import Diagnostics, judge

S, D = 4000, 3
RNG = np.random.default_rng(1)
Z = RNG.normal(size=(S, D))
EQUAL = np.full(S, -math.log(S))
GOOD = Diagnostics(
    elbo=Elbo(-10.0, 0.001, normalized=True),
    importance=ImportanceEstimate(-9.99, 0.002, -9.99, True, 0.2, 3900.0, EQUAL),
    z=Z,
    rejected_share=0.0,
    trace=-10 + 0.05 * RNG.normal(size=1000),
    skipped_steps=0,
    probe=Probe(
        32, 0, -math.inf, BridgeEstimate(-11.99, 0.003, True, 5, 0.1), 1.05, np.zeros((1, 32, 1))
    ),
    tails=TailCheck(0.0),
    constant=2.0,
)


def importance(**changes):
    return replace(GOOD, importance=replace(GOOD.importance, **changes))


def probe(**changes):
    return replace(GOOD, probe=replace(GOOD.probe, **changes))


def weights(log_weights):
    return importance(log_weights=log_weights - np.log(np.exp(log_weights).sum()))


def bridge(value, se=0.003):
    return probe(bridge=BridgeEstimate(value, se, True, 5, 0.1))


def one_heavy_half():
    """Weights that favour one sign of a coordinate in the first half of the draws only."""
    return np.where(np.arange(S) < S // 2, Z[:, 0], 0.0)


BAD = {
    "k too high": (importance(pareto_k=0.71), "Pareto k-hat is 0.71"),
    "no k": (importance(pareto_k=math.inf), "draws are too few to tell a Pareto k-hat"),
    "few effective draws": (importance(ess=50.0), "worth only 50 draws"),
    "smoothing matters": (importance(smoothed_log_evidence=-9.8), "0.19 nats apart"),
    "missing mode": (probe(escaped=9, log_missing_mass=math.log(0.4)), "about 29% of the post"),
    "more than it has": (probe(escaped=9, log_missing_mass=2.0), "about 88% of the post"),
    "chains apart, mass found": (
        probe(rhat=2.0, escaped=1, log_missing_mass=math.log(0.01)),
        "do not vouch for the flow",
    ),
    "chains apart, no bridge": (probe(rhat=2.0, bridge=None), "do not vouch for the flow"),
    "chains apart, bridge beside": (
        probe(rhat=2.0, bridge=BridgeEstimate(-11.85, 0.1, True, 5, 0.1)),
        "do not vouch for the flow",
    ),
    "chains apart, weights heavy": (
        replace(importance(pareto_k=0.71), probe=replace(GOOD.probe, rhat=2.0)),
        "do not vouch for the flow",
    ),
    "bridge above": (bridge(-11.7), "0.29 nats below that by bridge .* lacks mass"),
    "bridge below": (bridge(-12.2), "0.21 nats above that by bridge"),
    "light tails": (replace(GOOD, tails=TailCheck(0.02)), "too light: at least 2.00%"),
    "rejections": (replace(GOOD, rejected_share=0.4), "40.0% of the flow's draws have no finite"),
    "improper": (
        replace(GOOD, unbounded=("mu",)),
        "may be improper: its density does not fall along mu",
    ),
    "breakdown": (replace(GOOD, breakdown="training broke down"), "training broke down"),
    "skipped": (replace(GOOD, skipped_steps=200), "200 of 1000 training steps"),
    "few steps": (replace(GOOD, trace=GOOD.trace[:99]), "99 training steps are too few"),
    "still rising": (replace(GOOD, trace=GOOD.trace + np.linspace(0, 6, 1000)), "rose by 1.2 nats"),
    "no trace": (replace(GOOD, trace=np.full(1000, np.nan)), "rose by nan"),
    "halves": (weights(one_heavy_half()), "two halves of the draws disagree"),
    "too narrow": (weights(0.3 * Z[:, 0] ** 2), "widens a standard deviation by"),
}
DOUBTFUL = {
    "chains apart": (probe(rhat=2.0), "say less of what the flow may lack"),
    "chains stuck where there is no mass": (
        probe(rhat=2.0, escaped=15, log_missing_mass=-340.0),
        "say less of what the flow may lack",
    ),
    "no R-hat": (probe(rhat=math.nan), "say less of what the flow may lack"),
    "k": (importance(pareto_k=0.55), "Pareto k-hat is 0.55, above 0.5"),
    "some missing": (probe(escaped=1, log_missing_mass=math.log(0.01)), "about 1% of the post"),
    "bridge": (bridge(-11.94), "0.05 nats below"),
    "tails": (replace(GOOD, tails=TailCheck(0.0015)), "too light"),
    "rejections": (replace(GOOD, rejected_share=0.05), "5.0% of the flow's draws"),
    "boundary": (
        replace(GOOD, rejected_share=0.2, boundary=Boundary("sigma", None, 2.0)),
        "20.0% of .* finite log density, nearly all of them where sigma is above 2",
    ),
    "rising": (
        replace(GOOD, trace=GOOD.trace + np.linspace(0, 1, 1000), elbo=Elbo(-10.2, 0.001, True)),
        r"still rose by 0\.\d+ nats",
    ),
    "kl": (replace(GOOD, elbo=Elbo(-10.2, 0.001, True)), "ELBO is 0.21 nats below"),
    "kl without bridge": (
        replace(probe(bridge=None), elbo=Elbo(-10.2, 0.001, True)),
        "ELBO is 0.21 nats below",
    ),
    "shift": (weights(0.5 * Z[:, 1]), r"moves a mean by 0\.\d+ st"),
    "too wide": (weights(-0.3 * Z[:, 1] ** 2), "changes a standard deviation by -2"),
}


def test_an_elbo_that_rose_to_the_evidence_rose_enough():
    assert judge(replace(GOOD, trace=GOOD.trace + np.linspace(0, 1, 1000))).name == "good"


def test_nothing_against_it_is_good():
    verdict = judge(GOOD)
    assert (verdict.name, verdict.advice) == ("good", ())
    assert "Pareto k-hat 0.20; the evidence estimate is 0.010 nats above" in verdict.reasons[0]


@pytest.mark.parametrize("case", BAD)
def test_what_makes_a_fit_unreliable(case):
    diagnostics, reason = BAD[case]
    verdict = judge(diagnostics)
    assert verdict.name == "unreliable"
    assert any(re.search(reason, r) for r in verdict.reasons)
    assert verdict.advice


@pytest.mark.parametrize("case", DOUBTFUL)
def test_what_makes_weights_necessary(case):
    diagnostics, reason = DOUBTFUL[case]
    verdict = judge(diagnostics)
    assert verdict.name == "usable", verdict.reasons
    assert any(re.search(reason, r) for r in verdict.reasons)
    assert verdict.advice


@pytest.mark.parametrize(
    "diagnostics",
    [
        importance(pareto_k=0.49),
        bridge(-11.97),
        bridge(-11.7, se=0.2),  # within its error
        probe(escaped=2, log_missing_mass=math.log(0.001), rhat=1.5),
        probe(bridge=None),
        replace(GOOD, tails=TailCheck(0.0004)),
        replace(GOOD, rejected_share=0.005, skipped_steps=50),
        weights(0.05 * Z[:, 1]),
    ],
)
def test_what_is_within_bounds_does_no_harm(diagnostics):
    assert judge(diagnostics).name == "good"


def test_the_gravest_comes_first_and_its_advice_alone_counts():
    both = replace(
        GOOD,
        importance=replace(GOOD.importance, pareto_k=0.55),
        tails=TailCheck(0.02),
    )
    verdict = judge(both)
    assert verdict.name == "unreliable"
    assert "tails" in verdict.reasons[0]
    assert "k-hat" in verdict.reasons[1]
    assert verdict.advice == (
        "use a heavier base (--base student-t), or train longer (--max-steps)",
    )


def test_no_number_is_told_that_means_nothing():
    for huge in (weights(60 * Z[:, 1]), replace(GOOD, z=np.full((S, D), 1e30) * (Z > 3.3))):
        said = " ".join(judge(huge).reasons)
        assert not re.search(r"\d{6}", said), said
