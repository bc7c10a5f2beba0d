"""How far a flow reaches along the one coordinate in which there is more of the posterior."""

from __future__ import annotations

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.flow.realnvp import Flow
from stanflow.sampling.restraint import Restraint
from stanflow.statistics.medians import QUARTILES_OF_NORMAL
from stanflow.statistics.ranks import average_ranks

_CORRELATION = 0.3
_WITHIN = 0.9  # of the flow's draws


def direction_of_weights(points: FloatArray, log_weights: FloatArray) -> tuple[int, int] | None:
    """Return the coordinate, and its sign, that weights grow with.

    Parameters
    ----------
    points : array of shape (S, D)
    log_weights : array of shape (S,)
        ``log p - log q``.

    Returns
    -------
    tuple of two ints, or None
        Those of the largest rank correlation; None where that is below 0.3.
    """
    ranks = np.apply_along_axis(average_ranks, 0, np.column_stack([points, log_weights]))
    ranks -= ranks.mean(axis=0)
    ranks /= np.linalg.norm(ranks, axis=0)
    correlations = ranks[:, :-1].T @ ranks[:, -1]
    coordinate = int(np.abs(correlations).argmax())
    if not abs(correlations[coordinate]) >= _CORRELATION:
        return None
    return coordinate, int(np.sign(correlations[coordinate]))


@np.errstate(all="ignore")  # a constant coordinate has no ranks
def restraint_to_reach(
    flow: Flow, draws: FloatArray, points: FloatArray, log_weights: FloatArray
) -> Restraint | None:
    """Return what holds particles to where the flow has draws, if their weights lead out of there.

    The bound is the draws' quantile of 0.9 in that direction, and beyond it densities fall within
    half of the draws' spread.

    Parameters
    ----------
    flow : Flow
        In the target's units.
    draws : array of shape (S, D)
        Of the flow.
    points : array of shape (N, D)
        Particles that annealing has brought to the target.
    log_weights : array of shape (N,)
        ``log p - log q`` there.

    Returns
    -------
    Restraint or None
        None where the weights lead nowhere (see `direction_of_weights`), along a coordinate that a
        hierarchy in the flow places, or among correlated units.
    """
    *_, factor, noncentering = flow.without_units()
    usable = np.isfinite(log_weights)
    if factor is not None or usable.sum() < 2 or points.shape[1] < 2:
        return None
    direction = direction_of_weights(points[usable], log_weights[usable])
    if direction is None:
        return None
    coordinate, sign = direction
    if noncentering is not None and coordinate in noncentering.moved.tolist():
        return None
    first, third = np.quantile(draws[:, coordinate], [0.25, 0.75])
    bound = sign * np.quantile(sign * draws[:, coordinate], _WITHIN)
    spread = float((third - first) / QUARTILES_OF_NORMAL)
    return Restraint(coordinate, sign, float(bound), 0.5 * spread) if spread > 0 else None
