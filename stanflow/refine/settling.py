"""Whether moved particles have settled: islands agree, and nothing goes on in one direction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from stanflow.arrays import FloatArray

_FALSE_ALARMS = 1e-3  # of a test over all scalars
_LARGEST_CORRELATION = 0.99


@dataclass(frozen=True)
class Settling:
    """What recorded particles say, each the worst of all scalars.

    Attributes
    ----------
    rhat : float
        Nested R-hat of the islands: ``sqrt(1 + B / W)``, B the variance of the islands' means, W
        that within them (Margossian et al. 2024, "Nested R-hat: assessing the convergence of Markov
        chain Monte Carlo when running many short chains", arXiv 2110.13017).
    shift : float
        How far the mean has still to go, in standard deviations, as the particles' way during the
        record says; 0 where their way is none beyond its Monte Carlo error, infinity where the
        record is of a single time. A mean that has come from far away, all particles alike, shows
        here and not in R-hat.
    ess : float
        Effective sample size of a mean over the whole record: particles' own means vary the less
        the faster they move.
    """

    rhat: float
    shift: float
    ess: float


@np.errstate(all="ignore")  # constant scalars have no variance to divide by
def settling(record: FloatArray, islands: int) -> Settling:
    """Judge a record of particles.

    The shift is ``(b - a) / (1 - r)`` from the first half's mean a to the second half's b, r the
    correlation of the particles' own means in both: were the particles to go on as an
    autoregression, this is where the mean would end. It counts where the paired test over
    particles finds a way at all.

    Parameters
    ----------
    record : array of shape (S, N, n)
        n scalars of N particles, S times; the particles of an island follow one another.
    islands : int

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> still = rng.normal(size=(10, 64, 3))
    >>> settling(still, 4).shift, settling(still, 4).rhat < 1.02, settling(still, 4).ess > 400
    (0.0, True, True)
    >>> drift = np.linspace(0, 0.5, 10)[:, None, None] + rng.normal(size=(1, 64, 1))
    >>> settling(drift, 4).shift > 1
    True
    """
    steps, particles, scalars = record.shape
    variance = record.reshape(-1, scalars).var(axis=0)
    own = record.mean(axis=0)
    of_islands = record.reshape(steps, islands, -1, scalars)
    between = of_islands.mean(axis=(0, 2)).var(axis=0, ddof=1)
    within = of_islands.var(axis=(0, 2)).mean(axis=0)
    rhat = np.sqrt(1 + between / within)
    ess = particles * variance / own.var(axis=0, ddof=1)
    if steps < 2:
        return Settling(_worst(rhat, 1.0), math.inf, -_worst(-ess, -particles))
    first, second = record[: steps // 2].mean(axis=0), record[steps - steps // 2 :].mean(axis=0)
    way = second - first
    z = way.mean(axis=0) / (way.std(axis=0, ddof=1) / math.sqrt(particles))
    centred = first - first.mean(axis=0), second - second.mean(axis=0)
    correlation = (centred[0] * centred[1]).mean(axis=0) / (first.std(axis=0) * second.std(axis=0))
    left = np.abs(way.mean(axis=0)) / np.sqrt(variance)
    left /= 1 - np.clip(correlation, 0.0, _LARGEST_CORRELATION)
    certain = -NormalDist().inv_cdf(_FALSE_ALARMS / 2 / scalars)
    shift = np.where(np.abs(z) > certain, left, 0.0)
    return Settling(_worst(rhat, 1.0), _worst(shift, 0.0), -_worst(-ess, -particles))


def _worst(values: FloatArray, of_constants: float) -> float:
    return float(np.nan_to_num(values, nan=of_constants).max())
