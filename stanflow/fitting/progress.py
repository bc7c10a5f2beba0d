"""Progress of training, on standard error."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from statistics import median
from types import TracebackType
from typing import Self

from stanflow.training.trainer import TrainStep

_STEPS_SHOWN = 50
_SECONDS_BETWEEN_LINES = 10.0


class TrainProgress:
    """Shows steps, ELBO, seconds and rejected draws: a bar on a terminal, lines in a log.

    The ELBO is the median of the last 50 steps'.

    Parameters
    ----------
    most_steps : int
        How many steps to expect at most.
    constant : float
        Added to the ELBO shown.
    """

    def __init__(self, most_steps: int, constant: float) -> None:
        self._most_steps = most_steps
        self._constant = constant
        self._recent = deque[float](maxlen=_STEPS_SHOWN)
        self._rejected = 0
        self._last_line = time.perf_counter()
        self._bar: _Bar | None = _Bar(most_steps) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        else:
            print("looking for where the posterior is", file=sys.stderr, flush=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, step: TrainStep) -> None:
        """Take note of a step."""
        self._rejected += step.rejected
        if not math.isnan(step.elbo):
            self._recent.append(step.elbo)
        elbo = median(self._recent) + self._constant if self._recent else math.nan
        if self._bar is not None:
            self._bar.show(step, elbo, self._rejected)
            return
        now = time.perf_counter()
        if now - self._last_line > _SECONDS_BETWEEN_LINES or step.step == self._most_steps:
            self._last_line = now
            print(
                f"step {step.step}/{self._most_steps}  ELBO {elbo:.2f}  "
                f"{step.seconds:.1f} s  rejected {self._rejected}",
                file=sys.stderr,
                flush=True,
            )


class _Bar:
    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("ELBO {task.fields[elbo]:.2f}"),
            TextColumn("{task.fields[seconds]:.0f} s"),
            TextColumn("rejected {task.fields[rejected]}"),
            console=Console(stderr=True),
            refresh_per_second=5,
        )
        self._task = self._progress.add_task(
            "looking for where the posterior is",
            total=total,
            elbo=math.nan,
            seconds=0.0,
            rejected=0,
        )

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def show(self, step: TrainStep, elbo: float, rejected: int) -> None:
        self._progress.update(
            self._task,
            description="training",
            completed=step.step,
            elbo=elbo,
            seconds=step.seconds,
            rejected=rejected,
        )
