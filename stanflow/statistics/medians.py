"""Medians and their standard errors, and what goes with them in a normal distribution."""

from __future__ import annotations

import math

import numpy as np

from stanflow.arrays import FloatArray

QUARTILES_OF_NORMAL = 1.349  # how far apart they are, in standard deviations
_DEVIATION_OF_NORMAL = 0.6744897501960817  # the median absolute one


def gain_of_medians(before: FloatArray, after: FloatArray) -> tuple[float, float]:
    """Return by how much a median rose, and the standard error of that; outliers move neither."""
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    if min(len(before), len(after)) < 2:
        return math.nan, math.nan
    variances = [(math.pi / 2) * _robust_sd(part) ** 2 / len(part) for part in (before, after)]
    return float(np.median(after) - np.median(before)), math.sqrt(sum(variances))


def _robust_sd(x: FloatArray) -> float:
    return float(np.median(np.abs(x - np.median(x)))) / _DEVIATION_OF_NORMAL
