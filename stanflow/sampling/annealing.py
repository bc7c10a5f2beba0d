"""Annealed sequential Monte Carlo: particles moved from where they are drawn to a density.

Neal 2001, "Annealed importance sampling", Statistics and Computing 11; Del Moral, Doucet, Jasra
2006, "Sequential Monte Carlo samplers", JRSS B 68. Between a start r, which is normalised, and an
unnormalised density p lies the path

    ``log pi_beta = (1 - beta) log r + beta log p``,

beta, the inverse temperature, from 0 to 1. N particles drawn from r are weighted by
``exp((beta' - beta) (log p - log r))`` as beta goes up, chosen again by their weights where few
carry most of it, and moved by Hamiltonian trajectories that leave pi_beta as it is. The product of
the mean weights estimates the evidence without bias. Particles live on islands, which choose among
their own only: what islands differ in is what the estimates' errors come from.

Each function takes a state and returns another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from stanflow.arrays import FloatArray
from stanflow.sampling.metric import Metric
from stanflow.sampling.trajectories import Phase, trajectories
from stanflow.stan.density import Density, DensityBatch

TARGET_ACCEPTANCE = 0.8
_TRAJECTORY = 0.5 * math.pi  # a quarter of a standard normal's period
_MOST_LEAPFROG_STEPS = 16
_SHORTEST_STEP = 0.3  # of the common one
_LEAST_EFFECTIVE_SHARE = 0.5  # of an island's particles
_BISECTIONS = 60

Batch = TypeVar("Batch")


class _Nothing(Density):
    """A density of 1 everywhere."""

    def __init__(self, dim: int) -> None:
        self._dim = dim

    @property
    @override
    def dim(self) -> int:
        return self._dim

    @override
    def log_density_gradient(self, z: FloatArray) -> DensityBatch:
        return DensityBatch(np.zeros(len(z)), np.zeros_like(z), np.ones(len(z), dtype=bool))


@dataclass(frozen=True)
class Path:
    """The densities that a path is made of.

    Attributes
    ----------
    start : Density
        r, normalised.
    end : Density
        p.
    """

    start: Density
    end: Density

    @classmethod
    def at_end(cls, end: Density) -> Path:
        """Return a path for particles at its end, beta = 1: where it starts costs nothing."""
        return cls(_Nothing(end.dim), end)

    def at(self, points: FloatArray) -> Particles:
        """Return particles at points of shape (N, D)."""
        return self.known_at(points, self.end.log_density_gradient(points))

    def known_at(self, points: FloatArray, end: DensityBatch) -> Particles:
        """Return particles at points of shape (N, D) where p is known already."""
        start = self.start.log_density_gradient(points)
        return Particles(
            points,
            start.log_density,
            start.gradient,
            np.where(end.accepted, end.log_density, -math.inf),
            np.where(end.accepted[:, None], end.gradient, 0.0),
        )


@dataclass(frozen=True)
class Particles:
    """N points and what a path's densities are there.

    Attributes
    ----------
    points : array of shape (N, D)
    log_start, log_end : arrays of shape (N,)
        log r and log p; log p is -infinity where it or its gradient is not finite.
    start_gradient, end_gradient : arrays of shape (N, D)
    """

    points: FloatArray
    log_start: FloatArray
    start_gradient: FloatArray
    log_end: FloatArray
    end_gradient: FloatArray

    @property
    def log_ratio(self) -> FloatArray:
        """``log p - log r``, (N,)."""
        return self.log_end - self.log_start

    def log_density(self, beta: float) -> FloatArray:
        """Return log pi_beta, (N,)."""
        if beta == 1:
            return self.log_end
        return (1 - beta) * self.log_start + beta * self.log_end

    def gradient(self, beta: float) -> FloatArray:
        """Return its gradient, (N, D)."""
        if beta == 1:
            return self.end_gradient
        return (1 - beta) * self.start_gradient + beta * self.end_gradient


@dataclass(frozen=True)
class Annealing:
    """The state of a run.

    Attributes
    ----------
    beta : float
        Inverse temperature.
    particles : Particles
        N, an equal number of successive ones on each island.
    log_weights : array of shape (islands, N / islands)
        Log weights, whose exponentials add up to one on each island.
    log_evidence : array of shape (islands,)
        Each island's estimate of the log of pi_beta's integral.
    log_step : float
        Log of the trajectories' step size.
    """

    beta: float
    particles: Particles
    log_weights: FloatArray
    log_evidence: FloatArray
    log_step: float


@dataclass(frozen=True)
class MoveInfo:
    """What a move did.

    Attributes
    ----------
    acceptance : float
        Mean probability of acceptance.
    leapfrog_steps : int
        Evaluations of the densities at each particle.
    """

    acceptance: float
    leapfrog_steps: int


def init(path: Path, points: FloatArray, islands: int) -> Annealing:
    """Return the state at beta = 0.

    Parameters
    ----------
    path : Path
    points : array of shape (N, D)
        Independent draws from the path's start; N a multiple of `islands`.
    islands : int
    """
    n, dim = points.shape
    log_weights = np.full((islands, n // islands), -math.log(n // islands))
    log_step = math.log(1.2 / dim**0.25)
    return Annealing(0.0, path.at(points), log_weights, np.zeros(islands), log_step)


def heat(state: Annealing, effective_share: float) -> Annealing:
    """Go on to the next inverse temperature, and weigh the particles for it.

    It is the one at which the conditional effective sample size,
    ``(sum W w)^2 / sum W w^2``, W the weights before and w what multiplies them, is the given share
    of what it could be, or 1 (Zhou, Johansen, Aston 2016, JCGS 25, section 3.3).
    """
    log_ratio = state.particles.log_ratio.reshape(state.log_weights.shape)

    def share(change: float) -> float:
        log_w = np.where(log_ratio > -math.inf, change * log_ratio, -math.inf)
        return conditional_share(state, log_w)

    low, high = 0.0, 1.0 - state.beta
    if share(high) < effective_share:
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if share(middle) >= effective_share else (low, middle)
        high = max(low, 1e-9)
    beta = 1.0 if high >= 1.0 - state.beta else state.beta + high
    return replace(weigh(state, high * log_ratio), beta=beta)


def conditional_share(state: Annealing, log_w: FloatArray) -> float:
    """Return the conditional effective sample size of weights times w, of what it could be.

    Parameters
    ----------
    state : Annealing
    log_w : array of shape (islands, N / islands)
    """
    w = np.exp(log_w - log_w.max())
    weights = np.exp(state.log_weights) / len(log_w)
    return float((weights * w).sum() ** 2 / (weights * w**2).sum())


def weigh(state: Annealing, log_w: FloatArray) -> Annealing:
    """Multiply the weights by w, (islands, N / islands), and the evidence by their means."""
    log_weights = state.log_weights + log_w
    log_mean = np.logaddexp.reduce(log_weights, axis=1)
    return replace(
        state,
        log_weights=log_weights - log_mean[:, None],
        log_evidence=state.log_evidence + log_mean,
    )


def resample(state: Annealing, rng: np.random.Generator, *, always: bool = False) -> Annealing:
    """Choose particles again, island by island, where few carry most of the weight.

    Parameters
    ----------
    state : Annealing
    rng : numpy.random.Generator
    always : bool
        On each island, so that all weights are equal.
    """
    weights = np.exp(state.log_weights)
    islands, size = weights.shape
    chosen = np.arange(islands * size).reshape(islands, size)
    log_weights = state.log_weights.copy()
    for island, w in enumerate(weights):
        if always or 1 / (w**2).sum() < _LEAST_EFFECTIVE_SHARE * size:
            chosen[island] = island * size + systematic(w, size, rng)
            log_weights[island] = -math.log(size)
    return replace(state, particles=_rows(state.particles, chosen.ravel()), log_weights=log_weights)


def systematic(weights: FloatArray, n: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Choose n rows by their weights, systematically.

    Douc, Cappe, Moulines 2005, "Comparison of resampling schemes for particle filtering".

    Parameters
    ----------
    weights : array of shape (N,)
    n : int
    rng : numpy.random.Generator

    Examples
    --------
    >>> systematic(np.array([2.0, 0.0, 2.0]), 4, np.random.default_rng(1))
    array([0, 0, 2, 2])
    """
    at = (rng.uniform() + np.arange(n)) / n
    rows = np.searchsorted(np.cumsum(weights) / weights.sum(), at)
    return np.minimum(rows, len(weights) - 1)


