"""Figures of a comparison, drawn without any display."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from stanflow.comparison.metrics import WEIGHTED
from stanflow.comparison.result import number
from stanflow.estimates.importance import highest_pareto_k
from stanflow.result import Fit
from stanflow.target.loaded import FloatArray

if TYPE_CHECKING:
    from stanflow.comparison.result import Comparison

# From the palette of Okabe and Ito, which the colour-blind tell apart.
FIRST, REFERENCE, WEIGHTS = "#D55E00", "#0072B2", "#009E73"
_GREY = "#666666"

_FOREST_ROWS, _MARGINALS, _PAIRS = 30, 12, 6
_BINS = 40
_MARGIN = 0.1  # of the range
_POINTS_SHOWN, _POINTS_SMOOTHED, _GRID = 400, 800, 60
_CONTOURS = (0.5, 0.9)  # of the mass inside
_STEPS_SMOOTHED = 50  # a window is that part of the steps
_SPREADS_SHOWN = 4  # below where the second half of training was
_INTERVAL_OF_HALF = (0.25, 0.75)
_INTERVAL_OF_MOST = (0.05, 0.95)


def elbo_trace(fit: Fit) -> Figure:
    """Draw the ELBO of each training step, and that of the trained flow."""
    figure, axes = _one_axes(3.2)
    constant = float(fit.report["normalizing_constant"]["value"])
    step = fit.trace["step"].to_numpy(dtype=np.float64)
    elbo = fit.trace["elbo"].to_numpy(dtype=np.float64) + constant
    known = np.isfinite(elbo)
    axes.plot(step[known], elbo[known], color=FIRST, alpha=0.35, lw=0.8, label="a step's batch")
    window = max(len(elbo) // _STEPS_SMOOTHED, 1)
    smooth = fit.trace["elbo"].rolling(window, min_periods=1).median().to_numpy() + constant
    axes.plot(step, smooth, color=FIRST, lw=1.8, label=f"median of {window} steps")
    axes.axhline(fit.elbo, color="black", ls="--", lw=1, label=f"trained flow: {fit.elbo:.2f}")
    _look_at_the_end(axes, elbo[known], fit.elbo)
    axes.set_xlabel("training step")
    axes.set_ylabel("ELBO (nats)" if fit.normalized else "ELBO (nats, constants missing)")
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    return figure


def evidence(comparison: Comparison) -> Figure:
    """Draw the estimates of the log evidence, each with twice its standard error."""
    entries = comparison.evidence.entries
    figure, axes = _one_axes(0.8 + 0.45 * max(len(entries), 1))
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
    figure, axes = _one_axes(1.4 + 0.34 * len(names))
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
            va="center", fontsize=8, color=_GREY,
        )  # fmt: skip
    axes.annotate(
        f"{reference.label}: mean ± sd", (1.01, 1.0), xycoords="axes fraction", va="bottom",
        fontsize=8, color=_GREY,
    )  # fmt: skip
    for row in range(1, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, lw=0)
    axes.axvline(0, color=_GREY, lw=0.8, ls=":")
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
    names = list(comparison.table.index[:_MARGINALS])
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(10, 0.6 + 2.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        _histograms(axes, comparison, name)
    for axes in grid[len(names) :]:
        axes.set_visible(False)
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
    columns = min(3, max(len(chosen), 1))
    rows = -(-max(len(chosen), 1) // columns)
    figure = Figure(figsize=(10, 0.6 + 3.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (a, b) in zip(grid, chosen, strict=False):
        (x_first, x_reference), (y_first, y_reference) = (
            _draws_of(comparison, name) for name in (a, b)
        )
        _cloud(axes, x_reference, y_reference, REFERENCE, "solid")
        _cloud(axes, x_first, y_first, FIRST, "dashed")
        for set_limits, both in (
            (axes.set_xlim, (x_first, x_reference)),
            (axes.set_ylim, (y_first, y_reference)),
        ):
            low, high = _view(*both)
            set_limits(low - _MARGIN * (high - low), high + _MARGIN * (high - low))
        axes.set_xlabel(a, fontsize=9)
        axes.set_ylabel(b, fontsize=9)
        axes.tick_params(labelsize=8)
    for axes in grid[len(chosen) :]:
        axes.set_visible(False)
    _legend_of_figure(figure, comparison, weighted=False)
    return figure


def weights(fit: Fit) -> Figure:
    """Draw the importance weights by rank, before and after Pareto smoothing, with k-hat."""
    figure, axes = _one_axes(3.2)
    draws = len(fit.log_weights)
    raw = fit.log_p - fit.log_q
    raw = np.sort(raw - _log_sum(raw))[::-1]
    smoothed = np.sort(fit.log_weights - _log_sum(fit.log_weights))[::-1]
    rank = np.arange(1, draws + 1)
    per_log10 = np.log(10)
    shift = np.log10(draws)
    axes.plot(rank, raw / per_log10 + shift, ".", color=FIRST, ms=4, label="raw")
    axes.plot(rank, smoothed / per_log10 + shift, color="black", lw=1.4, label="Pareto-smoothed")
    axes.axhline(0, color=_GREY, ls=":", lw=1, label="all weights equal")
    axes.set_xscale("log")
    low = max(float(smoothed[int(0.99 * (draws - 1))]) / per_log10 + shift, -8.0)
    axes.set_ylim(bottom=low - 0.3)
    axes.set_xlabel("rank of the draw, heaviest first")
    axes.set_ylabel("log10 of weight x draws")
    k = fit.report.get("pareto_k")
    limit = highest_pareto_k(draws)
    if k is None:
        title = "Pareto k-hat is not known"
    else:
        words = "can be trusted" if k < limit else "cannot be trusted"
        title = f"Pareto k-hat {k:.2f}: weights {words} (limit {limit:.2f})"
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(loc="upper right", frameon=False, fontsize=9)
    return figure


# ---- Parts of figures -------------------------------------------------------------------------


def _one_axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(10, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draws_of(comparison: Comparison, name: str) -> tuple[FloatArray, FloatArray]:
    """Return both sides' pooled draws of a scalar."""
    position = comparison.sides.names.index(name)
    sides = comparison.sides
    return sides.first.pooled[:, position], sides.reference.pooled[:, position]


