"""How a flow is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from stanflow.errors import UsageError
from stanflow.flow.config import Memory

Gradient = Literal["path", "total"]
Start = Literal["ensemble", "mean-field", "none"]
Schedule = Literal["plateau", "cosine", "constant"]
Precision = Literal["float32", "float64"]
Device = Literal["cpu", "cuda"]
StopReason = Literal["converged", "max_steps", "max_seconds", "interrupted", "breakdown"]

_CHOICES = {
    "gradient": Gradient,
    "start": Start,
    "schedule": Schedule,
    "precision": Precision,
    "memory": Memory,
    "device": Device,
}

# Path gradients' noise vanishes where the flow is nearly the target, so few draws serve.
_FEW_DIMENSIONS, _MANY_DIMENSIONS = 20, 500
_SPARING_BATCH_IN_FEW_DIMENSIONS, _SPARING_BATCH = 32, 64
_BATCH, _BATCH_IN_MANY_DIMENSIONS = 256, 128
_MOST_STEPS, _DIMENSIONS_WITH_ALL_STEPS = 4000, 2500


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Parameters
    ----------
    batch : int, optional
        Draws a step; by default 256, and 128 above 500 dimensions; where gradients are spared 32,
        and 64 above 20 dimensions.
    max_steps : int, optional
        Most steps to take; by default 4000, fewer above 2500 dimensions, where each takes long.
    max_seconds : float, optional
        Stop after this long, wherever the steps are; `stanflow.fit` judges within it, too. Except
        with a constant learning rate, the rate falls towards that moment.
    min_steps : int
        Steps before the trace may say that the ELBO no longer rises.
    learning_rate : float, optional
        Adam's, at the start; by default 0.005, less above 200 dimensions, whose
        errors add up.
    adam_betas : (float, float)
        Adam's decay rates of the averages of gradients and of their squares.
    schedule : {"plateau", "cosine", "constant"}
        Whether the learning rate stays until the ELBO no longer rises and falls to near zero then,
        whereupon training ends, earlier where the log weights leave hardly anything to gain (see
        `schedule.Plateau`); falls over the whole of `max_steps`; or stays.
    gradient : {"path", "total"}
        The estimator of the ELBO's gradient: with or without the path's part alone. Path
        gradients vanish, draw by draw, where the flow is the target.
    max_gradient_norm : float, optional
        Gradients longer than this are shortened to it, and before that the share that a single
        draw has in a path gradient, to ``sqrt(D)`` times this; None leaves them.
    tail_share : float
        Share of a batch's draws that have a few coordinates spread out, to where importance
        weights are decided (see `gradients`); 0 for none. The ELBO is that of the others.
        `stanflow.fit` takes 0 for Gaussian families.
    start : {"ensemble", "mean-field", "none"}
        Whether training runs in units of a few Hamiltonian chains' draws, or of a quick mean-field
        fit, or starts at the origin with scale one; see `start.begin`.
    whiten : bool
        Whether these units may be correlated, where correlations are most of the posterior's shape
        (see `whitening`); with ``start="ensemble"`` only. `stanflow.fit` takes False for Gaussian
        families.
    noncenter : bool
        Whether coordinates whose scale others set may be in units of it (see `noncentering`); with
        ``start="ensemble"`` only. `stanflow.fit` takes False for Gaussian families.
    keep_best : bool
        Whether to return the parameters of the batch with the highest ELBO in the second half of
        `max_steps`, or since the learning rate began to fall, instead of the last ones.
    precision : {"float32", "float64"}
        Of the flow in training. The target, and whatever is reported, is in float64 always.
    memory : {"auto", "keep", "rebuild"}
        Whether layers keep their activations for the reverse sweep or rebuild them by inversion,
        in memory that does not grow with depth; "auto" keeps what fits `memory_budget_mb`.
    memory_budget_mb : float
        For activations, in megabytes.
    device : {"cpu", "cuda"}
        Where the flow is trained; Stan runs on the CPU's threads.
    spare_gradients : bool, optional
        Whether to take few gradients: small batches, and a short look for where the posterior is.
        By default up to 20 dimensions; and above, with 64 draws a step at most, where
        `stanflow.fit` measures that one takes 50 microseconds or more, which sets it to True. Where
        a program is near that, only a value given makes a run repeatable. `stanflow.fit` takes
        False for Gaussian families, whose gradients' noise does not vanish.

    Raises
    ------
    UsageError
        A value is out of range.
    """

    batch: int | None = None
    max_steps: int | None = None
    max_seconds: float | None = None
    min_steps: int = 1000
    learning_rate: float | None = None
    adam_betas: tuple[float, float] = (0.9, 0.99)
    schedule: Schedule = "plateau"
    gradient: Gradient = "path"
    max_gradient_norm: float | None = 100.0
    tail_share: float = 0.5
    start: Start = "ensemble"
    whiten: bool = True
    noncenter: bool = True
    keep_best: bool = False
    precision: Precision = "float32"
    memory: Memory = "auto"
    memory_budget_mb: float = 2000.0
    device: Device = "cpu"
    spare_gradients: bool | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "max_steps", "min_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "max_gradient_norm", "max_seconds", "memory_budget_mb"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name} must be positive, not {value}")
        for name in ("learning_rate", "memory_budget_mb"):
            if getattr(self, name) == math.inf:
                raise UsageError(f"{name} must be finite")
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise UsageError(f"adam_betas must be in [0, 1), not {self.adam_betas}")
        if not 0 <= self.tail_share < 1:
            raise UsageError(f"tail_share must be in [0, 1), not {self.tail_share}")
        if self.tail_share > 0 and self.gradient == "total":
            raise UsageError("total gradients need tail_share 0: only path gradients vanish there")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(choices):
                options = " or ".join(get_args(choices))
                raise UsageError(f"{name} must be {options}, not {value!r}")

    def check_device(self) -> None:
        """Raise UsageError where the device is not there."""
        if self.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                raise UsageError(
                    "there is no CUDA device that torch can use here; take device='cpu'"
                )

    def draws_a_step(self, dim: int) -> int:
        """Return the batch in D dimensions."""
        if self.batch is not None:
            return self.batch
        if not self.spares_gradients(dim):
            return _BATCH if dim <= _MANY_DIMENSIONS else _BATCH_IN_MANY_DIMENSIONS
        return _SPARING_BATCH if dim > _FEW_DIMENSIONS else _SPARING_BATCH_IN_FEW_DIMENSIONS

    def spares_gradients(self, dim: int) -> bool:
        """Return whether few gradients are taken in D dimensions."""
        return dim <= _FEW_DIMENSIONS if self.spare_gradients is None else self.spare_gradients

    def most_steps(self, dim: int) -> int:
        """Return the most steps to take in D dimensions."""
        if self.max_steps is not None:
            return self.max_steps
        return round(_MOST_STEPS * min(1.0, math.sqrt(_DIMENSIONS_WITH_ALL_STEPS / dim)))

    def first_learning_rate(self, dim: int) -> float:
        """Return the first learning rate in D dimensions."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 0.005 * min(1.0, math.cbrt(200 / dim))

    def resolved(self, dim: int) -> TrainConfig:
        """Return the configuration with what depends on the dimension D filled in."""
        return replace(
            self,
            batch=self.draws_a_step(dim),
            max_steps=self.most_steps(dim),
            learning_rate=self.first_learning_rate(dim),
        )
