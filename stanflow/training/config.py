"""How a flow is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stanflow.errors import UsageError


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Parameters
    ----------
    batch : int
        Draws a step.
    max_steps : int
        Steps to take; the learning rate falls from its start to near zero over them.
    max_seconds : float, optional
        Stop after this long, wherever the steps are.
    learning_rate : float, optional
        Adam's, at the start; by default 0.02, less above ten dimensions.
    max_gradient_norm : float
        Gradients longer than this are shortened to it.

    Raises
    ------
    UsageError
        A value is out of range.
    """

    batch: int = 256
    max_steps: int = 1500
    max_seconds: float | None = None
    learning_rate: float | None = None
    max_gradient_norm: float = 100.0

    def __post_init__(self) -> None:
        for name in ("batch", "max_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "max_gradient_norm", "max_seconds"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and not math.isnan(value)):
                raise UsageError(f"{name} must be positive, not {value}")
