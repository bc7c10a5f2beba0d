"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from stanflow.errors import NumericsError
from stanflow.flow.realnvp import Flow
from stanflow.target.density import Target
from stanflow.training.config import TrainConfig
from stanflow.training.gradients import accumulate_path_gradient
from stanflow.training.interruption import Interruption
from stanflow.training.standardize import StandardizedTarget
from stanflow.training.warmstart import mean_field_start

StopReason = Literal["max_steps", "max_seconds", "interrupted"]

_FINAL_LEARNING_RATE = 0.01  # as a share of the first
_FAILED_STEPS_IN_A_ROW = 100
_NUMBERS_WORTH_A_SECOND_THREAD = 16_384


@dataclass(frozen=True)
class TrainStep:
    """One step of training, for the trace and the progress bar.

    Attributes
    ----------
    step : int
        Counted from 1.
    seconds : float
        Since training began.
    elbo : float
        The batch's estimate, Stan's constants left out; NaN if every draw was rejected.
    gradient_norm : float
        Before it was shortened; NaN if the step was skipped.
    rejected : int
        Draws of the batch without finite log density and gradient.
    """

    step: int
    seconds: float
    elbo: float
    gradient_norm: float
    rejected: int


@dataclass
class TrainResult:
    """What a training run did.

    Attributes
    ----------
    trace : list of TrainStep
        Every step.
    stopped : {"max_steps", "max_seconds", "interrupted"}
        Why it ended.
    gradient_evaluations : int
        Gradients of the target's log density, the warm start's included.
    seconds : float
        Wall time, the warm start included.
    """

    trace: list[TrainStep] = field(default_factory=list)
    stopped: StopReason = "max_steps"
    gradient_evaluations: int = 0
    seconds: float = 0.0

    @property
    def skipped_steps(self) -> int:
        """Steps without a finite gradient, which changed nothing."""
        return sum(math.isnan(step.gradient_norm) for step in self.trace)


def train(
    flow: Flow,
    target: Target,
    config: TrainConfig,
    seed: int,
    on_step: Callable[[TrainStep], None] = lambda step: None,
) -> TrainResult:
    """Fit a flow to a target by path gradients and Adam.

    Training runs in the precision of the flow given, in units of a mean-field fit that comes
    first; the flow is in float64 afterwards.

    A draw whose log density or gradient is not finite takes no part in its step; a step
    without any finite gradient is skipped and counted. Ctrl-C ends the run after the step under
    way and keeps what was learnt.

    Parameters
    ----------
    flow : Flow
        Untrained; trained in place.
    target : Target
        The density.
    config : TrainConfig
        Settings.
    seed : int
        For the starting points and the draws.
    on_step : callable
        Called after every step.

    Raises
    ------
    InitializationError
        The log density is not finite at any starting point.
    NumericsError
        100 steps in a row had no finite gradient.
    """
    began = time.perf_counter()
    result = TrainResult()
    with Interruption() as interruption, _threads_that_pay(config.batch * flow.dim):

        def reason_to_stop() -> StopReason | None:
            if interruption.requested:
                return "interrupted"
            out_of_time = time.perf_counter() - began >= (config.max_seconds or math.inf)
            return "max_seconds" if out_of_time else None

        start = mean_field_start(
            target, np.random.default_rng(seed), lambda: reason_to_stop() is not None
        )
        result.gradient_evaluations += start.gradient_evaluations
        log_scale = start.log_scale + _log_widening(target.dim)
        standardized = StandardizedTarget(target, start.location, log_scale)
        learning_rate = _learning_rate(config, target.dim)
        optimizer = torch.optim.Adam(flow.parameters(), lr=learning_rate, fused=True)
        generator = torch.Generator().manual_seed(seed)
        failed_in_a_row = 0
        for step in range(1, config.max_steps + 1):
            _set_learning_rate(optimizer, learning_rate, (step - 1) / config.max_steps)
            optimizer.zero_grad(set_to_none=True)
            batch = accumulate_path_gradient(flow, standardized, config.batch, generator)
            result.gradient_evaluations += config.batch
            norm = _step(optimizer, flow, config)
            failed_in_a_row = failed_in_a_row + 1 if math.isnan(norm) else 0
            seconds = time.perf_counter() - began
            result.trace.append(TrainStep(step, seconds, batch.elbo, norm, batch.rejected))
            on_step(result.trace[-1])
            if failed_in_a_row == _FAILED_STEPS_IN_A_ROW:
                raise NumericsError(
                    f"training broke down at step {step}: {failed_in_a_row} steps in a row had no "
                    "draw with a finite log density and gradient; check the program's constraints "
                    "and priors"
                )
            if (stopped := reason_to_stop()) is not None:
                result.stopped = stopped
                break
    standardized.restore_units(flow)
    result.seconds = time.perf_counter() - began
    return result


def _log_widening(dim: int) -> float:
    """Return by how much to widen the start of the flow beyond the mean-field fit.

    A mean-field fit is narrower than the posterior, and a flow narrows more easily than it widens.
    But what is too wide costs ELBO in each dimension, so the more there are the less is added.
    """
    return math.log(3) * min(1.0, math.sqrt(10 / dim))


def _learning_rate(config: TrainConfig, dim: int) -> float:
    """Return the first learning rate: smaller in many dimensions, whose errors add up."""
    if config.learning_rate is not None:
        return config.learning_rate
    return 0.02 * min(1.0, math.sqrt(10 / dim))


@contextmanager
def _threads_that_pay(numbers_per_layer: int) -> Iterator[None]:
    """Use one torch thread where waking a second costs more than it saves."""
    before = torch.get_num_threads()
    if numbers_per_layer < _NUMBERS_WORTH_A_SECOND_THREAD:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _set_learning_rate(
    optimizer: torch.optim.Optimizer, learning_rate: float, progress: float
) -> None:
    """Fall along a half cosine from the first learning rate to a hundredth of it."""
    share = 0.5 * (1 + math.cos(math.pi * progress))
    share = _FINAL_LEARNING_RATE + (1 - _FINAL_LEARNING_RATE) * share
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * share


def _step(optimizer: torch.optim.Optimizer, flow: Flow, config: TrainConfig) -> float:
    """Take one step if the gradient is finite; return its norm, NaN if it was skipped."""
    if all(parameter.grad is None for parameter in flow.parameters()):
        return math.nan
    norm = torch.nn.utils.clip_grad_norm_(flow.parameters(), config.max_gradient_norm)
    if not torch.isfinite(norm):
        return math.nan
    optimizer.step()
    return float(norm)
