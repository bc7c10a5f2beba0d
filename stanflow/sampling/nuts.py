"""The no-U-turn sampler on any density: the points of all chains are evaluated as one batch.

Hoffman, Gelman 2014, "The no-U-turn sampler", JMLR 15, with a trajectory's draw taken by weight and
the generalised criterion of Betancourt 2017, "A conceptual introduction to Hamiltonian Monte Carlo"
(arXiv 1701.02434, appendix A). Trajectories and adaptation are Stan's (base_nuts.hpp,
windowed_adaptation.hpp); random numbers are not.

A chain is a generator: it yields a position to evaluate, and is sent the value there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.stan.density import Density, DensityBatch

_MOST_ENERGY_GAINED = 1000.0
_FIRST_STEP, _SMALLEST_STEP, _LARGEST_STEP = 1.0, 1e-300, 1e7
_LOG_ACCEPTANCE_OF_FIRST_STEP = math.log(0.8)
_GAMMA, _T0, _KAPPA = 0.05, 10.0, 0.75
_FEWEST_THAT_ADAPT = 20
_BEFORE_WINDOWS, _FIRST_WINDOW, _AFTER_WINDOWS = 75, 25, 50
_PRIOR_DRAWS, _PRIOR_VARIANCE = 5.0, 1e-3

_T = TypeVar("_T")
_Value: TypeAlias = tuple[float, FloatArray]  # log density, -infinity where there is none; gradient
_Evaluating: TypeAlias = Generator[FloatArray, _Value, _T]


@dataclass(frozen=True)
class NutsDraws:
    """Iterations of C chains, warmup included.

    Attributes
    ----------
    positions : array of shape (C, warmup + draws, D)
    statistics : array of shape (C, warmup + draws, 7)
        In Stan's words and order: lp__, accept_stat__, stepsize__, treedepth__, n_leapfrog__,
        divergent__, energy__.
    """

    positions: FloatArray
    statistics: FloatArray


def sample(
    density: Density,
    starts: FloatArray,
    *,
    seed: int,
    warmup: int = 1000,
    draws: int = 1000,
    adapt_delta: float = 0.8,
    max_treedepth: int = 10,
    told: Callable[[int, int], None] = lambda chain, iteration: None,
) -> NutsDraws:
    """Run a chain from each start, with a diagonal metric that is the identity at first.

    Warmup adapts step size and metric as Stan does by default: below 150 iterations the step size
    alone, below 20 nothing.

    Parameters
    ----------
    density : Density
        A trajectory ends as divergent where a point is not accepted.
    starts : array of shape (C, D)
        Where the density is finite.
    seed : int
        Chain c has the c-th stream of it, whatever the others do.
    warmup, draws : int
        Iterations of each chain before and after adaptation ends.
    adapt_delta : float
        The acceptance rate that step size adaptation aims at.
    max_treedepth : int
        Largest number of doublings of a trajectory.
    told : callable
        Is told a chain, from 1 on, and the iteration that it has finished.

    Examples
    --------
    >>> from stanflow.stan.density import DensityBatch
    >>> class Normal(Density):
    ...     dim = 2
    ...
    ...     def log_density_gradient(self, z):
    ...         return DensityBatch(-0.5 * (z**2).sum(1), -z, np.ones(len(z), dtype=bool))
    >>> run = sample(Normal(), np.zeros((4, 2)), seed=1, warmup=200, draws=500)
    >>> after = run.positions[:, 200:]
    >>> after.shape, bool(abs(after.std() - 1) < 0.1)
    ((4, 500, 2), True)
    """
    n_chains, dim = starts.shape
    plan = _Plan(warmup, draws, adapt_delta, max_treedepth)
    run = NutsDraws(
        np.empty((n_chains, warmup + draws, dim)),
        np.empty((n_chains, warmup + draws, len(_Statistics._fields))),
    )
    streams = np.random.SeedSequence(seed).spawn(n_chains)
    chains = {
        number: _chain(
            start,
            plan,
            np.random.default_rng(stream),
            NutsDraws(run.positions[number], run.statistics[number]),
            partial(told, number + 1),
        )
        for number, (start, stream) in enumerate(zip(starts, streams, strict=True))
    }
    with np.errstate(all="ignore"):  # a trajectory that diverges ends
        wanted = {number: next(chain) for number, chain in chains.items()}
        while wanted:
            there = density.log_density_gradient(np.stack([*wanted.values()]))
            for row, number in enumerate([*wanted]):
                try:
                    wanted[number] = chains[number].send(_value(there, row))
                except StopIteration:
                    del wanted[number]
    return run


def _value(there: DensityBatch, row: int) -> _Value:
    if there.accepted[row]:
        return float(there.log_density[row]), there.gradient[row]
    return -math.inf, np.zeros_like(there.gradient[row])


# ---- A chain ----------------------------------------------------------------------------------


class _Plan(NamedTuple):
    """What every chain is to do."""

    warmup: int
    draws: int
    adapt_delta: float
    max_treedepth: int


class _Statistics(NamedTuple):
    """What Stan says of a transition."""

    log_density: float
    acceptance: float
    step: float
    treedepth: int
    leapfrog_steps: int
    diverged: bool
    energy: float


class _Point(NamedTuple):
    """A point of phase space."""

    position: FloatArray
    momentum: FloatArray
    log_density: float
    gradient: FloatArray

    def energy(self, inverse_metric: FloatArray) -> float:
        kinetic = 0.5 * float(self.momentum @ (inverse_metric * self.momentum))
        energy = kinetic - self.log_density
        return math.inf if math.isnan(energy) else energy


def _chain(
    start: FloatArray,
    plan: _Plan,
    rng: np.random.Generator,
    record: NutsDraws,
    told: Callable[[int], None],
) -> _Evaluating[None]:
    """Run a chain to its end, and write its iterations to its part of the record."""
    inverse_metric = np.ones_like(start)
    log_density, gradient = yield start
    at = _Point(start, np.zeros_like(start), log_density, gradient)
    adapts, window_ends = plan.warmup >= _FEWEST_THAT_ADAPT, _window_ends(plan.warmup)
    window_begins, step = _BEFORE_WINDOWS, _FIRST_STEP
    if adapts:
        step = yield from _reasonable_step(at, step, inverse_metric, rng)
    averaging = _DualAveraging(step, plan.adapt_delta)
    for iteration in range(1, plan.warmup + plan.draws + 1):
        at, statistics = yield from _transition(at, step, inverse_metric, plan.max_treedepth, rng)
        record.positions[iteration - 1] = at.position
        record.statistics[iteration - 1] = statistics
        told(iteration)
        if not adapts or iteration > plan.warmup:
            continue
        step = averaging.learn(statistics.acceptance)
        if iteration in window_ends:
            inverse_metric = _regularised_variance(record.positions[window_begins:iteration])
            window_begins = iteration
            step = yield from _reasonable_step(at, step, inverse_metric, rng)
            averaging = _DualAveraging(step, plan.adapt_delta)
        if iteration == plan.warmup:
            step = averaging.averaged_step


def _transition(
    at: _Point,
    step: float,
    inverse_metric: FloatArray,
    max_treedepth: int,
    rng: np.random.Generator,
) -> _Evaluating[tuple[_Point, _Statistics]]:
    """Double a trajectory until it turns, diverges or is long enough; return a draw from it."""
    start = _with_momentum(at, inverse_metric, rng)
    trajectory = _Trajectory(start.energy(inverse_metric), step, inverse_metric, rng)
    tree = _Tree(start, start, start, start.momentum, 0.0)
    draw, depth, direction = start, 0, 1
    while depth < max_treedepth:
        if rng.uniform() < 0.5:
            tree, direction = tree.reversed(), -direction
        beyond = yield from trajectory.extend(tree.last, direction, depth)
        if beyond is None:
            break
        depth += 1
        if rng.uniform() < math.exp(min(0.0, beyond.log_weight - tree.log_weight)):
            draw = beyond.draw
        if _turns(tree, beyond, inverse_metric):
            break
        tree = _joined(tree, beyond, draw)
    return draw, _Statistics(
        draw.log_density,
        trajectory.acceptance / trajectory.leapfrog_steps,
        step,
        depth,
        trajectory.leapfrog_steps,
        trajectory.diverged,
        draw.energy(inverse_metric),
    )


def _with_momentum(at: _Point, inverse_metric: FloatArray, rng: np.random.Generator) -> _Point:
    return at._replace(momentum=rng.standard_normal(len(at.position)) / np.sqrt(inverse_metric))


def _leapfrog(point: _Point, step: float, inverse_metric: FloatArray) -> _Evaluating[_Point]:
    momentum = point.momentum + 0.5 * step * point.gradient
    position = point.position + step * inverse_metric * momentum
    log_density, gradient = yield position
    return _Point(position, momentum + 0.5 * step * gradient, log_density, gradient)


# ---- Trajectories -----------------------------------------------------------------------------


class _Tree(NamedTuple):
    """Neighbouring points of a trajectory, 2^depth of them, from the first to the last.

    `draw` is one of them, `momentum` the sum of theirs, and `log_weight` the log of the sum of
    their weights, exp(-energy) relative to the start's.
    """

    first: _Point
    last: _Point
    draw: _Point
    momentum: FloatArray
    log_weight: float

    def reversed(self) -> _Tree:
        return self._replace(first=self.last, last=self.first)


def _joined(one: _Tree, next_one: _Tree, draw: _Point) -> _Tree:
    momentum = one.momentum + next_one.momentum
    log_weight = float(np.logaddexp(one.log_weight, next_one.log_weight))
    return _Tree(one.first, next_one.last, draw, momentum, log_weight)


def _turns(one: _Tree, next_one: _Tree, inverse_metric: FloatArray) -> bool:
    """Tell whether two neighbours together turn, or either with the other's nearest point.

    The latter two catch trajectories that the former misses when they come round a whole period.
    """

    def turn(first: _Point, last: _Point, momentum: FloatArray) -> bool:
        velocity = inverse_metric * momentum
        return not (first.momentum @ velocity > 0 and last.momentum @ velocity > 0)

    return (
        turn(one.first, next_one.last, one.momentum + next_one.momentum)
        or turn(one.first, next_one.first, one.momentum + next_one.first.momentum)
        or turn(one.last, next_one.last, one.last.momentum + next_one.momentum)
    )


@dataclass
class _Trajectory:
    """One transition's trajectory, and what happened on it."""

    energy: float
    step: float
    inverse_metric: FloatArray
    rng: np.random.Generator
    leapfrog_steps: int = 0
    acceptance: float = 0.0
    diverged: bool = False

    def extend(self, edge: _Point, direction: int, depth: int) -> _Evaluating[_Tree | None]:
        """Return the tree of a depth next to a point; None where it turns or diverges."""
        if depth == 0:
            return (yield from self._step_on(edge, direction))
        one = yield from self.extend(edge, direction, depth - 1)
        if one is None:
            return None
        next_one = yield from self.extend(one.last, direction, depth - 1)
        if next_one is None or _turns(one, next_one, self.inverse_metric):
            return None
        log_share = next_one.log_weight - np.logaddexp(one.log_weight, next_one.log_weight)
        draw = next_one.draw if self.rng.uniform() < math.exp(log_share) else one.draw
        return _joined(one, next_one, draw)

    def _step_on(self, edge: _Point, direction: int) -> _Evaluating[_Tree | None]:
        point = yield from _leapfrog(edge, direction * self.step, self.inverse_metric)
        gained = point.energy(self.inverse_metric) - self.energy
        self.leapfrog_steps += 1
        self.acceptance += math.exp(min(0.0, -gained))
        self.diverged = gained > _MOST_ENERGY_GAINED
        return None if self.diverged else _Tree(point, point, point, point.momentum, -gained)


