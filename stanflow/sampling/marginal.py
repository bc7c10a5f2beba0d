"""The marginal density of one coordinate, by sequential Monte Carlo over its values.

With the coordinate held at t, particles follow what the density makes of the others. From one value
to the next the mean of ``p(t', rest) / p(t, rest)`` over them estimates the ratio of the marginal
densities there, without bias on that scale: annealing (see `annealing`) with t in place of the
inverse temperature (Del Moral, Doucet, Jasra 2006, "Sequential Monte Carlo samplers", JRSS B 68).
What the others look like may change with t altogether: step sizes go with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.sampling import annealing
from stanflow.sampling.annealing import Annealing, Path
from stanflow.sampling.metric import Metric
from stanflow.stan.density import Density
from stanflow.statistics.medians import QUARTILES_OF_NORMAL

_EFFECTIVE_SHARE = 0.9
_FIRST_STEP, _FARTHEST_STEP, _FARTHEST_STEP_OF_WAY = 0.15, 0.25, 0.1
_LEAST_EFFECTIVE_SHARE, _LEAST_VARIANCE, _LEAST_LEFT = 0.4, 1e-6, 0.25
_SHORTEST_STEP = 1e-4
_NO_DRAW = 1000.0
_LAG = 10
_FIRST_MOVES, _MOVES = 20, 4
_KEPT = 64


@dataclass(frozen=True)
class Marginal:
    """A coordinate's marginal density from one value on.

    Attributes
    ----------
    values : array of shape (K,)
        Of the coordinate, from the first on in one direction.
    log_density : array of shape (K, islands)
        Each island's estimate, relative to that at the first value.
    points : array of shape (K, n, D)
        Of equal weight, in float32: draws given the coordinate's value.
    """

    values: FloatArray
    log_density: FloatArray
    points: FloatArray


@np.errstate(all="ignore")  # what is not finite has no weight
def marginal(
    density: Density,
    points: FloatArray,
    coordinate: int,
    values: tuple[float, float],
    *,
    scale: float,
    islands: int,
    rng: np.random.Generator,
    left: Callable[[FloatArray, FloatArray], float],
) -> Marginal:
    """Follow a coordinate from one value on, while there is more of it.

    Values are so close that the conditional effective sample size from one to the next is about 0.9
    of the particles, and at most a quarter of the coordinate's scale, or a tenth of the way so far,
    apart. Where a share w of the whole is left, what is missed in a step matters w times as much,
    and steps are ``1 / w`` times as long, four times at most. Particles move in units of quartiles,
    each half of them in those of the other half.

    Parameters
    ----------
    density : Density
    points : array of shape (N, D)
        About draws given that the coordinate has the first value; N a multiple of `islands`, and
        these an even number.
    coordinate : int
    values : tuple of two floats
        The first value, and another one in whose direction to go.
    scale : float
        The coordinate's standard deviation, roughly.
    islands : int
    rng : numpy.random.Generator
    left : callable
        Asked, with values and pooled log densities so far, (K,) each, which share of the integral
        is left; 0 to end.
    """
    value, direction = values[0], math.copysign(scale, values[1] - values[0])
    path, points = Path.at_end(density), points.copy()
    points[:, coordinate] = value
    halves = [
        replace(annealing.init(path, half, islands // 2), beta=1.0) for half in np.split(points, 2)
    ]
    halves = _moved(halves, path, coordinate, rng, moves=_FIRST_MOVES)
    way, step = 0.0, _FIRST_STEP
    at, log_density, kept = [value], [_log_evidence(halves)], [_kept(halves, rng)]
    while share_left := left(np.array(at), pooled(np.stack(log_density))):
        longer = 1 / max(share_left, _LEAST_LEFT)
        step *= longer
        weighed, share = _weighed(halves, path, coordinate, step * direction)
        while share < _LEAST_EFFECTIVE_SHARE and step > _SHORTEST_STEP:
            step *= 0.5
            weighed, share = _weighed(halves, path, coordinate, step * direction)
        halves, way = weighed, way + step
        longest = max(_FARTHEST_STEP, _FARTHEST_STEP_OF_WAY * way)
        step = min(step * _change_of_step(share, longer) / longer, longest)
        if not np.isfinite(_log_evidence(halves)).all():
            break
        halves = [annealing.resample(half, rng) for half in halves]
        halves = _moved(halves, path, coordinate, rng, moves=_MOVES)
        at.append(value + way * direction)
        log_density.append(_log_evidence(halves))
        kept.append(_kept(halves, rng))
    return Marginal(np.array(at), np.stack(log_density), np.stack(kept))


def _log_evidence(halves: list[Annealing]) -> FloatArray:
    return np.concatenate([half.log_evidence for half in halves])


def pooled(log_density: FloatArray) -> FloatArray:
    """Return the log of the islands' mean density, (K,), from (K, islands)."""
    return np.asarray(np.logaddexp.reduce(log_density, axis=1) - math.log(log_density.shape[1]))


