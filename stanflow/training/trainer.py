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

from stanflow.errors import NumericsError, UsageError
from stanflow.flow.realnvp import Flow
from stanflow.flow.sweep import Sweep
from stanflow.target.density import Target
from stanflow.target.loaded import FloatArray
from stanflow.training.checkpoint import Checkpoint, TrainState, as_tensor
from stanflow.training.config import TrainConfig
from stanflow.training.gradients import BatchResult, GradientEstimator
from stanflow.training.interruption import Interruption
from stanflow.training.optimizers import FlatAdam
from stanflow.training.standardize import StandardizedTarget
from stanflow.training.warmstart import LocationScale, mean_field_start

StopReason = Literal["max_steps", "max_seconds", "interrupted"]

_FAILED_STEPS_IN_A_ROW = 100
_NUMBERS_WORTH_A_SECOND_THREAD = 16_384
_EXPLODED = 1e12  # in units of the mean-field fit: no posterior is there


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
    largest : array of shape (r + 1,)
        Largest ``|x|`` after the base and after each of the r coupling layers, in the flow's own
        units.
    """

    step: int
    seconds: float
    elbo: float
    gradient_norm: float
    rejected: int
    largest: FloatArray


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
    *,
    checkpoint: Checkpoint | None = None,
) -> TrainResult:
    """Fit a flow to a target by stochastic gradients of the ELBO and Adam.

    Unless the configuration says otherwise, training runs in float32 and in units of a mean-field
    fit that comes first; the flow is in float64, in the target's units, on the CPU afterwards.

    A draw that the target gives no finite log density or gradient takes no part in its step; a step
    whose gradient is not finite, as where a draw itself is not, is skipped and counted. Ctrl-C ends
    the run after the step under way and keeps what was learnt.

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
    checkpoint : Checkpoint, optional
        Where the state is kept as training goes on; a run that finds one there goes on from it, to
        the numbers that it would have reached without a break.

    Raises
    ------
    InitializationError
        The log density is not finite at any starting point.
    NumericsError
        100 steps in a row had no finite gradient.
    UsageError
        The device is not there.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("there is no CUDA device that torch can use here; take device='cpu'")
    state = None if checkpoint is None else checkpoint.read()
    began = time.perf_counter() - (0.0 if state is None else state.seconds)
    result = TrainResult()
    with Interruption() as interruption, _threads_that_pay(config.batch * flow.dim):

        def reason_to_stop() -> StopReason | None:
            if interruption.requested:
                return "interrupted"
            out_of_time = time.perf_counter() - began >= (config.max_seconds or math.inf)
            return "max_seconds" if out_of_time else None

        start = _start(target, config, seed, lambda: reason_to_stop() is not None, state)
        result.gradient_evaluations += start.gradient_evaluations
        run = _Run(flow, target, start, config, seed)
        if state is not None:
            run.restore(state, result)
        for step in range(len(result.trace) + 1, config.max_steps + 1):
            batch, norm = run.step(step)
            result.gradient_evaluations += config.batch
            seconds = time.perf_counter() - began
            result.trace.append(
                TrainStep(step, seconds, batch.elbo, norm, batch.rejected, run.largest())
            )
            on_step(result.trace[-1])
            if run.failed_in_a_row == _FAILED_STEPS_IN_A_ROW:
                raise NumericsError(_breakdown(result.trace[-1]))
            if (stopped := reason_to_stop()) is not None:
                result.stopped = stopped
                break
            if checkpoint is not None and checkpoint.due:
                checkpoint.write(run.state(result))
        run.finish()
    result.seconds = time.perf_counter() - began
    return result