# ---- Adaptation -------------------------------------------------------------------------------


class _DualAveraging:
    """Step sizes whose acceptance goes towards a target (Hoffman, Gelman 2014, section 3.2)."""

    def __init__(self, step: float, target: float) -> None:
        self._target, self._aim = target, math.log(10 * step)
        self._count, self._mean_miss, self._mean_log_step = 0, 0.0, 0.0

    def learn(self, acceptance: float) -> float:
        """Take note of a transition's acceptance, and return the next one's step size."""
        self._count += 1
        share = 1 / (self._count + _T0)
        self._mean_miss += share * (self._target - acceptance - self._mean_miss)
        log_step = self._aim - self._mean_miss * math.sqrt(self._count) / _GAMMA
        self._mean_log_step += self._count**-_KAPPA * (log_step - self._mean_log_step)
        return math.exp(log_step)

    @property
    def averaged_step(self) -> float:
        """The step size to go on with when adaptation ends."""
        return math.exp(self._mean_log_step)


def _reasonable_step(
    at: _Point, step: float, inverse_metric: FloatArray, rng: np.random.Generator
) -> _Evaluating[float]:
    """Double or halve a step size until the acceptance of a single step crosses 0.8."""
    doubles = None
    while _SMALLEST_STEP < step < _LARGEST_STEP:
        before = _with_momentum(at, inverse_metric, rng)
        after = yield from _leapfrog(before, step, inverse_metric)
        lost = before.energy(inverse_metric) - after.energy(inverse_metric)
        is_accepted = lost > _LOG_ACCEPTANCE_OF_FIRST_STEP
        if doubles is None:
            doubles = is_accepted
        elif doubles != is_accepted:
            break
        else:
            step *= 2 if doubles else 0.5
    return step


def _window_ends(warmup: int) -> list[int]:
    """Return the iterations after which the metric is estimated, from those since the last."""
    last = warmup - _AFTER_WINDOWS
    ends = [_BEFORE_WINDOWS + _FIRST_WINDOW]
    if ends[0] > last:
        return []
    length = _FIRST_WINDOW
    while ends[-1] < last:
        length *= 2
        end = ends[-1] + length
        ends.append(end if end + 2 * length <= last else last)
    return ends


def _regularised_variance(positions: FloatArray) -> FloatArray:
    """Return n / (n + 5) times the variance plus 10^-3 5 / (n + 5), of n positions."""
    n = len(positions)
    variance = np.var(positions, axis=0, ddof=1)
    return np.asarray((n * variance + _PRIOR_DRAWS * _PRIOR_VARIANCE) / (n + _PRIOR_DRAWS))
