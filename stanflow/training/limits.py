"""How long a training run may take: a time, Ctrl-C, SIGTERM."""

from __future__ import annotations

import math
import time

from stanflow.training.config import StopReason
from stanflow.training.interruption import Interruption

_START_SHARE = 0.3  # of the time


class Limits(Interruption):
    """A clock beside an interruption, for the start and the steps together.

    Parameters
    ----------
    max_seconds : float, optional
        Stop after this long.
    spent : float, optional
        Seconds that a run took before it was cut off, where this one goes on with it.
    """

    def __init__(self, max_seconds: float | None = None, spent: float | None = None) -> None:
        super().__init__()
        self._max_seconds = math.inf if max_seconds is None else max_seconds
        self._goes_on = spent is not None
        self._began = time.perf_counter() - (spent or 0.0)

    @property
    def seconds(self) -> float:
        """How long the run has taken, from the beginning of its start."""
        return time.perf_counter() - self._began

    def reason_to_stop(self) -> StopReason | None:
        """Return why training must end after the step under way; None where it need not."""
        if self.requested:
            return "interrupted"
        return "max_seconds" if self.seconds >= self._max_seconds else None

    def end_the_start(self) -> bool:
        """Return whether the start must end with what it has found so far.

        A run that goes on needs the very start that it had, even where its time is spent.

        Raises
        ------
        KeyboardInterrupt
            SIGTERM came: nothing is learnt yet that could be kept.
        """
        if self.terminated:
            raise KeyboardInterrupt
        out_of_time = self.seconds >= _START_SHARE * self._max_seconds
        return not self._goes_on and (self.requested or out_of_time)
