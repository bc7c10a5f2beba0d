"""Whether pairs of scalars go together on one side as they do on the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from stanflow.arrays import FloatArray
from stanflow.statistics.markov_chains import mcse_mean
from stanflow.statistics.ranks import average_ranks

MOST_SCALARS = 1000
_PAIRS_EXAMINED = 20


def correlation_table(
    names: Sequence[str], first: FloatArray, reference: FloatArray
) -> pd.DataFrame:
    """Return the pairs whose rank correlation differs most, worst first.

    Spearman's correlation, because it has a Monte Carlo error whatever the tails. All pairs are
    looked at, the errors of those 20 are estimated whose correlations differ most.

    Parameters
    ----------
    names : sequence of str
        n scalars, at most `MOST_SCALARS`.
    first, reference : arrays of shape (chains, draws, n)
        Finite draws, no column constant.

    Returns
    -------
    pandas.DataFrame
        Columns ``a``, ``b``, ``correlation``, ``reference_correlation``, ``difference`` and ``z``,
        the difference over the Monte Carlo error of both sides.
    """
    columns = ["a", "b", "correlation", "reference_correlation", "difference", "z"]
    n = len(names)
    if n < 2:
        return pd.DataFrame([], columns=columns)
    ranks, reference_ranks = _ranks(first), _ranks(reference)
    correlation, reference_correlation = _correlation(ranks), _correlation(reference_ranks)
    rows, cols = np.triu_indices(n, 1)
    difference = (correlation - reference_correlation)[rows, cols]
    largest = np.argsort(-np.abs(difference))[:_PAIRS_EXAMINED]
    found = []
    for pair in largest:
        i, j = int(rows[pair]), int(cols[pair])
        error = np.hypot(
            _error(first.shape, ranks, i, j), _error(reference.shape, reference_ranks, i, j)
        )
        z = difference[pair] / error if error > 0 else np.nan
        found.append(
            (names[i], names[j], correlation[i, j], reference_correlation[i, j],
             difference[pair], z)
        )  # fmt: skip
    return pd.DataFrame(found, columns=columns)


def _ranks(values: FloatArray) -> FloatArray:
    """Return the ranks of each column's pooled draws on (0, 1), of shape (S, n)."""
    pooled = values.reshape(-1, values.shape[-1])
    return np.asarray((np.apply_along_axis(average_ranks, 0, pooled) - 0.5) / len(pooled))


def _correlation(ranks: FloatArray) -> FloatArray:
    return np.asarray(np.corrcoef(ranks, rowvar=False))


def _error(shape: tuple[int, ...], ranks: FloatArray, i: int, j: int) -> float:
    """Return the Monte Carlo error of one rank correlation.

    That of the mean of its influence function (Croux and Dehon 2010, "Influence functions of the
    Spearman and Kendall correlation measures"),
    ``12 [F(x) G(y) + E(G(Y); X > x) + E(F(X); Y > y)]`` but for a constant.
    """
    u, v = ranks[:, i], ranks[:, j]
    influence = 12 * (u * v + _mean_above(u, v) + _mean_above(v, u))
    return mcse_mean(influence.reshape(shape[:2]))


def _mean_above(u: FloatArray, v: FloatArray) -> npt.NDArray[np.float64]:
    """Return, for each draw, the mean over all draws of v where u is larger than its own."""
    order = np.argsort(u)
    after = np.cumsum(v[order][::-1])[::-1] - v[order]
    result = np.empty_like(u)
    result[order] = after / len(u)
    return result