def _change_of_step(effective_share: float, longer: float) -> float:
    """Return what to multiply a step by: what takes it a tenth of the way, on the log scale.

    The weights' variance, ``1 / effective_share - 1``, grows with the step's square. Were each step
    the longest that the particles at hand allow, those with the highest weights would have the
    shortest steps, and the estimate would be too low. `longer` is how many times too long the step
    was meant to be, as less is left.
    """
    variance = max(1 / effective_share - 1, _LEAST_VARIANCE)
    wanted = (1 / _EFFECTIVE_SHARE - 1) * longer**2
    return math.pow(float(np.clip(wanted / variance, 0.25, 4.0)), 0.5 / _LAG)


def _moved(
    halves: list[Annealing], path: Path, coordinate: int, rng: np.random.Generator, *, moves: int
) -> list[Annealing]:
    """Move particles, each half in units of what the other spreads.

    Were they moved in their own, those that spread too little would be kept there, and the estimate
    would be too low by a tenth over fifty values.
    """
    for _ in range(moves):
        metrics = [_metric(half, coordinate) for half in reversed(halves)]
        halves = [
            annealing.move(half, path, rng, metric)[0]
            for half, metric in zip(halves, metrics, strict=True)
        ]
    return halves


def _metric(half: Annealing, coordinate: int) -> Metric:
    """Return what particles spread now, by their quartiles, as units; the coordinate is held."""
    first, third = np.quantile(half.particles.points, [0.25, 0.75], axis=0)
    scale = (third - first) / QUARTILES_OF_NORMAL
    scale = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)
    scale[coordinate] = 0.0
    return Metric.of_scale(scale)


def _weighed(
    halves: list[Annealing], path: Path, coordinate: int, way: float
) -> tuple[list[Annealing], float]:
    """Weigh particles for another value of the coordinate; return their effective share, too.

    It is that of the conditional effective sample size.
    """
    weighed, shares = [], []
    for half in halves:
        points = half.particles.points.copy()
        points[:, coordinate] += way
        particles = path.at(points)
        log_ratio = (particles.log_end - half.particles.log_end).reshape(half.log_weights.shape)
        log_ratio = _of_draws(np.where(np.isfinite(log_ratio), log_ratio, -np.inf))
        shares.append(np.nan_to_num(annealing.conditional_share(half, log_ratio)))
        weighed.append(replace(annealing.weigh(half, log_ratio), particles=particles))
    return weighed, float(np.mean(shares))


def _of_draws(log_ratio: FloatArray) -> FloatArray:
    """Return the ratios with those set to zero that no draws would have.

    By Markov's inequality one of N draws has a ratio above x times its mean with a probability of
    at most N / x. A particle from elsewhere that cannot move may have any.
    """
    highest = np.median(log_ratio) + math.log(_NO_DRAW * log_ratio.size)
    return np.where(log_ratio > highest, -np.inf, log_ratio)


def _kept(halves: list[Annealing], rng: np.random.Generator) -> FloatArray:
    """Return some particles, by their weights."""
    log_weights = np.concatenate([half.log_weights for half in halves])
    weights = np.exp(log_weights + _log_evidence(halves)[:, None]).ravel()
    rows = annealing.systematic(weights, _KEPT, rng)
    points = np.concatenate([half.particles.points for half in halves])
    return points[rows].astype(np.float32)
