"""A fit as a notebook shows it."""

from __future__ import annotations

import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stanflow.fitting.result import Fit

_ROWS_SHOWN = 20
_COLORS = {"good": "#1b7837", "usable": "#b35806", "unreliable": "#b2182b"}


def to_html(fit: Fit) -> str:
    """Return verdict, table and ELBO trace as HTML that needs nothing else."""
    summary, verdict = fit.summary(), fit.verdict
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in fit.report["reasons"])
    hidden = len(summary.table) - _ROWS_SHOWN
    more = f"<p>... and {hidden} more, in fit.summary().table</p>" if hidden > 0 else ""
    table = summary.table.head(_ROWS_SHOWN).to_html(float_format=lambda x: f"{x:.4g}", border=0)
    return (
        f'<div><p style="color: white; background: {_COLORS[verdict]}; padding: 0.3em 0.6em">'
        f"<b>{escape(verdict)}</b>: {escape(summary.heading)}</p><ul>{reasons}</ul>"
        f"<p>{'<br>'.join(map(escape, summary.findings))}</p>{table}{more}{_trace(fit)}</div>"
    )


def _trace(fit: Fit) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2), layout="constrained")
    axes = figure.subplots()
    elbo = fit.trace["elbo"].to_numpy() + fit.report["normalizing_constant"]["value"]
    axes.plot(fit.trace["step"], elbo, linewidth=0.6, color="#2166ac")
    settled = elbo[len(elbo) // 10 :]
    settled = settled[np.isfinite(settled)]
    if len(settled):
        low, high = np.quantile(settled, [0.01, 1.0])
        margin = 0.1 * (high - low) + 1e-6
        axes.set_ylim(low - margin, high + margin)
    axes.set(xlabel="step", ylabel="ELBO of a batch")
    text = io.StringIO()
    figure.savefig(text, format="svg")
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
