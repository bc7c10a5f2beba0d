"""compare: hold one run against another of the same program and data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from stanflow.arrays import FloatArray
from stanflow.comparison import agreement
from stanflow.comparison.agreement import LEVELS, Agreement
from stanflow.comparison.correlations import MOST_SCALARS, correlation_table
from stanflow.comparison.evidence import Evidence
from stanflow.comparison.evidence import estimate as estimate_evidence
from stanflow.comparison.joint import MmdTest, SlicedWasserstein, mmd_test, sliced_wasserstein
from stanflow.comparison.metrics import (
    WEIGHTED,
    difference_table,
    marginal_wasserstein,
    reference_table,
)
from stanflow.comparison.montecarlo import Estimates
from stanflow.comparison.result import Comparison
from stanflow.comparison.sides import Side, Sides, align, hash_of, same_posterior
from stanflow.errors import UsageError
from stanflow.fitting.result import Fit
from stanflow.reference.result import NutsFit
from stanflow.stan.model import StanModel

__all__ = ["Comparison", "compare"]

_MOST_DRAWS_PROJECTED, _MOST_DRAWS_IN_KERNEL = 2000, 1000
_FEWEST_DRAWS_TOGETHER = 20
_SIDE_KEYS = (
    "model", "family", "engine", "engine_version", "seed", "chains", "warmup", "draws", "steps",
    "seconds", "gradient_evaluations", "warmup_gradient_evaluations", "verdict", "pareto_k",
    "importance_ess", "max_treedepth_hits", "versions", "out",
)  # fmt: skip


def compare(
    fit: Fit | NutsFit,
    reference: Fit | NutsFit,
    *,
    model: StanModel | None = None,
    seed: int = 1,
) -> Comparison:
    """Compare a fit with reference draws of the same posterior.

    Every scalar that both sides have is compared: parameters, transformed parameters and generated
    quantities. What counts as a difference is said in `stanflow.comparison.agreement`.

    Parameters
    ----------
    fit : Fit or NutsFit
        What is judged.
    reference : Fit or NutsFit
        What it is held against, usually draws by Stan's NUTS.
    model : StanModel, optional
        The program and its data, for bridge sampling; built with the embedded engine where it is
        not given.
    seed : int
        For random projections and permutation tests.

    Returns
    -------
    Comparison
        Prints itself; `Comparison.report` writes an HTML page.

    Raises
    ------
    UsageError
        The runs are of different programs or data, or have nothing to compare.

    Examples
    --------
    >>> import numpy as np
    >>> from stanflow.reference.result import NutsFit
    >>> def run(seed):
    ...     draws = np.random.default_rng(seed).normal(size=(4, 500, 1))
    ...     report = {"model": "normal", "engine": "embedded", "seed": seed}
    ...     return NutsFit(report, ("x",), draws, {}, "parameters { real x; }", "{}")
    >>> comparison = compare(run(1), run(2))
    >>> comparison.summary["agreement"]
    'agree'
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed must be between 0 and {2**32 - 1}, not {seed}")
    same_posterior(fit, reference)
    if model is not None:
        _same_model(model, fit)
    sides, ours, theirs = _with_errors(align(fit, reference))
    first = sides.first
    table = _table(sides, ours, theirs)
    sliced, mmd = _joint(sides, ours, theirs, seed)
    joint = sorted(
        sides.joint, key=lambda j: -abs(table["location_z"].iloc[j])
    )[:MOST_SCALARS]  # fmt: skip
    pairs = correlation_table(
        [sides.names[j] for j in joint],
        first.values[..., joint],
        sides.reference.values[..., joint],
    )
    table = table.iloc[_worst_first(table)]
    verdict = agreement.judge(
        table,
        pairs,
        len(joint) * (len(joint) - 1) // 2,
        sliced=sliced,
        mmd=mmd,
        alarms=_alarms_of_constants(sides, ours, theirs),
    )
    evidence = estimate_evidence(fit, reference, (first.label, sides.reference.label), model)
    summary = _summary(sides, table, verdict, sliced=sliced, mmd=mmd, evidence=evidence)
    return Comparison(fit, reference, sides, table, pairs, evidence, summary)


