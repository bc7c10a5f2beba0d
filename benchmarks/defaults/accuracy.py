"""How far weighted draws are from a reference, and what counts as a pass. No file, no fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Scalars = Mapping[str, Mapping[str, Any]]

NORMAL_QUARTILES = 1.3489795003921634  # of a normal, apart, in its sds
LARGEST_RELATIVE_SD_ERROR = 0.0075  # of a reference whose moments are compared
LARGEST_MEAN_ERROR, LARGEST_SD_ERROR, LARGEST_K = 0.1, 0.1, 0.7


def estimates(
    names: Sequence[str], values: FloatArray, weights: FloatArray | None = None
) -> dict[str, dict[str, float]]:
    """Return mean, sd, median and spread of each scalar.

    The spread is the interquartile range over 1.349, which is the sd of a normal.

    Parameters
    ----------
    names : sequence of str
        The n scalars.
    values : array of shape (S, n)
        Draws.
    weights : array of shape (S,), optional
        Of the draws.
    """
    w = np.full(len(values), 1 / len(values)) if weights is None else weights / weights.sum()
    correction = max(1 - float(w @ w), np.finfo(float).tiny)
    found = {}
    with np.errstate(over="ignore", invalid="ignore"):
        for name, x in zip(names, values.T, strict=True):
            mean = w @ x
            low, median, high = np.quantile(x, [0.25, 0.5, 0.75], weights=w, method="inverted_cdf")
            found[name] = {
                "mean": float(mean),
                "sd": float(np.sqrt(w @ (x - mean) ** 2 / correction)),
                "median": float(median),
                "spread": float((high - low) / NORMAL_QUARTILES),
            }
    return found


def statistic(scalar: Mapping[str, Any], *, heavy: bool) -> str:
    """Say by what a scalar is compared: "moments", or "quantiles" where its sd means little."""
    sd, sd_se = scalar["sd"], scalar["sd_se"]
    known = sd is not None and math.isfinite(sd) and sd_se <= LARGEST_RELATIVE_SD_ERROR * sd
    return "moments" if known and not heavy else "quantiles"


def accuracy(found: Scalars, reference: Scalars) -> dict[str, Any]:
    """Return the largest errors of mean (in reference sds) and of sd (of its logarithm).

    Where the reference says "quantiles", they are those of median and spread.

    Parameters
    ----------
    found : mapping
        As `estimates` returns it.
    reference : mapping
        The same for each scalar to compare, with its `statistic`.
    """
    mean_errors, sd_errors = {}, {}
    for name, there in reference.items():
        by_moments = there["statistic"] == "moments"
        centre, scale = ("mean", "sd") if by_moments else ("median", "spread")
        here = found[name]
        mean_errors[name] = abs(here[centre] - there[centre]) / there[scale]
        ratio = here[scale] / there[scale]
        sd_errors[name] = abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf
    worst_mean, worst_sd = _largest(mean_errors), _largest(sd_errors)
    return {
        "mean_error": mean_errors[worst_mean],
        "mean_worst": worst_mean,
        "sd_error": sd_errors[worst_sd],
        "sd_worst": worst_sd,
        "by_quantiles": [n for n, there in reference.items() if there["statistic"] == "quantiles"],
    }


def _largest(errors: Mapping[str, float]) -> str:
    """Return the name of the largest; nothing is larger than NaN."""
    return max(errors, key=lambda name: math.inf if math.isnan(errors[name]) else errors[name])


def passes(item: Mapping[str, Any]) -> bool:
    """Whether a fit has small errors and, if its draws have weights, a k-hat that allows that."""
    errors = item.get("accuracy")
    if errors is None or errors["mean_error"] is None or errors["sd_error"] is None:
        return False
    k = item["pareto_k"]
    return bool(
        errors["mean_error"] <= LARGEST_MEAN_ERROR
        and errors["sd_error"] <= LARGEST_SD_ERROR
        and (item["refined"] or (k is not None and k < LARGEST_K))
    )


def flagged(item: Mapping[str, Any]) -> bool:
    """Whether the fit itself says that it must not be believed, or ended in an error."""
    return "error" in item or item["verdict"] == "unreliable"


def mode_shares(x: FloatArray, weights: FloatArray) -> list[float]:
    """Return the weighted shares of the three modes of normal_mixture, each 1/3 if all is well.

    Parameters
    ----------
    x : array of shape (S, D)
        Draws.
    weights : array of shape (S,)
        Which add up to one.
    """
    along = x.sum(axis=1) / math.sqrt(x.shape[1])
    modes = (along < -3, abs(along) <= 3, along > 3)
    return [float(weights[mode].sum()) for mode in modes]
