"""Where training begins: the units it runs in, and points where the posterior's mass is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from typing_extensions import override

from stanflow.arrays import FloatArray
from stanflow.flow.noncentering import NonCentering
from stanflow.sampling.chains import Chains
from stanflow.sampling.metric import Metric
from stanflow.sampling.standardize import StandardizedTarget
from stanflow.stan.density import Density, DensityBatch, Target
from stanflow.statistics.markov_chains import rhat
from stanflow.statistics.medians import QUARTILES_OF_NORMAL
from stanflow.training.batch_and_match import along_ridge
from stanflow.training.config import TrainConfig
from stanflow.training.noncentering import noncenter
from stanflow.training.warmstart import LocationScale, mean_field_start
from stanflow.training.whitening import whitening

_MANY_DIMENSIONS = 500
_FEWEST_LEAPFROG_STEPS, _MOST_LEAPFROG_STEPS = 4, 12
_POINTS = 256
_TAILS_OF_NORMAL = 3.290
_WEIGHT_OF_TAILS = 0.7
_WIDENINGS = (1.0, 0.5, 0.25, 0.0, -1.0, -2.0)  # shares of the usual one
_MOST_REJECTED = 0.1


@dataclass(frozen=True)
class _Ensemble:
    """How chains look for where the posterior is.

    Attributes
    ----------
    chains, transitions : int
    adapt_after : tuple of int
        Transitions after which the metric is adapted.
    enough_if_mixed : int or None
        Transitions that will do where R-hat since the last adaptation is below `highest_rhat`.
    kept_if_mixed : int
        How many of these, the last ones, are kept then; otherwise two thirds of all are.
    """

    chains: int
    transitions: int
    adapt_after: tuple[int, ...]
    enough_if_mixed: int | None = None
    kept_if_mixed: int = 0
    highest_rhat: float = 1.1


_SPARING = _Ensemble(16, 140, (15, 35, 80), 60, kept_if_mixed=25, highest_rhat=1.2)
_THOROUGH = _Ensemble(32, 300, (20, 50, 100, 180), 150, kept_if_mixed=100)
_IN_MANY_DIMENSIONS = _Ensemble(16, 150, (20, 50, 100))


@dataclass(frozen=True)
class Start:
    """Where training begins.

    Attributes
    ----------
    location, log_scale : arrays of shape (D,)
        Training runs on ``u = (z - location) / exp(log_scale)``.
    factor : array of shape (D, D), optional
        If there is one, ``F^-1 u`` takes the place of u; lower-triangular.
    noncentering : NonCentering, optional
        If there is one, z is what it makes of ``location + exp(log_scale) * F u``.
    points : array of shape (n, D)
        About where the posterior's mass is, in its own units.
    """

    location: FloatArray
    log_scale: FloatArray
    points: FloatArray
    factor: FloatArray | None = None
    noncentering: NonCentering | None = None

    def in_units(self, target: Density) -> StandardizedTarget:
        """Return a target as one of u."""
        return StandardizedTarget(
            target, self.location, self.log_scale, self.factor, self.noncentering
        )


@np.errstate(all="ignore")  # what is not finite is gone back from
def begin(
    target: Target,
    config: TrainConfig,
    seed: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Start:
    """Find where training begins.

    With ``start="ensemble"`` a mean-field fit comes first, then 32 Hamiltonian chains (16 above
    500 dimensions, and where gradients are spared): half of them start as Stan's do, half from the
    mean-field fit. They adapt their metric together, and up to 500 dimensions half of their
    transitions will do where they agree by then. Median and spread of each coordinate over their
    draws are the units; spread is the interquartile range, or the wider of it and the central 90 %,
    as heavy tails ask for a wide start. Where linear correlations are most of the posterior's
    shape, they are part of the units (see `whitening`). Where they are so strong that the
    mean-field fit cannot have found the posterior, the chains run in correlated units, too (see
    `batch_and_match`). And where some coordinates set the scale of others, all of that is done with
    the hierarchy taken apart (see `noncentering`).

    Parameters
    ----------
    target : Target
        The density.
    config : TrainConfig
        Says how to start.
    seed : int
        For all that is random.
    should_stop : callable
        Asked again and again; once it says yes, what was found so far is returned.

    Raises
    ------
    InitializationError
        No starting point has a finite log density.
    """
    rng = np.random.default_rng(seed)
    dim = target.dim
    if config.start == "none":
        points = target.starting_points(_POINTS, rng)
        return Start(np.zeros(dim), np.zeros(dim), points)
    fitted = mean_field_start(target, rng, should_stop)
    if config.start == "mean-field" or should_stop():
        return _of_mean_field(fitted, rng)
    apart = noncenter(target, fitted, rng.spawn(1)[0], should_stop) if config.noncenter else None
    if apart is None:
        return _begin_at(target, fitted, config, rng, should_stop)
    noncentered, fitted = apart
    start = _begin_at(noncentered, fitted, config, rng, should_stop)
    points = noncentered.carry(start.points)
    return replace(start, points=points, noncentering=noncentered.layer)


def _begin_at(
    target: Target,
    fitted: LocationScale,
    config: TrainConfig,
    rng: np.random.Generator,
    should_stop: Callable[[], bool],
) -> Start:
    """Run an ensemble from a mean-field fit, in correlated units where it takes them."""
    ensemble = _ensemble(config, target.dim)
    if not config.whiten:
        return _of_ensemble(target, fitted, ensemble, rng, should_stop)
    of_fit = _InUnits(target, fitted.location, fitted.log_scale)
    ridge = along_ridge(of_fit, rng.spawn(1)[0], should_stop)
    if ridge is None:
        start = _of_ensemble(target, fitted, ensemble, rng, should_stop)
        return start if should_stop() else _whitened(start, target, rng)
    units = _InUnits(target, of_fit.out_of_units(ridge.location), fitted.log_scale, ridge.factor)
    unit_normal = LocationScale(np.zeros(target.dim), np.zeros(target.dim))
    start = _of_ensemble(units, unit_normal, ensemble, rng, should_stop)
    return _out_of_units(start if should_stop() else _whitened(start, units, rng), units)


def _ensemble(config: TrainConfig, dim: int) -> _Ensemble:
    if config.spares_gradients(dim):
        return _SPARING
    return _THOROUGH if dim <= _MANY_DIMENSIONS else _IN_MANY_DIMENSIONS


class _InUnits(StandardizedTarget, Target):
    """A target in other units, with its starting points."""

    def __init__(
        self,
        target: Target,
        location: FloatArray,
        log_scale: FloatArray,
        factor: FloatArray | None = None,
    ) -> None:
        super().__init__(target, location, log_scale, factor)
        self._starting_points = target.starting_points

    @override
    def starting_points(self, n: int, rng: np.random.Generator) -> FloatArray:
        return self.in_units(self._starting_points(n, rng))


def _out_of_units(start: Start, units: _InUnits) -> Start:
    """Return a start found in correlated units as one in the target's own."""
    assert units.factor is not None
    factor = units.factor * np.exp(start.log_scale)
    return Start(
        location=units.out_of_units(start.location),
        log_scale=np.log(units.scale),
        points=units.out_of_units(start.points),
        factor=factor if start.factor is None else factor @ start.factor,
    )