def _same_model(model: StanModel, fit: Fit | NutsFit) -> None:
    """Check that a model is of the program and data that were run.

    Raises
    ------
    UsageError
        It is not.
    """
    found = {"program": model.program.hash, "data": model.data.hash}
    for what, sha256 in found.items():
        if sha256 != hash_of(fit, f"{what}_sha256"):
            raise UsageError(
                f"the {what} of the model ({model.name}) is not that of the runs; leave the model "
                "out, or give the one that was run"
            )


def _with_errors(sides: Sides) -> tuple[Sides, Estimates, Estimates]:
    """Estimate both sides, and leave out scalars for which there is no Monte Carlo error.

    Raises
    ------
    UsageError
        There is none for any.
    """
    ours, theirs = sides.first.estimates(), sides.reference.estimates()
    known = np.isfinite(ours.mean_se + ours.sd_se + theirs.mean_se + theirs.sd_se)
    if known.all():
        return sides, ours, theirs
    if not known.any():
        raise UsageError(
            "no Monte Carlo error can be told for any scalar of these runs, so nothing can be "
            "compared; check that their chains move"
        )
    return sides.only(known), ours.only(known), theirs.only(known)


def _table(sides: Sides, ours: Estimates, theirs: Estimates) -> pd.DataFrame:
    """Return one row a scalar, in the program's order."""
    first, reference = sides.first, sides.reference
    table = difference_table(sides.names, ours, theirs)
    table["wasserstein"] = marginal_wasserstein(first.pooled, reference.pooled, theirs.sd)
    table.insert(0, "level", [LEVELS[level] for level in agreement.scalar_levels(table)])
    parts = [table, reference_table(sides.names, theirs)]
    weighted = first.weighted_estimates()
    if weighted is not None:
        corrected = difference_table(sides.names, weighted, theirs, WEIGHTED)
        corrected[f"wasserstein{WEIGHTED}"] = marginal_wasserstein(
            first.pooled, reference.pooled, theirs.sd, first.weights
        )
        levels = agreement.scalar_levels(corrected, WEIGHTED)
        corrected[f"level{WEIGHTED}"] = [LEVELS[level] for level in levels]
        parts.append(corrected)
    return pd.concat(parts, axis=1)