def _look_at_the_end(axes: Axes, elbo: FloatArray, final: float) -> None:
    """Show where training ended up; its beginning may be thousands of nats below."""
    late = np.append(elbo[len(elbo) // 2 :], final)
    low, high = float(np.quantile(late, 0.02)), float(late.max())
    spread = max(high - low, 1e-4 * max(abs(final), 1.0))
    lowest = float(elbo.min()) if len(elbo) else final
    bottom = min(max(lowest, low - _SPREADS_SHOWN * spread), final) - spread / 2
    axes.set_ylim(bottom, high + spread / 2)
    if lowest < bottom:
        axes.annotate(
            f"steps below are not shown (lowest {lowest:.4g})",
            (0.01, 0.03), xycoords="axes fraction", fontsize=8, color=_GREY,
        )  # fmt: skip


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


def _view(first: FloatArray, reference: FloatArray) -> tuple[float, float]:
    """Return the range to look at: nearly all draws, but not tails far from the bulk."""
    ends = []
    for x in (first, reference):
        far_low, low, high, far_high = np.quantile(x, (0.002, 0.05, 0.95, 0.998))
        ends.append((max(far_low, low - (high - low)), min(far_high, high + (high - low))))
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    if high > low:
        return float(low), float(high)
    pooled = np.concatenate([first, reference])
    return float(pooled.min()), float(pooled.max())


def _histograms(axes: Axes, comparison: Comparison, name: str) -> None:
    first, reference = _draws_of(comparison, name)
    weights = comparison.sides.first.weights
    low, high = _view(first, reference)
    edges = np.linspace(low, high, _BINS + 1)
    axes.stairs(_heights(reference, edges), edges, fill=True, color=REFERENCE, alpha=0.35)
    axes.stairs(_heights(first, edges), edges, color=FIRST, lw=1.6)
    if weights is not None:
        axes.stairs(_heights(first, edges, weights), edges, color=WEIGHTS, lw=1.1, ls="--")
    axes.set_title(name, fontsize=10)
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _heights(
    x: FloatArray, edges: FloatArray, weights: FloatArray | None = None
) -> npt.NDArray[np.float64]:
    """Return a density's histogram; what lies outside the edges counts in its normalisation."""
    share = np.full(len(x), 1 / len(x)) if weights is None else weights
    counts, _ = np.histogram(x, edges, weights=share)
    return np.asarray(counts / np.diff(edges))


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
    low, high = _view(x, x)
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


def _log_sum(x: FloatArray) -> float:
    return float(np.logaddexp.reduce(x))
