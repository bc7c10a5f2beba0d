"""What makes refined draws good, usable, or unreliable."""

from dataclasses import replace

import numpy as np
import pytest

from stanflow.estimates.elbo import Elbo
from stanflow.refine.elsewhere import Elsewhere
from stanflow.refine.refined import LogEvidence, Outward, Refined
from stanflow.refine.settling import Settling
from stanflow.refine.verdict import judge

NOTHING = np.zeros((10, 2))
REFINED = Refined(
    base_points=NOTHING,
    z=NOTHING,
    log_p=np.zeros(10),
    log_q=np.zeros(10),
    annealed=LogEvidence(-5.0, 0.02),
    bridge=LogEvidence(-5.01, 0.01),
    eubo=-4.9,
    settling=Settling(rhat=1.01, shift=0.0, ess=1500.0),
    temperatures=5,
    transitions=40,
    acceptance=0.8,
    log_step=0.0,
    stopped="settled",
    particles=512,
    islands=8,
)
VISITED = np.zeros((1, 32, 1))
ELSEWHERE = Elsewhere(32, 0, -np.inf, 1.05, VISITED)
ELBO = Elbo(value=-3.2, se=0.01, normalized=True)
CONSTANT = 2.0


def judged(refined=REFINED, elsewhere=ELSEWHERE, elbo=ELBO, **settings):
    return judge(refined, elsewhere, elbo, constant=CONSTANT, **{"steps": 500} | settings)


def test_nothing_against_it_is_good():
    verdict = judged()
    assert verdict.name == "good"
    assert "8 islands" in verdict.reasons[0]
    assert "32 of 32 chains" in verdict.reasons[0]


@pytest.mark.parametrize(("steps", "name"), [(50, "usable"), (99, "usable"), (100, "good")])
def test_a_flow_of_a_few_steps_is_not_good_for_that(steps, name):
    verdict = judged(steps=steps)
    assert verdict.name == name
    assert ("training steps are few" in verdict.reasons[0]) == (name == "usable")


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        ({"settling": Settling(1.05, 0.0, 1500)}, "usable", "disagree"),
        ({"settling": Settling(1.2, 0.0, 1500)}, "unreliable", "disagree"),
        ({"settling": Settling(float("nan"), 0.0, 1500)}, "unreliable", "disagree"),
        ({"settling": Settling(1.01, 0.2, 1500)}, "usable", "still on the move"),
        ({"settling": Settling(1.01, 2.0, 1500)}, "unreliable", "still on the move"),
        ({"settling": Settling(1.01, 0.0, 200)}, "usable", "worth only 200"),
        ({"settling": Settling(1.01, 0.0, 20)}, "unreliable", "worth only 20"),
        ({"bridge": None, "annealed": LogEvidence(-5, 0.5)}, "usable", "known to 0.50 nats"),
        ({"bridge": None, "annealed": LogEvidence(-5, 3.0)}, "unreliable", "known to 3.00"),
        ({"stopped": "evaluations", "eubo": -3.9}, "usable", "1.1 nats above the log evidence"),
        ({"eubo": -1.0}, "usable", "4.0 nats above the log evidence"),
        ({"eubo": 5.0}, "unreliable", "10.0 nats above the log evidence"),
        ({"bridge": LogEvidence(-5.0, 0.01, 0.8)}, "usable", "the bridge's terms is 0.80"),
        ({"bridge": LogEvidence(-5.2, 0.01)}, "usable", "0.20 nats apart"),
        ({"bridge": LogEvidence(-6.0, 0.01)}, "unreliable", "1.00 nats apart"),
    ],
)
def test_what_the_draws_say_against_themselves(change, name, reason):
    verdict = judged(replace(REFINED, **change))
    assert verdict.name == name
    assert reason in verdict.reasons[0]
    assert verdict.advice


@pytest.mark.parametrize(
    ("elsewhere", "name", "reason"),
    [
        (Elsewhere(32, 3, np.log(0.02), 1.05, VISITED), "usable", "about 2% of the posterior"),
        (Elsewhere(32, 3, np.log(0.5), 1.05, VISITED), "unreliable", "about 33% of the posterior"),
        (Elsewhere(32, 8, -30.0, 1.05, VISITED), "usable", "8 of 32 chains"),
        (Elsewhere(32, 8, np.nan, 1.05, VISITED), "usable", "8 of 32 chains"),
        (Elsewhere(32, 20, -30.0, 1.05, VISITED), "unreliable", "20 of 32 chains"),
        (Elsewhere(32, 0, -np.inf, 1.3, VISITED), "usable", "did not come to where"),
        (Elsewhere(32, 0, -np.inf, np.inf, VISITED), "unreliable", "did not come to where"),
        (Elsewhere(32, 0, -np.inf, np.nan, VISITED), "unreliable", "did not come to where"),
    ],
)
def test_what_chains_from_elsewhere_say(elsewhere, name, reason):
    verdict = judged(elsewhere=elsewhere)
    assert verdict.name == name
    assert reason in verdict.reasons[0]


@pytest.mark.parametrize(
    ("missing", "name"),
    [(0.0, "good"), (np.nan, "good"), (0.009, "good"), (0.02, "usable"), (0.15, "unreliable")],
)
def test_what_tails_say(missing, name):
    verdict = judged(in_tails=missing)
    assert verdict.name == name
    assert ("is in tails that the draws have not come to" in verdict.reasons[0]) == (name != "good")


def test_evidence_below_its_lower_bound_is_wrong():
    verdict = judged(elbo=replace(ELBO, value=-2.0))
    assert verdict.name == "unreliable"
    assert "below the ELBO" in verdict.reasons[0]


def test_an_improper_posterior_is_told_first():
    verdict = judged(unbounded=("mu",))
    assert verdict.name == "unreliable"
    assert "improper" in verdict.reasons[0]
    assert verdict.advice == ("give mu a proper prior",)


def test_what_was_not_followed_to_its_end_is_unreliable():
    outward = Outward(0, 0.3, LogEvidence(0.2, 0.02), 40, ended=False, eubo=-5.0)
    verdict = judged(replace(REFINED, outward=outward))
    assert verdict.name == "unreliable"
    assert "not followed to its end" in verdict.reasons[0]


@pytest.mark.parametrize(("added", "name"), [(8.5, "good"), (9.5, "unreliable")])
def test_draws_that_are_next_to_nothing_of_the_posterior_vouch_for_nothing(added, name):
    outward = Outward(0, 1.0, LogEvidence(added, 0.02), 40, ended=True, eubo=-added - 4.9)
    verdict = judged(replace(REFINED, outward=outward))
    assert verdict.name == name
    assert ("beyond them" in verdict.reasons[0]) == (name == "unreliable")


@pytest.mark.parametrize(("eubo", "name"), [(-4.9, "good"), (-1.0, "usable")])
def test_the_eubo_is_judged_without_what_lies_outward(eubo, name):
    """The flow need not hold what was found beyond what was moved from it."""
    outward = Outward(0, 0.3, LogEvidence(0.2, 0.02), 40, ended=True, eubo=eubo)
    added = {"annealed": LogEvidence(-4.8, 0.03), "bridge": LogEvidence(-4.81, 0.03)}
    verdict = judged(replace(REFINED, outward=outward, eubo=100.0, **added))
    assert verdict.name == name
