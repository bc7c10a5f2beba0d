"""nuts: from a StanModel to reference draws."""

from __future__ import annotations

import contextlib
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

import stanflow
from stanflow.errors import EngineError, ProgramError, UsageError
from stanflow.reference import cmdstan, embedded, native
from stanflow.reference.cmdstan_program import (
    compile_program,
    find_installation,
    open_executable,
)
from stanflow.reference.diagnostics import Convergence, convergence, min_bfmi
from stanflow.reference.flow_starts import flow_starts
from stanflow.reference.progress import NutsProgress
from stanflow.reference.result import NutsFit
from stanflow.reference.run import (
    WARMUP_THAT_ADAPTS_THE_METRIC,
    ChainStarts,
    Metric,
    NutsRun,
    NutsSettings,
)
from stanflow.stan.model import StanModel
from stanflow.stan.native import load
from stanflow.stan.stan_headers import StanHeaders
from stanflow.stan.stan_wheel import find_headers
from stanflow.stan.variables import bracketed

if TYPE_CHECKING:
    from stanflow.fitting.result import Fit

NutsEngine = Literal["auto", "cmdstan", "native", "embedded"]

_Decision = tuple[Literal["cmdstan", "native", "embedded", "flow"], str, StanHeaders | None]
_THROUGH_A_FLOW: _Decision = "flow", "a fit to sample through was given", None

_LARGEST_RHAT = 1.01
_ENOUGH_ESS_PER_CHAIN = 100
_SMALLEST_BFMI = 0.3
_VERSIONED = ("cmdstanpy", "stanli", "arviz", "numpy")


def nuts(
    model: StanModel,
    *,
    seed: int = 1,
    chains: int = 4,
    warmup: int = 1000,
    draws: int = 1000,
    engine: NutsEngine = "auto",
    exe: str | PathLike[str] | None = None,
    init: Fit | None = None,
    through: Fit | None = None,
    adapt_delta: float | None = None,
    max_treedepth: int | None = None,
    metric: Metric = "diag_e",
    progress: bool = True,
) -> NutsFit:
    """Draw from the posterior of a Stan model by Stan's NUTS.

    Parameters
    ----------
    model : StanModel
        The program and its data.
    seed : int
        From which every random choice comes.
    chains : int
        Chains, run in parallel up to the number of cores.
    warmup, draws : int
        Iterations of each chain before and after adaptation ends.
    engine : {"auto", "cmdstan", "native", "embedded"}
        ``"auto"`` takes CmdStan where it is installed or `exe` is given, else Stan's own sampler in
        the native engine where Stan's C++ is installed by pip, else Stan's NUTS in the embedded
        engine. The report says which, and why.
    exe : path, optional
        The program as CmdStan has compiled it; then no CmdStan installation is needed.
    init : Fit, optional
        A fit of the same posterior. Each chain then starts at a draw of the flow, and with the
        flow's scales as its inverse metric (see `flow_starts`), so a shorter warmup will do. With
        `warmup` below 150 Stan keeps this metric and adapts only the step size; from 150 on it
        estimates the metric anew from the chain's own draws.
    through : Fit, optional
        A fit of the same posterior. NUTS, StanFlow's own, then runs in the base space of its flow
        (see `run_through`), where the posterior is nearly the flow's base, and chains start at
        draws of the flow. `engine`, `exe`, `init` and a dense metric do not go with it: the
        engine that has opened the model evaluates the density.
    adapt_delta : float, optional
        The acceptance rate that step size adaptation aims at; 0.8 by default.
    max_treedepth : int, optional
        Largest number of doublings of a trajectory; 10 by default.
    metric : {"diag_e", "dense_e"}
        Form of the inverse metric.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    NutsFit

    Raises
    ------
    EngineError
        The engine cannot be had or cannot run the program, or `exe` is of another program.
    NumericsError
        A chain failed; `detail` has the engine's own words.
    ProgramError
        The Stan compiler of CmdStan, or of the native engine, refused the program.
    UsageError
        An option is out of range, `init` or `through` is a fit of another posterior, or `through`
        is given beside what does not go with it.

    Examples
    --------
    >>> import stanflow
    >>> from stanflow.reference.sampling import nuts
    >>> model = stanflow.StanModel(
    ...     stan_code="parameters { real x; } model { x ~ normal(3, 2); }", engine="embedded"
    ... )
    >>> run = nuts(model, seed=1, draws=500, engine="embedded", progress=False)
    >>> run.stan_variable("x").shape
    (2000,)
    """
    defaults = NutsSettings()
    settings = NutsSettings(
        seed=seed,
        chains=chains,
        warmup=warmup,
        draws=draws,
        adapt_delta=defaults.adapt_delta if adapt_delta is None else adapt_delta,
        max_treedepth=defaults.max_treedepth if max_treedepth is None else max_treedepth,
        metric=metric,
    )
    _check_goes_with(through, engine, exe, init, metric)
    taken, engine_reason, headers = _decide(engine, exe) if through is None else _THROUGH_A_FLOW
    starts = None
    if init is not None:
        starts = flow_starts(init, model, chains=chains, seed=seed, metric=metric)
    executable, stan_model, compile_seconds = None, None, None
    began = time.perf_counter()
    if exe is not None:
        executable = open_executable(exe)
    elif taken == "cmdstan":
        executable = compile_program(model.program)
    elif headers is not None:
        try:
            stan_model = load(model.program, model.data, seed, headers).stan_model
        except ProgramError as error:  # of an older Stan than the embedded engine's
            if engine == "native":
                raise
            taken, engine_reason = "embedded", f"{engine_reason}; {headers.name}: {error}"
        else:
            _check_columns(stan_model.param_names(include_tp=True, include_gq=True), model)
    if exe is None and taken in ("cmdstan", "native"):
        compile_seconds = time.perf_counter() - began
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        shown = stack.enter_context(NutsProgress(settings)) if progress else None
        if executable is not None:
            run = cmdstan.run(model, settings, starts, executable, shown)
        elif stan_model is not None:
            run = native.run(stan_model, settings, starts, shown)
        elif through is not None:
            from stanflow.reference.through import run_through  # which loads torch

            run = run_through(model, settings, through, shown)
        else:
            run = embedded.run(model, settings, starts, shown)
    seconds = time.perf_counter() - began
    report = {
        "model": model.name,
        "engine": taken,
        "engine_version": run.engine_version,
        **_counts(settings, run),
        "seconds": seconds,
        "out": None,
        "engine_reason": engine_reason,
        "compile_seconds": compile_seconds,
        "exe": None if executable is None else str(executable.path),
        "dim": model.dim,
        "seed": seed,
        "adapt_delta": settings.adapt_delta,
        "max_treedepth": settings.max_treedepth,
        "metric": metric,
        "step_size": run.statistics["stepsize__"][:, -1].tolist(),
        **_started(starts, through),
        **_evaluated_by(model, through),
        "versions": _versions(),
        "program_sha256": model.program.hash,
        "data_sha256": model.data.hash,
        "columns": list(model.columns),
    }
    found = convergence(run.values)
    bfmi = min_bfmi(run.statistics["energy__"])
    report |= {
        "max_rhat": found.max_rhat,
        "min_ess_bulk": found.min_ess_bulk,
        "min_bfmi": bfmi,
        "constant_columns": found.constant,
        "not_finite_columns": found.not_finite,
        "not_finite_draws": int((~np.isfinite(run.values)).any(axis=-1).sum()),
    }
    report["warnings"] = _warnings(model, settings, report, found, bfmi)
    return NutsFit(
        report=report,
        columns=model.columns,
        values=run.values,
        statistics=run.statistics,
        program=model.program.expanded,
        data=model.data.json,
    )


