"""fit: from a StanModel to a Fit."""

from __future__ import annotations

import hashlib
import math
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

import stanflow
from stanflow.errors import UsageError
from stanflow.fitting.assessment import Assessment, DrawPlan
from stanflow.fitting.budget import share_time
from stanflow.fitting.cost import are_dear, seconds_a_gradient
from stanflow.fitting.fit_report import FitReport
from stanflow.fitting.fitting import SHARE_BEFORE_REFINING, Fitting
from stanflow.fitting.modes import shares_of_modes
from stanflow.fitting.presets import Preset
from stanflow.fitting.presets import preset as named_settings
from stanflow.fitting.result import Fit
from stanflow.fitting.stages import Stages
from stanflow.fitting.trace import trace_of
from stanflow.flow.config import FlowConfig
from stanflow.flow.wiring import Wiring
from stanflow.refine.config import RefineConfig
from stanflow.refine.refined import RefineStep
from stanflow.stan.density import CountingTarget
from stanflow.stan.model import StanModel
from stanflow.training.checkpoint import Checkpoint
from stanflow.training.config import TrainConfig
from stanflow.training.train_step import TrainStep
from stanflow.training.trainer import TrainResult

_FEWEST_EVIDENCE_DRAWS, _MOST_EVIDENCE_DRAWS = 4000, 20_000
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
        A file to keep the state of training, and of moving draws, in. Where it holds that of the
        same run already, the run goes on from there, to the same numbers; it is removed by nobody
        but you.
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
    refining = (refining or unless_given).resolved(model.dim, draws)
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
    kept = None
    if checkpoint is not None:
        kept = Checkpoint(Path(checkpoint), _identity(run, wiring), checkpoint_every)
        kept.read()
    target = CountingTarget(model)
    stages = Stages(target)
    with stages.measured("start"):
        a_gradient = seconds_a_gradient(target)
    if train_config.spare_gradients is None:
        dear = are_dear(a_gradient, None if kept is None else kept.keep("cost"))
        asked = (training or named_settings(preset)[1]).batch
        if dear:
            train_config = replace(train_config, spare_gradients=True, batch=asked).resolved(
                model.dim
            )
            run["train_config"] = asdict(train_config)
    timed_config = train_config
    if train_config.max_seconds is not None:
        left = train_config.max_seconds - (time.perf_counter() - began)
        if refining.when != "never":
            left *= SHARE_BEFORE_REFINING
        seconds, most = share_time(a_gradient, left, draws, plan.most_evidence_draws)
        timed_config = replace(train_config, max_seconds=seconds)
        fewest = min(plan.evidence_draws, most)
        plan = replace(plan, evidence_draws=fewest, most_evidence_draws=most)
    fitting = Fitting(
        model=model,
        target=target,
        stages=stages,
        flow_config=flow_config,
        train_config=timed_config,
        refining=refining,
        plan=plan,
        wiring=wiring,
        grows=grows,
        flow_seed=flow_seed,
        train_seed=train_seed,
        refine_seed=refine_seed,
        a_gradient=a_gradient,
        checkpoint=kept,
        ends=began + (train_config.max_seconds or math.inf),
        shown=progress and on_step is None and on_round is None,
        on_step=on_step or (lambda step: None),
        on_round=on_round or (lambda step: None),
    )
    result = fitting.train()
    result, assessment = fitting.learn_modes(*fitting.assess(result))
    network = result.flow
    if grows and network.couplings > 0:
        run["flow_config"]["layers"] = network.couplings
    seconds = time.perf_counter() - began
    report = _report(
        model,
        run,
        result,
        assessment,
        stages=fitting.stages,
        a_gradient=a_gradient,
        seconds=seconds,
    )
    return Fit(
        report=report,
        columns=assessment.constrained.columns,
        flow=network,
        steps=trace_of(result.trace),
        program=model.program.expanded,
        data=model.data.json,
        **assessment.arrays(),
    )


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
        train_config = replace(
            training, tail_share=0.0, whiten=False, noncenter=False, spare_gradients=False
        ).resolved(model.dim)
    return flow_config, train_config


def _report(
    model: StanModel,
    run: dict[str, Any],
    result: TrainResult,
    assessment: Assessment,
    *,
    stages: Stages,
    a_gradient: float,
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
        **stages.evaluations(),
        "cost": {
            "seconds_a_gradient": a_gradient,
            "seconds_a_flow_step": stages.seconds_beside_gradients(
                "training", a_gradient, len(result.trace)
            ),
        },
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