def begin_apart(modes: Sequence[FloatArray]) -> tuple[Start, FloatArray]:
    """Begin at modes that lie apart.

    Parameters
    ----------
    modes : sequence of arrays of shape (n, D)
        Points of each mode.

    Returns
    -------
    Start, array of shape (K, D)
        Halfway between the outermost modes, in units of what modes spread by themselves, widened as
        those of an ensemble are; and where the modes are in these units.
    """
    medians = np.stack([np.median(points, axis=0) for points in modes])
    within = np.concatenate(
        [points - median for points, median in zip(modes, medians, strict=True)]
    )
    dim = within.shape[1]
    location = (medians.min(axis=0) + medians.max(axis=0)) / 2
    log_scale = np.log(_spread(within)) + math.log(2) * _share_of_widening(dim)
    of_each = max(1, _POINTS // len(modes))
    points = np.concatenate([points[:: math.ceil(len(points) / of_each)] for points in modes])
    return Start(location, log_scale, points), (medians - location) / np.exp(log_scale)


def _of_mean_field(fitted: LocationScale, rng: np.random.Generator) -> Start:
    """Begin at a mean-field fit, threefold as wide: it is narrower than the posterior."""
    dim = len(fitted.location)
    points = fitted.draws(_POINTS, rng)
    widening = math.log(3) * _share_of_widening(dim)
    return Start(fitted.location, fitted.log_scale + widening, points)


def _of_ensemble(
    target: Target,
    fitted: LocationScale,
    ensemble: _Ensemble,
    rng: np.random.Generator,
    should_stop: Callable[[], bool],
) -> Start:
    draws = _run_ensemble(target, fitted, ensemble, rng, should_stop)
    location = np.median(draws, axis=0)
    log_scale = np.log(_spread(draws))
    points = rng.choice(draws, size=min(_POINTS, len(draws)), replace=False)
    widening = math.log(2) * _share_of_widening(target.dim)
    least, best = math.inf, log_scale
    for share in _WIDENINGS:
        wide = log_scale + share * widening
        tried = target.log_density_gradient(LocationScale(location, wide).draws(_POINTS, rng))
        rejected = float(np.mean(~tried.accepted))
        if rejected < least:
            least, best = rejected, wide
        if rejected <= _MOST_REJECTED:
            break
    return Start(location, best, points)


def _whitened(start: Start, target: Target, rng: np.random.Generator) -> Start:
    in_units = StandardizedTarget(target, start.location, start.log_scale)
    normal = whitening(in_units, in_units.in_units(start.points), rng)
    if normal is None:
        return start
    location = start.location + np.exp(start.log_scale) * normal.location
    return replace(start, location=location, factor=normal.factor)


def _run_ensemble(
    target: Target,
    fitted: LocationScale,
    ensemble: _Ensemble,
    rng: np.random.Generator,
    should_stop: Callable[[], bool],
) -> FloatArray:
    """Return the chains' later draws, (n, D)."""
    scale = np.exp(fitted.log_scale)
    around = fitted.draws(_POINTS, rng)
    there = target.log_density_gradient(around)
    usable = around[there.accepted]  # from the others no chain gets away
    like_fit = usable[: ensemble.chains // 2]
    starts = np.concatenate(
        [target.starting_points(ensemble.chains - len(like_fit), rng), like_fit]
    )
    chains = Chains(target, starts, Metric(np.empty((0, target.dim)), scale), rng)
    level = _low_quantile(there)
    chains.climb(level, first_step=0.1)
    if len(usable) >= ensemble.chains:
        chains.restart(chains.lost(level), usable[-ensemble.chains :])
    recorded: list[FloatArray] = []
    for transition in range(1, ensemble.transitions + 1):
        steps = rng.integers(_FEWEST_LEAPFROG_STEPS, _MOST_LEAPFROG_STEPS + 1)
        chains.transition(int(steps))
        recorded.append(chains.z)
        if transition in ensemble.adapt_after:
            recent = np.concatenate(recorded[transition // 2 :])
            chains.adapt(Metric(recent, _spread(recent)))
        if transition == ensemble.enough_if_mixed and _have_mixed(recorded, ensemble):
            return np.concatenate(recorded[-ensemble.kept_if_mixed :])
        if should_stop():
            break
    return np.concatenate(recorded[len(recorded) // 3 :])


def _have_mixed(recorded: list[FloatArray], ensemble: _Ensemble) -> bool:
    """Return whether the chains agree on every coordinate since they last adapted their metric."""
    adapted = max(after for after in ensemble.adapt_after if after < len(recorded))
    draws = np.stack(recorded[adapted:])
    return all(rhat(draws[:, :, i].T) < ensemble.highest_rhat for i in range(draws.shape[2]))


def _low_quantile(batch: DensityBatch) -> float:
    if not batch.accepted.any():
        return -math.inf
    return float(np.quantile(batch.log_density[batch.accepted], 0.1))


def _spread(draws: FloatArray) -> FloatArray:
    """Return a standard deviation of each coordinate that outliers do not move."""
    low, first, third, high = np.quantile(draws, [0.05, 0.25, 0.75, 0.95], axis=0)
    spread = np.maximum(
        (third - first) / QUARTILES_OF_NORMAL, _WEIGHT_OF_TAILS * (high - low) / _TAILS_OF_NORMAL
    )
    return np.asarray(np.maximum(spread, np.finfo(np.float64).tiny))


def _share_of_widening(dim: int) -> float:
    """Return how much of a widening to keep in D dimensions.

    A flow narrows more easily than it widens. But what is too wide costs ELBO in each dimension,
    so the more there are the less is added.
    """
    return min(1.0, math.sqrt(10 / dim))