def _decide(engine: NutsEngine, exe: str | PathLike[str] | None) -> _Decision:
    """Return the engine to take, the reason, and what the native one compiles with."""
    if engine not in get_args(NutsEngine):
        raise UsageError(
            f"there is no engine {engine!r}; choose one of auto, cmdstan, native, embedded"
        )
    if exe is not None:
        if engine in ("native", "embedded"):
            raise UsageError(
                f"an executable that CmdStan has compiled cannot be run by the {engine} engine; "
                "leave out one of the two"
            )
        return "cmdstan", "an executable that CmdStan has compiled was given", None
    if engine == "embedded":
        return "embedded", "the embedded engine was asked for", None
    if engine == "native":
        return "native", "the native engine was asked for", find_headers()
    try:
        folder = find_installation()
    except EngineError as error:
        if engine == "cmdstan":
            raise
        without_cmdstan = f"CmdStan cannot be run here: {error}"
    else:
        asked = "CmdStan was asked for" if engine == "cmdstan" else "CmdStan is installed"
        return "cmdstan", f"{asked}: {folder}", None
    try:
        headers = find_headers()
    except EngineError as error:
        return "embedded", f"{without_cmdstan}; {error}", None
    return "native", without_cmdstan, headers


def _check_goes_with(
    through: Fit | None,
    engine: NutsEngine,
    exe: str | PathLike[str] | None,
    init: Fit | None,
    metric: Metric,
) -> None:
    if through is None:
        return
    for option, is_given in {
        "init": init is not None,
        "exe": exe is not None,
        "engine": engine != "auto",
        "metric": metric != "diag_e",
    }.items():
        if is_given:
            raise UsageError(
                "NUTS through a flow is StanFlow's own, starts at draws of the flow and has a "
                f"diagonal metric; leave out {option} or through"
            )


def _check_columns(columns: list[str], model: StanModel) -> None:
    if tuple(columns) != model.columns:
        raise EngineError(
            f"the native engine names the quantities of {model.program.label} otherwise than the "
            f"{model.engine} one that has opened it; please report this"
        )


