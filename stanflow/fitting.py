"""fit: from a StanModel to a Fit."""

from __future__ import annotations

import contextlib
import platform
import resource
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

import stanflow
from stanflow.errors import UsageError
from stanflow.estimates.draws import draw
from stanflow.estimates.elbo import estimate_elbo
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.flow.wiring import Wiring
from stanflow.presets import Preset
from stanflow.presets import preset as named_settings
from stanflow.result import Fit
from stanflow.target.model import StanModel
from stanflow.training.config import TrainConfig
from stanflow.training.trainer import TrainResult, train

_POINTS_TO_VERIFY = 10
_VERSIONED = ("stanli", "bridgestan", "torch", "numpy", "arviz")


def fit(
    model: StanModel,
    *,
    seed: int = 1,
    draws: int = 4000,
    preset: Preset = "auto",
    flow: FlowConfig | None = None,
    training: TrainConfig | None = None,
    wiring: Wiring | None = None,
    progress: bool = True,
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
    preset : {"auto", "paper"}
        Settings to take where `flow` or `training` is not given; see `stanflow.presets.preset`.
    flow : FlowConfig, optional
        The family and its size.
    training : TrainConfig, optional
        How it is trained.
    wiring : Wiring, optional
        Which coordinates each coupling layer moves, and which each of them looks at.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    Fit

    Raises
    ------
    InitializationError
        The log density is not finite at any starting point.
    NumericsError
        Training broke down, or hardly any draw has a finite log density.
    UsageError
        An option is out of range.

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
    if draws < 2:
        raise UsageError(f"draws must be at least 2, not {draws}")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed must be between 0 and {2**32 - 1}, not {seed}")
    began = time.perf_counter()
    flow_config, train_config = named_settings(preset)
    flow_config, train_config = flow or flow_config, training or train_config
    flow_seed, train_seed, draw_seed, generated_seed = (
        int(s) for s in np.random.SeedSequence(seed).generate_state(4)
    )
    expected_constant = model.normalizing_constant
    network = build_flow(flow_config, model.dim, flow_seed, wiring)
    with contextlib.ExitStack() as stack:
        on_step: Any = lambda step: None  # noqa: E731
        if progress:
            from stanflow.progress import TrainProgress

            on_step = stack.enter_context(TrainProgress(train_config, expected_constant.value))
        result = train(network, model, train_config, train_seed, on_step)
    taken = draw(network, model, draws, draw_seed)
    # In the bulk of the posterior, where rounding is smallest.
    constant = model.normalizing_constant_at(taken.z[:_POINTS_TO_VERIFY])
    elbo = estimate_elbo(taken, constant)
    constrained = model.constrain(taken.z, seed=generated_seed)
    report = {
        "model": model.name,
        "engine": model.engine,
        "engine_version": model.engine_version,
        "dim": model.dim,
        "family": flow_config.family,
        "elbo": elbo.value,
        "elbo_se": elbo.se,
        # Estimates that this version does not make.
        "log_evidence": None,
        "log_evidence_se": None,
        "normalized": elbo.normalized,
        "pareto_k": None,
        "importance_ess": None,
        "verdict": None,
        "reasons": None,
        "steps": len(result.trace),
        "gradient_evaluations": result.gradient_evaluations + taken.evaluated,
        "seconds": time.perf_counter() - began,
        "peak_memory_mb": _peak_memory_mb(),
        "out": None,
        "seed": seed,
        "draws": draws,
        "rejected_draws": taken.rejected,
        "rejected_in_training": sum(step.rejected for step in result.trace),
        "skipped_steps": result.skipped_steps,
        "failed_generated_quantities": len(constrained.failed),
        "stopped": result.stopped,
        "engine_reason": model.engine_reason,
        "normalizing_constant": asdict(constant),
        "flow_config": asdict(flow_config),
        "train_config": asdict(train_config),
        "versions": _versions(),
        "program_sha256": model.program.hash,
        "data_sha256": model.data.hash,
        "columns": list(constrained.columns),
    }
    return Fit(
        report=report,
        columns=constrained.columns,
        values=constrained.values,
        log_p=taken.log_p,
        log_q=taken.log_q,
        flow=network,
        trace=_trace(result),
        program=model.program.expanded,
        data=model.data.json,
    )


def _trace(result: TrainResult) -> pd.DataFrame:
    columns = ["step", "seconds", "elbo", "gradient_norm", "rejected"]
    trace = pd.DataFrame([[getattr(step, c) for c in columns] for step in result.trace])
    trace.columns = pd.Index(columns)
    return trace.assign(largest=[step.largest.max() for step in result.trace])


def _versions() -> dict[str, str]:
    installed = {name: version(name) for name in _VERSIONED}
    return {"stanflow": stanflow.__version__, "python": platform.python_version(), **installed}


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
