"""The curvature of a log density at a point, in units of a scale."""

from __future__ import annotations

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.stan.density import Target


def curvature(
    target: Target, point: FloatArray, scale: FloatArray, difference: float
) -> FloatArray:
    """Return the symmetric Hessian by central differences of gradients; 0 where not finite.

    Parameters
    ----------
    target : Target
        The density; 2 D gradients are taken.
    point, scale : arrays of shape (D,)
        Where, and the units of each coordinate.
    difference : float
        Step to either side, in these units.

    Returns
    -------
    array of shape (D, D)
    """
    offsets = difference * np.diag(scale)
    there = target.log_density_gradient(np.concatenate([point + offsets, point - offsets]))
    above, below = np.split(there.gradient, 2)
    rows = (above - below) * scale
    return np.asarray(np.nan_to_num(rows + rows.T) / (4 * difference))
