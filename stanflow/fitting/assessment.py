"""What a trained flow says of a model, and whether to believe it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.errors import UsageError
from stanflow.estimates.boundary import Boundary, find_boundary
from stanflow.estimates.draws import FlowDraws, LogDensities, draw, draw_log_densities, pool
from stanflow.estimates.elbo import Elbo, estimate_elbo
from stanflow.estimates.importance import (
    ImportanceEstimate,
    estimate_evidence,
    highest_pareto_k,
)
from stanflow.estimates.improper import unbounded_directions
from stanflow.estimates.probe import FEWEST_EVALUATIONS, Probe, probe
from stanflow.estimates.tails import check_tails
from stanflow.estimates.verdict import (
    HIGHEST_K_UNWEIGHTED,
    MISSING_MASS_NOTICED,
    Diagnostics,
    Verdict,
    flow_suffices,
    judge,
)
from stanflow.fitting.fit_report import (
    AssessmentReport,
    OutwardReport,
    ProbeReport,
    RefineReport,
)
from stanflow.flow.realnvp import Flow
from stanflow.refine.elsewhere import Elsewhere, look_elsewhere
from stanflow.refine.refined import LogEvidence, Outward, Refined
from stanflow.refine.tails import mass_in_tails
from stanflow.refine.verdict import judge as judge_refined
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
        limit of what is good, or the evidence within more than a hundredth of a nat, unless k-hat
        is beyond all doubt.
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
    z : array of shape (S, D)
        The draws kept.
    log_p, log_q : arrays of shape (S,)
        Their log density under the target and under the flow.
    constrained : ConstrainedDraws
        The same on the program's scale.
    log_weights : array of shape (S,)
        Their Pareto-smoothed log importance weights, normalised; all the same where the draws are
        the posterior's.
    missed : array of shape (n, C, D) or None
        Where chains from elsewhere were, if some of them found mass that the draws lack.
    report : AssessmentReport
        The estimates and the verdict, as `stanflow fit --json` has them.
    """

    z: FloatArray
    log_p: FloatArray
    log_q: FloatArray
    constrained: ConstrainedDraws
    log_weights: FloatArray
    missed: FloatArray | None
    report: AssessmentReport

    def arrays(self) -> dict[str, Any]:
        """Return the draws, their log densities and weights, by the names that a fit has them."""
        return {
            "values": self.constrained.values,
            "z": self.z,
            "log_p": self.log_p,
            "log_q": self.log_q,
            "log_weights": self.log_weights,
        }


def evaluations_to_judge(draws: int) -> int:
    """Return how many evaluations of the target judging by so many draws takes at least."""
    return draws + FEWEST_EVALUATIONS + _FEWEST_TAIL_DRAWS


@dataclass(frozen=True)
class FlowEstimates:
    """What draws of a trained flow say by themselves.

    Attributes
    ----------
    drawn : FlowDraws
        The draws kept.
    densities : LogDensities
        Of all draws.
    constant : NormalizingConstant
    elbo : Elbo
    importance : ImportanceEstimate
    trained_by : int
        Evaluations of the target before these draws.
    """

    drawn: FlowDraws
    densities: LogDensities
    constant: NormalizingConstant
    elbo: Elbo
    importance: ImportanceEstimate
    trained_by: int

    def suffice(self, trace: FloatArray) -> bool:
        """Return whether nothing in them, or in the ELBO of each step, speaks against the draws."""
        return flow_suffices(self.elbo, self.importance, self.drawn.z, trace)


