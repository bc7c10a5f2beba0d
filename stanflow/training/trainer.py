"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.flow.coupling import AffineCoupling
from stanflow.flow.depth import layers_at_first
from stanflow.flow.realnvp import Flow
from stanflow.flow.sweep import Sweep
from stanflow.sampling.standardize import StandardizedTarget
from stanflow.stan.density import CountingTarget
from stanflow.statistics.importance_weights import normalized, pareto_k_error, pareto_smoothed
from stanflow.training.caution import Caution, caution
from stanflow.training.checkpoint import Keep, State, part
from stanflow.training.compiled_gradients import make_estimator
from stanflow.training.config import StopReason, TrainConfig
from stanflow.training.gradients import BatchResult
from stanflow.training.limits import Limits
from stanflow.training.optimizers import FlatAdam
from stanflow.training.safeguard import Safeguard
from stanflow.training.schedule import make_schedule
from stanflow.training.start import Start
from stanflow.training.threads import threads_that_pay
from stanflow.training.train_step import TrainStep, as_state, from_state

_FAILED_STEPS_IN_A_ROW = 100
_MOST_RETURNS = 10
_DRAWS_TO_JUDGE = (4000, 20_000)
_STANDARD_ERRORS = 2.0
_HIGHEST_K_TO_END_WITH = 0.55
_STEPS_BEFORE_GROWTH, _STEPS_LOOKED_AT = 150, 50
_NEARLY_NORMAL = 0.03  # nats
_COOLING_STEPS_OF_NEARLY_NORMAL = 300
_EXPLODED = 1e12  # in units of the start: no posterior is there


@dataclass
class TrainResult:
    """What a training run did.

    Attributes
    ----------
    flow : Flow
        Trained.
    trace : list of TrainStep
        Every step.
    stopped : {"converged", "max_steps", "max_seconds", "interrupted", "breakdown"}
        Why it ended.
    breakdown : str
        What went wrong where it broke down for good, in a sentence; else empty. The flow is as it
        was where training was sound for the last time.
    returns : int
        How often training broke down, went back to where it was sound, and on more slowly.
    gradient_evaluations, density_evaluations : int
        Of the target so far, the start's included: with gradients, and without.
    """

    flow: Flow
    trace: list[TrainStep] = field(default_factory=list)
    stopped: StopReason = "max_steps"
    breakdown: str = ""
    returns: int = 0
    gradient_evaluations: int = 0
    density_evaluations: int = 0

    @property
    def skipped_steps(self) -> int:
        """Steps without a finite gradient, which changed nothing."""
        return sum(math.isnan(step.gradient_norm) for step in self.trace)


