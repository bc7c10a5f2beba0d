"""Whether to believe a fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.estimates.boundary import Boundary
from stanflow.estimates.elbo import Elbo
from stanflow.estimates.importance import ImportanceEstimate, highest_pareto_k
from stanflow.estimates.probe import Probe
from stanflow.estimates.tails import TailCheck
from stanflow.statistics.importance_weights import normalized
from stanflow.statistics.medians import gain_of_medians

VerdictName = Literal["good", "usable", "unreliable"]
VERDICTS: tuple[VerdictName, ...] = get_args(VerdictName)  # the best first

HIGHEST_K_UNWEIGHTED = 0.5
_FEWEST_EFFECTIVE_DRAWS = 100
_MOST_REJECTED, _MOST_REJECTED_UNWEIGHTED = 0.3, 0.01
_MOST_SKIPPED = 0.1
_LARGEST_SHIFT = 0.1  # of a mean by weighting, in standard deviations, and of a log sd
_WIDEST = 0.2  # widening of a standard deviation by weighting
_FALSE_ALARMS = 1e-4  # of a test over all coordinates
_FEWEST_STEPS = 100
_LAST_SHARE = 0.2  # of the steps
_GAIN_STILL_RISING, _GAIN_UNCONVERGED = 0.1, 1.0  # nats
MISSING_MASS_NOTICED, _MISSING_MASS = 0.002, 0.05  # share of the posterior
_MISSING_TAIL_NOTICED, _MISSING_TAIL = 0.0005, 0.0025  # the same
_LARGEST_GAP_OF_ESTIMATES = 0.1  # nats, from raw and smoothed weights
_LARGEST_GAP_UNNOTICED, _LARGEST_GAP, _STANDARD_ERRORS = 0.03, 0.1, 2.5  # nats, from bridging
_LARGEST_RHAT = 1.6  # of short chains, as the probe's are
_LARGEST_KL = 0.1  # nats
_LARGEST_IN_FULL = 1000


@dataclass(frozen=True)
class Verdict:
    """A fit judged.

    Attributes
    ----------
    name : {"good", "usable", "unreliable"}
        Draws can be used as they are; with their importance weights; or not at all.
    reasons : tuple of str
        What speaks against the fit, in plain words, the gravest first; for a good fit what speaks
        for it.
    advice : tuple of str
        What to try next; empty for a good fit.
    """

    name: VerdictName
    reasons: tuple[str, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True)
class Diagnostics:
    """What a verdict is founded on.

    Attributes
    ----------
    elbo : Elbo
    importance : ImportanceEstimate
        The first S of its weights belong to `z`.
    z : array of shape (S, D)
        Draws of the flow.
    rejected_share : float
        Share of the flow's mass where the program has no finite log density.
    trace : array of shape (steps,)
        ELBO of each training step, NaN where there was none.
    skipped_steps : int
        Steps without a finite gradient.
    probe : Probe
    tails : TailCheck
    constant : float
        What the ELBO and the importance estimate have in addition to the probe's estimate.
    boundary : Boundary or None
        Beyond which value of which parameter draws are rejected.
    unbounded : tuple of str
        Parameters along which the density does not fall.
    breakdown : str
        How training broke down for good; empty if it did not.
    """

    elbo: Elbo
    importance: ImportanceEstimate
    z: FloatArray
    rejected_share: float
    trace: FloatArray
    skipped_steps: int
    probe: Probe
    tails: TailCheck
    constant: float
    boundary: Boundary | None = None
    unbounded: tuple[str, ...] = ()
    breakdown: str = ""


@dataclass(frozen=True)
class Objection:
    """One thing that speaks against a fit: `fatal` ones make it unreliable, others usable.

    What others may come from, `is_cause`, has its advice told beside theirs.
    """

    fatal: bool
    reason: str
    advice: str
    is_cause: bool = False


_HEAVIER = "use a heavier base (--base student-t), or train longer (--max-steps)"
_TRAIN_LONGER = "train longer (--max-steps)"
_MORE_FLOW = "use a larger flow (--layers, --hidden) and train longer (--max-steps)"
_MORE_DRAWS = "take more draws (--draws)"
_REPARAMETRIZE = "reparametrize the program, or use NUTS"
_COMPARE = "run NUTS with several chains and compare (`stanflow nuts`, `stanflow compare`)"
_CONSTRAIN = "declare the constraints that the model block relies on"
_CHECK = "check the program's constraints and priors, or use NUTS"
_WEIGHT = "use importance-weighted draws"


def judge(diagnostics: Diagnostics) -> Verdict:
    """Judge a fit: ``good``, ``usable`` with its importance weights, or ``unreliable``.

    A fit is unreliable if any of these holds: chains from elsewhere found mass that the flow lacks,
    5 % of the posterior or more; the flow's tails are too light for 0.25 % of it; bridge sampling
    with these chains puts the log evidence 0.1 nats elsewhere; k-hat is above
    ``min(1 - 1 / log10(S), 0.7)``; the weighted draws are worth fewer than 100; training broke
    down for good; more than 30 % of the draws are rejected; 10 % of the steps were skipped; the
    ELBO rose by more than a nat over the last fifth of training, or there were too few steps to
    tell; the two halves of the draws disagree; weighting widens a standard deviation by more than
    20 %; or raw and Pareto-smoothed weights give different evidences. Chains that did not come
    together make it unreliable, too, unless none of the above holds, none of them found mass that
    the flow lacks, and bridge sampling agrees.

    It is good if, besides, all of these are smaller still, k-hat is below 0.5, the ELBO is within
    0.1 nats of the log evidence, and weighting changes no mean by more than a tenth of a standard
    deviation and no standard deviation by more than 10 %, beyond Monte Carlo error.

    Parameters
    ----------
    diagnostics : Diagnostics
        What is known of the fit.
    """
    others = list(_objections(diagnostics))
    mixing = _to_mixing(diagnostics, vouched=not any(other.fatal for other in others))
    k, elbo = diagnostics.importance.pareto_k, diagnostics.elbo.value
    return conclude(
        [*others, *mixing],
        f"Pareto k-hat {k:.2f}; the evidence estimate is "
        f"{diagnostics.importance.log_evidence - elbo:.3f} nats above the ELBO; "
        f"{diagnostics.probe.chains} chains from elsewhere found no mass that the flow "
        "lacks",
        only_causes=bool(diagnostics.unbounded),
    )


def conclude(objections: Sequence[Objection], vouching: str, *, only_causes: bool) -> Verdict:
    """Return the verdict that objections lead to.

    Parameters
    ----------
    objections : sequence of Objection
    vouching : str
        What to say where there are none.
    only_causes : bool
        Whether advice comes from those that are causes of others alone.
    """
    if not objections:
        return Verdict("good", (vouching,), ())
    gravest_first = sorted(objections, key=lambda objection: not objection.fatal)
    fatal = gravest_first[0].fatal
    causes = [o for o in gravest_first if o.is_cause]
    graver = causes if only_causes else [o for o in gravest_first if o.fatal == fatal]
    advice = dict.fromkeys(o.advice for o in [*graver, *causes])
    reasons = tuple(objection.reason for objection in gravest_first)
    return Verdict("unreliable" if fatal else "usable", reasons, tuple(advice))


@np.errstate(all="ignore")  # weights of draws that are far off overflow
def flow_suffices(
    elbo: Elbo, importance: ImportanceEstimate, z: FloatArray, trace: FloatArray
) -> bool:
    """Return whether nothing in a flow's training and importance weights speaks against its draws.

    Parameters
    ----------
    elbo : Elbo
    importance : ImportanceEstimate
        The first S of its weights belong to `z`.
    z : array of shape (S, D)
    trace : array of shape (steps,)
        ELBO of each training step.
    """
    objections = (
        *_to_convergence(trace, elbo, importance),
        *_to_divergence(elbo, importance),
        *_to_weights(importance),
        *_to_halves(z, importance),
        *_to_unweighted_draws(z, importance),
    )
    return not objections


def _objections(diagnostics: Diagnostics) -> Iterator[Objection]:
    yield from to_unbounded(diagnostics.unbounded)
    if diagnostics.breakdown:
        yield Objection(True, diagnostics.breakdown, _CHECK)
    yield from _to_coverage(diagnostics.probe)
    yield from _to_tails(diagnostics.tails)
    yield from _to_evidence(diagnostics)
    yield from _to_weights(diagnostics.importance)
    yield from to_rejected_draws(diagnostics.rejected_share, diagnostics.boundary)
    yield from _to_skipped_steps(diagnostics)
    yield from _to_convergence(diagnostics.trace, diagnostics.elbo, diagnostics.importance)
    yield from _to_halves(diagnostics.z, diagnostics.importance)
    yield from _to_unweighted_draws(diagnostics.z, diagnostics.importance)


def to_unbounded(parameters: Sequence[str]) -> Iterator[Objection]:
    """Object to parameters along which the density does not fall."""
    if parameters:
        along = ", ".join(parameters)
        yield Objection(
            True,
            f"the posterior may be improper: its density does not fall along {along}, however far",
            f"give {along} a proper prior",
            is_cause=True,
        )


def _to_coverage(probe: Probe) -> Iterator[Objection]:
    share = probe.missing_share
    if share > MISSING_MASS_NOTICED:
        yield Objection(
            share > _MISSING_MASS,
            f"{probe.escaped} of {probe.chains} chains started elsewhere ended where the flow has "
            f"practically no mass: it misses a mode or a tail, about {share:.0%} of the posterior, "
            "and the evidence is too low by that share",
            _COMPARE,
        )


def _to_mixing(diagnostics: Diagnostics, *, vouched: bool) -> Iterator[Objection]:
    """Chains that have not mixed say less; that is fatal unless all else vouches for the flow."""
    probe = diagnostics.probe
    if probe.rhat < _LARGEST_RHAT:
        return
    apart = (
        "the chains started elsewhere did not come together (R-hat of their log weights "
        f"{probe.rhat:.2f}), so they "
    )
    found_nothing = probe.missing_share <= MISSING_MASS_NOTICED
    if vouched and found_nothing and abs(_gap_to_bridge(diagnostics)) < _LARGEST_GAP:
        yield Objection(
            False,
            apart + "say less of what the flow may lack; its weights, both halves of its draws and "
            "bridge sampling agree, and no chain found mass that it lacks",
            _COMPARE,
        )
    else:
        yield Objection(True, apart + "do not vouch for the flow", _COMPARE)


def _to_tails(tails: TailCheck) -> Iterator[Objection]:
    if tails.missing > _MISSING_TAIL_NOTICED:
        yield Objection(
            tails.missing > _MISSING_TAIL,
            f"the flow's tails are too light: at least {min(tails.missing, 1.0):.2%} of the "
            "posterior is where its draws never come, and the evidence is too low by that share",
            _HEAVIER,
        )


def _to_evidence(diagnostics: Diagnostics) -> Iterator[Objection]:
    importance, bridge = diagnostics.importance, diagnostics.probe.bridge
    gap, error = _gap_to_bridge(diagnostics), 0.0 if bridge is None else bridge.se
    if abs(gap) > max(_LARGEST_GAP_UNNOTICED, _STANDARD_ERRORS * error):
        yield Objection(
            abs(gap) > _LARGEST_GAP,
            f"the log evidence by importance sampling is {abs(gap):.2f} nats "
            f"{'below' if gap > 0 else 'above'} that by bridge sampling with chains started "
            "elsewhere" + (": the flow lacks mass that the posterior has" if gap > 0 else ""),
            _MORE_FLOW,
        )
    yield from _to_divergence(diagnostics.elbo, importance)


def _to_divergence(elbo: Elbo, importance: ImportanceEstimate) -> Iterator[Objection]:
    kl, se = importance.log_evidence - elbo.value, elbo.se
    if kl > _LARGEST_KL + 3 * se:
        yield Objection(
            False,
            f"the ELBO is {kl:.2f} nats below the log evidence, so draws without weights are off",
            _WEIGHT,
        )


def _gap_to_bridge(diagnostics: Diagnostics) -> float:
    """Return how far bridge sampling puts the log evidence above; NaN where there is none."""
    bridge = diagnostics.probe.bridge
    if bridge is None:
        return math.nan
    return bridge.value + diagnostics.constant - diagnostics.importance.log_evidence


def _to_weights(importance: ImportanceEstimate) -> Iterator[Objection]:
    k, draws = importance.pareto_k, len(importance.log_weights)
    limit = highest_pareto_k(draws)
    if not math.isfinite(k):
        yield Objection(True, f"{draws} draws are too few to tell a Pareto k-hat", _MORE_DRAWS)
    elif not k < limit:
        yield Objection(
            True,
            f"Pareto k-hat is {k:.2f}, not below {limit:.2f}: a few draws carry the weight of all, "
            "so the flow is too far from the posterior",
            _MORE_FLOW,
        )
    elif k >= HIGHEST_K_UNWEIGHTED:
        yield Objection(False, f"Pareto k-hat is {k:.2f}, above {HIGHEST_K_UNWEIGHTED}", _WEIGHT)
    if importance.ess < _FEWEST_EFFECTIVE_DRAWS:
        yield Objection(
            True,
            f"the weighted draws are worth only {importance.ess:.0f} draws of the posterior",
            _MORE_FLOW if importance.ess < 0.1 * draws else _MORE_DRAWS,
        )
    gap = abs(importance.log_evidence - importance.smoothed_log_evidence)
    if gap > _LARGEST_GAP_OF_ESTIMATES:
        yield Objection(
            True,
            f"raw and Pareto-smoothed weights give log evidences {gap:.2f} nats apart",
            _MORE_FLOW,
        )


def to_rejected_draws(share: float, boundary: Boundary | None) -> Iterator[Objection]:
    """Object to a share of the flow's draws that the program rejects, beyond a boundary or not."""
    if share > _MOST_REJECTED_UNWEIGHTED:
        where = f", nearly all of them where {boundary.beyond}" if boundary else ""
        yield Objection(
            share > _MOST_REJECTED,
            f"{share:.1%} of the flow's draws have no finite log density{where}",
            f"declare {boundary.declaration}, as the model block relies on it"
            if boundary
            else _CONSTRAIN,
            is_cause=boundary is not None,
        )


