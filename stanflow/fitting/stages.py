"""What each stage of a fit cost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from stanflow.fitting.fit_report import EvaluationsReport, StageReport
from stanflow.stan.density import CountingTarget


class Stages:
    """Seconds and evaluations of each stage.

    Parameters
    ----------
    target : CountingTarget
        What the stages evaluate.

    Attributes
    ----------
    report : dict
        Seconds, gradients and log densities by stage, in their order.
    """

    def __init__(self, target: CountingTarget) -> None:
        self._target = target
        self.report: dict[str, StageReport] = {}

    @contextlib.contextmanager
    def measured(self, stage: str) -> Iterator[None]:
        """Measure what runs in the block, which may be one of several of the stage."""
        began = time.perf_counter()
        gradients, densities = self._target.gradients, self._target.densities
        yield
        before = self.report.get(
            stage, {"seconds": 0.0, "gradient_evaluations": 0, "density_evaluations": 0}
        )
        self.report[stage] = {
            "seconds": before["seconds"] + time.perf_counter() - began,
            "gradient_evaluations": (
                before["gradient_evaluations"] + self._target.gradients - gradients
            ),
            "density_evaluations": (
                before["density_evaluations"] + self._target.densities - densities
            ),
        }

    def seconds_beside_gradients(self, stage: str, a_gradient: float, parts: int) -> float | None:
        """Return what each part of a stage took beyond its gradients; None where that is nothing.

        Parameters
        ----------
        stage : str
        a_gradient : float
            Seconds.
        parts : int
        """
        cost = self.report[stage]
        seconds = cost["seconds"] - cost["gradient_evaluations"] * a_gradient
        return seconds / parts if seconds > 0 and parts > 0 else None

    def evaluations(self) -> EvaluationsReport:
        """Return how many gradients and log densities all stages took."""
        stages = self.report.values()
        return {
            "gradient_evaluations": sum(stage["gradient_evaluations"] for stage in stages),
            "density_evaluations": sum(stage["density_evaluations"] for stage in stages),
        }
