"""How the learning rate falls, and when training ends."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import NamedTuple

import numpy as np
from typing_extensions import override

from stanflow.statistics.medians import gain_of_medians
from stanflow.training.config import TrainConfig

_FINAL_SHARE = 0.01
_STEPS_BETWEEN_LOOKS = 50
_SHARE_LOOKED_AT = 0.6
_STANDARD_ERRORS = 2.0
_GAIN_WORTH_STEPS = 0.03  # nats
_NOISE_OF_A_DIMENSION = 0.5  # nats, over the draws a step
_LEFT_AT_AN_EARLY_END = 0.02  # nats
_MOST_DIMENSIONS_OF_NOISE = 50
_FEWEST_STEPS, _FEWEST_COOLING_STEPS = 300, 600


class Schedule(ABC):
    """The learning rate as a share of the first one, step by step.

    Parameters
    ----------
    config : TrainConfig
        Its `max_steps` and `max_seconds` are the budget.
    dim : int
        D.
    """

    def __init__(self, config: TrainConfig, dim: int) -> None:
        self._steps = 0
        self._began: float | None = None
        self._max_steps = config.most_steps(dim)
        self._max_seconds = math.inf if config.max_seconds is None else config.max_seconds

    @property
    def converged(self) -> bool:
        """Whether training has ended of itself."""
        return False

    @property
    def cools(self) -> bool:
        """Whether the rate falls towards the end of training."""
        return False

    @property
    def may_go_on(self) -> bool:
        """Whether training has ended of itself, and may go on."""
        return False

    @property
    def largest_divergence(self) -> float:
        """KL(q | p), in nats, that an end which training came to of itself may leave."""
        return math.inf

    def go_on(self) -> None:
        """Go back to the first rate, and wait for the ELBO not to rise."""
        raise RuntimeError("training has not ended of itself")

    def cool(self, steps: int) -> None:
        """Let the rate fall from now on, for so many steps, after which training ends."""
        raise RuntimeError("this rate does not fall")

    @abstractmethod
    def share(self, seconds: float) -> float:
        """Return the share for the next step, seconds after training began."""

    def record(self, elbo: float, log_weight_sd: float, seconds: float) -> None:
        """Take note of what the step just taken said; NaN where it said nothing."""
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


class _Cooling(NamedTuple):
    """When the rate began to fall, for how many steps it does, and whether training ends then.

    Early are ends that the trace has not shown to gain nothing.
    """

    step: int
    seconds: float
    steps: int
    ends: bool
    early: bool


class Plateau(Schedule):
    """The first learning rate until the ELBO no longer rises, then half a cosine down.

    Every 50 steps the last three fifths of the trace are split in half. When the later half's
    median is not above the earlier's by more than two standard errors, or by less than 0.03 nats,
    the rate starts to fall, for as many steps again as were taken; then training ends.
    It also starts to fall when no more than the time it takes is left of the budget.

    Where hardly anything is left to gain, there is no need to wait until a trace has shown it. The
    ELBO is below its bound by KL(q | p). For log weights of small variance that is half of it, the
    first term of the cumulant expansion of ``log E_q[p / q]``. So from step 300 on the rate starts
    to fall, too, when this half, in the median of the last 50 steps, is below 0.03 nats and what
    the steps' noise adds at the first rate: half a nat over the draws a step for each dimension, of
    the first 50. It falls for 600 steps at least, which takes most of that noise away: what an
    early end leaves should be below 0.02 nats.

    Where training has ended in either way, it may go on once; the second time the trace decides.

    Parameters
    ----------
    config : TrainConfig
        Its budget and `min_steps`.
    dim : int
        D.
    """

    def __init__(self, config: TrainConfig, dim: int) -> None:
        super().__init__(config, dim)
        self._fewest_steps = min(config.min_steps, self._max_steps)
        noise_of_a_dimension = _NOISE_OF_A_DIMENSION / config.draws_a_step(dim)
        noise = noise_of_a_dimension * min(dim, _MOST_DIMENSIONS_OF_NOISE)
        self._small_divergence = _GAIN_WORTH_STEPS + noise
        self._elbos: list[float] = []  # at the first rate, and since training went on if it did
        self._divergences = deque[float](maxlen=_STEPS_BETWEEN_LOOKS)
        self._cooling: _Cooling | None = None
        self._has_gone_on = False
        self._last_seconds = 0.0
        self._converged = False

    @property
    @override
    def cools(self) -> bool:
        return self._cooling is not None

    @property
    @override
    def converged(self) -> bool:
        return self._converged

    @property
    @override
    def may_go_on(self) -> bool:
        return self._converged and not self._has_gone_on

    @property
    @override
    def largest_divergence(self) -> float:
        early = self._cooling is not None and self._cooling.early
        return _LEFT_AT_AN_EARLY_END if early else math.inf

    @override
    def go_on(self) -> None:
        self._cooling = None
        self._converged = False
        self._has_gone_on = True
        self._began = self._last_seconds
        self._elbos.clear()

    @override
    def share(self, seconds: float) -> float:
        self._begin(seconds)
        return 1.0 if self._cooling is None else _half_cosine(self._cooled(seconds))

    @override
    def record(self, elbo: float, log_weight_sd: float, seconds: float) -> None:
        super().record(elbo, log_weight_sd, seconds)
        self._last_seconds = seconds
        if self._cooling is not None:
            self._converged = self._cooling.ends and self._cooled(seconds) >= 1.0
            return
        self._elbos.append(elbo)
        self._divergences.append(log_weight_sd**2 / 2)
        taken, early, ends = len(self._elbos), False, False
        if taken % _STEPS_BETWEEN_LOOKS == 0:
            early = not self._has_gone_on and taken >= _FEWEST_STEPS and self._little_is_left()
            ends = early or (taken >= self._fewest_steps and not self._rises())
        if early:
            self.cool(max(_FEWEST_COOLING_STEPS, taken))
        elif ends or self._must_cool(taken, seconds):
            within = min(taken, self._max_steps - self._steps)
            self._cooling = _Cooling(self._steps, seconds, within, ends, early=False)

    @override
    def cool(self, steps: int) -> None:
        within = min(steps, self._max_steps - self._steps)
        self._cooling = _Cooling(self._steps, self._last_seconds, within, ends=True, early=True)

    def _must_cool(self, taken: int, seconds: float) -> bool:
        """Return whether no more of the budget is left than was spent at the first rate."""
        time_left = self._max_seconds - seconds
        time_spent = seconds - (self._began or 0.0)
        return taken >= self._max_steps - self._steps or time_spent >= time_left

    def _cooled(self, seconds: float) -> float:
        """Return the share of the cooling that is done, by steps or by time, the larger."""
        assert self._cooling is not None
        by_steps = (self._steps - self._cooling.step) / max(1, self._cooling.steps)
        left = max(1e-9, self._max_seconds - self._cooling.seconds)
        return min(1.0, max(by_steps, (seconds - self._cooling.seconds) / left))

    def _little_is_left(self) -> bool:
        divergences = np.array(self._divergences)
        known = divergences[np.isfinite(divergences)]
        return len(known) > 0 and float(np.median(known)) < self._small_divergence

    def _rises(self) -> bool:
        recent = np.array(self._elbos[-int(_SHARE_LOOKED_AT * len(self._elbos)) :])
        middle = len(recent) // 2
        gain, se = gain_of_medians(recent[:middle], recent[middle:])
        return not gain <= max(_STANDARD_ERRORS * se, _GAIN_WORTH_STEPS)


def make_schedule(config: TrainConfig, dim: int) -> Schedule:
    """Return the schedule that a configuration names, in D dimensions."""
    if config.schedule == "plateau":
        return Plateau(config, dim)
    return (Cosine if config.schedule == "cosine" else Constant)(config, dim)


def _half_cosine(progress: float) -> float:
    share = 0.5 * (1 + math.cos(math.pi * progress))
    return _FINAL_SHARE + (1 - _FINAL_SHARE) * share
