"""Units in which a posterior's linear correlations are gone, where these are most of its shape.

Coupling layers turn a normal with strong correlations among hundreds of coordinates into a
standard one only slowly, some directions a layer. One triangular matrix does it at once: for a
posterior that is nearly normal, the mean negative Hessian over its draws is the inverse covariance.
But in a posterior whose coordinates depend on each other otherwise, as a coefficient on its scale,
such a matrix mixes what belongs apart, and the couplings no longer find it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.stan.curvature import second_derivatives
from stanflow.stan.density import Density
from stanflow.training.wiring import DIFFERENCE, points_looked_at

_MOST_DIMENSIONS = 2500
_DRAWS = 256
_LEAST_GAIN = 10.0  # nats


class Whitening(NamedTuple):
    """Location, (D,), and lower-triangular factor, (D, D), of a normal."""

    location: FloatArray
    factor: FloatArray


def whitening(target: Density, points: FloatArray, rng: np.random.Generator) -> Whitening | None:
    """Return a normal approximation where it pays.

    Its precision is the mean negative Hessian at some of the points. Its location is their median
    and, from there, one step of Newton's for the ELBO. It is compared with a normal that has the
    Hessian's diagonal alone as its precision, and it is returned where its typical
    ``log p - log q`` is above the other's by more than 10 nats and by more than what it leaves
    unexplained itself, half of its log weights' variance (see `schedule.Plateau`).

    Parameters
    ----------
    target : Density
        The density, in units of the posterior's spread.
    points : array of shape (n, D)
        Where its mass is.
    rng : numpy.random.Generator
        Source of the normals' draws.

    Returns
    -------
    Whitening or None
        None where it does not pay, where no normal has such a Hessian, and above 2500 dimensions.

    Examples
    --------
    >>> from stanflow.stan.model import StanModel
    >>> model = StanModel(
    ...     stan_code="parameters { vector[40] x; } model { x ~ std_normal(); "
    ...     "sum(x) ~ normal(0, 0.001); }",
    ...     engine="embedded",
    ... )
    >>> rng = np.random.default_rng(1)
    >>> points = rng.normal(size=(100, 40))
    >>> normal = whitening(model, points - points.mean(1, keepdims=True), rng)
    >>> bool(np.std((normal.factor @ rng.normal(size=(40, 1000))).sum(0)) < 0.002)
    True
    """
    dim = target.dim
    if not 1 < dim <= _MOST_DIMENSIONS:
        return None
    looked_at = points[: points_looked_at(dim)]
    precision = _mean_precision(target, looked_at)
    factor = _factor_of_inverse(precision)
    if factor is None:
        return None
    median = np.median(points, axis=0)
    _, gradients = _log_weights(target, median, factor, rng)
    if len(gradients) == 0:
        return None
    location = median + factor @ (factor.T @ gradients.mean(axis=0))
    apart = np.diag(1 / np.sqrt(np.diag(precision)))
    typical, unexplained = _centre_and_divergence(target, location, factor, rng)
    typical_apart, _ = _centre_and_divergence(target, location, apart, rng)
    pays = typical > typical_apart + max(_LEAST_GAIN, unexplained)
    return Whitening(location, factor) if pays else None


def _mean_precision(target: Density, points: FloatArray) -> FloatArray:
    """Return the mean of minus the Hessian; NaN where none is finite."""
    total, counted = np.zeros((target.dim, target.dim)), 0
    for point in points:
        hessian = second_derivatives(target, point, np.ones(target.dim), DIFFERENCE)
        if np.isfinite(hessian).all():
            total -= hessian
            counted += 1
    mean = total / counted if counted else np.full_like(total, np.nan)
    return np.asarray((mean + mean.T) / 2)


def _factor_of_inverse(matrix: FloatArray) -> FloatArray | None:
    """Return lower-triangular L with ``L L^T`` the inverse; None if it is not positive definite.

    Where the inverse itself would lose its smallest eigenvalues to rounding, L does not: it is the
    inverse of the matrix's own factor, taken from the last row up.
    """
    if not np.isfinite(matrix).all():
        return None
    try:
        upward = np.linalg.cholesky(matrix[::-1, ::-1])
    except np.linalg.LinAlgError:
        return None
    inverse = torch.linalg.solve_triangular(
        torch.from_numpy(np.ascontiguousarray(upward)),
        torch.eye(len(matrix), dtype=torch.float64),
        upper=False,
    )
    return np.ascontiguousarray(inverse.numpy().T[::-1, ::-1])


def _log_weights(
    target: Density, location: FloatArray, factor: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return log p - log q at draws of a normal, -infinity for some, and the others' gradients."""
    e = rng.standard_normal((_DRAWS, target.dim))
    there = target.log_density_gradient(location + e @ factor.T)
    log_q = -0.5 * (e**2).sum(axis=1) - np.log(np.diag(factor)).sum()
    log_weights = np.where(there.accepted, there.log_density - log_q, -np.inf)
    return log_weights, there.gradient[there.accepted]


def _centre_and_divergence(
    target: Density, location: FloatArray, factor: FloatArray, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the log weights' median, and half of their variance, from quantiles."""
    log_weights, _ = _log_weights(target, location, factor, rng)
    low, median, high = np.quantile(log_weights, [0.16, 0.5, 0.84], method="nearest")
    half = (high - low) / 2 if np.isfinite(low) else np.inf
    return float(median), float(half**2 / 2)