# ---- The report -------------------------------------------------------------------------------


def _counts(settings: NutsSettings, run: NutsRun) -> dict[str, Any]:
    treedepth = run.statistics["treedepth__"]
    sampling = int(run.statistics["n_leapfrog__"].sum())
    return {
        "chains": settings.chains,
        "warmup": settings.warmup,
        "draws": settings.draws,
        "divergences": int(run.statistics["divergent__"].sum()),
        "max_treedepth_hits": int((treedepth >= settings.max_treedepth).sum()),
        "gradient_evaluations": run.warmup_gradient_evaluations + sampling,
        "warmup_gradient_evaluations": run.warmup_gradient_evaluations,
        "sampling_gradient_evaluations": sampling,
    }


def _started(starts: ChainStarts | None, through: Fit | None) -> dict[str, Any]:
    if starts is None:
        start = "random" if through is None else "flow"
        return {"initialized_from": start, "initial_metric": None}
    return {
        "initialized_from": "flow",
        "initial_metric": {
            "draws": starts.averaged_draws,
            "effective_draws": starts.effective_draws,
        },
    }


def _evaluated_by(model: StanModel, through: Fit | None) -> dict[str, Any]:
    """Return what evaluated the density where that is not the engine that ran NUTS."""
    if through is None:
        return {}
    return {"model_engine": model.engine, "model_seed": model.seed}


def _versions() -> dict[str, str]:
    installed = {}
    for name in _VERSIONED:
        with contextlib.suppress(PackageNotFoundError):
            installed[name] = version(name)
    return {"stanflow": stanflow.__version__, "python": platform.python_version(), **installed}


def _warnings(
    model: StanModel,
    settings: NutsSettings,
    report: dict[str, Any],
    found: Convergence,
    bfmi: float | None,
) -> list[str]:
    """Say in plain words what speaks against trusting the draws."""
    total = settings.chains * settings.draws
    lines = []
    if report["divergences"]:
        lines.append(
            f"{report['divergences']} of {total} transitions diverged: parts of the posterior may "
            "be missing; a larger adapt_delta or another parameterisation may help"
        )
    if report["max_treedepth_hits"]:
        lines.append(
            f"{report['max_treedepth_hits']} of {total} transitions reached the largest treedepth "
            f"{settings.max_treedepth}: the chains move slowly"
        )
    if bfmi is not None and bfmi < _SMALLEST_BFMI:
        lines.append(f"E-BFMI is {bfmi:.2f} in some chain, below 0.3: tails may be missing")
    lines += _convergence_warnings(settings, found, model.columns)
    if found.not_finite:
        lines.append(
            f"{report['not_finite_draws']} of {total} draws have values that are not finite, in "
            f"{found.not_finite} scalars, for which there is no R-hat or ESS"
        )
    if settings.warmup < WARMUP_THAT_ADAPTS_THE_METRIC and report["initialized_from"] == "random":
        lines.append(
            f"with {settings.warmup} warmup iterations, fewer than "
            f"{WARMUP_THAT_ADAPTS_THE_METRIC}, Stan does not adapt the metric"
        )
    ran_by = report.get("model_engine", report["engine"]), report.get("model_seed", settings.seed)
    same_random_data = ran_by == (model.engine, model.seed)
    if model.program.draws_data and not same_random_data:
        lines.append(
            "the program draws random numbers in its transformed data block, here by the seed "
            f"{settings.seed} of {report['engine_version']}: this posterior differs from that of "
            "the model"
        )
    return lines


def _convergence_warnings(
    settings: NutsSettings, found: Convergence, columns: tuple[str, ...]
) -> list[str]:
    rhat = found.columns["R_hat"]
    ess = np.fmin(found.columns["ESS_bulk"], found.columns["ESS_tail"])
    lines = []
    if settings.chains == 1:
        lines.append("there is one chain, so there is no R-hat: convergence is not checked")
    elif found.max_rhat is None:
        lines.append("no scalar has an R-hat: none of them varies, or draws are too few")
    elif found.max_rhat > _LARGEST_RHAT:
        worst = bracketed(columns[int(np.nanargmax(rhat))])
        lines.append(
            f"R-hat is above {_LARGEST_RHAT} for {(rhat > _LARGEST_RHAT).sum()} of {len(rhat)} "
            f"scalars, at most {found.max_rhat:.3f} for {worst}: the chains disagree; run "
            "them longer"
        )
    enough = _ENOUGH_ESS_PER_CHAIN * settings.chains
    if bool((ess < enough).any()):
        worst = bracketed(columns[int(np.nanargmin(ess))])
        lines.append(
            f"the effective sample size is below {enough} (100 a chain) for "
            f"{(ess < enough).sum()} of {len(ess)} scalars, at least {np.nanmin(ess):.0f} for "
            f"{worst}: run the chains longer"
        )
    return lines
