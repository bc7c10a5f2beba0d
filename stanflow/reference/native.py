"""Stan's NUTS in the native engine: chains in threads of this process, without CmdStan.

The library that a program is compiled into for its density also holds Stan's sampler (nuts.cpp),
which runs as CmdStan runs it: the same algorithm, defaults and random numbers.
"""

from __future__ import annotations

import ctypes
import re
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import bridgestan
import numpy as np
import stanio

from stanflow.arrays import FloatArray
from stanflow.errors import NumericsError
from stanflow.reference.progress import NutsProgress
from stanflow.reference.run import (
    STATISTICS,
    WARMUP_THAT_ADAPTS_THE_METRIC,
    ChainStarts,
    NutsRun,
    NutsSettings,
    complaint,
    split_warmup,
)
from stanflow.stan.batch import available_cores

_FUNCTION = "stanflow_nuts"
_SECONDS_BETWEEN_LOOKS = 0.05
_INIT_RADIUS = 2.0

# enum stanflow_nuts_metric and enum stanflow_nuts_result of nuts.cpp
_METRICS = {"diag_e": 0, "dense_e": 1}
_FAILED = 1


def run(
    stan_model: bridgestan.StanModel,
    settings: NutsSettings,
    starts: ChainStarts | None,
    progress: NutsProgress | None,
) -> NutsRun:
    """Run Stan's NUTS in the native engine, chains in parallel up to the cores.

    Parameters
    ----------
    stan_model : bridgestan.StanModel
        The program and its data, in a library built from Stan's headers (BridgeStan's have no
        sampler), with ``settings.seed`` for its transformed data, as CmdStan has it.
    settings : NutsSettings
        How NUTS is run.
    starts : ChainStarts, optional
        Where the chains start; otherwise as Stan starts them, uniform on (-2, 2).
    progress : NutsProgress, optional
        Told of iterations.

    Raises
    ------
    NumericsError
        A chain failed, or found no point to start from; `detail` has Stan's own words.
    """
    iterations = settings.warmup + settings.draws
    statistics = np.empty((settings.chains, iterations, len(STATISTICS)))
    n_values = stan_model.param_num(include_tp=True, include_gq=True)
    values = np.empty((settings.chains, iterations, n_values))
    stop = ctypes.c_int(0)
    chains = [
        _Chain(
            number,
            stan_model,
            _settings(number, settings, starts),
            statistics[number - 1],
            values[number - 1],
            stop,
        )
        for number in range(1, settings.chains + 1)
    ]
    _run_to_the_end(chains, stop, progress)
    return split_warmup(_version(stan_model), values, statistics, settings.warmup)


def _version(stan_model: bridgestan.StanModel) -> str:
    told = re.search(r"^Stan version: (\S+)", stan_model.model_info(), re.MULTILINE)
    return f"Stan {told[1]}" if told else "Stan"


# ---- Running chains ---------------------------------------------------------------------------


class _Settings(ctypes.Structure):
    """Struct stanflow_nuts_settings of nuts.cpp."""

    _fields_ = (
        ("metric", ctypes.c_int),
        ("seed", ctypes.c_uint),
        ("chain", ctypes.c_uint),
        ("init_radius", ctypes.c_double),
        ("init", ctypes.c_char_p),
        ("inverse_metric", ctypes.POINTER(ctypes.c_double)),
        ("warmup", ctypes.c_int),
        ("draws", ctypes.c_int),
        ("adapt_delta", ctypes.c_double),
        ("max_depth", ctypes.c_int),
        ("init_buffer", ctypes.c_uint),
        ("term_buffer", ctypes.c_uint),
        ("window", ctypes.c_uint),
    )


def _settings(chain: int, settings: NutsSettings, starts: ChainStarts | None) -> _Settings:
    given = _Settings(
        metric=_METRICS[settings.metric],
        seed=settings.seed,
        chain=chain,
        init_radius=_INIT_RADIUS,
        warmup=settings.warmup,
        draws=settings.draws,
        adapt_delta=settings.adapt_delta,
        max_depth=settings.max_treedepth,
        init_buffer=75,
        term_buffer=50,
        window=25,
    )
    if starts is not None:
        elements = starts.inverse_metric.ravel().tolist()
        given.init = stanio.dump_stan_json(starts.parameters[chain - 1]).encode()
        given.inverse_metric = (ctypes.c_double * len(elements))(*elements)
        if settings.warmup < WARMUP_THAT_ADAPTS_THE_METRIC:
            # So short, Stan keeps the metric, though it says that it shortens the stages. Said
            # outright, it holds for versions that do as they say, too.
            given.init_buffer, given.term_buffer, given.window = 0, settings.warmup, 0
    return given


@dataclass
class _Chain:
    """One chain: what it is to do, where its draws go, and how far it has come."""

    number: int
    stan_model: bridgestan.StanModel
    settings: _Settings
    statistics: FloatArray
    values: FloatArray
    stop: ctypes.c_int
    iteration: ctypes.c_int = field(default_factory=ctypes.c_int)

    def run(self) -> None:
        """Run to the end, or until `stop` is not zero; other threads run on meanwhile."""
        library = self.stan_model.stanlib
        error = ctypes.c_char_p()
        result = _nuts(library)(
            self.stan_model.model, ctypes.byref(self.settings), self.statistics.ctypes.data,
            self.values.ctypes.data, ctypes.byref(self.stop), ctypes.byref(self.iteration),
            ctypes.byref(error),
        )  # fmt: skip
        said = (error.value or b"").decode("utf-8", "replace").strip()
        library.bs_free_error_msg(error)
        if result == _FAILED:
            raise NumericsError(f"chain {self.number} of NUTS failed: {complaint(said)}", said)


def _nuts(library: ctypes.CDLL) -> Any:
    pointer = ctypes.c_void_p
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, *[pointer] * 7)
    return prototype(ctypes.cast(getattr(library, _FUNCTION), pointer).value or 0)


def _run_to_the_end(
    chains: list[_Chain], stop: ctypes.c_int, progress: NutsProgress | None
) -> None:
    """Run all chains, as many at once as there are cores; leave no thread behind.

    This thread waits in short steps, so that Ctrl-C is heard.
    """
    pool = ThreadPoolExecutor(min(len(chains), available_cores()))
    try:
        running = {pool.submit(chain.run) for chain in chains}
        while running:
            done, running = wait(running, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
            if progress is not None:
                for chain in chains:
                    progress.show(chain.number, chain.iteration.value)
            for ended in done:
                ended.result()
    finally:
        stop.value = 1
        pool.shutdown(cancel_futures=True)
