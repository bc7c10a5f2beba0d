"""Whether two sets of draws have the same joint distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import pdist, squareform

from stanflow.arrays import FloatArray

PROJECTIONS = 100
_SLICED_PERMUTATIONS = 99
_MMD_PERMUTATIONS = 999


@dataclass(frozen=True)
class SlicedWasserstein:
    """A sliced Wasserstein distance, and what it is for draws of one distribution.

    Attributes
    ----------
    value : float
        The distance, in the units of the draws.
    null_mean, null_95 : float
        Mean and 95 % quantile of the distance between two such sets of the pooled draws.
    projections : int
        Random directions averaged over.
    """

    value: float
    null_mean: float
    null_95: float
    projections: int


@dataclass(frozen=True)
class MmdTest:
    """A two-sample test by the maximum mean discrepancy.

    Attributes
    ----------
    mmd_squared : float
        The unbiased estimate, which can be negative.
    p_value : float
        Share of relabelings of the pooled draws whose statistic is as large, the true one among
        them; at least 1 / (permutations + 1).
    bandwidth : float
        Of the Gaussian kernel.
    permutations : int
    """

    mmd_squared: float
    p_value: float
    bandwidth: float
    permutations: int


def sliced_wasserstein(
    x: FloatArray,
    y: FloatArray,
    *,
    seed: int,
    projections: int = PROJECTIONS,
    permutations: int = _SLICED_PERMUTATIONS,
) -> SlicedWasserstein:
    """Average the Wasserstein-1 distance of projections on random directions.

    ``SW = mean_u W1(x u, y u)``, u uniform on the sphere (Bonneel, Rabin, Peyre, Pfister 2015,
    "Sliced and Radon Wasserstein barycenters of measures"). With the pooled projections in order,
    W1 is ``sum |F_x - F_y| gap``, so that other labels for the same draws, which give the
    distance under the null hypothesis, need no second sort.

    Parameters
    ----------
    x, y : arrays of shape (N, D) and (M, D)
        Independent draws, or thinned until they are about so.
    seed : int
        For directions and relabelings.
    projections, permutations : int
        How many of each.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(1).normal(size=(500, 1))
    >>> round(sliced_wasserstein(x + 0.3, x, seed=1, permutations=9).value, 6)
    0.3
    """
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((projections, x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    pooled = directions @ np.concatenate([x, y]).T
    order = np.argsort(pooled, axis=1)
    gaps = np.diff(np.take_along_axis(pooled, order, axis=1), axis=1)
    labels = np.concatenate([np.full(len(x), 1 / len(x)), np.full(len(y), -1 / len(y))])

    def distance(labels: FloatArray) -> float:
        difference = np.abs(np.cumsum(labels[order], axis=1)[:, :-1])
        return float(np.vdot(difference, gaps)) / projections

    null = np.array([distance(rng.permutation(labels)) for _ in range(permutations)])
    return SlicedWasserstein(
        distance(labels), float(null.mean()), float(np.quantile(null, 0.95)), projections
    )


def mmd_test(
    x: FloatArray, y: FloatArray, *, seed: int, permutations: int = _MMD_PERMUTATIONS
) -> MmdTest:
    """Test whether x and y have the same distribution.

    ``MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)``, without the diagonals, with a Gaussian kernel
    whose bandwidth is the median distance of the pooled draws (Gretton et al. 2012, "A kernel
    two-sample test", JMLR 13). The kernel matrix takes ``8 (N + M)^2`` bytes.

    Parameters
    ----------
    x, y : arrays of shape (N, D) and (M, D)
        Independent draws, or thinned until they are about so; at least two of each.
    seed : int
        For relabelings.
    permutations : int
        How many.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(1).normal(size=(2, 200, 3))
    >>> mmd_test(x[0], x[1] + 1, seed=1).p_value
    0.001
    """
    rng = np.random.default_rng(seed)
    distances = pdist(np.concatenate([x, y]), "sqeuclidean")
    scale = float(np.median(distances)) or 1.0
    kernel = squareform(np.exp(-distances / (2 * scale)))  # zeros on the diagonal
    n, m = len(x), len(y)
    first = np.zeros((n + m, permutations + 1))
    first[:n, 0] = 1
    for column in range(1, permutations + 1):
        first[rng.permutation(n + m)[:n], column] = 1
    statistics = _mmd_squared(kernel, first, n, m)
    # Equal statistics, as of relabelings that change nothing, can differ by rounding.
    as_large = statistics[1:] >= statistics[0] - 1e-12
    return MmdTest(
        float(statistics[0]),
        float((1 + as_large.sum()) / (permutations + 1)),
        scale**0.5,
        permutations,
    )


def _mmd_squared(kernel: FloatArray, first: npt.NDArray[np.float64], n: int, m: int) -> FloatArray:
    """Return the statistic for each column of indicators of the first set."""
    row_sums = kernel @ first
    within_first = np.einsum("ij,ij->j", first, row_sums)
    first_to_all = kernel.sum(axis=1) @ first
    between = first_to_all - within_first
    within_second = kernel.sum() - 2 * first_to_all + within_first
    return np.asarray(
        within_first / (n * (n - 1)) + within_second / (m * (m - 1)) - 2 * between / (n * m)
    )
