"""Quantiles of weighted draws."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stanflow.arrays import FloatArray


def weighted_quantiles(
    x: FloatArray, weights: FloatArray, probabilities: npt.ArrayLike
) -> FloatArray:
    """Return quantiles of weighted draws.

    The i-th smallest draw is the quantile at ``w_1 + ... + w_(i-1) + w_i / 2``; between those it is
    interpolated linearly. Where all weights are equal, that is definition 5 of Hyndman and Fan
    (1996, "Sample quantiles in statistical packages", The American Statistician 50).

    Parameters
    ----------
    x : array of shape (S,)
        Finite.
    weights : array of shape (S,)
        Not negative; they add up to one.
    probabilities : array
        Of any shape.

    Examples
    --------
    >>> weighted_quantiles(np.array([3.0, 1.0, 2.0]), np.array([0.5, 0.25, 0.25]), [0.25, 0.75])
    array([1.5, 3. ])
    """
    order = np.argsort(x)
    sorted_weights = weights[order]
    positions = np.cumsum(sorted_weights) - sorted_weights / 2
    return np.asarray(np.interp(np.asarray(probabilities), positions, x[order]))