@np.errstate(all="ignore")  # what is not finite is counted, and reported
def train(
    flow: Flow,
    target: CountingTarget,
    start: Start,
    config: TrainConfig,
    seed: int,
    *,
    limits: Limits,
    on_step: Callable[[TrainStep], None] = lambda step: None,
    keep: Keep | None = None,
    grows: bool = False,
) -> TrainResult:
    """Fit a flow to a target by stochastic gradients of the ELBO and Adam.

    Unless the configuration says otherwise, training runs in float32, and in the units of the
    start; the flow is in float64, in the target's units, on the CPU afterwards.

    A draw that the target gives no finite log density or gradient takes no part in its step; a step
    whose gradient is not finite, as where a draw itself is not, is skipped and counted. Where
    training breaks down it goes back to where it was sound, and on with more caution (see
    `Safeguard` and `caution`); after 10 times, or 100 steps in a row without a finite gradient, it
    ends there.
    Ctrl-C ends the run after the step under way and keeps what was learnt. SIGTERM, which then does
    what it does otherwise, waits until that step is in the checkpoint.

    Parameters
    ----------
    flow : Flow
        Untrained, and trained in place.
    target : CountingTarget
        The density.
    start : Start
        From `start.begin`.
    config : TrainConfig
        Settings.
    seed : int
        For the draws.
    limits : Limits
        Active; when to end.
    on_step : callable
        Called after every step.
    grows : bool
        Whether to begin with few of the flow's coupling layers (see `flow.depth`). Where half of
        the log weights' variance, which is about KL(q | p), is below 0.03 nats by step 150, these
        are enough, and the learning rate falls from there for 300 steps; otherwise, or where the
        log weights tell otherwise in the end, the others join. Those that never did are not in the
        trained flow.
    keep : Keep, optional
        Where the state is kept as training goes on. From what is there the run goes on, to the
        numbers that it would have reached without a break.
    """
    batch = config.draws_a_step(target.dim)
    with threads_that_pay(batch * target.dim) as threads:
        run = _Run(flow, start.in_units(target), config, seed, threads=threads, grows=grows)
        result = TrainResult(run.flow)
        if keep is not None and keep.state is not None:
            run.restore(keep.state, result)
            target.gradients = result.gradient_evaluations
            target.densities = result.density_evaluations
        for step in range(len(result.trace) + 1, config.most_steps(target.dim) + 1):
            said, norm = run.step(step, limits.seconds)
            result.trace.append(
                TrainStep(
                    step,
                    limits.seconds,
                    said.elbo,
                    said.log_weight_sd,
                    norm,
                    said.rejected,
                    run.largest(),
                )
            )
            on_step(result.trace[-1])
            stopped = limits.reason_to_stop() or run.record(result)
            result.gradient_evaluations = target.gradients
            result.density_evaluations = target.densities
            if stopped is not None:
                result.stopped = stopped
                break
            if keep is not None and (keep.due or limits.terminated):
                keep.write(run.state(result))
            if limits.terminated:
                result.stopped = "interrupted"
                break
        result.returns, result.flow = run.finish()
    return result