def _worst_first(table: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Return row positions: by level, then by error where it counts, by z-score elsewhere."""
    level = np.array([LEVELS.index(level) for level in table["level"]])
    error = table[["location_error", "spread_error"]].abs().max(axis=1).to_numpy()
    z = table[["location_z", "spread_z"]].abs().max(axis=1).to_numpy()
    return np.lexsort((-np.where(level > 0, error, z), -level))


def _joint(
    sides: Sides, ours: Estimates, theirs: Estimates, seed: int
) -> tuple[SlicedWasserstein | None, MmdTest | None]:
    """Compare the parameters' joint distribution, in reference sds."""
    chosen = sides.joint
    location, scale = theirs.mean[chosen], theirs.sd[chosen]
    directions_seed, labels_seed = (int(s) for s in np.random.SeedSequence(seed).generate_state(2))

    def draws(most: int) -> list[FloatArray]:
        thinned = []
        for side, estimates in ((sides.first, ours), (sides.reference, theirs)):
            ess = np.concatenate([estimates.ess[chosen], estimates.ess_sd[chosen]])
            thinned.append((side.thinned(ess, most)[:, chosen] - location) / scale)
        return thinned

    x, y = draws(_MOST_DRAWS_PROJECTED)
    if min(len(x), len(y)) < _FEWEST_DRAWS_TOGETHER:
        return None, None
    sliced = sliced_wasserstein(x, y, seed=directions_seed)
    return sliced, mmd_test(*draws(_MOST_DRAWS_IN_KERNEL), seed=labels_seed)


def _alarms_of_constants(sides: Sides, ours: Estimates, theirs: Estimates) -> list[str]:
    """Name scalars that are constant on one side though the other side's draws exclude chance."""
    worth = {
        sides.first.label: float(np.nanmin(ours.ess)),
        sides.reference.label: float(np.nanmin(theirs.ess)),
    }
    tests = max(len(sides.constants), 1)
    return [
        f"{name} is always {value:.6g} in {label}, but not on the other side"
        for name, (label, value, share) in sides.constants.items()
        if worth[label] * math.log(max(share, 1e-300)) < math.log(agreement.FALSE_ALARMS / tests)
    ]


def _cautions(sides: Sides) -> list[str]:
    """Say what speaks against each side on its own, the reference first."""
    cautions = []
    for side, other in ((sides.reference, sides.first), (sides.first, sides.reference)):
        run = side.run
        report: Mapping[str, Any] = run.report
        if isinstance(run, NutsFit):
            cautions += [f"{side.label}: {warning}" for warning in report.get("warnings", ())]
            if report.get("initialized_from") == "flow" and isinstance(other.run, Fit):
                cautions.append(
                    f"{side.label}: its chains started at draws of a flow, so it may miss what the "
                    "flow misses"
                )
    return cautions


# ---- The summary ------------------------------------------------------------------------------


def _summary(
    sides: Sides,
    table: pd.DataFrame,
    verdict: Agreement,
    *,
    sliced: SlicedWasserstein | None,
    mmd: MmdTest | None,
    evidence: Evidence,
) -> dict[str, Any]:
    reference = sides.reference.run.report
    weighted = sides.first.weights is not None
    seen = agreement.resolution(table)
    entries = [asdict(entry) for entry in evidence.entries]
    summary = {
        "model": sides.first.run.report["model"],
        "parameters": len(table),
        "agreement": verdict.level,
        "reasons": list(verdict.reasons),
        "cautions": _cautions(sides),
        "max_mean_error": table["mean_error"].abs().max(),
        "max_mean_error_parameter": table["mean_error"].abs().idxmax(),
        "max_abs_log_sd_ratio": table["log_sd_ratio"].abs().max(),
        "max_abs_log_sd_ratio_parameter": table["log_sd_ratio"].abs().idxmax(),
        "max_mean_error_weighted": None,
        "max_abs_log_sd_ratio_weighted": None,
        "agreement_weighted": None,
        "worst_parameter": table.index[0],
        "max_wasserstein": table["wasserstein"].max(),
        "mean_resolution": seen.location,
        "log_sd_resolution": seen.spread,
        "z_threshold": agreement.threshold(2 * len(table)),
        "judged_by_quantiles": list(table.index[table["judged_by"] == "quantiles"]),
        "sliced_wasserstein": None if sliced is None else sliced.value,
        "sliced_wasserstein_null": None if sliced is None else sliced.null_mean,
        "sliced_wasserstein_null_95": None if sliced is None else sliced.null_95,
        "projections": None if sliced is None else sliced.projections,
        "mmd": None if mmd is None else mmd.mmd_squared,
        "mmd_p_value": None if mmd is None else mmd.p_value,
        "evidence": entries,
        "evidence_warnings": list(evidence.warnings),
        "bridge_left_out": evidence.bridge_left_out,
        "left_out": dict(sides.left_out),
        **{key: hash_of(sides.first.run, key) for key in ("program_sha256", "data_sha256")},
        "first": _describe(sides.first),
        "reference": _describe(sides.reference),
        "reference_engine": reference.get("engine"),
        "report": None,
    }
    if weighted:
        summary |= {
            "max_mean_error_weighted": table[f"mean_error{WEIGHTED}"].abs().max(),
            "max_abs_log_sd_ratio_weighted": table[f"log_sd_ratio{WEIGHTED}"].abs().max(),
            "agreement_weighted": agreement.overall_level(table, WEIGHTED),
        }
    plain = _plain(summary)
    assert isinstance(plain, dict)
    return plain


def _describe(side: Side) -> dict[str, Any]:
    """Return what a side is and what it cost."""
    run = side.run
    report: Mapping[str, Any] = run.report
    described = {key: report[key] for key in _SIDE_KEYS if report.get(key) is not None}
    described |= {"label": side.label, "kind": "nuts" if isinstance(run, NutsFit) else "fit"}
    if isinstance(run, NutsFit):
        chains, draws, _ = side.values.shape
        described |= {"chains": chains, "draws": draws}
        if "divergent__" in run.statistics:
            described["divergences"] = int(run.divergences.sum())
    else:
        described |= {"draws": side.values.shape[1], "reasons": report.get("reasons") or []}
    return described


def _plain(value: Any) -> Any:
    """Return numbers as JSON has them: no numpy types, and null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
