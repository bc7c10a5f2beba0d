"""A fit as one HTML file that opens anywhere, without a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.estimates.importance import highest_pareto_k
from stanflow.flow.config import FAMILY_NAMES
from stanflow.report import figures
from stanflow.report.page import Plot, plot, render_page
from stanflow.report.ran import NOTHING, configuration, engine, entry, versions
from stanflow.stan.agreement import second_engine
from stanflow.stan.variables import bracketed
from stanflow.statistics.importance_weights import log_sum_exp, normalized
from stanflow.statistics.summary import summarize

if TYPE_CHECKING:
    from stanflow.fitting.result import Fit

ROWS_SHOWN = 200
_VERDICTS = {
    "good": "The draws can be used as they are.",
    "usable": "The draws can be used with their importance weights, not without them.",
    "unreliable": "Do not use these draws: they may be far from the posterior.",
}
_USABLE_WHERE_REFINED = "The draws can be used with the caution that the reasons name."
_ENDINGS = {
    "converged": "until the ELBO no longer rose",
    "max_steps": "to the limit of steps",
    "max_seconds": "cut short by the limit of time",
    "interrupted": "cut short by hand",
    "breakdown": "until training broke down",
}
_INCLUDED, _MISSING = "included", "missing"
_DIGITS_OF_A_SPREAD = 3
_MOST_DECIMALS, _LARGEST_IN_FULL = 6, 1e7


def render(fit: Fit) -> str:
    """Return the page's HTML."""
    report, weights = fit.report, _weights(fit)
    verdict, k = report.get("verdict"), report.get("pareto_k")
    tables = _tables(fit, weights)
    return render_page(
        "fit.html.jinja",
        report=report,
        heading=f"{len(fit.values):,} draws by {_family(report)}",
        verdict=verdict,
        meaning=(
            _USABLE_WHERE_REFINED
            if fit.refined and verdict == "usable"
            else _VERDICTS.get(str(verdict), "")
        ),
        numbers=_numbers(fit),
        ran=[line for line in _ran(report) if line[1] != NOTHING],
        plots=_plots(fit, weights),
        weighted=weights is not None,
        distrusted=k is not None and not k < _limit(fit),
        head=[name for table in tables for name in table],
        rows=_rows(fit, tables),
        scalars=len(fit.columns),
        histograms=figures.MARGINALS,
        hidden=max(len(fit.columns) - ROWS_SHOWN, 0),
        settings=configuration(report),
        program=fit.program,
    )


def _weights(fit: Fit) -> FloatArray | None:
    """Return weights that add up to one, or None where there is nothing left to weight."""
    equal = fit.report.get("resampled") or fit.refined
    if equal or not math.isfinite(log_sum_exp(fit.log_weights)):
        return None
    return np.asarray(np.exp(normalized(fit.log_weights)))


def _family(report: Mapping[str, Any]) -> str:
    return FAMILY_NAMES.get(str(report.get("family")), "a flow of unknown family")


def _limit(fit: Fit) -> float:
    """Return the k-hat from which the weights cannot be trusted."""
    return highest_pareto_k(fit.report.get("evidence_draws") or len(fit.log_weights))


def _numbers(fit: Fit) -> list[tuple[str, str]]:
    """Return the numbers at the top, each with what it is."""
    report = fit.report
    k = "unknown" if report.get("pareto_k") is None else f"{report['pareto_k']:.2f}"
    of_draws = f" of {report['evidence_draws']:,} draws" if "evidence_draws" in report else ""
    worth = (entry(report, "importance_ess", "{:,.0f}"), f"importance ESS{of_draws}")
    if fit.refined:
        worth = (f"{report['refine']['ess']:,.0f}", f"effective draws of {report['draws']:,}")
    known = [
        (
            entry(report, "log_evidence", "{:.3f}"),
            f"log evidence in nats, by {_estimator(report)}; standard error "
            + entry(report, "log_evidence_se", "{:.2g}"),
        ),
        (
            entry(report, "elbo", "{:.3f}"),
            "ELBO in nats, a lower bound of it; standard error "
            + entry(report, "elbo_se", "{:.2g}"),
        ),
        _constants(report),
        (k, f"Pareto k-hat; weights can be trusted below {_limit(fit):.2f}"),
        worth,
        (entry(report, "dim", "{:,}"), "D, the unconstrained parameters"),
        (entry(report, "steps", "{:,}"), "training steps"),
        (entry(report, "seconds", "{:,.1f}"), "seconds in all"),
        (
            entry(report, "rejected_draws", "{:,}"),
            "draws rejected, where the program has no finite log density",
        ),
    ]
    return [number for number in known if number[0] != NOTHING]


def _estimator(report: Mapping[str, Any]) -> str:
    """Return by what the log evidence is: of a refined fit, the one with the smaller error."""
    if not report.get("refined"):
        return "importance sampling"
    by_bridge = report["log_evidence"] == report["refine"]["log_evidence_bridge"]
    return "bridge sampling" if by_bridge else "annealing"