@np.errstate(all="ignore")  # what is not finite is counted, and judged
def estimate(flow: Flow, model: StanModel, plan: DrawPlan, target: CountingTarget) -> FlowEstimates:
    """Take draws of a trained flow, and estimate ELBO and evidence.

    Parameters
    ----------
    flow : Flow
        Trained, in float64.
    model : StanModel
        What it was trained on.
    plan : DrawPlan
        How many draws.
    target : CountingTarget
        The model.

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
    return FlowEstimates(
        drawn,
        densities,
        constant,
        estimate_elbo(densities, constant),
        estimate_evidence(densities, constant),
        trained_by,
    )


@np.errstate(all="ignore")  # what is not finite is counted, and judged
def assess(
    flow: Flow,
    model: StanModel,
    estimates: FlowEstimates,
    plan: DrawPlan,
    *,
    target: CountingTarget,
    trace: Mapping[str, FloatArray],
    breakdown: str = "",
) -> Assessment:
    """Judge a trained flow by its draws.

    Parameters
    ----------
    flow : Flow
        Trained, in float64.
    model : StanModel
        What it was trained on.
    estimates : FlowEstimates
        From `estimate`.
    plan : DrawPlan
        The same as there.
    target : CountingTarget
        The model, with its evaluations in training counted; looking for mass that the flow lacks
        takes at most a tenth as many, within limits.
    trace : mapping of str to array of shape (steps,)
        Of training: at least elbo and gradient_norm.
    breakdown : str
        How training broke down for good; empty if it did not.
    """
    drawn, densities, constant = estimates.drawn, estimates.densities, estimates.constant
    elbo, importance = estimates.elbo, estimates.importance
    trained_by = estimates.trained_by
    before_probe = target.gradients
    found = probe(
        flow,
        target,
        drawn,
        importance.log_evidence - constant.value,
        gradient_evaluations=int(_PROBE_SHARE_OF_TRAINING * trained_by),
        seed=plan.probe_seed,
    )
    of_probe = target.gradients - before_probe
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
    skipped = _skipped_steps(trace)
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
        boundary=_boundary(drawn.z, drawn.rejected, model, constrained),
        breakdown=breakdown,
    )
    verdict = judge(diagnostics)
    if verdict.name != "good":
        unbounded = unbounded_directions(target, drawn.z, model.unconstrained_names)
        verdict = judge(replace(diagnostics, unbounded=unbounded))
    evidence = LogEvidence(importance.log_evidence, importance.se)
    report = _report(
        estimates, plan, constrained, skipped=skipped, evidence=evidence, verdict=verdict
    )
    report["probe"] = _probe_report(found, constant.value, of_probe)
    report["tails"] = {"missing": tails.missing, "evaluations": tail_draws}
    return Assessment(
        z=drawn.z,
        log_p=drawn.densities.log_p,
        log_q=drawn.densities.log_q,
        constrained=constrained,
        log_weights=normalized(importance.log_weights[: plan.draws]),
        missed=_missed(found),
        report=report,
    )


@np.errstate(all="ignore")  # what is not finite is counted, and judged
def assess_refined(
    flow: Flow,
    model: StanModel,
    estimates: FlowEstimates,
    refined: Refined,
    plan: DrawPlan,
    *,
    target: CountingTarget,
    trace: Mapping[str, FloatArray],
) -> Assessment:
    """Judge draws that were moved from a flow to the posterior.

    Parameters
    ----------
    flow, model, estimates, plan, target, trace
        As for `assess`.
    refined : Refined
        The draws.
    """
    constant, elbo = estimates.constant, estimates.elbo
    before = target.gradients
    elsewhere = look_elsewhere(flow, target, refined, seed=plan.probe_seed)
    of_chains = target.gradients - before
    in_tails = mass_in_tails(target, refined, seed=plan.tail_seed)
    constrained = model.constrain(refined.z, seed=plan.generated_seed)
    verdict = judge_refined(
        refined,
        elsewhere,
        elbo,
        in_tails=in_tails,
        constant=constant.value,
        steps=len(trace["elbo"]),
        rejected_share=estimates.densities.rejected_share,
        boundary=_boundary(refined.z, estimates.drawn.rejected, model, constrained),
        unbounded=unbounded_directions(target, refined.z, model.unconstrained_names),
    )
    best = refined.log_evidence
    evidence = LogEvidence(best.value + constant.value, best.se)
    report = _report(
        estimates,
        plan,
        constrained,
        skipped=_skipped_steps(trace),
        evidence=evidence,
        verdict=verdict,
    )
    report["draws"] = len(refined.z)
    report["refined"], report["method"] = True, "smc"
    report["refine"] = _refine_report(refined, constant.value, in_tails, model.unconstrained_names)
    report["elsewhere"] = {
        "chains": elsewhere.chains,
        "escaped": elsewhere.escaped,
        "log_missing_mass": _finite(elsewhere.log_missing_mass),
        "rhat": _finite(elsewhere.rhat),
        "gradient_evaluations": of_chains,
    }
    return Assessment(
        z=refined.z,
        log_p=refined.log_p,
        log_q=refined.log_q,
        constrained=constrained,
        log_weights=np.full(len(refined.z), -math.log(len(refined.z))),
        missed=_missed(elsewhere),
        report=report,
    )


def _missed(found: Probe | Elsewhere) -> FloatArray | None:
    return found.visited if found.missing_share > MISSING_MASS_NOTICED else None


def _boundary(
    z: FloatArray, rejected: FloatArray, model: StanModel, constrained: ConstrainedDraws
) -> Boundary | None:
    columns = dict(zip(constrained.columns, constrained.values.T, strict=True))
    return find_boundary(z, rejected, model.unconstrained_names, columns)


def _skipped_steps(trace: Mapping[str, FloatArray]) -> int:
    return int(np.isnan(trace["gradient_norm"]).sum())


def _report(
    estimates: FlowEstimates,
    plan: DrawPlan,
    constrained: ConstrainedDraws,
    *,
    skipped: int,
    evidence: LogEvidence,
    verdict: Verdict,
) -> AssessmentReport:
    """Return the report of a fit that was not refined, without what its verdict is founded on."""
    elbo, importance, constant = estimates.elbo, estimates.importance, estimates.constant
    return {
        "log_evidence": evidence.value,
        "log_evidence_se": evidence.se,
        "verdict": verdict.name,
        "reasons": list(verdict.reasons),
        "advice": list(verdict.advice),
        "refined": False,
        "method": "importance",
        "elbo": elbo.value,
        "elbo_se": elbo.se,
        "normalized": elbo.normalized,
        "pareto_k": _finite(importance.pareto_k),
        "importance_ess": importance.ess,
        "draws": plan.draws,
        "evidence_draws": len(estimates.densities.log_p),
        "rejected_draws": estimates.densities.rejected,
        "skipped_steps": skipped,
        "failed_generated_quantities": len(constrained.failed),
        "normalizing_constant": {
            "value": constant.value,
            "known": constant.known,
            "reason": constant.reason,
        },
    }


def _refine_report(
    refined: Refined, constant: float, in_tails: float, names: Sequence[str]
) -> RefineReport:
    bridge = refined.bridge
    return {
        "particles": refined.particles,
        "islands": refined.islands,
        "temperatures": refined.temperatures,
        "transitions": refined.transitions,
        "acceptance": refined.acceptance,
        "rhat": refined.settling.rhat,
        "shift": refined.settling.shift,
        "ess": refined.settling.ess,
        "stopped": refined.stopped,
        "log_evidence_annealed": refined.annealed.value + constant,
        "log_evidence_annealed_se": refined.annealed.se,
        "log_evidence_bridge": None if bridge is None else bridge.value + constant,
        "log_evidence_bridge_se": None if bridge is None else bridge.se,
        "log_evidence_bridge_pareto_k": None if bridge is None else _finite(bridge.pareto_k),
        "eubo": refined.eubo + constant,
        "missing_in_tails": _finite(in_tails),
        "outward": _outward_report(refined.outward, names),
    }


def _outward_report(outward: Outward | None, names: Sequence[str]) -> OutwardReport | None:
    if outward is None:
        return None
    return {
        "parameter": names[outward.coordinate],
        "share": outward.share,
        "log_added": outward.log_added.value,
        "log_added_se": outward.log_added.se,
        "values": outward.values,
        "ended": outward.ended,
    }


def _is_settled(densities: LogDensities) -> bool:
    """Return whether more draws would hardly tell more: all is well, or all is lost."""
    found, draws = estimate_evidence(densities, _NO_CONSTANT), len(densities.log_p)
    error = _STANDARD_ERRORS * pareto_k_error(found.pareto_k, draws)
    if found.pareto_k - error > highest_pareto_k(draws):
        return True
    is_low = found.pareto_k + error < HIGHEST_K_UNWEIGHTED
    return is_low and found.se < _SMALL_ERROR_OF_EVIDENCE


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


def _finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None
