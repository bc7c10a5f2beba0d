"""A comparison as one HTML file that opens anywhere, without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from typing_extensions import TypedDict

import stanflow
from stanflow.comparison import plots
from stanflow.comparison.metrics import WEIGHTED
from stanflow.comparison.result import describe_side, number
from stanflow.errors import UsageError, reason
from stanflow.result import Fit
from stanflow.storage.output import replace_file

if TYPE_CHECKING:
    from stanflow.comparison.result import Comparison

ROWS_SHOWN = 200
_LEFT_OUT_SHOWN = 50
_DOTS_PER_INCH = 130
_NOTHING = "\N{EN DASH}"
_WORDS = {"agree": "Agree", "undecided": "Undecided", "close": "Close", "differ": "Differ"}
_SETTINGS = ("flow_config", "train_config")


class Plot(TypedDict):
    """A figure in the page."""

    title: str
    text: str
    png: str


def write_report(comparison: Comparison, path: Path) -> Path:
    """Write the page; it replaces an earlier one when it is whole.

    Parameters
    ----------
    comparison : Comparison
    path : pathlib.Path
        The file, ``.html``; its folder is made where it is missing.

    Returns
    -------
    pathlib.Path
        The file, absolute.

    Raises
    ------
    UsageError
        It cannot be written.
    """
    content = render(comparison).encode(errors="replace")
    try:
        path = path.resolve()
        if path.is_dir():
            raise UsageError(f"{path} is a folder; name a file for the report")
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except (OSError, ValueError) as error:
        raise UsageError(f"the report cannot be written to {path}: {reason(error)}") from None
    return path


def render(comparison: Comparison) -> str:
    """Return the page's HTML."""
    environment = Environment(
        loader=PackageLoader("stanflow.comparison", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    summary = comparison.summary
    page: str = environment.get_template("report.html.jinja").render(
        version=stanflow.__version__,
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
        settings=_settings(comparison),
        program=comparison.first.program,
    )
    return page


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
        ("engine", _engine),
        ("seed", lambda side: _entry(side, "seed")),
        ("draws", _draws),
        ("time", lambda side: _entry(side, "seconds", "{:,.1f} s")),
        ("gradient evaluations", _gradients),
        ("divergent transitions", lambda side: _entry(side, "divergences")),
        ("transitions at the treedepth limit", lambda side: _entry(side, "max_treedepth_hits")),
        ("Pareto k-hat", lambda side: _entry(side, "pareto_k", "{:.2f}")),
        ("importance ESS", lambda side: _entry(side, "importance_ess", "{:,.0f}")),
        ("versions", _versions),
        ("folder", lambda side: _entry(side, "out")),
    ]
    filled = [(name, say(ours), say(theirs)) for name, say in lines]
    return [line for line in filled if line[1:] != (_NOTHING, _NOTHING)]


def _entry(side: Mapping[str, Any], key: str, pattern: str = "{}") -> str:
    return pattern.format(side[key]) if key in side else _NOTHING


def _method(side: Mapping[str, Any]) -> str:
    if side["kind"] == "nuts":
        return "Stan's NUTS"
    steps = f", {side['steps']:,} training steps" if "steps" in side else ""
    return f"normalizing flow, {side.get('family', 'of unknown family')}{steps}"


def _engine(side: Mapping[str, Any]) -> str:
    name, version = side.get("engine"), side.get("engine_version")
    if name is None:
        return version or _NOTHING
    return f"{name} ({version})" if version else str(name)


def _draws(side: Mapping[str, Any]) -> str:
    if side["kind"] != "nuts":
        return f"{side['draws']:,}, independent"
    warmup = f" after {side['warmup']:,} of warmup" if "warmup" in side else ""
    return f"{side['chains']} chains of {side['draws']:,}{warmup}"


def _gradients(side: Mapping[str, Any]) -> str:
    evaluations = _entry(side, "gradient_evaluations", "{:,}")
    if "warmup_gradient_evaluations" not in side:
        return evaluations
    return f"{evaluations}, {side['warmup_gradient_evaluations']:,} of them in warmup"


def _versions(side: Mapping[str, Any]) -> str:
    versions = side.get("versions")
    if not isinstance(versions, Mapping) or not versions:
        return _NOTHING
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _settings(comparison: Comparison) -> list[tuple[str, str]]:
    """Return a flow's configuration, as name and value."""
    flow = _flow_of(comparison)
    if flow is None:
        return []
    return [
        (name, str(value))
        for key in _SETTINGS
        for name, value in (flow.report.get(key) or {}).items()
    ]


# ---- Figures ----------------------------------------------------------------------------------


def _plots(comparison: Comparison) -> dict[str, Plot]:
    flow = _flow_of(comparison)
    found: dict[str, Plot] = {}
    if comparison.evidence.entries:
        found["evidence"] = _plot(
            "Evidence", "Estimates of the log evidence with error bars.", plots.evidence(comparison)
        )
    if flow is not None and len(flow.trace):
        found["trace"] = _plot(
            "Training", "The ELBO of each training step.", plots.elbo_trace(flow)
        )
    found["forest"] = _plot(
        "Intervals", "Intervals of both sides, worst scalars first.", plots.forest(comparison)
    )
    found["marginals"] = _plot(
        "Marginals", "Histograms of the worst scalars, both sides.", plots.marginals(comparison)
    )
    if plots.chosen_pairs(comparison):
        found["pairs"] = _plot(
            "Pairs", "Draws of pairs of parameters, both sides.", plots.pairs(comparison)
        )
    if flow is not None and comparison.sides.first.weights is not None:
        found["weights"] = _plot(
            "Importance weights", "The flow's importance weights by rank.", plots.weights(flow)
        )
    return found


def _plot(title: str, text: str, figure: Figure) -> Plot:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return Plot(title=title, text=text, png=base64.b64encode(buffer.getvalue()).decode("ascii"))


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