def _constants(report: Mapping[str, Any]) -> tuple[str, str]:
    why = (report.get("normalizing_constant") or {}).get("reason") or "it is not known why"
    if report.get("normalized"):
        return _INCLUDED, f"Stan's constants, in both estimates: {why}"
    return _MISSING, f"Stan's constants, so do not compare the two between programs: {why}"


# ---- What was run -----------------------------------------------------------------------------


def _ran(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what was run, a line's heading and its entry."""
    return [
        ("family", _family(report)),
        ("training", _training(report)),
        ("draws", _draws(report)),
        ("generated quantities", _failures(report)),
        ("engine", engine(report)),
        ("why this engine", entry(report, "engine_reason")),
        ("a second engine", second_engine(report) or NOTHING),
        ("seed", entry(report, "seed")),
        ("time", entry(report, "seconds", "{:,.1f} s")),
        ("gradients", entry(report, "gradient_evaluations", "{:,}")),
        ("log densities alone", entry(report, "density_evaluations", "{:,}")),
        ("peak memory", entry(report, "peak_memory_mb", "{:,.0f} MB")),
        ("versions", versions(report)),
        ("folder", entry(report, "out")),
    ]


def _training(report: Mapping[str, Any]) -> str:
    if report.get("steps") is None:
        return NOTHING
    parts = [f"{report['steps']:,} steps", _ENDINGS.get(str(report.get("stopped")), "")]
    if modes := report.get("modes"):
        shares = ", ".join(f"{share:.0%}" for share in modes)
        parts.append(f"on {len(modes)} modes that chains from elsewhere found ({shares})")
    if skipped := report.get("skipped_steps"):
        parts.append(f"{skipped:,} of them without a finite gradient")
    if returns := report.get("returns"):
        parts.append(f"after {returns} breakdowns on from where it was sound")
    return ", ".join(filter(None, parts))


def _draws(report: Mapping[str, Any]) -> str:
    if report.get("draws") is None:
        return NOTHING
    how = "annealed from the flow to the posterior" if report.get("refined") else "independent"
    parts = [f"{report['draws']:,}, {how}"]
    if outward := (report.get("refine") or {}).get("outward"):
        parts.append(
            f"{outward['share']:.0%} of them from farther out along {outward['parameter']}, "
            "where moves alone did not come"
        )
    if report.get("resampled"):
        parts.append("then chosen from by their importance weights")
    if report.get("evidence_draws"):
        of_weights = "ELBO and k-hat" if report.get("refined") else "ELBO, log evidence and k-hat"
        parts.append(f"{report['evidence_draws']:,} behind {of_weights}")
    return "; ".join(parts)


def _failures(report: Mapping[str, Any]) -> str:
    failed = report.get("failed_generated_quantities")
    return f"failed for {failed:,} draws, which are left out of them" if failed else NOTHING


# ---- Figures ----------------------------------------------------------------------------------


def _plots(fit: Fit, weights: FloatArray | None) -> dict[str, Plot]:
    found: dict[str, Plot] = {}
    if len(fit.trace):
        found["trace"] = plot("Training", "The ELBO of each step.", figures.elbo_trace(fit))
    if weights is not None:
        found["weights"] = plot(
            "Importance weights", "The draws' importance weights by rank.", figures.weights(fit)
        )
    if fit.columns:
        found["marginals"] = plot(
            "Marginals", "Histograms of the first scalars.", figures.marginals(fit, weights)
        )
    return found


# ---- The table --------------------------------------------------------------------------------


def _tables(fit: Fit, weights: FloatArray | None) -> list[dict[str, FloatArray]]:
    """Return the summary of the first scalars, and with weights that with them."""
    values = fit.values[:, :ROWS_SHOWN]
    with np.errstate(all="ignore"):  # squares of huge values overflow
        plain = summarize(values)
        return [plain] if weights is None else [plain, summarize(values, weights)]


def _rows(fit: Fit, tables: list[dict[str, FloatArray]]) -> list[list[str]]:
    names, spreads = fit.columns[:ROWS_SHOWN], tables[0]["StdDev"]
    numbers = np.column_stack([column for table in tables for column in table.values()])
    return [
        [bracketed(name), *_cells(row, float(spread))]
        for name, spread, row in zip(names, spreads, numbers, strict=True)
    ]


def _cells(numbers: FloatArray, spread: float) -> list[str]:
    """Return a scalar's numbers, to as many decimals as its spread makes worth telling."""
    decimals = -1
    if math.isfinite(spread) and spread > 0:
        decimals = max(_DIGITS_OF_A_SPREAD - 1 - math.floor(math.log10(spread)), 0)
    in_full = 0 <= decimals <= _MOST_DECIMALS
    return [
        NOTHING if math.isnan(x)
        else f"{x:,.{decimals}f}" if in_full and abs(x) < _LARGEST_IN_FULL
        else f"{x:.4g}"
        for x in numbers
    ]  # fmt: skip