class _Run:
    """What moves from step to step."""

    def __init__(
        self,
        flow: Flow,
        target: StandardizedTarget,
        config: TrainConfig,
        seed: int,
        *,
        threads: int,
        grows: bool,
    ) -> None:
        self.failed_in_a_row = 0
        grows &= config.schedule == "plateau"
        self._layers = layers_at_first(flow) if grows else flow.bijections
        self._began_small = len(self._layers) < len(flow.bijections)
        self._seed, self._threads = seed, threads
        self.flow, self._target, self._config = flow, target, config
        self._begin_with(caution(config, 0))
        self._generator = torch.Generator(device=config.device).manual_seed(seed)
        self._best = _Best(flow) if config.keep_best else None
        self._schedule = make_schedule(config, flow.dim)
        self._safeguard = Safeguard(flow)

    def _begin_with(self, cautious: Caution) -> None:
        """Make what takes the steps, for the flow as it is."""
        config, self._caution = self._config, cautious
        self.flow.to(device=config.device, dtype=getattr(torch, cautious.precision))
        self._sweep = Sweep(
            self.flow,
            config.draws_a_step(self.flow.dim),
            memory=config.memory,
            memory_budget=int(1e6 * config.memory_budget_mb),
            total=config.gradient == "total",
            threads=self._threads,
            layers=self._layers,
        )
        self._estimator = make_estimator(self._sweep, self._target, config, cautious.tail_share)
        couplings = [x for x in self.flow.bijections if isinstance(x, AffineCoupling)]
        self._rows_of_largest = np.cumsum([0, *(layer in self._layers for layer in couplings)])
        self._optimizer = FlatAdam(self.flow, config)

    @property
    def _has_grown(self) -> bool:
        return len(self._layers) == len(self.flow.bijections)

    def _grow(self) -> None:
        """Take in all of the flow's layers."""
        state = self._optimizer.state()
        self._layers = self.flow.bijections
        self._begin_with(self._caution)
        self._optimizer.restore(state)

    def _take_care(self, breakdowns: int) -> None:
        """Go on with the caution that so many breakdowns ask for."""
        self._begin_with(caution(self._config, breakdowns))
        self._safeguard.convert()
        if self._best is not None:
            self._best.convert()

    def step(self, number: int, seconds: float) -> tuple[BatchResult, float]:
        """Take a step; return what its batch said and the gradient's norm."""
        config = self._config
        batch = self._estimator.estimate(self._generator)
        late = number > config.most_steps(self.flow.dim) / 2 or self._schedule.cools
        if self._best is not None and late:
            self._best.consider(batch.elbo)
        none_accepted = batch.rejected == self._sweep.batch
        norm = math.nan
        if not none_accepted:
            norm = self._optimizer.step(self._caution.rate * self._schedule.share(seconds))
        self.failed_in_a_row = self.failed_in_a_row + 1 if math.isnan(norm) else 0
        return batch, norm

    def record(self, result: TrainResult) -> StopReason | None:
        """Take note of the last step; return whether training has converged or broken down."""
        step = result.trace[-1]
        if self._safeguard.watch(step.elbo, stepped=not math.isnan(step.gradient_norm)):
            if self._safeguard.returns > _MOST_RETURNS:
                result.breakdown = _no_way_on(step)
                return "breakdown"
            self._take_care(self._safeguard.returns)
        if self.failed_in_a_row == _FAILED_STEPS_IN_A_ROW:
            result.breakdown = _no_gradient(step)
            return "breakdown"
        self._schedule.record(step.elbo, step.log_weight_sd, step.seconds)
        if self._has_to_choose(step.step) and not self._has_grown:
            if _is_nearly_normal(result.trace):
                self._schedule.cool(_COOLING_STEPS_OF_NEARLY_NORMAL)
            else:
                self._grow()
        if self._schedule.may_go_on and self._much_is_left(result):
            self._schedule.go_on()
            if not self._has_grown:
                self._grow()
        return "converged" if self._schedule.converged else None

    def _has_to_choose(self, step: int) -> bool:
        """Return whether this is where few layers either suffice or are joined by the others."""
        return step == _STEPS_BEFORE_GROWTH and not self._schedule.cools

    def _much_is_left(self, result: TrainResult) -> bool:
        """Return whether importance weights say that there is more to learn, if not the trace.

        KL(q | p) is ``log E_q[w] - E_q[log w]``; Pareto k-hat looks at the largest of them. Where
        few of them leave it open, there are more.
        """
        seed = self._seed + len(result.trace)
        generator = torch.Generator(device=self._config.device).manual_seed(seed)
        batches: list[FloatArray] = []
        divergence = pareto_k = math.nan
        for draws in _DRAWS_TO_JUDGE:
            while len(batches) * self._sweep.batch < draws:
                batches.append(self._estimator.log_weights(generator))
            log_weights = np.concatenate(batches)
            n = len(log_weights)
            # Of normalised weights the mean is 1 / n.
            divergence = -float(np.mean(normalized(log_weights))) - math.log(n)
            _, pareto_k = pareto_smoothed(log_weights)
            away = abs(divergence - self._schedule.largest_divergence)
            k_away = abs(pareto_k - _HIGHEST_K_TO_END_WITH)
            error = float(np.std(log_weights)) / math.sqrt(n)
            k_error = pareto_k_error(pareto_k, n)
            if away > _STANDARD_ERRORS * error and k_away > _STANDARD_ERRORS * k_error:
                break
        return pareto_k > _HIGHEST_K_TO_END_WITH or divergence > self._schedule.largest_divergence

    def largest(self) -> FloatArray:
        """Return the largest values of the last step; layers yet to join leave them as they are."""
        largest: FloatArray = self._estimator.largest()[self._rows_of_largest]
        return largest

    def finish(self) -> tuple[int, Flow]:
        """Return how often training went back, and the trained flow in the target's units."""
        if self._best is not None:
            self._best.put_back()
        del self._sweep, self._estimator, self._optimizer
        flow = self.flow if self._has_grown else self.flow.of_layers(self._layers)
        self._target.restore_units(flow)
        return self._safeguard.returns, flow

    def state(self, result: TrainResult) -> State:
        """Return all that is needed to go on from here."""
        parts: dict[str, State] = {
            "run": {
                "parameters": self.flow.flat,
                "generator": self._generator.get_state(),
                "counts": torch.tensor(
                    [
                        result.gradient_evaluations,
                        result.density_evaluations,
                        self.failed_in_a_row,
                        self._has_grown,
                    ]
                ),
            },
            "adam": self._optimizer.state(),
            "best": {} if self._best is None else self._best.state(),
            "safeguard": self._safeguard.state(),
            "trace": as_state(result.trace),
        }
        return {
            f"{of}.{name}": tensor.cpu().clone()
            for of, state in parts.items()
            for name, tensor in state.items()
        }

    def restore(self, state: State, result: TrainResult) -> None:
        """Go back to a state."""
        self._safeguard.restore(part("safeguard.", state))
        gradients, densities, self.failed_in_a_row, has_grown = map(int, state["run.counts"])
        if has_grown:
            self._layers = self.flow.bijections
        self._take_care(self._safeguard.returns)
        self.flow.flat.copy_(state["run.parameters"])
        self._optimizer.restore(part("adam.", state))
        self._generator.set_state(state["run.generator"])
        if self._best is not None:
            self._best.restore(part("best.", state))
        result.gradient_evaluations, result.density_evaluations = gradients, densities
        result.trace = from_state(part("trace.", state))
        for step in result.trace:
            self._schedule.record(step.elbo, step.log_weight_sd, step.seconds)
            if (
                self._began_small
                and self._has_to_choose(step.step)
                and _is_nearly_normal(result.trace[: step.step])
            ):
                self._schedule.cool(_COOLING_STEPS_OF_NEARLY_NORMAL)
            if self._schedule.may_go_on:  # it went on: a run that has ended leaves no state
                self._schedule.go_on()


