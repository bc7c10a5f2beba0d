"""What a gradient of the program costs, and whether that is much."""

from __future__ import annotations

import time

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.stan.density import Target
from stanflow.training.checkpoint import Keep

_POINTS, _TIMES = 16, 3
_DEAR = 5e-5  # seconds


def seconds_a_gradient(target: Target) -> float:
    """Return how long a gradient takes, with others beside it on all threads.

    Parameters
    ----------
    target : Target
        The posterior; 48 gradients are timed.

    Raises
    ------
    InitializationError
        The log density is not finite at any starting point.
    """
    points = target.starting_points(_POINTS, np.random.default_rng(0))
    return min(_seconds(target, points) for _ in range(_TIMES)) / _POINTS


def _seconds(target: Target, points: FloatArray) -> float:
    began = time.perf_counter()
    target.log_density_gradient(points)
    return time.perf_counter() - began


def are_dear(seconds: float, keep: Keep | None) -> bool:
    """Return whether gradients that take so long are to be saved.

    Parameters
    ----------
    seconds : float
        From `seconds_a_gradient`.
    keep : Keep or None
        Where the answer is kept: a run that goes on needs the one it began with.
    """
    if keep is not None and keep.state is not None:
        return bool(keep.state["dear"])
    dear = seconds > _DEAR
    if keep is not None:
        keep.add({"dear": torch.tensor(dear)})
    return dear
