"""What a process tells of its fit while that is under way."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stanflow.service.json_values import finite

if TYPE_CHECKING:
    from stanflow.refine.refined import RefineStep
    from stanflow.training.train_step import TrainStep

_SECONDS_BETWEEN_LINES = 0.25


class Teller:
    """Tells how a fit stands, every quarter of a second and when refining ends.

    Parameters
    ----------
    write : callable
        Takes a line of JSON, a `schemas.Step`.
    constant : float
        Added to ELBO and log evidence.
    """

    def __init__(self, write: Callable[[str], None], constant: float) -> None:
        self._write, self._constant = write, constant
        self._last_told = -math.inf
        self._trained: TrainStep | None = None

    def step(self, step: TrainStep) -> None:
        """Take note of a step of training."""
        self._trained = step
        if self._is_due():
            self._tell(self._of_training(step))

    def round(self, step: RefineStep) -> None:
        """Take note of a round of refining; there is none to tell before a step of training."""
        if self._trained is None or not (self._is_due() or step.share == 1):
            return
        refine = {
            "round": step.round,
            "seconds": round(step.seconds, 3),
            "inverse_temperature": step.inverse_temperature,
            "acceptance": finite(step.acceptance),
            "rhat": finite(step.rhat),
            "log_evidence": finite(step.log_evidence + self._constant),
            "share": step.share,
            "outward": step.outward,
        }
        self._tell({**self._of_training(self._trained), "refine": refine})

    def _of_training(self, step: TrainStep) -> dict[str, Any]:
        return {
            "step": step.step,
            "seconds": round(step.seconds, 3),
            "elbo": finite(step.elbo + self._constant),
            "rejected": step.rejected,
        }

    def _is_due(self) -> bool:
        return time.monotonic() - self._last_told >= _SECONDS_BETWEEN_LINES

    def _tell(self, told: dict[str, Any]) -> None:
        self._last_told = time.monotonic()
        self._write(json.dumps(told))
