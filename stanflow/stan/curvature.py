"""Second derivatives of a log density at a point, by central differences of gradients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stanflow.arrays import FloatArray
from stanflow.stan.density import Density


def second_derivatives(
    target: Density,
    point: FloatArray,
    scale: FloatArray,
    difference: float,
    coordinates: npt.NDArray[np.intp] | None = None,
) -> FloatArray:
    """Return rows of the Hessian in units of a scale.

    Parameters
    ----------
    target : Density
        The density; two gradients are taken for each row.
    point, scale : arrays of shape (D,)
        Where, and the units of each coordinate.
    difference : float
        Step to either side, in these units.
    coordinates : int array of shape (n,), optional
        Which rows; all by default.

    Returns
    -------
    array of shape (n, D)
        A row is NaN where the density is not finite beside the point.

    Examples
    --------
    >>> from stanflow.stan.model import StanModel
    >>> model = StanModel(
    ...     stan_code="parameters { vector[2] x; } model { x ~ normal(0, [1, 2]'); }",
    ...     engine="embedded",
    ... )
    >>> second_derivatives(model, np.zeros(2), np.ones(2), 1e-3).round(6) + 0.0
    array([[-1.  ,  0.  ],
           [ 0.  , -0.25]])
    """
    chosen = np.arange(len(point)) if coordinates is None else coordinates
    steps = np.zeros((len(chosen), len(point)))
    steps[np.arange(len(chosen)), chosen] = difference * scale[chosen]
    there = target.log_density_gradient(np.concatenate([point + steps, point - steps]))
    above, below = np.split(there.gradient, 2)
    rows = (above - below) * scale / (2 * difference)
    rows[~np.logical_and(*np.split(there.accepted, 2))] = np.nan
    return np.asarray(rows)


def symmetric(rows: FloatArray) -> FloatArray:
    """Return the symmetric part of a Hessian's rows, (D, D); 0 where it is not known."""
    return np.asarray(np.nan_to_num((rows + rows.T) / 2))