def _to_skipped_steps(diagnostics: Diagnostics) -> Iterator[Objection]:
    if diagnostics.skipped_steps > _MOST_SKIPPED * len(diagnostics.trace):
        yield Objection(
            True,
            f"{diagnostics.skipped_steps} of {len(diagnostics.trace)} training steps had no finite "
            "gradient",
            _REPARAMETRIZE,
        )


def _to_convergence(
    trace: FloatArray, elbo: Elbo, importance: ImportanceEstimate
) -> Iterator[Objection]:
    """Object to an ELBO that still rose, unless no more is left to gain.

    Where the learning rate falls, a step's noise does, too, and the ELBO rises by that.
    """
    if len(trace) < _FEWEST_STEPS:
        yield Objection(
            True, f"{len(trace)} training steps are too few to tell whether it converged",
            _TRAIN_LONGER,
        )  # fmt: skip
        return
    last = int(_LAST_SHARE * len(trace))
    gain, se = gain_of_medians(trace[-2 * last : -last], trace[-last:])
    left = importance.log_evidence - elbo.value
    nothing_left = importance.pareto_k <= HIGHEST_K_UNWEIGHTED and left <= _GAIN_STILL_RISING
    if nothing_left and gain <= _GAIN_UNCONVERGED:
        return
    if gain > max(3 * se, _GAIN_STILL_RISING) or not math.isfinite(gain):
        yield Objection(
            not gain <= _GAIN_UNCONVERGED,
            f"the ELBO still rose by {gain:.2g} nats over the last fifth of training",
            _TRAIN_LONGER,
        )


