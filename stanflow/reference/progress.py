"""Progress of NUTS, on standard error."""

from __future__ import annotations

import time

from stanflow.progress import Progress
from stanflow.reference.run import NutsSettings


class NutsProgress(Progress):
    """Shows iterations of all chains together.

    Parameters
    ----------
    settings : NutsSettings
        Says how many iterations to expect.
    """

    def __init__(self, settings: NutsSettings) -> None:
        self._settings = settings
        self._each = settings.warmup + settings.draws
        self._done = dict.fromkeys(range(1, settings.chains + 1), 0)
        self._began = time.perf_counter()
        super().__init__("NUTS", settings.chains * self._each)

    def show(self, chain: int, iteration: int) -> None:
        """Take note of how far a chain has come.

        Parameters
        ----------
        chain : int
            From 1 on.
        iteration : int
            Its last finished iteration, warmup included.
        """
        before = self._done[chain]
        self._done[chain] = max(before, min(iteration, self._each))
        if self._done[chain] == before:
            return
        done = sum(self._done.values())
        sampling = sum(done > self._settings.warmup for done in self._done.values())
        told = f"{sampling} past warmup"
        self.update(
            "NUTS",
            done,
            told,
            f"iteration {done}/{self._total} of {self._settings.chains} chains  {told}  "
            f"{time.perf_counter() - self._began:.1f} s",
        )
