"""fit: from a StanModel to a Fit."""

from __future__ import annotations

import contextlib
import hashlib
import math
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

import stanflow
from stanflow.errors import NumericsError, UsageError
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
from stanflow.fitting.budget import share_time
from stanflow.fitting.fit_report import FitReport
from stanflow.fitting.modes import balance, modes_of, shares_of_modes
from stanflow.fitting.presets import Preset
from stanflow.fitting.presets import preset as named_settings
from stanflow.fitting.result import Fit
from stanflow.fitting.stages import Stages
from stanflow.fitting.trace import trace_of
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import Flow, Modes, build_flow
from stanflow.flow.wiring import Wiring
from stanflow.refine.config import RefineConfig
from stanflow.refine.refine import Refined, RefineStep, refine
from stanflow.sampling.standardize import StandardizedTarget
from stanflow.stan.density import CountingTarget
from stanflow.stan.model import StanModel
from stanflow.statistics.importance_weights import normalized
from stanflow.training.checkpoint import Checkpoint, State
from stanflow.training.config import TrainConfig
from stanflow.training.limits import Limits
from stanflow.training.sharpening import sharpen
from stanflow.training.start import Start, begin, begin_apart
from stanflow.training.train_step import TrainStep
from stanflow.training.trainer import TrainResult, seconds_spent, train
from stanflow.training.wiring import wire_by_curvature

_FEWEST_EVIDENCE_DRAWS, _MOST_EVIDENCE_DRAWS = 4000, 20_000
_SHARE_BEFORE_REFINING = 0.5  # of the time
_SHARE_OF_REFINING = 0.9  # of the time then left
_MOST_TIMES_FOR_MODES = 2
_MOST_DIMENSIONS_TO_SHARPEN = 500
_VERSIONED = ("stanli", "bridgestan", "torch", "numpy", "arviz")