def move(
    state: Annealing, path: Path, rng: np.random.Generator, metric: Metric | None = None
) -> tuple[Annealing, MoveInfo]:
    """Move each particle by a Hamiltonian trajectory of pi_beta, of unit mass.

    Duane, Kennedy, Pendleton, Roweth 1987, Physics Letters B 195. A trajectory is about as long as
    takes a standard normal to its independence, a quarter of a period. Step sizes differ between
    particles, as no single one suits all regions. Their common factor goes towards an acceptance of
    0.8, a common choice.

    Parameters
    ----------
    state : Annealing
    path : Path
    rng : numpy.random.Generator
    metric : Metric, optional
        At beta = 1, the units in which the mass is one.
    """
    beta, before = state.beta, state.particles
    n, dim = before.points.shape
    longest = math.exp(state.log_step)
    steps = int(np.clip(round(_TRAJECTORY / longest), 1, _MOST_LEAPFROG_STEPS))
    inside = np.ones(n, dtype=bool)
    step = longest * rng.uniform(_SHORTEST_STEP, 1.0, size=(n, 1))
    momentum = rng.standard_normal((n, dim))
    energy = 0.5 * (momentum**2).sum(axis=1) - before.log_density(beta)
    at, points = before, before.points
    if metric is not None:
        there = DensityBatch(before.log_end, before.end_gradient, np.isfinite(before.log_end))
        start = Phase(points, momentum, there)
        ends = trajectories(path.end, metric, start, step[:, 0], steps)
        points, momentum, inside = ends.points, ends.momentum, ends.there.accepted
        at = path.known_at(points, ends.there)
    with np.errstate(all="ignore"):  # a trajectory that diverges is refused
        for _ in range(steps if metric is None else 0):
            momentum = momentum + 0.5 * step * at.gradient(beta)
            points = points + step * momentum
            inside = np.asarray(np.isfinite(points).all(axis=1))
            at = path.at(np.where(inside[:, None], points, before.points))
            momentum = momentum + 0.5 * step * at.gradient(beta)
        after = 0.5 * (momentum**2).sum(axis=1) - at.log_density(beta)
        log_probability = np.where(inside, energy - after, -math.inf)
        probability = np.exp(np.minimum(np.nan_to_num(log_probability, nan=-math.inf), 0.0))
    accepted = rng.uniform(size=n) < probability
    alive = np.isfinite(before.log_end)
    acceptance = float(probability[alive].mean()) if alive.any() else 0.0
    moved = replace(
        state,
        particles=_chosen(accepted, at, before),
        log_step=state.log_step + (acceptance - TARGET_ACCEPTANCE),
    )
    return moved, MoveInfo(acceptance, steps)


def _rows(particles: Particles, rows: npt.NDArray[np.intp]) -> Particles:
    return Particles(*(getattr(particles, field.name)[rows] for field in fields(particles)))


def _chosen(which: npt.NDArray[np.bool_], one: Particles, other: Particles) -> Particles:
    """Return rows of one where `which` is true, of the other elsewhere."""
    pairs = ((getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return Particles(*(np.where(which if x.ndim == 1 else which[:, None], x, y) for x, y in pairs))
