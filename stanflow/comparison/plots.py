"""Figures of a comparison, drawn without any display."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from stanflow.arrays import FloatArray
from stanflow.comparison.metrics import WEIGHTED
from stanflow.report.figures import (
    BINS,
    DRAWS,
    GREY,
    MARGINALS,
    WEIGHTS,
    bare,
    heights,
    one_axes,
    panels,
    view,
)
from stanflow.statistics.summary import number

if TYPE_CHECKING:
    from stanflow.comparison.result import Comparison

FIRST, REFERENCE = DRAWS, "#0072B2"  # also of Okabe and Ito

_FOREST_ROWS, _PAIRS = 30, 6
_MARGIN = 0.1  # of the range
_POINTS_SHOWN, _POINTS_SMOOTHED, _GRID = 400, 800, 60
_CONTOURS = (0.5, 0.9)  # of the mass inside
_INTERVAL_OF_HALF = (0.25, 0.75)
_INTERVAL_OF_MOST = (0.05, 0.95)


def evidence(comparison: Comparison) -> Figure:
    """Draw the estimates of the log evidence, each with twice its standard error."""
    entries = comparison.evidence.entries
    figure, axes = one_axes(0.8 + 0.45 * max(len(entries), 1))
    for row, entry in enumerate(entries):
        marker = "^" if entry.method == "ELBO" else "o"
        error = 2 * entry.se if np.isfinite(entry.se) else 0.0
        axes.errorbar(entry.value, row, xerr=error, fmt=marker, color="black", capsize=4, ms=7)
    sides = {entry.side for entry in entries if entry.method == "ELBO"}
    labels = [
        f"{entry.method}, {entry.side}" if len(sides) > 1 else entry.method for entry in entries
    ]
    axes.set_yticks(range(len(entries)), labels)
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set_xlabel("log evidence in nats, bars of two standard errors (the ELBO is a lower bound)")
    return figure


def forest(comparison: Comparison) -> Figure:
    """Draw 50 % and 90 % intervals of both sides, worst scalars first, in reference sds."""
    names = list(comparison.table.index[:_FOREST_ROWS])
    figure, axes = one_axes(1.4 + 0.34 * len(names))
    first, reference = comparison.sides.first, comparison.sides.reference
    offsets = (-0.2, 0.2) if first.weights is None else (-0.26, 0.26)
    for row, name in enumerate(names):
        mean, sd = comparison.table.loc[name, ["reference_mean", "reference_sd"]].astype(float)
        ours, theirs = ((x - mean) / sd for x in _draws_of(comparison, name))
        _interval(axes, row + offsets[0], theirs, None, REFERENCE)
        _interval(axes, row + offsets[1], ours, None, FIRST)
        if first.weights is not None:
            _interval(axes, row, ours, first.weights, WEIGHTS)
        axes.annotate(
            f"{number(mean)} ± {number(sd)}", (1.01, row), xycoords=("axes fraction", "data"),
            va="center", fontsize=8, color=GREY,
        )  # fmt: skip
    axes.annotate(
        f"{reference.label}: mean ± sd", (1.01, 1.0), xycoords="axes fraction", va="bottom",
        fontsize=8, color=GREY,
    )  # fmt: skip
    for row in range(1, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, lw=0)
    axes.axvline(0, color=GREY, lw=0.8, ls=":")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(
        f"standard deviations of {reference.in_sentences} from its mean: median, 50 % (thick), "
        "90 % (thin)"
    )
    _legend_above(axes, comparison)
    return figure


def marginals(comparison: Comparison) -> Figure:
    """Draw histograms of the worst scalars, both sides on the same bins."""
    names = list(comparison.table.index[:MARGINALS])
    figure, grid = panels(len(names), 2.2)
    for axes, name in zip(grid, names, strict=True):
        _histograms(axes, comparison, name)
    _legend_of_figure(figure, comparison)
    return figure


def chosen_pairs(comparison: Comparison) -> list[tuple[str, str]]:
    """Return the pairs that are drawn: of unlike correlation, then of the worst parameters."""
    sides = comparison.sides
    by_correlation = [
        (str(a), str(b)) for a, b in comparison.pairs[["a", "b"]].itertuples(index=False)
    ][: _PAIRS // 2]
    joint = {sides.names[j] for j in sides.joint}
    worst = [str(name) for name in comparison.table.index if name in joint][:4]
    seen = {frozenset(pair) for pair in by_correlation}
    others = [pair for pair in combinations(worst, 2) if frozenset(pair) not in seen]
    return (by_correlation + others)[:_PAIRS]


def pairs(comparison: Comparison) -> Figure:
    """Draw pairs of parameters: draws, and regions that hold 50 % and 90 % of each side."""
    chosen = chosen_pairs(comparison)
    figure, grid = panels(len(chosen), 3.2)
    for axes, (a, b) in zip(grid, chosen, strict=True):
        (x_first, x_reference), (y_first, y_reference) = (
            _draws_of(comparison, name) for name in (a, b)
        )
        _cloud(axes, x_reference, y_reference, REFERENCE, "solid")
        _cloud(axes, x_first, y_first, FIRST, "dashed")
        for set_limits, both in (
            (axes.set_xlim, (x_first, x_reference)),
            (axes.set_ylim, (y_first, y_reference)),
        ):
            low, high = view(*both)
            set_limits(low - _MARGIN * (high - low), high + _MARGIN * (high - low))
        axes.set_xlabel(a, fontsize=9)
        axes.set_ylabel(b, fontsize=9)
        axes.tick_params(labelsize=8)
    _legend_of_figure(figure, comparison, weighted=False)
    return figure


# ---- Parts of figures -------------------------------------------------------------------------


def _draws_of(comparison: Comparison, name: str) -> tuple[FloatArray, FloatArray]:
    """Return both sides' pooled draws of a scalar."""
    position = comparison.sides.names.index(name)
    sides = comparison.sides
    return sides.first.pooled[:, position], sides.reference.pooled[:, position]


