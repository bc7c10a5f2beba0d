"""fit: from a StanModel to a Fit."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import stanflow
from stanflow.assessment import DrawPlan, assess
from stanflow.budget import share_time
from stanflow.errors import UsageError
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import Flow, build_flow
from stanflow.flow.wiring import Wiring
from stanflow.presets import Preset
from stanflow.presets import preset as named_settings
from stanflow.result import Fit
from stanflow.target.model import StanModel
from stanflow.training.checkpoint import Checkpoint
from stanflow.training.config import TrainConfig
from stanflow.training.standardize import StandardizedTarget
from stanflow.training.start import Start
from stanflow.training.trainer import TrainResult, TrainStep, train
from stanflow.training.wiring import points_looked_at, wire_by_curvature

_EVIDENCE_DRAWS = 20_000
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
    wiring: Wiring | None = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: float = 30.0,
    progress: bool = True,
    on_step: Callable[[TrainStep], None] | None = None,
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
        Draws to take from the trained flow.
    evidence_draws : int, optional
        Draws behind ELBO, evidence and k-hat, of which those beyond `draws` are not kept; by
        default `draws`, or 20,000 where that is more.
    preset : {"auto", "paper"}
        Settings to take where `flow` or `training` is not given; see `stanflow.presets.preset`.
    flow : FlowConfig, optional
        The family and its size.
    training : TrainConfig, optional
        How it is trained.
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
    flow_config, train_config = named_settings(preset)
    flow_config, train_config = flow or flow_config, training or train_config
    flow_seed, train_seed, *seeds = (int(s) for s in np.random.SeedSequence(seed).generate_state(7))
    if evidence_draws is None:
        evidence_draws = max(draws, _EVIDENCE_DRAWS)
    plan = DrawPlan(draws, evidence_draws, *seeds)
    expected_constant = model.normalizing_constant
    flow_config = flow_config.resolved(model.dim)
    train_config = train_config.resolved(model.dim)
    if flow_config.family != "realnvp":
        # Where the family cannot be the target, only the flow's own draws lead to the best ELBO,
        # and a flow in correlated units would be of another family.
        train_config = replace(train_config, tail_share=0.0, whiten=False)
    what = {
        "program_sha256": model.program.hash,
        "data_sha256": model.data.hash,
        "engine_version": model.engine_version,
        "seed": seed,
        "model_seed": model.seed,
        "flow_config": asdict(flow_config),
        "train_config": asdict(train_config),
        "versions": _versions(),
    }
    timed_config = train_config
    if train_config.max_seconds is not None:
        left = train_config.max_seconds - (time.perf_counter() - began)
        seconds, evidence_draws = share_time(model, left, draws, evidence_draws)
        timed_config = replace(train_config, max_seconds=seconds)
        plan = replace(plan, evidence_draws=evidence_draws)
    kept = None
    if checkpoint is not None:
        kept = Checkpoint(Path(checkpoint), _identity(what, wiring), checkpoint_every)
    with contextlib.ExitStack() as stack:
        if on_step is None and progress:
            from stanflow.progress import TrainProgress

            on_step = stack.enter_context(
                TrainProgress(train_config.most_steps(model.dim), expected_constant.value)
            )
        build = partial(_build, flow_config, model, flow_seed, wiring)
        report_step = on_step or (lambda step: None)
        result = train(build, model, timed_config, train_seed, report_step, checkpoint=kept)
    network, trace = result.flow, _trace(result)
    if wiring is None and network.wiring is not None:
        result.gradient_evaluations += 2 * model.dim * points_looked_at(model.dim)
    assessment = assess(
        network,
        model,
        plan,
        trace=trace,
        trained_by=result.gradient_evaluations,
        breakdown=result.breakdown,
    )
    report = {
        "model": model.name,
        "engine": model.engine,
        "dim": model.dim,
        "family": flow_config.family,
        **assessment.report,
        "steps": len(result.trace),
        "gradient_evaluations": result.gradient_evaluations + assessment.gradient_evaluations,
        "seconds": time.perf_counter() - began,
        "peak_memory_mb": _peak_memory_mb(),
        "out": None,
        "rejected_in_training": sum(step.rejected for step in result.trace),
        "stopped": result.stopped,
        "returns": result.returns,
        "breakdown": result.breakdown,
        **model.engine_report,
        **what,
        "columns": list(assessment.constrained.columns),
    }
    drawn = assessment.drawn
    return Fit(
        report=report,
        columns=assessment.constrained.columns,
        values=assessment.constrained.values,
        z=drawn.z,
        log_p=drawn.densities.log_p,
        log_q=drawn.densities.log_q,
        log_weights=assessment.log_weights,
        flow=network,
        trace=trace,
        program=model.program.expanded,
        data=model.data.json,
    )


def _build(
    config: FlowConfig, model: StanModel, seed: int, wiring: Wiring | None, start: Start
) -> Flow:
    """Build the untrained flow, wired as given or as the configuration says."""
    coupled = config.family == "realnvp" and model.dim > 1
    if wiring is None and coupled and (config.wiring == "curvature" or config.partners > 0):
        in_units = StandardizedTarget(model, start.location, start.log_scale, start.factor)
        rng = np.random.default_rng(seed)
        wiring = wire_by_curvature(config, in_units, in_units.in_units(start.points), rng)
    return build_flow(config, model.dim, seed, wiring)


def redraw(fit: Fit, n: int, seed: int, model: StanModel | None) -> Fit:
    """Take n new draws of a fit's flow; see `Fit.sample`."""
    report = fit.report
    if model is None:
        model = StanModel(
            stan_code=fit.program, data=fit.data, engine=report["engine"], seed=report["model_seed"]
        )
    elif (model.program.hash, model.data.hash) != (report["program_sha256"], report["data_sha256"]):
        raise UsageError(f"the fit is of {report['model']} with other data or another program")
    plan = DrawPlan(n, n, *(int(s) for s in np.random.SeedSequence([seed, n]).generate_state(5)))
    assessment = assess(
        fit.flow,
        model,
        plan,
        trace=fit.trace,
        trained_by=report["gradient_evaluations"],
        breakdown=report.get("breakdown", ""),
    )
    evaluations = report["gradient_evaluations"] + assessment.gradient_evaluations
    kept = {key: value for key, value in report.items() if key != "resampled"}
    return replace(
        fit,
        report={**kept, **assessment.report, "gradient_evaluations": evaluations, "out": None},
        values=assessment.constrained.values,
        z=assessment.drawn.z,
        log_p=assessment.drawn.densities.log_p,
        log_q=assessment.drawn.densities.log_q,
        log_weights=assessment.log_weights,
    )


def _identity(what: dict[str, Any], wiring: Wiring | None) -> dict[str, Any]:
    """Return what makes two runs the same; how long one may take does not."""
    training = {k: v for k, v in what["train_config"].items() if k != "max_seconds"}
    arrays = {} if wiring is None else wiring.to_arrays()
    hashed = hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()
    return {**what, "train_config": training, "wiring_sha256": hashed}


def _trace(result: TrainResult) -> pd.DataFrame:
    columns = ["step", "seconds", "elbo", "log_weight_sd", "gradient_norm", "rejected"]
    trace = pd.DataFrame([[getattr(step, c) for c in columns] for step in result.trace])
    trace.columns = pd.Index(columns)
    return trace.assign(largest=[step.largest.max() for step in result.trace])


def _versions() -> dict[str, str]:
    installed = {name: version(name) for name in _VERSIONED}
    return {"stanflow": stanflow.__version__, "python": platform.python_version(), **installed}


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