def seconds_spent(keep: Keep | None) -> float | None:
    """Return how long a run trained before it left a state; None where there is none."""
    state = None if keep is None else keep.state
    return None if state is None else float(state["trace.steps"][-1, 1])


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

    def convert(self) -> None:
        """Follow the flow, whose dtype has changed."""
        if self.flat is not None:
            self.flat = self.flat.to(self._flow.flat)

    def state(self) -> State:
        """Return the parameters, (P,), and their ELBO; nothing where there are none yet."""
        if self.flat is None:
            return {}
        return {"flat": self.flat, "elbo": torch.tensor(self.elbo, dtype=torch.float64)}

    def restore(self, state: State) -> None:
        """Take up where `state` was asked for."""
        if state:
            self.elbo = float(state["elbo"])
            self.flat = state["flat"].to(self._flow.flat)

    def put_back(self) -> None:
        """Give the flow the best parameters, if any were kept."""
        if self.flat is not None:
            self._flow.flat.copy_(self.flat)


def _is_nearly_normal(trace: list[TrainStep]) -> bool:
    """Return whether the last steps say that a flow of few layers is hardly off."""
    recent = np.array([step.log_weight_sd for step in trace[-_STEPS_LOOKED_AT:]])
    known = recent[np.isfinite(recent)]
    return len(known) > 0 and float(np.median(known**2)) / 2 < _NEARLY_NORMAL


def _no_way_on(step: TrainStep) -> str:
    """Say why training ended after it went back too often."""
    return (
        f"training broke down at step {step.step}, for the {_MOST_RETURNS + 1}th time, where the "
        f"flow's values reached {_reached(step, int(np.argmax(step.largest)))}; the flow is as it "
        "was before that"
    )


def _no_gradient(step: TrainStep) -> str:
    """Say why training ended at this step."""
    beginning = (
        f"training broke down at step {step.step}: {_FAILED_STEPS_IN_A_ROW} steps in a row had no "
    )
    exploded = ~(step.largest < _EXPLODED)
    if exploded.any():
        reached = _reached(step, int(np.argmax(exploded)))
        return beginning + f"finite gradient, and the flow's values reached {reached}"
    return beginning + "draw with a finite log density and gradient"


def _reached(step: TrainStep, layer: int) -> str:
    """Say how large a value is, and where: layer 0 is the base."""
    where = f"coupling layer {layer}" if layer else "the base"
    return f"{step.largest[layer]:.2g} after {where}"
