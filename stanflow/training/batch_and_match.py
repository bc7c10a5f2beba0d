"""A normal with all correlations, by matching its scores to a density's: where ridges lie.

Two coordinates that are correlated by 0.99999, intercept and slope of a regression over calendar
years, say, defeat a search that moves each by itself: along their ridge it is hundreds of times as
far as across, and a mean-field fit is as narrow as the ridge. Scores tell how it runs even where no
draw has been far along it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh
from typing_extensions import override

from stanflow.arrays import FloatArray
from stanflow.stan.density import Density, DensityBatch
from stanflow.training.flat_directions import flat_directions

_ALL_CORRELATIONS_UP_TO, _MOST_DIMENSIONS = 1000, 2500
_DRAWS = 256
_MOST_UPDATES = 40
_LARGEST_STEP, _SMALLEST_STEP = 1e6, 1e-4  # the trust in a batch, lambda in the paper
_GROW, _SHRINK = 4.0, 0.1
_GAIN_WORTH_AN_UPDATE = 0.5  # nats
_RIDGE = 1000.0  # condition number of correlations


class Normal(NamedTuple):
    """Location, (D,), and lower-triangular factor of the covariance, (D, D)."""

    location: FloatArray
    factor: FloatArray


class _Tried(NamedTuple):
    """A normal, draws of it, the density there, and the median of ``log p - log q``."""

    normal: Normal
    draws: FloatArray
    there: DensityBatch
    typical: float


@np.errstate(all="ignore")  # what is not finite is gone back from
def along_ridge(
    target: Density, rng: np.random.Generator, should_stop: Callable[[], bool] = lambda: False
) -> Normal | None:
    """Fit a normal from the standard one on, and return it where it finds a ridge.

    By batch and match (Cai et al. 2024, arXiv 2402.14758): each update minimises the squared
    distance between the normal's scores and the density's over a batch of draws, in the normal's
    own metric, and stays near the last normal by as much as the batch is not trusted. For a normal
    density the first update that trusts its batch is exact, wherever the draws are. An update that
    lowers the median of ``log p - log q`` is taken back, and the next batch is trusted less.
    Above 1000 dimensions that is done along flat directions only (see `flat_directions`), and
    the units stay as they are along the others.

    Parameters
    ----------
    target : Density
        The density, in units in which a normal with unit scales is a fair start.
    rng : numpy.random.Generator
        Source of the draws; 256 gradients are taken for each update, and 40 updates at most.
    should_stop : callable
        Asked before every update; once it says yes there is no normal.

    Returns
    -------
    Normal or None
        None where the correlations' condition number is below 1000, where `should_stop` said yes,
        and above 2500 dimensions.

    Examples
    --------
    >>> from stanflow.stan.model import StanModel
    >>> model = StanModel(
    ...     stan_code="parameters { real a; real b; } model { a ~ normal(0, 1000); "
    ...     "b ~ normal(0, 10); 3 ~ normal(a + 2000 * b, 1); }",
    ...     engine="embedded",
    ... )
    >>> ridge = along_ridge(model, np.random.default_rng(1))
    >>> covariance = ridge.factor @ ridge.factor.T
    >>> bool(np.corrcoef(covariance)[0, 1] < -0.999)
    True
    """
    if not 1 < target.dim <= _MOST_DIMENSIONS:
        return None
    if target.dim <= _ALL_CORRELATIONS_UP_TO:
        normal = _matched(target, rng, should_stop)
        if normal is None:
            return None
        correlations = normal.factor / np.linalg.norm(normal.factor, axis=1, keepdims=True)
        return normal if np.linalg.cond(correlations) ** 2 > _RIDGE else None
    directions = flat_directions(target, rng)
    if directions is None:
        return None
    within = _matched(_Within(target, directions, rng), rng, should_stop)
    if within is None or _condition_number(within, directions) <= _RIDGE:
        return None
    return _with_the_rest(within, directions)


def _matched(
    target: Density, rng: np.random.Generator, should_stop: Callable[[], bool]
) -> Normal | None:
    """Fit a normal from the standard one on; None where `should_stop` said yes."""
    best = _tried(target, Normal(np.zeros(target.dim), np.eye(target.dim)), rng)
    step = _LARGEST_STEP
    for _ in range(_MOST_UPDATES):
        if should_stop():
            return None
        updated = _update(best, step)
        tried = None if updated is None else _tried(target, updated, rng)
        if tried is None or not tried.typical > best.typical - _GAIN_WORTH_AN_UPDATE:
            step *= _SHRINK
            if step < _SMALLEST_STEP:
                break
            continue
        gain, best = tried.typical - best.typical, tried
        if step >= 1 and gain < _GAIN_WORTH_AN_UPDATE:
            break
        step = min(_GROW * step, _LARGEST_STEP)
    return best.normal


class _Within(Density):
    """A density along some directions, whose other coordinates are a batch's standard normal draws.

    Parameters
    ----------
    target : Density
    directions : array of shape (r, D)
        Orthonormal rows.
    rng : numpy.random.Generator
    """

    def __init__(self, target: Density, directions: FloatArray, rng: np.random.Generator) -> None:
        self._target, self._directions = target, directions
        draws = rng.standard_normal((_DRAWS, target.dim))
        self._others = draws - draws @ directions.T @ directions

    @property
    @override
    def dim(self) -> int:
        return len(self._directions)

    @override
    def log_density_gradient(self, z: FloatArray) -> DensityBatch:
        there = self._target.log_density_gradient(z @ self._directions + self._others[: len(z)])
        gradient = there.gradient @ self._directions.T
        return DensityBatch(there.log_density, gradient, there.accepted)


def _condition_number(within: Normal, directions: FloatArray) -> float:
    """Return that of the correlations of `_with_the_rest`, without the matrix."""
    covariance = within.factor @ within.factor.T
    identity = np.eye(len(directions))
    scale = np.sqrt(1 + np.einsum("id,ij,jd->d", directions, covariance - identity, directions))

    def largest(matrix: FloatArray, scale: FloatArray) -> float:
        def product(x: FloatArray) -> FloatArray:
            scaled = scale * x.ravel()
            along = directions @ scaled
            return np.asarray(scale * (scaled + directions.T @ (matrix @ along - along)))

        dim = directions.shape[1]
        operator = LinearOperator((dim, dim), matvec=product, dtype=np.float64)
        values = eigsh(operator, 1, which="LA", return_eigenvectors=False, v0=np.ones(dim))
        return float(values[0].real)

    return largest(covariance, 1 / scale) * largest(
        np.asarray(np.linalg.inv(covariance), dtype=np.float64), scale
    )


def _with_the_rest(within: Normal, directions: FloatArray) -> Normal:
    """Return a normal along some directions as one that is standard along all others."""
    narrower = within.factor - np.eye(len(directions))
    root = np.eye(directions.shape[1]) + directions.T @ narrower @ directions
    upper = np.linalg.qr(root.T, mode="r")
    return Normal(within.location @ directions, (upper * np.sign(np.diag(upper))[:, None]).T)


def _tried(target: Density, normal: Normal, rng: np.random.Generator) -> _Tried:
    e = rng.standard_normal((_DRAWS, target.dim))
    draws = normal.location + e @ normal.factor.T
    there = target.log_density_gradient(draws)
    log_q = -0.5 * (e**2).sum(axis=1) - np.log(np.diag(normal.factor)).sum()
    log_weights = np.where(there.accepted, there.log_density - log_q, -np.inf)
    return _Tried(normal, draws, there, float(np.quantile(log_weights, 0.5, method="nearest")))


def _update(tried: _Tried, step: float) -> Normal | None:
    """Return the next normal; None where there is none.

    With the batch's moments it is the solution of ``S U S + S = V`` (equation 12 of the paper),
    which is ``2 V (I + (I + 4 U V)^(1/2))^-1``, here by the factor of V and a symmetric root.
    """
    (location, factor), accepted = tried.normal, tried.there.accepted
    if accepted.sum() < 2:
        return None
    draws, scores = tried.draws[accepted], tried.there.gradient[accepted]
    mean, mean_score = draws.mean(axis=0), scores.mean(axis=0)
    of_mean = step / (1 + step)
    apart = location - mean
    u = step * _covariance(scores) + of_mean * np.outer(mean_score, mean_score)
    v = factor @ factor.T + step * _covariance(draws) + of_mean * np.outer(apart, apart)
    try:
        root = np.linalg.cholesky(v)
        values, directions = np.linalg.eigh(root.T @ u @ root)
        narrowed = np.sqrt(2 / (1 + np.sqrt(1 + 4 * np.maximum(values, 0))))
        scaled = root @ directions * narrowed
        covariance = scaled @ scaled.T
        updated = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return None
    moved = (1 - of_mean) * location + of_mean * (covariance @ mean_score + mean)
    return Normal(moved, updated) if math.isfinite(moved.sum()) else None


def _covariance(rows: FloatArray) -> FloatArray:
    return np.atleast_2d(np.cov(rows.T, bias=True))