class _Run:
    """What moves from step to step."""

    def __init__(
        self, flow: Flow, target: Target, start: LocationScale, config: TrainConfig, seed: int
    ) -> None:
        self.failed_in_a_row = 0
        self._flow, self._config, self._start = flow, config, start
        self._target = StandardizedTarget(target, start.location, start.log_scale)
        flow.to(device=config.device, dtype=getattr(torch, config.precision))
        self._sweep = Sweep(
            flow,
            config.batch,
            memory=config.memory,
            memory_budget=int(1e6 * config.memory_budget_mb),
            total=config.gradient == "total",
        )
        self._estimator = GradientEstimator(self._sweep, self._target, config.gradient)
        self._optimizer = FlatAdam(flow, config)
        self._generator = torch.Generator(device=config.device).manual_seed(seed)
        self._best = _Best(flow) if config.keep_best else None

    def step(self, number: int) -> tuple[BatchResult, float]:
        """Take a step; return what its batch said and the gradient's norm."""
        config = self._config
        batch = self._estimator.estimate(self._generator)
        if self._best is not None and number > config.max_steps / 2:
            self._best.consider(batch.elbo)
        none_accepted = batch.rejected == config.batch
        norm = math.nan
        if not none_accepted:
            norm = self._optimizer.step((number - 1) / config.max_steps)
        self.failed_in_a_row = self.failed_in_a_row + 1 if math.isnan(norm) else 0
        return batch, norm

    def largest(self) -> FloatArray:
        """Return the largest values of the last step."""
        return self._sweep.largest().double().cpu().numpy()

    def finish(self) -> None:
        """Leave the flow trained, in the target's units, and give back all memory."""
        if self._best is not None:
            self._best.restore()
        self._optimizer.release()
        del self._sweep, self._estimator
        self._target.restore_units(self._flow)

    def state(self, result: TrainResult) -> TrainState:
        """Return all that is needed to go on from here."""
        mean, mean_square, adam_steps = self._optimizer.averages()
        best = self._best or _Best(self._flow)
        trace = [[s.step, s.seconds, s.elbo, s.gradient_norm, s.rejected] for s in result.trace]
        return TrainState(
            parameters=self._flow.flat.cpu(),
            mean=mean.cpu(),
            mean_square=mean_square.cpu(),
            adam_steps=adam_steps.cpu(),
            generator=self._generator.get_state(),
            location=as_tensor(self._start.location),
            log_scale=as_tensor(self._start.log_scale),
            trace=torch.tensor(trace, dtype=torch.float64),
            largest=as_tensor(np.stack([s.largest for s in result.trace])),
            counts=torch.tensor([result.gradient_evaluations, self.failed_in_a_row]),
            best=torch.empty(0) if best.flat is None else best.flat.cpu(),
            best_elbo=torch.tensor(best.elbo, dtype=torch.float64),
        )

    def restore(self, state: TrainState, result: TrainResult) -> None:
        """Go back to a state."""
        self._flow.flat.copy_(state.parameters)
        self._optimizer.set_averages(state.mean, state.mean_square, state.adam_steps)
        self._generator.set_state(state.generator)
        evaluations, self.failed_in_a_row = map(int, state.counts)
        result.gradient_evaluations = evaluations
        result.trace = [
            TrainStep(int(step), seconds, elbo, norm, int(rejected), largest)
            for (step, seconds, elbo, norm, rejected), largest in zip(
                state.trace.tolist(), state.largest.numpy(), strict=True
            )
        ]
        if self._best is not None and len(state.best):
            self._best.elbo = float(state.best_elbo)
            self._best.flat = state.best.to(self._flow.flat)


def _start(
    target: Target,
    config: TrainConfig,
    seed: int,
    should_stop: Callable[[], bool],
    state: TrainState | None,
) -> LocationScale:
    """Return the units to train in."""
    if state is not None:
        return LocationScale(state.location.numpy(), state.log_scale.numpy(), 0)
    if config.start == "none":
        return LocationScale(np.zeros(target.dim), np.zeros(target.dim), 0)
    start = mean_field_start(target, np.random.default_rng(seed), should_stop)
    log_scale = start.log_scale + _log_widening(target.dim)
    return LocationScale(start.location, log_scale, start.gradient_evaluations)


class _Best:
    """The parameters of the best batch so far."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self.elbo = -math.inf
        self.flat: torch.Tensor | None = None

    def consider(self, elbo: float) -> None:
        """Keep the flow's parameters if they are better; an ELBO of NaN is not."""
        if elbo > self.elbo:
            self.elbo = elbo
            if self.flat is None:
                self.flat = torch.empty_like(self._flow.flat)
            self.flat.copy_(self._flow.flat)

    def restore(self) -> None:
        """Put the best parameters back, if any were kept."""
        if self.flat is not None:
            self._flow.flat.copy_(self.flat)


def _breakdown(step: TrainStep) -> str:
    """Say why training ended at this step."""
    beginning = (
        f"training broke down at step {step.step}: {_FAILED_STEPS_IN_A_ROW} steps in a row had no "
    )
    exploded = ~(step.largest < _EXPLODED)
    if exploded.any():
        layer = int(np.argmax(exploded))
        where = f"coupling layer {layer}" if layer else "the base"
        return beginning + (
            f"finite gradient, and the flow's values reach {step.largest[layer]:.2g} after "
            f"{where}; use a clamp and LOFT (the defaults), or a lower learning_rate"
        )
    return beginning + (
        "draw with a finite log density and gradient; check the program's constraints and priors"
    )


def _log_widening(dim: int) -> float:
    """Return by how much to widen the start of the flow beyond the mean-field fit.

    A mean-field fit is narrower than the posterior, and a flow narrows more easily than it widens.
    But what is too wide costs ELBO in each dimension, so the more there are the less is added.
    """
    return math.log(3) * min(1.0, math.sqrt(10 / dim))


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
