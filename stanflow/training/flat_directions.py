"""Directions in which a density is flat, found without its whole Hessian."""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from stanflow.arrays import FloatArray
from stanflow.stan.density import Density

_POINTS = 16
_DIRECTIONS = 16
_FLAT = 0.03  # of the curvature that the units have
_RESTARTS = 10
_TOLERANCE = 1e-2
_DIFFERENCE = 1e-2


@np.errstate(all="ignore")  # what is not finite has no directions
def flat_directions(target: Density, rng: np.random.Generator) -> FloatArray | None:
    """Return directions in which the mean curvature is small.

    They are eigenvectors of minus the Hessian's mean over 16 standard normal draws, of the smallest
    eigenvalues, by implicitly restarted Lanczos (ARPACK). That takes products of the Hessian with
    vectors only, which are differences of gradients.

    Parameters
    ----------
    target : Density
        The density, in units in which a normal with unit scales is a fair start.
    rng : numpy.random.Generator
        Source of the draws; 32 gradients are taken for each product.

    Returns
    -------
    array of shape (r, D) or None
        Orthonormal rows, r up to 16, of eigenvalues below 0.03; None where there are none, or the
        density is not finite near a draw.

    Examples
    --------
    >>> from stanflow.stan.model import StanModel
    >>> model = StanModel(
    ...     stan_code="parameters { vector[100] x; } model { x[2:] ~ std_normal(); "
    ...     "x[1] ~ normal(x[2], 30); }",
    ...     engine="embedded",
    ... )
    >>> directions = flat_directions(model, np.random.default_rng(1))
    >>> directions.shape, abs(directions[0, 0]).round(2)
    ((1, 100), np.float64(1.0))
    """
    dim = target.dim
    points = rng.standard_normal((_POINTS, dim))

    def product(vector: FloatArray) -> FloatArray:
        step = _DIFFERENCE * vector.ravel() / np.linalg.norm(vector)
        there = target.log_density_gradient(np.concatenate([points + step, points - step]))
        if not there.accepted.all():
            raise FloatingPointError
        above, below = np.split(there.gradient, 2)
        size = np.linalg.norm(vector) / (2 * _DIFFERENCE)
        return np.asarray((below - above).mean(axis=0) * size)

    curvature = LinearOperator((dim, dim), matvec=product, dtype=np.float64)
    start = rng.standard_normal(dim)
    try:
        values, vectors = _smallest(curvature, start)
    except FloatingPointError:
        return None
    flat = vectors[:, values < _FLAT]
    return np.asarray(flat.T) if flat.shape[1] else None


def _smallest(curvature: LinearOperator, start: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return those eigenvalues and eigenvectors that were found in time."""
    try:
        found = eigsh(
            curvature, _DIRECTIONS, which="SA", v0=start, tol=_TOLERANCE, maxiter=_RESTARTS
        )
    except ArpackNoConvergence as stopped:
        found = stopped.eigenvalues, stopped.eigenvectors
    return np.asarray(found[0].real), np.asarray(found[1].real)
