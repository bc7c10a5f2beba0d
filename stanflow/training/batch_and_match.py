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

from stanflow.arrays import FloatArray
from stanflow.stan.density import Density, DensityBatch

_MOST_DIMENSIONS = 1000
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
        and above 1000 dimensions.

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
    dim = target.dim
    if not 1 < dim <= _MOST_DIMENSIONS:
        return None
    best = _tried(target, Normal(np.zeros(dim), np.eye(dim)), rng)
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
    factor = best.normal.factor
    correlations = factor / np.linalg.norm(factor, axis=1, keepdims=True)
    return best.normal if np.linalg.cond(correlations) ** 2 > _RIDGE else None


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
    u = step * np.cov(scores.T, bias=True) + of_mean * np.outer(mean_score, mean_score)
    v = factor @ factor.T + step * np.cov(draws.T, bias=True) + of_mean * np.outer(apart, apart)
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
