"""Whether to believe draws that were moved from a flow to the posterior."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from stanflow.estimates.boundary import Boundary
from stanflow.estimates.elbo import Elbo
from stanflow.estimates.verdict import (
    MISSING_MASS_NOTICED,
    Objection,
    Verdict,
    conclude,
    to_rejected_draws,
    to_unbounded,
)
from stanflow.refine.elsewhere import Elsewhere
from stanflow.refine.refined import Outward, Refined

_RHAT_NOTICED, _LARGEST_RHAT = 1.03, 1.1
_SHIFT_NOTICED, _LARGEST_SHIFT = 0.1, 0.5  # standard deviations
_EFFECTIVE_NOTICED, _FEWEST_EFFECTIVE = 400, 100
_ERROR_NOTICED, _LARGEST_ERROR = 0.25, 1.0  # nats
_GAP_NOTICED, _LARGEST_GAP, _STANDARD_ERRORS = 0.1, 0.5, 3.0  # nats
_MISSING, _TAIL_NOTICED = 0.05, 0.01  # shares of the posterior
_APART_NOTICED, _LARGEST_APART = 1.2, 1.6  # R-hat
_ESCAPED_NOTICED, _MOST_ESCAPED = 0.1, 0.5  # share of the chains
_DIVERGENCE_NOTICED, _NOTICED_A_ROOT_DIMENSION = 3.0, 0.7  # nats
_LARGEST_DIVERGENCE = 2.0  # times as much
_FAR_FOR_UNSETTLED = 1.0  # nats
_LARGEST_ADDED = 9.0  # nats, by what lies outward
_FEWEST_STEPS = 100
_HIGHEST_K = 0.7

_LONGER = "give refining more time (--max-seconds), or train longer (--max-steps)"
_TRAIN = "train longer (--max-steps), so that the flow is nearer to the posterior"
_HEAVIER = "take a flow with heavier tails (a Student-t base), and train it longer (--max-steps)"
_COMPARE = "run NUTS with several chains and compare (`stanflow nuts`, `stanflow compare`)"


def judge(
    refined: Refined,
    elsewhere: Elsewhere,
    elbo: Elbo,
    *,
    in_tails: float = 0.0,
    constant: float,
    steps: int,
    rejected_share: float = 0.0,
    boundary: Boundary | None = None,
    unbounded: Sequence[str] = (),
) -> Verdict:
    """Judge refined draws: ``good``, ``usable``, or ``unreliable``.

    They are unreliable if the islands' nested R-hat is above 1.1; the draws were still moving, with
    half a standard deviation to go; they are worth fewer than 100; the evidence's error is above a
    nat; its two estimates are half a nat apart, and three standard errors, or it is as far below
    the ELBO; the EUBO is above it by 6 nats and by ``1.4 sqrt(D)``, both without what lies outward;
    what lies outward was not followed to its end, or adds 9 nats to the log evidence; chains from
    elsewhere found 5 % of the posterior where there are no draws, half of them ended there, or they
    did not come together with the draws (R-hat above 1.6); 5 % of the posterior are in tails that
    draws never came to. They are good if all of these are smaller still, Pareto k-hat of the
    bridge's terms is below 0.7, there were 100 steps of training at least, and moves ended with
    the draws settled, or with the EUBO within a nat of the log evidence.

    Parameters
    ----------
    refined : Refined
    elsewhere : Elsewhere
    elbo : Elbo
        Of the flow.
    in_tails : float
        From `tails.mass_in_tails`.
    constant : float
        What the ELBO has in addition to the estimates of `refined`.
    steps : int
        Of training.
    rejected_share : float
        Share of the flow's mass where the program has no finite log density.
    boundary : Boundary or None
        Beyond which value of which parameter that is.
    unbounded : sequence of str
        Parameters along which the density does not fall.
    """
    objections = [
        *to_unbounded(unbounded),
        *_to_coverage(elsewhere),
        *_to_tails(in_tails),
        *_to_settling(refined),
        *_to_outward(refined.outward),
        *_to_evidence(refined, elbo, constant),
        *to_rejected_draws(rejected_share, boundary),
        *_to_training(steps),
    ]
    settling = refined.settling
    return conclude(
        objections,
        f"{refined.islands} islands of particles agree (R-hat {settling.rhat:.3f}) and have "
        f"settled; {elsewhere.chains - elsewhere.escaped} of {elsewhere.chains} chains from "
        "elsewhere came to the same",
        only_causes=bool(unbounded),
    )


def _to_training(steps: int) -> Iterator[Objection]:
    """Object to a training so short that draws moved from it may miss what it has not seen."""
    if steps < _FEWEST_STEPS:
        yield Objection(
            False,
            f"{steps} training steps are few for a flow that draws are to be moved from",
            _TRAIN,
        )


def _to_coverage(elsewhere: Elsewhere) -> Iterator[Objection]:
    told = not math.isnan(elsewhere.log_missing_mass)
    share = elsewhere.missing_share
    if share > MISSING_MASS_NOTICED:
        yield Objection(
            share > _MISSING,
            f"{elsewhere.escaped} of {elsewhere.chains} chains started elsewhere ended where there "
            f"are no draws: a mode or a tail is missing, about {share:.0%} of the posterior",
            _COMPARE,
        )
    elif elsewhere.escaped > _ESCAPED_NOTICED * elsewhere.chains:
        yield Objection(
            elsewhere.escaped > _MOST_ESCAPED * elsewhere.chains,
            f"{elsewhere.escaped} of {elsewhere.chains} chains started elsewhere ended where there "
            f"are no draws{', though hardly any mass was found there' if told else ''}",
            _COMPARE,
        )
    if not elsewhere.rhat < _APART_NOTICED:
        yield Objection(
            not elsewhere.rhat < _LARGEST_APART,
            f"chains started elsewhere did not come to where the draws are (R-hat "
            f"{elsewhere.rhat:.2f})",
            _COMPARE,
        )


def _to_tails(missing: float) -> Iterator[Objection]:
    if missing > _TAIL_NOTICED:
        yield Objection(
            missing > _MISSING,
            f"about {missing:.0%} of the posterior is in tails that the draws have not come to",
            _HEAVIER,
        )


def _to_outward(outward: Outward | None) -> Iterator[Objection]:
    if outward is None:
        return
    if not outward.ended:
        yield Objection(
            True,
            "the posterior goes on beyond the draws along one coordinate, and was not followed to "
            "its end",
            _LONGER,
        )
    if not outward.log_added.value < _LARGEST_ADDED:
        share = math.exp(-outward.log_added.value)
        yield Objection(
            True,
            f"the draws moved from the flow are {share:.1g} of the posterior that was found beyond "
            "them: there may be more beside them, too, that nothing found",
            _COMPARE,
        )


def _to_settling(refined: Refined) -> Iterator[Objection]:
    found = refined.settling
    if not found.rhat < _RHAT_NOTICED:
        yield Objection(
            not found.rhat < _LARGEST_RHAT,
            f"the {refined.islands} islands of particles disagree (R-hat {found.rhat:.2f})",
            _LONGER,
        )
    if not found.shift < _SHIFT_NOTICED:
        yield Objection(
            not found.shift < _LARGEST_SHIFT,
            f"the draws were still on the move, a mean by about {found.shift:.1f} standard "
            "deviations more",
            _LONGER,
        )
    if not found.ess >= _EFFECTIVE_NOTICED:
        yield Objection(
            not found.ess >= _FEWEST_EFFECTIVE,
            f"the draws are worth only {found.ess:.0f} independent ones",
            _LONGER,
        )
    above = refined.eubo - refined.log_evidence.value
    if refined.stopped != "settled" and refined.outward is None and above >= _FAR_FOR_UNSETTLED:
        yield Objection(
            False,
            "moves ended before the draws were as many as were asked for, and the EUBO is "
            f"{above:.1f} nats above the log evidence: there may be more where the flow has little",
            _LONGER,
        )


def _to_evidence(refined: Refined, elbo: Elbo, constant: float) -> Iterator[Objection]:
    best, annealed, bridge = refined.log_evidence, refined.annealed, refined.bridge
    if not best.se < _ERROR_NOTICED:
        yield Objection(
            not best.se < _LARGEST_ERROR,
            f"the log evidence is known to {best.se:.2f} nats only",
            _LONGER,
        )
    if bridge is not None and bridge.pareto_k is not None and not bridge.pareto_k < _HIGHEST_K:
        yield Objection(
            False,
            f"Pareto k-hat of the bridge's terms is {bridge.pareto_k:.2f}: flow and draws overlap "
            "too little for its standard error",
            _TRAIN,
        )
    if bridge is not None:
        gap, error = abs(bridge.value - annealed.value), math.hypot(bridge.se, annealed.se)
        if gap > max(_GAP_NOTICED, _STANDARD_ERRORS * error):
            yield Objection(
                gap > _LARGEST_GAP,
                f"annealing and bridge sampling give log evidences {gap:.2f} nats apart",
                _LONGER,
            )
    divergence = refined.eubo - best.value
    if refined.outward is not None:
        divergence = refined.outward.eubo - (best.value - refined.outward.log_added.value)
    noticed = max(_DIVERGENCE_NOTICED, _NOTICED_A_ROOT_DIMENSION * math.sqrt(refined.z.shape[1]))
    if not divergence < noticed:
        yield Objection(
            not divergence < _LARGEST_DIVERGENCE * noticed,
            f"the EUBO is {divergence:.1f} nats above the log evidence: the flow lacks much of the "
            "posterior's tails, and moves may not have filled all of them",
            _TRAIN,
        )
    below = elbo.value - (best.value + constant)
    if below > max(_GAP_NOTICED, _STANDARD_ERRORS * math.hypot(best.se, elbo.se)):
        yield Objection(
            below > _LARGEST_GAP,
            f"the log evidence is {below:.2f} nats below the ELBO, which is a lower bound",
            _LONGER,
        )
