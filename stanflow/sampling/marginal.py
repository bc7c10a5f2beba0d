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
from typing_extensions import override

from stanflow.arrays import FloatArray
from stanflow.sampling import annealing
from stanflow.sampling.annealing import Annealing, Path
from stanflow.stan.density import Density, DensityBatch
from stanflow.statistics.medians import QUARTILES_OF_NORMAL

_EFFECTIVE_SHARE = 0.9
_FIRST_STEP, _FARTHEST_STEP, _FARTHEST_STEP_OF_WAY = 0.05, 0.25, 0.1
_LEAST_EFFECTIVE_SHARE, _LEAST_VARIANCE = 0.5, 1e-6
_SHORTEST_STEP = 1e-4
_LAG = 10
_FIRST_MOVES, _MOVES = 25, 2
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


class Held(Density):
    """A density of all coordinates but one, which is held, in units of a scale.

    Examples
    --------
    >>> class Normal(Density):
    ...     dim = 3
    ...
    ...     def log_density_gradient(self, z):
    ...         return DensityBatch(-0.5 * (z**2).sum(1), -z, np.ones(len(z), dtype=bool))
    >>> held = Held(Normal(), coordinate=1, value=2.0, scale=np.array([1.0, 0.1]))
    >>> held.whole(np.array([[3.0, 40.0]]))
    array([[3., 2., 4.]])
    >>> held.log_density(np.array([[3.0, 40.0]]))
    array([-14.5])
    """

    def __init__(self, density: Density, coordinate: int, value: float, scale: FloatArray) -> None:
        self._density, self._coordinate, self._value = density, coordinate, value
        self._scale = scale

    @property
    @override
    def dim(self) -> int:
        return self._density.dim - 1

    def whole(self, points: FloatArray) -> FloatArray:
        """Return points of shape (N, D - 1) with the coordinate, (N, D), in the density's units."""
        whole = np.empty((len(points), self._density.dim))
        before, after = np.s_[:, : self._coordinate], np.s_[:, self._coordinate :]
        whole[before] = points[before] * self._scale[: self._coordinate]
        whole[:, self._coordinate] = self._value
        whole[:, self._coordinate + 1 :] = points[after] * self._scale[self._coordinate :]
        return whole

    def rest(self, points: FloatArray) -> FloatArray:
        """Return points of shape (N, D) without the coordinate, (N, D - 1), in the scale's."""
        return self._without(points) / self._scale

    def _without(self, points: FloatArray) -> FloatArray:
        at = self._coordinate
        return np.concatenate([points[:, :at], points[:, at + 1 :]], axis=1)

    def moved(self, way: float) -> Held:
        """Return it with another value held."""
        return Held(self._density, self._coordinate, self._value + way, self._scale)

    def rescaled(self, scale: FloatArray) -> Held:
        """Return it in units of another scale, (D - 1,), of its units."""
        return Held(self._density, self._coordinate, self._value, self._scale * scale)

    @override
    def log_density_gradient(self, z: FloatArray) -> DensityBatch:
        batch = self._density.log_density_gradient(self.whole(z))
        gradient = self._without(batch.gradient) * self._scale
        return DensityBatch(batch.log_density, gradient, batch.accepted)

    @override
    def log_density(self, z: FloatArray) -> FloatArray:
        return self._density.log_density(self.whole(z))


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
    is_enough: Callable[[FloatArray, FloatArray], bool],
) -> Marginal:
    """Follow a coordinate from one value on, until that is enough.

    Values are so close that the conditional effective sample size from one to the next is about 0.9
    of the particles, and at most a quarter of the coordinate's scale, or a tenth of the way so far,
    apart. Particles move in units of their own quartiles.

    Parameters
    ----------
    density : Density
    points : array of shape (N, D)
        About draws given that the coordinate has the first value; N a multiple of `islands`.
    coordinate : int
    values : tuple of two floats
        The first value, and another one in whose direction to go.
    scale : float
        The coordinate's standard deviation, roughly.
    islands : int
    rng : numpy.random.Generator
    is_enough : callable
        Asked, with values and pooled log densities so far, (K,) each, whether to end.
    """
    value, direction = values[0], math.copysign(scale, values[1] - values[0])
    held = Held(density, coordinate, value, np.ones(density.dim - 1))
    state = annealing.init(Path.at_end(held), held.rest(points), islands)
    state, held = _rescaled(replace(state, beta=1.0), held)
    path = Path.at_end(held)
    for _ in range(_FIRST_MOVES):
        state, _info = annealing.move(state, path, rng)
    way, step = 0.0, _FIRST_STEP
    at, log_density, kept = [value], [state.log_evidence], [_kept(state, held, rng)]
    while not is_enough(np.array(at), pooled(np.stack(log_density))):
        weighed, share = _weighed(state, held.moved(step * direction))
        while share < _LEAST_EFFECTIVE_SHARE and step > _SHORTEST_STEP:
            step *= 0.5
            weighed, share = _weighed(state, held.moved(step * direction))
        state, way, held = weighed, way + step, held.moved(step * direction)
        longest = max(_FARTHEST_STEP, _FARTHEST_STEP_OF_WAY * way)
        step = min(step * _towards_effective_share(share), longest)
        if not np.isfinite(state.log_evidence).all():
            break
        state = annealing.resample(state, rng)
        state, held = _rescaled(state, held)
        path = Path.at_end(held)
        for _ in range(_MOVES):
            state, _info = annealing.move(state, path, rng)
        at.append(value + way * direction)
        log_density.append(state.log_evidence)
        kept.append(_kept(state, held, rng))
    return Marginal(np.array(at), np.stack(log_density), np.stack(kept))


