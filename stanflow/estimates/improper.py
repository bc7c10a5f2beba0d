"""Whether a posterior may be improper: directions in which its density does not fall."""

from __future__ import annotations

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.stan.curvature import second_derivatives, symmetric
from stanflow.stan.density import Density
from stanflow.statistics.medians import QUARTILES_OF_NORMAL

_RADII = np.array([3.0, 10.0, 30.0, 100.0, 300.0])  # in standard deviations of the draws
_FEWEST_RADII = 3
_SLOWEST_FALL = -0.95  # of a log density by the log of the distance: -1 is the limit
_MOST_DIMENSIONS = 200
_DIFFERENCE = 1e-3  # standard deviations
_LEAST_LOADING = 0.3
_MOST_NAMED = 3


def unbounded_directions(target: Density, z: FloatArray, names: tuple[str, ...]) -> tuple[str, ...]:
    """Name the parameters along which the density does not fall, far from where the draws are.

    Along a line, a density that falls more slowly than one over the distance has no finite
    integral. The lines looked at go through the draws' median: along each coordinate, and in the
    direction of least curvature there. Above 200 dimensions none is looked at.

    Parameters
    ----------
    target : Density
        The density.
    z : array of shape (S, D)
        Draws.
    names : tuple of str
        Of the D coordinates.

    Returns
    -------
    tuple of str
        Their names; those of a direction between coordinates are joined by "with". Empty where the
        density falls along all.

    Examples
    --------
    >>> from stanflow.stan.model import StanModel
    >>> model = StanModel(
    ...     stan_code="parameters { real x; real y; } model { x ~ cauchy(0, 1); }",
    ...     engine="embedded",
    ... )
    >>> z = np.random.default_rng(1).normal(size=(100, 2))
    >>> unbounded_directions(model, z, model.unconstrained_names)
    ('y',)
    """
    dim = z.shape[1]
    if dim > _MOST_DIMENSIONS:
        return ()
    first, median, third = np.quantile(z, [0.25, 0.5, 0.75], axis=0)
    scale = np.maximum((third - first) / QUARTILES_OF_NORMAL, np.finfo(np.float64).tiny)
    flattest = _flattest_direction(target, median, scale)
    directions = np.concatenate([np.eye(dim), flattest[None]])
    found = [
        j
        for j, direction in enumerate(directions)
        if any(_does_not_fall(target, median, sign * direction * scale) for sign in (1, -1))
    ]
    named = tuple(names[j] for j in found if j < dim)
    if named or not found:
        return named[:_MOST_NAMED]
    loaded = np.flatnonzero(np.abs(flattest) > _LEAST_LOADING * np.abs(flattest).max())
    return (" with ".join(names[j] for j in loaded[:_MOST_NAMED]),)


def _does_not_fall(target: Density, origin: FloatArray, direction: FloatArray) -> bool:
    log_density = target.log_density(origin + _RADII[:, None] * direction)
    finite = np.isfinite(log_density)
    known = len(finite) if finite.all() else int(np.argmin(finite))
    if known < _FEWEST_RADII:
        return False
    slopes = np.diff(log_density[:known]) / np.diff(np.log(_RADII[:known]))
    return bool((slopes[-2:] > _SLOWEST_FALL).all())


def _flattest_direction(target: Density, origin: FloatArray, scale: FloatArray) -> FloatArray:
    """Return the direction of least curvature of the log density, in units of the scale."""
    hessian = second_derivatives(target, origin, scale, _DIFFERENCE)
    values, directions = np.linalg.eigh(symmetric(hessian))
    return np.asarray(directions[:, np.argmin(np.abs(values))])
