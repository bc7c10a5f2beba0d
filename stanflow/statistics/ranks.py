"""Ranks, and the normal scores that belong to them."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from stanflow.arrays import FloatArray


def average_ranks(values: FloatArray) -> FloatArray:
    """Return each value's rank, counted from 1, of shape (n,); those alike have their mean rank.

    Examples
    --------
    >>> average_ranks(np.array([3.0, 1.0, 3.0]))
    array([2.5, 1. , 2.5])
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


def normal_scores(values: FloatArray, offset: float) -> FloatArray:
    """Return the standard normal's quantiles at ``(rank - c) / (n - 2 c + 1)``, of shape (n,).

    Parameters
    ----------
    values : array of shape (n,)
    offset : float
        c, from 0 to 1/2.

    Examples
    --------
    >>> normal_scores(np.array([3.0, 1.0, 2.0]), 0.5).round(3)
    array([ 0.967, -0.967,  0.   ])
    """
    ranks, place = np.unique(average_ranks(values), return_inverse=True)
    probabilities = (ranks - offset) / (len(values) - 2 * offset + 1)
    quantile = NormalDist().inv_cdf
    return np.array([quantile(p) for p in probabilities.tolist()])[place]
