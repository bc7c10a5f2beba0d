"""Where training begins: location and scale of a quick mean-field fit."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.stan.density import Density, Target
from stanflow.statistics.medians import QUARTILES_OF_NORMAL

_FEW_DIMENSIONS = 20
_STEPS_A_ROUND = 200
_AVERAGED = 100
_MOST_ROUNDS = 20
_GAIN_WORTH_A_ROUND, _DIMENSIONS_OF_GAIN = 0.5, 200  # nats of ELBO, more in more dimensions
_BATCH, _BATCH_IN_FEW_DIMENSIONS = 16, 8
_BATCH_FOR_ELBO = 64
_DRAWS_FOR_MEDIAN = 256
_GROW, _SHRINK = 1.2, 0.5
_FIRST_STEP = 0.1
_LONGEST_STEP_OF_LOCATION, _LONGEST_STEP_OF_LOG_SCALE = 1e6, 0.5


@dataclass(frozen=True)
class LocationScale:
    """A diagonal Gaussian N(location, diag(exp(log_scale))^2), both of shape (D,)."""

    location: FloatArray
    log_scale: FloatArray

    def draws(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Return n draws, (n, D)."""
        noise = rng.standard_normal((n, len(self.location)))
        return np.asarray(self.location + np.exp(self.log_scale) * noise)


def mean_field_start(
    target: Target, rng: np.random.Generator, should_stop: Callable[[], bool] = lambda: False
) -> LocationScale:
    """Fit a diagonal Gaussian by path gradients and Rprop steps in float64.

    Rprop (Riedmiller and Braun 1993) looks at the signs of a gradient alone: a coordinate's step
    grows while its sign stays and halves when it turns. So a posterior a thousand units away is
    reached in some fifty steps whatever the scales are, and near it the noise of the draws makes
    the steps die out. After each round of 200 steps the last 100 are averaged; when that no longer
    raises the ELBO, the best average is returned.

    Parameters
    ----------
    target : Target
        The density.
    rng : numpy.random.Generator
        Source of the starting points and draws.
    should_stop : callable
        Asked before every step; once it says yes, what was found so far is returned.

    Raises
    ------
    InitializationError
        No starting point has a finite log density.
    """
    starts = target.starting_points(_BATCH, rng)
    best = int(np.argmax(target.log_density(starts)))
    dim = target.dim
    start = np.concatenate([starts[best], np.full(dim, -1.0)])
    longest = np.repeat([_LONGEST_STEP_OF_LOCATION, _LONGEST_STEP_OF_LOG_SCALE], dim)
    search = _Rprop(target, start, longest, rng, should_stop)
    centre, elbo = start, _elbo(target, start, rng)
    worth_a_round = _GAIN_WORTH_A_ROUND * max(1.0, dim / _DIMENSIONS_OF_GAIN)
    for _ in range(_MOST_ROUNDS):
        mean = search.run()
        new_elbo = _elbo(target, mean, rng)
        gain = new_elbo - elbo
        if gain > 0:
            centre, elbo = mean, new_elbo
        if should_stop() or (not gain > worth_a_round and np.isfinite(elbo)):
            break
    return LocationScale(centre[:dim], centre[dim:])


class TypicalLogWeight(NamedTuple):
    """An estimate up to a constant, and its standard error."""

    value: float
    se: float


def typical_log_weight(
    target: Density, fitted: LocationScale, rng: np.random.Generator
) -> TypicalLogWeight:
    """Return the median of ``log p - log q`` over draws of a diagonal Gaussian.

    It is about the ELBO, but for a few draws that are far below the others.
    """
    e = rng.standard_normal((_DRAWS_FOR_MEDIAN, target.dim))
    log_p = target.log_density(fitted.location + np.exp(fitted.log_scale) * e)
    log_q = -0.5 * (e**2).sum(axis=1) - fitted.log_scale.sum()
    low, median, high = np.quantile(np.nan_to_num(log_p - log_q, nan=-np.inf), [0.25, 0.5, 0.75])
    # The median of a normal has the standard error sqrt(pi / 2) sd / sqrt(n).
    sd = (high - low) / QUARTILES_OF_NORMAL
    return TypicalLogWeight(float(median), float(sd * math.sqrt(math.pi / 2 / len(e))))


class _Rprop:
    """The state of the search: parameters are (location, log scale), 2 D numbers."""

    def __init__(
        self,
        target: Density,
        start: FloatArray,
        longest: FloatArray,
        rng: np.random.Generator,
        should_stop: Callable[[], bool],
    ) -> None:
        self._target, self._rng, self._should_stop = target, rng, should_stop
        self._parameters = self._usable = start
        self._step_sizes = np.full(len(start), _FIRST_STEP)
        self._signs = np.zeros(len(start))
        self._longest = longest
        self._batch = _BATCH_IN_FEW_DIMENSIONS if target.dim <= _FEW_DIMENSIONS else _BATCH

    def run(self) -> FloatArray:
        """Take a round of steps and return the average of the last ones."""
        last = deque[FloatArray](maxlen=_AVERAGED)
        for _ in range(_STEPS_A_ROUND):
            self._step()
            last.append(self._usable)
            if self._should_stop():
                break
        return np.asarray(np.mean(last, axis=0))

    def _step(self) -> None:
        gradient = _path_gradient(self._target, self._parameters, self._batch, self._rng)
        if gradient is None:  # too far: go back, and on from there more carefully
            self._parameters = self._usable.copy()
            self._parameters[self._target.dim :] -= _FIRST_STEP
            self._step_sizes = _SHRINK * self._step_sizes
            return
        self._usable = self._parameters
        turned = np.sign(gradient) * self._signs < 0
        self._step_sizes = np.minimum(
            np.where(turned, _SHRINK, _GROW) * self._step_sizes, self._longest
        )
        self._signs = np.sign(gradient)
        self._parameters = self._parameters - self._step_sizes * self._signs


def _path_gradient(
    target: Density, parameters: FloatArray, batch_size: int, rng: np.random.Generator
) -> FloatArray | None:
    """Return the gradient of -ELBO in (location, log scale); None if no draw is accepted."""
    dim = target.dim
    scale = np.exp(parameters[dim:])
    e = rng.standard_normal((batch_size, dim))
    batch = target.log_density_gradient(parameters[:dim] + scale * e)
    if not batch.accepted.any():
        return None
    e = e[batch.accepted]
    cotangent = -e / scale - batch.gradient[batch.accepted]
    return np.concatenate([cotangent.mean(0), (cotangent * scale * e).mean(0)])


def _elbo(target: Density, parameters: FloatArray, rng: np.random.Generator) -> float:
    """Estimate the ELBO up to a constant; -infinity if any draw is rejected."""
    dim = target.dim
    e = rng.standard_normal((_BATCH_FOR_ELBO, dim))
    log_density = target.log_density(parameters[:dim] + np.exp(parameters[dim:]) * e)
    if not np.isfinite(log_density).all():
        return -np.inf
    return float(log_density.mean() + parameters[dim:].sum())
