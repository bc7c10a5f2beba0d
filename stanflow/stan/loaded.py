"""What either engine gives: a bridgestan.StanModel, and what the engine can promise of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import bridgestan

from stanflow.arrays import FloatArray
from stanflow.stan.printing import PrintSink

EngineName = Literal["embedded", "native"]


@dataclass(frozen=True)
class LoadedModel:
    """A program conditioned on data, loaded by an engine.

    Attributes
    ----------
    stan_model : bridgestan.StanModel
        The model.
    engine, engine_version : str
        Which engine loaded it.
    stan_version : str or None
        The version of Stan whose language and functions these are.
    thread_safe : bool
        Whether several threads may evaluate it at once.
    printing : PrintSink
        Where its print statements go.
    log_density_with_constants : callable
        Maps an unconstrained draw of shape (D,) to its log density with all the constants that
        ``~`` statements drop. Raises EngineError where the engine cannot tell it.
    """

    stan_model: bridgestan.StanModel
    engine: EngineName
    engine_version: str
    stan_version: str | None
    thread_safe: bool
    printing: PrintSink
    log_density_with_constants: Callable[[FloatArray], float]
