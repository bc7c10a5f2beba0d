"""What each stage of a fit cost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from stanflow.fitting.fit_report import StageReport
from stanflow.stan.density import CountingTarget


class Stages:
    """Seconds and gradient evaluations of each stage.

    Parameters
    ----------
    target : CountingTarget
        What the stages evaluate.

    Attributes
    ----------
    report : dict
        ``{"seconds": ..., "gradient_evaluations": ...}`` by stage, in their order.
    """

    def __init__(self, target: CountingTarget) -> None:
        self._target = target
        self.report: dict[str, StageReport] = {}

    @contextlib.contextmanager
    def measured(self, stage: str) -> Iterator[None]:
        """Measure what runs in the block, which may be one of several of the stage."""
        began, evaluations = time.perf_counter(), self._target.evaluations
        yield
        before = self.report.get(stage, {"seconds": 0.0, "gradient_evaluations": 0})
        self.report[stage] = {
            "seconds": before["seconds"] + time.perf_counter() - began,
            "gradient_evaluations": (
                before["gradient_evaluations"] + self._target.evaluations - evaluations
            ),
        }
