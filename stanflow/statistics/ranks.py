"""Ranks."""

from __future__ import annotations

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
