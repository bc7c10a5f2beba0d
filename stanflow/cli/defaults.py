"""Defaults in the words of the help, from the configurations that have them."""

from __future__ import annotations

from collections.abc import Callable

from stanflow.fitting.presets import preset
from stanflow.flow.config import FlowConfig
from stanflow.refine.config import RefineConfig
from stanflow.training.config import TrainConfig

_DIMENSIONS = range(2, 3000)


def _told(of: Callable[[int], int], in_paper: int | None = None) -> str:
    """Say what a default is in D dimensions, and what the preset ``paper`` takes instead.

    Examples
    --------
    >>> _told(lambda dim: 32 if dim <= 50 else 16, 100)
    '[default: 32, 16 above 50 dimensions; paper: 100]'
    >>> _told(lambda dim: min(4000, 10_000_000 // dim))
    '[default: 4000, fewer above 2500 dimensions]'
    """
    first = of(_DIMENSIONS[0])
    change = next((dim for dim in _DIMENSIONS if of(dim) != first), None)
    told = str(first)
    if change is not None:
        then = "more" if of(change) > first else "fewer"
        then = str(of(change)) if of(change) == of(_DIMENSIONS[-1]) else then
        told += f", {then} above {change - 1} dimensions"
    paper = "" if in_paper is None or in_paper == first else f"; paper: {in_paper}"
    return f"[default: {told}{paper}]"


_FLOW, _TRAINING = FlowConfig(), TrainConfig()
_PAPERS_FLOW, _PAPERS_TRAINING = preset("paper")

FAMILY = f"[default: {_FLOW.family}]"
BASE = f"[default: {_FLOW.base}]"
LAYERS = _told(_FLOW.depth, _PAPERS_FLOW.layers)
HIDDEN = _told(_FLOW.hidden_units, _PAPERS_FLOW.hidden)
BATCH = _told(_TRAINING.draws_a_step, _PAPERS_TRAINING.batch)
MAX_STEPS = (
    _told(lambda dim: RefineConfig().steps_before(dim, otherwise=0), _PAPERS_TRAINING.max_steps)
    + f"  Without refining {_told(_TRAINING.most_steps)}"
)
