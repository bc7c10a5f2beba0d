"""A fit's report: what ``stanflow fit --json`` prints, and ``fit.json`` keeps."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from stanflow.estimates.verdict import VerdictName
from stanflow.flow.config import Family
from stanflow.training.config import StopReason


class NormalizingConstantReport(TypedDict):
    """What Stan's ``~`` statements dropped from the log density; see `NormalizingConstant`."""

    value: float
    known: bool
    reason: str


class ProbeReport(TypedDict):
    """What chains from elsewhere found; see `Probe`."""

    chains: int
    escaped: int
    log_missing_mass: float | None
    rhat: float | None
    log_evidence: float | None
    log_evidence_se: float | None
    gradient_evaluations: int


class TailsReport(TypedDict):
    """What draws with heavier tails found; see `TailCheck`."""

    missing: float
    evaluations: int


class EvaluationsReport(TypedDict):
    """How often the program was evaluated: with gradients, and without."""

    gradient_evaluations: int
    density_evaluations: int


class StageReport(EvaluationsReport):
    """What a stage cost."""

    seconds: float


class CostReport(TypedDict):
    """What a gradient of the program took, with others beside it, and a step of the flow alone.

    The latter is what training took beyond its gradients, and null where they leave nothing of it.
    """

    seconds_a_gradient: float
    seconds_a_flow_step: float | None


class OutwardReport(TypedDict):
    """What was found beyond the moved draws along one parameter; see `Outward`."""

    parameter: str
    share: float
    log_added: float
    log_added_se: float
    values: int
    ended: bool


class RefineReport(TypedDict):
    """How draws were moved from the flow to the posterior; see `Refined`."""

    particles: int
    islands: int
    temperatures: int
    transitions: int
    acceptance: float
    rhat: float
    shift: float
    ess: float
    stopped: str
    log_evidence_annealed: float
    log_evidence_annealed_se: float
    log_evidence_bridge: float | None
    log_evidence_bridge_se: float | None
    log_evidence_bridge_pareto_k: float | None
    eubo: float
    missing_in_tails: float | None
    outward: OutwardReport | None


class ElsewhereReport(TypedDict):
    """Whether chains from elsewhere came to where refined draws are; see `Elsewhere`."""

    chains: int
    escaped: int
    log_missing_mass: float | None
    rhat: float | None
    gradient_evaluations: int


class _ReportOfEveryAssessment(TypedDict):
    elbo: float
    elbo_se: float
    log_evidence: float
    log_evidence_se: float
    normalized: bool
    pareto_k: float | None
    importance_ess: float
    verdict: VerdictName
    reasons: list[str]
    advice: list[str]
    draws: int
    evidence_draws: int
    rejected_draws: int
    skipped_steps: int
    failed_generated_quantities: int
    normalizing_constant: NormalizingConstantReport


class AssessmentReport(_ReportOfEveryAssessment, total=False):
    """Estimates, the verdict, and what it is founded on: probe and tails, or refining."""

    probe: ProbeReport
    tails: TailsReport
    refined: bool
    method: Literal["importance", "smc"]
    refine: RefineReport
    elsewhere: ElsewhereReport


class _ReportOfEveryFit(AssessmentReport):
    model: str
    engine: Literal["embedded", "native"]
    engine_version: str
    dim: int
    family: Family
    modes: list[float] | None
    steps: int
    gradient_evaluations: int
    seconds: float
    peak_memory_mb: float
    out: str | None
    rejected_in_training: int
    stopped: StopReason
    program_sha256: str
    data_sha256: str
    seed: int
    model_seed: int
    flow_config: dict[str, Any]
    train_config: dict[str, Any]
    versions: dict[str, str]
    columns: list[str]


class FitReport(_ReportOfEveryFit, total=False):
    """All of it; the entries below are not in fits of StanFlow 0.1."""

    density_evaluations: int
    cost: CostReport
    stages: dict[str, StageReport]
    returns: int
    breakdown: str
    engine_reason: str
    stan_version: str | None
    engine_agreement: dict[str, Any] | None
    resampled: bool
    refine_config: dict[str, Any]
