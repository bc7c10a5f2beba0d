"""Progress of training, on standard error."""

from __future__ import annotations

import math
import sys
from collections import deque
from statistics import median
from typing import Self

from typing_extensions import override

from stanflow.progress import Progress
from stanflow.refine.refined import RefineStep
from stanflow.training.train_step import TrainStep

_STEPS_SHOWN = 50
_BEFORE_TRAINING = "looking for where the posterior is"


class TrainProgress(Progress):
    """Shows steps, ELBO, seconds, how many of them are gradients', and rejected draws.

    The ELBO is the median of the last 50 steps'.

    Parameters
    ----------
    most_steps : int
        How many steps to expect at most.
    constant : float
        Added to the ELBO shown.
    seconds_of_gradients : float
        What those of a step take.
    """

    def __init__(self, most_steps: int, constant: float, *, seconds_of_gradients: float) -> None:
        super().__init__(_BEFORE_TRAINING, most_steps)
        self._constant = constant
        self._seconds_of_gradients = seconds_of_gradients
        self._first: TrainStep | None = None
        self._recent = deque[float](maxlen=_STEPS_SHOWN)
        self._rejected = 0

    @override
    def __enter__(self) -> Self:
        if self._bar is None:
            print(_BEFORE_TRAINING, file=sys.stderr, flush=True)
        return super().__enter__()

    def __call__(self, step: TrainStep) -> None:
        """Take note of a step."""
        self._rejected += step.rejected
        if not math.isnan(step.elbo):
            self._recent.append(step.elbo)
        elbo = median(self._recent) + self._constant if self._recent else math.nan
        rejected = f"rejected {self._rejected}"
        cost = self._cost(step)
        self.update(
            "training",
            step.step,
            f"ELBO {elbo:.2f}  {cost}" + (f"  {rejected}" if self._rejected else ""),
            f"step {step.step}/{self._total}  ELBO {elbo:.2f}  {step.seconds:.1f} s  "
            f"{cost}  {rejected}",
        )

    def _cost(self, step: TrainStep) -> str:
        """Say what a step takes, and how much of that is the gradients'."""
        if self._first is None:
            self._first = step
        if not step.seconds > self._first.seconds:
            return ""
        taken = (step.seconds - self._first.seconds) / (step.step - self._first.step)
        share = min(1.0, self._seconds_of_gradients / taken)
        return f"{1e3 * taken:.3g} ms a step, {share:.0%} gradients"


class RefineProgress(Progress):
    """Shows how far annealing is.

    A log's lines have the inverse temperature, acceptance, log evidence, R-hat and seconds; a bar,
    which is of the budget of evaluations, what fits beside it.

    Parameters
    ----------
    constant : float
        Added to the log evidence shown.
    """

    def __init__(self, constant: float) -> None:
        super().__init__("annealing", 100)
        self._constant = constant

    def __call__(self, step: RefineStep) -> None:
        """Take note of a round of moves."""
        anneals = step.inverse_temperature < 1
        what = "annealing" if anneals else "outward" if step.outward else "settling"
        rhat = "" if math.isnan(step.rhat) else f"R-hat {step.rhat:.3f}"
        line = (
            f"{what}  inverse temperature {step.inverse_temperature:.3f}  "
            f"acceptance {step.acceptance:.2f}  "
            f"log evidence {step.log_evidence + self._constant:.2f}  {rhat}  "
            f"{step.seconds:.1f} s"
        )
        told = f"inverse temp. {step.inverse_temperature:.3f}" if anneals else rhat
        self.update(what, int(100 * step.share), told, line)
