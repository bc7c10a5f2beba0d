"""What an engine is asked to run, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import stanio

from stanflow.arrays import FloatArray
from stanflow.errors import UsageError, one_line
from stanflow.stan.model import StanModel

Metric = Literal["diag_e", "dense_e"]

STATISTICS = (
    "lp__",
    "accept_stat__",
    "stepsize__",
    "treedepth__",
    "n_leapfrog__",
    "divergent__",
    "energy__",
)
"""What Stan's sampler says of each draw, in the order of CmdStan's CSV files."""

WARMUP_THAT_ADAPTS_THE_METRIC = 150
"""The fewest warmup iterations at which Stan adapts the metric: 75 + 25 + 50, its three stages."""

_LARGEST_INT = 2**31 - 1


@dataclass(frozen=True)
class NutsSettings:
    """How NUTS is run, the same for all engines.

    Attributes
    ----------
    seed : int
        From which every random choice comes; chain c uses Stan's stream (seed, c).
    chains, warmup, draws : int
        Chains, and iterations of each, before and after adaptation ends.
    adapt_delta : float
        The acceptance rate that step size adaptation aims at.
    max_treedepth : int
        Largest number of doublings of a trajectory.
    metric : {"diag_e", "dense_e"}
        Form of the inverse metric.

    Raises
    ------
    UsageError
        A setting is out of range.
    """

    seed: int = 1
    chains: int = 4
    warmup: int = 1000
    draws: int = 1000
    adapt_delta: float = 0.8
    max_treedepth: int = 10
    metric: Metric = "diag_e"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed must be between 0 and {2**32 - 1}, not {self.seed}")
        for name in ("chains", "warmup", "draws", "max_treedepth"):
            value = getattr(self, name)
            if not 1 <= value <= _LARGEST_INT:
                raise UsageError(f"{name} must be at least 1, not {value}")
        if not 0 < self.adapt_delta < 1:
            raise UsageError(f"adapt_delta must be between 0 and 1, not {self.adapt_delta}")
        if self.metric not in get_args(Metric):
            raise UsageError(f"there is no metric {self.metric!r}; choose diag_e or dense_e")


@dataclass(frozen=True)
class ChainStarts:
    """Where chains start, one row a chain, and the metric that they start with.

    Attributes
    ----------
    z : array of shape (chains, D)
        Unconstrained parameters.
    parameters : tuple of mapping
        The same on the scale of the program: a value for each variable of the parameters block.
    inverse_metric : array of shape (D,) or (D, D)
        For ``diag_e`` or ``dense_e``.
    averaged_draws : int
        Draws that the inverse metric was estimated from.
    effective_draws : float
        What these are worth, by their weights.
    """

    z: FloatArray
    parameters: tuple[Mapping[str, Any], ...]
    inverse_metric: FloatArray
    averaged_draws: int
    effective_draws: float


@dataclass(frozen=True)
class NutsRun:
    """What an engine gives back.

    Attributes
    ----------
    engine_version : str
        The engine and its version.
    values : array of shape (chains, draws, n)
        The program's scalars, after warmup.
    statistics : mapping
        Arrays of shape (chains, draws), by the names in `STATISTICS`.
    warmup_gradient_evaluations : int
        Leapfrog steps during warmup, all chains together. The few that find the first step size
        are not among them: Stan does not count these.
    """

    engine_version: str
    values: FloatArray
    statistics: dict[str, FloatArray]
    warmup_gradient_evaluations: int


def split_warmup(
    engine_version: str, values: FloatArray, statistics: FloatArray, warmup: int
) -> NutsRun:
    """Return a run from the draws of both phases.

    Parameters
    ----------
    engine_version : str
        The engine and its version.
    values : array of shape (chains, warmup + draws, n)
        The program's scalars.
    statistics : array of shape (chains, warmup + draws, 7)
        In the order of `STATISTICS`.
    warmup : int
        Iterations of warmup.
    """
    steps = statistics[:, :warmup, STATISTICS.index("n_leapfrog__")]
    return NutsRun(
        engine_version=engine_version,
        values=values[:, warmup:].copy(),
        statistics={name: statistics[:, warmup:, i].copy() for i, name in enumerate(STATISTICS)},
        warmup_gradient_evaluations=int(steps.sum()),
    )


def parameters_of(model: StanModel, values: FloatArray) -> dict[str, Any]:
    """Return the value of each variable of the parameters block, in its declared shape.

    Parameters
    ----------
    model : StanModel
        The program.
    values : array of shape (n,)
        A draw of the program's scalars; the parameters come first.
    """
    columns = model.parameter_columns
    parsed = stanio.parse_header(",".join(columns))
    return {
        name: variable.extract_reshape(values[: len(columns)]) for name, variable in parsed.items()
    }


def complaint(said: str) -> str:
    """Return what Stan said was wrong, on one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    exceptions = [line for line in lines if line.startswith(("Exception", "Error"))]
    telling = list(dict.fromkeys(exceptions[-1:] + lines[-1:]))
    return one_line("; ".join(telling)) if telling else "it said nothing"
