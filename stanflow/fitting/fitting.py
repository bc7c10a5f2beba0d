"""The stages of a fit, one after another: training, moving draws, judging, learning modes."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from stanflow.errors import NumericsError
from stanflow.estimates.missing_mass import IMPORTANCE_UP_TO
from stanflow.estimates.modes import Mode
from stanflow.estimates.verdict import VERDICTS
from stanflow.fitting.assessment import (
    Assessment,
    DrawPlan,
    FlowEstimates,
    assess,
    assess_refined,
    estimate,
)
from stanflow.fitting.modes import balance, modes_of
from stanflow.fitting.stages import Stages
from stanflow.fitting.trace import trace_of
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import Flow, Modes, build_flow
from stanflow.flow.wiring import Wiring
from stanflow.refine.config import RefineConfig
from stanflow.refine.outward import go_outward
from stanflow.refine.refine import refine
from stanflow.refine.refined import Refined, RefineStep
from stanflow.stan.density import CountingTarget
from stanflow.stan.model import StanModel
from stanflow.statistics.importance_weights import normalized
from stanflow.training.checkpoint import Checkpoint, Keep
from stanflow.training.config import TrainConfig
from stanflow.training.limits import Limits
from stanflow.training.sharpening import sharpen
from stanflow.training.start import Start, begin, begin_apart
from stanflow.training.train_step import TrainStep
from stanflow.training.trainer import TrainResult, seconds_spent, train
from stanflow.training.wiring import wire_by_curvature

SHARE_BEFORE_REFINING = 0.5  # of the time
_SHARE_OF_REFINING = 0.9  # of the time then left
_MOST_TIMES_FOR_MODES = 2
_MOST_DIMENSIONS_TO_SHARPEN = 500
_TIMES_OUTWARD = 9  # gradients, of those of refining


@dataclass(frozen=True)
class Fitting:
    """What the stages of a fit have in common, and the stages.

    Attributes
    ----------
    model, target
        The posterior, and the same with its evaluations counted.
    stages : Stages
        What each stage cost.
    flow_config, train_config, refining, plan
        Settings, resolved.
    wiring : Wiring or None
        The couplings', where it was given.
    grows : bool
        Whether training begins with few layers.
    flow_seed, train_seed, refine_seed : int
    a_gradient : float
        Seconds that one takes.
    checkpoint : Checkpoint or None
        Where the states of training and moving are kept.
    ends : float
        When all must be done, by `time.perf_counter`.
    shown : bool
        Whether progress is shown; otherwise the callbacks are called.
    on_step, on_round : callable
    passes : iterator of int
        Numbers the times that draws are moved, each of which is kept by itself.
    """

    model: StanModel
    target: CountingTarget
    stages: Stages
    flow_config: FlowConfig
    train_config: TrainConfig
    refining: RefineConfig
    plan: DrawPlan
    wiring: Wiring | None
    grows: bool
    flow_seed: int
    train_seed: int
    refine_seed: int
    a_gradient: float
    checkpoint: Checkpoint | None
    ends: float
    shown: bool
    on_step: Callable[[TrainStep], None]
    on_round: Callable[[RefineStep], None]
    passes: Iterator[int] = field(default_factory=itertools.count)

    @contextlib.contextmanager
    def _told(self) -> Iterator[Callable[[TrainStep], None]]:
        """Return what is to be told of each step."""
        if not self.shown:
            yield self.on_step
            return
        from stanflow.fitting.progress import TrainProgress

        most = self.train_config.most_steps(self.model.dim)
        a_batch = self.train_config.draws_a_step(self.model.dim) * self.a_gradient
        constant = self.model.normalizing_constant.value
        with TrainProgress(most, constant, seconds_of_gradients=a_batch) as shown:
            yield shown

    def train(self) -> TrainResult:
        """Find where training begins, wire and build the flow, and train it."""
        keep, most = self._keep("training"), self.train_config.max_seconds
        with self._told() as on_step, Limits(most, seconds_spent(keep)) as limits:
            with self.stages.measured("start"):
                start = begin(self.target, self.train_config, self.train_seed, limits.end_the_start)
            return self._trained(start, limits, on_step, keep=keep)

    def _trained(
        self,
        start: Start,
        limits: Limits,
        on_step: Callable[[TrainStep], None],
        *,
        modes: Modes | None = None,
        keep: Keep | None = None,
    ) -> TrainResult:
        """Wire and build a flow, and train it from a start on."""
        wiring = self._wired(start)
        flow = build_flow(self.flow_config, self.model.dim, self.flow_seed, wiring, modes)
        with self.stages.measured("training"):
            return train(
                flow,
                self.target,
                start,
                self.train_config,
                self.train_seed,
                limits=limits,
                on_step=on_step,
                keep=keep,
                grows=self.grows,
            )

    def _keep(self, stage: str) -> Keep | None:
        return None if self.checkpoint is None else self.checkpoint.keep(stage)

    def _keep_next_pass(self) -> Keep | None:
        return self._keep(f"refine {next(self.passes)}")

    def _wired(self, start: Start) -> Wiring | None:
        """Wire the couplings as the configuration says; None where that needs no curvature."""
        config = self.flow_config
        coupled = config.family == "realnvp" and self.model.dim > 1
        by_curvature = config.wiring == "curvature" or config.partners > 0
        with self.stages.measured("wiring"):
            if self.wiring is not None or not coupled or not by_curvature:
                return self.wiring
            in_units = start.in_units(self.target)
            rng = np.random.default_rng(self.flow_seed)
            return wire_by_curvature(config, in_units, in_units.in_units(start.points), rng)

    def assess(self, result: TrainResult) -> tuple[TrainResult, Assessment]:
        """Estimate, move draws to the posterior where that is wanted, and judge.

        The flow that was judged is returned, too: it may have learnt from the draws.
        """
        trace, plan = trace_of(result.trace), self.plan
        with self.stages.measured("assessment"):
            estimates = estimate(result.flow, self.model, plan, self.target)
        refined = None
        when = self.refining.when
        wanted = when == "always" or (when == "auto" and not estimates.suffice(trace["elbo"]))
        if wanted and result.stopped != "interrupted":
            result, estimates, refined = self._refine(result, estimates)
        with self.stages.measured("assessment"):
            if refined is not None:
                return result, assess_refined(
                    result.flow,
                    self.model,
                    estimates,
                    refined,
                    plan,
                    target=self.target,
                    trace=trace,
                )
            return result, assess(
                result.flow,
                self.model,
                estimates,
                plan,
                target=self.target,
                trace=trace,
                breakdown=result.breakdown,
            )

    def _refine(
        self, result: TrainResult, estimates: FlowEstimates
    ) -> tuple[TrainResult, FlowEstimates, Refined | None]:
        """Move draws to the posterior, and once more from a flow that has learnt from them."""
        with contextlib.ExitStack() as stack:
            on_round = self.on_round
            if self.shown:
                from stanflow.fitting.progress import RefineProgress

                on_round = stack.enter_context(RefineProgress(estimates.constant.value))
            limits = stack.enter_context(Limits(_SHARE_OF_REFINING * self._seconds_left()))
            tell = _Rounds(on_round)
            moved = partial(
                refine,
                target=self.target,
                draws=self.plan.draws,
                seed=self.refine_seed,
                should_stop=partial(_must_end, limits),
                on_round=tell,
            )
            before = self.target.gradients
            with self.stages.measured("refine"):
                refined = moved(
                    result.flow,
                    of_flow=estimates.densities,
                    config=self.refining,
                    drawn=estimates.drawn,
                    may_end_far=self._may_sharpen,
                    keep=self._keep_next_pass(),
                )
            if refined is not None and refined.stopped == "far":
                left = self.refining.evaluations_for(self.model.dim)
                left -= self.target.gradients - before
                sharper, anew = self._sharpened(
                    result.flow, estimates, refined, moved.keywords["should_stop"]
                )
                tell.begin_anew()
                with self.stages.measured("refine"):
                    again = moved(
                        sharper,
                        of_flow=anew.densities,
                        config=replace(self.refining, most_evaluations=max(1, left)),
                        keep=self._keep_next_pass(),
                    )
                if again is not None:
                    result, estimates, refined = replace(result, flow=sharper), anew, again
            if refined is not None and refined.stopped != "far":
                refined = self._outward(result.flow, refined, limits, tell)
            return result, estimates, refined

    def _outward(self, flow: Flow, refined: Refined, limits: Limits, tell: _Rounds) -> Refined:
        """Follow the posterior to where weights say that there is more of it."""
        with self.stages.measured("outward"):
            return go_outward(
                flow,
                self.target,
                refined,
                most_evaluations=_TIMES_OUTWARD * self.refining.evaluations_for(self.model.dim),
                seed=self.refine_seed,
                should_stop=partial(_must_end, limits),
                on_value=tell.outward,
            )

    def _sharpened(
        self,
        flow: Flow,
        estimates: FlowEstimates,
        refined: Refined,
        should_stop: Callable[[], bool],
    ) -> tuple[Flow, FlowEstimates]:
        """Return a flow that has learnt from moved draws, if it is nearer to the posterior then."""
        with self.stages.measured("sharpening"):
            sharper = sharpen(
                flow,
                self.target,
                refined.z,
                self.train_config,
                seed=self.train_seed,
                should_stop=should_stop,
            )
            try:
                plan = replace(self.plan, most_evidence_draws=self.plan.evidence_draws)
                anew = estimate(sharper, self.model, plan, self.target)
            except NumericsError:
                return flow, estimates
            if _divergence(sharper, anew, refined) < _divergence(flow, estimates, refined):
                return sharper, anew
            return flow, estimates

    @property
    def _may_sharpen(self) -> bool:
        return self._learns_anywhere and self.model.dim <= _MOST_DIMENSIONS_TO_SHARPEN

    @property
    def _learns_anywhere(self) -> bool:
        """Whether the flow can be the posterior, and path terms at any point lead it there."""
        return self.flow_config.family == "realnvp" and self.train_config.gradient == "path"

    def _seconds_left(self) -> float:
        return max(0.0, self.ends - time.perf_counter())

    def _may_learn_modes(self, result: TrainResult) -> bool:
        """Return whether modes that the flow lacks can be learnt, and there is time to."""
        can = self._learns_anywhere and self.model.dim <= IMPORTANCE_UP_TO
        wanted = self.refining.when != "never" and result.stopped != "interrupted"
        return can and wanted and self._seconds_left() > 0

    def learn_modes(
        self, result: TrainResult, assessment: Assessment
    ) -> tuple[TrainResult, Assessment]:
        """Train anew with a copy of the base for each mode that chains from elsewhere have found.

        And once more where chains find further ones. What was best is returned.
        """
        best = result, assessment
        modes: tuple[Mode, ...] = ()
        steps = len(result.trace)
        for _ in range(_MOST_TIMES_FOR_MODES):
            if assessment.missed is None or not self._may_learn_modes(result):
                break
            with self.stages.measured("modes"):
                modes = modes_of(self.target, assessment.missed, modes, self.flow_seed)
            if not modes:
                break
            result, assessment = self.assess(self._train_on(modes, after=steps))
            steps += len(result.trace)
            if _is_better(assessment, best[1]):
                best = result, assessment
        return best

    def _train_on(self, modes: Sequence[Mode], *, after: int) -> TrainResult:
        """Train on modes, with steps told as if they came after those before."""
        start, centres = begin_apart([mode.points for mode in modes])
        log_weights = normalized(np.array([mode.log_mass for mode in modes]))
        seconds = SHARE_BEFORE_REFINING * self._seconds_left()
        with self._told() as on_step, Limits(seconds) as limits:
            result = self._trained(
                start,
                limits,
                lambda step: on_step(replace(step, step=after + step.step)),
                modes=Modes(centres, log_weights),
            )
            with self.stages.measured("training"):
                balance(result.flow, self.target, self.train_seed)
        return result


def _must_end(limits: Limits) -> bool:
    return limits.terminated or limits.reason_to_stop() is not None


class _Rounds:
    """Tells rounds of refining, and those of another one after it as if they were of the same."""

    def __init__(self, on_round: Callable[[RefineStep], None]) -> None:
        self._on_round = on_round
        self._told_at = math.nan
        self._rounds, self._share, self._seconds = 0, 0.0, 0.0
        self._last: RefineStep | None = None

    def __call__(self, step: RefineStep) -> None:
        """Tell a round."""
        self._last = replace(
            step,
            round=self._rounds + step.round,
            share=self._share + (1 - self._share) * step.share,
            seconds=self._seconds + step.seconds,
        )
        self._told_at = time.perf_counter()
        self._on_round(self._last)

    def outward(self, share: float) -> None:
        """Tell how far it is outward, as another round."""
        assert self._last is not None
        now = time.perf_counter()
        self._last = replace(
            self._last,
            round=self._last.round + 1,
            share=share,
            seconds=self._last.seconds + now - self._told_at,
            outward=True,
        )
        self._told_at = now
        self._on_round(self._last)

    def begin_anew(self) -> None:
        """Count on from the last round."""
        if self._last is not None:
            last = self._last
            self._rounds, self._share, self._seconds = last.round, last.share, last.seconds


@torch.no_grad()
def _divergence(flow: Flow, estimates: FlowEstimates, refined: Refined) -> float:
    """Return KL(q | p) + KL(p | q): the EUBO over moved draws above the flow's ELBO."""
    log_q = flow.log_prob(torch.from_numpy(refined.z)).numpy()
    eubo = float((refined.log_p - log_q).mean()) + estimates.constant.value
    return eubo - estimates.elbo.value


def _is_better(assessed: Assessment, before: Assessment) -> bool:
    """Return whether a verdict is better, or the same with a higher evidence."""
    keys = [
        (VERDICTS.index(a.report["verdict"]), -a.report["log_evidence"]) for a in (assessed, before)
    ]
    return keys[0] < keys[1]
