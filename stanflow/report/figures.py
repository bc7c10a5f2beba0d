"""Figures of one fit, drawn without any display, and what all figures are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stanflow.arrays import FloatArray
from stanflow.estimates.importance import highest_pareto_k
from stanflow.stan.variables import bracketed
from stanflow.statistics.importance_weights import log_sum_exp

if TYPE_CHECKING:
    from stanflow.fitting.result import Fit

# From the palette of Okabe and Ito, which the colour-blind tell apart.
DRAWS, WEIGHTS = "#D55E00", "#009E73"
GREY = "#666666"

MARGINALS = 12
BINS = 40
_WIDTH = 10  # inches
_SMALLEST_DRAWN, _LARGEST_DRAWN = 1e-100, 1e100  # beyond, bins and densities overflow
_LARGEST_COUNT = 1e15  # beyond, there is no half between whole numbers
_RELATIVE_WIDTH_OF_A_CONSTANT = 1e-9
_STEPS_SMOOTHED = 50  # a window is that part of the steps
_SPREADS_SHOWN = 4  # below where the second half of training was


def elbo_trace(fit: Fit) -> Figure:
    """Draw the ELBO of each training step, and that of the trained flow."""
    figure, axes = one_axes(3.2)
    constant = float(fit.report["normalizing_constant"]["value"])
    step = fit.trace["step"].to_numpy(dtype=np.float64)
    elbo = fit.trace["elbo"].to_numpy(dtype=np.float64) + constant
    known = np.isfinite(elbo)
    axes.plot(step[known], elbo[known], color=DRAWS, alpha=0.35, lw=0.8, label="a step's batch")
    window = max(len(elbo) // _STEPS_SMOOTHED, 1)
    smooth = fit.trace["elbo"].rolling(window, min_periods=1).median().to_numpy() + constant
    axes.plot(step, smooth, color=DRAWS, lw=1.8, label=f"median of {window} steps")
    axes.axhline(fit.elbo, color="black", ls="--", lw=1, label=f"trained flow: {fit.elbo:.2f}")
    _look_at_the_end(axes, elbo[known], fit.elbo)
    axes.set_xlabel("training step")
    axes.set_ylabel("ELBO (nats)" if fit.normalized else "ELBO (nats, constants missing)")
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    return figure


def weights(fit: Fit) -> Figure:
    """Draw the importance weights by rank, before and after Pareto smoothing, with k-hat."""
    figure, axes = one_axes(3.2)
    draws = len(fit.log_weights)
    raw = fit.log_p - fit.log_q
    raw = np.sort(raw - log_sum_exp(raw))[::-1]
    smoothed = np.sort(fit.log_weights - log_sum_exp(fit.log_weights))[::-1]
    rank = np.arange(1, draws + 1)
    per_log10 = np.log(10)
    shift = np.log10(draws)
    axes.plot(rank, raw / per_log10 + shift, ".", color=DRAWS, ms=4, label="raw")
    axes.plot(rank, smoothed / per_log10 + shift, color="black", lw=1.4, label="Pareto-smoothed")
    axes.axhline(0, color=GREY, ls=":", lw=1, label="all weights equal")
    axes.set_xscale("log")
    low = max(float(smoothed[int(0.99 * (draws - 1))]) / per_log10 + shift, -8.0)
    axes.set_ylim(bottom=low - 0.3)
    axes.set_xlabel("rank of the draw, heaviest first")
    axes.set_ylabel("log10 of weight x draws")
    k = fit.report.get("pareto_k")
    limit = highest_pareto_k(fit.report.get("evidence_draws", draws))
    if k is None:
        title = "Pareto k-hat is not known"
    else:
        words = "can be trusted" if k < limit else "cannot be trusted"
        title = f"Pareto k-hat {k:.2f}: weights {words} (limit {limit:.2f})"
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(loc="upper right", frameon=False, fontsize=9)
    return figure


def marginals(fit: Fit, importance: FloatArray | None) -> Figure:
    """Draw histograms of the first scalars, plain and importance-weighted on the same bins.

    Parameters
    ----------
    fit : Fit
    importance : array of shape (S,), optional
        Weights that add up to one.
    """
    columns = fit.columns[:MARGINALS]
    figure, grid = panels(len(columns), 2.2)
    for j, (axes, column) in enumerate(zip(grid, columns, strict=True)):
        _histograms(axes, fit.values[:, j], importance)
        axes.set_title(bracketed(column), fontsize=10, parse_math=False)
    handles: list[Artist] = [Line2D([], [], color=DRAWS, lw=4, alpha=0.5)]
    labels = ["the flow's draws"]
    if importance is not None:
        handles.append(Line2D([], [], color=WEIGHTS, lw=2))
        labels.append("importance-weighted")
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return figure


# ---- Parts of figures -------------------------------------------------------------------------


def one_axes(height: float) -> tuple[Figure, Axes]:
    """Return a figure of the page's width with one plot in it, and the plot."""
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of up to three plots a row, each so high, and the plots."""
    columns = min(3, max(count, 1))
    rows = -(-max(count, 1) // columns)
    figure = Figure(figsize=(_WIDTH, 0.6 + height * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count]


def bare(axes: Axes) -> None:
    """Leave of a histogram's frame its scale."""
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)


def view(*samples: FloatArray) -> tuple[float, float]:
    """Return the range to look at: nearly all draws, but not tails far from the bulk."""
    ends = []
    for x in samples:
        far_low, low, high, far_high = np.quantile(x, (0.002, 0.05, 0.95, 0.998))
        ends.append((max(far_low, low - (high - low)), min(far_high, high + (high - low))))
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    if high > low:
        return float(low), float(high)
    pooled = np.concatenate(samples)
    return float(pooled.min()), float(pooled.max())


def heights(
    x: FloatArray, edges: FloatArray, weights: FloatArray | None = None
) -> npt.NDArray[np.float64]:
    """Return a density's histogram; what lies outside the edges counts in its normalisation."""
    share = np.full(len(x), 1 / len(x)) if weights is None else weights
    counts, _ = np.histogram(x, edges, weights=share)
    return np.asarray(counts / np.diff(edges))


def _histograms(axes: Axes, x: FloatArray, importance: FloatArray | None) -> None:
    bare(axes)
    known = np.abs(x) < _LARGEST_DRAWN  # NaN is not
    if not known.any():
        axes.set_xticks([])
        axes.annotate(
            "no draw can be shown", (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY,
            fontsize=9,
        )  # fmt: skip
        return
    x = x[known]
    edges = _edges(x)
    axes.stairs(heights(x, edges), edges, fill=True, color=DRAWS, alpha=0.45)
    if importance is not None and (total := importance[known].sum()) > 0:
        share = importance[known] / total
        axes.stairs(heights(x, edges, share), edges, color=WEIGHTS, lw=1.5)


def _edges(x: FloatArray) -> FloatArray:
    """Return bins: one a whole number where there are but few of them, else of equal width."""
    low, high = view(x)
    size = max(abs(low), abs(high), _SMALLEST_DRAWN)
    if high - low <= BINS and size < _LARGEST_COUNT and (x == np.round(x)).all():
        return np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    if high - low < _RELATIVE_WIDTH_OF_A_CONSTANT * size:
        low, high = low - size / 10, high + size / 10
    return np.linspace(low, high, BINS + 1)


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
            (0.01, 0.03), xycoords="axes fraction", fontsize=8, color=GREY,
        )  # fmt: skip
