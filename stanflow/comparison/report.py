"""A comparison as one HTML file that opens anywhere, without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stanflow.comparison import plots
from stanflow.comparison.metrics import WEIGHTED
from stanflow.comparison.sides import describe_side
from stanflow.fitting.result import Fit
from stanflow.report import figures
from stanflow.report.page import Plot, plot, render_page
from stanflow.report.ran import NOTHING, configuration, engine, entry, versions
from stanflow.statistics.summary import number

if TYPE_CHECKING:
    from stanflow.comparison.result import Comparison

ROWS_SHOWN = 200
_LEFT_OUT_SHOWN = 50
_WORDS = {"agree": "Agree", "undecided": "Undecided", "close": "Close", "differ": "Differ"}


def render(comparison: Comparison) -> str:
    """Return the page's HTML."""
    summary, flow = comparison.summary, _flow_of(comparison)
    return render_page(
        "report.html.jinja",
        "stanflow.comparison",
        summary=summary,
        headline=comparison.headline,
        notes=comparison.notes,
        agreement=_WORDS[summary["agreement"]],
        own_verdicts=_own_verdicts(comparison),
        labels=(comparison.sides.first.label, comparison.sides.reference.label),
        descriptions=[describe_side(summary[key]) for key in ("first", "reference")],
        runs=_runs(comparison),
        evidence=comparison.evidence.entries,
        bridge_left_out=comparison.evidence.bridge_left_out,
        plots=_plots(comparison),
        head=_head(comparison),
        rows=_rows(comparison),
        hidden=max(len(comparison.table) - ROWS_SHOWN, 0),
        left_out=list(summary["left_out"].items())[:_LEFT_OUT_SHOWN],
        left_out_hidden=max(len(summary["left_out"]) - _LEFT_OUT_SHOWN, 0),
        settings=[] if flow is None else configuration(flow.report),
        program=comparison.first.program,
    )


def _own_verdicts(comparison: Comparison) -> list[tuple[str, str, list[str]]]:
    """Return what each flow's fit says of itself: the side, the verdict and the reasons."""
    found = []
    for side in (comparison.sides.first, comparison.sides.reference):
        report = side.run.report
        if isinstance(side.run, Fit) and report.get("verdict") is not None:
            found.append((side.in_sentences, str(report["verdict"]), report.get("reasons") or []))
    return found


def _flow_of(comparison: Comparison) -> Fit | None:
    for run in (comparison.first, comparison.reference):
        if isinstance(run, Fit):
            return run
    return None


def _runs(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Return what was run on both sides: a line's heading and its two entries."""
    ours, theirs = comparison.summary["first"], comparison.summary["reference"]
    lines: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("method", _method),
        ("engine", engine),
        ("seed", lambda side: entry(side, "seed")),
        ("draws", _draws),
        ("time", lambda side: entry(side, "seconds", "{:,.1f} s")),
        ("gradient evaluations", _gradients),
        ("divergent transitions", lambda side: entry(side, "divergences")),
        ("transitions at the treedepth limit", lambda side: entry(side, "max_treedepth_hits")),
        ("Pareto k-hat", lambda side: entry(side, "pareto_k", "{:.2f}")),
        ("importance ESS", lambda side: entry(side, "importance_ess", "{:,.0f}")),
        ("versions", versions),
        ("folder", lambda side: entry(side, "out")),
    ]
    filled = [(name, say(ours), say(theirs)) for name, say in lines]
    return [line for line in filled if line[1:] != (NOTHING, NOTHING)]


def _method(side: Mapping[str, Any]) -> str:
    if side["kind"] == "nuts":
        return "Stan's NUTS"
    steps = f", {side['steps']:,} training steps" if "steps" in side else ""
    return f"normalizing flow, {side.get('family', 'of unknown family')}{steps}"


def _draws(side: Mapping[str, Any]) -> str:
    if side["kind"] != "nuts":
        return f"{side['draws']:,}, independent"
    warmup = f" after {side['warmup']:,} of warmup" if "warmup" in side else ""
    return f"{side['chains']} chains of {side['draws']:,}{warmup}"


def _gradients(side: Mapping[str, Any]) -> str:
    evaluations = entry(side, "gradient_evaluations", "{:,}")
    if "warmup_gradient_evaluations" not in side:
        return evaluations
    return f"{evaluations}, {side['warmup_gradient_evaluations']:,} of them in warmup"


# ---- Figures ----------------------------------------------------------------------------------


def _plots(comparison: Comparison) -> dict[str, Plot]:
    flow = _flow_of(comparison)
    found: dict[str, Plot] = {}
    if comparison.evidence.entries:
        found["evidence"] = plot(
            "Evidence", "Estimates of the log evidence with error bars.", plots.evidence(comparison)
        )
    if flow is not None and len(flow.trace):
        found["trace"] = plot(
            "Training", "The ELBO of each training step.", figures.elbo_trace(flow)
        )
    found["forest"] = plot(
        "Intervals", "Intervals of both sides, worst scalars first.", plots.forest(comparison)
    )
    found["marginals"] = plot(
        "Marginals", "Histograms of the worst scalars, both sides.", plots.marginals(comparison)
    )
    if plots.chosen_pairs(comparison):
        found["pairs"] = plot(
            "Pairs", "Draws of pairs of parameters, both sides.", plots.pairs(comparison)
        )
    if flow is not None and comparison.sides.first.weights is not None:
        found["weights"] = plot(
            "Importance weights", "The flow's importance weights by rank.", figures.weights(flow)
        )
    return found


# ---- The table --------------------------------------------------------------------------------


def _head(comparison: Comparison) -> list[str]:
    first, reference = comparison.sides.first.short_label, comparison.sides.reference.short_label
    head = [
        "scalar", "", f"mean, {first}", f"mean, {reference}", "off by (sds)", "z",
        f"sd, {first}", f"sd, {reference}", "sd ratio", "z",
    ]  # fmt: skip
    if f"mean_error{WEIGHTED}" in comparison.table:
        head += ["off by, weighted", "sd ratio, weighted"]
    head += ["W1 (sds)", f"ESS, {reference}"]
    head += [f"5, 50, 95 %, {label}" for label in (first, reference)]
    return head


def _rows(comparison: Comparison) -> list[list[str]]:
    shown = comparison.table.head(ROWS_SHOWN)
    return [_row(str(name), row) for name, row in shown.iterrows()]


def _row(name: str, row: pd.Series[Any]) -> list[str]:
    cells = [
        name,
        f"{row['level']}{'*' if row['judged_by'] == 'quantiles' else ''}",
        _with_error(row, "mean"),
        _with_error(row, "reference_mean"),
        f"{row['mean_error']:+.3f}",
        f"{row['mean_z']:+.1f}",
        _with_error(row, "sd"),
        _with_error(row, "reference_sd"),
        f"{np.exp(row['log_sd_ratio']):.3f}",
        f"{row['log_sd_z']:+.1f}",
    ]
    if f"mean_error{WEIGHTED}" in row:
        cells += [
            f"{row[f'mean_error{WEIGHTED}']:+.3f}",
            f"{np.exp(row[f'log_sd_ratio{WEIGHTED}']):.3f}",
        ]
    cells += [f"{row['wasserstein']:.3f}", f"{row['reference_ess']:,.0f}"]
    for prefix in ("", "reference_"):
        cells.append(", ".join(number(row[f"{prefix}{key}"]) for key in ("5%", "50%", "95%")))
    return cells


def _with_error(row: pd.Series[Any], key: str) -> str:
    return f"{number(row[key])} ± {row[f'{key}_se']:.2g}"