def _to_halves(z: FloatArray, importance: ImportanceEstimate) -> Iterator[Objection]:
    """Two halves of independent draws must agree; where weights are too heavy they do not."""
    log_weights = importance.log_weights[: len(z)]
    middle = len(z) // 2
    means, variances = zip(
        *(
            _weighted_mean(z[part], log_weights[part])
            for part in (slice(middle), slice(middle, None))
        ),
        strict=True,
    )
    with np.errstate(all="ignore"):
        score = np.nan_to_num(np.abs(means[0] - means[1]) / np.sqrt(variances[0] + variances[1]))
    if score.max() > -NormalDist().inv_cdf(_FALSE_ALARMS / 2 / z.shape[1]):
        yield Objection(
            True,
            f"two halves of the draws disagree: a weighted mean differs by "
            f"{_plain(score.max())} standard errors",
            _MORE_DRAWS,
        )


def _weighted_mean(z: FloatArray, log_weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Self-normalised weighted mean of each coordinate, and its variance by the delta method."""
    weights = np.exp(normalized(log_weights))
    mean = weights @ z
    return mean, (weights**2) @ (z - mean) ** 2


def _to_unweighted_draws(z: FloatArray, importance: ImportanceEstimate) -> Iterator[Objection]:
    """Weighting must not change what the draws say by more than a little."""
    log_weights = importance.log_weights[: len(z)]
    weights = np.exp(normalized(log_weights))
    mean, variance = _weighted_mean(z, log_weights)
    plain_sd = z.std(axis=0)
    sd = np.sqrt(weights @ (z - mean) ** 2)
    with np.errstate(all="ignore"):
        shift = np.nan_to_num(np.abs(z.mean(axis=0) - mean) / sd)
        error = np.nan_to_num(np.sqrt(variance) / sd)
        log_ratio = np.nan_to_num(np.log(sd / plain_sd))
    quantile = -NormalDist().inv_cdf(_FALSE_ALARMS / 2 / z.shape[1])
    if (shift > _LARGEST_SHIFT + quantile * error).any():
        yield Objection(
            False, f"weighting moves a mean by {_plain(shift.max())} standard deviations", _WEIGHT
        )
    # A standard deviation's own error is about that of a mean, for tails not much heavier than
    # the normal's.
    beyond_error = np.sign(log_ratio) * np.maximum(np.abs(log_ratio) - quantile * error, 0.0)
    if beyond_error.max() > math.log1p(_WIDEST):
        yield Objection(
            True,
            f"weighting widens a standard deviation {_factor(log_ratio.max())}: the flow "
            "is too narrow for weights to mend",
            _MORE_FLOW,
        )
    elif np.abs(beyond_error).max() > math.log1p(_LARGEST_SHIFT):
        worst = log_ratio[np.argmax(np.abs(log_ratio))]
        yield Objection(
            False, f"weighting changes a standard deviation by {np.expm1(worst):+.0%}", _WEIGHT
        )


def _plain(number: float) -> str:
    return f"{number:.2f}" if number < _LARGEST_IN_FULL else "more than 1000"


def _factor(log_ratio: float) -> str:
    if log_ratio > math.log(_LARGEST_IN_FULL):
        return "more than a thousandfold"
    return f"by {math.expm1(log_ratio):.0%}"