def pooled(log_density: FloatArray) -> FloatArray:
    """Return the log of the islands' mean density, (K,), from (K, islands)."""
    return np.asarray(np.logaddexp.reduce(log_density, axis=1) - math.log(log_density.shape[1]))


def _towards_effective_share(share: float) -> float:
    """Return what to multiply a step by: what takes it a tenth of the way, on the log scale.

    The weights' variance, ``1 / share - 1``, grows with the step's square. Were each step the
    longest that the particles at hand allow, those with the highest weights would have the shortest
    steps, and the estimate would be too low.
    """
    variance = max(1 / share - 1, _LEAST_VARIANCE)
    change = float(np.clip((1 / _EFFECTIVE_SHARE - 1) / variance, 0.25, 4.0))
    return math.pow(change, 0.5 / _LAG)


def _rescaled(state: Annealing, held: Held) -> tuple[Annealing, Held]:
    """Return both in units of what particles spread now, by their quartiles."""
    particles = state.particles
    first, third = np.quantile(particles.points, [0.25, 0.75], axis=0)
    scale = (third - first) / QUARTILES_OF_NORMAL
    scale = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)
    rescaled = replace(
        particles,
        points=particles.points / scale,
        start_gradient=particles.start_gradient * scale,
        end_gradient=particles.end_gradient * scale,
    )
    return replace(state, particles=rescaled), held.rescaled(scale)


def _weighed(state: Annealing, held: Held) -> tuple[Annealing, float]:
    """Weigh particles for another value of the coordinate; return their effective share, too.

    It is that of the conditional effective sample size.
    """
    particles = Path.at_end(held).at(state.particles.points)
    log_ratio = (particles.log_end - state.particles.log_end).reshape(state.log_weights.shape)
    log_ratio = np.where(np.isfinite(log_ratio), log_ratio, -np.inf)
    share = annealing.conditional_share(state, log_ratio)
    weighed = replace(annealing.weigh(state, log_ratio), particles=particles)
    return weighed, float(np.nan_to_num(share))


def _kept(state: Annealing, held: Held, rng: np.random.Generator) -> FloatArray:
    """Return some particles, by their weights, where they are in the density's space."""
    weights = np.exp(state.log_weights + state.log_evidence[:, None]).ravel()
    rows = annealing.systematic(weights, _KEPT, rng)
    return held.whole(state.particles.points[rows]).astype(np.float32)
