"""How the learning rate falls, and when training ends."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from scipy import stats
from typing_extensions import override

from stanflow.target.loaded import FloatArray
from stanflow.training.config import TrainConfig

_FINAL_SHARE = 0.01
_STEPS_BETWEEN_LOOKS = 50
_SHARE_LOOKED_AT = 0.6
_COOLING_SHARE = 1.0
_STANDARD_ERRORS = 2.0
_GAIN_WORTH_STEPS = 0.03  # nats


class Schedule(ABC):
    """The learning rate as a share of the first one, step by step.

    Parameters
    ----------
    config : TrainConfig
        Its `max_steps` and `max_seconds` are the budget.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._steps = 0
        self._began: float | None = None
        self._max_steps = config.max_steps
        self._max_seconds = math.inf if config.max_seconds is None else config.max_seconds

    @property
    def converged(self) -> bool:
        """Whether training has ended of itself."""
        return False

    @property
    def cools(self) -> bool:
        """Whether the rate falls towards the end of training."""
        return False

    @abstractmethod
    def share(self, seconds: float) -> float:
        """Return the share for the next step, seconds after training began."""

    def record(self, elbo: float, seconds: float) -> None:
        """Take note of the ELBO of the step just taken; NaN where it had none."""
        self._begin(seconds)
        self._steps += 1

    def _begin(self, seconds: float) -> None:
        if self._began is None:
            self._began = seconds

    def _spent(self, seconds: float) -> float:
        """Return the share of the budget that is spent; time counts from the first step."""
        began = self._began or 0.0
        by_time = (seconds - began) / max(1e-9, self._max_seconds - began)
        return min(1.0, max(self._steps / self._max_steps, by_time))


class Constant(Schedule):
    """The first learning rate throughout."""

    @override
    def share(self, seconds: float) -> float:
        return 1.0


class Cosine(Schedule):
    """Along a half cosine from one to a hundredth over the whole budget."""

    @override
    def share(self, seconds: float) -> float:
        self._begin(seconds)
        return _half_cosine(self._spent(seconds))


class Plateau(Schedule):
    """The first learning rate until the ELBO no longer rises, then half a cosine down.

    Every 50 steps the last three fifths of the trace are split in half. When the later half's
    median is not above the earlier's by more than two standard errors, or by less than 0.03 nats,
    the rate starts to fall, for as many steps again as were taken; then training ends.
    It also starts to fall when no more than the time it takes is left of the budget.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self._fewest_steps = min(config.min_steps, config.max_steps)
        self._elbos: list[float] = []
        self._cools_from: tuple[int, float] | None = None
        self._plateau = False
        self._converged = False

    @property
    @override
    def cools(self) -> bool:
        return self._cools_from is not None

    @property
    @override
    def converged(self) -> bool:
        return self._converged

    @override
    def share(self, seconds: float) -> float:
        self._begin(seconds)
        if self._cools_from is None:
            return 1.0
        return _half_cosine(self._cooled(seconds))

    @override
    def record(self, elbo: float, seconds: float) -> None:
        super().record(elbo, seconds)
        self._elbos.append(elbo)
        if self._cools_from is not None:
            self._converged = self._plateau and self._cooled(seconds) >= 1.0
            return
        looks = self._steps >= self._fewest_steps and self._steps % _STEPS_BETWEEN_LOOKS == 0
        self._plateau = looks and not self._rises()
        nearly_spent = self._spent(seconds) >= 1 / (1 + _COOLING_SHARE)
        if self._plateau or nearly_spent:
            self._cools_from = self._steps, seconds

    def _cooled(self, seconds: float) -> float:
        assert self._cools_from is not None
        steps, began = self._cools_from
        taken = self._steps - steps
        by_steps = taken / max(1.0, _COOLING_SHARE * steps)
        by_time = (seconds - began) / max(1e-9, self._max_seconds - began)
        return min(1.0, max(by_steps, by_time))

    def _rises(self) -> bool:
        recent = np.array(self._elbos[-int(_SHARE_LOOKED_AT * len(self._elbos)) :])
        middle = len(recent) // 2
        gain, se = gain_of_medians(recent[:middle], recent[middle:])
        return not gain <= max(_STANDARD_ERRORS * se, _GAIN_WORTH_STEPS)


def make_schedule(config: TrainConfig) -> Schedule:
    """Return the schedule that a configuration names."""
    schedules: dict[str, Callable[[TrainConfig], Schedule]] = {
        "plateau": Plateau,
        "cosine": Cosine,
        "constant": Constant,
    }
    return schedules[config.schedule](config)


def gain_of_medians(before: FloatArray, after: FloatArray) -> tuple[float, float]:
    """Return by how much a median rose, and the standard error of that; outliers move neither."""
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    if min(len(before), len(after)) < 2:
        return math.nan, math.nan
    variances = [
        (math.pi / 2) * stats.median_abs_deviation(part, scale="normal") ** 2 / len(part)
        for part in (before, after)
    ]
    return float(np.median(after) - np.median(before)), math.sqrt(sum(variances))


def _half_cosine(progress: float) -> float:
    share = 0.5 * (1 + math.cos(math.pi * progress))
    return _FINAL_SHARE + (1 - _FINAL_SHARE) * share
