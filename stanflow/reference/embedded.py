"""Stan's NUTS in the embedded engine: for machines without CmdStan."""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import warnings

import numpy as np
import stanli
from typing_extensions import override

from stanflow.arrays import FloatArray
from stanflow.errors import (
    DataError,
    EngineError,
    NumericsError,
    one_line,
    what_brings_native,
)
from stanflow.reference.progress import NutsProgress
from stanflow.reference.run import (
    ChainStarts,
    NutsRun,
    NutsSettings,
    parameters_of,
    split_warmup,
)
from stanflow.stan import embedded, stanc
from stanflow.stan.batch import available_cores
from stanflow.stan.model import StanModel
from stanflow.stan.printing import print_to_stderr
from stanflow.stan.program import StanProgram

_REPORTS_A_CHAIN = 100
_ITERATION = re.compile(r"Chain \[(\d+)\] Iteration: +(\d+)")


def run(
    model: StanModel,
    settings: NutsSettings,
    starts: ChainStarts | None,
    progress: NutsProgress | None,
) -> NutsRun:
    """Run Stan's NUTS in the embedded engine, chains in parallel up to the cores.

    Parameters
    ----------
    model : StanModel
        The program and its data, loaded by whichever engine.
    settings : NutsSettings
        How NUTS is run.
    starts : ChainStarts, optional
        Where the chains start; otherwise as Stan starts them, uniform on (-2, 2).
    progress : NutsProgress, optional
        Told of iterations.

    Raises
    ------
    ProgramError, DataError, EngineError
        The embedded engine cannot run the program.
    NumericsError
        A chain failed, or found no point to start from.
    """
    if model.engine != "embedded":
        _check_runs_here(model, settings.seed)
    sampled = _sample(model, model.program, settings, starts, progress)
    values = sampled.draws()
    if np.isnan(values[..., : len(model.parameter_columns)]).any():
        # Where generated quantities fail, the engine gives up the whole draw. CmdStan keeps the
        # parameters; so do we, by a run without generated quantities, which are computed after it.
        program = model.program.without_block("generated quantities")
        sampled = _sample(model, program, settings, starts, None)
        values = _with_generated(model, sampled.draws(), settings.seed)
    return split_warmup(embedded.version(), values, sampled.sampler_stats, settings.warmup)


def _check_runs_here(model: StanModel, seed: int) -> None:
    try:
        embedded.load(model.program, model.data, seed)
    except EngineError as error:
        raise EngineError(
            f"the embedded engine cannot run {model.program.label}, so NUTS needs the native one "
            f"({what_brings_native()}), CmdStan (`python -m cmdstanpy.install_cmdstan`), or the "
            "program as CmdStan has compiled it (--exe, exe= in Python)",
            str(error),
        ) from None


def _sample(
    model: StanModel,
    program: StanProgram,
    settings: NutsSettings,
    starts: ChainStarts | None,
    progress: NutsProgress | None,
) -> stanli.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # loading has raised for these
        sampler = stanli.Model(
            mir=stanc.to_mir(embedded.mended(program).expanded),
            data=model.data.json,
            seed=settings.seed,
        )
    print_to_stderr(ctypes.CDLL(str(stanli._runtime_lib_path())))
    iterations = settings.warmup + settings.draws
    try:
        with _watched(progress):
            return sampler.sample(
                chains=settings.chains,
                seed=settings.seed,
                warmup=settings.warmup,
                samples=settings.draws,
                delta=settings.adapt_delta,
                max_depth=settings.max_treedepth,
                save_warmup=True,
                inits=None if starts is None else starts.z,
                parallel_chains=min(settings.chains, available_cores()),
                refresh=0 if progress is None else max(1, iterations // _REPORTS_A_CHAIN),
                metric=settings.metric,
                inv_metric=None if starts is None else starts.inverse_metric,
            )
    except RuntimeError as error:
        raise NumericsError(
            f"NUTS in the embedded engine failed for {program.label}: {one_line(error)}",
            str(error),
        ) from None


def _with_generated(model: StanModel, values: FloatArray, seed: int) -> FloatArray:
    """Return draws of all scalars from draws without those of generated quantities."""
    n = len(model.parameter_columns)
    rows = values.reshape(-1, values.shape[-1])
    z = np.zeros((len(rows), model.dim))
    known = np.ones(len(rows), dtype=bool)
    for i, draw in enumerate(rows):
        try:
            z[i] = model.unconstrain(parameters_of(model, draw[:n]))
        except DataError:  # by rounding, on the boundary of a constraint
            known[i] = False
    whole = np.full((len(rows), len(model.columns)), np.nan)
    whole[known] = model.constrain(z[known], seed=seed).values
    whole[:, : rows.shape[1]] = rows
    return whole.reshape(*values.shape[:2], -1)


def _watched(progress: NutsProgress | None) -> contextlib.AbstractContextManager[object]:
    """Read the progress that the sampler prints to Python's standard output."""
    if progress is None:
        return contextlib.nullcontext()
    return contextlib.redirect_stdout(_ProgressReader(progress))


class _ProgressReader(io.TextIOBase):
    def __init__(self, progress: NutsProgress) -> None:
        self._progress = progress

    @override
    def write(self, text: str) -> int:
        reported = _ITERATION.match(text)
        if reported is not None:
            self._progress.show(int(reported[1]), int(reported[2]))
        return len(text)
