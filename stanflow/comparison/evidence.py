"""Estimates of the log evidence, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import stanio
import torch

from stanflow.arrays import FloatArray
from stanflow.comparison.sides import variable_of
from stanflow.errors import DataError, NumericsError, StanFlowError, UsageError
from stanflow.estimates.bridge import bridge_evidence
from stanflow.estimates.draws import LogDensities, draw_log_densities
from stanflow.fitting.result import Fit
from stanflow.reference.result import NutsFit
from stanflow.stan.model import StanModel

_BY_WEIGHTS, _BY_ANNEALING = "importance sampling", "sequential Monte Carlo"
_MOST_NUTS_DRAWS = 2000
_LARGEST_SHARE_LOST = 0.01
_Z_OF_A_GAP, _SMALLEST_GAP = 4.0, 0.1  # nats


@dataclass(frozen=True)
class EvidenceEntry:
    """One estimate.

    Attributes
    ----------
    method : str
        ``"ELBO"``, a lower bound; ``"importance sampling"``, or ``"sequential Monte Carlo"`` for
        refined fits; ``"bridge sampling"``.
    side : str
        Whose draws it is made of.
    value, se : float
        In nats, with standard error.
    normalized : bool
        Whether the constants are included that Stan's ``~`` statements drop.
    note : str
        What to know of it; may be empty.
    """

    method: str
    side: str
    value: float
    se: float
    normalized: bool
    note: str = ""


@dataclass(frozen=True)
class Evidence:
    """All estimates.

    Attributes
    ----------
    entries : tuple of EvidenceEntry
    bridge_left_out : str, optional
        Why there is no bridge sampling; None where there is.
    warnings : tuple of str
        Where estimates contradict each other.
    """

    entries: tuple[EvidenceEntry, ...]
    bridge_left_out: str | None
    warnings: tuple[str, ...] = ()


def estimate(
    first: Fit | NutsFit,
    reference: Fit | NutsFit,
    labels: tuple[str, str],
    model: StanModel | None,
) -> Evidence:
    """Collect the estimates that two runs allow.

    Parameters
    ----------
    first, reference : Fit or NutsFit
        With a flow on one side and NUTS on the other, both sets of draws are bridged.
    labels : tuple of str
        What to call the sides.
    model : StanModel, optional
        To unconstrain the draws of NUTS with; built from the fit's program where it is not given.
    """
    entries: list[EvidenceEntry] = []
    for run, label in zip((first, reference), labels, strict=True):
        if isinstance(run, Fit):
            entries += _own_entries(run, label)
    flow, nuts = (first, reference) if isinstance(first, Fit) else (reference, first)
    if not (isinstance(flow, Fit) and isinstance(nuts, NutsFit)):
        return Evidence(tuple(entries), "it takes a flow on one side and NUTS on the other")
    try:
        bridge = _bridge(flow, nuts, model)
    except StanFlowError as error:
        return Evidence(tuple(entries), str(error))
    return Evidence((*entries, bridge), None, _contradictions(entries, bridge))


def _own_entries(fit: Fit, label: str) -> list[EvidenceEntry]:
    report = fit.report
    entries = [EvidenceEntry("ELBO", label, fit.elbo, fit.elbo_se, fit.normalized, "a lower bound")]
    if report.get("log_evidence") is not None:
        k = report.get("pareto_k")
        note = "" if k is None else f"Pareto k-hat {k:.2f}"
        method = _BY_WEIGHTS
        if fit.refined:
            method, note = _BY_ANNEALING, f"R-hat {report['refine']['rhat']:.3f}"
        se = _number(report.get("log_evidence_se"))
        entries.append(
            EvidenceEntry(method, label, report["log_evidence"], se, fit.normalized, note)
        )
    return entries


def _bridge(fit: Fit, nuts: NutsFit, model: StanModel | None) -> EvidenceEntry:
    """Bridge between the flow's and NUTS's draws.

    Raises
    ------
    StanFlowError
        The program cannot be built, the draws cannot be unconstrained, or do not overlap.
    """
    if fit.report.get("resampled") and not fit.refined:
        raise UsageError("the fit's draws were resampled, so they are not the flow's own")
    if model is None:
        seed = fit.report.get("model_seed", 0)
        model = StanModel(stan_code=fit.program, data=fit.data, engine="embedded", seed=seed)
    z, lost = _unconstrained(nuts, model)
    chains, draws, dim = z.shape
    flat = z.reshape(-1, dim)
    log_p = model.log_density(flat).reshape(chains, draws)
    with torch.no_grad():
        log_q = fit.flow.log_prob(torch.from_numpy(flat)).numpy().reshape(chains, draws)
    of_flow = _draws_of_flow(fit, model)
    # The flow's draws are those of its distribution where the program's density is finite.
    log_kept = math.log1p(-of_flow.rejected_share)
    found = bridge_evidence(of_flow.log_p, of_flow.log_q - log_kept, log_p, log_q - log_kept)
    notes = [f"{chains * draws} draws of NUTS"]
    if lost:
        notes.append(f"{lost} left out that lie on a boundary after rounding")
    if not found.converged:
        notes.append("the iteration did not converge")
    constant: Mapping[str, Any] = fit.report["normalizing_constant"]
    return EvidenceEntry(
        "bridge sampling",
        "both",
        found.value + float(constant["value"]),
        found.se,
        fit.normalized,
        "; ".join(notes),
    )


def _draws_of_flow(fit: Fit, model: StanModel) -> LogDensities:
    """Return log densities at the flow's own draws: new ones where the fit's were moved."""
    if fit.refined:
        return draw_log_densities(fit.flow, model, len(fit.values), fit.report["seed"])
    kept = len(fit.log_q)
    drawn = int(fit.report.get("evidence_draws") or kept)
    rejected = int(fit.report.get("rejected_draws") or 0)
    return LogDensities(fit.log_p, fit.log_q, round(rejected * kept / drawn))


def _unconstrained(nuts: NutsFit, model: StanModel) -> tuple[FloatArray, int]:
    """Return unconstrained draws of shape (chains, draws, D), and how many were lost.

    Where a draw cannot be unconstrained, that iteration is left out of all chains.
    """
    missing = set(model.parameter_columns) - set(nuts.columns)
    if missing:
        raise DataError(f"the NUTS run has no draws of {sorted(missing)[0]}")
    chains, draws, _ = nuts.values.shape
    per_chain = min(draws, max(_MOST_NUTS_DRAWS // chains, 1))
    chosen = np.linspace(0, draws - 1, per_chain).round().astype(int)
    wanted = {variable_of(column) for column in model.parameter_columns}
    variables = {
        name: variable.extract_reshape(nuts.values[:, chosen])
        for name, variable in stanio.parse_header(",".join(nuts.columns)).items()
        if name in wanted
    }
    z = np.full((chains, len(chosen), model.dim), np.nan)
    problem = ""
    for chain in range(chains):
        for draw in range(len(chosen)):
            try:
                parameters = {name: values[chain, draw] for name, values in variables.items()}
                z[chain, draw] = model.unconstrain(parameters)
            except DataError as error:
                problem = str(error)
    whole = np.isfinite(z).all(axis=(0, 2))
    lost = int((~whole).sum()) * chains
    if lost > _LARGEST_SHARE_LOST * chains * len(chosen):
        raise DataError(f"draws of NUTS could not be mapped to unconstrained space: {problem}")
    z = z[:, whole]
    accepted = model.log_density_gradient(z.reshape(-1, model.dim)).accepted
    if not accepted.all():
        raise NumericsError(
            f"{int((~accepted).sum())} draws of NUTS have no finite log density in this model"
        )
    return z, lost


def _contradictions(entries: list[EvidenceEntry], bridge: EvidenceEntry) -> tuple[str, ...]:
    warnings = []
    for entry in entries:
        if entry.method not in {_BY_WEIGHTS, _BY_ANNEALING}:
            continue
        gap, error = bridge.value - entry.value, math.hypot(bridge.se, entry.se)
        if abs(gap) > max(_SMALLEST_GAP, _Z_OF_A_GAP * error):
            warnings.append(
                f"{entry.method} puts the log evidence {abs(gap):.2f} nats "
                f"{'below' if gap > 0 else 'above'} bridge sampling (z = {abs(gap) / error:.1f}): "
                + (
                    "the flow probably misses a part of the posterior"
                    if gap > 0
                    else "one set of draws misses a part of the posterior"
                )
            )
    return tuple(warnings)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
