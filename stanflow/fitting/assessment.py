"""What a trained flow says of a model, and whether to believe it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.errors import UsageError
from stanflow.estimates.boundary import find_boundary
from stanflow.estimates.draws import FlowDraws, LogDensities, draw, draw_log_densities, pool
from stanflow.estimates.elbo import estimate_elbo
from stanflow.estimates.importance import estimate_evidence
from stanflow.estimates.improper import unbounded_directions
from stanflow.estimates.probe import FEWEST_EVALUATIONS, Probe, probe
from stanflow.estimates.tails import check_tails
from stanflow.estimates.verdict import HIGHEST_K_UNWEIGHTED, Diagnostics, judge
from stanflow.fitting.fit_report import AssessmentReport, ProbeReport
from stanflow.flow.realnvp import Flow
from stanflow.stan.density import CountingTarget, NormalizingConstant
from stanflow.stan.model import ConstrainedDraws, StanModel
from stanflow.statistics.importance_weights import normalized, pareto_k_error

_POINTS_TO_VERIFY = 10
_PROBE_SHARE_OF_TRAINING, _TAILS_SHARE_OF_TRAINING = 0.1, 0.04
SHARE_OF_TRAINING = _PROBE_SHARE_OF_TRAINING + _TAILS_SHARE_OF_TRAINING
_FEWEST_TAIL_DRAWS, _MOST_TAIL_DRAWS = 1000, 16_000
_NO_CONSTANT = NormalizingConstant(0.0, known=False, reason="")
_STANDARD_ERRORS = 2.0
_SMALL_ERROR_OF_EVIDENCE = 0.01  # nats


@dataclass(frozen=True)
class DrawPlan:
    """How many draws to take, and the seeds of what is random about them.

    Parameters
    ----------
    draws : int
        Draws to keep.
    evidence_draws, most_evidence_draws : int
        Draws behind the ELBO, the evidence and k-hat: those kept and as many more as this takes, of
        which only the log densities are held. The most are taken where fewer leave k-hat near the
        limit of what is good, or the evidence within more than a hundredth of a nat.
    draw_seed, generated_seed, evidence_seed, probe_seed, tail_seed, more_seed : int
        For the draws, generated quantities, further draws, the chains from elsewhere, the draws
        with heavier tails, and the most draws.

    Raises
    ------
    UsageError
        A number is out of range.
    """

    draws: int
    evidence_draws: int
    most_evidence_draws: int
    draw_seed: int
    generated_seed: int
    evidence_seed: int
    probe_seed: int
    tail_seed: int
    more_seed: int

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise UsageError(f"draws must be at least 2, not {self.draws}")
        if self.evidence_draws < self.draws:
            raise UsageError(
                f"evidence_draws must be at least draws ({self.draws}), not {self.evidence_draws}"
            )


@dataclass(frozen=True)
class Assessment:
    """Draws of a flow and what they say.

    Attributes
    ----------
    drawn : FlowDraws
        The draws kept.
    constrained : ConstrainedDraws
        The same on the program's scale.
    log_weights : array of shape (S,)
        Their Pareto-smoothed log importance weights, normalised.
    report : AssessmentReport
        The estimates and the verdict, as `stanflow fit --json` has them.
    """

    drawn: FlowDraws
    constrained: ConstrainedDraws
    log_weights: FloatArray
    report: AssessmentReport

    def arrays(self) -> dict[str, Any]:
        """Return the draws, their log densities and weights, by the names that a fit has them."""
        densities = self.drawn.densities
        return {
            "values": self.constrained.values,
            "z": self.drawn.z,
            "log_p": densities.log_p,
            "log_q": densities.log_q,
            "log_weights": self.log_weights,
        }


def evaluations_to_judge(draws: int) -> int:
    """Return how many evaluations of the target judging by so many draws takes at least."""
    return draws + FEWEST_EVALUATIONS + _FEWEST_TAIL_DRAWS


@np.errstate(all="ignore")  # what is not finite is counted, and judged
def assess(
    flow: Flow,
    model: StanModel,
    plan: DrawPlan,
    *,
    target: CountingTarget,
    trace: Mapping[str, FloatArray],
    breakdown: str = "",
) -> Assessment:
    """Take draws of a trained flow, estimate ELBO and evidence, and judge the fit.

    Parameters
    ----------
    flow : Flow
        Trained, in float64.
    model : StanModel
        What it was trained on.
    plan : DrawPlan
        How many draws.
    target : CountingTarget
        The model, with its evaluations in training counted; looking for mass that the flow lacks
        takes at most a tenth as many, within limits.
    trace : mapping of str to array of shape (steps,)
        Of training: at least elbo and gradient_norm.
    breakdown : str
        How training broke down for good; empty if it did not.

    Raises
    ------
    NumericsError
        Hardly any draw of the flow has a finite log density.
    """
    trained_by = target.evaluations
    drawn = draw(flow, target, plan.draws, plan.draw_seed)
    densities = drawn.densities
    more = plan.evidence_draws - plan.draws
    if more > 0:
        densities = pool([densities, draw_log_densities(flow, target, more, plan.evidence_seed)])
    more = plan.most_evidence_draws - plan.evidence_draws
    if more > 0 and not _is_settled(densities):
        densities = pool([densities, draw_log_densities(flow, target, more, plan.more_seed)])
    # In the bulk of the posterior, where rounding is smallest.
    constant = model.normalizing_constant_at(drawn.z[:_POINTS_TO_VERIFY])
    elbo = estimate_elbo(densities, constant)
    importance = estimate_evidence(densities, constant)
    before_probe = target.evaluations
    found = probe(
        flow,
        target,
        drawn,
        importance.log_evidence - constant.value,
        gradient_evaluations=int(_PROBE_SHARE_OF_TRAINING * trained_by),
        seed=plan.probe_seed,
    )
    of_probe = target.evaluations - before_probe
    tail_draws = min(
        _MOST_TAIL_DRAWS, max(_FEWEST_TAIL_DRAWS, int(_TAILS_SHARE_OF_TRAINING * trained_by))
    )
    tails = check_tails(
        flow,
        target,
        importance.log_evidence - constant.value,
        tail_draws,
        plan.tail_seed,
    )
    constrained = model.constrain(drawn.z, seed=plan.generated_seed)
    skipped = int(np.isnan(trace["gradient_norm"]).sum())
    diagnostics = Diagnostics(
        elbo=elbo,
        importance=importance,
        z=drawn.z,
        rejected_share=densities.rejected_share,
        trace=trace["elbo"],
        skipped_steps=skipped,
        probe=found,
        tails=tails,
        constant=constant.value,
        boundary=find_boundary(
            drawn.z,
            drawn.rejected,
            model.unconstrained_names,
            dict(zip(constrained.columns, constrained.values.T, strict=True)),
        ),
        breakdown=breakdown,
    )
    verdict = judge(diagnostics)
    if verdict.name != "good":
        unbounded = unbounded_directions(target, drawn.z, model.unconstrained_names)
        verdict = judge(replace(diagnostics, unbounded=unbounded))
    report: AssessmentReport = {
        "elbo": elbo.value,
        "elbo_se": elbo.se,
        "log_evidence": importance.log_evidence,
        "log_evidence_se": importance.se,
        "normalized": elbo.normalized,
        "pareto_k": _finite(importance.pareto_k),
        "importance_ess": importance.ess,
        "verdict": verdict.name,
        "reasons": list(verdict.reasons),
        "advice": list(verdict.advice),
        "draws": plan.draws,
        "evidence_draws": len(densities.log_p),
        "rejected_draws": densities.rejected,
        "skipped_steps": skipped,
        "failed_generated_quantities": len(constrained.failed),
        "normalizing_constant": {
            "value": constant.value,
            "known": constant.known,
            "reason": constant.reason,
        },
        "probe": _probe_report(found, constant.value, of_probe),
        "tails": {"missing": tails.missing, "evaluations": tail_draws},
    }
    return Assessment(
        drawn=drawn,
        constrained=constrained,
        log_weights=normalized(importance.log_weights[: plan.draws]),
        report=report,
    )


def _is_settled(densities: LogDensities) -> bool:
    """Return whether more draws would hardly tell more."""
    found = estimate_evidence(densities, _NO_CONSTANT)
    error = pareto_k_error(found.pareto_k, len(densities.log_p))
    k_is_settled = found.pareto_k + _STANDARD_ERRORS * error < HIGHEST_K_UNWEIGHTED
    return k_is_settled and found.se < _SMALL_ERROR_OF_EVIDENCE


def _probe_report(found: Probe, constant: float, evaluations: int) -> ProbeReport:
    bridge = found.bridge
    return {
        "chains": found.chains,
        "escaped": found.escaped,
        "log_missing_mass": _finite(found.log_missing_mass),
        "rhat": _finite(found.rhat),
        "log_evidence": None if bridge is None else bridge.value + constant,
        "log_evidence_se": None if bridge is None else bridge.se,
        "gradient_evaluations": evaluations,
    }


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
