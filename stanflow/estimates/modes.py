"""A posterior's separate modes, as chains have found them, and how much of it each holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.estimates.local_draws import draw_locally
from stanflow.stan.density import Density
from stanflow.statistics.importance_weights import log_sum_exp

_BETWEEN = np.linspace(0, 1, 11)[1:-1]
_DEEP = 3.0  # nats below both ends
_DRAWS = 2000
_MOST_MODES = 16
_NEGLIGIBLE = 1e-3  # share of the posterior


@dataclass(frozen=True)
class Mode:
    """A place in a posterior.

    Attributes
    ----------
    points : array of shape (n, D)
        That chains have visited there.
    log_mass : float
        Roughly, the log of the density's integral there.
    """

    points: FloatArray
    log_mass: float


@np.errstate(all="ignore")  # what is not finite has no mass
def find_modes(
    target: Density, chains: Sequence[FloatArray], rng: np.random.Generator
) -> tuple[Mode, ...]:
    """Tell modes apart, and weigh them.

    Two chains are in one mode unless the log density somewhere between their means is 3 nats below
    that at both. What a mode holds is estimated by importance sampling: draws from a Student-t
    distribution at each count for the mode whose own would most likely have given them.

    Parameters
    ----------
    target : Density
    chains : sequence of arrays of shape (n, D)
        Where each chain was, once it had climbed; of no mode where the density is not finite at
        its mean.
    rng : numpy.random.Generator

    Returns
    -------
    tuple of Mode
        The heaviest first, at most 16; those with less than a thousandth of what all hold are left
        out.

    Examples
    --------
    >>> from stanflow.stan.model import StanModel
    >>> model = StanModel(
    ...     stan_code="parameters { real x; } model { target += log_mix(0.3, "
    ...     "normal_lpdf(x | -9, 1), normal_lpdf(x | 9, 1)); }",
    ...     engine="embedded",
    ... )
    >>> rng = np.random.default_rng(1)
    >>> chains = [centre + rng.standard_normal((25, 1)) for centre in (-9, 9, 9, -9, 9)]
    >>> [round(math.exp(mode.log_mass), 2) for mode in find_modes(model, chains, rng)]
    [0.7, 0.3]
    """
    centres = np.stack([points.mean(axis=0) for points in chains])
    heights = target.log_density(centres)
    places: list[list[int]] = []
    for chain in np.argsort(-heights)[: np.isfinite(heights).sum()]:  # NaN comes last
        for place in places:
            if not _is_apart(target, centres, heights, int(chain), place[0]):
                place.append(int(chain))
                break
        else:
            places.append([int(chain)])
    if not places:
        return ()
    visited = [np.concatenate([chains[i] for i in place]) for place in places[:_MOST_MODES]]
    drawn = draw_locally(target, visited, _DRAWS, rng)
    nearest = drawn.log_shares.argmax(axis=0)
    modes = []
    for proposal, points in enumerate(visited):
        there = drawn.log_ratio[(nearest == proposal) & np.isfinite(drawn.log_p)]
        log_mass = log_sum_exp(there) - math.log(len(drawn.z)) if len(there) else -math.inf
        modes.append(Mode(points, log_mass))
    total = log_sum_exp(np.array([mode.log_mass for mode in modes]))
    kept = [mode for mode in modes if mode.log_mass > total + math.log(_NEGLIGIBLE)]
    return tuple(sorted(kept, key=lambda mode: -mode.log_mass))


def _is_apart(
    target: Density, centres: FloatArray, heights: FloatArray, one: int, other: int
) -> bool:
    """Return whether the density falls between two chains' means, and rises again."""
    path = centres[one] + _BETWEEN[:, None] * (centres[other] - centres[one])
    lowest = np.min(target.log_density(path))
    return not lowest >= min(heights[one], heights[other]) - _DEEP