def _interval(
    axes: Axes, row: float, x: FloatArray, weights: FloatArray | None, colour: str
) -> None:
    order = np.argsort(x)
    share = np.full(len(x), 1 / len(x)) if weights is None else weights[order]
    below = np.cumsum(share) - share / 2
    low, left, middle, right, high = np.interp(
        [_INTERVAL_OF_MOST[0], _INTERVAL_OF_HALF[0], 0.5, _INTERVAL_OF_HALF[1],
         _INTERVAL_OF_MOST[1]],
        below,
        x[order],
    )  # fmt: skip
    axes.plot([low, high], [row, row], color=colour, lw=1.2, solid_capstyle="butt")
    axes.plot([left, right], [row, row], color=colour, lw=4, solid_capstyle="butt")
    axes.plot(middle, row, "o", color="white", mec=colour, ms=4.5, mew=1.2)


def _histograms(axes: Axes, comparison: Comparison, name: str) -> None:
    first, reference = _draws_of(comparison, name)
    weights = comparison.sides.first.weights
    low, high = view(first, reference)
    edges = np.linspace(low, high, BINS + 1)
    axes.stairs(heights(reference, edges), edges, fill=True, color=REFERENCE, alpha=0.35)
    axes.stairs(heights(first, edges), edges, color=FIRST, lw=1.6)
    if weights is not None:
        axes.stairs(heights(first, edges, weights), edges, color=WEIGHTS, lw=1.1, ls="--")
    axes.set_title(name, fontsize=10)
    bare(axes)


def _cloud(axes: Axes, x: FloatArray, y: FloatArray, colour: str, style: str) -> None:
    shown = np.linspace(0, len(x) - 1, min(len(x), _POINTS_SHOWN)).round().astype(int)
    axes.plot(x[shown], y[shown], ".", color=colour, ms=2.5, alpha=0.3, rasterized=True)
    chosen = np.linspace(0, len(x) - 1, min(len(x), _POINTS_SMOOTHED)).round().astype(int)
    points = np.stack([x[chosen], y[chosen]])
    try:
        density = stats.gaussian_kde(points)
    except np.linalg.LinAlgError:  # all on a line
        return
    grid_x, grid_y = (_kde_grid(axis) for axis in points)
    mesh = np.stack([axis.ravel() for axis in np.meshgrid(grid_x, grid_y)])
    height = density(mesh).reshape(_GRID, _GRID)
    inside = np.quantile(density(points), [1 - mass for mass in reversed(_CONTOURS)])
    if inside[0] < inside[1]:
        axes.contour(
            grid_x, grid_y, height, levels=inside, colors=colour, linewidths=1.4, linestyles=style
        )


def _kde_grid(x: FloatArray) -> FloatArray:
    """Return a grid over the draws, not beyond them: a parameter may have bounds."""
    low, high = view(x, x)
    pad = (high - low) / 2
    return np.linspace(max(x.min(), low - pad), min(x.max(), high + pad), _GRID)


def _handles(comparison: Comparison, *, weighted: bool = True) -> tuple[list[Artist], list[str]]:
    sides = comparison.sides
    handles: list[Artist] = [
        Line2D([], [], color=REFERENCE, lw=4),
        Line2D([], [], color=FIRST, lw=4),
    ]
    labels = [sides.reference.label, sides.first.label]
    if weighted and f"mean{WEIGHTED}" in comparison.table:
        handles.append(Line2D([], [], color=WEIGHTS, lw=4))
        labels.append(f"{sides.first.label}, importance-weighted")
    return handles, labels


def _legend_above(axes: Axes, comparison: Comparison) -> None:
    handles, labels = _handles(comparison)
    axes.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9
    )


def _legend_of_figure(figure: Figure, comparison: Comparison, *, weighted: bool = True) -> None:
    handles, labels = _handles(comparison, weighted=weighted)
    figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=9)