def fit(
    model: StanModel,
    *,
    seed: int = 1,
    draws: int = 4000,
    evidence_draws: int | None = None,
    preset: Preset = "auto",
    flow: FlowConfig | None = None,
    training: TrainConfig | None = None,
    refining: RefineConfig | None = None,
    wiring: Wiring | None = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: float = 30.0,
    progress: bool = True,
    on_step: Callable[[TrainStep], None] | None = None,
    on_round: Callable[[RefineStep], None] | None = None,
) -> Fit:
    """Fit a flow to the posterior of a Stan model.

    Parameters
    ----------
    model : StanModel
        The program and its data.
    seed : int
        From which every random choice comes: the same seed on the same machine gives the same
        result.
    draws : int
        Draws to keep: the trained flow's or, where they were moved to it, the posterior's.
    evidence_draws : int, optional
        Draws behind ELBO, evidence and k-hat, of which those beyond `draws` are not kept. By
        default as many as settle these, between 4000 and 20,000, and at least `draws`.
    preset : {"auto", "paper"}
        Settings to take where `flow` or `training` is not given; see
        `stanflow.fitting.presets.preset`.
    flow : FlowConfig, optional
        The family and its size.
    training : TrainConfig, optional
        How it is trained.
    refining : RefineConfig, optional
        Whether and how draws are moved from the flow to the posterior; the preset ``paper`` leaves
        them the flow's.
    wiring : Wiring, optional
        Which coordinates each coupling layer moves, and which each of them looks at.
    checkpoint : path, optional
        A file to keep the state of training in. Where it holds the state of the same run already,
        training goes on from there, to the same numbers; it is removed by nobody but you.
    checkpoint_every : float
        Seconds between writes of that file.
    progress : bool
        Show progress on standard error.
    on_step : callable, optional
        Called after every training step, in place of that.
    on_round : callable, optional
        Called after every round of refining's moves, in place of that, too. Its log evidence is,
        like a step's ELBO, without Stan's dropped constants.

    Returns
    -------
    Fit

    Raises
    ------
    InitializationError
        The log density is not finite at any starting point.
    NumericsError
        Hardly any draw has a finite log density.
    UsageError
        An option is out of range, or the checkpoint is damaged, of another run, or cannot be
        written.

    Examples
    --------
    >>> import stanflow
    >>> model = stanflow.StanModel(
    ...     stan_code="parameters { real x; } model { x ~ normal(3, 2); }", engine="embedded"
    ... )
    >>> fit = stanflow.fit(
    ...     model, seed=1, training=stanflow.TrainConfig(max_steps=20), progress=False
    ... )
    >>> fit.stan_variable("x").shape
    (4000,)
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed must be between 0 and {2**32 - 1}, not {seed}")
    began = time.perf_counter()
    grows = (flow or named_settings(preset)[0]).layers is None
    unless_given = RefineConfig(when="never" if preset == "paper" else "auto")
    refining = (refining or unless_given).resolved(model.dim)
    flow_config, train_config = _resolved(model, preset, flow, training, refining)
    flow_seed, train_seed, *seeds, refine_seed = (
        int(s) for s in np.random.SeedSequence(seed).generate_state(9)
    )
    plan = _draw_plan(draws, evidence_draws, seeds)
    run: dict[str, Any] = {
        "program_sha256": model.program.hash,
        "data_sha256": model.data.hash,
        "engine_version": model.engine_version,
        "seed": seed,
        "model_seed": model.seed,
        "flow_config": asdict(flow_config),
        "train_config": asdict(train_config),
        "refine_config": asdict(refining),
        "versions": _versions(),
    }
    timed_config = train_config
    if train_config.max_seconds is not None:
        left = train_config.max_seconds - (time.perf_counter() - began)
        if refining.when != "never":
            left *= _SHARE_BEFORE_REFINING
        seconds, most = share_time(model, left, draws, plan.most_evidence_draws)
        timed_config = replace(train_config, max_seconds=seconds)
        fewest = min(plan.evidence_draws, most)
        plan = replace(plan, evidence_draws=fewest, most_evidence_draws=most)
    kept = state = None
    if checkpoint is not None:
        kept = Checkpoint(Path(checkpoint), _identity(run, wiring), checkpoint_every)
        state = kept.read()
    target = CountingTarget(model)
    fitting = _Fitting(
        model=model,
        target=target,
        stages=Stages(target),
        flow_config=flow_config,
        train_config=timed_config,
        refining=refining,
        plan=plan,
        wiring=wiring,
        grows=grows,
        flow_seed=flow_seed,
        train_seed=train_seed,
        refine_seed=refine_seed,
        ends=began + (train_config.max_seconds or math.inf),
        shown=progress and on_step is None and on_round is None,
        on_step=on_step or (lambda step: None),
        on_round=on_round or (lambda step: None),
    )
    result = fitting.train(kept, state)
    result, assessment = fitting.learn_modes(*fitting.assess(result))
    network = result.flow
    if grows and network.couplings > 0:
        run["flow_config"]["layers"] = network.couplings
    seconds = time.perf_counter() - began
    report = _report(model, run, result, assessment, stages=fitting.stages, seconds=seconds)
    return Fit(
        report=report,
        columns=assessment.constrained.columns,
        flow=network,
        steps=trace_of(result.trace),
        program=model.program.expanded,
        data=model.data.json,
        **assessment.arrays(),
    )


@dataclass(frozen=True)
class _Fitting:
    """What the stages of a fit have in common."""

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
    ends: float
    shown: bool
    on_step: Callable[[TrainStep], None]
    on_round: Callable[[RefineStep], None]

    @contextlib.contextmanager
    def _told(self) -> Iterator[Callable[[TrainStep], None]]:
        """Return what is to be told of each step."""
        if not self.shown:
            yield self.on_step
            return
        from stanflow.fitting.progress import TrainProgress

        most = self.train_config.most_steps(self.model.dim)
        with TrainProgress(most, self.model.normalizing_constant.value) as shown:
            yield shown

    def train(self, checkpoint: Checkpoint | None, state: State | None) -> TrainResult:
        """Find where training begins, wire and build the flow, and train it."""
        spent = None if state is None else seconds_spent(state)
        with self._told() as on_step, Limits(self.train_config.max_seconds, spent) as limits:
            with self.stages.measured("start"):
                start = begin(self.target, self.train_config, self.train_seed, limits.end_the_start)
            wiring = self._wired(start)
            flow = build_flow(self.flow_config, self.model.dim, self.flow_seed, wiring)
            with self.stages.measured("training"):
                return train(
                    flow,
                    self.target,
                    start,
                    self.train_config,
                    self.train_seed,
                    limits=limits,
                    on_step=on_step,
                    checkpoint=checkpoint,
                    state=state,
                    grows=self.grows,
                )

    def _wired(self, start: Start) -> Wiring | None:
        """Wire the couplings as the configuration says; None where that needs no curvature."""
        config = self.flow_config
        coupled = config.family == "realnvp" and self.model.dim > 1
        by_curvature = config.wiring == "curvature" or config.partners > 0
        with self.stages.measured("wiring"):
            if self.wiring is not None or not coupled or not by_curvature:
                return self.wiring
            in_units = StandardizedTarget(
                self.target, start.location, start.log_scale, start.factor
            )
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
                should_stop=lambda: limits.terminated or limits.reason_to_stop() is not None,
                on_round=tell,
            )
            before = self.target.evaluations
            with self.stages.measured("refine"):
                refined = moved(
                    result.flow,
                    of_flow=estimates.densities,
                    config=self.refining,
                    may_end_far=self._may_sharpen,
                )
            if refined is None or refined.stopped != "far":
                return result, estimates, refined
            left = self.refining.evaluations_for(self.model.dim)
            left -= self.target.evaluations - before
            sharper, anew = self._sharpened(
                result.flow, estimates, refined, moved.keywords["should_stop"]
            )
            tell.begin_anew()
            with self.stages.measured("refine"):
                again = moved(
                    sharper,
                    of_flow=anew.densities,
                    config=replace(self.refining, most_evaluations=max(1, left)),
                )
            if again is None:
                return result, estimates, refined
            return replace(result, flow=sharper), anew, again

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
        return (
            self.flow_config.family == "realnvp"
            and self.train_config.gradient == "path"
            and self.model.dim <= _MOST_DIMENSIONS_TO_SHARPEN
        )

    def _seconds_left(self) -> float:
        return max(0.0, self.ends - time.perf_counter())

    def may_learn_modes(self, result: TrainResult) -> bool:
        """Return whether modes that the flow lacks can be learnt, and there is time to."""
        couples = self.flow_config.family == "realnvp" and self.model.dim <= IMPORTANCE_UP_TO
        wanted = couples and self.train_config.gradient == "path" and self.refining.when != "never"
        return wanted and result.stopped != "interrupted" and self._seconds_left() > 0

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
            if assessment.missed is None or not self.may_learn_modes(result):
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
        seconds = _SHARE_BEFORE_REFINING * self._seconds_left()
        with self._told() as on_step, Limits(seconds) as limits:
            start, flow = self._apart(modes)
            with self.stages.measured("training"):
                result = train(
                    flow,
                    self.target,
                    start,
                    self.train_config,
                    self.train_seed,
                    limits=limits,
                    on_step=lambda step: on_step(replace(step, step=after + step.step)),
                    grows=self.grows,
                )
                balance(result.flow, self.target, self.train_seed)
        return result

    def _apart(self, modes: Sequence[Mode]) -> tuple[Start, Flow]:
        """Return where training on modes begins, and a flow with a copy of the base for each."""
        start, centres = begin_apart([mode.points for mode in modes])
        log_weights = normalized(np.array([mode.log_mass for mode in modes]))
        flow = build_flow(
            self.flow_config,
            self.model.dim,
            self.flow_seed,
            self._wired(start),
            Modes(centres, log_weights),
        )
        return start, flow


class _Rounds:
    """Tells rounds of refining, and those of another one after it as if they were of the same."""

    def __init__(self, on_round: Callable[[RefineStep], None]) -> None:
        self._on_round = on_round
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


def _draw_plan(draws: int, evidence_draws: int | None, seeds: list[int]) -> DrawPlan:
    if evidence_draws is not None:
        return DrawPlan(draws, evidence_draws, evidence_draws, *seeds)
    fewest, most = (max(draws, n) for n in (_FEWEST_EVIDENCE_DRAWS, _MOST_EVIDENCE_DRAWS))
    return DrawPlan(draws, fewest, most, *seeds)


def _resolved(
    model: StanModel,
    preset: Preset,
    flow: FlowConfig | None,
    training: TrainConfig | None,
    refining: RefineConfig,
) -> tuple[FlowConfig, TrainConfig]:
    """Return the settings as they are for this model."""
    of_preset, training_of_preset = named_settings(preset)
    flow, training = flow or of_preset, training or training_of_preset
    if training.max_steps is None:
        otherwise = training.most_steps(model.dim)
        steps = refining.steps_before(model.dim, otherwise=otherwise)
        training = replace(training, max_steps=steps)
    flow_config, train_config = flow.resolved(model.dim), training.resolved(model.dim)
    train_config.check_device()
    if flow_config.family != "realnvp":
        # Where the family cannot be the target, only the flow's own draws lead to the best ELBO,
        # and a flow in correlated units would be of another family.
        train_config = replace(train_config, tail_share=0.0, whiten=False)
    return flow_config, train_config


def _report(
    model: StanModel,
    run: dict[str, Any],
    result: TrainResult,
    assessment: Assessment,
    *,
    stages: Stages,
    seconds: float,
) -> FitReport:
    return {
        "model": model.name,
        "engine": model.engine,
        "dim": model.dim,
        "family": run["flow_config"]["family"],
        **assessment.report,
        "modes": shares_of_modes(result.flow),
        "steps": len(result.trace),
        "gradient_evaluations": sum(
            stage["gradient_evaluations"] for stage in stages.report.values()
        ),
        "seconds": seconds,
        "peak_memory_mb": _peak_memory_mb(),
        "out": None,
        "rejected_in_training": sum(step.rejected for step in result.trace),
        "stopped": result.stopped,
        "returns": result.returns,
        "breakdown": result.breakdown,
        "resampled": False,
        "stages": stages.report,
        "engine_reason": model.engine_reason,
        "stan_version": model.stan_version,
        "engine_agreement": model.engine_agreement,
        "engine_version": run["engine_version"],
        "program_sha256": run["program_sha256"],
        "data_sha256": run["data_sha256"],
        "seed": run["seed"],
        "model_seed": run["model_seed"],
        "flow_config": run["flow_config"],
        "train_config": run["train_config"],
        "refine_config": run["refine_config"],
        "versions": run["versions"],
        "columns": list(assessment.constrained.columns),
    }


def _identity(run: dict[str, Any], wiring: Wiring | None) -> dict[str, Any]:
    """Return what makes two runs the same; how long one may take does not."""
    training = {k: v for k, v in run["train_config"].items() if k != "max_seconds"}
    arrays = {} if wiring is None else wiring.to_arrays()
    hashed = hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()
    return {**run, "train_config": training, "wiring_sha256": hashed}


def _versions() -> dict[str, str]:
    installed = {name: version(name) for name in _VERSIONED}
    return {"stanflow": stanflow.__version__, "python": platform.python_version(), **installed}


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
