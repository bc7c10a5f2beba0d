"""What is told of a step of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.training.checkpoint import State


@dataclass(frozen=True)
class TrainStep:
    """One step of training, for the trace and the progress bar.

    Attributes
    ----------
    step : int
        Counted from 1.
    seconds : float
        Since training began.
    elbo : float
        The batch's estimate, Stan's constants left out; NaN if every draw was rejected.
    log_weight_sd : float
        Standard deviation of the batch's log p - log q: near zero, and half its square about the
        divergence KL(q | p), where the flow is nearly the target. NaN for fewer than two draws.
    gradient_norm : float
        Before it was shortened; NaN if the step was skipped.
    rejected : int
        Draws of the batch without finite log density and gradient.
    largest : array of shape (r + 1,)
        Largest ``|x|`` after the base and after each of the r coupling layers, in the flow's own
        units.
    """

    step: int
    seconds: float
    elbo: float
    log_weight_sd: float
    gradient_norm: float
    rejected: int
    largest: FloatArray


def as_state(steps: Sequence[TrainStep]) -> State:
    """Return steps as tensors, of shape (steps, 6) and (steps, r + 1); see `from_state`."""
    rows = [
        [s.step, s.seconds, s.elbo, s.log_weight_sd, s.gradient_norm, s.rejected] for s in steps
    ]
    return {
        "steps": torch.tensor(rows, dtype=torch.float64),
        "largest": torch.from_numpy(np.stack([s.largest for s in steps])),
    }


def from_state(state: State) -> list[TrainStep]:
    """Return the steps of which `as_state` was asked."""
    return [
        TrainStep(int(step), seconds, elbo, sd, norm, int(rejected), largest)
        for (step, seconds, elbo, sd, norm, rejected), largest in zip(
            state["steps"].tolist(), state["largest"].numpy(), strict=True
        )
    ]
